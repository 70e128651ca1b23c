# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd_units against a real systemd; every check asks systemd, not the files."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from container_host import ContainerHost

D = "/etc/systemd/system"
SERVICE = """\
[Unit]
Description=Test %i

[Service]
Type=exec
ExecStart=/bin/sleep infinity
ExecReload=/bin/sh -c 'echo %n >>/run/um-reloaded'
Restart=always

[Install]
WantedBy=multi-user.target
"""
TIMER = "[Timer]\nOnCalendar=daily\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n"
ONESHOT = "[Service]\nType=oneshot\nExecStart=/bin/true\n"
DROP_IN = "[Service]\nTimeoutStopSec=7\n"
TWENTY = [str(number) for number in range(20)]


def output(host: ContainerHost, command: str) -> str:
    """The standard output of a shell command, whatever its exit code."""
    return host.run(command, check=False).out.strip()


def shown(host: ContainerHost, unit: str, *properties: str) -> list[str]:
    text = output(host, f"systemctl show -p {','.join(properties)} {unit}")
    values = dict(line.split("=", 1) for line in text.splitlines())
    return [values[name] for name in properties]


def call(
    host: ContainerHost, units: tuple[dict[str, Any], ...], orphans: bool = True, **more: bool
) -> dict[str, Any]:
    args = {"owner": "um", "units": list(units), "orphans": orphans}
    return host.module("systemd_units", args, **more)


def apply(host: ContainerHost, *units: dict[str, Any], **more: bool) -> dict[str, Any]:
    """What the module returned; it must not fail."""
    result = call(host, units, **more)
    assert not result.get("failed"), result
    return result


def refusal(host: ContainerHost, *units: dict[str, Any], **more: bool) -> str:
    """The message the module failed with; it must fail."""
    result = call(host, units, **more)
    assert result.get("failed"), result
    return str(result["msg"])


def template(instances: list[str], **more: Any) -> dict[str, Any]:
    base = {"name": "um-r@.service", "content": SERVICE, "instances": instances, "state": "started"}
    return {**base, "enabled": True, "on_change": "reload", **more}


@pytest.fixture
def host(plain_host: ContainerHost) -> Iterator[Any]:
    yield plain_host
    apply(plain_host)
    plain_host.run(
        f"systemctl unmask um-pkg.service 'um-r@1.service'; rm -rf /usr/lib/systemd/system/um-* {D}/um-* "
        f"/run/systemd/system/um-* /run/um-reloaded; systemctl daemon-reload; systemctl reset-failed",
        check=False,
    )


def running(host: ContainerHost) -> set[str]:
    text = output(host, "systemctl list-units --no-legend --plain --state=active 'um-*'")
    return {line.split()[0] for line in text.splitlines()}


def pids(host: ContainerHost) -> dict[str, str]:
    text = output(host, "systemctl show -p Id,MainPID 'um-r@*.service'")
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines()) for block in text.split("\n\n") if block
    ]
    return {block["Id"]: block["MainPID"] for block in blocks}


def test_life_of_a_template(host: ContainerHost) -> None:
    triggers = dict.fromkeys(TWENTY, "1")
    units = [
        template(TWENTY, triggers=triggers),
        {"name": "um-p@.service", "content": ONESHOT},
        {"name": "um-p@.timer", "content": TIMER, "instances": ["a"], "state": "started", "enabled": True},
    ]
    checked = apply(host, *units, check=True)
    assert checked["changed"]
    assert running(host) == set()
    first = apply(host, *units)
    assert first["started"] == checked["started"]
    assert running(host) == {f"um-r@{name}.service" for name in TWENTY} | {"um-p@a.timer"}
    assert shown(host, "um-r@7.service", "UnitFileState", "NeedDaemonReload") == ["enabled", "no"]
    before = pids(host)
    assert not apply(host, *units)["changed"]
    assert not apply(host, *units, check=True)["changed"]

    changed = apply(host, template(TWENTY, triggers={**triggers, "7": "2"}), *units[1:])
    assert changed["reloaded"] == ["um-r@7.service"]
    assert output(host, "cat /run/um-reloaded") == "um-r@7.service"

    text = SERVICE.replace("Restart=always", "Restart=always\nRestartSec=9")
    units[0] = template(TWENTY, content=text, on_change="none", triggers={**triggers, "7": "2"})
    changed = apply(host, *units, diff=True)
    assert changed["changed_units"] == ["um-r@.service"]
    assert changed["daemon_reloaded"]
    assert "RestartSec=9" in json.dumps(changed["diff"])
    assert shown(host, "um-r@3.service", "RestartUSec") == ["9s"]
    assert pids(host) == before

    units[0] = {**units[0], "instances": TWENTY[:2], "triggers": {}}
    fewer = apply(host, *units)
    assert len(fewer["removed"]) == 18
    assert running(host) == {"um-r@0.service", "um-r@1.service", "um-p@a.timer"}
    assert {name: before[name] for name in ("um-r@0.service", "um-r@1.service")} == pids(host)
    assert apply(host)["removed"]
    assert running(host) == set()
    assert output(host, f"ls {D} {D}/*.wants | grep um-") == ""
    assert output(host, "systemctl --failed --no-legend 'um-*'") == ""
    assert output(host, "ls /var/lib/matryoshka/units/um.json 2>/dev/null") == ""


def package(host: ContainerHost) -> None:
    """A unit file as a package leaves it."""
    host.run(f"cat >/usr/lib/systemd/system/um-pkg.service <<'X'\n{SERVICE}X\nsystemctl daemon-reload")


def test_drop_ins_and_masks_of_a_packages_unit(host: ContainerHost) -> None:
    unit = {
        "name": "um-pkg.service",
        "drop_ins": [{"name": "50-um.conf", "content": DROP_IN}],
        "state": "started",
        "enabled": True,
        "masked": False,
    }
    checked = apply(host, unit, check=True)
    assert checked["changed"]
    assert "um-pkg.service isn't known to systemd; is the package installed" in refusal(host, unit)
    assert output(host, f"ls {D} | grep um-") == ""
    package(host)
    assert apply(host, unit)["started"] == ["um-pkg.service"]
    assert shown(host, "um-pkg.service", "TimeoutStopUSec", "UnitFileState") == ["7s", "enabled"]
    for where in ("", "--runtime "):
        host.run(f"systemctl disable um-pkg.service; systemctl mask --now {where}um-pkg.service")
        assert shown(host, "um-pkg.service", "LoadState") == ["masked"]
        assert apply(host, unit)["changed"]
        assert shown(host, "um-pkg.service", "ActiveState", "UnitFileState") == ["active", "enabled"]
        assert not apply(host, unit)["changed"]
    assert apply(host, {**unit, "masked": None, "state": "stopped"})["stopped"] == ["um-pkg.service"]
    assert apply(host, {"name": "um-pkg.service", "masked": True, "enabled": False})["changed"]
    assert shown(host, "um-pkg.service", "LoadState") == ["masked"]
    assert f"um-pkg.service is masked by {D}/um-pkg.service" in refusal(host, {**unit, "masked": None})
    assert apply(host, unit)["changed"]
    host.run(
        f"mkdir -p {D}/um-pkg.service.d; printf '[Service]\\nTimeoutStopSec=99\\n' >{D}/um-pkg.service.d/zz.conf;"
        "systemctl daemon-reload"
    )
    seen = apply(host, unit)
    assert not seen["changed"]
    assert seen["foreign_drop_ins"] == {
        "um-pkg.service": {f"{D}/um-pkg.service.d/zz.conf": ["Service.TimeoutStopSec"]}
    }
    gone = apply(host)
    assert gone["removed"] == [f"{D}/um-pkg.service.d/50-um.conf"]
    assert output(host, f"ls {D}/um-pkg.service.d") == "zz.conf"
    assert shown(host, "um-pkg.service", "ActiveState") == ["active"]
    host.run("systemctl disable --now um-pkg.service")


ONE_EACH = [
    f"ln -sf /dev/null {D}/um-r@0.service",
    "systemctl mask --runtime --now um-r@1.service",
    "systemctl disable um-r@2.service",
    f"rm {D}/multi-user.target.wants/um-r@3.service",
    "systemctl stop um-r@4.service",
    f"systemctl mask --now um-r@5.service && rm {D}/um-r@5.service",
]


def assert_whole(host: ContainerHost, count: int) -> None:
    properties = ("ActiveState", "UnitFileState", "LoadState", "NeedDaemonReload")
    for number in range(count):
        unit = f"um-r@{number}.service"
        assert shown(host, unit, *properties) == ["active", "enabled", "loaded", "no"], unit
        assert "infinity" in output(host, f"systemctl show -p ExecStart {unit}")


def test_what_people_do_to_instances_is_undone(host: ContainerHost) -> None:
    unit = template([str(number) for number in range(7)])
    apply(host, unit)
    kept = pids(host)["um-r@6.service"]
    for damage in ONE_EACH:
        host.run(damage, check=False)
    checked = apply(host, unit, check=True)
    done = apply(host, unit)
    for result in (checked, done):
        words = result["diff"][-1]["after"]
        assert [f"um-r@{number}.service" in words for number in range(7)] == [True] * 6 + [False]
    assert_whole(host, 7)
    assert pids(host)["um-r@6.service"] == kept
    assert not apply(host, unit)["changed"]


@pytest.mark.parametrize(
    "damage",
    [
        f"echo '[Service]' >{D}/um-r@.service; systemctl daemon-reload",
        f"rm {D}/um-r@.service",
        f"rm {D}/um-r@.service; systemctl daemon-reload",
        f"ln -sf /dev/null {D}/um-r@.service; systemctl daemon-reload",
        f"sed -i s/infinity/1000/ {D}/um-r@.service; systemctl daemon-reload; systemctl restart um-r@0.service",
        f"touch {D}/um-r@.service",
    ],
)
def test_what_people_do_to_a_template_is_undone(host: ContainerHost, damage: str) -> None:
    unit = template(["0"], on_change="restart")
    apply(host, unit)
    host.run(damage, check=False)
    assert apply(host, unit)["changed"]
    assert_whole(host, 1)
    assert not apply(host, unit, check=True)["changed"]


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ({"name": "um x.service"}, "units[1].name: 'um x.service' is refused"),
        ({"name": "um-x.service", "content": "[Service]\nzork\n"}, "units[1].content line 2"),
        ({"name": "um-x.service", "content": "[Service]\nExecStrat=/bin/true\n"}, "ExecStrat"),
        ({"name": "um-x.service", "content": "[Service]\nType=exec\n"}, "no ExecStart="),
        (
            {"name": "um-x.service", "content": "[Service]\nExecStart=/bin/true\nLimitNOFILE=zork\n"},
            "um-x.service:4",
        ),
        ({"name": "um-x.timer", "content": "[Timer]\nOnCalendar=someday\n"}, "someday"),
        (
            {
                "name": "ssh.service",
                "drop_ins": [{"name": "um.conf", "content": "[Service]\nMemoryMax=lots\n"}],
            },
            "ssh.service.d/um.conf:3",
        ),
    ],
)
def test_a_bad_text_changes_nothing(host: ContainerHost, unit: dict[str, Any], message: str) -> None:
    before = output(host, f"ls -R {D}; ls /var/lib/matryoshka/units 2>/dev/null")
    assert message in refusal(host, template(["0"]), unit)
    assert output(host, f"ls -R {D}; ls /var/lib/matryoshka/units 2>/dev/null") == before
    assert running(host) == set()


def test_another_owners_unit_is_left_alone(host: ContainerHost) -> None:
    apply(host, template(["0"]))
    other = {"owner": "um2", "units": [template(["0"])]}
    refused = host.module("systemd_units", other)
    assert refused["failed"]
    assert "a unit without a file of um" in refused["msg"]
    nothing = host.module("systemd_units", {"owner": "um2", "units": [], "orphans": True})
    assert not nothing["changed"]
    assert running(host) == {"um-r@0.service"}


def test_what_fails_is_named_and_tried_again(host: ContainerHost) -> None:
    good, bad = SERVICE, SERVICE.replace("/bin/sleep infinity", "/bin/absent").replace("always", "no")
    apply(host, {"name": "um-a.service", "content": good, "state": "started"})
    message = refusal(
        host,
        {"name": "um-a.service", "content": bad, "state": "started"},
        {"name": "um-b.service", "content": good, "state": "started"},
    )
    assert "um-a.service is failed (exit-code); read: journalctl -u um-a.service" in message
    assert running(host) == {"um-b.service"}
    mended = apply(host, {"name": "um-a.service", "content": good, "state": "started"}, orphans=False)
    assert mended["started"] == ["um-a.service"]
    assert running(host) == {"um-a.service", "um-b.service"}


def test_reload_between_two_starts_is_no_error(host: ContainerHost) -> None:
    text = SERVICE.replace("/bin/sleep infinity", "/bin/false").replace("always", "always\nRestartSec=300")
    unit = {"name": "um-a.service", "content": text, "state": "started", "on_change": "reload"}
    apply(host, unit)
    for _attempt in range(50):
        if shown(host, "um-a.service", "SubState") == ["auto-restart"]:
            break
        time.sleep(0.1)
    assert apply(host, {**unit, "content": text + "[Service]\nTimeoutStopSec=3\n"})["reloaded"] == []
    assert not apply(host, {**unit, "content": text + "[Service]\nTimeoutStopSec=3\n"})["changed"]


def test_starts_need_not_be_waited_for(host: ContainerHost) -> None:
    text = SERVICE.replace("[Service]", "[Service]\nTimeoutStartSec=infinity\nExecStartPre=/bin/sleep 900")
    host.module(
        "systemd_units",
        {
            "owner": "um",
            "wait": False,
            "units": [{"name": "um-a.service", "content": text, "state": "started"}],
        },
    )
    assert shown(host, "um-a.service", "ActiveState") == ["activating"]
