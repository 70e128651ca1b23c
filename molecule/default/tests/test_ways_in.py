# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways in that README shows: other releases of ansible-core, and the installed collection."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from live import ROOT, Site

STATE = ROOT / ".dev"


def run(argv: list[str], folder: Path, **environment: str) -> str:
    """Output of a program that has to succeed, with stock Ansible settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    done = subprocess.run(
        argv,
        cwd=folder,
        env={**kept, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def changed(output: str) -> int:
    """How many tasks changed something, by the play's recap."""
    found = re.search(r"changed=(\d+) +unreachable=0 +failed=0", output)
    assert found, output
    return int(found[1])


@pytest.mark.parametrize("release", ["2.17", "2.18"])
def test_older_ansible_finds_nothing_to_change(defaults: Site, release: str, tmp_path: Path) -> None:
    home = STATE / f"ansible-{release}"
    if not (home / "bin" / "ansible-playbook").exists():
        run([sys.executable, "-m", "venv", str(home)], tmp_path)
        run([str(home / "bin" / "pip"), "install", "--quiet", f"ansible-core=={release}.*"], tmp_path)
    playbook = str(home / "bin" / "ansible-playbook")
    assert f"core {release}." in run([playbook, "--version"], tmp_path)
    inventory = str(Path(defaults.inventory).resolve())
    output = run([playbook, "-i", inventory, str(ROOT / "playbooks" / "site.yml")], tmp_path)
    assert changed(output) == 0
    assert "nothing to complain about" in output


def test_the_installed_collection_finds_nothing_to_change(defaults: Site, tmp_path: Path) -> None:
    galaxy = str(Path(sys.executable).with_name("ansible-galaxy"))
    run([galaxy, "collection", "build", str(ROOT), "--output-path", str(tmp_path)], tmp_path)
    (tarball,) = tmp_path.glob("matryoshka-host-*.tar.gz")
    collections = tmp_path / "collections"
    # What role storage depends on would come from Galaxy; without volumes it isn't needed.
    run([galaxy, "collection", "install", str(tarball), "--no-deps", "-p", str(collections)], tmp_path)
    output = run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(Path(defaults.inventory).resolve()),
            "matryoshka.host.site",
        ],
        tmp_path,
        ANSIBLE_COLLECTIONS_PATH=str(collections),
    )
    assert changed(output) == 0
    assert "nothing to complain about" in output


def test_a_host_as_planned_is_asked_twice(defaults: Site, tmp_path: Path) -> None:
    """What is there, and whether all of the plan is; each is one command over SSH."""
    output = run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-vvv",
            "-i",
            str(Path(defaults.inventory).resolve()),
            str(ROOT / "playbooks" / "site.yml"),
        ],
        tmp_path,
        ANSIBLE_PIPELINING="1",
    )
    assert changed(output) == 0
    assert len(re.findall("> SSH: EXEC ", output)) == 2
