# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges data roots as they are found: ``ok``, ``degraded`` or ``broken``, with reasons and remedies. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._data_root_holders import Holder, Sight
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_processes import HOST_ROOTS, Owner
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_quota import Quota
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import MEMORY, NETWORK, UNION
from ansible_collections.matryoshka.host.plugins.module_utils._storage_judge import (
    FULL_FRACTION,
    LOW_FRACTION,
    Reason,
    Verdict,
    check_allow,
    judge,
)

CODES: dict[str, str] = {
    "two_holders": "broken",
    "foreign_holder": "broken",
    "foreign_mount": "broken",
    "shared_mount": "broken",
    "same_as_another": "broken",
    "inside_another": "broken",
    "not_mounted": "broken",
    "not_a_directory": "broken",
    "read_only": "broken",
    "full": "broken",
    "quota_full": "broken",
    "foreign_mount_read_only": "degraded",
    "holder_without_root": "degraded",
    "absent": "degraded",
    "backing_overlay": "degraded",
    "backing_memory": "degraded",
    "backing_network": "degraded",
    "leftover_driver": "degraded",
    "nearly_full": "degraded",
    "quota_nearly_full": "degraded",
    "quota_off": "degraded",
    "quota_inconsistent": "degraded",
    "raid_degraded": "degraded",
}
"""Every reason's code and how bad it is."""

_AN_ENGINE_S_OWN = re.compile(r"^(?:volumes/[^/]+/|containerd/)")
_FULL = 1 - FULL_FRACTION
_LOW = 1 - LOW_FRACTION


@dataclass(frozen=True)
class RootReason(Reason):
    """A reason with a code of :data:`CODES`."""

    @property
    def severity(self) -> str:
        return CODES[self.code]


@dataclass
class DataRoot:
    """A data root with all that was found out about it.

    ``expected`` is who should hold it (None: nobody said), ``unmounted`` says what should be mounted
    there and isn't. ``facts`` are those of :func:`_host_paths.read_path`.
    """

    path: str
    facts: dict[str, Any]
    expected: str | None = None
    unmounted: str | None = None
    device: str = ""
    inner: str = ""
    engine: dict[str, Any] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    quota: Quota = field(default_factory=Quota)
    holders: list[Holder] = field(default_factory=list)
    sights: list[Sight] = field(default_factory=list)
    running: list[Owner] = field(default_factory=list)

    @property
    def directory(self) -> bool:
        kind = self.facts["target_type"] if self.facts["type"] == "symlink" else self.facts["type"]
        return bool(kind == "directory")


def judge_root(root: DataRoot, others: Iterable[DataRoot] = (), *, allow: Iterable[str] = ()) -> Verdict:
    """The verdict on ``root``; reasons whose code is in ``allow`` don't count and aren't told.

    :param others: the other roots, which it must not meet.
    :raises InputError: for a code in ``allow`` that isn't one of :data:`CODES`.
    """
    return judge(_reasons(root, others), check_allow(allow, CODES))


def owner_of(root: DataRoot) -> Owner | None:
    """Whose the root is: of who was named, of who holds it, or of the only container that has it.

    None if nobody can be told. Roots at the place of the host's own engines are the host's.
    """
    seen = _owners(sight.owner for sight in root.sights if sight.part is None and not sight.owner.host)
    if root.expected is not None:
        places = [*(holder.owner for holder in root.holders), *seen, *root.running, Owner()]
        return next((one for one in places if one.is_called(root.expected)), None)
    locking = _owners(holder.owner for holder in root.holders if holder.locks)
    if locking:
        return locking[0]
    if root.holders:
        return root.holders[0].owner
    if root.facts["real_path"] in HOST_ROOTS or root.path in HOST_ROOTS:
        return Owner()
    writing = _owners(sight.owner for sight in root.sights if _whole(sight) and not sight.read_only)
    return writing[0] if len(writing) == 1 else None


def _reasons(root: DataRoot, others: Iterable[DataRoot]) -> Iterable[Reason]:
    if root.unmounted:
        yield RootReason(
            "not_mounted",
            f"{root.path} isn't on the file system that it should be on: {root.unmounted}"
            + (". An engine has written beneath the mount point" if root.engine.get("engine") else ""),
            "Stop the engine, mount what is missing, and look at what was written beneath before removing it.",
        )
    if root.facts["type"] != "absent" and not root.directory:
        yield RootReason(
            "not_a_directory",
            f"{root.path} isn't a directory",
            "Move away what is there, or name another path.",
        )
        return
    yield from _sharing(root)
    yield from _meetings(root, others)
    if not root.directory:
        yield RootReason(
            "absent", f"{root.path} doesn't exist", "Start the engine whose it is; it makes the directory."
        )
        return
    yield from _filesystem(root)
    yield from _room(root)
    yield from _quota(root)
    yield from _devices(root)
    for driver in root.engine.get("leftovers", []):
        entry: Mapping[str, Any] = next(
            (one for one in root.engine["drivers"] if one["driver"] == driver), {}
        )
        yield RootReason(
            "leftover_driver",
            f"The driver {driver} left {entry.get('entries', 0)} entries in {posixpath.join(root.path, entry.get('path', driver))}, "
            f"beside {root.engine['driver']}",
            "If nothing in it is needed, stop the engine and remove that directory.",
        )


def _sharing(root: DataRoot) -> Iterable[Reason]:
    owner = owner_of(root)
    if len(root.holders) > 1:
        shown = "; ".join(
            holder.label + ("" if holder.locks else ", which waits for the lock") for holder in root.holders
        )
        yield RootReason(
            "two_holders",
            f"{len(root.holders)} hold {root.path}: {shown}",
            "Stop all but one of them now, then check images and volumes; they may be damaged.",
        )
    elif root.holders and root.expected and not root.holders[0].owner.is_called(root.expected):
        yield RootReason(
            "foreign_holder",
            f"{root.holders[0].label} holds {root.path}, which is for {_expected(root.expected)}",
            "Stop it, or say whose the root is.",
        )
    yield from _strangers(root, owner)
    named = root.expected if root.expected not in (None, "host") else None
    called = [one for one in root.running if named and one.is_called(named)]
    seen = [sight.owner for sight in root.sights if sight.part is None]
    if called and not set(called) & set(seen):
        yield RootReason(
            "holder_without_root",
            f"{_expected(str(named))} runs, but {root.path} isn't mounted in it",
            "Make the container again with the root mounted; what it writes now is lost with it.",
        )


def _strangers(root: DataRoot, owner: Owner | None) -> Iterable[Reason]:
    """Containers that have the root mounted and aren't its owner."""
    strange = [sight for sight in root.sights if not sight.owner.host and sight.owner != owner]
    writing = [sight for sight in strange if not sight.read_only]
    if owner is None and root.expected is None and writing:
        names = ", ".join(f"{one.label}" for one in _owners(sight.owner for sight in writing))
        yield RootReason(
            "shared_mount",
            f"Several containers have {root.path} mounted, and nobody holds it: {names}",
            "Give each engine a root of its own; name the container whose this is as holder.",
        )
        return
    whose = owner.label if owner else _expected(root.expected)
    for code, those in (
        ("foreign_mount", writing),
        ("foreign_mount_read_only", [sight for sight in strange if sight.read_only]),
    ):
        for stranger in _owners(sight.owner for sight in those):
            mine = [sight for sight in those if sight.owner == stranger]
            places = ", ".join(dict.fromkeys(_place(sight) for sight in mine))
            engines = list(dict.fromkeys(name for sight in mine for name in sight.engines))
            yield RootReason(
                code,
                f"{stranger.label[0].upper()}{stranger.label[1:]} has {root.path} of {whose} mounted: {places}"
                + (f"; {' and '.join(engines)} runs in it" if engines else ""),
                f"Remove {stranger.label}, or make it again without that mount.",
            )


def _place(sight: Sight) -> str:
    part = f", its part {sight.part}" if sight.part else ""
    return f"on {sight.path}{part}" + (" (read-only)" if sight.read_only else "")


def _meetings(root: DataRoot, others: Iterable[DataRoot]) -> Iterable[Reason]:
    for other in others:
        if not root.device or root.device != other.device:
            continue
        if root.inner == other.inner:
            yield RootReason(
                "same_as_another",
                f"{root.path} and {other.path} are one and the same directory",
                "Give each engine a root of its own.",
            )
            continue
        for outer, inside in ((root, other), (other, root)):
            rest = posixpath.relpath(inside.inner, outer.inner)
            if not rest.startswith("../") and rest != ".." and not _AN_ENGINE_S_OWN.match(rest + "/"):
                yield RootReason(
                    "inside_another",
                    f"{inside.path} lies inside {outer.path}, and two engines on one data root destroy it",
                    "Move one of them: no root may be inside another.",
                )


def _filesystem(root: DataRoot) -> Iterable[Reason]:
    facts = root.facts
    if facts["read_only"]:
        yield RootReason(
            "read_only",
            f"{root.path} lies on {facts['mount_point']}, which is mounted read-only",
            f"Look for errors in dmesg, then mount -o remount,rw {facts['mount_point']}.",
        )
    for code, kinds, what in (
        ("backing_overlay", UNION, "an engine can't stack layers there"),
        ("backing_memory", MEMORY, "it takes memory and is lost at a restart"),
        ("backing_network", NETWORK, "locks and attributes that layers need are missing there"),
    ):
        if facts["filesystem"] in kinds:
            yield RootReason(
                code,
                f"{root.path} lies on {facts['filesystem']}: {what}",
                "Mount a directory or a disk with ext4, xfs or btrfs there.",
            )


def _room(root: DataRoot) -> Iterable[Reason]:
    for name, unit in (("bytes", "room"), ("inodes", "inodes")):
        total, free = root.facts[f"{name}_total"], root.facts[f"{name}_free"]
        if total and free is not None and free < LOW_FRACTION * total:
            yield RootReason(
                "full" if free < FULL_FRACTION * total else "nearly_full",
                f"{root.path} has {free} of {total} {name} left on {root.facts['mount_point']}",
                f"Prune the engine's data, or give the file system more {unit}.",
            )


def _quota(root: DataRoot) -> Iterable[Reason]:
    quota = root.quota
    limited = quota.limit or quota.inodes_limit or quota.requested
    if quota.kind == "project" and limited and not quota.enforced:
        yield RootReason(
            "quota_off",
            f"{root.facts['mount_point']} has project quotas that the kernel doesn't enforce"
            + (f" ({quota.error})" if quota.error else ""),
            "Look at the mount options and at xfs_quota -x -c state, or tune2fs -l; then mount it again.",
        )
    if quota.inconsistent:
        yield RootReason(
            "quota_inconsistent",
            f"The figures of the quota groups of {root.facts['mount_point']} are wrong until a rescan",
            f"btrfs quota rescan -w {root.facts['mount_point']}",
        )
    for name, used, limit in (
        ("bytes", quota.used, quota.limit),
        ("exclusive bytes", quota.exclusive_used, quota.exclusive_limit),
        ("inodes", quota.inodes_used, quota.inodes_limit),
    ):
        if quota.enforced and used is not None and limit and used > _LOW * limit:
            yield RootReason(
                "quota_full" if used > _FULL * limit else "quota_nearly_full",
                f"{root.path} uses {used} of the {limit} {name} that its quota allows",
                "Prune the engine's data, or raise the quota.",
            )


def _devices(root: DataRoot) -> Iterable[Reason]:
    for layer in root.layers:
        raid = layer.get("raid")
        if raid and raid["missing"]:
            yield RootReason(
                "raid_degraded",
                f"{layer['path']} below {root.path} lacks {raid['missing']} of {raid['devices']} devices",
                f"Replace the disk: mdadm --detail {layer['path']} says which.",
            )


def _expected(name: str | None) -> str:
    if name is None:
        return "nobody known"
    return "the host" if name == "host" else f"the container {name}"


def _whole(sight: Sight) -> bool:
    return sight.part is None and not sight.owner.host


def _owners(owners: Iterable[Owner]) -> Sequence[Owner]:
    return list(dict.fromkeys(owners))
