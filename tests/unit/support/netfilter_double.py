# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel's tables and sets, with the programs that read and change them, as a runner."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence

from ansible_collections.matryoshka.host.plugins.module_utils import _netfilter_program as program
from ansible_collections.matryoshka.host.plugins.module_utils._command import CommandError, Result

Tables = dict[str, dict[str, list[str]]]
CHAINS = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "mangle": program.BUILT_IN,
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "raw": ("PREROUTING", "OUTPUT"),
}
TARGETS = ("ACCEPT", "DROP", "RETURN", "REJECT", "MARK", "MASQUERADE")


class KernelError(Exception):
    """What a program says when the kernel refuses."""


class Kernel:
    """Empty tables for both backends and families, and no sets.

    ``absent`` names programs that aren't installed.
    """

    def __init__(self, backend: str = "nft", absent: Sequence[str] = ()) -> None:
        self.backend, self.absent = backend, absent
        self.tables: dict[tuple[str, str], Tables] = {
            (kind, family): {} for kind in program.BACKENDS for family in program.FAMILIES
        }
        self.sets: dict[str, tuple[list[str], set[str]]] = {}
        self.changes: list[tuple[list[str], str]] = []
        self.files = {
            "/proc/net/if_inet6": "fe80 01 40 20 80 eth0\n",
            "/proc/net/ip_tables_names": "filter\n",
            "/proc/net/ip6_tables_names": "filter\n",
        }

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        result = self.answer(list(argv), stdin or "")
        if check and not result.ok:
            raise CommandError(argv, result)
        return result

    def answer(self, argv: list[str], text: str) -> Result:
        if argv[0] in self.absent:
            return Result(127, "", f"{argv[0]}: not found")
        if argv[0] == "unshare":
            return Result(0, self.canonical(json.loads(text)))
        if argv[:2] == ["iptables", "-V"]:
            return Result(
                0, "iptables v1.8.11 (nf_tables)\n" if self.backend == "nft" else "iptables v1.8.9\n"
            )
        try:
            if argv[0] == "ipset":
                return Result(0, self.ipset(argv, text))
            stem, backend, what = argv[0].split("-")
            key = (backend, "ipv6" if stem == "ip6tables" else "ipv4")
            if what == "save":
                return Result(0, as_saved(self.tables[key]))
            self.changes.append((argv, text))
            self.tables[key] = self.restored(self.tables[key], text)
        except KernelError as error:
            return Result(1, "", f"{argv[0]} v1.8.11 (nf_tables): {error}\n")
        return Result(0)

    def canonical(self, asked: dict[str, object]) -> str:
        inside = Kernel(self.backend, self.absent)
        try:
            found: dict[str, object] = dict(
                program.canonical(asked["data"], asked["backend"], asked["families"], inside)  # type: ignore[arg-type]
            )
        except program.Refused as error:
            found = {"refused": [error.where, error.text, error.said]}
        except program.Missing as error:
            found = {"missing": str(error)}
        return json.dumps(found)

    def ipset(self, argv: list[str], text: str) -> str:
        if argv[1:] == ["list", "-n"]:
            return "".join(f"{name}\n" for name in self.sets)
        if argv[1] == "save":
            return "".join(self.saved_set(name) for name in (argv[2:] or self.sets))
        self.changes.append((argv, text))
        for number, line in enumerate(text.splitlines(), 1):
            try:
                self.set_line(line.split(), exist="-exist" in argv)
            except KernelError as error:
                raise KernelError(f"Error in line {number}: {error}") from error
        return ""

    def set_line(self, words: list[str], exist: bool) -> None:
        word, name, rest = words[0], words[1], words[2:]
        if (word == "create") == (name in self.sets) and not (word == "create" and exist):
            raise KernelError(f"set {name}")
        if word == "create":
            self.sets[name] = (rest, set())
        elif word == "add":
            if "nonsense" in rest[0] or (" ".join(rest) in self.sets[name][1] and not exist):
                raise KernelError(f"Syntax error: {rest[0]}")
            self.sets[name][1].add(" ".join(rest))
        elif word == "swap":
            if self.sets[name][0][:3] != self.sets[rest[0]][0][:3]:
                raise KernelError("types differ")
            self.sets[name], self.sets[rest[0]] = self.sets[rest[0]], self.sets[name]
        elif word == "destroy":
            if self.used(name):
                raise KernelError(f"{name} is in use by a kernel component")
            del self.sets[name]

    def used(self, name: str) -> bool:
        return any(
            f" {name} " in f" {rule} "
            for tables in self.tables.values()
            for chains in tables.values()
            for rules in chains.values()
            for rule in rules
        )

    def saved_set(self, name: str) -> str:
        kind, entries = self.sets[name]
        lines = [f"create {name} {' '.join(kind)} hashsize 1024 bucketsize 12 initval 0x1"]
        return "".join(f"{line}\n" for line in (*lines, *(f"add {name} {entry}" for entry in entries)))

    def restored(self, tables: Tables, text: str) -> Tables:
        """All of it or nothing."""
        new = copy.deepcopy(tables)
        chains: dict[str, list[str]] = {}
        for line in text.splitlines():
            if line.startswith("*"):
                chains = new.setdefault(line[1:], {})
                for name in CHAINS[line[1:]]:
                    chains.setdefault(name, [])
            elif line.startswith(":"):
                chains[line[1:].split()[0]] = []
            elif line != "COMMIT":
                self.rule_line(chains, line)
        return new

    def rule_line(self, chains: dict[str, list[str]], line: str) -> None:
        letter, chain, rest = (*line.split(" ", 2), "")[:3]
        if chain not in chains:
            raise KernelError(f"no chain {chain}")
        if letter == "-F":
            chains[chain].clear()
        elif letter == "-X":
            inside = any(program.jump_of(rule) == chain for rules in chains.values() for rule in rules)
            if chains[chain] or inside:
                raise KernelError(f"chain {chain} is in use")
            del chains[chain]
        elif letter == "-I":
            number, rule = rest.split(" ", 1)
            chains[chain].insert(int(number) - 1, self.spelled(chains, rule))
        elif letter == "-A":
            chains[chain].append(self.spelled(chains, rest))
        elif rest in chains[chain]:
            chains[chain].remove(rest)
        else:
            raise KernelError(f"Bad rule (does a matching rule exist in chain {chain}?)")

    def spelled(self, chains: dict[str, list[str]], rule: str) -> str:
        target = program.jump_of(rule)
        if "nosuch" in rule:
            raise KernelError("Couldn't load match `nosuch'\n\nError occurred at line: 3\nTry `-h' for more")
        if target is not None and target not in chains and target not in TARGETS:
            raise KernelError(f"Chain '{target}' does not exist")
        for name in re.findall(r"--match-set (\S+)", rule):
            if name not in self.sets:
                raise KernelError(f"Set {name} doesn't exist.")
        return " ".join(rule.split())


def as_saved(tables: Tables) -> str:
    lines = ["# Generated by iptables-save v1.8.11 (nf_tables) on Wed Nov 25 22:30:23 2026"]
    for table, chains in tables.items():
        lines.append(f"*{table}")
        lines += [f":{chain} {'ACCEPT' if chain in CHAINS[table] else '-'} [0:0]" for chain in chains]
        lines += [f"-A {chain} {rule}" for chain, rules in chains.items() for rule in rules]
        lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)
