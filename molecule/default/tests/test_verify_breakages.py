# SPDX-License-Identifier: GPL-3.0-or-later
"""Breaks a healthy host in every way of ``verify_breakages.yml``; verify has to name each, and nothing else.

Every case asserts the whole set of findings. So it also shows that the case before it was
repaired; the first and the last look show a healthy host.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from live import Site

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TABLE: list[dict[str, Any]] = yaml.safe_load((HERE / "verify_breakages.yml").read_text(encoding="utf-8"))
PRELUDE = (HERE / "verify_breakages.sh").read_text(encoding="utf-8")
WAIT = 15
"""Seconds that verify gives a healthy host's runner to become ready again; a broken one gets none."""


class Verify:
    """Verify against the scenario's host: the playbook, or its module alone with what the playbook gave it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._expect: dict[str, Any] = {}

    def playbook(self, callback: str = "default") -> subprocess.CompletedProcess[str]:
        """``playbooks/verify.yml`` as a person or cron runs it."""
        argv = ["ansible-playbook", "-e", f"verify_wait={WAIT}", str(ROOT / "playbooks/verify.yml")]
        return self._ansible(argv, ANSIBLE_STDOUT_CALLBACK=callback)

    def learn(self) -> list[dict[str, str]]:
        """Run the playbook, keep what it handed to the module, and return what it found."""
        done = self.playbook("ansible.posix.json")
        results = [
            result
            for play in json.loads(done.stdout[done.stdout.index("{") :])["plays"]
            for task in play["tasks"]
            for result in task["hosts"].values()
        ]
        asked = next(one for one in results if "findings" in one)
        self._expect = asked["invocation"]["module_args"]["expect"]
        findings: list[dict[str, str]] = asked["findings"]
        assert (done.returncode != 0) == bool(findings), f"exit code {done.returncode} with {findings}"
        return findings

    def __call__(self) -> list[dict[str, str]]:
        """What the module finds now, without waiting for anything."""
        arguments = json.dumps({"expect": self._expect, "wait": 0, "fail": False})
        done = self._ansible(["ansible", "all", "--become", "-m", "matryoshka.host.verify", "-a", arguments])
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        findings: list[dict[str, str]] = json.loads(done.stdout[done.stdout.index("{") :])["findings"]
        return findings

    def on_host(self, script: str) -> None:
        """Run words of ``verify_breakages.sh`` on the host, as root."""
        done = self._site.host.run("bash -c %s", f"{PRELUDE}\n{script}\n")
        assert done.rc == 0, f"{script}\nended with {done.rc}:\n{done.stdout}\n{done.stderr}"

    def _ansible(self, argv: list[str], **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks/collections"),
            **os.environ,
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_FORCE_COLOR": "false",
            "ANSIBLE_NOCOLOR": "true",
            **settings,
        }
        argv = [argv[0], "-i", self._site.inventory, *argv[1:]]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=180)


def lines(findings: list[dict[str, str]]) -> str:
    return "\n".join(f"{one['subject']}: {one['text']} [{one['code']}] {one['remedy']}" for one in findings)


@pytest.fixture(scope="module")
def verify(site: Site) -> Iterator[Verify]:
    site.wants({})
    site.ready("ci")
    look = Verify(site)
    look.on_host('rm -rf "$kept"')
    before = look.learn()
    assert not before, f"the host isn't healthy to begin with:\n{lines(before)}"
    yield look
    after = look.learn()
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
    codes = {one["code"] for one in findings}
    assert codes - set(case.get("may", [])) == set(case["names"]), told
    for words in case["words"]:
        assert words in told


def test_the_playbook_tells_a_person_what_is_wrong_and_what_to_do(verify: Verify) -> None:
    verify.on_host("chmod 0777 /usr/local/sbin/matryoshka")
    done = verify.playbook()
    verify.on_host("chmod 0755 /usr/local/sbin/matryoshka")
    assert done.returncode == 2
    told = [line.strip() for line in (done.stdout + done.stderr).splitlines() if len(line) < 200]
    for words in (
        "1. file /usr/local/sbin/matryoshka: /usr/local/sbin/matryoshka has mode 0777 instead of 0755 [file_mode]",
        "remedy: chown root:root /usr/local/sbin/matryoshka; chmod 0755 /usr/local/sbin/matryoshka",
    ):
        assert any(words in line for line in told), done.stdout + done.stderr
