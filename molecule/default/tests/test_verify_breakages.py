# SPDX-License-Identifier: GPL-3.0-or-later
"""Breaks a healthy host in every way of ``verify_breakages.yml``; verify has to name each, and nothing else.

Every case asserts the whole set of findings. So it also shows that the case before it was
repaired; the first and the last look show a healthy host.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TABLE: list[dict[str, Any]] = yaml.safe_load((HERE / "verify_breakages.yml").read_text(encoding="utf-8"))
PRELUDE = (HERE / "verify_breakages.sh").read_text(encoding="utf-8")
WAIT = 15
"""Seconds that verify gives a healthy host's runner to become ready again; a broken one gets none."""


class Verify:
    """``playbooks/verify.yml`` against the scenario's host, as a person runs it."""

    def __init__(self, host: Any, inventory: str) -> None:
        self._host = host
        self._inventory = inventory

    def __call__(self, wait: int = 0) -> list[dict[str, str]]:
        """Findings, taken from what the playbook prints as JSON; its exit code has to fit them."""
        environment = {
            **os.environ,
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_COLLECTIONS_PATH": os.environ.get("ANSIBLE_COLLECTIONS_PATH", str(ROOT / "playbooks/collections")),
            "ANSIBLE_PIPELINING": "true",
        }
        argv = ["ansible-playbook", "-i", self._inventory, "-e", f"verify_wait={wait}", str(ROOT / "playbooks/verify.yml")]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=180)
        try:
            told = json.loads(done.stdout[done.stdout.index("{") :])
        except ValueError:
            pytest.fail(f"{shlex.join(argv)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        results = [
            result
            for play in told["plays"]
            for task in play["tasks"]
            for result in task["hosts"].values()
            if "findings" in result
        ]
        assert len(results) == 1, done.stdout[-3000:]
        findings: list[dict[str, str]] = results[0]["findings"]
        assert (done.returncode != 0) == bool(findings), f"exit code {done.returncode} with {findings}"
        return findings

    def on_host(self, script: str) -> None:
        """Run words of ``verify_breakages.sh`` on the host, as root."""
        done = self._host.run("bash -c %s", f"{PRELUDE}\n{script}\n")
        assert done.rc == 0, f"{script}\nended with {done.rc}:\n{done.stdout}\n{done.stderr}"


def lines(findings: list[dict[str, str]]) -> str:
    return "\n".join(f"{one['subject']}: {one['text']} [{one['code']}] {one['remedy']}" for one in findings)


@pytest.fixture(scope="module")
def verify(host: Any, request: pytest.FixtureRequest) -> Iterator[Verify]:
    inventory = os.environ.get("MOLECULE_INVENTORY_FILE") or request.config.getoption("ansible_inventory")
    look = Verify(host, str(inventory))
    look.on_host("settled")
    before = look(WAIT)
    assert not before, f"the host isn't healthy to begin with:\n{lines(before)}"
    yield look
    after = look(WAIT)
    assert not after, f"something wasn't repaired:\n{lines(after)}"


def test_the_table_is_what_it_says() -> None:
    assert len(TABLE) >= 25
    assert len({case["id"] for case in TABLE}) == len(TABLE)


@pytest.mark.parametrize("case", TABLE, ids=[case["id"] for case in TABLE])
def test_a_breakage_is_named(verify: Verify, case: dict[str, Any]) -> None:
    try:
        verify.on_host(case["break"])
        findings = verify()
    finally:
        verify.on_host(case["repair"] + ("\nsettled" if case.get("settle") else ""))
    told = lines(findings)
    assert {one["code"] for one in findings} == set(case["names"]), told
    for words in case["words"]:
        assert words in told
