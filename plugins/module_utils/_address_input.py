# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What filter ``address_pools`` is given, checked. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._networks import (
    NamedRange,
    Network,
    Pool,
    overlaps,
    parse_bip,
    parse_network,
    parse_pools,
)

#: Private space in the order of use; 10.0.0.0/8 from its top, as sites count from the bottom.
CANDIDATES = (("172.16.0.0/12", False), ("10.0.0.0/8", True), ("192.168.0.0/16", False))
POOLS_KEY = "default-address-pools"
MOST_LEVELS = 16
MOST_RUNNERS = 1024
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
RANGE = "a network such as 10.1.0.0/16, or {name: lan, range: 10.1.0.0/16}"
#: No bridge can be there.
UNUSABLE = tuple(
    ipaddress.ip_network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
)
UNUSABLE_V6 = tuple(ipaddress.ip_network(text) for text in ("::/8", "fe80::/10", "ff00::/8"))

#: By level: ``bip4``, ``pools4``, ``bip6``, ``pools6`` as pools; ``address4`` and ``address6`` as text.
Current = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Request:
    """All that a plan depends on.

    :param candidates: networks, and whether their highest addresses are used first.
    :param own_candidates: a person gave them, so nothing is kept outside of them.
    :param ipv6: the prefix to take from; None for no IPv6.
    :param current_runners: the bridge's network by runner and level.
    """

    levels: Sequence[str]
    taken: Sequence[NamedRange] = ()
    reserved: Sequence[NamedRange] = ()
    runners: Sequence[str] = ()
    candidates: Sequence[tuple[Network, bool]] = ()
    own_candidates: bool = False
    current: Current = field(default_factory=dict)
    current_runners: Mapping[str, Mapping[str, Network]] = field(default_factory=dict)
    ipv6: Network | None = None
    per_runner: bool = False


def parse(
    taken: object,
    levels: object,
    runners: object = (),
    candidates: object = None,
    reserved: object = (),
    current: object = None,
    ipv6: object = None,
    seed: object = "",
    per_runner: object = False,
) -> Request:
    """The filter's parameters as a :class:`Request`.

    :raises InputError: naming the first that is wrong.
    """
    site = _ranges("reserved", reserved)
    _apart("reserved", site)
    if not isinstance(per_runner, bool):
        raise InputError("per_runner", per_runner, "true or false")
    present = _mapping("current", current)
    of_levels = present.get("levels", {k: v for k, v in present.items() if k != "runners"})
    of_runners = _mapping("current.runners", present.get("runners"))
    return Request(
        levels=_names("levels", levels, MOST_LEVELS, 1, ("levels", "runners", "moved", "ipv6_prefix")),
        taken=[one for one in _ranges("taken", taken) if one.network.prefixlen],
        reserved=site,
        runners=_names("runners", runners, MOST_RUNNERS),
        candidates=_candidates(candidates),
        own_candidates=bool(candidates),
        current=_current(_mapping("current.levels", of_levels)),
        current_runners={
            name: {
                level: config["bip4"][0].base
                for level, config in _current(_mapping(f"current.runners.{name}", value)).items()
                if "bip4" in config
            }
            for name, value in of_runners.items()
        },
        ipv6=_prefix(ipv6, seed),
        per_runner=per_runner,
    )


def unique_local(seed: str) -> Network:
    """A /48 as RFC 4193 has it: ``fd`` and 40 bits, here of a hash, so that a host keeps its own."""
    number = int.from_bytes(
        hashlib.blake2b(seed.encode(), digest_size=5, person=b"matryoshka").digest(), "big"
    )
    return ipaddress.IPv6Network(((0xFD << 120) | (number << 80), 48))


def _sequence(variable: str, value: object, allowed: str) -> Sequence[object]:
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise InputError(variable, value, allowed)
    return value


def _mapping(variable: str, value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(variable, value, "a mapping such as the plan that this filter returned")
    return value


def _names(variable: str, value: object, most: int, least: int = 0, words: Sequence[str] = ()) -> list[str]:
    names = _sequence(variable, value, "a list of names")
    if not least <= len(names) <= most:
        raise InputError(variable, list(names), f"from {least} to {most} names")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not NAME.fullmatch(name) or name in words:
            raise InputError(f"{variable}[{index}]", name, "a name of letters, digits, '.', '_' and '-'")
        if name in names[:index]:
            raise InputError(f"{variable}[{index}]", name, "each name once")
    return [str(name) for name in names]


def _ranges(variable: str, value: object) -> list[NamedRange]:
    """Networks, or mappings with ``name`` and ``range``. An address is the network that it is in."""
    found = []
    for index, item in enumerate(_sequence(variable, value, f"a list; each item is {RANGE}")):
        label, text = f"{variable}[{index}]", item
        if isinstance(item, Mapping):
            if set(item) != {"name", "range"} or not isinstance(item["name"], str):
                raise InputError(label, dict(item), RANGE)
            label, text = item["name"] or label, item["range"]
        try:
            if not isinstance(text, str):
                raise ValueError
            network = ipaddress.ip_network(text.split("%")[0], strict=False)
        except ValueError:
            raise InputError(f"{variable}[{index}]", item, RANGE) from None
        found.append(NamedRange(label, network))
    return found


def _apart(variable: str, ranges: Sequence[NamedRange]) -> None:
    found = overlaps(ranges)
    if found:
        raise InputError(
            variable, [str(one.network) for one in ranges], f"ranges apart from each other, but {found[0]}"
        )


def _candidates(value: object) -> list[tuple[Network, bool]]:
    texts = _sequence("candidates", value, "a list of IPv4 networks")
    if not texts:
        return [(ipaddress.ip_network(text), top) for text, top in CANDIDATES]
    ranges = [
        NamedRange(f"candidates[{index}]", parse_network(f"candidates[{index}]", text, 4))
        for index, text in enumerate(texts)
    ]
    _apart("candidates", ranges)
    for one in ranges:
        if any(one.network.overlaps(bad) for bad in UNUSABLE):
            raise InputError(one.name, str(one.network), "not loopback, link-local, multicast or unspecified")
    return [(one.network, False) for one in ranges]


def _prefix(value: object, seed: object) -> Network | None:
    if value is None or value is False or value == "":
        return None
    if value is True:
        if not isinstance(seed, str) or not seed.strip():
            raise InputError(
                "seed", seed, "a text that is the host's own, such as its machine id, for ipv6: true"
            )
        return unique_local(seed)
    network = parse_network("ipv6", value, 6)
    if any(network.overlaps(bad) for bad in UNUSABLE_V6):
        raise InputError(
            "ipv6", value, "true, false, or a prefix that isn't loopback, link-local or multicast"
        )
    return network


def _current(levels: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = {}
    for level, value in levels.items():
        variable = f"current.{level}"
        config = dict(_mapping(variable, value))
        ipv6 = config.get("ipv6")
        inner = ipv6 if isinstance(ipv6, Mapping) else {}
        parsed: dict[str, Any] = {}
        for key, version in (("bip", 4), ("bip6", 6)):
            address = config.get(key) or inner.get(key)
            if address:
                interface = parse_bip(f"{variable}.{key}", address, version)
                parsed[f"bip{version}"] = (Pool(interface.network, interface.network.prefixlen),)
                parsed[f"address{version}"] = str(interface)
        pools = [
            pool
            for part, name in ((config, variable), (inner, f"{variable}.ipv6"))
            for pool in parse_pools(f"{name}.{POOLS_KEY}", part.get(POOLS_KEY) or [])
        ]
        for version in (4, 6):
            mine = tuple(pool for pool in pools if pool.base.version == version)
            if mine:
                parsed[f"pools{version}"] = mine
        found[str(level)] = parsed
    return found
