# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans ``bip`` and ``default-address-pools`` for every level of engines. Pure.

A range goes, first of these that is free: where it is now, to its preferred place, next in
the candidates. It gets the largest size at which all ranges after it still fit at their
smallest. From this follows what a site relies on: a further runner, a further level at
the end, or a taken range that meets nothing of the plan moves nothing, unless the plan
would have no room for it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._address_input import Request
from ansible_collections.matryoshka.host.plugins.module_utils._address_space import (
    Block,
    Space,
    inside,
    overlap,
    subnet,
)
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._networks import NamedRange, Network, Pool

#: Prefix length of one network of a pool, by IP version.
NETWORK = {4: 24, 6: 64}
#: The smallest bridge network, by IP version.
BRIDGE = {4: 24, 6: 64}
#: Networks that a level's pools hold at least; the outermost level's one more for each runner.
INNER_NETWORKS = 16
OUTER_NETWORKS = 8
#: So many of the ranges that are in the way are named, the largest.
SHOWN = 8
#: Where a level's ranges go if nothing is in the way.
PREFERRED = {
    "docker": {"bip": "172.20.0.0/16", "pools": "172.25.0.0/16"},
    "runner": {"bip": "172.22.0.0/16", "pools": "172.28.0.0/14"},
}
#: The size of a range without a preference, by IP version and kind.
USUAL = {4: {"bip": 16, "pools": 16}, 6: {"bip": 64, "pools": 56}}
#: The same for IPv6 where each runner has its own part.
USUAL_PARTED = {"bip": 56, "pools": 52}
PREFERENCES = tuple(ipaddress.ip_network(text) for ranges in PREFERRED.values() for text in ranges.values())


@dataclass(frozen=True)
class Want:
    """One range of a level: the bridge's (``kind`` bip) or the pools'.

    :param largest: the prefix length to begin with.
    :param smallest: the longest prefix length that holds what is needed.
    :param slot: the prefix length of one runner's part.
    :param current: what the engine has; several networks for several pools.
    """

    level: str
    kind: str
    version: int
    largest: int
    smallest: int
    slot: int
    preferred: Network | None = None
    current: tuple[Pool, ...] = ()
    address: str = ""

    @property
    def name(self) -> str:
        return f"{self.level} {self.kind}{'6' if self.version == 6 else ''}"

    @property
    def size(self) -> str:
        """The smallest size in words."""
        return f"/{self.smallest} ({_amount(self.version, 1 << (_bits(self.version) - self.smallest))})"


@dataclass(frozen=True)
class Placed:
    """A range with its place."""

    want: Want
    pools: tuple[Pool, ...]
    address: str

    @property
    def networks(self) -> list[Network]:
        return [pool.base for pool in self.pools]


def plan(request: Request) -> dict[str, Any]:
    """The plan: ``levels``, ``runners``, ``moved`` and ``ipv6_prefix``.

    :raises InputError: a reserved range that leaves no room.
    :raises HostError: what is wanted doesn't fit; says how much is missing, and what takes the room.
    """
    placed = _place(request, 4, [Block(network, top) for network, top in request.candidates])
    if request.ipv6 is not None:
        placed += _place(request, 6, [Block(request.ipv6)])
    levels = {level: _level(placed, level) for level in request.levels}
    return {
        "levels": levels,
        "runners": _runners(request, placed, levels),
        "moved": [entry for one in placed for entry in _moved(request, one, placed)],
        "ipv6_prefix": None if request.ipv6 is None else str(request.ipv6),
    }


def _wants(request: Request, version: int) -> list[Want]:
    network, bridge, bits = NETWORK[version], BRIDGE[version], _bits(version)
    runners = max(1, len(request.runners))
    wants = []
    for index, level in enumerate(request.levels):
        parts = runners if request.per_runner and index else 1
        if index:
            pool_slot, bip_slot = network - _log2(INNER_NETWORKS), bridge
        else:
            # Two environments of a runner live at a time: the one with a job, and the next.
            pool_slot = network - _log2(OUTER_NETWORKS + runners)
            bip_slot = min(bridge, bits - _log2(2 * runners + 3))
        current = request.current.get(level, {})
        for kind, slot in (("bip", bip_slot), ("pools", pool_slot)):
            smallest = slot - _log2(parts)
            text = PREFERRED.get(level, {}).get(kind) if version == 4 else None
            preferred = ipaddress.ip_network(text) if text else None
            parted = version == 6 and request.per_runner and index > 0
            usual = preferred.prefixlen if preferred else (USUAL_PARTED if parted else USUAL[version])[kind]
            key = f"{kind}{version}"
            wants.append(
                Want(
                    level=level,
                    kind=kind,
                    version=version,
                    largest=min(usual, smallest),
                    smallest=smallest,
                    slot=slot,
                    preferred=preferred,
                    current=current.get(key, ()),
                    address=current.get(f"address{version}", "") if kind == "bip" else "",
                )
            )
    return wants


def _place(request: Request, version: int, candidates: Sequence[Block]) -> list[Placed]:
    wants = _wants(request, version)
    others = [one.network for one in (*request.taken, *request.reserved)]
    everything = Space(tuple(candidates))
    space = everything.without(others)
    kept: dict[str, Placed] = {}
    for want in wants:
        networks = [pool.base for pool in want.current]
        mine = [network for one in kept.values() for network in one.networks]
        allowed = not (request.own_candidates or version == 6) or all(map(everything.holds, networks))
        free = not any(overlap(one, other) for one in networks for other in (*others, *mine))
        if want.current and allowed and free and _holds(want, want.current):
            kept[want.name] = Placed(want, want.current, want.address or _first(networks[0]))
            space = space.without(networks)
    open_wants = [want for want in wants if want.name not in kept]
    _refuse_if_full(request, everything, space, open_wants)
    for index, want in enumerate(open_wants):
        later = [one.smallest for one in open_wants[index + 1 :]]
        network = _choose(space, want, later)
        space = space.without([network])
        pool = Pool(network, NETWORK[version] if want.kind == "pools" else network.prefixlen)
        kept[want.name] = Placed(want, (pool,), _first(network))
    return [kept[want.name] for want in wants]


def _choose(space: Space, want: Want, later: Sequence[int]) -> Network:
    for prefix in range(want.largest, want.smallest + 1):
        for network in _places(space, want, prefix):
            if space.fits_beside(network, later):
                return network
    raise AssertionError(f"{want.name} was found to fit")


def _places(space: Space, want: Want, prefix: int) -> Iterator[Network]:
    """The preferred place, then those that no level prefers, then all."""
    if want.preferred is not None and prefix >= want.preferred.prefixlen:
        own = subnet(want.preferred, prefix)
        if space.holds(own):
            yield own
    yield from space.without(PREFERENCES).places(prefix)
    yield from space.places(prefix)


def _holds(want: Want, pools: Sequence[Pool]) -> bool:
    """Whether ``pools`` have enough slots for the runners that share the range."""
    if want.kind == "bip":
        return pools[0].base.prefixlen <= want.smallest
    needed = 1 << (want.slot - want.smallest)
    if needed > 1:
        return sum(_slot_counts(Placed(want, tuple(pools), ""))) >= needed
    return sum(pool.networks for pool in pools) >= 1 << (NETWORK[want.version] - want.smallest)


def _refuse_if_full(request: Request, everything: Space, space: Space, wants: Sequence[Want]) -> None:
    prefixes = [want.smallest for want in wants]
    missing = space.unplaced(prefixes)
    if not missing:
        return
    version = wants[0].version
    bits = _bits(version)
    wanted = sum(1 << (bits - prefix) for prefix in prefixes)
    lacking = sum(1 << (bits - prefixes[index]) for index in missing)
    ranges = [(_shared(one.network, everything), one) for one in (*request.taken, *request.reserved)]
    ranges = sorted((pair for pair in ranges if pair[0]), key=lambda pair: -pair[0])
    in_the_way = [f"{one} ({_amount(version, size)})" for size, one in ranges[:SHOWN]]
    if len(ranges) > SHOWN:
        in_the_way.append(f"and {len(ranges) - SHOWN} smaller ones")
    where = ", ".join(str(block.network) for block in everything.blocks)
    text = (
        f"{_amount(version, lacking)} are missing: no room for "
        f"{', '.join(f'{wants[index].name} {wants[index].size}' for index in missing)}. "
        f"{_count(request.levels, 'level')} and {_count(request.runners, 'runner')} want at least "
        f"{_amount(version, wanted)}; {where} have {_amount(version, everything.addresses)}, "
        f"{_amount(version, space.addresses)} free. In the way: {', '.join(in_the_way) or 'nothing'}"
    )
    without_reserved = everything.without(one.network for one in request.taken)
    if request.reserved and not without_reserved.unplaced(prefixes):
        raise InputError(
            "reserved", [str(one) for one in request.reserved], f"ranges that leave room; {text}"
        )
    raise HostError(f"address pools: {text}")


def _level(placed: Sequence[Placed], level: str) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for one in placed:
        if one.want.level == level:
            part = config if one.want.version == 4 else config.setdefault("ipv6", {"ipv6": True})
            part.update(_options(one.want, one.pools, one.address))
    return config


def _options(want: Want, pools: Sequence[Pool], address: str) -> dict[str, Any]:
    if want.kind == "pools":
        return {"default-address-pools": [{"base": str(pool.base), "size": pool.size} for pool in pools]}
    if want.version == 4:
        return {"bip": address}
    return {"bip6": address, "fixed-cidr-v6": str(pools[0].base)}


def _runners(
    request: Request, placed: Sequence[Placed], levels: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    inner = request.levels[1:]
    if not request.per_runner:
        return {name: {level: levels[level] for level in inner} for name in request.runners}
    found: dict[str, dict[str, Any]] = {name: {} for name in request.runners}
    for level in inner:
        mine = [one for one in placed if one.want.level == level]
        numbers = _numbers(request, level, mine)
        for name in request.runners:
            parts = []
            for one in mine:
                network = _slot(one, numbers[name])
                size = NETWORK[one.want.version] if one.want.kind == "pools" else network.prefixlen
                parts.append(replace(one, pools=(Pool(network, size),), address=_first(network)))
            found[name][level] = _level(parts, level)
    return found


def _numbers(request: Request, level: str, mine: Sequence[Placed]) -> dict[str, int]:
    """The slot of each runner: the one that it has, else the first free one."""
    bridges, bip = mine[0].want, mine[0].networks[0]
    usable = min(sum(_slot_counts(one)) for one in mine)
    numbers: dict[str, int] = {}
    for name in request.runners:
        network = request.current_runners.get(name, {}).get(level)
        if network is None or network.prefixlen != bridges.slot or not inside(network, bip):
            continue
        number = (int(network.network_address) - int(bip.network_address)) // network.num_addresses
        if number < usable and number not in numbers.values():
            numbers[name] = number
    free = (number for number in range(usable) if number not in numbers.values())
    return {name: numbers[name] if name in numbers else next(free) for name in request.runners}


def _slot_counts(one: Placed) -> list[int]:
    """How many runners' parts each network of a range has."""
    lengths = [network.prefixlen for network in one.networks]
    return [1 << (one.want.slot - length) if length <= one.want.slot else 0 for length in lengths]


def _slot(one: Placed, number: int) -> Network:
    for network, count in zip(one.networks, _slot_counts(one), strict=True):
        if number < count:
            return subnet(network, one.want.slot, number)
        number -= count
    raise AssertionError(f"{one.want.name} has too few parts")


def _moved(request: Request, one: Placed, placed: Sequence[Placed]) -> list[dict[str, Any]]:
    want = one.want
    origin = [pool.base for pool in want.current] or ([want.preferred] if want.preferred else [])
    if not origin or origin == one.networks:
        return []
    others = [
        NamedRange(two.want.name, network) for two in placed if two is not one for network in two.networks
    ]
    because = [
        str(other)
        for other in (*request.taken, *request.reserved, *others)
        if any(overlap(other.network, network) for network in origin)
    ]
    if not because and want.current and not _holds(want, want.current):
        because = [f"too small: {want.size} is needed"]
    if not because:
        space = [network for network, _top in request.candidates] if want.version == 4 else [request.ipv6]
        outside = not all(any(inside(network, block) for block in space if block) for network in origin)
        because = ["outside of the candidates" if outside else "room for other ranges"]
    shown = {"level": want.level, "key": want.kind if want.version == 4 else f"{want.kind}6"}
    ranges = {"from": [str(network) for network in origin], "to": [str(network) for network in one.networks]}
    return [{**shown, **ranges, "because": because}]


def _shared(network: Network, space: Space) -> int:
    """How many addresses of ``space`` are in ``network``."""
    common = [block.network for block in space.blocks if overlap(block.network, network)]
    return sum(min(block.num_addresses, network.num_addresses) for block in common)


def _amount(version: int, addresses: int) -> str:
    number, what = (addresses, "addresses") if version == 4 else (addresses >> 64, "networks of /64")
    return f"{number} {what}" if number != 1 else f"1 {what.replace('sses', 'ss').replace('works', 'work')}"


def _count(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what}" if len(names) == 1 else f"{len(names)} {what}s"


def _first(network: Network) -> str:
    return f"{network.network_address + 1}/{network.prefixlen}"


def _bits(version: int) -> int:
    return 32 if version == 4 else 128


def _log2(number: int) -> int:
    """The exponent of the smallest power of two that isn't below ``number``."""
    return (number - 1).bit_length()
