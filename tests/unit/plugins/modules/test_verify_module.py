# SPDX-License-Identifier: GPL-3.0-or-later
"""The module around verify: what it documents, when it fails, what it never tells."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import yaml
from ansible.module_utils import basic
from ansible_collections.matryoshka.host.plugins.module_utils import _verify
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.modules import verify as module

FINDING = {"code": "mtu", "subject": "engine docker", "text": "too large", "remedy": "set it"}


def test_documentation_and_arguments_agree() -> None:
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    said = {
        name: {key: option[key] for key in ("type", "default", "required") if key in option}
        for name, option in documented.items()
    }
    assert said == _verify.ARGUMENTS


def test_examples_and_return_values() -> None:
    for task in yaml.safe_load(module.EXAMPLES):
        assert set(task["matryoshka.host.verify"]) <= set(_verify.ARGUMENTS)
    documented = set(yaml.safe_load(module.RETURN))
    assert documented == {"findings", "notes", "passed", "report", "tree", "runners", "checks", "seconds"}


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **arguments: Any
) -> dict[str, Any]:
    """Run the module's main with ``arguments``; what it printed."""
    given = json.dumps({"ANSIBLE_MODULE_ARGS": {"expect": {}, **arguments}})
    monkeypatch.setattr(basic, "_ANSIBLE_ARGS", given.encode())
    monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
    with pytest.raises(SystemExit):
        module.main()
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What verify finds; and we are root."""
    found = [FINDING]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(
        _verify,
        "verify",
        lambda expect, wait, run, ask: {"findings": found, "report": ["a", "b"], "waited": wait},
    )
    return found


def test_findings_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], findings: list[dict[str, str]]
) -> None:
    told = call(monkeypatch, capsys, wait=3)
    assert told["failed"] and not told["passed"]
    assert (told["msg"], told["findings"], told["waited"]) == ("a\nb", [FINDING], 3.0)


@pytest.mark.parametrize(
    ("arguments", "passed"), [({"fail": False}, False), ({"_ansible_check_mode": True}, True)]
)
def test_findings_that_are_only_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    findings: list[dict[str, str]],
    arguments: dict[str, Any],
    passed: bool,
) -> None:
    told = call(monkeypatch, capsys, **arguments)
    assert not told.get("failed") and not told["changed"]
    assert (told["passed"], told["findings"]) == (passed, [FINDING])


def test_check_mode_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], findings: list[dict[str, str]]
) -> None:
    assert call(monkeypatch, capsys, _ansible_check_mode=True, wait=60)["waited"] == 0


def test_a_healthy_host_passes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], findings: list[dict[str, str]]
) -> None:
    findings.clear()
    assert call(monkeypatch, capsys)["passed"] is True


def test_an_error_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_arguments: Any) -> None:
        raise HostError("systemd doesn't answer")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(_verify, "verify", fails)
    assert call(monkeypatch, capsys)["msg"] == "systemd doesn't answer"


def test_who_is_not_root_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "become: true" in call(monkeypatch, capsys)["msg"]
