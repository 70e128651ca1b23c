# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ranges that a host already reaches, with the names that messages call them by. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

ENGINES_OWN = ("docker0", "br-*", "docker_gwbridge", "podman*", "veth*")
"""Interfaces that the host's engines make for networks of their own."""


def taken_ranges(facts: Mapping[str, Any], ignore: Sequence[str] = ENGINES_OWN) -> list[dict[str, str]]:
    """Routes, addresses and nameservers that ``host_info`` found, as ``{name, range}``, each range once.

    Default routes, loopback, link-local and multicast ranges are nobody's to plan with and left out.

    :param ignore: interfaces, or patterns, whose ranges are the engine's own.
    """
    network = facts.get("network") or {}
    found: dict[str, str] = {}

    def take(name: str, text: str) -> None:
        try:
            taken = ipaddress.ip_network(text.partition("%")[0], strict=False)
        except ValueError:
            return
        if taken.prefixlen and not (taken.is_loopback or taken.is_link_local or taken.is_multicast):
            found.setdefault(str(taken), name)

    def ours(interface: Any) -> bool:
        return any(fnmatchcase(str(interface), pattern) for pattern in ignore)

    for route in network.get("routes") or ():
        if not ours(route.get("interface")):
            take(f"the host's route on {route.get('interface') or 'no interface'}", route["destination"])
    for entry in network.get("addresses") or ():
        if not ours(entry["interface"]):
            take(f"the host's address on {entry['interface']}", str(entry["address"]))
    for server in network.get("nameservers") or ():
        take("the host's nameserver", server)
    return [{"name": name, "range": taken} for taken, name in found.items()]
