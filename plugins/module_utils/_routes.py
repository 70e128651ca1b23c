# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether ranges that an engine is to have meet the host's routes or nameservers. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._networks import (
    NamedRange,
    overlapping,
    parse_network,
)


@dataclass(frozen=True)
class RouteOverlap:
    """A range (``label`` names its variable) that meets what the host already reaches elsewhere."""

    label: str
    range: str
    other: str
    interface: str | None

    def __str__(self) -> str:
        where = f"the host's route to {self.other} on {self.interface}" if self.interface else self.other
        return f"{self.label} {self.range} overlaps {where}"


def overlaps(
    ranges: Mapping[str, str],
    routes: Sequence[Mapping[str, Any]],
    ignore_devices: Sequence[str] = (),
    nameservers: Sequence[str] = (),
) -> list[RouteOverlap]:
    """What ``ranges`` (label to CIDR) meet of ``routes`` and ``nameservers`` as ``host_info`` returns them.

    Default routes and link-local networks never count.

    :param ignore_devices: interfaces, or patterns such as ``br-*``, whose routes are the engine's own.
    :raises InputError: for a range that isn't a network; the label is the variable.
    """
    ours = [NamedRange(label, parse_network(label, cidr)) for label, cidr in ranges.items()]
    found = []
    for route in routes:
        network = ipaddress.ip_network(route["destination"], strict=False)
        interface = route.get("interface") or "no interface"
        ignored = any(fnmatchcase(interface, pattern) for pattern in ignore_devices)
        if ignored or network.prefixlen == 0 or network.is_link_local or network.is_multicast:
            continue
        for one, _ignored in overlapping(ours, [NamedRange("route", network)]):
            found.append(RouteOverlap(one.name, str(one.network), str(network), interface))
    for server in nameservers:
        try:
            address = ipaddress.ip_network(server.split("%")[0])
        except ValueError:
            continue
        for one, _ignored in overlapping(ours, [NamedRange("nameserver", address)]):
            found.append(RouteOverlap(one.name, str(one.network), f"the host's nameserver {server}", None))
    return found
