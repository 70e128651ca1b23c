# SPDX-License-Identifier: GPL-3.0-or-later
"""The read-only modules' documentation says what their arguments are."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible_collections.matryoshka.host.plugins.modules import (
    block_device_info,
    bridge_info,
    data_root_info,
    engine_storage_info,
    host_info,
    overlay_info,
    pending_changes,
)

MODULES = pytest.mark.parametrize(
    "module",
    [
        block_device_info,
        bridge_info,
        data_root_info,
        engine_storage_info,
        host_info,
        overlay_info,
        pending_changes,
    ],
    ids=lambda one: one.__name__.split(".")[-1],
)


def stripped(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without their descriptions; the default of none is None, as Ansible has it."""
    found = {}
    for name, option in options.items():
        inner = option.get("suboptions", option.get("options"))
        kept = {key: option.get(key) for key in ("type", "elements", "choices", "default", "aliases")}
        found[name] = kept | ({"options": stripped(inner)} if inner else {})
    return found


@MODULES
def test_documentation_and_arguments_agree(module: ModuleType) -> None:
    assert stripped(yaml.safe_load(module.DOCUMENTATION)["options"]) == stripped(module.ARGUMENTS)


@MODULES
def test_examples_use_known_options(module: ModuleType) -> None:
    name = "matryoshka.host." + module.__name__.split(".")[-1]
    calls = [task[name] for task in yaml.safe_load(module.EXAMPLES) if name in task]
    assert calls
    for call in calls:
        assert set(call or {}) <= set(module.ARGUMENTS)


@MODULES
def test_return_values_are_documented(module: ModuleType) -> None:
    for name, value in yaml.safe_load(module.RETURN).items():
        assert {"description", "returned", "type"} <= set(value), name
