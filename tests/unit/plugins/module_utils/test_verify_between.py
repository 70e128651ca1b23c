# SPDX-License-Identifier: GPL-3.0-or-later
"""What the look between engines found is told once, with what it is about."""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.verify_host import Host

Change = Callable[[Host], Any]


def side(kind: str, network: str, where: str = "host", engine: str = "", live: bool = True) -> dict[str, Any]:
    return {"where": where, "kind": kind, "engine": engine, "range": network, "live": live}


def overlap(host: Host, severity: str, *sides: dict[str, Any]) -> None:
    host.seen.bridges["overlaps"].append(
        {
            "where": sides[0]["where"],
            "severity": severity,
            "text": f"{sides[0]['range']} overlaps {sides[1]['range']}",
            "remedy": "move it",
            "sides": list(sides),
        }
    )


def step(where: str, interface: str, mtu: int, own: int | None = None) -> dict[str, Any]:
    return {"where": where, "interface": interface, "mtu": mtu, "interface_mtu": own or mtu, "what": "x"}


def narrow(host: Host, inner: dict[str, Any], outer: dict[str, Any]) -> None:
    host.seen.bridges["narrow"].append({"inner": inner, "outer": outer})


def cut(host: Host, where: str, bridge: str, network: str | None, because: str = "the policy of x") -> None:
    host.seen.bridges["cut_off"].append(
        {
            "where": where,
            "bridge": bridge,
            "network": network,
            "family": 4,
            "traffic": "bridged",
            "because": because,
            "text": f"bridge {bridge}: packets are dropped by {because}",
            "remedy": "let them pass",
        }
    )


POOL = side("pool", "172.25.0.0/16", engine="docker")


def inner(host: Host, kind: str, network: str) -> dict[str, Any]:
    return side(kind, network, host.environment.name, "docker")


# (what is changed, the codes that are found, words of subject and text)
CASES: dict[str, tuple[Change, list[str], str]] = {
    "another engine's network in our pool": (
        lambda host: overlap(host, "degraded", POOL, side("network", "172.25.9.0/24", engine="podman")),
        ["overlap"],
        "engine docker: 172.25.0.0/16 overlaps 172.25.9.0/24",
    ),
    "another engine beside the host's network": (
        lambda host: overlap(
            host,
            "degraded",
            side("network", "10.88.0.0/16", engine="podman", live=False),
            side("route", "10.88.0.0/16"),
        ),
        [],
        "",
    ),
    "another engine in the way of the host's network": (
        lambda host: overlap(
            host, "broken", side("network", "10.88.0.0/16", engine="podman"), side("route", "10.88.0.0/16")
        ),
        ["overlap"],
        "host: 10.88.0.0/16 overlaps",
    ),
    "a range that the site keeps": (
        lambda host: overlap(
            host,
            "degraded",
            side("network", "10.9.0.0/16", engine="podman"),
            side("reserved", "10.9.0.0/16"),
        ),
        ["overlap"],
        "host: 10.9.0.0/16 overlaps",
    ),
    "what engines avoid themselves": (
        lambda host: overlap(host, "note", POOL, side("route", "172.25.9.0/24")),
        [],
        "",
    ),
    "an inner network over the LAN": (
        lambda host: overlap(
            host, "broken", inner(host, "network", "10.88.0.0/24"), side("route", "10.88.0.0/16")
        ),
        ["overlap"],
        "runner ci, inner engine: 10.88.0.0/24 overlaps 10.88.0.0/16",
    ),
    "an inner network over the LAN, of a job that runs": (
        lambda host: (
            host.state.update(state="running"),
            overlap(host, "broken", inner(host, "network", "10.88.0.0/24"), side("route", "10.88.0.0/16")),
        ),
        [],
        "",
    ),
    "a route that is named by its configuration": (
        lambda host: (
            host.seen.net.routes.append(("vmbr0", "172.25.3.0/24")),
            overlap(host, "degraded", POOL, side("route", "172.25.3.0/24")),
        ),
        ["route_overlap"],
        "engine docker",
    ),
    "a route into the inner pool that is named": (
        lambda host: (
            host.seen.net.routes.append(("vmbr0", "172.29.3.0/24")),
            overlap(host, "degraded", inner(host, "pool", "172.28.0.0/14"), side("route", "172.29.3.0/24")),
        ),
        ["route_overlap"],
        "runner ci",
    ),
    "a nameserver that is named": (
        lambda host: (
            setattr(host.seen.net, "nameservers", ["172.29.0.53"]),
            overlap(
                host, "broken", inner(host, "pool", "172.28.0.0/14"), side("nameserver", "172.29.0.53/32")
            ),
        ),
        ["route_overlap"],
        "nameserver 172.29.0.53",
    ),
    "another route than the one that is named": (
        lambda host: (
            host.seen.net.routes.append(("vmbr0", "172.29.3.0/24")),
            overlap(host, "degraded", inner(host, "pool", "172.28.0.0/14"), side("route", "172.29.4.0/24")),
        ),
        ["overlap", "route_overlap"],
        "172.29.4.0/24",
    ),
    "inner and outer ranges that are named": (
        lambda host: (
            host.runner["inner_daemon"].update(bip="172.20.0.1/16"),
            (host.seen.runners["ci"].config or {})["inner_daemon"].update(bip="172.20.0.1/16"),
            overlap(
                host,
                "degraded",
                inner(host, "network", "172.20.0.0/16"),
                side("network", "172.20.0.0/16", engine="docker"),
            ),
        ),
        ["daemon_setting", "range_overlap", "route_overlap"],
        "inside and outside share addresses",
    ),
    "a route's MTU": (
        lambda host: narrow(host, step("host", "docker0", 1500), step("host", "eth0", 1300, 1500)),
        ["mtu"],
        "engine docker: packets of docker0 have 1500 bytes, but eth0 lets only 1300 through, as its route says",
    ),
    "an interface's MTU on several ways": (
        lambda host: [
            narrow(host, step("host", name, 1500), step("host", "docker0", 1400))
            for name in ("veth1", "veth2")
        ],
        ["mtu"],
        "engine docker: packets of veth1 have 1500 bytes, but docker0 lets only 1400 through",
    ),
    "an inner bridge's MTU": (
        lambda host: narrow(
            host,
            step(host.environment.name, "docker0", 1500),
            step(host.environment.name, "docker0", 1400),
        ),
        ["mtu"],
        "runner ci, inner engine: packets of docker0",
    ),
    "a way out that is named": (
        lambda host: (
            host.seen.net.mtu.update(eth0=1400),
            narrow(host, step("host", "docker0", 1500), step("host", "eth0", 1400)),
        ),
        ["mtu"],
        "its network bridge has MTU 1500",
    ),
    "a bridge of the host's own": (
        lambda host: cut(host, "host", "br0", None),
        ["bridge_cut_off"],
        "host: bridge br0: packets are dropped by the policy of x",
    ),
    "a bridge of the engine": (
        lambda host: cut(host, "host", "docker0", "bridge"),
        ["bridge_cut_off"],
        "engine docker: bridge docker0",
    ),
    "an inner bridge": (
        lambda host: cut(host, host.environment.name, "docker0", "bridge"),
        ["bridge_cut_off"],
        "runner ci, inner engine: bridge docker0",
    ),
    "a bridge of a container that is nobody's": (
        lambda host: cut(host, "somebody", "br0", None),
        ["bridge_cut_off"],
        "container somebody: bridge br0",
    ),
    "a bridge that is closed by plan": (
        lambda host: cut(
            host, "host", "docker0", "bridge", "iptables -t filter -A MATRYOSHKA-JOB -d 10.0.0.0/8 -j DROP"
        ),
        [],
        "",
    ),
    "an engine's bridge whose rules are gone": (
        lambda host: (
            host.seen.net.firewall.chains["nat"].update(POSTROUTING=[]),
            cut(host, "host", "docker0", "bridge"),
        ),
        ["firewall_nat"],
        "masquerades",
    ),
    "a host's bridge, whatever the engine lacks": (
        lambda host: (
            host.seen.net.firewall.chains["nat"].update(POSTROUTING=[]),
            cut(host, "host", "br0", None),
        ),
        ["bridge_cut_off", "firewall_nat"],
        "bridge br0",
    ),
    "everything is dropped": (
        lambda host: (
            host.seen.net.firewall.chains["filter"]["FORWARD"].insert(0, "-j DROP"),
            cut(host, "host", "br0", None),
            cut(host, "host", "docker0", "bridge"),
        ),
        ["firewall_blocked"],
        "drops every forwarded packet",
    ),
    "both backends where rules are promised": (
        lambda host: host.seen.bridges["mixed"].append("host"),
        [],
        "",
    ),
    "both backends where none are": (
        lambda host: (
            host.expect.pop("firewall"),
            host.seen.bridges.update(cut_off=[], mixed=["host", "somebody"]),
        ),
        ["firewall_both"],
        "host: rules are loaded in both iptables backends",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_finding_is_told_once(case: str) -> None:
    change, codes, words = CASES[case]
    host = Host()
    change(host)
    findings = host.report().findings
    told = "\n".join(f"{one.subject}: {one.text}" for one in findings)
    assert sorted(one.code for one in findings) == codes, told
    assert words in told
    assert all(one.remedy for one in findings)


def test_notes() -> None:
    host = Host()
    host.seen.bridges["learnt"].append(
        {"where": "host", "destination": "192.0.2.7", "interface": "eth0", "mtu": 1280}
    )
    host.state.update(state="running")
    overlap(host, "broken", inner(host, "network", "10.88.0.0/24"), side("route", "10.88.0.0/16"))
    notes = {one.code: f"{one.subject}: {one.text}" for one in host.report().notes}
    assert notes["mtu_learnt"].startswith(
        "host: a router has said that the way to 192.0.2.7 carries 1280 bytes"
    )
    assert notes["overlap"].startswith("runner ci, inner engine: ")


def test_remedies_for_a_path() -> None:
    host = Host()
    narrow(host, step("host", "docker0", 1500), step("host", "eth0", 1300, 1500))
    (finding,) = host.report().findings
    assert "set docker_daemon.mtu to 1300" in finding.remedy
    assert "take mtu out of the default route" in finding.remedy
    host = Host()
    narrow(host, step(host.environment.name, "docker0", 1500), step("host", "docker0", 1400))
    (finding,) = host.report().findings
    assert "set runner_mtu to 1400" in finding.remedy
    assert "ip link set docker0 mtu 1500" in finding.remedy


def test_nothing_seen_is_nothing_told() -> None:
    host = Host()
    host.seen.bridges = {}
    assert host.report().findings == []
