# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of role network: what an engine is given of the plan."""

from __future__ import annotations

from typing import Any

import pytest
import tomllib
from ansible.errors import AnsibleFilterError
from ansible_collections.matryoshka.host.plugins.filter.network import (
    checked_settings,
    firewall_plan,
    ipv6_daemon,
    mtu_daemon,
    planned_mtu,
    podman_conf,
)

PLANNED: dict[str, Any] = {
    "bip": "172.16.0.1/16",
    "default-address-pools": [{"base": "172.17.0.0/16", "size": 24}, {"base": "10.9.0.0/16", "size": 26}],
}


@pytest.mark.parametrize(
    ("version", "experimental"),
    [("", True), ("20.10.24", True), ("26.1.5", True), ("27.0.1", False), ("29.1.0", False)],
)
def test_ipv6_in_the_form_that_the_version_takes(version: str, experimental: bool) -> None:
    planned = {"ipv6": True, "bip6": "fd12::1/64", "fixed-cidr-v6": "fd12::/64"}
    options = ipv6_daemon(planned, version)
    assert {"ipv6": True, "ip6tables": True, "fixed-cidr-v6": "fd12::/64"}.items() <= options.items()
    assert options.get("experimental", False) == experimental
    assert ipv6_daemon({}, version) == {}


def test_podman_reads_the_same_ranges() -> None:
    read = tomllib.loads(podman_conf(PLANNED))["network"]
    assert read["default_subnet"] == "172.16.0.0/16"
    assert read["default_subnet_pools"] == PLANNED["default-address-pools"]


def test_what_is_refused_is_told_as_ansible_tells_it() -> None:
    with pytest.raises(AnsibleFilterError, match=r"network_allow\[0\]: 'mirror' is refused"):
        firewall_plan({}, {"job_interfaces": ["docker0"], "allow": ["mirror"]})


@pytest.mark.parametrize(
    ("facts", "wanted", "mtu"),
    [
        ({}, "auto", ""),
        ({"network": {"mtu": 1500}}, "auto", ""),
        ({"network": {"mtu": 9000}}, "auto", ""),
        ({"network": {"mtu": 1420}}, "auto", "1420"),
        ({"network": {"mtu": 1500}}, 1400, "1400"),
        ({}, "9000", "9000"),
    ],
)
def test_the_mtu_is_that_of_the_way_out(facts: dict[str, Any], wanted: Any, mtu: str) -> None:
    assert planned_mtu(facts, wanted) == mtu


@pytest.mark.parametrize("wanted", ["jumbo", 100, 70000, "", None])
def test_an_mtu_that_is_none_is_refused(wanted: Any) -> None:
    with pytest.raises(
        AnsibleFilterError, match=r"network_mtu: .* is refused; allowed: auto, or a whole number"
    ):
        planned_mtu({}, wanted)


def test_networks_made_later_have_the_mtu_where_the_version_knows_how() -> None:
    assert mtu_daemon("", "26.1.5") == {}
    assert mtu_daemon("1400", "20.10.24") == {"mtu": 1400}
    later = {"bridge": {"com.docker.network.driver.mtu": "1400"}}
    assert mtu_daemon("1400", "26.1.5") == {"mtu": 1400, "default-network-opts": later}


def test_kernel_settings_are_refused_before_a_host_is_touched() -> None:
    assert checked_settings({"net.ipv4.ip_forward": 1}, ["br_netfilter"], "network")["owner"] == "network"
    with pytest.raises(AnsibleFilterError, match="sysctls: 'net ipv4' is refused"):
        checked_settings({"net ipv4": 1}, [], "network")
