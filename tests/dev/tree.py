#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows a person what a site run has made: the dolls as a tree, the job, and what to do next."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

COLUMNS = {
    "storage_driver": "storage driver",
    "backing_filesystem": "on",
    "disk": "disk",
    "quota": "quota",
    "subnet": "subnet",
    "mtu": "MTU",
    "lan": "LAN",
    "state": "state",
}
OPTIONAL = ("disk", "quota", "lan")
"""Columns that are shown only if some doll has something there."""

SITE_HINTS = """
Look inside      ./dev ssh                       the host
                 ./dev shell {runner:<18}  the job environment of runner {runner}
Run a job        ./dev job FILE [--runner NAME]  a script of yours
Ask again        ./dev run ansible-playbook -i "$(./dev inventory)" playbooks/verify.yml --limit {host}
On your host     ./dev site -i INVENTORY         or: ansible-playbook -i INVENTORY playbooks/site.yml
Remove it all    ./dev down
"""

HOST_HINTS = """
Look inside      ssh to the host, then: sudo matryoshka status; sudo matryoshka shell {runner}
Run a job        there: sudo matryoshka job FILE [--runner NAME]
Ask again        ansible-playbook -i INVENTORY playbooks/verify.yml
Take it away     ansible-playbook -i INVENTORY playbooks/remove.yml
"""


def rows(
    nodes: Sequence[Mapping[str, Any]], keys: Sequence[str], prefix: str = "", top: bool = True
) -> Iterator[tuple[str, ...]]:
    """A row of cells for each doll, the first cell with the tree's branches."""
    for number, node in enumerate(nodes):
        last = number == len(nodes) - 1
        branch = "" if top else "└─ " if last else "├─ "
        name = f"{prefix}{branch}{node['level']} {node['name']}"
        yield (name, *(cell(node.get(key)) for key in keys))
        below = "" if top else "   " if last else "│  "
        yield from rows(node.get("children") or [], keys, prefix + below, top=False)


def cell(value: Any) -> str:
    """A value of a doll for people; a quota is what is used and what may be."""
    if isinstance(value, Mapping):
        used, limit = value["used"] / (1 << 30), value["limit"] / (1 << 30)
        return f"{used:.1f} of {limit:.1f} GiB"
    return "-" if value is None else str(value)


def has(nodes: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Whether any of the dolls has a value there."""
    return any(node.get(key) is not None or has(node.get("children") or [], key) for node in nodes)


def draw(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The dolls as lines of text, one below the other, in columns."""
    keys = [key for key in COLUMNS if key not in OPTIONAL or has(nodes, key)]
    table = [("", *(COLUMNS[key] for key in keys)), *rows(nodes, keys)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
    return [line.rstrip() for line in lines]


def runners(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the runners in the tree."""
    found = [str(node["name"]) for node in nodes if node["level"] == "runner"]
    for node in nodes:
        found += runners(node.get("children") or [])
    return found


def job_lines(states: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the runners' state files say of their last jobs and of how long a change of environment took."""
    lines = []
    for state in states:
        last, timings = state.get("last_job"), state.get("timings") or {}
        if last:
            code = last.get("exit_code")
            lines.append(f"runner {state['runner']}: job {last['id']} {last.get('status')}, exit code {code}")
        for name, seconds in sorted(timings.items()):
            if isinstance(seconds, int | float):
                text = name.removesuffix("_seconds").replace("_", " ")
                lines.append(f"runner {state['runner']}: {text} {seconds:.1f} s")
        environment = state.get("environment")
        if environment:
            ready = environment.get("ready_seconds")
            after = f", ready after {ready:.1f} s" if isinstance(ready, int | float) else ""
            lines.append(f"runner {state['runner']}: next environment {environment['container']}{after}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("record", type=Path, help="JSON that the callback brief wrote")
    parser.add_argument("--states", type=Path, help="JSON of `matryoshka status --json`")
    parser.add_argument("--job", help="how the job ended, for people")
    parser.add_argument("--site", action="store_true", help="the host is ./dev's own")
    args = parser.parse_args()
    record = json.loads(args.record.read_text(encoding="utf-8"))
    names: list[str] = []
    for host, found in record["hosts"].items():
        tree = found.get("tree")
        print()
        if not tree:
            print(f"{host}: nothing verified")
            continue
        print("\n".join(draw(tree)))
        names += runners(tree)
    if args.job:
        print(f"\n{args.job}")
    if args.states:
        print("\n".join(job_lines(json.loads(args.states.read_text(encoding="utf-8")))))
    hints = SITE_HINTS if args.site else HOST_HINTS
    host = next(iter(record["hosts"]), "site")
    print(hints.format(runner=(names or ["NAME"])[0], host=host).rstrip())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
