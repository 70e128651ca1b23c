# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses and ranges of container engines: parse, validate, compare. Pure functions on :mod:`ipaddress`.

Every function that takes a ``variable`` raises :class:`InputError` with that name; none
looks at the host. What is allowed follows dockerd: ``bip`` is the address of the bridge
with the prefix length of its network, a pool's ``base`` is cut into networks of prefix
length ``size``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Union

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Interface = Union[ipaddress.IPv4Interface, ipaddress.IPv6Interface]

#: The longest prefix that leaves room for a gateway and one container, by IP version.
LONGEST_PREFIX = {4: 30, 6: 126}
POOLS = "a list of {base: 172.25.0.0/16, size: 24}"


@dataclass(frozen=True)
class NamedRange:
    """A range of addresses and what a person knows it by, such as ``docker_config.bip``."""

    name: str
    network: Network

    def __str__(self) -> str:
        return f"{self.name} {self.network}"


@dataclass(frozen=True)
class Pool:
    """A default address pool: ``base`` cut into networks of prefix length ``size``."""

    base: Network
    size: int

    @property
    def networks(self) -> int:
        """How many networks the pool holds."""
        return 1 << (self.size - self.base.prefixlen)


def parse_network(variable: str, value: object, version: int | None = None) -> Network:
    """A network such as ``172.25.0.0/16``, without host bits.

    :param version: 4 or 6 if only one of them is allowed.
    :raises InputError: with the network that was meant, if there are host bits.
    """
    kind = f"an IPv{version} network" if version else "a network"
    allowed = f"{kind} such as {'fd00:172:25::/64' if version == 6 else '172.25.0.0/16'}"
    if not isinstance(value, str) or "/" not in value:
        raise InputError(variable, value, allowed)
    try:
        interface = ipaddress.ip_interface(value)
    except ValueError:
        raise InputError(variable, value, allowed) from None
    if version is not None and interface.version != version:
        raise InputError(variable, value, allowed)
    network = interface.network
    if interface.ip != network.network_address:
        raise InputError(variable, value, f"{kind} without host bits: {network}")
    return network


def parse_bip(variable: str, value: object, version: int = 4) -> Interface:
    """The bridge's own address with its prefix length, such as ``172.20.0.1/16``.

    :raises InputError: not an address of ``version``, without a prefix length, the
        network's or the broadcast address, one that no bridge can have, or a network
        with no room for a container.
    """
    example = "172.20.0.1/16" if version == 4 else "fd00:172:20::1/64"
    allowed = f"an IPv{version} address with its prefix length, such as {example}"
    if not isinstance(value, str) or "/" not in value:
        raise InputError(variable, value, allowed)
    try:
        interface = ipaddress.ip_interface(value)
    except ValueError:
        raise InputError(variable, value, allowed) from None
    network = interface.network
    if interface.version != version:
        raise InputError(variable, value, allowed)
    longest = LONGEST_PREFIX[version]
    if network.prefixlen > longest:
        raise InputError(
            variable, value, f"a prefix length of at most {longest}, room for a bridge and a container"
        )
    if network.prefixlen == 0 or _unusable(interface):
        raise InputError(variable, value, f"{allowed}, not loopback, link-local, multicast or unspecified")
    if interface.ip == network.network_address:
        raise InputError(
            variable, value, f"an address inside the network, not the network itself: {_first(network)}"
        )
    if version == 4 and interface.ip == network.broadcast_address:
        raise InputError(
            variable, value, f"an address inside the network, not its broadcast address: {_first(network)}"
        )
    return interface


def parse_pool(variable: str, value: object) -> Pool:
    """One default address pool, ``{base: 172.25.0.0/16, size: 24}``.

    :raises InputError: other keys, a base that isn't a network, or a size outside of
        the base's own prefix length to 30 (126 for IPv6).
    """
    allowed = "{base: 172.25.0.0/16, size: 24}"
    if not isinstance(value, Mapping) or set(value) != {"base", "size"}:
        raise InputError(variable, value, allowed)
    base = parse_network(f"{variable}.base", value["base"])
    size = value["size"]
    longest = LONGEST_PREFIX[base.version]
    if isinstance(size, bool) or not isinstance(size, int) or not base.prefixlen <= size <= longest:
        raise InputError(
            f"{variable}.size",
            size,
            f"a whole number from {base.prefixlen} (the prefix length of base {base}) to {longest}",
        )
    return Pool(base, size)


def parse_pools(variable: str, value: object) -> list[Pool]:
    """A list of pools that don't overlap each other.

    :raises InputError: naming the first pool that is wrong, or the list if two overlap.
    """
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise InputError(variable, value, POOLS)
    pools = [parse_pool(f"{variable}[{index}]", item) for index, item in enumerate(value)]
    found = overlaps([NamedRange(f"{variable}[{index}].base", pool.base) for index, pool in enumerate(pools)])
    if found:
        raise InputError(
            variable, [str(pool.base) for pool in pools], f"pools apart from each other, but {found[0]}"
        )
    return pools


def overlapping(
    left: Sequence[NamedRange], right: Sequence[NamedRange] | None = None
) -> Iterator[tuple[NamedRange, NamedRange]]:
    """The pairs that share an address: one of ``left`` and one of ``right``, or within ``left``."""
    pairs = combinations(left, 2) if right is None else ((one, other) for one in left for other in right)
    for one, other in pairs:
        if one.network.version == other.network.version and one.network.overlaps(other.network):
            yield one, other


def overlaps(left: Sequence[NamedRange], right: Sequence[NamedRange] | None = None) -> list[str]:
    """One message for each overlapping pair, which names both sides and their ranges.

    ``overlaps(ranges)`` compares ``ranges`` with each other, ``overlaps(ours, theirs)``
    only ours with theirs, as for pools and the host's routes.
    """
    return [f"{one} overlaps {other}" for one, other in overlapping(left, right)]


def daemon_ranges(config: Mapping[str, object], variable: str) -> list[NamedRange]:
    """The ranges that a daemon with this configuration takes: ``bip``, ``bip6`` and its pools.

    They may overlap; ask :func:`overlaps`.

    :raises InputError: as :func:`parse_bip` and :func:`parse_pool`.
    """
    ranges = []
    for key, version in (("bip", 4), ("bip6", 6)):
        if key in config:
            name = f"{variable}.{key}"
            ranges.append(NamedRange(name, parse_bip(name, config[key], version).network))
    pools = config.get("default-address-pools", ())
    if not isinstance(pools, Sequence) or isinstance(pools, (str, bytes)):
        raise InputError(f"{variable}.default-address-pools", pools, POOLS)
    for index, item in enumerate(pools):
        name = f"{variable}.default-address-pools[{index}]"
        ranges.append(NamedRange(f"{name}.base", parse_pool(name, item).base))
    return ranges


def _unusable(interface: Interface) -> bool:
    address = interface.ip
    link_local_v4 = address.version == 4 and address.is_link_local
    return address.is_loopback or address.is_multicast or address.is_unspecified or link_local_v4


def _first(network: Network) -> str:
    return f"{network.network_address + 1}/{network.prefixlen}"
