# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what quotas directories have. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ansible_collections.matryoshka.host.plugins.module_utils import _project_quota_btrfs as btrfs
from ansible_collections.matryoshka.host.plugins.module_utils import _project_quota_tree as tree
from ansible_collections.matryoshka.host.plugins.module_utils import _quotactl
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Disks, Mount, MountTable
from ansible_collections.matryoshka.host.plugins.module_utils._project_quota import BY_PROJECT, Place, report
from ansible_collections.matryoshka.host.plugins.module_utils._project_quota_files import (
    NAMES,
    PROJECTS,
    SPAN,
    Project,
    Registry,
    project_name,
)
from ansible_collections.matryoshka.host.plugins.module_utils._quotactl import Limits, QuotaState, Usage


class Kernel(tree.Marks, Protocol):
    """What of :mod:`_quotactl` is needed here."""

    def quota_state(self, device: str | None, mount_point: str, filesystem: str = "") -> QuotaState: ...

    def get_project_quota(
        self, device: str | None, project: int, mount_point: str | None = None
    ) -> Usage: ...

    def next_project_quota(
        self, device: str | None, project: int, mount_point: str | None = None
    ) -> Usage | None: ...

    def set_project_limits(
        self, device: str | None, project: int, limits: Limits, mount_point: str | None = None
    ) -> None: ...


@dataclass(frozen=True)
class System:
    """Where answers come from: files, the kernel, btrfs."""

    view: View
    kernel: Kernel
    trees: btrfs.Trees


THIS_HOST = System(View(), _quotactl, btrfs.Ioctls())


class Reader:
    """The host as it is while one answer is made."""

    def __init__(self, owner: str, system: System = THIS_HOST) -> None:
        self.owner = owner
        self.view = system.view
        self.kernel = system.kernel
        self._trees = system.trees
        self._system = system
        self.registry = Registry(self.view.text(PROJECTS) or "", self.view.text(NAMES) or "")
        self._mounts = MountTable.parse(self.view.text("/proc/self/mountinfo") or "")
        self._disks = Disks(self.view.root)
        self._states: dict[str, QuotaState] = {}

    def place(self, path: str, contents: bool = False) -> Place:
        """``path`` (links are followed) as it is.

        :param contents: measure what is in a directory that isn't counted yet, by walking through it.
        """
        real = os.path.realpath("/" + path.lstrip("/"))
        mount = self._mounts.of(real)
        if mount is None:
            raise HostError(f"{path}: no mounted file system is found for it")
        exists = os.path.lexists(real)
        if exists and not os.path.isdir(real):
            raise HostError(f"{path} is no directory; only a directory can have a quota")
        return (
            self._btrfs(real, mount, contents)
            if mount.filesystem == "btrfs"
            else self._project(real, mount, contents)
        )

    def again(self) -> Reader:
        """The host as it is now."""
        return Reader(self.owner, self._system)

    def used(self, place: Place, first: int, last: int) -> bool:
        """Whether the file system of ``place`` knows a project with an id in a range."""
        if not (place.by_project and place.state.accounting):
            return False
        found = self.kernel.next_project_quota(place.device, first, place.mount_point)
        return found is not None and found.id <= last

    def own(self, place: Place) -> Project | None:
        """The project that ``place`` has, though the files of :mod:`_project_quota_files` don't say so (any more)."""
        mine = place.id % SPAN == 0 and place.id != 0 and place.inherit and place.id != place.parent_id
        if not mine or place.id in self.registry.taken():
            return None
        return Project(place.path, place.id, project_name(self.owner, place.path))

    def _project(self, path: str, mount: Mount, contents: bool) -> Place:
        place = self._bare(path, mount)
        state = self._state(mount, place.device)
        present = self._id(path) if place.exists and place.by_project else (0, False)
        above = os.path.dirname(path)
        parent = self._id(above)[0] if present[0] and path != mount.mount_point else 0
        registered = self.registry.owned(self.owner).get(path)
        usage = content = None
        if state.accounting and registered is not None and present == (registered.id, True):
            usage = self.kernel.get_project_quota(place.device, registered.id, mount.mount_point)
        elif contents and place.exists and state.accounting:
            content = self._content(path)
        return replace(
            place,
            state=state,
            registered=registered,
            id=present[0],
            inherit=present[1],
            parent_id=parent,
            usage=usage,
            content=content,
        )

    def _btrfs(self, path: str, mount: Mount, contents: bool) -> Place:
        place = self._bare(path, mount)
        filesystem = self._trees.filesystem(mount.mount_point)
        counting = btrfs.accounting(self.view, filesystem)
        subvolume = self._trees.subvolume(path) if place.exists else None
        usage = None
        if subvolume is not None and counting.mode:
            usage = btrfs.usage(self.view, filesystem, subvolume)
        content = self._content(path) if contents and place.exists and usage is None else None
        return replace(
            place,
            state=counting.state,
            registered=self.registry.owned(self.owner).get(path),
            subvolume=subvolume,
            simple=counting.mode == "squota" or (not counting.mode and btrfs.simple_possible(self.view)),
            stale=bool(counting.mode) and not counting.consistent,
            usage=usage,
            content=content,
        )

    def _bare(self, path: str, mount: Mount) -> Place:
        """What is so whether quotas are counted or not."""
        exists = os.path.exists(path)
        return Place(
            path=path,
            exists=exists,
            empty=not (exists and os.listdir(path)),
            filesystem=mount.filesystem,
            mount_point=mount.mount_point,
            device=self._disks.device(mount),
            size=self._size(mount),
            block=_block(mount.mount_point),
            state=QuotaState(False, False),
        )

    def _state(self, mount: Mount, device: str | None) -> QuotaState:
        if mount.filesystem not in BY_PROJECT:
            return QuotaState(False, False, f"{mount.filesystem} has no quotas for directories")
        if mount.device not in self._states:
            self._states[mount.device] = self.kernel.quota_state(device, mount.mount_point, mount.filesystem)
        return self._states[mount.device]

    def _id(self, path: str) -> tuple[int, bool]:
        return tree.has_project_ids(path, self.kernel) or (0, False)

    def _size(self, mount: Mount) -> int:
        """Of the disk, since the file system shows a directory with a quota the quota as its size."""
        sectors = self.view.integer(f"/sys/dev/block/{mount.device}/size") or 0
        status = os.statvfs(mount.mount_point)
        return max(sectors * 512, status.f_blocks * status.f_frsize)

    def _content(self, path: str) -> Usage:
        walked = tree.measure(path)
        return Usage(0, walked.bytes, walked.inodes)


def _block(mount_point: str) -> int:
    return max(1024, os.statvfs(mount_point).f_frsize)


def read_quotas(
    paths: Iterable[str], owner: str = "matryoshka", system: System = THIS_HOST
) -> list[dict[str, Any]]:
    """What quota each directory has, as module ``project_quotas`` returns it; an odd one says so in ``why``."""
    reader = Reader(owner, system)
    found: list[dict[str, Any]] = []
    for path in paths:
        try:
            found.append(report(reader.place(path)) | {"path": path})
        except (HostError, OSError) as error:
            found.append({"path": path, "enforced": False, "holds_root": False, "why": str(error)})
    return found
