# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Slices: the kernel holds what was planned, and what a runner runs is below its slice, however many dolls down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._host_capacity import read_capacity
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._limits_apply import check_slices
from ansible_collections.matryoshka.host.plugins.module_utils._limits_kernel import (
    Held,
    Limited,
    SliceView,
    Tree,
    held,
    lacking_on_v1,
    read_tree,
    slice_path,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    SITE,
    Environment,
    Expect,
    Observed,
    Report,
)

_PARENT = re.compile(r"^PPid:\s+(\d+)$", re.MULTILINE)
#: Hierarchies of v1 whose limits slices have; in the others systemd makes no slices.
_LIMITING = ("cpu", "memory", "pids", "blkio")


def observe_limits(
    expect: Expect, environments: Iterable[Environment], view: View | None = None
) -> Limited | None:
    """What the kernel says, without starting a process; None where no slices were promised."""
    slices = expect.limits.get("slices") or []
    if not slices:
        return None
    check_slices(slices, "expect.limits.slices")
    view = view or View()
    tree, seen = read_tree(view), Limited()
    swap = read_capacity(view)["swap_bytes"]
    for one in slices:
        lacking = [limit for limit in lacking_on_v1(one, tree) if limit != "swap" or swap]
        seen.slices[str(one["name"])] = SliceView(held(one, tree, view), lacking)
    names = {one["runner"]: str(one["name"]) for one in slices}
    children = read_children(view)
    for environment in environments:
        name = names.get(environment.runner)
        if name is None or not environment.pid:
            continue
        family = list(descendants(environment.pid, children))
        places = {pid: view.text(f"/proc/{pid}/cgroup") or "" for pid in family}
        seen.processes[environment.name] = len(family)
        seen.outside[environment.name] = {
            pid: where for pid, text in places.items() if (where := outside(text, name, tree))
        }
    return seen


def read_children(view: View) -> dict[int, list[int]]:
    """Every process's children; one look at ``/proc``."""
    found: dict[int, list[int]] = {}
    for name in view.names("/proc"):
        parent = _PARENT.search(view.text(f"/proc/{name}/status") or "") if name.isdigit() else None
        if parent:
            found.setdefault(int(parent[1]), []).append(int(name))
    return found


def descendants(pid: int, children: Mapping[int, list[int]]) -> Iterator[int]:
    """``pid`` and everything below it: the first process of a namespace is the parent of all that lose theirs."""
    todo, known = [pid], set()
    while todo:
        one = todo.pop()
        if one not in known:
            known.add(one)
            yield one
            todo += children.get(one, [])


def outside(cgroup: str, name: str, tree: Tree) -> str:
    """Where a process is that isn't below slice ``name``, by its ``/proc/<pid>/cgroup``; empty if it is."""
    inside = f"/{slice_path(name)}/"
    for line in cgroup.splitlines():
        _number, _colon, rest = line.partition(":")
        names, _colon, path = rest.partition(":")
        matters = not names if tree.unified else any(one in _LIMITING for one in names.split(","))
        if matters and inside not in f"{path}/":
            return f"{names or 'cgroup'}: {path}"
    return ""


def check_limits_of_slices(report: Report, expect: Expect, seen: Observed) -> None:
    """Each limit that was planned is the kernel's, and each environment is in its slice."""
    limited = seen.limited
    if limited is None:
        return
    for one in expect.limits.get("slices") or []:
        _check_slice(report, one, limited.slices.get(str(one["name"]), SliceView()))
    runners = {str(one["name"]) for one in expect.runners}
    for environment in seen.environments:
        if environment.runner in runners and environment.name in limited.outside:
            _check_inside(report, environment, limited)


def _check_slice(report: Report, one: Mapping[str, Any], view: SliceView) -> None:
    name = str(one["name"])
    subject = f"slice {name}"
    for look in view.held:
        there = look.value is not None
        text = f"the kernel holds {look.value}" if there else "the kernel has no such limit"
        report.check(
            look.same,
            "limit_differs" if there else "limit_missing",
            subject,
            f"{look.limit} should be {look.wanted}, but {text} ({look.file})",
            f"systemctl start {name}; {SITE}" if there else _remedy(look, name),
        )
    if view.lacking:
        report.note(
            "limit_not_on_v1",
            subject,
            f"cgroup v1 has no {', '.join(view.lacking)} for a slice, so nothing keeps "
            f"{'it' if len(view.lacking) == 1 else 'them'}",
            "boot the host with systemd.unified_cgroup_hierarchy=1",
        )


def _remedy(look: Held, name: str) -> str:
    if look.limit == "io_weight":
        return "choose a scheduler that knows weights (bfq), or a kernel with CONFIG_BLK_CGROUP_IOCOST"
    return f"systemctl start {name}; look at /sys/fs/cgroup/cgroup.controllers; {SITE}"


def _check_inside(report: Report, environment: Environment, limited: Limited) -> None:
    found = limited.outside[environment.name]
    first = next(iter(found.items()), (0, ""))
    report.check(
        not found,
        "limit_escaped",
        f"runner {environment.runner}",
        f"{len(found)} of the {limited.processes[environment.name]} processes of its environment {environment.name} "
        f"are outside its slice, so that its limits don't hold for them: {first[0]} is in {first[1]}",
        f"systemctl reload matryoshka-runner@{environment.runner}.service",
    )
