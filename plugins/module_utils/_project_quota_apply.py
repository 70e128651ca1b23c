# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives directories their quotas: read all, plan all, then act or stop."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _files
from ansible_collections.matryoshka.host.plugins.module_utils import _project_quota as quota
from ansible_collections.matryoshka.host.plugins.module_utils import _project_quota_btrfs as btrfs
from ansible_collections.matryoshka.host.plugins.module_utils import _project_quota_tree as tree
from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._project_quota import Place, Step
from ansible_collections.matryoshka.host.plugins.module_utils._project_quota_files import (
    NAMES,
    PROJECTS,
    Project,
    Registry,
    new_project,
)
from ansible_collections.matryoshka.host.plugins.module_utils._project_quota_read import (
    THIS_HOST,
    Reader,
    System,
)
from ansible_collections.matryoshka.host.plugins.module_utils._quotactl import Limits

ARGUMENTS: dict[str, Any] = {
    "quotas": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "size": {"type": "str"},
            "soft": {"type": "str"},
            "inodes": {"type": "int"},
        },
    },
    "owner": {"type": "str", "default": "matryoshka"},
    "orphans": {"type": "bool", "default": True},
}


@dataclass(frozen=True)
class Orphan:
    """A project of the owner that is no longer asked for. ``kept`` says why it can't be lifted now."""

    project: Project
    place: Place | None
    kept: str = ""


def answer(params: Mapping[str, Any], check: bool, run: Runner, system: System = THIS_HOST) -> dict[str, Any]:
    """The result of module ``project_quotas`` for its parameters (:data:`ARGUMENTS`), with ``warnings``.

    :raises HostError: before anything has changed, unless the kernel or a program refuses what was planned.
    """
    try:
        return _answer(params, check, run, Reader(quota.parse_owner(params["owner"]), system))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise HostError(f"quotas: {where}{error.strerror or error}") from error


def _answer(params: Mapping[str, Any], check: bool, run: Runner, reader: Reader) -> dict[str, Any]:
    steps = _plan(params["quotas"], reader)
    orphans = _orphans(steps, reader) if params["orphans"] else []
    lifted = [orphan for orphan in orphans if not orphan.kept]
    registry = reader.registry.changed(
        [step.project for step in steps if step.register],
        [orphan.project for orphan in lifted]
        + [one for step in steps if step.register and (one := step.place.registered) is not None],
    )
    changed = any(step.changed for step in steps) or bool(lifted)
    targets = [_files.real_path(path, reader.view.path(path)) for path in (PROJECTS, NAMES)]
    marked = skipped = 0
    if changed and not check:
        marked, skipped = _apply(steps, lifted, reader, run)
        _write(reader.registry.names, registry.names, targets[1])
        _write(reader.registry.projects, registry.projects, targets[0])
    after = reader.again() if changed and not check else reader
    return {
        "changed": changed,
        "quotas": [_reported(step, after, check) for step in steps],
        "lifted": [orphan.project.path for orphan in lifted],
        "marked": marked,
        "warnings": _warnings(steps, orphans, skipped),
        "diff": _differences(steps, lifted, reader.registry, registry) if changed else [],
    }


def _plan(entries: Sequence[Mapping[str, Any]], reader: Reader) -> list[Step]:
    steps: list[Step] = []
    registry = reader.registry
    for wanted in quota.parse_quotas(entries):
        place = reader.place(wanted.path, contents=True)
        quota.require_plain(wanted.path, place.path)
        if any(place.path == step.place.path for step in steps):
            raise InputError("quotas.path", wanted.path, f"each directory once; it is a link to {place.path}")
        stranger = registry.stranger(reader.owner, place.path)
        if stranger is not None:
            raise HostError(
                f"{wanted.path}: {PROJECTS} gives it the project {stranger}, whose name in {NAMES} doesn't begin"
                f" with {reader.owner}-; remove that line, or leave the directory out"
            )
        project = place.registered or reader.own(place) or _new(reader, place, registry)
        registry = registry.changed([project])
        steps.append(quota.plan(wanted, place, project))
    return steps


def _new(reader: Reader, place: Place, registry: Registry) -> Project:
    return new_project(
        reader.owner, place.path, registry, lambda first, last: reader.used(place, first, last)
    )


def _orphans(steps: Sequence[Step], reader: Reader) -> list[Orphan]:
    wanted = {step.place.path for step in steps}
    found = []
    for path, project in reader.registry.owned(reader.owner).items():
        if path in wanted:
            continue
        try:
            place = reader.place(path)
        except HostError as error:
            found.append(Orphan(project, None, str(error)))
            continue
        kept = "" if place.state.accounting else f"it lies on {place.filesystem}: {place.state.why}"
        found.append(Orphan(project, place, kept))
    return found


def _apply(steps: Sequence[Step], lifted: Sequence[Orphan], reader: Reader, run: Runner) -> tuple[int, int]:
    """Limits first, so that a tree is held while it is walked. Files are written after this, so that a walk that
    breaks off is done again."""
    marked = skipped = 0
    _enable(steps, run)
    for step in steps:
        if step.changed:
            walked = _give(step, reader, run)
            marked, skipped = marked + walked.marked, skipped + walked.skipped
    for orphan in lifted:
        _lift(orphan, reader, run)
    return marked, skipped


def _enable(steps: Sequence[Step], run: Runner) -> None:
    """Switch counting on, once for each btrfs: the simple kind only where nothing has to be counted already."""
    for mount_point in {step.place.mount_point for step in steps if step.enable}:
        here = [step for step in steps if step.place.mount_point == mount_point]
        btrfs.enable(run, mount_point, all(step.place.simple and step.place.empty for step in here))
    for mount_point in {step.place.mount_point for step in steps if step.rescan}:
        btrfs.rescan(run, mount_point)


def _give(step: Step, reader: Reader, run: Runner) -> tree.Walked:
    place, walked = step.place, tree.Walked()
    if step.subvolume:
        btrfs.make_subvolume(run, place.path, place.exists)
    elif step.make:
        os.makedirs(place.path, mode=0o755, exist_ok=True)
    if not place.by_project:
        if step.limit:
            btrfs.set_limit(run, place.path, step.limits)
        return walked
    if step.limit:
        reader.kernel.set_project_limits(place.device, step.project.id, step.limits, place.mount_point)
    if step.mark:
        replaced = {0, place.id, place.parent_id}
        walked = tree.mark(place.path, step.project.id, replaced, reader.kernel)
    return walked


def _lift(orphan: Orphan, reader: Reader, run: Runner) -> None:
    place, project = orphan.place, orphan.project
    if place is None:
        return
    if not place.by_project:
        if place.subvolume is not None:
            btrfs.set_limit(run, place.path, Limits())
        return
    reader.kernel.set_project_limits(place.device, project.id, Limits(), place.mount_point)
    if place.exists and place.id == project.id:
        tree.mark(place.path, 0, {project.id}, reader.kernel)


def _write(before: str, after: str, path: str) -> None:
    if after != before:
        _files.write_atomic(path, after.encode())


def _reported(step: Step, reader: Reader, check: bool) -> dict[str, Any]:
    place = reader.place(step.wanted.path)
    if place.usage is None:
        place = step.place if check else place
    return {**quota.report(place), "path": step.wanted.path, "changed": step.changed}


def _warnings(steps: Sequence[Step], orphans: Sequence[Orphan], skipped: int) -> list[str]:
    found = [
        f"{orphan.project.path}: its quota can't be lifted now and stays in {PROJECTS} ({orphan.kept})"
        for orphan in orphans
        if orphan.kept
    ]
    found += [
        f"{inner}: what is in it does not count for {outer}, which has a quota of its own"
        for outer, inner in quota.nested([step.place.path for step in steps])
    ]
    if skipped:
        found.append(
            f"{skipped} links, sockets, pipes or devices keep no project: before Linux 6.17 nothing can mark them"
        )
    return found


def _differences(
    steps: Sequence[Step], lifted: Sequence[Orphan], before: Registry, after: Registry
) -> list[dict[str, Any]]:
    lines = [quota.describe(step.place) for step in steps]
    wanted = [quota.describe(step.place, step.project, step.limits) for step in steps]
    lines += [quota.describe(orphan.place) for orphan in lifted if orphan.place]
    wanted += [f"{orphan.project.path}: no project\n" for orphan in lifted]
    found = [_files.difference("quotas", "".join(lines), "".join(wanted))] if lines != wanted else []
    for path, old, new in (
        (PROJECTS, before.projects, after.projects),
        (NAMES, before.names, after.names),
    ):
        if old != new:
            found.append(_files.difference(path, old, new))
    return found
