# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses, routes and bridges, with and without ``ip``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._host_network import (
    DAEMON_JSON,
    RUNNERS,
    bridge_manager,
    default_interface,
    parse_if_inet6,
    parse_ip_addresses,
    parse_ip_routes,
    parse_proc_routes,
    parse_proc_routes6,
    parse_resolv_conf,
    read_engine_ranges,
    read_network,
)

PROC_ROUTES = """\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0100580A	0003	0	0	100	00000000	0	0	0
eth0	0000580A	00000000	0001	0	0	0	0000FFFF	0	0	0
docker0	000011AC	00000000	0001	0	0	0	0000FFFF	0	0	0
down0	000012AC	00000000	0000	0	0	0	0000FFFF	0	0	0
"""
IP_ROUTES = """[{"dst":"default","gateway":"10.88.0.1","dev":"eth0","protocol":"static","metric":100,"flags":[]},
{"dst":"10.88.0.0/16","dev":"eth0","protocol":"kernel","scope":"link","prefsrc":"10.88.0.4","flags":[]},
{"dst":"172.17.0.0/16","dev":"docker0","protocol":"kernel","scope":"link","prefsrc":"172.17.0.1","flags":[]}]"""
PROC_ROUTES6 = """\
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
fd000000000000010000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000010000000000000001 00000400 00000001 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
fe800000000000001443cafffeba5733 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000006 00000000 80200001     eth0
ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000004 00000000 00000001     eth0
"""
ADDRESSES = json.dumps(
    [
        {
            "ifname": "eth0",
            "addr_info": [{"family": "inet", "local": "10.88.0.4", "prefixlen": 16, "scope": "global"}],
        },
        {
            "ifname": "eth0",
            "addr_info": [{"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"}],
        },
        {"ifname": "docker0", "addr_info": [{"family": "inet", "local": "172.17.0.1", "prefixlen": 16}]},
        {"ifname": "veth0", "addr_info": [{}]},
    ]
)


def test_both_sources_of_ipv4_routes_agree() -> None:
    assert parse_proc_routes(PROC_ROUTES) == parse_ip_routes(IP_ROUTES, 4)


def test_ipv6_routes_without_ip() -> None:
    assert [(route["destination"], route["gateway"]) for route in parse_proc_routes6(PROC_ROUTES6)] == [
        ("fe80::/64", None),
        ("fd00:0:0:1::/64", None),
        ("::/0", "fd00:0:0:1::1"),
    ]


def test_a_multipath_route_is_one_for_each_hop() -> None:
    text = '[{"dst":"10.0.0.0/8","metric":5,"nexthops":[{"gateway":"10.1.0.1","dev":"a"},{"gateway":"10.2.0.1","dev":"b"}]}]'
    assert [(route["interface"], route["gateway"]) for route in parse_ip_routes(text, 4)] == [
        ("a", "10.1.0.1"),
        ("b", "10.2.0.1"),
    ]


def test_a_host_route_and_one_without_a_device() -> None:
    routes = parse_ip_routes('[{"type":"blackhole","dst":"10.9.0.1"}]', 4)
    assert (routes[0]["destination"], routes[0]["interface"], routes[0]["type"]) == (
        "10.9.0.1/32",
        None,
        "blackhole",
    )


def test_addresses() -> None:
    assert [entry["address"] for entry in parse_ip_addresses(ADDRESSES)] == [
        "10.88.0.4/16",
        "fe80::1/64",
        "172.17.0.1/16",
    ]
    found = parse_if_inet6("00000000000000000000000000000001 01 80 10 80       lo\nfd00 bad\n")
    assert found == [{"interface": "lo", "address": "::1/128", "family": 6, "scope": "host"}]


@pytest.mark.parametrize(
    ("name", "manager"),
    [
        ("docker0", "docker"),
        ("br-0123456789ab", "docker"),
        ("docker_gwbridge", "docker"),
        ("podman1", "podman"),
        ("virbr0", "libvirt"),
        ("br0", "other"),
        ("br-lan", "other"),
    ],
)
def test_who_made_a_bridge(name: str, manager: str) -> None:
    assert bridge_manager(name) == manager


def test_the_default_interface_has_the_lowest_metric() -> None:
    text = '[{"dst":"default","dev":"wlan0","metric":600},{"dst":"default","dev":"eth0","metric":100}]'
    assert default_interface(parse_ip_routes(text, 4)) == "eth0"
    assert default_interface([]) is None


def test_nameservers() -> None:
    assert parse_resolv_conf("# nameserver 1.1.1.1\nnameserver 9.9.9.9\nsearch x\nnameserver fd00::1\n") == [
        "9.9.9.9",
        "fd00::1",
    ]


@pytest.fixture
def view(tmp_path: Path) -> View:
    for name, mtu in (("docker0", "1450"), ("eth0", "1400")):
        (tmp_path / f"sys/class/net/{name}").mkdir(parents=True)
        (tmp_path / f"sys/class/net/{name}/mtu").write_text(mtu + "\n")
    (tmp_path / "sys/class/net/docker0/bridge").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").write_text("nameserver 127.0.0.53\n")
    (tmp_path / "run/systemd/resolve").mkdir(parents=True)
    (tmp_path / "run/systemd/resolve/resolv.conf").write_text("nameserver 10.0.0.2\n")
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/route").write_text(PROC_ROUTES)
    (tmp_path / "proc/net/ipv6_route").write_text(PROC_ROUTES6)
    return View(str(tmp_path))


def test_a_network_read_with_ip(view: View) -> None:
    found = read_network(
        {"addresses": Result(0, ADDRESSES), "routes4": Result(0, IP_ROUTES), "routes6": Result(0, "[]")}, view
    )
    assert found["default_interface"] == "eth0"
    assert found["mtu"] == 1400
    assert found["nameservers"] == ["10.0.0.2"]
    assert found["bridges"] == [
        {"name": "docker0", "addresses": ["172.17.0.1/16"], "managed_by": "docker", "mtu": 1450}
    ]
    assert "fe80::1/64" not in [entry["address"] for entry in found["addresses"]]


def test_a_network_read_without_ip(view: View) -> None:
    missing = Result(127, "", "ip: not found")
    found = read_network({"addresses": missing, "routes4": missing, "routes6": missing}, view)
    assert [route["destination"] for route in found["routes"]] == [
        "0.0.0.0/0",
        "10.88.0.0/16",
        "172.17.0.0/16",
        "fd00:0:0:1::/64",
        "::/0",
    ]
    assert found["mtu"] == 1400


def test_ranges_that_engines_have_now(view: View) -> None:
    def write(path: str, text: str) -> None:
        file = Path(view.path(path))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    assert read_engine_ranges(view) == {}
    write(DAEMON_JSON, '{"bip": "172.20.0.1/16", "mtu": 1400}')
    write(f"{RUNNERS}/ci.json", '{"inner_daemon": {"bip": "172.22.0.1/16", "default-address-pools": []}}')
    write(f"{RUNNERS}/other.json", '{"inner_daemon": {"bip": "10.0.0.1/24"}}')
    assert read_engine_ranges(view) == {
        "docker": {"bip": "172.20.0.1/16"},
        "runner": {"bip": "172.22.0.1/16", "default-address-pools": []},
    }
    write(DAEMON_JSON, "not JSON")
    write(f"{RUNNERS}/ci.json", "[]")
    assert read_engine_ranges(view) == {}
