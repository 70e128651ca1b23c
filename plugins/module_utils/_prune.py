# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of pruning as arguments of the host's program in a unit."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError

_UNTIL = re.compile(r"^(\d+(h|m|s))+$")
_LABEL = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._/-]*(=[^\s%$]*)?$")


def prune_options(options: Mapping[str, Any]) -> str:
    """The arguments of ``matryoshka prune``, quoted for a unit's ExecStart.

    :param options: ``until`` (age in Go's form: 168h), ``keep_labels`` (list of KEY or
        KEY=VALUE), ``build_cache`` (bool), ``wait`` (seconds to wait for jobs to end).
    """
    until, wait = str(options["until"]), str(options["wait"])
    if not _UNTIL.match(until):
        raise InputError(
            "prune_engine_until or prune_runners_until", until, "an age such as 168h, 90m or 1h30m"
        )
    if not re.fullmatch(r"\d{1,6}", wait):
        raise InputError("prune_wait", wait, "a whole number of seconds from 0 to 999999")
    words = ["--until", until, "--wait", wait]
    for label in options["keep_labels"]:
        if not _LABEL.match(str(label)):
            raise InputError("prune_keep_labels", label, "KEY or KEY=VALUE without white space, $ and %")
        words += ["--keep-label", str(label)]
    if options["build_cache"]:
        words.append("--build-cache")
    return shlex.join(words)
