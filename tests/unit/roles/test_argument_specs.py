# SPDX-License-Identifier: GPL-3.0-or-later
"""Defaults stand in two places; here they are compared. README tables are made from one of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


def load(role: str, part: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "roles" / role / part).read_text(encoding="utf-8"))


def specs(role: str) -> dict[str, Any]:
    return load(role, "meta/argument_specs.yml")["argument_specs"]


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_specs_agree(role: str) -> None:
    options = specs(role)["main"].get("options", {})
    described = {name: option["default"] for name, option in options.items() if "default" in option}
    assert described == load(role, "defaults/main.yml")


@pytest.mark.parametrize("role", ROLES)
def test_every_public_option_belongs_to_the_role(role: str) -> None:
    assert all(name.startswith(f"{role}_") for name in specs(role)["main"].get("options", {}))


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_has_its_tasks_and_is_described(role: str) -> None:
    for entry, spec in specs(role).items():
        assert (ROOT / "roles" / role / "tasks" / f"{entry}.yml").is_file()
        assert spec["short_description"]


@pytest.mark.parametrize("role", ROLES)
def test_vars_are_internal(role: str) -> None:
    for path in (ROOT / "roles" / role / "vars").glob("*.yml"):
        names = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        assert [name for name in names if not name.startswith(f"__{role}_")] == []


def test_readme_tables_are_not_stale() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "docs" / "role_readmes.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
