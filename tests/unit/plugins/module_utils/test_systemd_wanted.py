# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_wanted import (
    parse_wanted,
    paths_of,
    resolve,
    wanted_files,
)

SERVICE = "[Service]\nExecStart=/bin/true\nExecReload=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
BARE = "[Service]\nExecStart=/bin/true\n"
ONESHOT = "[Service]\nType=oneshot\nExecStart=/bin/true\n"


@pytest.mark.parametrize(
    ("entry", "variable", "message"),
    [
        ({"name": "a"}, "units[0].name", "NAME.TYPE"),
        ({"name": "a.service", "state": "up"}, "units[0].state", "started"),
        ({"name": "a.service", "on_change": "kill"}, "units[0].on_change", "restart, reload, none"),
        ({"name": "a.service", "content": "zork"}, "units[0].content line 1", "systemd.syntax"),
        ({"name": "a.service", "content": BARE, "state": "absent"}, "units[0].content", "no content"),
        ({"name": "a.service", "content": BARE, "enabled": True}, "units[0].enabled", "no [Install]"),
        (
            {"name": "a.service", "content": BARE, "on_change": "reload"},
            "units[0].on_change",
            "no ExecReload",
        ),
        ({"name": "a.service", "content": BARE, "masked": True}, "units[0].masked", "false"),
        ({"name": "a.service", "content": ONESHOT, "state": "started"}, "units[0].state", "RemainAfterExit"),
        ({"name": "a.service", "masked": True, "state": "started"}, "units[0].state", "masked"),
        ({"name": "a.service", "instances": ["x"]}, "units[0].instances", "no template"),
        ({"name": "a@.service", "instances": ["x", "x"]}, "units[0].instances[1]", "once"),
        ({"name": "a@.service", "instances": ["x y"]}, "units[0].instances[0]", "ASCII"),
        ({"name": "a@.service", "state": "started"}, "units[0].state", "without instances"),
        ({"name": "a@.service", "enabled": True}, "units[0].enabled", "without instances"),
        (
            {"name": "a@.service", "instances": ["x"], "triggers": {"y": "1"}},
            "units[0].triggers",
            "one of instances",
        ),
        ({"name": "a.service", "triggers": {"y": "1"}}, "units[0].triggers", "no template"),
        (
            {"name": "a.service", "drop_ins": [{"name": "x", "content": BARE}]},
            "units[0].drop_ins[0].name",
            ".conf",
        ),
        (
            {"name": "a.service", "drop_ins": [{"name": "x.conf", "content": "[Timer]\nA=1"}]},
            "units[0].drop_ins[0].content line 2",
            "[Service]",
        ),
        (
            {"name": "a.service", "drop_ins": [{"name": "x.conf", "content": BARE}] * 2},
            "units[0].drop_ins[1].name",
            "once",
        ),
    ],
)
def test_refused(entry: dict[str, Any], variable: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_wanted("runner", [entry])
    assert error.value.variable == variable
    assert message in str(error.value)


def test_every_unit_once() -> None:
    with pytest.raises(
        InputError, match=r"units\[1\].name: 'a.service' is refused; allowed: every unit once"
    ):
        parse_wanted("runner", [{"name": "a.service"}, {"name": "a.service"}])


@pytest.mark.parametrize(
    ("triggers", "found"),
    [
        (None, {}),
        ("x", {"a@1.service": "x", "a@2.service": "x"}),
        (["x", "y"], {"a@1.service": "x\ny", "a@2.service": "x\ny"}),
        ({"2": "x"}, {"a@2.service": "x"}),
    ],
)
def test_triggers(triggers: object, found: dict[str, str]) -> None:
    entry = {"name": "a@.service", "instances": ["1", "2"], "triggers": triggers}
    assert parse_wanted("runner", [entry])[0].triggers == found


def test_instances_override_their_template() -> None:
    units = parse_wanted(
        "runner",
        [
            {"name": "a@2.service", "state": "stopped", "drop_ins": [{"name": "x.conf", "content": BARE}]},
            {
                "name": "a@.service",
                "content": SERVICE,
                "instances": ["1", "2"],
                "state": "started",
                "enabled": True,
                "on_change": "reload",
                "on_trigger": "restart",
                "triggers": "t",
            },
        ],
    )
    targets = resolve(units)
    assert sorted(targets) == ["a@1.service", "a@2.service"]
    one, two = targets["a@1.service"], targets["a@2.service"]
    assert (one.state, one.enabled, one.on_change, one.on_trigger, one.trigger) == (
        "started",
        True,
        "reload",
        "restart",
        "t",
    )
    assert (two.state, two.enabled, two.on_change, two.on_trigger, two.trigger) == (
        "stopped",
        True,
        "reload",
        "restart",
        "t",
    )
    assert two.has_content
    assert two.masked is False


def test_on_trigger_follows_on_change() -> None:
    units = parse_wanted("r", [{"name": "a.service", "on_change": "none"}, {"name": "b.service"}])
    targets = resolve(units)
    assert targets["a.service"].on_trigger == "none"
    assert (targets["b.service"].on_change, targets["b.service"].on_trigger) == ("restart", "restart")


def test_files() -> None:
    units = parse_wanted(
        "runner",
        [{"name": "a@.service", "content": SERVICE, "drop_ins": [{"name": "x.conf", "content": BARE}]}],
    )
    files = wanted_files("/d", units)
    assert sorted(files) == ["/d/a@.service", "/d/a@.service.d/x.conf"]
    assert all(text.startswith("# Managed by matryoshka.host: runner\n[") for text in files.values())
    assert paths_of("/d", "a@1.service") == (
        "/d/a@1.service",
        "/d/a@1.service.d/",
        "/d/a@.service",
        "/d/a@.service.d/",
    )
