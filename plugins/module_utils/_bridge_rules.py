# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packet filters as chains of rules with conditions that can be answered yes, no or maybe. Pure.

Two languages are read: ``iptables-save`` (of either backend) and ``nft -j list ruleset``. A
condition that isn't understood is kept as one that may or may not be met.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import Firewall

ACCEPT, DROP, RETURN, JUMP, GOTO, UNSURE, NEXT = "accept", "drop", "return", "jump", "goto", "unsure", "next"
UNKNOWN = "unknown"
#: Tables of iptables, in the order in which a forwarded packet meets them.
_TABLES = ("mangle", "filter", "security")
_TARGETS = {
    "ACCEPT": ACCEPT,
    "DROP": DROP,
    "REJECT": DROP,
    "RETURN": RETURN,
    "QUEUE": UNSURE,
    "NFQUEUE": UNSURE,
}
_KINDS = ("hash:ip", "hash:net", "hash:ip,port", "hash:net,port")
_WITH_ONE_VALUE = {
    "-i": "in",
    "-o": "out",
    "-s": "source",
    "-d": "destination",
    "--physdev-in": "port_in",
    "--physdev-out": "port_out",
    "--ctstate": "state",
    "--state": "state",
    "--dst-type": "type",
}
_ALONE = {
    "--physdev-is-bridged": ("bridged", ""),
    "--physdev-is-in": ("bridged", ""),
    "--physdev-is-out": ("bridged", ""),
}


@dataclass(frozen=True)
class Condition:
    """``kind`` of the packet against one of ``values``."""

    kind: str
    values: tuple[str, ...] = ()
    negated: bool = False


@dataclass(frozen=True)
class Rule:
    """If all conditions are met, ``verb`` (with the chain ``target``). ``text`` is how a person finds it."""

    conditions: tuple[Condition, ...]
    verb: str
    target: str
    text: str


@dataclass(frozen=True)
class BaseChain:
    """Where the kernel begins: a table's chain for forwarded packets, its policy and the table's chains."""

    label: str
    family: str
    policy: str
    chain: str
    chains: Mapping[str, Sequence[Rule]] = field(default_factory=dict)


def parse_policies(text: str) -> dict[str, dict[str, str]]:
    """The policies in the output of ``iptables-save``: table to chain to ``ACCEPT`` or ``DROP``."""
    found: dict[str, dict[str, str]] = {}
    table: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            table = found.setdefault(line[1:].strip(), {})
        elif line.startswith(":"):
            name, _ignored, rest = line[1:].partition(" ")
            if rest and not rest.startswith("-"):
                table[name] = rest.partition(" ")[0]
    return found


def parse_sets(text: str) -> dict[str, tuple[str, ...]]:
    """``ipset save``: the sets of addresses or networks by name, those with ports too (``10.0.0.53,tcp:53``).

    A set of another kind, or with exceptions, isn't one.
    """
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["create"] and len(words) > 2 and words[2] in _KINDS:
            found[words[1]] = []
        elif words[:1] == ["add"] and len(words) > 2 and words[1] in found:
            if "nomatch" in words[3:]:
                del found[words[1]]
            else:
                found[words[1]].append(words[2])
    return {name: tuple(entries) for name, entries in found.items()}


def iptables_chains(
    firewall: Firewall,
    policies: Mapping[str, Mapping[str, str]],
    family: str,
    backend: str,
    sets: Mapping[str, tuple[str, ...]] | None = None,
) -> list[BaseChain]:
    """The tables that forwarded packets pass.

    :param family: ``ip`` or ``ip6``.
    :param sets: what :func:`parse_sets` found.
    """
    program = "iptables" if family == "ip" else "ip6tables"
    found = []
    for table in _TABLES:
        chains = firewall.chains.get(table)
        if not chains or "FORWARD" not in chains:
            continue
        parsed = {
            name: [
                iptables_rule(rule, f"{program} -t {table} -A {name} {rule}", sets or {}) for rule in rules
            ]
            for name, rules in chains.items()
        }
        policy = policies.get(table, {}).get("FORWARD", "ACCEPT")
        found.append(
            BaseChain(
                f"{program} table {table}, chain FORWARD ({backend})",
                family,
                DROP if policy == "DROP" else ACCEPT,
                "FORWARD",
                parsed,
            )
        )
    return found


def iptables_rule(rule: str, text: str, sets: Mapping[str, tuple[str, ...]] | None = None) -> Rule:
    """A rule as ``iptables-save`` prints it, without ``-A CHAIN``."""
    sets = sets or {}
    try:
        words = shlex.split(rule)
    except ValueError:
        return Rule((Condition(UNKNOWN, (rule,)),), UNSURE, "", text)
    conditions, verb, target, index, negated = [], NEXT, "", 0, False
    while index < len(words):
        word, value = words[index], words[index + 1] if index + 1 < len(words) else ""
        if word == "!":
            negated, index = True, index + 1
            continue
        if word in ("-j", "-g", "--jump", "--goto"):
            verb, target = _iptables_verb(word, value)
            break
        if word in _ALONE:
            kind, content = _ALONE[word]
            conditions.append(Condition(kind, (content,), negated))
            index += 1
        elif word in _WITH_ONE_VALUE:
            conditions.append(Condition(_WITH_ONE_VALUE[word], tuple(value.split(",")), negated))
            index += 2
        elif word in ("-m", "--match", "--comment"):
            index += 2
        elif word == "--match-set":
            conditions.extend(_of_a_set(value, "".join(words[index + 2 : index + 3]), negated, sets))
            index += 3
        else:
            end = index + 1
            while end < len(words) and not words[end].startswith("-") and words[end] != "!":
                end += 1
            conditions.append(Condition(UNKNOWN, tuple(words[index:end]), negated))
            index = end
        negated = False
    return Rule(tuple(conditions), verb, target, text)


def _of_a_set(
    name: str, direction: str, negated: bool, sets: Mapping[str, tuple[str, ...]]
) -> list[Condition]:
    """A set as conditions; one with ports is met by some ports of its addresses, and by no other address."""
    first, *ports = direction.split(",")
    kind = {"src": "source", "dst": "destination"}.get(first)
    unknown = Condition(UNKNOWN, ("--match-set", name, direction), negated)
    if kind is None or name not in sets or (ports and negated):
        return [unknown]
    if not ports:
        return [Condition(kind, sets[name], negated)]
    return [Condition(kind, tuple(entry.partition(",")[0] for entry in sets[name])), unknown]


#: Targets of iptables' extensions that say nothing about what becomes of a packet.
_SAYS_NOTHING = frozenset(
    [
        "AUDIT",
        "CHECKSUM",
        "CLASSIFY",
        "CONNMARK",
        "CONNSECMARK",
        "CT",
        "DSCP",
        "ECN",
        "HL",
        "IDLETIMER",
        "LED",
        "LOG",
        "MARK",
        "NFLOG",
        "NOTRACK",
        "RATEEST",
        "SECMARK",
        "SET",
        "TCPMSS",
        "TCPOPTSTRIP",
        "TEE",
        "TOS",
        "TRACE",
        "TTL",
        "ULOG",
    ]
)


def _iptables_verb(word: str, value: str) -> tuple[str, str]:
    if word in ("-g", "--goto"):
        return GOTO, value
    if value in _SAYS_NOTHING:
        return NEXT, ""
    return (_TARGETS[value], "") if value in _TARGETS else (JUMP, value)


def nft_chains(text: str, without: Sequence[tuple[str, str]] = ()) -> list[BaseChain]:
    """Base chains for forwarded packets from ``nft -j list ruleset``.

    :param without: tables (family, name) that are known from elsewhere: those that iptables keeps in nft.
    """
    try:
        entries = json.loads(text or "{}").get("nftables", [])
    except (ValueError, AttributeError):
        return []
    chains: dict[tuple[str, str], dict[str, list[Rule]]] = {}
    bases: list[dict[str, Any]] = []
    for entry in entries:
        if isinstance(entry.get("chain"), dict):
            chain = entry["chain"]
            chains.setdefault((chain["family"], chain["table"]), {}).setdefault(chain["name"], [])
            if chain.get("hook") == "forward" and chain.get("type", "filter") == "filter":
                bases.append(chain)
        elif isinstance(entry.get("rule"), dict):
            rule = entry["rule"]
            rules = chains.setdefault((rule["family"], rule["table"]), {}).setdefault(rule["chain"], [])
            label = f"nft rule {rule['family']} {rule['table']} {rule['chain']} handle {rule.get('handle')}"
            rules.append(nft_rule(rule.get("expr") or [], label, rule["family"] == "bridge"))
    bases.sort(key=_priority)
    return [
        BaseChain(
            f"nft chain {chain['family']} {chain['table']} {chain['name']}",
            chain["family"],
            DROP if chain.get("policy") == "drop" else ACCEPT,
            chain["name"],
            chains[chain["family"], chain["table"]],
        )
        for chain in bases
        if (chain["family"], chain["table"]) not in without
    ]


def _priority(chain: Mapping[str, Any]) -> int:
    value = chain.get("prio", 0)
    return value if isinstance(value, int) else 0


def nft_rule(expressions: Sequence[Mapping[str, Any]], text: str, bridge: bool = False) -> Rule:
    """A rule of ``nft -j``.

    :param bridge: of the family bridge, where interfaces are a bridge's ports.
    """
    conditions: list[Condition] = []
    for expression in expressions:
        for name, content in expression.items():
            if name == "match":
                condition = _nft_condition(content)
                ports = {"in": "port_in", "out": "port_out"} if bridge else {}
                conditions.append(replace(condition, kind=ports.get(condition.kind, condition.kind)))
            elif name in (ACCEPT, DROP, RETURN):
                return Rule(tuple(conditions), name, "", text)
            elif name == "reject":
                return Rule(tuple(conditions), DROP, "", text)
            elif name in (JUMP, GOTO):
                return Rule(tuple(conditions), name, str(content.get("target")), text)
            elif name in ("vmap", "queue", "xt"):
                return Rule(tuple(conditions), UNSURE, "", text)
            elif name in ("limit", "quota", "ct count", "connlimit"):
                conditions.append(Condition(UNKNOWN, (name,)))
    return Rule(tuple(conditions), NEXT, "", text)


def _nft_condition(match: Mapping[str, Any]) -> Condition:
    left, right = match.get("left"), match.get("right")
    values = tuple(_nft_values(right))
    negated = match.get("op") == "!="
    kind = _nft_kind(left) if match.get("op") in ("==", "!=", "in") else UNKNOWN
    if UNKNOWN in values or not values:
        kind = UNKNOWN
    if kind in ("in", "out"):
        values = tuple(f"{one[:-1]}+" if one.endswith("*") else one for one in values)
    if kind == "state":
        values = tuple(one.upper() for one in values)
    return Condition(kind, values, negated)


def _nft_kind(left: Any) -> str:
    if not isinstance(left, Mapping):
        return UNKNOWN
    meta, ct, payload = (left.get(name) or {} for name in ("meta", "ct", "payload"))
    if isinstance(payload, Mapping) and payload.get("protocol") in ("ip", "ip6"):
        return {"saddr": "source", "daddr": "destination"}.get(str(payload.get("field")), UNKNOWN)
    if isinstance(ct, Mapping) and ct.get("key") == "state":
        return "state"
    key = str(meta.get("key")) if isinstance(meta, Mapping) else ""
    return {
        "iifname": "in",
        "iif": "in",
        "oifname": "out",
        "oif": "out",
        "ibrname": "bridge_in",
        "obrname": "bridge_out",
    }.get(key, UNKNOWN)


def _nft_values(right: Any) -> Iterator[str]:
    """The plain values of the right side; one that isn't understood is :data:`UNKNOWN`."""
    if isinstance(right, str):
        yield UNKNOWN if right.startswith("@") else right
    elif isinstance(right, list):
        for one in right:
            yield from _nft_values(one)
    elif isinstance(right, Mapping) and "set" in right:
        yield from _nft_values(right["set"])
    elif isinstance(right, Mapping) and "prefix" in right:
        yield f"{right['prefix'].get('addr')}/{right['prefix'].get('len')}"
    else:
        yield UNKNOWN
