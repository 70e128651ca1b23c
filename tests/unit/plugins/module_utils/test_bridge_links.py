# SPDX-License-Identifier: GPL-3.0-or-later
"""What iproute2 prints, in several versions."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_links import (
    describe_bridge,
    parse_learnt,
    parse_links,
    parse_routes,
    parse_rules,
    uplink,
)
from bridge_fixtures import host, virtual_machines
from hypothesis import given
from hypothesis import strategies as st


def test_links_of_iproute2_6_15() -> None:
    seen = host()
    links = {link.name: link for link in seen.links}
    assert (links["eth0"].kind, links["eth0"].mtu, links["eth0"].peer is not None) == ("veth", 1500, True)
    assert (links["p1"].master, links["p2"].master) == ("br0", "br0")
    assert links["br-7d7c1cc51385"].mtu == 1400
    assert links["docker0"].option("nf_call_iptables") == 0
    assert links["eth0"].option("nf_call_iptables") is None
    bridge = describe_bridge(links["br0"], seen.links, seen.addresses)
    assert (bridge["ports"], bridge["stp"], bridge["managed_by"]) == (["p1", "p2"], False, "other")
    assert "fd00:77::1/64" in bridge["addresses"]


def test_links_of_iproute2_6_1() -> None:
    seen = virtual_machines()
    links = {link.name: link for link in seen.links}
    assert links["enp1s0"].parent == "peer0"
    assert links["enp1s0"].peer is None
    bridge = describe_bridge(links["br0"], seen.links, seen.addresses)
    assert (bridge["ports"], bridge["stp"]) == (["enp1s0"], True)
    assert bridge["addresses"][:2] == ["192.168.1.5/24", "fd00:1::5/64"]


def test_routes_of_all_tables() -> None:
    routes = {(str(route.destination), route.table, route.gateway): route for route in host().routes}
    vpn = routes["172.30.5.128/25", "51820", "10.88.0.1"]
    assert (vpn.mtu, vpn.on_link, vpn.interface) == (1380, False, "eth0")
    assert routes["10.66.0.0/16", "main", None].kind == "blackhole"
    assert {key[2] for key in routes if key[0] == "10.67.0.0/16"} == {"10.88.0.1", "10.88.0.9"}
    assert routes["172.17.0.0/16", "main", None].on_link
    assert routes["fd00:9::/64", "main", None].interface == "br-92587c0a9905"
    assert not [key for key in routes if key[0].startswith(("127.", "ff00", "fe80", "10.88.0.5"))]


def test_the_way_out() -> None:
    four, six = uplink(virtual_machines().routes, 4), uplink(virtual_machines().routes, 6)
    assert four and (four.gateway, four.interface) == ("192.168.1.1", "br0")
    assert six and (six.gateway, str(six.destination)) == ("fd00:1::1", "::/0")
    assert uplink(host().routes, 6) is None


def test_policy_rules() -> None:
    assert [(rule["priority"], rule["table"], rule["family"]) for rule in host().rules] == [(100, "51820", 4)]


@pytest.mark.parametrize(
    ("entry", "destination"),
    [
        ({"dst": "default", "dev": "tun0"}, "0.0.0.0/0"),
        ({"dst": "default", "dev": "tun0", "pref": "medium"}, "::/0"),
        ({"dst": "default", "nexthops": [{"gateway": "fd00::1", "dev": "a"}]}, "::/0"),
        ({"dst": "default", "via": {"family": "inet6", "host": "fd00::1"}, "dev": "a"}, "::/0"),
        ({"dst": "10.1.2.3", "dev": "a"}, "10.1.2.3/32"),
    ],
)
def test_destinations(entry: dict[str, Any], destination: str) -> None:
    assert [str(route.destination) for route in parse_routes(json.dumps([entry]))] == [destination]


def test_a_point_to_point_link_has_the_network_of_its_other_end() -> None:
    entry = {"family": "inet", "local": "10.8.0.6", "address": "10.8.0.5", "prefixlen": 32, "scope": "global"}
    _links, addresses = parse_links(json.dumps([{"ifname": "tun0", "addr_info": [entry]}, {}]))
    assert str(addresses[0].network) == "10.8.0.5/32"


def test_learnt_mtus() -> None:
    text = '[{"dst":"192.0.2.9","gateway":"10.0.0.1","dev":"eth0","cache":[],"metrics":[{"mtu":1280}]},{"dst":"1.1.1.1"}]'
    assert parse_learnt(text) == [{"destination": "192.0.2.9", "interface": "eth0", "mtu": 1280}]


@pytest.mark.parametrize("text", ["", "[ ]", "[]", "[{}]", "{}", "no JSON", '["a"]', '[{"dst":"nonsense"}]'])
def test_nothing_to_see(text: str) -> None:
    assert parse_links(text) == ([], [])
    assert parse_routes(text) == []
    assert parse_learnt(text) == []
    assert len(parse_rules(text)) <= 1


@given(
    st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32), st.sampled_from(["main", "local", "7"])),
        max_size=8,
    )
)
def test_every_route_but_local_ones_is_kept(entries: list[tuple[int, int, str]]) -> None:
    networks = [
        (ipaddress.ip_network((base, 32)).supernet(new_prefix=size), table) for base, size, table in entries
    ]
    text = json.dumps([{"dst": str(network), "dev": "e", "table": table} for network, table in networks])
    wanted = [
        (network, table)
        for network, table in networks
        if table != "local" and not network.is_link_local and not network.is_multicast
    ]
    assert [(route.destination, route.table) for route in parse_routes(text)] == wanted
