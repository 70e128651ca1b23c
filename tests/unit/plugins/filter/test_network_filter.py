# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of role network: what an engine is given of the plan."""

from __future__ import annotations

from typing import Any

import pytest
import tomllib
from ansible.errors import AnsibleFilterError
from ansible_collections.matryoshka.host.plugins.filter.network import (
    firewall_plan,
    ipv6_daemon,
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
