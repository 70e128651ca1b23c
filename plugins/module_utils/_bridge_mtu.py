# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The largest packet on the way from the innermost bridge of a container to the host's uplink. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._bridge_engines import Engine, EngineNetwork
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_links import Link, Route, ports, uplink

_LIMIT = 16


@dataclass(frozen=True)
class Step:
    """One interface on the way. ``mtu`` is what is sent through it at most, ``interface_mtu`` its own value."""

    where: str
    interface: str
    mtu: int
    interface_mtu: int
    what: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "where": self.where,
            "interface": self.interface,
            "mtu": self.mtu,
            "interface_mtu": self.interface_mtu,
            "what": self.what,
        }

    def __str__(self) -> str:
        return f"{self.interface} ({self.where}) {self.mtu}"


@dataclass(frozen=True)
class Path:
    """The way from a bridge outwards, the innermost step first."""

    container: str
    network: str | None
    steps: tuple[Step, ...]
    complete: bool

    @property
    def narrow(self) -> tuple[Step, Step] | None:
        """The first step whose packets don't fit through its own bridge or the next step."""
        for step in self.steps:
            if step.interface_mtu < step.mtu:
                return step, replace(step, mtu=step.interface_mtu)
        for inner, outer in zip(self.steps, self.steps[1:], strict=False):
            if inner.mtu > outer.mtu:
                return inner, outer
        return None

    def as_dict(self) -> dict[str, Any]:
        narrow = self.narrow
        return {
            "container": self.container,
            "network": self.network,
            "steps": [one.as_dict() for one in self.steps],
            "minimum": min((one.mtu for one in self.steps), default=None),
            "ok": narrow is None,
            "complete": self.complete,
            "text": f"packets of {narrow[0]} don't fit through {narrow[1]}" if narrow else None,
        }


@dataclass(frozen=True)
class Place:
    """What of a network namespace is needed to follow a way through it."""

    name: str
    links: tuple[Link, ...]
    routes: tuple[Route, ...]
    engines: tuple[Engine, ...] = ()
    outer: str = ""
    """The container that this container is in; empty for one of the host's."""

    def named(self, name: str | None) -> Link | None:
        return next((link for link in self.links if link.name == name), None)


def paths(host: Place, inside: Sequence[Place]) -> list[Path]:
    """The ways of the bridges inside each container; without any, of the container itself; then the host's own."""
    found = []
    around = {place.name: place for place in inside} | {"": host}
    for place in inside:
        bridges: list[Link | None] = [link for link in place.links if link.kind == "bridge"]
        for bridge in bridges or [None]:
            network = _network(place, bridge) if bridge else None
            steps, complete = _way(place, bridge, around)
            found.append(Path(place.name, network.name if network else None, tuple(steps), complete))
    for bridge in host.links:
        network = _network(host, bridge) if bridge.kind == "bridge" else None
        out = _out(host)
        if bridge.kind != "bridge" or out is None or out[0] == bridge or (network and network.internal):
            continue
        if network or ports(host.links, bridge.name):
            name = network.name if network else None
            found.append(Path(host.name, name, (_bridge(host, bridge), *_way_out(host, *out)), True))
    return found


def _way(place: Place, bridge: Link | None, around: Mapping[str, Place]) -> tuple[list[Step], bool]:
    """All steps from a bridge in a container to the host's uplink, level by level."""
    steps = _inside(place, bridge)
    here, complete, host = place, bool(steps), around[""]
    while complete and here is not host:
        last, above = here.named(steps[-1].interface), around.get(here.outer)
        if above is None:
            return steps, False
        more, complete = _outside(above, last)
        steps += more
        here = above
    return steps, complete


def _inside(place: Place, bridge: Link | None) -> list[Step]:
    steps = [_bridge(place, bridge)] if bridge else []
    out = _out(place)
    if out and out[0] != bridge:
        link, mtu = out
        steps.append(Step(place.name, link.name, mtu, link.mtu, link.kind or "interface"))
    return steps


def _outside(host: Place, last: Link | None) -> tuple[list[Step], bool]:
    """From the other end of a container's interface to the uplink around it; False if the way gets lost."""
    if last is None or last.peer is None:
        return [], False
    link = next((one for one in host.links if one.index == last.peer), None)
    if link is None or (last.kind == "veth" and link.peer not in (None, last.index)):
        return [], False
    steps = [Step(host.name, link.name, link.mtu, link.mtu, link.kind or "interface")]
    while link.master and len(steps) < _LIMIT:
        above = host.named(link.master)
        if above is None:
            return steps, False
        link = above
        steps.append(_plain(host, link))
    out = _out(host)
    if out is None:
        return steps, False
    return steps + (_way_out(host, *out) if out[0] != link else []), True


def _out(place: Place) -> tuple[Link, int] | None:
    """The interface of the default route, and what may be sent through it."""
    for version in (4, 6):
        route = uplink(place.routes, version)
        link = place.named(route.interface) if route else None
        if route and link:
            return link, min(link.mtu, route.mtu or link.mtu)
    return None


def _way_out(place: Place, link: Link, mtu: int) -> list[Step]:
    return [Step(place.name, link.name, mtu, link.mtu, "uplink")]


def _plain(place: Place, link: Link) -> Step:
    return Step(place.name, link.name, link.mtu, link.mtu, link.kind or "interface")


def _bridge(place: Place, bridge: Link) -> Step:
    """A bridge where a way begins: its guests send what its engine gives them, whatever its own value is now."""
    network = _network(place, bridge)
    mtu = network.mtu if network and network.mtu else bridge.mtu
    return Step(place.name, bridge.name, mtu, bridge.mtu, "bridge")


def _network(place: Place, bridge: Link) -> EngineNetwork | None:
    networks = (network for engine in place.engines for network in engine.networks)
    return next((one for one in networks if one.interface == bridge.name), None)
