# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far the guests of a bridge reach, by the rules that the kernel has: the LAN, or only the internet. Pure.

A packet is followed through all rules to addresses that no site has a reason to open by chance:
the far end of the host's own network, of a usual private one, and the cloud's metadata service.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from ansible_collections.matryoshka.host.plugins.module_utils._bridge_cut import network_of
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_links import Link, uplink
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_read import Namespace
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_verdict import NO, YES, Packet, accepts
from ansible_collections.matryoshka.host.plugins.module_utils._networks import Network

CLOSED, OPEN, UNSURE = "closed", "open", "?"
_USUAL = {
    4: (ipaddress.ip_network("169.254.169.254/32"), ipaddress.ip_network("192.168.255.254/32")),
    6: (ipaddress.ip_network("fdff:ffff:ffff:ffff::1/128"),),
}
_FAMILIES = {4: ("ip", "inet"), 6: ("ip6", "inet")}


def reach(host: Namespace) -> dict[str, str]:
    """For each bridge of an engine: ``closed`` if no packet gets to a LAN, ``open`` if one does, ``?`` if that depends."""
    found = {}
    for link in host.links:
        if link.bridge is None or network_of(host, link) is None:
            continue
        answers = list(_answers(host, link))
        if answers:
            found[link.name] = (
                OPEN if YES in answers else CLOSED if all(one == NO for one in answers) else UNSURE
            )
    return found


def _answers(host: Namespace, bridge: Link) -> Iterator[str]:
    own = [one.network for one in host.addresses if one.interface == bridge.name]
    for version in (4, 6):
        guests = tuple(one for one in own if one.version == version and not one.is_link_local)
        way = uplink(host.routes, version)
        if not guests or way is None or way.interface in (None, bridge.name):
            continue
        if host.switches.get(f"forward{version}") is False:
            yield NO
            continue
        filters = [one for one in host.filters if one.family in _FAMILIES[version]]
        for target in (*_far_ends(host, str(way.interface), version), *_USUAL[version]):
            packet = Packet(bridge.name, str(way.interface), sources=guests, destinations=(target,))
            yield accepts(filters, packet).answer


def _far_ends(host: Namespace, interface: str, version: int) -> Iterator[Network]:
    """The last address of each network that the way out is in."""
    for route in host.routes:
        network = route.destination
        here = route.on_link and route.interface == interface and network.version == version
        if here and 2 <= network.prefixlen < network.max_prefixlen - 1:
            yield ipaddress.ip_network(network.broadcast_address - 1)
