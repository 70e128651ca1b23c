# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._systemd import UnitState
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_compare import compare_units
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_text import marked
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_wanted import parse_wanted

D = "/etc/systemd/system"
TEXT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
DROP_IN = "[Service]\nCPUQuota=50%\n"
UNIT: dict[str, Any] = {
    "name": "r@.service",
    "content": TEXT,
    "instances": ["a"],
    "state": "started",
    "enabled": True,
    "drop_ins": [{"name": "50.conf", "content": DROP_IN}],
}
DROP_IN_PATH = f"{D}/r@.service.d/50.conf"
TEXTS = {f"{D}/r@.service": marked("runner", TEXT), DROP_IN_PATH: marked("runner", DROP_IN)}
GOOD = UnitState(
    "r@a.service",
    "loaded",
    "active",
    "running",
    "enabled",
    fragment_path=f"{D}/r@.service",
    drop_in_paths=(DROP_IN_PATH,),
    result="success",
    texts=TEXTS,
)
FOREIGN = f"{D}/r@a.service.d/override.conf"
CONTROL = "/run/systemd/system.control/r@a.service.d/50.conf"


def differences(unit: dict[str, Any], state: UnitState | None) -> dict[str, str]:
    present = {} if state is None else {state.name: state}
    return {each.kind: each.text for each in compare_units(parse_wanted("runner", [unit]), present)}


def test_a_healthy_unit_has_none() -> None:
    assert differences(UNIT, GOOD) == {}


@pytest.mark.parametrize(
    ("state", "kind", "words"),
    [
        (None, "missing", "r@a.service doesn't exist"),
        (replace(GOOD, load_state="bad-setting"), "broken", "can't be loaded (bad-setting)"),
        (replace(GOOD, unit_file_state="disabled"), "disabled", "is disabled: it won't start with the host"),
        (replace(GOOD, active_state="inactive", sub_state="dead"), "inactive", "is inactive (dead)"),
        (replace(GOOD, active_state="failed", result="exit-code"), "failed", "has failed (exit-code)"),
        (replace(GOOD, need_daemon_reload=True), "daemon_reload", "still uses older files"),
        (replace(GOOD, texts={**TEXTS, f"{D}/r@.service": TEXT}), "content", f"{D}/r@.service was changed"),
        (
            replace(GOOD, texts={**TEXTS, DROP_IN_PATH: "# Managed by matryoshka.host: x\n"}),
            "drop_in",
            "was changed",
        ),
        (replace(GOOD, drop_in_paths=()), "drop_in", "isn't in effect"),
        (
            replace(
                GOOD, drop_in_paths=(CONTROL,), texts={**TEXTS, CONTROL: "# Managed by matryoshka.host: x\n"}
            ),
            "drop_in",
            f"is overridden by {CONTROL}",
        ),
        (
            replace(GOOD, fragment_path=f"{D}/r@a.service"),
            "shadowed",
            f"comes from {D}/r@a.service in place of",
        ),
        (
            replace(
                GOOD,
                drop_in_paths=(DROP_IN_PATH, FOREIGN),
                texts={**TEXTS, FOREIGN: "[Service]\nCPUQuota=\n"},
            ),
            "foreign_drop_in",
            f"is overridden by {FOREIGN}, which sets Service.CPUQuota",
        ),
    ],
)
def test_what_is_wrong_is_named(state: UnitState | None, kind: str, words: str) -> None:
    found = differences(UNIT, state)
    assert list(found) == [kind]
    assert words in found[kind]


def test_a_masked_unit_is_named_with_the_mask() -> None:
    mask = f"{D}/r@a.service"
    state = replace(
        GOOD, load_state="masked", unit_file_state="masked", fragment_path=mask, active_state="inactive"
    )
    found = differences(UNIT, state)
    assert sorted(found) == ["inactive", "masked"]
    assert mask in found["masked"]


@pytest.mark.parametrize(
    ("wanted", "kinds"),
    [
        ({"state": "stopped", "enabled": False}, ["active", "enabled"]),
        ({"masked": True}, ["active", "unmasked"]),
        ({"state": "absent"}, ["active"]),
        ({}, []),
    ],
)
def test_what_should_not_run(wanted: dict[str, Any], kinds: list[str]) -> None:
    state = UnitState("docker.service", "loaded", "active", "running", "enabled", fragment_path="/usr/lib/x")
    assert sorted(differences({"name": "docker.service", **wanted}, state)) == kinds


def test_every_difference_has_a_remedy() -> None:
    state = replace(GOOD, active_state="failed", unit_file_state="disabled", need_daemon_reload=True)
    found = compare_units(parse_wanted("runner", [UNIT]), {state.name: state})
    assert len(found) == 3
    assert all(each.remedy and each.unit == "r@a.service" for each in found)
