# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bridges whose packets a filter drops: between their own guests, or from them to the uplink. Pure.

With br_netfilter loaded and ``bridge-nf-call-iptables`` set, packets that only cross a bridge pass
the host's rules for forwarded ones. Docker sets the policy of those to DROP, and its own rules
accept its own bridges alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._bridge_engines import EngineNetwork
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_links import Link, ports, uplink
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_read import HOST, Namespace
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_verdict import (
    MAYBE,
    NO,
    YES,
    Decision,
    Packet,
    accepts,
)
from ansible_collections.matryoshka.host.plugins.module_utils._host_network import bridge_manager
from ansible_collections.matryoshka.host.plugins.module_utils._networks import Network

BRIDGED, ROUTED = "bridged", "routed"
#: Somebody on the internet: addresses kept for documentation, which no rule is about (RFC 5737, RFC 3849).
_OUTSIDE = {4: ipaddress.ip_network("203.0.113.1/32"), 6: ipaddress.ip_network("2001:db8::1/128")}
_FAMILIES = {4: ("ip", "inet"), 6: ("ip6", "inet")}


@dataclass(frozen=True)
class Fate:
    """What becomes of one kind of traffic of a bridge."""

    traffic: str
    version: int
    decision: Decision


def fates(seen: Namespace, bridge: Link) -> Iterator[Fate]:
    """What becomes of the traffic that a bridge is there for, for each IP version."""
    network = network_of(seen, bridge)
    own = [one.network for one in seen.addresses if one.interface == bridge.name]
    for version in (4, 6):
        guests = tuple(one for one in own if one.version == version and not one.is_link_local)
        if version == 6 and not _six(seen, bridge):
            continue
        if not (network and network.isolated):
            yield Fate(BRIDGED, version, _bridged(seen, bridge, version, guests))
        way = uplink(seen.routes, version)
        if guests and way and way.interface != bridge.name and not (network and network.internal):
            yield Fate(ROUTED, version, _routed(seen, bridge, version, guests, str(way.interface)))


def _six(seen: Namespace, bridge: Link) -> bool:
    """Whether guests speak IPv6: the bridge does, or is nobody's who would say that they don't."""
    own = [one.network for one in seen.addresses if one.interface == bridge.name]
    return any(one.version == 6 and not one.is_link_local for one in own) or (
        network_of(seen, bridge) is None and bridge_manager(bridge.name) == "other"
    )


def _bridged(seen: Namespace, bridge: Link, version: int, guests: tuple[Network, ...]) -> Decision:
    packet = Packet(
        bridge.name,
        bridge.name,
        bridged=True,
        sources=guests or None,
        destinations=guests or None,
        ports=tuple(one.name for one in ports(seen.links, bridge.name)),
    )
    families = {"bridge"}
    if passes_filters(seen, bridge, version):
        families |= set(_FAMILIES[version])
    return accepts([one for one in seen.filters if one.family in families], packet)


def _routed(
    seen: Namespace, bridge: Link, version: int, guests: tuple[Network, ...], interface: str
) -> Decision:
    if seen.switches.get(f"forward{version}") is False:
        return Decision(NO, f"forwarding of IPv{version} is off")
    outside = (_OUTSIDE[version],)
    out = Packet(bridge.name, interface, sources=guests, destinations=outside)
    back = replace(
        out,
        in_if=interface,
        out_if=bridge.name,
        state="ESTABLISHED",
        sources=outside,
        destinations=guests,
    )
    filters = [one for one in seen.filters if one.family in _FAMILIES[version]]
    decisions = [accepts(filters, packet) for packet in (out, back)]
    for answer in (NO, MAYBE):
        for decision in decisions:
            if decision.answer == answer:
                return decision
    return Decision(YES)


def passes_filters(seen: Namespace, bridge: Link, version: int) -> bool:
    """Whether packets that only cross the bridge pass iptables: by the namespace's switch or the bridge's own."""
    name = "iptables" if version == 4 else "ip6tables"
    return bool(
        "call_iptables" in seen.switches
        and (seen.switches.get(f"call_{name}") or bridge.option(f"nf_call_{name}"))
    )


def network_of(seen: Namespace, bridge: Link) -> EngineNetwork | None:
    """The engine's network that a bridge belongs to."""
    networks = (network for engine in seen.engines for network in engine.networks)
    return next(
        (one for one in networks if one.interface == bridge.name and one.driver not in ("macvlan", "ipvlan")),
        None,
    )


def judge_bridges(seen: Namespace, described: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The described bridges with what engines say of them and what becomes of their traffic."""
    links = {link.name: link for link in seen.links}
    for one in described:
        link = links[one["name"]]
        network = network_of(seen, link)
        if network:
            one.update(managed_by=network.engine, network=network.name)
        one["traffic"] = [
            {
                "traffic": fate.traffic,
                "family": fate.version,
                "passes": fate.decision.answer,
                "because": fate.decision.because or None,
            }
            for fate in fates(seen, link)
        ]
    return described


def cut_off(seen: Namespace) -> list[dict[str, Any]]:
    """The bridges of a namespace whose traffic surely doesn't pass, with the rule or policy that drops it."""
    found = []
    for link in seen.links:
        for fate in fates(seen, link) if link.bridge is not None else ():
            if fate.decision.answer != NO:
                continue
            network = network_of(seen, link)
            what = "between its own guests" if fate.traffic == BRIDGED else "from its guests to the uplink"
            place = "the host" if seen.name == HOST else f"container {seen.name}"
            found.append(
                {
                    "where": seen.name,
                    "bridge": link.name,
                    "network": network.name if network else None,
                    "family": fate.version,
                    "traffic": fate.traffic,
                    "because": fate.decision.because,
                    "text": f"bridge {link.name} ({place}): IPv{fate.version} packets {what} are dropped by"
                    f" {fate.decision.because}",
                    "remedy": _remedy(seen, link, network, fate),
                }
            )
    return found


def _remedy(seen: Namespace, bridge: Link, network: EngineNetwork | None, fate: Fate) -> str:
    if "forwarding of" in fate.decision.because:
        switch = "net.ipv4.ip_forward" if fate.version == 4 else "net.ipv6.conf.all.forwarding"
        return f"sysctl -w {switch}=1"
    if network and network.engine == "docker":
        return "restart the daemon, which writes its rules again"
    program = "iptables" if fate.version == 4 else "ip6tables"
    chain = next(("DOCKER-USER" for one in seen.filters if "DOCKER-USER" in one.chains), "FORWARD")
    if fate.traffic == BRIDGED:
        return f"{program} -I {chain} -i {bridge.name} -o {bridge.name} -j ACCEPT"
    answers = "-m conntrack --ctstate RELATED,ESTABLISHED"
    return (
        f"{program} -I {chain} -i {bridge.name} -j ACCEPT;"
        f" {program} -I {chain} -o {bridge.name} {answers} -j ACCEPT"
    )
