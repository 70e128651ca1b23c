# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Interfaces, addresses, routes and bridges of one network namespace, as ``ip -j`` prints them. Pure."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._host_network import bridge_manager
from ansible_collections.matryoshka.host.plugins.module_utils._networks import Network

MAIN = "main"
#: Kinds of routes that say where packets of others go; the rest describes the machine's own addresses.
_KINDS = ("unicast", "blackhole", "unreachable", "prohibit")


@dataclass(frozen=True)
class Link:
    """An interface. ``peer`` is the index of what it hangs on (a veth's other end, a macvlan's parent)."""

    name: str
    index: int
    mtu: int
    kind: str | None = None
    up: bool = True
    master: str | None = None
    peer: int | None = None
    parent: str | None = None
    bridge: tuple[tuple[str, Any], ...] | None = None

    def option(self, name: str) -> Any:
        """An option of a bridge, such as ``stp_state``."""
        return dict(self.bridge or ()).get(name)


@dataclass(frozen=True)
class Address:
    """An address with the network that it puts on its interface."""

    interface: str
    address: str
    scope: str

    @property
    def network(self) -> Network:
        return ipaddress.ip_interface(self.address).network


@dataclass(frozen=True)
class Route:
    """A route of any table. ``mtu`` is a limit of the route's own."""

    destination: Network
    interface: str | None = None
    gateway: str | None = None
    table: str = MAIN
    kind: str = "unicast"
    metric: int = 0
    mtu: int | None = None

    @property
    def default(self) -> bool:
        """Whether it leads to everywhere; the two halves that VPN clients set count too."""
        return self.destination.prefixlen < 2 and self.kind == "unicast"

    @property
    def on_link(self) -> bool:
        """Whether engines see it when they look for a free range: they look at nothing else."""
        return self.gateway is None and self.table == MAIN and self.kind == "unicast"

    def as_dict(self) -> dict[str, Any]:
        return {
            "destination": str(self.destination),
            "interface": self.interface,
            "gateway": self.gateway,
            "family": self.destination.version,
            "table": self.table,
            "type": self.kind,
            "metric": self.metric,
            "mtu": self.mtu,
        }


def parse_links(text: str) -> tuple[list[Link], list[Address]]:
    """``ip -j -d addr show``, of iproute2 5 and later."""
    links, addresses = [], []
    for entry in _entries(text):
        if "ifname" not in entry:
            continue
        info = entry.get("linkinfo") or {}
        kind = info.get("info_kind")
        links.append(
            Link(
                name=entry["ifname"],
                index=int(entry.get("ifindex", 0)),
                mtu=int(entry.get("mtu", 0)),
                kind=kind,
                up="UP" in entry.get("flags", []),
                master=entry.get("master"),
                peer=entry.get("link_index"),
                parent=entry.get("link"),
                bridge=tuple((info.get("info_data") or {}).items()) if kind == "bridge" else None,
            )
        )
        for one in entry.get("addr_info", []):
            if "local" in one:
                # Of a point-to-point link, "address" is the other end, whose network it is.
                local = f"{one.get('address', one['local'])}/{one['prefixlen']}"
                addresses.append(Address(entry["ifname"], local, str(one.get("scope", "global"))))
    return links, addresses


def parse_routes(text: str) -> list[Route]:
    """``ip -j route show table all``; a multipath route becomes one for each hop, local ones are left out."""
    found = []
    for entry in _entries(text):
        kind = entry.get("type", "unicast")
        if kind not in _KINDS or entry.get("table") == "local":
            continue
        destination = _destination(entry)
        if destination is None or destination.is_link_local or destination.is_multicast:
            continue
        limits = [one["mtu"] for one in entry.get("metrics") or [] if "mtu" in one]
        for hop in entry.get("nexthops") or [entry]:
            interface = hop.get("dev", entry.get("dev"))
            if interface == "lo" and kind == "unicast":
                continue
            gateway = hop.get("gateway", entry.get("gateway")) or (hop.get("via") or {}).get("host")
            found.append(
                Route(
                    destination,
                    interface,
                    gateway,
                    str(entry.get("table", MAIN)),
                    kind,
                    int(entry.get("metric", 0)),
                    int(limits[0]) if limits else None,
                )
            )
    return found


def parse_rules(text: str) -> list[dict[str, Any]]:
    """``ip -j rule``: the policy rules that aren't the kernel's own three."""
    return [
        {str(key): value for key, value in entry.items()}
        for entry in _entries(text)
        if entry.get("priority") not in (0, 32766, 32767)
    ]


def parse_learnt(text: str) -> list[dict[str, Any]]:
    """``ip -j route show cache``: where the kernel has learnt that a path carries less than its interface."""
    return [
        {"destination": entry.get("dst"), "interface": entry.get("dev"), "mtu": int(one["mtu"])}
        for entry in _entries(text)
        for one in entry.get("metrics") or []
        if "mtu" in one
    ]


def uplink(routes: Sequence[Route], version: int) -> Route | None:
    """The way out: the main table's default route with the lowest metric."""
    ways = [
        route
        for route in routes
        if route.default and route.table == MAIN and route.interface and route.destination.version == version
    ]
    return min(ways, key=lambda route: (route.metric, route.destination.prefixlen), default=None)


def ports(links: Sequence[Link], bridge: str) -> list[Link]:
    return [link for link in links if link.master == bridge]


def describe_bridge(link: Link, links: Sequence[Link], addresses: Sequence[Address]) -> dict[str, Any]:
    """A bridge as the module returns it; ``managed_by`` is a guess from its name until an engine is asked."""
    return {
        "name": link.name,
        "addresses": [one.address for one in addresses if one.interface == link.name],
        "ports": [one.name for one in ports(links, link.name)],
        "mtu": link.mtu,
        "up": link.up,
        "stp": bool(link.option("stp_state")),
        "vlan_filtering": bool(link.option("vlan_filtering")),
        "managed_by": bridge_manager(link.name),
        "network": None,
    }


def _entries(text: str) -> list[dict[str, Any]]:
    """The objects of a JSON list; older iproute2 puts empty objects in, or prints nothing at all."""
    try:
        found = json.loads(text.strip() or "[]")
    except ValueError:
        return []
    return [entry for entry in found if isinstance(entry, dict) and entry] if isinstance(found, list) else []


def _destination(entry: dict[str, Any]) -> Network | None:
    text = str(entry.get("dst", ""))
    if text == "default":
        hops = entry.get("nexthops") or [entry]
        gateway = str(hops[0].get("gateway") or (hops[0].get("via") or {}).get("host") or "")
        # Only IPv6's routes have a preference.
        six = ":" in gateway or (not gateway and "pref" in entry)
        text = "::/0" if six else "0.0.0.0/0"
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
