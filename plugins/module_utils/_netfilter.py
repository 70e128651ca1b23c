# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Firewall rules as data: what module ``netfilter_rules`` takes, checked and in the form that is saved."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._netfilter_program import (
    FAMILIES,
    PATH,
    owns_chain,
)

TABLES = ("filter", "mangle", "nat", "raw")
SET_TYPES = ("hash:ip", "hash:net", "hash:ip,port", "hash:net,port", "hash:net,net")
SET_FAMILIES = {"inet": 4, "inet6": 6}
CHAIN_LENGTH = 28
SET_LENGTH = 31
FAMILY_LIST = {"type": "list", "elements": "str", "choices": list(FAMILIES)}
TABLE = {"type": "str", "default": "filter", "choices": list(TABLES)}

ARGUMENTS: dict[str, Any] = {
    "owner": {"type": "str", "default": "matryoshka"},
    "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
    "backend": {"type": "str", "default": "auto", "choices": ["auto", "nft", "legacy"]},
    "ipv6": {"type": "str", "default": "auto", "choices": ["auto", "true", "false"]},
    "path": {"type": "path", "default": PATH},
    "sets": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "type": {"type": "str", "default": "hash:net", "choices": list(SET_TYPES)},
            "family": {"type": "str", "default": "inet", "choices": list(SET_FAMILIES)},
            "entries": {"type": "list", "elements": "str", "default": []},
            "comment": {"type": "str"},
        },
    },
    "chains": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "table": TABLE,
            "families": FAMILY_LIST,
            "rules": {"type": "list", "elements": "raw", "default": []},
        },
    },
    "hooks": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "chain": {"type": "str", "required": True},
            "jump": {"type": "str", "required": True},
            "table": TABLE,
            "families": FAMILY_LIST,
            "match": {"type": "str", "default": ""},
            "create": {"type": "bool", "default": False},
            "position": {"type": "str", "default": "first", "choices": ["first", "last"]},
        },
    },
}


def parse(parameters: Mapping[str, Any], ipv6: str = "on") -> dict[str, Any]:
    """The module's parameters as the data that the boot program reads.

    :param ipv6: what the host has of IPv6, as ``ipv6_state`` says.
    :raises InputError: a name that isn't the owner's, is there twice or is too long; a rule or entry
        that can't be one; a hook to no chain; IPv6 on a host without it.
    """
    owner = parameters["owner"]
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,15}", owner):
        raise InputError("owner", owner, "a small letter, then up to 15 small letters, digits and '_'")
    _check_ipv6(parameters, ipv6)
    chains = [_chain(index, chain, owner) for index, chain in enumerate(parameters["chains"])]
    declared: dict[tuple[str, str, str], int] = {}
    for index, chain in enumerate(chains):
        for family in chain["families"] or FAMILIES:
            key = (chain["table"], chain["name"], family)
            if key in declared:
                first = f"chains[{declared[key]}]"
                raise InputError(
                    f"chains[{index}].name", chain["name"], f"each chain once; {first} is the same"
                )
            declared[key] = index
    sets = [_set(index, item, owner) for index, item in enumerate(parameters["sets"])]
    names = [item["name"] for item in sets]
    for index, name in enumerate(names):
        if name in names[:index]:
            first = f"sets[{names.index(name)}]"
            raise InputError(f"sets[{index}].name", name, f"each set once; {first} is the same")
    hooks = [_hook(index, hook, owner, declared) for index, hook in enumerate(parameters["hooks"])]
    return {
        "owner": owner,
        "backend": parameters["backend"],
        "ipv6": parameters["ipv6"],
        "sets": sets,
        "chains": chains,
        "hooks": hooks,
    }


def _check_ipv6(parameters: Mapping[str, Any], state: str) -> None:
    if parameters["ipv6"] == "false":
        why = "ipv4, because ipv6 is false"
    elif state != "on":
        lack = "has no IPv6" if state == "none" else "has IPv6 disabled"
        if parameters["ipv6"] == "true":
            raise InputError("ipv6", True, f"auto or false, because this host {lack}")
        why = f"ipv4, because this host {lack}"
    else:
        return
    for kind in ("chains", "hooks"):
        for index, item in enumerate(parameters[kind]):
            if "ipv6" in (item.get("families") or ()):
                raise InputError(f"{kind}[{index}].families", item["families"], why)


def _chain(index: int, chain: Mapping[str, Any], owner: str) -> dict[str, Any]:
    variable, name = f"chains[{index}]", chain["name"]
    prefix = f"{owner.upper()}-"
    if not re.fullmatch(rf"{prefix}[A-Za-z0-9_.-]+", name) or len(name) > CHAIN_LENGTH:
        allowed = f"{prefix} and letters, digits, '.', '_', '-', at most {CHAIN_LENGTH} characters in all"
        raise InputError(f"{variable}.name", name, allowed)
    rules = [_rule(f"{variable}.rules[{number}]", rule) for number, rule in enumerate(chain["rules"])]
    return {"table": chain["table"], "name": name, "families": chain.get("families"), "rules": rules}


def _rule(variable: str, rule: object) -> dict[str, Any]:
    text, families = (rule, None) if isinstance(rule, str) else (None, None)
    if isinstance(rule, Mapping) and set(rule) <= {"rule", "families"}:
        text, families = rule.get("rule"), rule.get("families")
    if not isinstance(text, str) or not text.strip():
        raise InputError(variable, rule, "a rule without '-A CHAIN', or {rule: ..., families: [ipv4]}")
    if families is not None and (
        not isinstance(families, Sequence) or not families or not set(families) <= set(FAMILIES)
    ):
        raise InputError(f"{variable}.families", families, "a list of ipv4 and ipv6")
    return {"rule": _line(variable, text), "families": families}


def _line(variable: str, text: str) -> str:
    if not text.isprintable():
        raise InputError(variable, text, "one line of printable characters")
    return text.strip()


def _set(index: int, item: Mapping[str, Any], owner: str) -> dict[str, Any]:
    variable, name = f"sets[{index}]", item["name"]
    if not re.fullmatch(rf"{owner}-[A-Za-z0-9_.-]+", name) or len(name) > SET_LENGTH:
        allowed = f"{owner}- and letters, digits, '.', '_', '-', at most {SET_LENGTH} characters in all"
        raise InputError(f"{variable}.name", name, allowed)
    entries = [
        _entry(f"{variable}.entries[{number}]", entry, item["type"], item["family"])
        for number, entry in enumerate(item["entries"])
    ]
    return {
        "name": name,
        "type": item["type"],
        "family": item["family"],
        "entries": entries,
        "comment": item.get("comment"),
    }


def _entry(variable: str, entry: str, kind: str, family: str) -> str:
    version = SET_FAMILIES[family]
    example = {4: "192.0.2.0/24", 6: "2001:db8::/32"}[version]
    words = _line(variable, entry).split()
    parts = words[0].split(",") if words else []
    fields = kind.removeprefix("hash:").split(",")
    shown = ",".join("tcp:443" if field == "port" else example for field in fields)
    if words[1:] not in ([], ["nomatch"]) or len(parts) != len(fields):
        raise InputError(variable, entry, f"an entry of {kind} such as {shown}")
    for part, field in zip(parts, fields, strict=True):
        if field != "port" and not _is_range(part, version):
            raise InputError(variable, entry, f"an IPv{version} address or network, such as {shown}")
    return " ".join(words)


def _is_range(text: str, version: int) -> bool:
    """Whether ``text`` is an address, a network, or two addresses with a dash."""
    try:
        first, dash, last = text.partition("-")
        if dash:
            begin, end = ipaddress.ip_address(first), ipaddress.ip_address(last)
            return begin.version == end.version == version and int(begin) <= int(end)
        return ipaddress.ip_network(text, strict=False).version == version
    except ValueError:
        return False


def _hook(
    index: int, hook: Mapping[str, Any], owner: str, declared: Mapping[tuple[str, str, str], int]
) -> dict[str, Any]:
    variable, chain, jump, table = f"hooks[{index}]", hook["chain"], hook["jump"], hook["table"]
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", chain) or len(chain) > CHAIN_LENGTH or owns_chain(owner, chain):
        allowed = f"a chain of the host or of another, not of {owner}, such as FORWARD"
        raise InputError(f"{variable}.chain", chain, allowed)
    there = [family for family in FAMILIES if (table, jump, family) in declared]
    families = hook.get("families")
    if not there or not set(families or ()) <= set(there):
        known = sorted({name for kind, name, family in declared if kind == table})
        allowed = f"one of chains in table {table} and of the hook's families: {', '.join(known) or 'none'}"
        raise InputError(f"{variable}.jump", jump, allowed)
    return {
        "table": table,
        "chain": chain,
        "jump": jump,
        "families": families or (None if len(there) == len(FAMILIES) else there),
        "match": _line(f"{variable}.match", hook["match"]) if hook["match"] else "",
        "create": hook["create"],
        "position": hook.get("position") or "first",
    }
