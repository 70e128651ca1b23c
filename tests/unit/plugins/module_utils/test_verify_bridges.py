# SPDX-License-Identifier: GPL-3.0-or-later
"""The look into network namespaces: engines aren't asked twice, rules are taken from the right backend."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _verify_bridges as bridges
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_info import Seen
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_links import Address, Link, Route
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_read import Namespace
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_rules import (
    iptables_chains,
    parse_policies,
    parse_sets,
)
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import NoAnswer
from ansible_collections.matryoshka.host.plugins.module_utils._verify_kernel import parse_firewall
from ansible_collections.matryoshka.host.plugins.module_utils._verify_lan import reach
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    EngineView,
    Expect,
    Firewall,
)
from bridge_fixtures import container, host, text, virtual_machines

DOCKER = Firewall(backend="nf_tables", chains={"nat": {"DOCKER": []}})
EMPTY = Firewall(backend="nf_tables", chains={"nat": {}})
LEGACY = Firewall(backend="legacy", chains={"nat": {"DOCKER": []}})


class TestTold:
    engines = {
        "/": EngineView(info={"ID": "outer"}, networks=[{"Name": "bridge"}]),
        "/proc/7/root": EngineView(error="nothing listens"),
        "/proc/8/root": EngineView(),
    }

    def test_what_was_answered(self) -> None:
        ask = bridges.told(self.engines)
        assert ask("/run/docker.sock", "/info") == {"ID": "outer"}
        assert ask("/run/docker.sock", "/networks") == [{"Name": "bridge"}]

    @pytest.mark.parametrize(
        ("root", "words"),
        [
            ("/proc/7/root", "nothing listens"),
            ("/proc/8/root", "wasn't asked"),
            ("/proc/9/root", "wasn't asked"),
        ],
    )
    def test_what_was_not(self, root: str, words: str) -> None:
        with pytest.raises(NoAnswer, match=words):
            bridges.told(self.engines)("/run/docker.sock", "/info", root=root)


@pytest.mark.parametrize(
    ("namespace", "backend", "expected"),
    [
        (Namespace("x", firewalls={"ip nft": DOCKER}), "nft", ("nf_tables", False, None)),
        (Namespace("x", firewalls={"ip nft": EMPTY, "ip legacy": LEGACY}), "nft", ("nf_tables", True, None)),
        (
            Namespace("x", firewalls={"ip nft": DOCKER, "ip legacy": LEGACY}),
            "nft",
            ("nf_tables", False, None),
        ),
        (
            Namespace("x", firewalls={"ip nft": DOCKER, "ip legacy": LEGACY}),
            "legacy",
            ("legacy", False, None),
        ),
        (Namespace("x", firewalls={"ip nft": DOCKER}), "legacy", ("legacy", True, None)),
        (Namespace("x", firewalls={"ip6 legacy": LEGACY}), "nft", ("nf_tables", False, None)),
        (Namespace("x", error="no such process"), "nft", (None, False, "no such process")),
        (Namespace("x", unread=["iptables (nft)"]), "nft", (None, False, "iptables (nft) can't be read")),
        (Namespace("x", unread=["nft"], firewalls={"ip nft": DOCKER}), "nft", ("nf_tables", False, None)),
    ],
)
def test_the_rules_of_a_namespace(
    namespace: Namespace, backend: str, expected: tuple[str | None, bool, str | None]
) -> None:
    found = bridges.firewall_of(namespace, backend)
    assert (found.backend, found.other, found.error) == expected


def test_the_rules_as_recorded() -> None:
    found = bridges.firewall_of(host(), "nft")
    assert found.rules("filter", "FORWARD")
    assert "DOCKER" in found.chains["nat"]


def test_one_process_for_each_namespace_and_no_daemon_is_asked() -> None:
    started: list[list[str]] = []

    def run(
        argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        started.append(list(argv))
        name = "debian13-container.txt" if argv[0] == "nsenter" else "debian13-host.txt"
        return Result(0, text(name).replace("MARK", argv[-1]))

    engines = {"/": EngineView(error="not asked: it isn't running")}
    seen = bridges.look_around(Expect.read({}), run, engines, {"a": 11, "b": 12})
    assert [one.name for one in seen.namespaces] == ["host", "a", "b"]
    assert len(started) == 3


def test_what_checks_need_is_plain_data() -> None:
    found = bridges.describe(Expect.read({}), Seen([host(), container()]))
    assert json.loads(json.dumps(found)) == found
    worst = found["overlaps"][0]
    assert (worst["severity"], worst["where"]) == ("broken", "host")
    assert [(one["kind"], one["engine"], one["live"]) for one in worst["sides"]] == [
        ("network", "docker", True),
        ("route", "", True),
    ]
    assert [one["bridge"] for one in found["cut_off"] if one["family"] == 4] == ["br0"]
    assert found["narrow"] == []
    assert set(found["lan"]) == {"docker0", "br-7d7c1cc51385", "br-92587c0a9905"}
    assert bridges.describe(Expect.read({}), Seen([virtual_machines()]))["mixed"] == ["host"]


def test_ranges_of_the_site_count() -> None:
    expect = Expect.read(
        {"network": {"reserved": ["172.17.0.0/16", {"name": "campus", "range": "10.0.0.0/9"}]}}
    )
    kinds = [one["sides"][1]["kind"] for one in bridges.describe(expect, Seen([host()]))["overlaps"]]
    assert "reserved" in kinds


def test_a_lowered_route_is_described_with_its_interface_s_own_value() -> None:
    outer = host()
    outer.routes = [replace(route, mtu=1280) if route.default else route for route in outer.routes]
    narrow = bridges.describe(Expect.read({}), Seen([outer]))["narrow"]
    assert {
        (one["outer"]["interface"], one["outer"]["mtu"], one["outer"]["interface_mtu"]) for one in narrow
    } == {("eth0", 1280, 1500)}


class TestReach:
    """How far guests of a bridge get."""

    def place(self, rules: str, sets: str = "", **more: Any) -> Namespace:
        seen = host()
        saved = f"*filter\n:FORWARD ACCEPT [0:0]\n{rules}COMMIT\n"
        seen.links = [link for link in seen.links if link.name in ("docker0", "eth0")]
        seen.filters = iptables_chains(
            parse_firewall(saved), parse_policies(saved), "ip", "nft", parse_sets(sets)
        )
        return replace(seen, **more)

    @pytest.mark.parametrize(
        ("rules", "sets", "expected"),
        [
            ("", "", "open"),
            ("-A FORWARD -i docker0 -j DROP\n", "", "closed"),
            ("-A FORWARD -i docker0 -d 192.168.0.0/16 -j DROP\n", "", "open"),
            ("-A FORWARD -i docker0 -m set --match-set lan dst -j REJECT\n", "", "?"),
            (
                "-A FORWARD -i docker0 -m set --match-set port dst,dst -j RETURN\n"
                "-A FORWARD -i docker0 -m set --match-set lan dst -j REJECT\n",
                "create lan hash:net\nadd lan 10.0.0.0/8\nadd lan 192.168.0.0/16\nadd lan 169.254.0.0/16\n"
                "create port hash:net,port\nadd port 10.0.0.53,udp:53\n",
                "closed",
            ),
            (
                "-A FORWARD -i docker0 -m set --match-set lan dst -j REJECT\n",
                "create lan hash:net\nadd lan 192.168.0.0/16\nadd lan 169.254.0.0/16\n",
                "open",
            ),
        ],
    )
    def test_by_rules_and_sets(self, rules: str, sets: str, expected: str) -> None:
        assert reach(self.place(rules, sets)) == {"docker0": expected}

    def test_without_forwarding_nothing_gets_out(self) -> None:
        switches = {**host().switches, "forward4": False}
        assert reach(self.place("", switches=switches)) == {"docker0": "closed"}

    def test_a_bridge_of_nobody_and_one_without_a_way_out_are_left_out(self) -> None:
        assert reach(self.place("", routes=[])) == {}
        assert reach(self.place("", engines=[])) == {}

    def test_ipv6_counts_too(self) -> None:
        seen = self.place("-A FORWARD -i docker0 -j DROP\n")
        seen.addresses = [*seen.addresses, Address("docker0", "fd00:1::1/64", "global")]
        seen.routes = [*seen.routes, Route(ipaddress.ip_network("::/0"), "eth0", "fe80::1")]
        assert reach(seen) == {"docker0": "open"}

    def test_a_link_that_is_no_bridge_is_left_out(self) -> None:
        assert reach(Namespace("host", links=[Link("eth0", 2, 1500)])) == {}
