# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a site says of its jobs' network, checked against what ``host_info`` says of the host. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._networks import Network

CLOSED: tuple[str, ...] = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/127",
    "::ffff:0:0/96",
    "64:ff9b::a00:0/104",
    "64:ff9b::6440:0/106",
    "64:ff9b::a9fe:0/112",
    "64:ff9b::ac10:0/108",
    "64:ff9b::c0a8:0/112",
    "64:ff9b:1::/48",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)
"""What a job has no business with: the special-purpose ranges of RFC 6890 that a LAN, a cloud's
metadata service, a provider or multicast uses, also where NAT64 (RFC 6052) leads to them."""

_INTERFACE = re.compile(r"^[A-Za-z0-9_.:-]{1,15}\+?$")
_PROTOCOLS = ("tcp", "udp")
_ENTRY = "an address or a network such as 192.0.2.10 or 192.0.2.0/24, or {to: 192.0.2.10, protocol: tcp, ports: [443]}"
_HOST_ENTRY = "{protocol: tcp, ports: [5000]}"


@dataclass(frozen=True)
class Allowed:
    """A destination that jobs may reach; without ``ports`` all of it."""

    network: Network
    protocol: str = ""
    ports: tuple[int, ...] = ()

    @property
    def entries(self) -> list[str]:
        """As entries of a set: ``NETWORK``, or ``NETWORK,PROTOCOL:PORT`` for each port."""
        text = str(self.network)
        return [f"{text},{self.protocol}:{port}" for port in self.ports] or [text]


@dataclass(frozen=True)
class HostPort:
    """A port of the host's own that jobs may reach."""

    protocol: str
    port: int


@dataclass(frozen=True)
class FirewallOptions:
    """A site's options, checked.

    ``host_bridges`` are the host's own, whose ports reach each other; of these ``routed_bridges`` also
    lead elsewhere. ``exempt_interfaces`` only look like jobs' by their names. ``uids`` are ids, or ranges of ids, that rootless engines send with.
    """

    isolation: bool
    isolate_environments: bool
    allow: tuple[Allowed, ...]
    allow_host: tuple[HostPort, ...]
    closed: tuple[Network, ...]
    sources: tuple[Network, ...]
    job_interfaces: tuple[str, ...]
    host_bridges: tuple[str, ...]
    routed_bridges: tuple[str, ...] = ()
    exempt_interfaces: tuple[str, ...] = ()
    uids: tuple[str, ...] = ()
    clamp_mss: bool = True


def read_options(given: Mapping[str, Any], facts: Mapping[str, Any]) -> FirewallOptions:
    """A site's options (of role network, without ``network_``) against what ``host_info`` says of the host.

    :raises InputError: naming the option, the value and what is allowed.
    """
    network = facts.get("network") or {}
    allow = [
        one
        for index, entry in enumerate(_list("network_allow", given.get("allow"), _ENTRY))
        for one in _allowed(f"network_allow[{index}]", entry)
    ]
    servers = list(network.get("nameservers") or ()) if given.get("allow_nameservers", True) else []
    for server in servers:
        allow += _nameserver(server)
    host_ports = [
        one
        for index, entry in enumerate(_list("network_allow_host", given.get("allow_host"), _HOST_ENTRY))
        for one in _host_port(f"network_allow_host[{index}]", entry)
    ]
    own = {str(entry["address"]).partition("/")[0] for entry in network.get("addresses") or ()}
    if own & {server.partition("%")[0] for server in servers}:
        host_ports += [HostPort(protocol, 53) for protocol in _PROTOCOLS]
    interfaces = _interfaces("network_job_interfaces", given.get("job_interfaces"))
    bridges, routed = _host_bridges(given.get("host_bridges"), network, interfaces)
    return FirewallOptions(
        isolation=bool(given.get("isolation", True)),
        isolate_environments=bool(given.get("isolate_environments", True)),
        allow=tuple(dict.fromkeys(allow)),
        allow_host=tuple(dict.fromkeys(host_ports)),
        closed=_collapsed(
            [ipaddress.ip_network(one) for one in CLOSED]
            + [
                _network(f"network_close[{index}]", entry, "a network such as 198.51.100.0/24")
                for index, entry in enumerate(
                    _list("network_close", given.get("close"), "a list of networks")
                )
            ]
        ),
        sources=_collapsed(
            [_network("network_ranges", one, "a network") for one in given.get("sources") or ()]
        ),
        job_interfaces=interfaces,
        host_bridges=bridges,
        routed_bridges=routed,
        exempt_interfaces=_exempt([*bridges, network.get("default_interface")], interfaces),
        uids=_uids(given.get("users") or (), facts.get("users") or {}),
        clamp_mss=bool(given.get("clamp_mss", True)),
    )


def _list(variable: str, value: Any, of: str) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise InputError(variable, value, f"a list of: {of}")
    return value


def _network(variable: str, value: Any, allowed: str) -> Network:
    try:
        network = ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise InputError(variable, value, allowed) from None
    if network.prefixlen == 0:
        raise InputError(variable, value, f"{allowed}, not everything (network_isolation: false opens all)")
    return network


def _allowed(variable: str, entry: Any) -> list[Allowed]:
    if not isinstance(entry, Mapping):
        return [Allowed(_network(variable, entry, _ENTRY))]
    if set(entry) - {"to", "protocol", "ports"} or "to" not in entry:
        raise InputError(variable, dict(entry), _ENTRY)
    network = _network(f"{variable}.to", entry["to"], "an address or a network")
    if "ports" not in entry:
        if "protocol" in entry:
            raise InputError(f"{variable}.protocol", entry["protocol"], "nothing without ports")
        return [Allowed(network)]
    ports = tuple(_ports(f"{variable}.ports", entry["ports"]))
    return [Allowed(network, _protocol(variable, entry), ports)]


def _host_port(variable: str, entry: Any) -> list[HostPort]:
    if not isinstance(entry, Mapping) or set(entry) - {"protocol", "ports"} or "ports" not in entry:
        raise InputError(variable, entry, _HOST_ENTRY)
    protocol = _protocol(variable, entry)
    return [HostPort(protocol, port) for port in _ports(f"{variable}.ports", entry["ports"])]


def _protocol(variable: str, entry: Mapping[str, Any]) -> str:
    protocol = entry.get("protocol") or "tcp"
    if protocol not in _PROTOCOLS:
        raise InputError(f"{variable}.protocol", protocol, " or ".join(_PROTOCOLS))
    return str(protocol)


def _ports(variable: str, value: Any) -> list[int]:
    allowed = "a list of ports from 1 to 65535"
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or not value:
        raise InputError(variable, value, allowed)
    for port in value:
        if isinstance(port, bool) or not re.fullmatch(r"\d{1,5}", str(port)) or not 0 < int(port) < 65536:
            raise InputError(variable, port, allowed)
    return [int(port) for port in value]


def _nameserver(server: str) -> list[Allowed]:
    """The way to a nameserver of the host's, which environments use too; one on loopback is the host's own."""
    try:
        network = ipaddress.ip_network(server.partition("%")[0])
    except ValueError:
        return []
    if network.is_loopback:
        return []
    return [Allowed(network, protocol, (53,)) for protocol in _PROTOCOLS]


def _interfaces(variable: str, value: Any) -> tuple[str, ...]:
    names = _list(variable, value, "names of interfaces; a + at the end stands for any end")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not _INTERFACE.match(name):
            raise InputError(
                f"{variable}[{index}]",
                name,
                "an interface's name of at most 15 characters, or its beginning and a +",
            )
    return tuple(dict.fromkeys(names))


def _exempt(names: Sequence[Any], job_interfaces: Sequence[str]) -> tuple[str, ...]:
    """The host's own interfaces that a pattern for jobs' bridges covers: nobody is to be locked out by a name."""
    return tuple(
        dict.fromkeys(
            str(name)
            for name in names
            if name and any(_covers(pattern, str(name)) for pattern in job_interfaces)
        )
    )


def _covers(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _host_bridges(
    value: Any, network: Mapping[str, Any], job_interfaces: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The host's own bridges, and those of them that also lead elsewhere.

    Of a bridge found on the host only libvirt's is known to do that; a bridge named by a person does.
    """
    if value in (None, "auto"):
        found = {
            one["name"]: one["managed_by"]
            for one in network.get("bridges") or ()
            if one["managed_by"] in ("libvirt", "other") and one["name"] not in job_interfaces
        }
        return tuple(sorted(found)), tuple(sorted(name for name in found if found[name] == "libvirt"))
    names = _interfaces("network_host_bridges", value)
    for index, name in enumerate(names):
        if name in job_interfaces:
            raise InputError(
                f"network_host_bridges[{index}]",
                name,
                f"a bridge that isn't one of network_job_interfaces ({', '.join(job_interfaces)})",
            )
    return names, names


def _uids(names: Sequence[Any], users: Mapping[str, Any]) -> tuple[str, ...]:
    """A rootless engine sends with its user's uid, and from the host's network with its subordinate ones."""
    found: list[str] = []
    for index, name in enumerate(_list("network_users", names, "names of users")):
        user = users.get(str(name))
        if user is None:
            raise InputError(f"network_users[{index}]", name, "a user that the host has")
        if user["uid"] == 0:
            raise InputError(
                f"network_users[{index}]", name, "a user other than root: all of the host would be closed in"
            )
        found.append(str(user["uid"]))
        found += [f"{first}-{first + count - 1}" for first, count in user.get("subuid_ranges") or ()]
    return tuple(dict.fromkeys(found))


def _collapsed(networks: Sequence[Network]) -> tuple[Network, ...]:
    """Without those that lie in another: a set takes no entry twice."""
    found: list[Network] = []
    for version in (4, 6):
        found += ipaddress.collapse_addresses([one for one in networks if one.version == version])  # type: ignore[type-var]
    return tuple(found)
