# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares owned firewall rules with what is live, tells the difference, and applies it."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _netfilter_program as program
from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._files import (
    Attributes,
    attributes_of,
    difference,
    read_bytes,
    real_path,
    write_atomic,
)
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._netfilter import ARGUMENTS, parse
from ansible_collections.matryoshka.host.plugins.module_utils._netfilter_program import Live, Plan, Tables

__all__ = ["ARGUMENTS", "answer"]

MODE = 0o600
NOTHING: dict[str, Any] = {
    "backend": None,
    "both_loaded": False,
    "families": [],
    "chains": [],
    "hooks": [],
    "sets": [],
    "moved": [],
    "removed": [],
    "diff": [],
    "warnings": [],
}


def answer(
    parameters: Mapping[str, Any], check: bool, run: Runner, view: View | None = None, locks: str = "/run"
) -> dict[str, Any]:
    """The result of module ``netfilter_rules`` for its parameters (``ARGUMENTS``).

    :param check: change nothing. What isn't installed yet is then no error.
    :param locks: the directory of the lock.
    :raises HostError: a value that is refused, or what couldn't be done.
    """
    view = view or View()
    data = parse(parameters, program.ipv6_state(view.text))
    absent = parameters["state"] == "absent"
    file = _File(parameters["path"], None if absent else data)
    if absent:
        data = program.emptied(data)
    with _errors(), contextlib.nullcontext() if check else program.locked(data["owner"], locks):
        try:
            plan = program.make_plan(data, run, view.text, inner())
        except program.Missing as error:
            if not check and not absent:
                raise
            warnings = [] if absent else [f"{error}; all rules would be new"]
            result = {**NOTHING, "changed": not absent, "warnings": warnings}
        else:
            result = {**told(data["owner"], plan), "warnings": _warnings(data, plan, strict=not check)}
            if not check:
                program.carry_out(data, plan, run, view.text)
        if file.differs and not check:
            file.save()
    result["file_differs"] = file.differs
    if file.differs:
        result["diff"] = result["diff"] or [file.diff()]
        result["changed"] = True
    return result


def inner() -> list[str]:
    """The command line of the boot program's part for an empty namespace, wherever its source lies."""
    source = inspect.getsource(program)
    return [sys.executable, "-I", "-c", source, "canonical"]


class _File:
    """The file that the boot program reads; ``data`` None for none."""

    def __init__(self, path: str | None, data: Mapping[str, Any] | None) -> None:
        self.path = real_path("path", path) if path else None
        self.present = read_bytes(self.path) if self.path else None
        self.wanted: bytes | None = None
        if data is not None and self.path:
            self.wanted = (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()
        self.attributes = attributes_of(self.path) if self.path else None

    @property
    def differs(self) -> bool:
        open_to_others = self.attributes is not None and self.attributes.mode != MODE
        return self.present != self.wanted or (self.wanted is not None and open_to_others)

    def save(self) -> None:
        if self.path and self.wanted is not None:
            os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
            write_atomic(self.path, self.wanted, Attributes(mode=MODE))
        elif self.path:
            os.unlink(self.path)

    def diff(self) -> dict[str, Any]:
        before, after = (text if text is None else text.decode() for text in (self.present, self.wanted))
        return difference(self.path or "", before, after)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except program.Refused as error:
        allowed = f"what the kernel and its programs take; they said: {error.said}; nothing was changed"
        raise InputError(error.where, error.text, allowed) from error
    except program.Failed as error:
        raise HostError(str(error)) from error
    except OSError as error:
        raise HostError(f"{error.filename}: {error.strerror}") from error


def _warnings(data: Mapping[str, Any], plan: Plan, strict: bool) -> list[str]:
    """What a person should know.

    :param strict: refuse hooks in chains that aren't there.
    """
    found = []
    for family, table, chain in plan.missing:
        index, allowed = next(
            (index, f"a chain that is in table {table} of {family}, or create: true")
            for index, hook in enumerate(data["hooks"])
            if (hook["table"], hook["chain"]) == (table, chain) and program.of_family(hook, family)
        )
        if strict:
            raise InputError(f"hooks[{index}].chain", chain, f"{allowed}; nothing was changed")
        found.append(f"hooks[{index}].chain: {chain} isn't there now; needed: {allowed}")
    if plan.live.both_loaded:
        other = program.BACKENDS[1 - program.BACKENDS.index(plan.backend)]
        found.append(
            f"Rules are loaded in both backends of iptables: these go to {plan.backend}, but {other} has"
            f" rules too, and a packet has to pass both. iptables-{other}-save shows them."
        )
    return found


def told(owner: str, plan: Plan) -> dict[str, Any]:
    """The module's result for a plan."""
    chains: list[dict[str, Any]] = []
    hooks: list[dict[str, Any]] = []
    removed: list[str] = []
    diff = []
    for key in dict.fromkeys((*plan.live.tables, *plan.wanted.tables)):
        backend, family = key
        live, wanted = plan.live.tables.get(key, {}), plan.wanted.tables.get(key, {})
        before, after = owned_part(owner, live, wanted, plan.wanted.last)
        if before != after:
            name = program.program(backend, family, "save")
            diff.append(difference(name, as_text(before), as_text(after)))
        for table in dict.fromkeys((*live, *wanted)):
            have, want = live.get(table, {}), wanted.get(table, {})
            place = {"family": family, "table": table}
            for chain in dict.fromkeys((*have, *want)):
                if not program.owns_chain(owner, chain):
                    if backend == plan.backend:
                        hooks += [
                            {**place, **hook} for hook in _hooks(owner, chain, have, want, plan.wanted.last)
                        ]
                elif chain in want:
                    state = _state(have.get(chain), want[chain])
                    chains.append({**place, "name": chain, "rules": len(want[chain]), "state": state})
                else:
                    removed.append(f"{name_of(backend, family)} {table} {chain}")
    sets, set_diff = _sets(plan.live, plan.wanted)
    removed += [f"ipset {name}" for name in plan.live.sets if name not in plan.wanted.sets]
    return {
        "changed": bool(plan.steps),
        "backend": plan.backend,
        "both_loaded": plan.live.both_loaded,
        "families": list(plan.families),
        "chains": chains,
        "hooks": hooks,
        "sets": sets,
        "moved": [
            f"{hook['family']} {hook['table']} {hook['chain']} -> {hook['jump']}"
            for hook in hooks
            if hook["state"] == "moved"
        ],
        "removed": removed,
        "diff": diff + set_diff,
    }


def name_of(backend: str, family: str) -> str:
    """``iptables-nft`` and the like."""
    return program.program(backend, family, "save").removesuffix("-save")


def _state(have: object, want: object) -> str:
    return "created" if have is None else "present" if have == want else "changed"


def _hooks(
    owner: str,
    chain: str,
    live: Mapping[str, list[str]],
    wanted: Mapping[str, list[str]],
    last: frozenset[str],
) -> Iterator[dict[str, Any]]:
    have, want = live.get(chain, []), wanted.get(chain, [])
    others = [rule for rule in have if not program.is_hook(owner, rule)]
    for position, rules in zip(("first", "last"), program.split_hooks(want, last), strict=True):
        end = len(rules) if position == "first" else len(have)
        placed = have[end - len(rules) : end] == rules
        for rule in rules:
            state = "present" if placed else "moved" if rule in have else "created"
            hook = {"chain": chain, "jump": program.jump_of(rule), "rule": rule, "position": position}
            in_the_way = others[0 if position == "first" else -1] if state == "moved" and others else None
            yield {**hook, "state": state, "in_the_way": in_the_way}
    for rule in have:
        if program.is_hook(owner, rule) and rule not in want:
            hook = {"chain": chain, "jump": program.jump_of(rule), "rule": rule, "position": None}
            yield {**hook, "state": "removed", "in_the_way": None}


def _sets(live: Live, wanted: Live) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    sets, diff = [], []
    for name in dict.fromkeys((*live.sets, *wanted.sets)):
        have, want = live.sets.get(name), wanted.sets.get(name)
        before, after = (_set_text(name, item) for item in (have, want))
        if before != after:
            diff.append(difference(f"ipset {name}", before, after))
        if want is not None:
            old = have.entries if have else frozenset()
            sets.append(
                {
                    "name": name,
                    "entries": len(want.entries),
                    "added": len(want.entries - old),
                    "removed": len(old - want.entries),
                    "state": _state(before, after),
                }
            )
    return sets, diff


def _set_text(name: str, item: program.Set | None) -> str | None:
    if item is None:
        return None
    entries = "".join(f"add {name} {entry}\n" for entry in sorted(item.entries))
    return f"create {name} {item.kind} family {item.family}\n{entries}"


def owned_part(
    owner: str, live: Tables, wanted: Tables, last: frozenset[str] = frozenset()
) -> tuple[Tables, Tables]:
    """Owned chains, and chains with jumps to them, whole: as they are, and as they will be."""
    before: Tables = {}
    after: Tables = {}
    for table in dict.fromkeys((*live, *wanted)):
        have, want = live.get(table, {}), wanted.get(table, {})
        for chain in dict.fromkeys((*have, *want)):
            old, new = have.get(chain), want.get(chain)
            if not program.owns_chain(owner, chain):
                others = [rule for rule in old or () if not program.is_hook(owner, rule)]
                if not new and others == (old or []):
                    continue
                first, final = program.split_hooks(new or (), last)
                new = [*first, *others, *final]
            if old is not None:
                before.setdefault(table, {})[chain] = old
            if new is not None:
                after.setdefault(table, {})[chain] = new
    return before, after


def as_text(tables: Tables) -> str:
    """As ``iptables-save`` has it, without counters."""
    lines: list[str] = []
    for table, chains in tables.items():
        lines += [f"*{table}", *(f":{chain}" for chain in chains)]
        lines += [f"-A {chain} {rule}".strip() for chain, rules in chains.items() for rule in rules]
    return "".join(f"{line}\n" for line in lines)
