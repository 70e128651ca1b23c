# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._systemd import UnitState
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_plan import (
    Plan,
    Present,
    digest,
    plan_units,
)
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_text import marked
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_wanted import parse_wanted

D = "/etc/systemd/system"
TEXT = "[Service]\nExecStart=/bin/true\nExecReload=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
DROP_IN = "[Service]\nCPUQuota=50%\n"
OURS = marked("runner", TEXT)
UP = UnitState("a.service", "loaded", "active", "running", "enabled", fragment_path=f"{D}/a.service")
FOREIGN = replace(UP, name="docker.service", fragment_path="/usr/lib/systemd/system/docker.service")
DOWN = replace(UP, active_state="inactive", sub_state="dead", unit_file_state="disabled")


def named(state: UnitState, name: str) -> UnitState:
    return replace(state, name=name)


def plan_for(units: list[dict[str, Any]], present: Present, orphans: bool = False) -> Plan:
    return plan_units(parse_wanted("runner", units), present, owner="runner", directory=D, orphans=orphans)


def done(plan: Plan) -> dict[str, Any]:
    batches = (
        "unmask",
        "mask",
        "stop",
        "disable",
        "enable",
        "reenable",
        "reset_failed",
        "restart",
        "reload",
        "start",
    )
    found = {batch: getattr(plan, batch) for batch in batches if getattr(plan, batch)}
    files = {"write": sorted(plan.write), "remove": plan.remove, "removed": plan.removed}
    return {**found, **{key: value for key, value in files.items() if value}}


UNIT = {"name": "a.service", "content": TEXT, "state": "started", "enabled": True}
HERE = {f"{D}/a.service": OURS}
CASES: list[tuple[str, dict[str, Any], Present, dict[str, Any]]] = [
    ("nothing to do", UNIT, Present({"a.service": UP}, HERE), {}),
    (
        "fresh host",
        UNIT,
        Present(),
        {"write": [f"{D}/a.service"], "enable": ["a.service"], "start": ["a.service"]},
    ),
    (
        "failed",
        UNIT,
        Present({"a.service": replace(UP, active_state="failed", sub_state="failed")}, HERE),
        {"reset_failed": ["a.service"], "start": ["a.service"]},
    ),
    (
        "waits for its restart by systemd",
        UNIT,
        Present({"a.service": replace(UP, active_state="activating", sub_state="auto-restart")}, HERE),
        {},
    ),
    (
        "text changed",
        UNIT,
        Present({"a.service": UP}, {f"{D}/a.service": OURS.replace("true", "false")}),
        {"write": [f"{D}/a.service"], "restart": ["a.service"]},
    ),
    (
        "text changed, reload",
        {**UNIT, "on_change": "reload"},
        Present({"a.service": UP}, {f"{D}/a.service": OURS.replace("true", "false")}),
        {"write": [f"{D}/a.service"], "reload": ["a.service"]},
    ),
    (
        "text changed, reload, but it is between two starts",
        {**UNIT, "on_change": "reload"},
        Present(
            {"a.service": replace(UP, active_state="activating", sub_state="auto-restart")},
            {f"{D}/a.service": OURS.replace("true", "false")},
        ),
        {"write": [f"{D}/a.service"]},
    ),
    (
        "text changed, left alone",
        {**UNIT, "on_change": "none"},
        Present({"a.service": UP}, {f"{D}/a.service": OURS.replace("true", "false")}),
        {"write": [f"{D}/a.service"]},
    ),
    (
        "only a comment changed",
        UNIT,
        Present({"a.service": UP}, {f"{D}/a.service": OURS + "# more\n"}),
        {"write": [f"{D}/a.service"]},
    ),
    (
        "only [Install] changed",
        UNIT,
        Present({"a.service": UP}, {f"{D}/a.service": OURS.replace("multi-user", "graphical")}),
        {"write": [f"{D}/a.service"], "reenable": ["a.service"]},
    ),
    (
        "disabled by hand",
        UNIT,
        Present({"a.service": replace(UP, unit_file_state="disabled")}, HERE),
        {"enable": ["a.service"]},
    ),
    (
        "wanted stopped and disabled",
        {**UNIT, "state": "stopped", "enabled": False},
        Present({"a.service": UP}, HERE),
        {"stop": ["a.service"], "disable": ["a.service"]},
    ),
    (
        "restarted every time",
        {**UNIT, "state": "restarted"},
        Present({"a.service": UP}, HERE),
        {"restart": ["a.service"]},
    ),
    (
        "reloaded every time",
        {**UNIT, "state": "reloaded"},
        Present({"a.service": UP}, HERE),
        {"reload": ["a.service"]},
    ),
    (
        "masked where our file belongs",
        UNIT,
        Present(
            {"a.service": replace(DOWN, load_state="masked", masked_by=(f"{D}/a.service",))},
        ),
        {"write": [f"{D}/a.service"], "enable": ["a.service"], "start": ["a.service"]},
    ),
    (
        "a package's unit masked in /run",
        {"name": "docker.service", "state": "started", "enabled": True, "masked": False},
        Present(
            {
                "docker.service": replace(
                    FOREIGN,
                    load_state="masked",
                    unit_file_state="masked-runtime",
                    active_state="inactive",
                    masked_by=("/run/systemd/system/docker.service",),
                )
            }
        ),
        {
            "unmask": ["/run/systemd/system/docker.service"],
            "enable": ["docker.service"],
            "start": ["docker.service"],
        },
    ),
    (
        "a package's unit to be masked",
        {"name": "docker.service", "masked": True},
        Present({"docker.service": FOREIGN}),
        {"stop": ["docker.service"], "mask": ["docker.service"]},
    ),
    (
        "new drop-in of a package's unit",
        {"name": "docker.service", "drop_ins": [{"name": "50.conf", "content": DROP_IN}]},
        Present({"docker.service": FOREIGN}),
        {"write": [f"{D}/docker.service.d/50.conf"], "restart": ["docker.service"]},
    ),
    (
        "absent",
        {"name": "a.service", "state": "absent"},
        Present({"a.service": UP}, {**HERE, f"{D}/a.service.d/x.conf": marked("runner", DROP_IN)}),
        {
            "stop": ["a.service"],
            "disable": ["a.service"],
            "remove": [f"{D}/a.service", f"{D}/a.service.d/x.conf"],
            "removed": ["a.service", f"{D}/a.service.d/x.conf"],
        },
    ),
    ("absent already", {"name": "a.service", "state": "absent"}, Present(), {}),
    (
        "absent of a package's unit takes our drop-ins only",
        {"name": "docker.service", "state": "absent"},
        Present(
            {"docker.service": FOREIGN},
            {
                f"{D}/docker.service.d/x.conf": marked("runner", DROP_IN),
                f"{D}/docker.service.d/y.conf": DROP_IN,
            },
        ),
        {
            "remove": [f"{D}/docker.service.d/x.conf"],
            "removed": [f"{D}/docker.service.d/x.conf"],
            "restart": ["docker.service"],
        },
    ),
    (
        "what a broken-off run owes",
        UNIT,
        Present({"a.service": UP}, HERE, pending={"a.service": "restart"}),
        {"restart": ["a.service"]},
    ),
    (
        "a stopped unit is owed nothing",
        {**UNIT, "state": None, "enabled": None},
        Present({"a.service": DOWN}, HERE, pending={"a.service": "restart"}),
        {},
    ),
]


@pytest.mark.parametrize(
    ("unit", "present", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_plan(unit: dict[str, Any], present: Present, wanted: dict[str, Any]) -> None:
    plan = plan_for([unit], present)
    assert done(plan) == wanted
    assert plan.changed is bool(wanted)
    assert not plan.problems


@pytest.mark.parametrize(
    "state",
    [replace(UP, need_daemon_reload=True), replace(UP, load_state="masked", mask_is_gone=True)],
)
def test_files_equal_but_older_ones_loaded(state: UnitState) -> None:
    plan = plan_for([UNIT], Present({"a.service": state}, HERE))
    assert done(plan) == {}
    assert plan.daemon_reload
    assert plan.changed
    assert not plan.problems


def instances(count: int) -> list[str]:
    return [str(number) for number in range(count)]


TEMPLATE = {"name": "r@.service", "content": TEXT, "state": "started", "enabled": True, "on_change": "reload"}
R_HERE = {f"{D}/r@.service": OURS}


@pytest.mark.parametrize("count", [1, 20])
def test_batches_take_all_instances(count: int) -> None:
    plan = plan_for([{**TEMPLATE, "instances": instances(count)}], Present())
    assert plan.start == plan.enable == [f"r@{number}.service" for number in range(count)]
    assert plan.changed_units == ["r@.service"]


def test_a_trigger_touches_its_instance_only() -> None:
    states = {f"r@{number}.service": named(UP, f"r@{number}.service") for number in range(20)}
    old = dict.fromkeys(instances(20), "old")
    unit: dict[str, Any] = {**TEMPLATE, "instances": instances(20), "triggers": old}
    applied = {name: digest("old") for name in states}
    assert not plan_for([unit], Present(states, R_HERE, applied=applied)).changed
    unit["triggers"] = {**old, "7": "new"}
    plan = plan_for([unit], Present(states, R_HERE, applied=applied))
    assert done(plan) == {"reload": ["r@7.service"]}
    assert plan.pending == {"r@7.service": "reload"}
    assert plan.applied == {**applied, "r@7.service": digest("new")}
    assert not plan.daemon_reload


def test_the_stronger_action_wins() -> None:
    unit = {**TEMPLATE, "instances": ["0"], "on_trigger": "restart", "triggers": {"0": "new"}}
    states = {"r@0.service": named(UP, "r@0.service")}
    plan = plan_for([unit], Present(states, {f"{D}/r@.service": OURS.replace("true", "false")}))
    assert (plan.restart, plan.reload) == (["r@0.service"], [])


def test_a_drop_in_of_one_instance_touches_it_only() -> None:
    states = {f"r@{number}.service": named(UP, f"r@{number}.service") for number in range(3)}
    units: list[dict[str, Any]] = [
        {**TEMPLATE, "instances": instances(3)},
        {"name": "r@1.service", "drop_ins": [{"name": "x.conf", "content": DROP_IN}]},
    ]
    assert plan_for(units, Present(states, R_HERE)).reload == ["r@1.service"]


def test_orphans() -> None:
    files = {
        **R_HERE,
        f"{D}/old.service": OURS,
        f"{D}/p@.timer": marked("runner", "[Timer]\nOnCalendar=daily\n"),
        f"{D}/docker.service.d/ours.conf": marked("runner", DROP_IN),
        f"{D}/docker.service.d/theirs.conf": DROP_IN,
        f"{D}/other.service": marked("docker", TEXT),
        f"{D}/foreign.service": TEXT,
    }
    states = {
        "r@0.service": named(UP, "r@0.service"),
        "r@1.service": named(UP, "r@1.service"),
        "r@2.service": replace(UP, name="r@2.service", active_state="inactive"),
        "r@3.service": named(DOWN, "r@3.service"),
        "old.service": named(UP, "old.service"),
        "p@x.timer": named(UP, "p@x.timer"),
        "other.service": named(UP, "other.service"),
    }
    unit = {**TEMPLATE, "instances": ["0"]}
    present = Present(states, files, applied={"r@1.service": digest("x")})
    assert not plan_for([unit], present).changed
    plan = plan_for([unit], present, orphans=True)
    assert plan.stop == ["old.service", "p@x.timer", "r@1.service"]
    assert plan.disable == ["old.service", "p@x.timer", "r@1.service", "r@2.service"]
    assert plan.remove == [f"{D}/docker.service.d/ours.conf", f"{D}/old.service", f"{D}/p@.timer"]
    assert plan.removed == [
        "old.service",
        "p@x.timer",
        "r@1.service",
        "r@2.service",
        "p@.timer",
        f"{D}/docker.service.d/ours.conf",
    ]
    assert plan.applied == {}
    assert not plan.restart
    assert not plan.reload


def test_instances_that_nobody_looks_after_stay() -> None:
    unit = {"name": "r@.service", "content": TEXT}
    present = Present({"r@1.service": named(UP, "r@1.service")}, R_HERE)
    assert not plan_for([unit], present, orphans=True).changed
    gone = plan_for([{**unit, "instances": []}], present, orphans=True)
    assert gone.stop == gone.disable == gone.removed == ["r@1.service"]


@pytest.mark.parametrize(
    ("unit", "state", "message"),
    [
        (
            {"name": "docker.service", "state": "started"},
            UnitState("docker.service"),
            "units[0]: docker.service isn't known to systemd; is the package installed",
        ),
        (
            {"name": "docker.service", "enabled": True},
            replace(FOREIGN, load_state="bad-setting"),
            "can't be loaded (bad-setting)",
        ),
        (
            {"name": "docker.service", "state": "started"},
            replace(FOREIGN, load_state="masked", masked_by=("/run/systemd/system/docker.service",)),
            "docker.service is masked by /run/systemd/system/docker.service; masked: false undoes it",
        ),
        (
            {"name": "docker.service", "state": "started", "masked": False},
            replace(FOREIGN, load_state="masked"),
            "docker.service is masked by /usr/lib/systemd/system/docker.service",
        ),
        (
            {"name": "docker.service", "enabled": True},
            replace(FOREIGN, unit_file_state="static"),
            "docker.service is static",
        ),
    ],
)
def test_problems_forbid_acting_not_looking(unit: dict[str, Any], state: UnitState, message: str) -> None:
    plan = plan_for([unit], Present({"docker.service": state}))
    assert [message in str(problem) for problem in plan.problems] == [True]


@pytest.mark.parametrize(
    "unit",
    [
        {"name": "a.service", "content": TEXT},
        {"name": "a.service", "state": "absent"},
    ],
)
def test_another_owners_file_is_refused(unit: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"a\.service"):
        plan_for([unit], Present({"a.service": UP}, {f"{D}/a.service": marked("docker", TEXT)}))


def test_a_foreign_file_is_kept_beside_ours() -> None:
    plan = plan_for([UNIT], Present({"a.service": UP}, {f"{D}/a.service": TEXT}))
    assert plan.save == [f"{D}/a.service"]
    assert not plan_for([UNIT], Present({"a.service": UP}, {f"{D}/a.service": OURS + "# x\n"})).save


def test_diff_shows_texts_and_states() -> None:
    present = Present({"a.service": DOWN}, {f"{D}/a.service": OURS.replace("true", "false")})
    text, states = plan_for([UNIT], present).diff(present)
    assert text["before_header"] == f"{D}/a.service"
    assert (text["before"], text["after"]) == (OURS.replace("true", "false"), OURS)
    assert states["before"] == "a.service: inactive disabled\n"
    assert states["after"] == "a.service: enabled, started\nsystemd: daemon-reload\n"
    assert plan_for([UNIT], Present({"a.service": UP}, HERE)).diff(Present()) == []
