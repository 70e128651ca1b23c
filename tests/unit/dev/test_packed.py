# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of Ansible share packed modules as long as nothing changes that goes into one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "dev"))
import packed


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    files = ("modules/one.py", "module_utils/_two.py", "filter/three.py", "action/four.py")
    for name in (f"plugins/{file}" for file in files):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("pass\n", encoding="utf-8")
    for name in ("requirements.txt", "requirements.yml"):
        (tmp_path / name).write_text("ansible-core==2.19\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("plugins/modules/one.py", True),
        ("plugins/module_utils/_two.py", True),
        ("requirements.txt", True),
        ("requirements.yml", True),
        ("plugins/filter/three.py", True),
        ("plugins/action/four.py", False),
    ],
)
def test_what_goes_into_a_module_names_the_folder(tree: Path, file: str, counts: bool) -> None:
    before = packed.digest(tree)
    assert packed.digest(tree) == before
    (tree / file).write_text("other\n", encoding="utf-8")
    assert (packed.digest(tree) != before) is counts


def test_a_module_that_moves_makes_another_folder(tree: Path) -> None:
    before = packed.digest(tree)
    (tree / "plugins/modules/one.py").rename(tree / "plugins/modules/other.py")
    assert packed.digest(tree) != before


def test_two_runs_share_a_folder_and_old_ones_go(tmp_path: Path) -> None:
    store, runs = tmp_path / "store", [tmp_path / name for name in ("first", "second")]
    old, recent = store / "old", store / "recent"
    for folder in (old, recent, *runs):
        folder.mkdir(parents=True)
    long_ago = time.time() - packed.KEPT - 60
    os.utime(old, (long_ago, long_ago))
    folders = {packed.share(store, run) for run in runs}
    assert len(folders) == 1
    (runs[0] / packed.NAME / "ping").write_text("packed", encoding="utf-8")
    assert (runs[1] / packed.NAME / "ping").read_text(encoding="utf-8") == "packed"
    assert not old.exists() and recent.exists()
    assert packed.share(store, runs[0]) in folders


LOOK = """\
import sys
import packed
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader()
before = set(sys.modules)
packed.load()
print(*sorted(set(sys.modules) - before))
"""


def test_tasks_find_their_plugins_loaded() -> None:
    """In a process of its own: what other tests have imported says nothing."""
    root = packed.ROOT
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(root / "tests" / "dev"),
        "ANSIBLE_COLLECTIONS_PATH": str(root / "playbooks" / "collections"),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    for name in (
        "ansible_collections.ansible.builtin.plugins.connection.ssh",
        "ansible_collections.ansible.builtin.plugins.action.validate_argument_spec",
        "ansible_collections.matryoshka.host.plugins.action.pending_changes",
        "ansible_collections.matryoshka.host.plugins.module_utils._runner_plan",
    ):
        assert name in loaded, loaded


PLAY = """\
- hosts: localhost
  gather_facts: false
  vars:
    words: [one, two]
    joined: "{{ words | join(' ') }}"
  tasks:
    - ansible.builtin.debug:
        msg: "{{ joined }} {{ given }}"
      when: given == 'three' or given == 'four'
    - ansible.builtin.debug:
        msg: 'a\\nb {{ words[0] }}'
"""


def said(play: Path, given: str, *folders: Path) -> list[str]:
    """What a play's ``debug`` tasks say, its templates compiled once for all runs that have a folder."""
    lines = "".join(f"packed.compile_once(pathlib.Path({str(folder)!r}))\n" for folder in folders)
    script = f"import pathlib, sys, packed\n{lines}from ansible.cli.playbook import main\nmain(sys.argv)"
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(play.parent),
        "PYTHONPATH": str(packed.ROOT / "tests" / "dev"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
    }
    argv = [sys.executable, "-c", script, "-i", "localhost,", "-e", f"given={given}", str(play)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if '"msg"' in line or "skipping" in line]


def test_templates_are_compiled_once_and_say_the_same(tmp_path: Path) -> None:
    play, folder = tmp_path / "play.yml", tmp_path / "kept"
    folder.mkdir()
    play.write_text(PLAY, encoding="utf-8")
    for given in ("three", "four", "five"):
        plain = said(play, given)
        assert len(plain) == 2
        assert said(play, given, folder) == plain
        assert said(play, given, folder) == plain
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("templates.*/*")}
    assert len(kept) >= 4 and not [path for path in kept if path.name.startswith(".")]
    said(play, "three", folder)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("templates.*/*")} == kept
