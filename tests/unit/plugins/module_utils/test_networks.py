# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses, pools and overlaps."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _networks as networks
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from hypothesis import given
from hypothesis import strategies as st

addresses = st.ip_addresses(v=4).map(int)


@st.composite
def v4_networks(draw: st.DrawFn, low: int = 1, high: int = 32) -> ipaddress.IPv4Network:
    prefix = draw(st.integers(low, high))
    return ipaddress.IPv4Network((draw(addresses), prefix), strict=False)


@given(v4_networks())
def test_network_comes_back(network: ipaddress.IPv4Network) -> None:
    assert networks.parse_network("x", str(network)) == network


@given(v4_networks(), v4_networks())
def test_overlap_is_sharing_an_address(one: ipaddress.IPv4Network, other: ipaddress.IPv4Network) -> None:
    ranges = [networks.NamedRange("one", one), networks.NamedRange("other", other)]
    shared = max(int(one[0]), int(other[0])) <= min(int(one[-1]), int(other[-1]))
    assert bool(networks.overlaps(ranges)) == shared
    assert networks.overlaps(ranges[:1], ranges[1:]) == networks.overlaps(ranges)


@given(v4_networks(8, 29), st.data())
def test_every_address_between_network_and_broadcast_is_a_bip(
    network: ipaddress.IPv4Network, data: st.DataObject
) -> None:
    unusable = (
        network.is_loopback or network.is_link_local or network.is_multicast or network[0].is_unspecified
    )
    if unusable or network.overlaps(ipaddress.ip_network("224.0.0.0/4")):
        return
    if any(network.overlaps(ipaddress.ip_network(text)) for text in ("127.0.0.0/8", "169.254.0.0/16")):
        return
    number = data.draw(st.integers(int(network[1]), int(network[-2])))
    value = f"{ipaddress.ip_address(number)}/{network.prefixlen}"
    assert networks.parse_bip("bip", value).network == network
    for wrong in (network[0], network[-1]):
        with pytest.raises(InputError):
            networks.parse_bip("bip", f"{wrong}/{network.prefixlen}")


@given(v4_networks(8, 30), st.integers(-3, 40))
def test_pool_size_lies_between_the_base_and_30(base: ipaddress.IPv4Network, size: int) -> None:
    value = {"base": str(base), "size": size}
    if base.prefixlen <= size <= 30:
        assert networks.parse_pool("pool", value).networks * 2 ** (32 - size) == base.num_addresses
    else:
        with pytest.raises(InputError) as caught:
            networks.parse_pool("pool", value)
        assert caught.value.variable == "pool.size"


@pytest.mark.parametrize(
    ("value", "version", "allowed"),
    [
        ("172.25.0.0", None, "a network such as 172.25.0.0/16"),
        ("x/8", None, "a network such as 172.25.0.0/16"),
        (8, None, "a network such as 172.25.0.0/16"),
        ("172.25.0.0/33", None, "a network such as 172.25.0.0/16"),
        ("172.25.0.1/16", None, "a network without host bits: 172.25.0.0/16"),
        ("fd00::/8", 4, "an IPv4 network such as 172.25.0.0/16"),
        ("10.0.0.0/8", 6, "an IPv6 network such as fd00:172:25::/64"),
    ],
)
def test_refused_network(value: Any, version: int | None, allowed: str) -> None:
    with pytest.raises(InputError) as caught:
        networks.parse_network("lan", value, version)
    assert str(caught.value) == f"lan: {value!r} is refused; allowed: {allowed}"


def test_refused_pools() -> None:
    with pytest.raises(InputError) as caught:
        networks.parse_pools(
            "pools", [{"base": "10.0.0.0/8", "size": 24}, {"base": "10.1.0.0/16", "size": 24}]
        )
    assert str(caught.value) == (
        "pools: ['10.0.0.0/8', '10.1.0.0/16'] is refused; allowed: pools apart from each other, "
        "but pools[0].base 10.0.0.0/8 overlaps pools[1].base 10.1.0.0/16"
    )
    with pytest.raises(InputError) as caught:
        networks.parse_pools("pools", "10.0.0.0/8")
    assert caught.value.allowed == "a list of {base: 172.25.0.0/16, size: 24}"


def test_ranges_of_a_daemon_against_routes() -> None:
    config = {
        "bip": "172.22.0.1/16",
        "bip6": "fd00::1/64",
        "default-address-pools": [{"base": "172.28.0.0/14", "size": 24}, {"base": "fd00:2::/56", "size": 64}],
        "mtu": 1400,
    }
    ranges = networks.daemon_ranges(config, "runner_daemon")
    assert [str(one) for one in ranges] == [
        "runner_daemon.bip 172.22.0.0/16",
        "runner_daemon.bip6 fd00::/64",
        "runner_daemon.default-address-pools[0].base 172.28.0.0/14",
        "runner_daemon.default-address-pools[1].base fd00:2::/56",
    ]
    routes = [networks.NamedRange("route of eth0", ipaddress.ip_network("172.30.4.0/22"))]
    assert networks.overlaps(ranges) == []
    assert networks.overlaps(ranges, routes) == [
        "runner_daemon.default-address-pools[0].base 172.28.0.0/14 overlaps route of eth0 172.30.4.0/22"
    ]
    with pytest.raises(InputError, match=r"^d.default-address-pools: 'x' is refused"):
        networks.daemon_ranges({"default-address-pools": "x"}, "d")
