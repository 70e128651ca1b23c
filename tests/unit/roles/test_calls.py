# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role says that it will call is what its tasks call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[3] / "roles"
KINDS = (
    "config_files",
    "daemon_config",
    "environment_image",
    "kernel_settings",
    "netfilter_rules",
    "slice_limits",
    "storage_volume_info",
    "systemd_units",
    "verify",
)
# Files that tasks include only where something is to be installed or removed.
CONDITIONAL = {
    *("packages.yml", "remove.yml", "removed.yml", "remove_packages.yml"),
    *("devices.yml", "filesystems.yml", "settings.yml"),
}


def said(role: Path) -> list[Any]:
    variables = yaml.safe_load((role / "vars" / "main.yml").read_text()) if (role / "vars").exists() else {}
    return [(call["module"], call["arguments"]) for call in (variables or {}).get(f"__{role.name}_calls", [])]


def called(role: Path) -> list[Any]:
    found = []
    for path in sorted((role / "tasks").glob("*.yml")):
        if path.name in CONDITIONAL:
            continue
        for task in yaml.safe_load(path.read_text()) or []:
            found += [(kind, task[key]) for kind in KINDS if (key := f"matryoshka.host.{kind}") in task]
    return found


@pytest.mark.parametrize("role", sorted(path.name for path in ROLES.iterdir()))
def test_calls_are_said_as_they_are_made(role: str) -> None:
    def ordered(calls: list[Any]) -> list[str]:
        return sorted(map(repr, calls))

    assert ordered(said(ROLES / role)) == ordered(called(ROLES / role))


def test_the_test_sees_calls() -> None:
    assert sum(len(called(role)) for role in ROLES.iterdir()) >= 7
