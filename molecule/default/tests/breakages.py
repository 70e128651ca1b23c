# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scenario needs to break its host by a table: words for the host's shell, and verify to look at it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import hosts
import yaml
from live import Site
from module_calls import call_module

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PRELUDE = (HERE / "verify_breakages.sh").read_text(encoding="utf-8")
WAIT = 15
"""Seconds that verify gives a healthy host's runner to become ready again; a broken one gets none."""


def table(folder: Path) -> list[dict[str, Any]]:
    """The cases of ``verify_breakages.yml`` in a scenario's folder of tests."""
    cases: list[dict[str, Any]] = yaml.safe_load(
        (folder / "verify_breakages.yml").read_text(encoding="utf-8")
    )
    return cases


class Verify:
    """Verify against the scenario's host: the playbook, or its module alone with what the playbook gave it."""

    def __init__(self, site: Site, settings: str = "") -> None:
        """:param settings: lines of shell that come before the words."""
        self._site = site
        host = hosts.find(site.host.backend.host)
        assert host is not None, f"{site.host.backend.host} isn't one of our hosts"
        self._host = host
        self._settings = settings
        self._expect: dict[str, Any] = {}

    def playbook(self, callback: str = "default") -> subprocess.CompletedProcess[str]:
        """``playbooks/verify.yml`` as a person or cron runs it."""
        environment = {
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks/collections"),
            **os.environ,
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_FORCE_COLOR": "false",
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_STDOUT_CALLBACK": callback,
        }
        argv = ["ansible-playbook", "-i", self._site.inventory, "-e", f"verify_wait={WAIT}"]
        return subprocess.run(
            [*argv, str(ROOT / "playbooks/verify.yml")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )

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
        asked = {"expect": self._expect, "wait": 0, "fail": False}
        found = call_module(self._host, "matryoshka.host.verify", asked, become=True)
        assert not found.get("failed"), found
        findings: list[dict[str, str]] = found["findings"]
        return findings

    def on_host(self, script: str) -> None:
        """Run words of ``verify_breakages.sh`` on the host, as root."""
        done = self._site.host.run("bash -c %s", f"{self._settings}\n{PRELUDE}\n{script}\n")
        assert done.rc == 0, f"{script}\nended with {done.rc}:\n{done.stdout}\n{done.stderr}"


def lines(findings: list[dict[str, str]]) -> str:
    return "\n".join(f"{one['subject']}: {one['text']} [{one['code']}] {one['remedy']}" for one in findings)


def check(verify: Verify, case: dict[str, Any]) -> None:
    """Break the host, have verify name just that, repair it."""
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
