# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of role network: what a host's facts and a site's options come to."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._firewall_options import read_options
from ansible_collections.matryoshka.host.plugins.module_utils._firewall_plan import plan_firewall
from ansible_collections.matryoshka.host.plugins.module_utils._kernel_settings import check_settings
from ansible_collections.matryoshka.host.plugins.module_utils._taken_ranges import taken_ranges

ORDINARY_MTU = 1500


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


def planned_mtu(facts: Mapping[str, Any], wanted: Any = "auto") -> str:
    """The MTU for engines' networks, as text; empty for their own choice.

    :param wanted: ``auto`` takes the host's way out as the measure.
    """
    if wanted == "auto":
        mtu = (facts.get("network") or {}).get("mtu")
        return str(mtu) if mtu and mtu < ORDINARY_MTU else ""
    text = str(wanted)
    if not text.isdigit() or not 576 <= int(text) <= 65535:
        raise AnsibleFilterError(
            f"network_mtu: {wanted!r} is refused; allowed: auto, or a whole number from 576 to 65535"
        )
    return text


def mtu_daemon(mtu: str, version: str = "") -> dict[str, Any]:
    """dockerd's options for networks of that MTU: the default one, and since 24.0 those made later too."""
    if not mtu:
        return {}
    options: dict[str, Any] = {"mtu": int(mtu)}
    major = version.partition(".")[0]
    if major.isdigit() and int(major) >= 24:
        options["default-network-opts"] = {"bridge": {"com.docker.network.driver.mtu": mtu}}
    return options


def checked_settings(sysctls: Mapping[str, Any], modules: Sequence[str], owner: str) -> dict[str, Any]:
    """The arguments of ``kernel_settings``, refused here what that would refuse on the host."""
    try:
        check_settings({"owner": owner, "modules": modules, "sysctls": sysctls})
    except HostError as error:
        raise AnsibleFilterError(str(error)) from error
    return {"owner": owner, "modules": list(modules), "sysctls": dict(sysctls)}


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
            "planned_mtu": planned_mtu,
            "mtu_daemon": mtu_daemon,
            "checked_settings": checked_settings,
            "firewall_plan": firewall_plan,
            "ipv6_daemon": ipv6_daemon,
            "taken_ranges": taken_ranges,
        }
