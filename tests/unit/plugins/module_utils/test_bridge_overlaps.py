# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranges that meet, on the host and between levels."""

from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_engines import (
    BUILT_IN,
    Engine,
    EngineNetwork,
    docker_configuration,
    podman_engine,
)
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_links import Address, Route
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_overlaps import (
    Claim,
    Overlap,
    claims,
    find_overlaps,
    reserved_claims,
)
from ansible_collections.matryoshka.host.plugins.module_utils._networks import Network, Pool
from hypothesis import given
from hypothesis import strategies as st


def network(engine: str, name: str, *ranges: str, interface: str | None = None) -> EngineNetwork:
    return EngineNetwork(
        engine, name, "bridge", interface or f"if-{name}", tuple(ipaddress.ip_network(one) for one in ranges)
    )


def docker(*networks: EngineNetwork, pools: tuple[str, ...] = ()) -> Engine:
    return Engine(
        "docker", True, networks, tuple(Pool(ipaddress.ip_network(one), 24) for one in pools), built_in=False
    )


def route(
    destination: str, interface: str | None = "eth0", gateway: str | None = None, table: str = "main"
) -> Route:
    return Route(ipaddress.ip_network(destination), interface, gateway, table)


def place(
    where: str = "host",
    routes: tuple[Route, ...] = (),
    addresses: tuple[Address, ...] = (),
    nameservers: tuple[str, ...] = (),
    engines: tuple[Engine, ...] = (),
) -> list[Claim]:
    return claims(where, routes, addresses, nameservers, engines)


def on(interface: str, address: str) -> Address:
    return Address(interface, address, "global")


def said(found: list[Overlap]) -> list[tuple[str, str, str, str, str]]:
    return [
        (one.severity, one.ours.what, str(one.ours.network), one.other.what, str(one.other.network))
        for one in found
    ]


APP = network("docker", "app", "172.30.0.0/16")
APP_THERE = on("if-app", "172.30.0.1/16")


def test_its_own_bridge_is_no_overlap() -> None:
    own = place(
        routes=(route("172.30.0.0/16", "if-app"),),
        addresses=(APP_THERE,),
        engines=(docker(APP, pools=("172.30.0.0/16",)),),
    )
    assert find_overlaps(own) == []


def test_a_vpn_in_another_table() -> None:
    vpn = route("172.30.5.0/24", "wg0", table="51820")
    found = find_overlaps(place(routes=(vpn,), addresses=(APP_THERE,), engines=(docker(APP),)))
    assert said(found) == [
        ("broken", "docker network app", "172.30.0.0/16", "route on wg0 in table 51820", "172.30.5.0/24")
    ]
    assert found[0].text == (
        "docker network app 172.30.0.0/16 (the host) overlaps route on wg0 in table 51820 172.30.5.0/24 (the host):"
        " what is behind that route can't be reached from both sides"
    )
    assert found[0].as_dict()["b"] == {
        "where": "host",
        "kind": "route",
        "what": "route on wg0 in table 51820",
        "range": "172.30.5.0/24",
    }


@pytest.mark.parametrize("destination", ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"])
def test_routes_to_everywhere_are_no_overlap(destination: str) -> None:
    assert find_overlaps(place(routes=(route(destination, "tun0"),), engines=(docker(APP),))) == []


def test_two_engines_with_the_same_subnet() -> None:
    default = network("libvirt", "default", "192.168.122.0/24", interface="virbr0")
    again = network("docker", "again", "192.168.122.0/25")
    both = place(
        addresses=(on("virbr0", "192.168.122.1/24"), on("if-again", "192.168.122.1/25")),
        engines=(docker(again), Engine("libvirt", True, (default,))),
    )
    assert said(find_overlaps(both))[0] == (
        "broken",
        "docker network again",
        "192.168.122.0/25",
        "libvirt network default",
        "192.168.122.0/24",
    )
    down = place(engines=(docker(again), Engine("libvirt", True, (default,))))
    assert [one.severity for one in find_overlaps(down)] == ["degraded"]


def test_what_docker_avoids_itself_is_a_note() -> None:
    pools = docker(pools=("192.168.0.0/16",))
    lan = place(
        routes=(route("192.168.1.0/24"),), addresses=(on("eth0", "192.168.1.5/24"),), engines=(pools,)
    )
    assert [one.severity for one in find_overlaps(lan)] == ["note"]
    behind = place(routes=(route("192.168.7.0/24", gateway="10.0.0.1"),), engines=(pools,))
    assert [one.severity for one in find_overlaps(behind)] == ["degraded"]
    server = place(nameservers=("192.168.1.1", "127.0.0.53", "fe80::1%eth0", "rubbish"), engines=(pools,))
    assert said(find_overlaps(server)) == [
        ("note", "address pool of docker", "192.168.0.0/16", "nameserver", "192.168.1.1/32")
    ]
    podman = place(nameservers=("10.89.0.53",), engines=(podman_engine([], []),))
    assert [one.severity for one in find_overlaps(podman)] == ["degraded"]


def test_built_in_pools_of_docker_and_podman_are_apart() -> None:
    both = place(engines=(docker_configuration(None, "down"), podman_engine([], [])))
    assert find_overlaps(both) == []
    same = place(engines=(docker(pools=("10.89.0.0/16",)), podman_engine([], [])))
    assert said(find_overlaps(same)) == [
        (
            "degraded",
            "address pool of docker",
            "10.89.0.0/16",
            "built-in address pool of podman",
            "10.89.0.0/16",
        )
    ]
    virbr0 = Engine("libvirt", True, (network("libvirt", "default", "192.168.122.0/24", interface="virbr0"),))
    docker_and_libvirt = place(
        addresses=(on("virbr0", "192.168.122.1/24"),), engines=(docker_configuration(None, "down"), virbr0)
    )
    assert {one.severity for one in find_overlaps(docker_and_libvirt)} == {"note"}


def test_reserved_ranges() -> None:
    campus = reserved_claims(
        [("campus", ipaddress.ip_network("172.16.0.0/12")), ("", ipaddress.ip_network("10.9.0.0/16"))]
    )
    host = place(routes=(route("172.16.3.0/24"),), engines=(docker(APP, pools=("10.0.0.0/8",)),))
    assert said(find_overlaps([*host, *campus])) == [
        ("degraded", "docker network app", "172.30.0.0/16", "campus", "172.16.0.0/12"),
        ("degraded", "address pool of docker", "10.0.0.0/8", "reserved range", "10.9.0.0/16"),
    ]
    inner = place("ci", engines=(docker(network("docker", "bridge", "172.22.0.0/16")),))
    found = find_overlaps(campus, [inner])
    assert found[0].text.startswith(
        "docker network bridge 172.22.0.0/16 (container ci) overlaps campus 172.16.0.0/12:"
    )


INNER = network("docker", "bridge", "172.22.0.0/16", interface="docker0")


def inside(*, engines: tuple[Engine, ...], nameservers: tuple[str, ...] = ()) -> list[Claim]:
    return place(
        "ci",
        routes=(
            route("0.0.0.0/0", gateway="172.20.0.1"),
            route("172.20.0.0/16"),
            route("172.22.0.0/16", "docker0"),
        ),
        addresses=(on("eth0", "172.20.0.2/16"), on("docker0", "172.22.0.1/16")),
        nameservers=nameservers,
        engines=engines,
    )


OUTER = docker(network("docker", "bridge", "172.20.0.0/16", interface="docker0"))


@pytest.mark.parametrize(
    ("host", "severity", "ending"),
    [
        (
            place(routes=(route("172.22.9.0/24"),)),
            "broken",
            "inner containers can't reach the hosts behind it",
        ),
        (
            place(routes=(route("0.0.0.0/0", gateway="172.22.0.254"), route("172.22.0.0/24"))),
            "broken",
            "inner containers can't reach the host's gateway",
        ),
        (place(nameservers=("172.22.0.53",)), "broken", "inner containers can't look up names"),
        (
            place(
                routes=(route("172.22.4.0/24", "if-db"),),
                addresses=(on("if-db", "172.22.4.1/24"),),
                engines=(docker(network("docker", "db", "172.22.4.0/24")),),
            ),
            "degraded",
            "inner containers can't reach the containers of that network",
        ),
    ],
)
def test_inside_against_outside(host: list[Claim], severity: str, ending: str) -> None:
    found = find_overlaps(host, [inside(engines=(docker(INNER),))])
    assert [one.severity for one in found] == [severity]
    assert found[0].text.endswith(ending)
    assert (found[0].ours.where, found[0].other.where) == ("ci", "host")


def test_an_inner_network_over_its_own_way_out() -> None:
    same = docker(network("docker", "bridge", "172.20.0.0/16", interface="docker0"))
    found = find_overlaps(
        place(
            routes=(route("172.20.0.0/16", "docker0"),),
            addresses=(on("docker0", "172.20.0.1/16"),),
            engines=(OUTER,),
        ),
        [
            place(
                "ci",
                routes=(route("0.0.0.0/0", gateway="172.20.0.1"), route("172.20.0.0/16")),
                addresses=(on("eth0", "172.20.0.2/16"), on("docker0", "172.20.0.1/16")),
                engines=(same,),
            )
        ],
    )
    assert found[0].severity == "broken"
    assert (found[0].ours.where, found[0].other.what) == ("ci", "route on eth0")


def test_an_inner_pool_can_t_see_what_the_host_reaches() -> None:
    inner = docker(INNER, pools=("192.168.0.0/16",))
    host = place(routes=(route("192.168.1.0/24"),), engines=(OUTER,))
    assert said(find_overlaps(host, [inside(engines=(inner,))])) == [
        ("degraded", "address pool of docker", "192.168.0.0/16", "route on eth0", "192.168.1.0/24")
    ]


def test_three_levels() -> None:
    deep = place(
        "ci/build",
        routes=(route("0.0.0.0/0", gateway="172.22.0.1"), route("172.22.0.0/16")),
        addresses=(on("eth0", "172.22.0.2/16"), on("docker0", "172.20.0.1/16")),
        engines=(docker(network("docker", "bridge", "172.20.0.0/16", interface="docker0")),),
    )
    middle = inside(engines=(docker(INNER),))
    (found,) = find_overlaps([], [middle, deep], between=[(deep, middle)])
    assert (found.ours.where, found.other.where, found.severity) == ("ci/build", "ci", "broken")
    assert found.text.endswith("inner containers can't reach the container's gateway")


def test_two_containers_may_use_the_same_ranges() -> None:
    assert find_overlaps(place(engines=(OUTER,)), [inside(engines=(docker(INNER),))] * 2) == []


def test_ipv6() -> None:
    six = network("docker", "six", "fd00:9::/64", "172.18.0.0/16")
    found = find_overlaps(place(routes=(route("fd00:9::/48", "wg0"),), engines=(docker(six),)))
    assert said(found) == [("degraded", "docker network six", "fd00:9::/64", "route on wg0", "fd00:9::/48")]


def test_a_network_on_the_lan_s_own_interface_is_meant_to_be_there() -> None:
    lan = EngineNetwork("docker", "lan", "macvlan", "eth0", (ipaddress.ip_network("192.168.1.0/24"),))
    assert find_overlaps(place(routes=(route("192.168.1.0/24"),), engines=(docker(lan),))) == []


RANGES = st.builds(
    lambda base, size: ipaddress.ip_network((base, 32)).supernet(new_prefix=size),
    st.integers(10 << 24, (10 << 24) + (1 << 16)),
    st.integers(10, 30),
)


@given(st.lists(RANGES, max_size=6), st.lists(RANGES, max_size=6))
def test_exactly_the_pairs_that_meet_are_found(ours: list[Network], theirs: list[Network]) -> None:
    engine = docker(*(network("docker", f"n{index}", str(one)) for index, one in enumerate(ours)))
    routes = tuple(route(str(one), f"if{index}") for index, one in enumerate(theirs))
    found = {
        (one.ours.what, one.other.what) for one in find_overlaps(place(routes=routes, engines=(engine,)))
    }
    wanted = {
        (f"docker network n{left}", f"route on if{right}")
        for left, one in enumerate(ours)
        for right, other in enumerate(theirs)
        if int(one.network_address) <= int(other.broadcast_address)
        and int(other.network_address) <= int(one.broadcast_address)
    }
    assert found == wanted


@given(st.lists(RANGES, max_size=5), st.lists(RANGES, max_size=5))
def test_inside_or_outside_both_sides_are_named(ours: list[Network], theirs: list[Network]) -> None:
    host = place(routes=tuple(route(str(one), f"if{index}") for index, one in enumerate(theirs)))
    inner = place("ci", engines=(docker(pools=tuple(map(str, ours))),))
    for one in find_overlaps(host, [inner]):
        assert one.ours.network.overlaps(one.other.network)
        assert str(one.ours.network) in one.text and str(one.other.network) in one.text
        assert "container ci" in one.text and "the host" in one.text
        assert one.remedy
    disjoint = [one for one in theirs if not any(one.overlaps(other) for other in ours)]
    apart = place(routes=tuple(route(str(one), f"if{index}") for index, one in enumerate(disjoint)))
    assert find_overlaps(apart, [inner]) == []


def test_built_in_pools_are_those_of_moby() -> None:
    assert sum(pool.networks for pool in BUILT_IN["docker"]) == 31
