# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of role network: what a host's facts and a site's options come to."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._firewall_options import read_options
from ansible_collections.matryoshka.host.plugins.module_utils._firewall_plan import plan_firewall
from ansible_collections.matryoshka.host.plugins.module_utils._taken_ranges import taken_ranges


def firewall_plan(facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Sets, chains and hooks for ``netfilter_rules``."""
    try:
        return plan_firewall(read_options(options, facts))
    except HostError as error:
        raise AnsibleFilterError(str(error)) from error


def ipv6_daemon(planned: Mapping[str, Any], version: str = "") -> dict[str, Any]:
    """dockerd's options for IPv6 of a planned level, without its pools; nothing where none is planned.

    Before 27 rules for IPv6 were experimental; ``bip6`` is known since 28, and ``fixed-cidr-v6`` says as much.

    :param version: the daemon's, if it is known; without it what every version takes.
    """
    if not planned:
        return {}
    options = {"ipv6": True, "ip6tables": True, "fixed-cidr-v6": planned["fixed-cidr-v6"]}
    major = version.partition(".")[0]
    if not major.isdigit() or int(major) < 27:
        options["experimental"] = True
    return options


def podman_conf(ranges: Mapping[str, Any]) -> str:
    """containers.conf(5) with the planned ranges of a level: of the default network, and of networks made later."""
    subnet = ipaddress.ip_interface(ranges["bip"]).network
    pools = ", ".join(
        f'{{"base" = "{pool["base"]}", "size" = {pool["size"]}}}' for pool in ranges["default-address-pools"]
    )
    return f'[network]\ndefault_subnet = "{subnet}"\ndefault_subnet_pools = [{pools}]\n'


class FilterModule:
    """Filters of role network."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "podman_conf": podman_conf,
            "firewall_plan": firewall_plan,
            "ipv6_daemon": ipv6_daemon,
            "taken_ranges": taken_ranges,
        }
