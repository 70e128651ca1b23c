# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas of directories: what is wanted, what is there, and the steps between. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._project_quota_files import Project
from ansible_collections.matryoshka.host.plugins.module_utils._quotactl import Limits, QuotaState, Usage
from ansible_collections.matryoshka.host.plugins.module_utils._sizes import parse_size

BY_PROJECT = ("xfs", "ext4")
KINDS = (*BY_PROJECT, "btrfs")

_PATH = (
    "the absolute path of a directory, not of the root directory, without spaces at its end or line breaks"
)
_OWNER = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,31}")
_ENABLE = {
    "xfs": "mount it with the option prjquota (a remount seems to take it and doesn't; for the root file system"
    " rootflags=prjquota on the kernel's command line)",
    "ext4": "give it the features project and quota while it isn't mounted (tune2fs -O project,quota -Q prjquota"
    " {device}), and mount it with the option prjquota (a remount seems to take it and doesn't)",
}


@dataclass(frozen=True)
class Wanted:
    """One entry of ``quotas``."""

    path: str
    limits: Limits
    given: Mapping[str, Any]

    @property
    def variable(self) -> str:
        return f"quotas[{self.path}]"


@dataclass(frozen=True)
class Place:
    """A directory as it is: where it lies, what holds it.

    ``size`` is what the disk has. ``usage`` is what the kernel counts for the directory's own project or
    subvolume, None if it counts nothing yet; ``content`` is what a walk found in it then. ``stale`` are the
    numbers of a btrfs that has to be scanned anew; it stops counting when a large subvolume is deleted.
    """

    path: str
    exists: bool
    empty: bool
    filesystem: str
    mount_point: str
    device: str | None
    size: int
    block: int
    state: QuotaState
    registered: Project | None = None
    id: int = 0
    inherit: bool = False
    parent_id: int = 0
    subvolume: int | None = None
    simple: bool = False
    stale: bool = False
    usage: Usage | None = None
    content: Usage | None = None

    @property
    def by_project(self) -> bool:
        return self.filesystem in BY_PROJECT

    @property
    def own(self) -> bool:
        """It has a project or subvolume of its own, and the kernel counts it."""
        if not self.state.accounting:
            return False
        if not self.by_project:
            return self.subvolume is not None
        return self.registered is not None and (self.id, self.inherit) == (self.registered.id, True)

    @property
    def group(self) -> str | None:
        """Name of the btrfs quota group."""
        return None if self.subvolume is None else f"0/{self.subvolume}"

    @property
    def limits(self) -> Limits:
        return self.usage.limits if self.own and self.usage else Limits()

    @property
    def enforced(self) -> bool:
        """The kernel really holds the directory to limits that are set."""
        return self.own and self.state.enforced and not self.stale and self.limits != Limits()


@dataclass(frozen=True)
class Step:
    """What one directory lacks."""

    wanted: Wanted
    place: Place
    project: Project
    limits: Limits

    @property
    def make(self) -> bool:
        return not self.place.exists

    @property
    def subvolume(self) -> bool:
        return self.place.filesystem == "btrfs" and self.place.subvolume is None

    @property
    def enable(self) -> bool:
        return self.place.filesystem == "btrfs" and not self.place.state.accounting

    @property
    def rescan(self) -> bool:
        return self.place.stale

    @property
    def mark(self) -> bool:
        return self.place.by_project and not self.place.own

    @property
    def register(self) -> bool:
        return self.place.registered != self.project

    @property
    def limit(self) -> bool:
        return self.limits != self.place.limits

    @property
    def changed(self) -> bool:
        return (
            self.subvolume
            or self.enable
            or self.rescan
            or self.mark
            or self.register
            or self.limit
            or self.make
        )


def parse_owner(owner: str) -> str:
    """:raises InputError: it can't begin the name of a project."""
    if not _OWNER.fullmatch(owner):
        raise InputError("owner", owner, "a letter, then up to 31 letters, digits, dots or underscores")
    return owner


def parse_quotas(entries: Sequence[Mapping[str, Any]]) -> list[Wanted]:
    """The entries of ``quotas``, checked as far as it goes without looking at the host."""
    found: list[Wanted] = []
    for entry in entries:
        path = str(entry["path"])
        normal = os.path.normpath(path)
        if not os.path.isabs(path) or ".." in path.split("/"):
            raise InputError("quotas.path", path, _PATH)
        normal = "/" + normal.lstrip("/")
        require_plain(path, normal)
        if any(normal == other.path for other in found):
            raise InputError("quotas.path", path, "each directory once")
        found.append(Wanted(normal, _limits(f"quotas[{normal}]", entry), entry))
    return found


def require_plain(path: str, real: str) -> None:
    """:raises InputError: ``real``, where ``path`` leads, can't stand in a line of /etc/projects."""
    if real.strip("/") == "" or "\n" in real or real != real.strip():
        raise InputError("quotas.path", path, _PATH)


def _limits(variable: str, entry: Mapping[str, Any]) -> Limits:
    size, soft, inodes = entry.get("size"), entry.get("soft"), entry.get("inodes")
    hard = 0 if size is None else parse_size(size, f"{variable}.size")
    low = 0 if soft is None else parse_size(soft, f"{variable}.soft")
    if hard and low > hard:
        raise InputError(f"{variable}.soft", soft, f"not more than size, {size}")
    if inodes is not None and (isinstance(inodes, bool) or int(inodes) < 1):
        raise InputError(f"{variable}.inodes", inodes, "a whole number of at least 1, or none")
    return Limits(bytes=hard, soft_bytes=low, inodes=int(inodes or 0))


def plan(wanted: Wanted, place: Place, project: Project) -> Step:
    """The step for one directory.

    :raises HostError: it can't have a quota there.
    :raises InputError: it can't have this quota there.
    """
    _require_support(wanted, place)
    step = Step(wanted, place, project, _rounded(wanted.limits, place.block))
    if wanted.limits.bytes > place.size:
        allowed = f"at most {place.size} bytes, the size of {place.device or place.mount_point}"
        raise InputError(f"{wanted.variable}.size", wanted.given.get("size"), allowed)
    if step.subvolume and not place.empty:
        raise HostError(
            f"{wanted.path}: on btrfs only a subvolume can have a quota, and this is a directory with content;"
            " move the content away, let the directory be made into a subvolume, and move it back"
        )
    used = place.usage or place.content or Usage(0)
    present = place.limits
    _require_room(wanted, "size", "bytes", step.limits.bytes, present.bytes, used.bytes)
    _require_room(wanted, "inodes", "inodes", step.limits.inodes, present.inodes, used.inodes)
    return step


def _require_room(wanted: Wanted, option: str, unit: str, limit: int, present: int, used: int) -> None:
    """A limit that is there already stays, even where more is used by now."""
    if limit and limit != present and limit < used:
        allowed = f"at least {used} {unit}, which are used there now (or null for no limit)"
        raise InputError(f"{wanted.variable}.{option}", wanted.given.get(option), allowed)


def _require_support(wanted: Wanted, place: Place) -> None:
    where = f"{wanted.path} lies on {place.filesystem} (mounted on {place.mount_point}"
    where += f" from {place.device})" if place.device else ")"
    if place.filesystem not in KINDS:
        raise HostError(f"{where}, which has no quotas for directories; xfs, ext4 and btrfs have")
    if place.filesystem == "btrfs":
        for option in ("inodes", "soft"):
            if wanted.given.get(option) is not None:
                raise InputError(
                    f"{wanted.variable}.{option}",
                    wanted.given[option],
                    "nothing on btrfs, which has size alone",
                )
    elif not place.state.enforced:
        remedy = _ENABLE[place.filesystem].format(device=place.device or "DEVICE")
        raise HostError(f"{where} without project quotas ({place.state.why}); {remedy}")


def _rounded(limits: Limits, block: int) -> Limits:
    """Bytes up to whole blocks, as file systems keep them."""
    return Limits(
        -(-limits.bytes // block) * block,
        limits.inodes,
        -(-limits.soft_bytes // block) * block,
        limits.soft_inodes,
    )


def nested(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of an outer and an inner directory."""
    return [(outer, inner) for outer in paths for inner in paths if inner.startswith(outer.rstrip("/") + "/")]


def describe(place: Place, project: Project | None = None, limits: Limits | None = None) -> str:
    """One line for ``--diff``; as it will be if ``project`` and ``limits`` are given."""
    if limits is None:
        if not place.exists:
            return f"{place.path}: not there\n"
        if not place.own and place.registered is None:
            return f"{place.path}: no project\n"
        project, limits = place.registered, place.limits
    shown = [f"id {project.id} ({project.name})"] if project else []
    for name, value in (
        ("size", limits.bytes),
        ("soft", limits.soft_bytes),
        ("inodes", limits.inodes),
        ("soft inodes", limits.soft_inodes),
    ):
        if value:
            shown.append(f"{name} {value}")
    return f"{place.path}: {', '.join(shown) or 'no limits'}\n"


def report(place: Place) -> dict[str, Any]:
    """What a caller gets to know of a directory."""
    usage = place.usage or place.content or Usage(0)
    counted = place.usage is not None or place.content is not None
    limits = place.limits
    return {
        "path": place.path,
        "exists": place.exists,
        "filesystem": place.filesystem,
        "mount_point": place.mount_point,
        "device": place.device,
        "id": place.id if place.own and place.by_project else None,
        "name": place.registered.name if place.registered else None,
        "group": place.group,
        "size": limits.bytes or None,
        "soft": limits.soft_bytes or None,
        "inodes": limits.inodes or None,
        "used_bytes": usage.bytes if counted else None,
        "used_inodes": usage.inodes if counted and place.by_project else None,
        "enforced": place.enforced,
        "holds_root": place.enforced and place.filesystem != "ext4",
        "why": _why_not_enforced(place),
    }


def _why_not_enforced(place: Place) -> str:
    if place.enforced:
        return ""
    if not place.exists:
        return "the directory is not there"
    if place.filesystem not in KINDS:
        return f"{place.filesystem} has no quotas for directories"
    if place.stale or not place.state.enforced:
        return place.state.why
    if not place.own:
        return "it is no subvolume" if place.filesystem == "btrfs" else "it has no project of its own"
    return "no limits are set"
