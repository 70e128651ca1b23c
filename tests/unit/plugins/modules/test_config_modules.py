# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon_config and config_files as Ansible runs them: arguments in, result and secrets out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], str]:
    """One play with all tasks: its directory, the tasks' results, and all that was printed."""
    pytest.importorskip("ansible.cli")
    root = tmp_path_factory.mktemp("play")
    daemon = {"path": f"{root}/daemon.json", "unit": "", "validate": False}
    config = {"mtu": 1400, "icc": False}
    files = [
        {"path": f"{root}/open", "content": "shown content\n"},
        {"path": f"{root}/closed", "content": "hidden content\n", "mode": "0600", "secret": True},
    ]
    tasks: list[dict[str, Any]] = [
        {"matryoshka.host.daemon_config": {**daemon, "config": config}, "check_mode": True},
        {"ansible.builtin.command": {"argv": ["cat", f"{root}/daemon.json"]}},
        {"matryoshka.host.daemon_config": {**daemon, "config": config}},
        {
            "matryoshka.host.daemon_config": {**daemon, "config": {"storge-driver": "overlay2"}},
            "ignore_errors": True,
        },
        {"matryoshka.host.config_files": {"files": files}},
        {"matryoshka.host.config_files": {"files": files}},
    ]
    (root / "daemon.json").write_text('{"quux":1}')
    (root / "play.yml").write_text(
        json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}])
    )
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks" / "collections"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.json",
        "ANSIBLE_LOCAL_TEMP": str(root / "local"),
        "ANSIBLE_REMOTE_TEMP": str(root / "remote"),
        "ANSIBLE_PIPELINING": "1",
    }
    command = [
        *(sys.executable, "-m", "ansible", "playbook", "--diff", "-vvv", "-i", "localhost,", "-c", "local"),
        *("-e", f"ansible_python_interpreter={sys.executable}", str(root / "play.yml")),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    start = done.stdout.index("{\n")
    found = json.loads(done.stdout[start:])["plays"][0]["tasks"]
    return root, [task["hosts"]["localhost"] for task in found], done.stdout + done.stderr


def test_daemon_config(ran: tuple[Path, list[dict[str, Any]], str]) -> None:
    root, (told, between, done, refused, *_), _ = ran
    assert told["changed"] and between["stdout"] == '{"quux":1}'
    assert told["diff"][0]["after"] == '{\n  "quux": 1,\n  "mtu": 1400,\n  "icc": false\n}\n'
    assert f"{root}/daemon.json: quux is unknown and kept" in told["warnings"]
    assert done["restart_required"] and done["diff"] == told["diff"]
    assert json.loads((root / "daemon.json").read_text()) == {"quux": 1, "mtu": 1400, "icc": False}
    assert refused["failed"] and refused["msg"] == (
        "config.storge-driver: 'overlay2' is refused; allowed: an option of dockerd; did you mean 'storage-driver'?"
    )


def test_config_files(ran: tuple[Path, list[dict[str, Any]], str]) -> None:
    root, (*_, first, second), printed = ran
    assert first["changed_paths"] == [f"{root}/open", f"{root}/closed"]
    assert first["diff"][0]["after"] == "shown content\n"
    assert "shown content" in printed and "hidden content" not in printed
    assert (root / "closed").read_text() == "hidden content\n"
    assert not second["changed"]
