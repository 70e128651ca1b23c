# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints nothing: has a playbook's run share with others of this checkout what it packs and compiles, and its tasks their plugins."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bytecode import precompile
from packed import compile_once, load, share

DOCUMENTATION = """
name: packed_modules
type: aggregate
short_description: Share packed modules, loaded plugins and compiled templates
description:
  - Modules that one run of Ansible has packed, with bytecode for Debian 13's Python, are used by the next.
  - Plugins are loaded once for all tasks, and templates are compiled once.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Loaded before the first task, in the process that all others are forked from."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "packed_modules"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        folder = share()
        load()
        compile_once(folder)
        precompile(folder)
