# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of an ordinary packet on its way through packet filters: yes, no, or maybe. Pure.

The packet is one that no special rule is made for: of any protocol and port, the first of its
connection (or an answer), between two guests of a bridge or from a guest to the internet. A
rule for something special, one port for example, may meet it or not: both ways are followed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ansible_collections.matryoshka.host.plugins.module_utils._bridge_rules import (
    ACCEPT,
    DROP,
    GOTO,
    JUMP,
    NEXT,
    RETURN,
    UNSURE,
    BaseChain,
    Condition,
    Rule,
)
from ansible_collections.matryoshka.host.plugins.module_utils._networks import Network

YES, NO, MAYBE = "yes", "no", "maybe"
_DEPTH = 64


@dataclass(frozen=True)
class Packet:
    """A packet that is forwarded. Sources and destinations are the networks it can be from or for; None: any."""

    in_if: str
    out_if: str
    bridged: bool = False
    state: str = "NEW"
    sources: tuple[Network, ...] | None = None
    destinations: tuple[Network, ...] | None = None
    ports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """Whether the packet passes, and the rule or policy that decides."""

    answer: str
    because: str = ""


def accepts(filters: Sequence[BaseChain], packet: Packet) -> Decision:
    """Whether ``packet`` passes all of ``filters``: one that drops it is enough for no."""
    doubts = []
    for base in filters:
        outcomes = _base(base, packet)
        if ACCEPT not in outcomes:
            return Decision(NO, outcomes[DROP])
        if DROP in outcomes:
            doubts.append(Decision(MAYBE, outcomes[DROP]))
    return doubts[0] if doubts else Decision(YES)


def _base(base: BaseChain, packet: Packet) -> dict[str, str]:
    """What can become of the packet, each with its reason."""
    outcomes = _chain(base, base.chain, packet, {}, 0)
    if outcomes.pop(RETURN, None) is not None:
        outcomes.setdefault(base.policy, f"the policy of {base.label}")
    return outcomes


def _chain(
    base: BaseChain, name: str, packet: Packet, known: dict[str, dict[str, str]], depth: int
) -> dict[str, str]:
    """What can become of the packet in a chain; :data:`RETURN` is that it leaves it undecided."""
    if name in known:
        return dict(known[name])
    if name not in base.chains or depth > _DEPTH:
        unsure = f"{name}, which isn't understood, in {base.label}"
        return {ACCEPT: unsure, DROP: unsure, RETURN: unsure}
    outcomes: dict[str, str] = {}
    for rule in base.chains[name]:
        met = _meets(rule, packet)
        if met == NO or rule.verb == NEXT:
            continue
        result = _result(base, rule, packet, known, depth)
        goes_on = rule.verb in (JUMP, UNSURE) and result.pop(RETURN, None) is not None
        for outcome, because in result.items():
            outcomes.setdefault(outcome, because)
        if met == YES and not goes_on:
            break
    else:
        outcomes.setdefault(RETURN, "")
    known[name] = dict(outcomes)
    return outcomes


def _result(
    base: BaseChain, rule: Rule, packet: Packet, known: dict[str, dict[str, str]], depth: int
) -> dict[str, str]:
    if rule.verb in (JUMP, GOTO):
        return _chain(base, rule.target, packet, known, depth + 1)
    if rule.verb == UNSURE:
        return dict.fromkeys((ACCEPT, DROP, RETURN), rule.text)
    return {rule.verb: rule.text}


def _meets(rule: Rule, packet: Packet) -> str:
    answers = [meets(condition, packet) for condition in rule.conditions]
    return NO if NO in answers else MAYBE if MAYBE in answers else YES


def meets(condition: Condition, packet: Packet) -> str:
    """Whether the packet meets a condition."""
    check = _CHECKS.get(condition.kind)
    answer = check(condition, packet) if check else MAYBE
    if condition.negated:
        return {YES: NO, NO: YES}.get(answer, MAYBE)
    return answer


def _named(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _interface(name: Callable[[Packet], str]) -> Callable[[Condition, Packet], str]:
    return lambda condition, packet: YES if any(_named(one, name(packet)) for one in condition.values) else NO


def _port(condition: Condition, packet: Packet) -> str:
    """A port of the bridge: the packet may come in or go out by any of them."""
    if not packet.bridged:
        return NO
    met = [any(_named(one, port) for one in condition.values) for port in packet.ports]
    return YES if met and all(met) else MAYBE if any(met) else NO


def _state(condition: Condition, packet: Packet) -> str:
    return YES if packet.state in condition.values else NO


def _bridged(condition: Condition, packet: Packet) -> str:
    return YES if packet.bridged else NO


def _bridge(condition: Condition, packet: Packet) -> str:
    name = packet.in_if if condition.kind == "bridge_in" else packet.out_if
    return YES if packet.bridged and name in condition.values else NO


def _type(condition: Condition, packet: Packet) -> str:
    """What is forwarded is for nobody here."""
    return NO if set(condition.values) <= {"LOCAL", "BROADCAST"} else MAYBE


def _address(networks: Callable[[Packet], tuple[Network, ...] | None]) -> Callable[[Condition, Packet], str]:
    def check(condition: Condition, packet: Packet) -> str:
        candidates = networks(packet)
        wanted = _networks(condition.values)
        if wanted is None:
            return MAYBE
        if not wanted:
            return NO
        if any(one.prefixlen == 0 for one in wanted):
            return YES
        if not candidates:
            return MAYBE
        met = [_within(one, wanted) for one in candidates]
        return YES if all(one == YES for one in met) else NO if all(one == NO for one in met) else MAYBE

    return check


@lru_cache(maxsize=4096)
def _networks(values: tuple[str, ...]) -> tuple[Network, ...] | None:
    """The networks that a rule or a set names; None if one of them isn't understood."""
    try:
        return tuple(ipaddress.ip_network(one, strict=False) for one in values)
    except ValueError:
        return None


def _within(network: Network, wanted: Sequence[Network]) -> str:
    same = [one for one in wanted if one.version == network.version]
    if any(network.network_address in one and network.prefixlen >= one.prefixlen for one in same):
        return YES
    return MAYBE if any(network.overlaps(one) for one in same) else NO


_CHECKS: dict[str, Callable[[Condition, Packet], str]] = {
    "in": _interface(lambda packet: packet.in_if),
    "out": _interface(lambda packet: packet.out_if),
    "port_in": _port,
    "port_out": _port,
    "bridged": _bridged,
    "bridge_in": _bridge,
    "bridge_out": _bridge,
    "state": _state,
    "type": _type,
    "source": _address(lambda packet: packet.sources),
    "destination": _address(lambda packet: packet.destinations),
}
