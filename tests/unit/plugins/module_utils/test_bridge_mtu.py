# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a packet from the innermost bridge to the uplink, interface by interface."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_engines import Engine, EngineNetwork
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_links import Link, Route
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_mtu import Path, Place, Step, paths
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_read import Namespace
from bridge_fixtures import container, host, virtual_machines
from hypothesis import given
from hypothesis import strategies as st


def place(seen: Namespace) -> Place:
    return Place(seen.name, tuple(seen.links), tuple(seen.routes), tuple(seen.engines))


def way(path: Path) -> list[tuple[str, str, int]]:
    return [(one.where, one.interface, one.mtu) for one in path.steps]


def changed(where: Place, interface: str, mtu: int) -> Place:
    links = tuple(replace(link, mtu=mtu) if link.name == interface else link for link in where.links)
    return replace(where, links=links)


def test_a_nested_docker_as_recorded() -> None:
    path = paths(place(host()), [place(container())])[0]
    names = [link.name for link in host().links if link.master == "docker0"]
    assert way(path) == [
        ("ci-1", "docker0", 1400),
        ("ci-1", "eth0", 1500),
        ("host", names[0], 1500),
        ("host", "docker0", 1500),
        ("host", "eth0", 1500),
    ]
    assert (path.network, path.complete, path.narrow) == ("bridge", True, None)
    assert path.as_dict()["minimum"] == 1400


@pytest.mark.parametrize(
    ("interface", "mtu", "inner", "outer"),
    [
        ("eth0", 1380, "docker0 (host) 1500", "eth0 (host) 1380"),
        ("docker0", 1300, "docker0 (host) 1500", "docker0 (host) 1300"),
    ],
)
def test_a_lowered_mtu_on_the_host(interface: str, mtu: int, inner: str, outer: str) -> None:
    found = paths(changed(place(host()), interface, mtu), [place(container())])
    narrow = {one.container: one.narrow for one in found if one.network == "bridge"}
    assert narrow["host"] and [str(one) for one in narrow["host"]] == [inner, outer]
    assert narrow["ci-1"]
    text = next(one for one in found if one.container == "host").as_dict()["text"]
    assert text == f"packets of {inner} don't fit through {outer}"


def test_an_inner_network_that_is_wider_than_its_container() -> None:
    found = paths(place(host()), [changed(place(container()), "eth0", 1350)])
    assert found[0].narrow and [str(one) for one in found[0].narrow] == [
        "docker0 (ci-1) 1400",
        "eth0 (ci-1) 1350",
    ]
    assert found[0].as_dict()["ok"] is False


def test_a_limit_of_the_route_counts() -> None:
    outer = place(host())
    routes = tuple(replace(route, mtu=1280) if route.default else route for route in outer.routes)
    found = paths(replace(outer, routes=routes), [])
    bridge = next(one for one in found if one.network == "bridge")
    assert way(bridge)[-1] == ("host", "eth0", 1280)
    assert bridge.narrow


def test_a_bridge_that_is_the_uplink_is_no_way_of_its_own() -> None:
    found = paths(place(virtual_machines()), [])
    # virbr0 has no guest and no engine that would say what it is for.
    assert found == []


ETH0 = Link("eth0", 2, 1500, "veth", peer=9)
DEFAULT = Route(ipaddress.ip_network("0.0.0.0/0"), "eth0", "10.0.0.1")


@pytest.mark.parametrize(
    ("inner", "outer", "complete", "interfaces"),
    [
        # The other end isn't there: a container in a container.
        ((ETH0,), (Link("eth0", 2, 1500, "veth", peer=77),), False, ["eth0"]),
        # A number that belongs to something else.
        ((ETH0,), (ETH0, Link("veth9", 9, 1500, "veth", peer=5)), False, ["eth0"]),
        (
            (ETH0,),
            (Link("eth0", 3, 1500), Link("veth9", 9, 1500, "veth", peer=2)),
            True,
            ["eth0", "veth9", "eth0"],
        ),
        ((replace(ETH0, kind="macvlan", peer=3),), (Link("eth0", 3, 1400),), True, ["eth0", "eth0"]),
        ((replace(ETH0, kind="tun", peer=None),), (Link("eth0", 3, 1500),), False, ["eth0"]),
        (
            (ETH0,),
            (
                Link("veth9", 9, 1500, "veth", master="br0", peer=2),
                Link("br0", 10, 1500, "bridge", master="bond0"),
                Link("bond0", 11, 9000, "bond"),
                Link("eth0", 12, 1500),
            ),
            True,
            ["eth0", "veth9", "br0", "bond0", "eth0"],
        ),
    ],
)
def test_ways_out(
    inner: tuple[Link, ...], outer: tuple[Link, ...], complete: bool, interfaces: list[str]
) -> None:
    path = paths(Place("host", outer, (DEFAULT,)), [Place("ci", inner, (DEFAULT,))])[0]
    assert (path.complete, [one.interface for one in path.steps]) == (complete, interfaces)


def test_a_container_in_a_container() -> None:
    outer = Place("host", (Link("eth0", 3, 1450), Link("veth9", 9, 1450, "veth", peer=2)), (DEFAULT,))
    docker0 = Link("docker0", 4, 1400, "bridge")
    middle = Place(
        "ci", (ETH0, docker0, Link("veth5", 5, 1400, "veth", master="docker0", peer=2)), (DEFAULT,)
    )
    deep = Place("ci/build", (replace(ETH0, mtu=1400, peer=5),), (DEFAULT,), outer="ci")
    path = paths(outer, [middle, deep])[-1 - len([link for link in outer.links if link.kind == "bridge"])]
    assert (path.container, path.complete) == ("ci/build", True)
    assert way(path) == [
        ("ci/build", "eth0", 1400),
        ("ci", "veth5", 1400),
        ("ci", "docker0", 1400),
        ("ci", "eth0", 1500),
        ("host", "veth9", 1450),
        ("host", "eth0", 1450),
    ]
    assert path.narrow and str(path.narrow[0]) == "eth0 (ci) 1500"
    lost = paths(outer, [deep])[0]
    assert (lost.complete, [one.where for one in lost.steps]) == (False, ["ci/build"])


def test_a_container_without_a_way_out() -> None:
    path = paths(Place("host", (), ()), [Place("ci", (Link("lo", 1, 65536),), ())])[0]
    assert path.as_dict() == {
        "container": "ci",
        "network": None,
        "steps": [],
        "minimum": None,
        "ok": True,
        "complete": False,
        "text": None,
    }


def test_internal_networks_need_no_way_out() -> None:
    engine = Engine(
        "docker", True, (EngineNetwork("docker", "db", "bridge", "br-db", (), 9000, internal=True),)
    )
    outer = Place("host", (Link("br-db", 3, 9000, "bridge"), replace(ETH0, peer=None)), (DEFAULT,), (engine,))
    assert paths(outer, []) == []


@given(st.lists(st.integers(68, 65535), max_size=6))
def test_a_way_is_narrow_exactly_where_a_step_is_smaller_than_the_one_before(values: list[int]) -> None:
    steps = tuple(Step("host", f"i{index}", mtu, mtu, "interface") for index, mtu in enumerate(values))
    path = Path("ci", None, steps, True)
    assert (path.narrow is None) == (values == sorted(values))
    if path.narrow:
        assert path.narrow[0].mtu > path.narrow[1].mtu
