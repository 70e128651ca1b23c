# SPDX-License-Identifier: GPL-3.0-or-later
"""``ansible-doc`` answers for every plugin and every role."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "playbooks" / "collections"))


def names(kind: str) -> list[str]:
    if kind == "role":
        return sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
    if kind == "filter":
        from importlib import import_module

        package = "ansible_collections.matryoshka.host.plugins.filter"
        files = [path.stem for path in (ROOT / "plugins" / "filter").glob("*.py")]
        return sorted(
            name for file in files for name in import_module(f"{package}.{file}").FilterModule().filters()
        )
    return sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))


@pytest.mark.parametrize("kind", ["module", "filter", "role"])
def test_everything_is_documented(kind: str) -> None:
    wanted = [f"matryoshka.host.{name}" for name in names(kind)]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-doc")), "--type", kind, "--json", *wanted],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks" / "collections")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert sorted(answers) == wanted, done.stderr
    for name, answer in answers.items():
        if kind != "role":
            assert answer["doc"]["short_description"], name
            assert answer["examples"], name
