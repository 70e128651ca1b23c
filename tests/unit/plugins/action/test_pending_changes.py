# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tasks take their answer from what was asked before them. The module's run on a host is a double here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.plugins.action.normal import ActionModule as Normal
from ansible_collections.matryoshka.host.plugins.action.pending_changes import ActionModule, digest
from ansible_collections.matryoshka.host.plugins.module_utils._command import pipe
from ansible_collections.matryoshka.host.plugins.module_utils._command import run as command
from ansible_collections.matryoshka.host.plugins.module_utils._pending import kinds

ROOT = Path(__file__).resolve().parents[4]

FROM_HOST = {"changed": True, "from": "host"}
ANSWER = {"changed": False, "from": "answers"}
ARGUMENTS = {"owner": "me", "units": [{"name": "a.service", "state": "started"}]}
ROLES = ["matryoshka.host.preflight", "matryoshka.host.docker"]


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Normal, "run", lambda self, tmp=None, task_vars=None: dict(self.said))


def run(
    variables: dict[str, Any] | None,
    arguments: dict[str, Any],
    module: str = "matryoshka.host.systemd_units",
    said: dict[str, Any] | None = None,
    delegate_to: str | None = None,
) -> dict[str, Any]:
    action = ActionModule.__new__(ActionModule)
    action._task = SimpleNamespace(action=module, args=arguments, delegate_to=delegate_to)
    action.said = said or FROM_HOST
    return action.run(task_vars=variables)


def asked(**more: Any) -> dict[str, Any]:
    answers = {digest("systemd_units", ARGUMENTS): ANSWER}
    return {"ansible_play_role_names": ROLES, "__preflight_pending": {"answers": answers, **more}}


def test_the_same_call_is_answered() -> None:
    assert run(asked(), ARGUMENTS) == ANSWER


@pytest.mark.parametrize(
    "arguments",
    [
        {**ARGUMENTS, "owner": "you"},
        {**ARGUMENTS, "orphans": False},
        {"owner": "me", "units": [{"name": "a.service", "state": "stopped"}]},
        {"owner": "me", "units": []},
    ],
)
def test_another_call_goes_to_the_host(arguments: dict[str, Any]) -> None:
    assert run(asked(), arguments) == FROM_HOST


def test_another_module_goes_to_the_host() -> None:
    assert run(asked(), ARGUMENTS, module="matryoshka.host.config_files") == FROM_HOST


@pytest.mark.parametrize(
    "variables",
    [
        None,
        {},
        {"ansible_play_role_names": ROLES},
        {"ansible_play_role_names": ROLES, "__preflight_pending": {"skipped": True}},
        {"ansible_play_role_names": ROLES, "__preflight_pending": {"pending": "something"}},
        {**asked(), "ansible_play_role_names": ["matryoshka.host.docker"]},
        {**asked(), "ansible_play_role_names": [*ROLES, "somebody.elses.role"]},
    ],
    ids=["nothing", "empty", "not asked", "skipped", "pending", "another play", "others' roles"],
)
def test_without_an_answer_it_goes_to_the_host(variables: dict[str, Any] | None) -> None:
    assert run(variables, ARGUMENTS) == FROM_HOST


def test_on_another_host_it_goes_there() -> None:
    assert run(asked(), ARGUMENTS, delegate_to="other") == FROM_HOST


def test_asking_keeps_answers_by_call() -> None:
    calls = [{"module": "matryoshka.host.systemd_units", "arguments": ARGUMENTS}]
    result = run(
        {}, {"calls": calls}, "matryoshka.host.pending_changes", {"pending": None, "results": [ANSWER]}
    )
    assert result["answers"] == {digest("systemd_units", ARGUMENTS): ANSWER}
    assert run({"ansible_play_role_names": ROLES, "__preflight_pending": result}, ARGUMENTS) == ANSWER


def test_nothing_is_kept_while_something_is_pending() -> None:
    calls = [{"module": "systemd_units", "arguments": ARGUMENTS}]
    result = run(
        {}, {"calls": calls}, "matryoshka.host.pending_changes", {"pending": "config_files: would change"}
    )
    assert "answers" not in result


def test_the_modules_are_routed_here() -> None:
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())
    routed = runtime["plugin_routing"]["modules"]
    assert set(routed) == set(kinds(command, pipe))
    assert all(route == {"action_plugin": "matryoshka.host.pending_changes"} for route in routed.values())
