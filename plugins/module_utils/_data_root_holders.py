# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds a data root, and who sees it: locks on the files that engines lock, engines that have those
files open, and every mount namespace in which the root or a part of it is mounted.

No lock is ever tried: an engine that starts at that moment would lose it. Sources of facts:
``/proc/locks``, ``/proc/<pid>/fd`` and ``/proc/<pid>/mountinfo`` (proc(5)).
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ansible_collections.matryoshka.host.plugins.module_utils._data_root_processes import (
    ENGINES,
    Namespace,
    Owner,
    Owners,
    Processes,
    parent,
)
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import UNION, Mount, MountTable, within
from ansible_collections.matryoshka.host.plugins.module_utils._verify_kernel import Lock, unit_of

_FILES = re.compile(r"\.(?:db|lock|sql)(?: \(deleted\))?$")
_OWN_BUSINESS = re.compile(
    r"^(?:volumes|containers|plugins|tmp|buildkit|executor|[a-z0-9]+-containers)/."
    r"|^(?:vfs/dir|btrfs/subvolumes|zfs/graph|aufs/mnt|overlay2?|fuse-overlayfs)/."
    r"|^(?:containerd/daemon/)?io\.containerd\.[^/]+/.|^runc-[^/]+/."
)
"""What of a root an engine mounts into its own containers: volumes, their files, and layers."""

File = tuple[int, int]
"""A file by device and inode, as stat(2) has them."""


@dataclass(frozen=True)
class Root:
    """A data root for those who look for it: its file system, where in that it lies, and its locked files."""

    path: str
    device: str
    inner: str
    files: Mapping[File, str]
    engine: str | None = None


@dataclass(frozen=True)
class Holder:
    """An engine, or any other program, that holds a root. ``files`` are relative to the root.

    ``locks`` is False for an engine that has the files open but got no lock: it waits for one.
    """

    owner: Owner
    pids: tuple[int, ...]
    names: tuple[str, ...]
    unit: str
    files: tuple[str, ...]
    locks: bool

    @property
    def label(self) -> str:
        names = ", ".join(
            f"{name or 'a process'} (pid {pid})" for name, pid in zip(self.names, self.pids, strict=True)
        )
        return f"{names} of {self.owner.label}"


@dataclass(frozen=True)
class Sight:
    """A mount namespace in which a root is to be seen. ``part`` is what of it, None for all of it."""

    owner: Owner
    pid: int
    unit: str
    mount_point: str
    path: str
    read_only: bool
    part: str | None
    engines: tuple[str, ...]
    layers: frozenset[str]


def locate(real: str, mount: Mount) -> str:
    """The path of ``real`` within the file system that ``mount`` shows."""
    rest = posixpath.relpath(real, mount.mount_point)
    return posixpath.normpath(posixpath.join(mount.root, rest))


def stat_files(view: View, root: str, names: Iterable[str]) -> dict[File, str]:
    """The files ``names`` in ``root`` by what identifies them."""
    found: dict[File, str] = {}
    for name in names:
        try:
            seen = os.stat(view.path(posixpath.join(root, name)))
        except (OSError, ValueError):
            continue
        found[(seen.st_dev, seen.st_ino)] = name
    return found


def sights(root: Root, table: MountTable, space: Namespace) -> list[Sight]:
    """Where ``root`` is to be seen in a namespace with the mounts ``table``; what is covered isn't."""
    found = []
    for mount in table.mounts:
        if mount.device != root.device:
            continue
        part = None
        if within(mount.root, root.inner):
            path = posixpath.join(mount.mount_point, posixpath.relpath(root.inner, mount.root))
            path = posixpath.normpath(path)
        elif within(root.inner, mount.root):
            part, path = posixpath.relpath(mount.root, root.inner), mount.mount_point
            if _OWN_BUSINESS.match(part):
                continue
        else:
            continue
        if table.of(path) is mount:
            found.append(
                Sight(
                    owner=space.owner,
                    pid=space.first,
                    unit=space.unit,
                    mount_point=mount.mount_point,
                    path=path,
                    read_only=mount.read_only,
                    part=part,
                    engines=tuple(dict.fromkeys(name for _pid, name in space.engines)),
                    layers=layers_in_use(table, path) if part is None else frozenset(),
                )
            )
    return found


def layers_in_use(table: MountTable, path: str) -> frozenset[str]:
    """The overlays (by device number) whose upper layer is in the root seen at ``path``.

    An overlay on ``/`` was mounted from outside: its layers are named as they are called there.
    """
    inside = path.rstrip("/") + "/"
    return frozenset(
        mount.device
        for mount in table.mounts
        if mount.filesystem in UNION
        and mount.mount_point != "/"
        and (mount.super_option("upperdir") or "").startswith(inside)
    )


def find_sights(view: View, roots: Sequence[Root], processes: Processes) -> dict[str, list[Sight]]:
    """For each root's path where it is seen outside the host's own mount namespace."""
    found: dict[str, list[Sight]] = {root.path: [] for root in roots}
    host = MountTable.parse(view.text("/proc/1/mountinfo") or "").of("/")
    for space in processes.others:
        text = view.text(f"/proc/{space.first}/mountinfo") or ""
        wanted = [root for root in roots if f" {root.device} " in text]
        if not wanted:
            continue
        table = MountTable.parse(text)
        if space.owner.unnamed and _same_place(table.of("/"), host):
            # A sandbox on the host's own files, such as unshare --pid makes, is no container.
            space = replace(space, owner=Owner())
        for root in wanted:
            found[root.path] += sights(root, table, space)
    return found


def _same_place(first: Mount | None, second: Mount | None) -> bool:
    return (
        first is not None
        and second is not None
        and ((first.device, first.root) == (second.device, second.root))
    )


def find_holders(
    view: View, roots: Sequence[Root], locks: Iterable[Lock], processes: Processes, owners: Owners
) -> dict[str, list[Holder]]:
    """For each root's path who holds it."""
    engines = {pid: name for space in processes.namespaces.values() for pid, name in space.engines}
    opened = {pid: open_files(view, pid) for pid in engines}
    wanted = {file[1] for root in roots for file in root.files}
    taken = [lock for lock in locks if lock.inode in wanted]
    found: dict[str, list[Holder]] = {}
    for root in roots:
        held: dict[int, set[str]] = {}
        locking: set[int] = set()
        for pid, files in opened.items():
            names = {root.files[file] for file in files & set(root.files)}
            if names:
                held[pid] = names
        for lock in taken:
            for pid, name in _lockers(view, root, lock, held, opened):
                held.setdefault(pid, set()).add(name)
                locking.add(pid)
        found[root.path] = _parties(view, root, held, locking, owners)
    return found


def open_files(view: View, pid: int) -> set[File]:
    """The data bases and lock files that a process has open."""
    found = set()
    folder = f"/proc/{pid}/fd"
    for number in view.names(folder):
        if _FILES.search(view.link(f"{folder}/{number}") or ""):
            try:
                seen = os.stat(view.path(f"{folder}/{number}"))
            except OSError:
                continue
            found.add((seen.st_dev, seen.st_ino))
    return found


def _lockers(
    view: View, root: Root, lock: Lock, held: Mapping[int, set[str]], opened: dict[int, set[File]]
) -> Iterable[tuple[int, str]]:
    """The processes whose ``lock`` is on a file of ``root``, and that file.

    ``/proc/locks`` has the file system's own device number. On btrfs stat(2) shows another one for each
    subvolume, and inode numbers repeat: there a process has to have the very file open.
    """
    for file, name in root.files.items():
        if file[1] != lock.inode:
            continue
        device = (os.major(file[0]), os.minor(file[0]))
        same = lock.device == device
        if not same and "{}:{}".format(*lock.device) != root.device:
            continue
        if lock.pid <= 0:
            # A lock of an open file description has no process; whoever has the file open may have it.
            yield from ((pid, name) for pid, names in held.items() if name in names)
        elif same or file in opened.setdefault(lock.pid, open_files(view, lock.pid)):
            yield lock.pid, name


def _parties(
    view: View, root: Root, held: Mapping[int, set[str]], locking: set[int], owners: Owners
) -> list[Holder]:
    """Holders with what belongs together put together: an engine and the containerd that it started.

    Podman's commands share their root by design; all of one place are one holder.
    """
    groups: dict[tuple[Owner, int], list[int]] = {}
    for pid in sorted(held):
        owner = owners.of(pid)
        head = 0 if root.engine == "podman" else _head(view, pid, owner, owners)
        groups.setdefault((owner, head), []).append(pid)
    return [
        Holder(
            owner=owner,
            pids=tuple(pids),
            names=tuple((view.text(f"/proc/{pid}/comm") or "").strip() for pid in pids),
            unit=unit_of(view.text(f"/proc/{pids[0]}/cgroup") or ""),
            files=tuple(sorted({name for pid in pids for name in held[pid]})),
            locks=bool(locking & set(pids)),
        )
        for (owner, _head_pid), pids in groups.items()
    ]


def _head(view: View, pid: int, owner: Owner, owners: Owners) -> int:
    """The uppermost engine among the process and its forebears in the same place."""
    head = current = pid
    for _step in range(32):
        current = parent(view, current)
        if current <= 0 or owners.of(current) != owner:
            break
        if (view.text(f"/proc/{current}/comm") or "").strip() in ENGINES:
            head = current
    return head
