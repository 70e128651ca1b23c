# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranges that meet: networks, pools, routes, addresses and nameservers of a host and its containers. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._bridge_engines import Engine, EngineNetwork
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_links import Address, Route
from ansible_collections.matryoshka.host.plugins.module_utils._networks import Network

BROKEN, DEGRADED, NOTE = "broken", "degraded", "note"
NETWORK, POOL, ROUTE, NAMESERVER, RESERVED = "network", "pool", "route", "nameserver", "reserved"
HOST = "host"
_ORDER = (BROKEN, DEGRADED, NOTE)


@dataclass(frozen=True)
class Claim:
    """A range that somebody has. ``where`` is the host or a container, ``what`` is for a person."""

    where: str
    kind: str
    what: str
    network: Network
    engine: str = ""
    interfaces: frozenset[str] = frozenset()
    """Its own interfaces: routes and addresses on them are the same thing."""
    live: bool = True
    avoided: bool = False
    """Whether engines see it themselves when they choose a free range."""
    built_in: bool = False
    """Whether it is a pool that nobody has configured."""
    gateway: bool = False
    """Whether it holds the address that everything goes through."""

    def as_dict(self) -> dict[str, str]:
        return {"where": self.where, "kind": self.kind, "what": self.what, "range": str(self.network)}

    def __str__(self) -> str:
        place = "the host" if self.where == HOST else f"container {self.where}"
        return (
            f"{self.what} {self.network}"
            if self.kind == RESERVED
            else f"{self.what} {self.network} ({place})"
        )


@dataclass(frozen=True)
class Overlap:
    """Two claims that share addresses: ``ours`` is the one that can be moved."""

    ours: Claim
    other: Claim
    severity: str
    text: str
    remedy: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "a": self.ours.as_dict(),
            "b": self.other.as_dict(),
            "severity": self.severity,
            "text": self.text,
            "remedy": self.remedy,
        }


def claims(
    where: str,
    routes: Sequence[Route],
    addresses: Sequence[Address],
    nameservers: Sequence[str],
    engines: Sequence[Engine],
) -> list[Claim]:
    """All that is taken in one network namespace."""
    found: list[Claim] = []
    gateways = {route.gateway for route in routes if route.default and route.gateway}
    for engine in engines:
        for own in engine.networks:
            found += _of_network(where, own, addresses, engine.live)
        found += [
            Claim(
                where,
                POOL,
                f"{'built-in ' if engine.built_in else ''}address pool of {engine.kind}",
                pool.base,
                engine.kind,
                frozenset(one.interface for one in engine.networks if one.interface),
                built_in=engine.built_in,
            )
            for pool in engine.pools
        ]
    for route in routes:
        if route.destination.prefixlen >= 2 and not route.destination.is_loopback:
            found.append(
                Claim(
                    where,
                    ROUTE,
                    _route_words(route),
                    route.destination,
                    interfaces=frozenset([route.interface] if route.interface else []),
                    avoided=route.on_link,
                    gateway=any(_holds(route.destination, one) for one in gateways),
                )
            )
    known = {(next(iter(one.interfaces), ""), one.network) for one in found if one.kind == ROUTE}
    for address in addresses:
        network = address.network
        if address.scope == "global" and not network.is_loopback and not network.is_link_local:
            key = (address.interface, network)
            if key not in known:
                known.add(key)
                found.append(
                    Claim(
                        where,
                        ROUTE,
                        f"address on {address.interface}",
                        network,
                        interfaces=frozenset([address.interface]),
                        avoided=True,
                    )
                )
    for server in nameservers:
        host = _host_network(server)
        if host is not None and not host.is_loopback and not host.is_link_local:
            found.append(Claim(where, NAMESERVER, "nameserver", host, avoided=True))
    return found


def reserved_claims(ranges: Iterable[tuple[str, Network]]) -> list[Claim]:
    """Ranges that a site keeps for itself."""
    return [Claim(HOST, RESERVED, name or "reserved range", network) for name, network in ranges]


def find_overlaps(
    host: Sequence[Claim],
    inside: Sequence[Sequence[Claim]] = (),
    between: Sequence[tuple[Sequence[Claim], Sequence[Claim]]] = (),
) -> list[Overlap]:
    """Every pair that shouldn't share addresses, the worst first.

    Two containers may use the same ranges inside: each has a network namespace of its own.

    :param inside: the claims of each container.
    :param between: containers in containers: the claims inside, and those of a container around.
    """
    found = list(_within(host))
    for claims_inside in inside:
        found += _within(claims_inside)
        found += _across(claims_inside, host)
    for inner, outer in between:
        found += _across(inner, outer)
    found.sort(key=lambda one: _ORDER.index(one.severity))
    return list(dict.fromkeys(found))


def _within(place: Sequence[Claim]) -> Iterator[Overlap]:
    """Overlaps in one network namespace."""
    ours = [one for one in place if one.kind in (NETWORK, POOL)]
    for index, one in enumerate(ours):
        for other in ours[index + 1 :]:
            if one.engine != other.engine and _meet(one, other):
                yield _engines(one, other)
        for other in place:
            if (
                other.kind not in (NETWORK, POOL)
                and not one.interfaces & other.interfaces
                and _meet(one, other)
            ):
                yield _with_the_machine(one, other)


def _across(inside: Sequence[Claim], host: Sequence[Claim]) -> Iterator[Overlap]:
    """What is inside a container against what is around it."""
    seen = {one.network for one in inside if one.kind == ROUTE and one.avoided}
    own = {one.network for one in inside if one.kind == NETWORK}
    for one in inside:
        if one.kind not in (NETWORK, POOL):
            continue
        for other in host:
            # What the container has on an interface of its own was compared there; a pool of the host isn't there yet.
            if other.kind == POOL or not _meet(one, other) or other.network in seen - own:
                continue
            if other.kind == ROUTE and any(
                peer.kind == NETWORK and peer.interfaces & other.interfaces and _meet(one, peer)
                for peer in host
            ):
                continue
            yield _levels(one, other)


def _engines(one: Claim, other: Claim) -> Overlap:
    pools = [claim for claim in (one, other) if claim.kind == POOL]
    if not pools:
        severity = BROKEN if one.live and other.live else DEGRADED
        says = "two engines have the same addresses: packets reach only one of them"
    elif len(pools) == 2:
        severity = NOTE if all(claim.built_in for claim in pools) else DEGRADED
        says = "two engines hand out the same addresses"
    else:
        network = one if one.kind == NETWORK else other
        severity = NOTE if network.live else DEGRADED
        says = f"{pools[0].engine} can hand out addresses that {network.engine} has" + (
            ", although it avoids them while they are in use" if network.live else ""
        )
    moved = one if one.kind == POOL else other
    return Overlap(one, other, severity, f"{one} overlaps {other}: {says}", _remedy(moved))


def _with_the_machine(one: Claim, other: Claim) -> Overlap:
    if one.kind == POOL:
        # Docker looks at resolv.conf too, Podman only at interfaces.
        avoided = other.avoided and (
            other.kind == ROUTE or (other.kind == NAMESERVER and one.engine == "docker")
        )
        severity = NOTE if avoided else DEGRADED
        says = (
            f"{one.engine} avoids it only while it is there"
            if avoided
            else f"{one.engine} doesn't see it and can hand out the same addresses"
        )
    elif other.kind == RESERVED:
        severity, says = DEGRADED, "the site keeps these addresses for itself"
    else:
        severity = BROKEN if one.live else DEGRADED
        says = {
            NAMESERVER: "names can't be looked up from there",
            ROUTE: "what is behind that route can't be reached from both sides",
        }[other.kind]
    return Overlap(one, other, severity, f"{one} overlaps {other}: {says}", _remedy(one))


def _levels(one: Claim, other: Claim) -> Overlap:
    """Inside against outside: an engine in a container can't see what its host reaches."""
    place = "host" if other.where == HOST else "container"
    if one.kind == POOL:
        severity, says = DEGRADED, f"the inner {one.engine} can't see it and can hand out the same addresses"
    elif other.kind == RESERVED:
        severity, says = DEGRADED, "the site keeps these addresses for itself"
    elif other.kind == NETWORK:
        severity, says = DEGRADED, "inner containers can't reach the containers of that network"
    elif other.kind == NAMESERVER:
        severity, says = BROKEN, "inner containers can't look up names"
    else:
        severity = BROKEN if one.live else DEGRADED
        there = f"the {place}'s gateway" if other.gateway else "the hosts behind it"
        says = f"inner containers can't reach {there}"
    if not one.live and severity == BROKEN:
        severity = DEGRADED
    return Overlap(one, other, severity, f"{one} overlaps {other}: {says}", _remedy(one))


def _remedy(claim: Claim) -> str:
    inside = claim.where != HOST
    if claim.engine == "docker":
        knobs = "runner_bip and runner_address_pools" if inside else "docker_bip and docker_address_pools"
        if claim.kind == NETWORK:
            at = f" in {claim.where}" if inside else ""
            return f"docker network inspect{at} to see who uses it, remove it or give it another --subnet; for docker0 set {knobs}"
        return f"set {knobs} to ranges apart from it"
    if claim.engine == "podman":
        return "set default_subnet and default_subnet_pools in /etc/containers/containers.conf, or give the network another --subnet"
    if claim.engine == "libvirt":
        return "give the network another address: virsh net-edit NAME, then net-destroy and net-start"
    return "move one of the two"


def _of_network(
    where: str, network: EngineNetwork, addresses: Sequence[Address], live: bool
) -> Iterator[Claim]:
    here = {one.interface for one in addresses}
    for one in network.ranges:
        up = live and (network.interface in here or network.driver in ("macvlan", "ipvlan"))
        own = frozenset([network.interface] if network.interface else [])
        yield Claim(
            where, NETWORK, f"{network.engine} network {network.name}", one, network.engine, own, live=up
        )


def _route_words(route: Route) -> str:
    on = f" on {route.interface}" if route.interface else ""
    through = f" via {route.gateway}" if route.gateway else ""
    table = f" in table {route.table}" if route.table != "main" else ""
    kind = f"{route.kind} " if route.kind != "unicast" else ""
    return f"{kind}route{on}{through}{table}"


def _meet(one: Claim, other: Claim) -> bool:
    return one.network.version == other.network.version and one.network.overlaps(other.network)


def _holds(network: Network, address: str | None) -> bool:
    host = _host_network(address or "")
    return host is not None and host.version == network.version and host.overlaps(network)


def _host_network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text.partition("%")[0])
    except ValueError:
        return None
