# SPDX-License-Identifier: GPL-3.0-or-later
"""What the play makes of a host when no variable is set."""

from __future__ import annotations

import json
from typing import Any

import pytest
from live import DATA, Site

CONTAINER = "docker exec $(docker ps -q --filter label=matryoshka.runner=ci) "
DOLLS = {
    "host": ("", "172.20.0.1/16", "172.25.0.0/16"),
    "inner": (CONTAINER, "172.22.0.1/16", "172.28.0.0/14"),
}


def test_one_runner_is_ready(defaults: Site) -> None:
    site = defaults
    assert site.lines("ls /etc/matryoshka/runners") == ["ci.json"]
    header, line = site.lines("matryoshka status")
    state = site.state("ci")
    assert header.split()[:2] == ["RUNNER", "STATE"]
    assert line.split()[:2] == ["ci", "ready"] and state["environment"]["container"] in line
    unit = site.host.service("matryoshka-runner@ci.service")
    assert unit.is_running and unit.is_enabled
    assert site.main_pid("matryoshka-runner@ci.service") == state["pid"]
    assert site.sh("systemctl show --value -p StatusText matryoshka-runner@ci.service").startswith(
        "ready, environment"
    )
    assert json.loads(site.sh("matryoshka status --json"))[0]["environment"] == state["environment"]


@pytest.mark.parametrize("doll", DOLLS)
def test_each_engine_has_overlay_and_networks_of_its_own(defaults: Site, doll: str) -> None:
    site = defaults
    inside, bip, pool = DOLLS[doll]
    info = json.loads(site.sh(inside + "docker info --format '{{json .}}'"))
    assert info["Driver"] == "overlay2", info
    assert ["Supports d_type", "true"] in info["DriverStatus"], info["DriverStatus"]
    assert [found["Base"] for found in info["DefaultAddressPools"]] == [pool]
    assert [found["Size"] for found in info["DefaultAddressPools"]] == [24]
    bridge = addresses(site, inside)["docker0"]
    assert bridge == [bip], f"docker0 has had another subnet: {bridge}"


def test_every_doll_has_the_mtu_of_the_one_around_it(defaults: Site) -> None:
    uplink = defaults.sh("ip -j route show default")
    device = json.loads(uplink)[0]["dev"]
    outer = int(defaults.sh(f"cat /sys/class/net/{device}/mtu"))
    inside = int(defaults.sh(CONTAINER + "cat /sys/class/net/eth0/mtu"))
    assert inside <= outer


def addresses(site: Site, inside: str) -> dict[str, list[str]]:
    links: list[dict[str, Any]] = json.loads(site.sh(inside + "ip -j -4 address"))
    return {
        link["ifname"]: [f"{found['local']}/{found['prefixlen']}" for found in link["addr_info"]]
        for link in links
        if link
    }


def test_the_host_never_had_a_bridge_by_default(defaults: Site) -> None:
    """Docker's default subnet is in no rule: the configuration was there before the daemon."""
    assert "172.17." not in defaults.sh("iptables-save; ip route")


def test_timers_are_due(defaults: Site) -> None:
    due = defaults.sh("systemctl list-timers --no-legend 'matryoshka-*'").splitlines()
    assert sorted(line.split()[-1] for line in due) == [
        "matryoshka-prune-engine.service",
        "matryoshka-prune@ci.service",
    ]
    assert not [line for line in due if line.startswith("-")], "a timer never elapses"
    persistent = "systemctl show --value -p Persistent -p RandomizedDelayUSec matryoshka-prune-engine.timer"
    assert defaults.lines(persistent) == ["1h", "yes"] or set(defaults.lines(persistent)) == {"yes", "1h"}


def test_who_may_read_what(defaults: Site) -> None:
    modes = dict(
        line.split()
        for line in defaults.lines(
            "stat -c '%n %U:%G:%a' /etc/matryoshka/runners/ci.json /run/matryoshka/environments/ci "
            f"/run/matryoshka/runners/ci.json {DATA}/ci/lock /var/lib/matryoshka/queue/new /usr/local/sbin/matryoshka"
        )
    )
    assert modes == {
        "/etc/matryoshka/runners/ci.json": "root:root:600",
        "/run/matryoshka/environments/ci": "root:root:700",
        "/run/matryoshka/runners/ci.json": "root:root:644",
        f"{DATA}/ci/lock": "root:root:600",
        "/var/lib/matryoshka/queue/new": "root:root:2770",
        "/usr/local/sbin/matryoshka": "root:root:755",
    }


def test_a_shell_opens_in_the_environment(defaults: Site) -> None:
    assert defaults.sh("matryoshka shell ci hostname").strip() == "ci"


def test_a_runner_that_is_not_there_is_refused_by_name(defaults: Site) -> None:
    defaults.write("/root/true.sh", "true\n")
    said = defaults.fails("matryoshka job /root/true.sh --runner nobody")
    assert "nobody" in said and "ci" in said, said
