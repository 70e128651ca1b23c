# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Free address space as aligned blocks: take networks out of it, and say what still fits. Pure."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ansible_collections.matryoshka.host.plugins.module_utils._networks import Network


@dataclass(frozen=True)
class Block:
    """A free network; ``from_top`` has its highest addresses used first."""

    network: Network
    from_top: bool = False

    def end(self, prefix: int) -> Network:
        """The subnet of prefix length ``prefix`` to use first."""
        last = (1 << (prefix - self.network.prefixlen)) - 1
        return subnet(self.network, prefix, last if self.from_top else 0)

    def without(self, taken: Sequence[Network]) -> list[Block]:
        """What is left of it, in the order of use."""
        meeting = [network for network in taken if overlap(self.network, network)]
        if not meeting:
            return [self]
        if any(network.prefixlen <= self.network.prefixlen for network in meeting):
            return []
        halves: list[Network] = [*self.network.subnets()]
        if self.from_top:
            halves.reverse()
        return [part for half in halves for part in Block(half, self.from_top).without(meeting)]


@dataclass(frozen=True)
class Space:
    """Free blocks apart from each other, in the order of use."""

    blocks: tuple[Block, ...]

    def without(self, taken: Iterable[Network]) -> Space:
        networks = list(taken)
        return Space(tuple(part for block in self.blocks for part in block.without(networks)))

    def holds(self, network: Network) -> bool:
        """Whether all of ``network`` is free."""
        return any(inside(network, block.network) for block in self.blocks)

    def places(self, prefix: int) -> Iterator[Network]:
        """Free networks of prefix length ``prefix``, one for each block that has any."""
        for block in self.blocks:
            if block.network.prefixlen <= prefix:
                yield block.end(prefix)

    def unplaced(self, prefixes: Sequence[int]) -> list[int]:
        """The indexes of ``prefixes`` that find no room if all are placed as well as can be.

        Blocks are aligned powers of two, so placing the largest first, each into the
        smallest block that holds it, leaves something over only if there is no other way.
        """
        return _unplaced(self._sizes(), prefixes)

    def fits_beside(self, place: Network, prefixes: Sequence[int]) -> bool:
        """Whether all ``prefixes`` find room once ``place``, which is free, is taken."""
        free = self._sizes()
        block = next(block for block in self.blocks if inside(place, block.network))
        _split(free, block.network.prefixlen, place.prefixlen)
        return not _unplaced(free, prefixes)

    def _sizes(self) -> Counter[int]:
        return Counter(block.network.prefixlen for block in self.blocks)

    @property
    def addresses(self) -> int:
        return sum(block.network.num_addresses for block in self.blocks)


def overlap(one: Network, other: Network) -> bool:
    """Whether both have an address in common."""
    return one.version == other.version and one.overlaps(other)


def inside(one: Network, other: Network) -> bool:
    """Whether all of ``one`` is in ``other``."""
    return one.version == other.version and one.subnet_of(other)  # type: ignore[arg-type]


def subnet(network: Network, prefix: int, index: int = 0) -> Network:
    """The subnet of prefix length ``prefix`` with this number."""
    step = 1 << (network.max_prefixlen - prefix)
    first = int(network.network_address) + index * step
    if network.version == 4:
        return ipaddress.IPv4Network((first, prefix))
    return ipaddress.IPv6Network((first, prefix))


def _split(free: Counter[int], block: int, prefix: int) -> None:
    """Take a network of prefix length ``prefix`` out of a block: one of each size between is left."""
    free[block] -= 1
    free.update(range(block + 1, prefix + 1))


def _unplaced(free: Counter[int], prefixes: Sequence[int]) -> list[int]:
    missing = []
    for index, prefix in sorted(enumerate(prefixes), key=lambda item: item[1]):
        block = max((length for length in free if length <= prefix and free[length]), default=None)
        if block is None:
            missing.append(index)
        else:
            _split(free, block, prefix)
    return sorted(missing)
