# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_apply import ARGUMENTS
from ansible_collections.matryoshka.host.plugins.modules import systemd_units as module

DOCUMENTED = yaml.safe_load(module.DOCUMENTATION)["options"]


def stripped(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without their descriptions, defaults as Ansible means them."""
    found = {}
    for name, option in options.items():
        inner = option.get("suboptions", option.get("options"))
        kept = {key: option[key] for key in ("type", "elements", "choices") if key in option}
        kept |= {"required": option.get("required", False), "default": option.get("default")}
        found[name] = kept | ({"options": stripped(inner)} if inner else {})
    return found


def test_documentation_and_arguments_agree() -> None:
    assert stripped(DOCUMENTED) == stripped(ARGUMENTS)


@pytest.mark.parametrize("text", [module.EXAMPLES, module.RETURN])
def test_documentation_is_yaml(text: str) -> None:
    assert yaml.safe_load(text)


def test_examples_are_accepted() -> None:
    from ansible_collections.matryoshka.host.plugins.module_utils._systemd_wanted import parse_wanted

    for task in yaml.safe_load(module.EXAMPLES):
        call = task["matryoshka.host.systemd_units"]
        assert set(call) <= set(ARGUMENTS)
        assert parse_wanted(call["owner"], call["units"])
