# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has of a planned volume: what is mounted, what lies beneath, how large all of it is.

Sources of facts: mountinfo, superblocks, ``/sys/class/block``, and the directory beneath the mount.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _mount_point, _storage_superblock
from ansible_collections.matryoshka.host.plugins.module_utils._block_identity import SECTOR, identity
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mount_point import Beneath
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Disks, Mount, MountTable
from ansible_collections.matryoshka.host.plugins.module_utils._storage_superblock import Superblock

MIGRATION = ".matryoshka-migration"
"""A file in the root of a file system that data is being copied to; it goes when all of it is in place."""

ABSENT = Beneath("absent")
_OLD = re.compile(r"\.before-\d{8}T\d{6}Z$")


@dataclass(frozen=True)
class Host:
    """What of a host matters to every volume.

    ``udev``: whether it runs; ``container``: whether this is one; ``kernel_has``: names of file
    systems that can be mounted and of modules that can be loaded.
    """

    machine: str
    udev: bool
    container: bool
    kernel_has: frozenset[str]
    xfs_quota: bool = True


@dataclass(frozen=True)
class Sizes:
    """Sizes in bytes, from the disk up to the file system; None for a layer that isn't there.

    ``room_behind`` is what the disk has behind the end of its last partition, if that is the volume's; ``partition`` is its number.
    """

    device: int | None = None
    filesystem: int | None = None
    below_crypt: int | None = None
    room_behind: int | None = None
    partition: int | None = None


@dataclass(frozen=True)
class Seen:
    """A volume as it is.

    ``source`` is the device that is mounted, ``disks`` the whole disks behind it, ``upper`` the kernel's
    name of the first if it is one of the device mapper.
    """

    beneath: Beneath = ABSENT
    mount: Mount | None = None
    source: str | None = None
    superblock: Superblock | None = None
    sizes: Sizes = Sizes()
    migrating: bool = False
    old: tuple[str, ...] = ()
    directory_there: bool = True
    same_directory: bool | None = None
    disks: tuple[Mapping[str, Any], ...] = ()
    queues: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    discards: bool = False
    upper: str | None = None


def read_host(view: View) -> Host:
    """The host's part of it.

    :raises HostError: it has no machine id, from which UUIDs of file systems are derived.
    """
    machine = (view.text("/etc/machine-id") or "").strip()
    if not re.match(r"^[0-9a-f]{32}$", machine):
        raise HostError("/etc/machine-id holds no machine id; systemd-machine-id-setup makes one")
    known = {line.split()[-1] for line in (view.text("/proc/filesystems") or "").splitlines() if line.split()}
    release = (view.text("/proc/sys/kernel/osrelease") or "").strip()
    for name in ("modules.dep", "modules.builtin"):
        text = view.text(f"/lib/modules/{release}/{name}") or ""
        known |= {posixpath.basename(found) for found in re.findall(r"/([a-z0-9_-]+)\.ko\b", text)}
    return Host(
        machine=machine,
        udev=view.exists("/run/udev/control"),
        container=view.exists("/run/systemd/container"),
        kernel_has=frozenset(known),
        # The kernel makes this file if it was built with quotas for XFS.
        xfs_quota=not view.exists("/proc/fs/xfs") or view.exists("/proc/fs/xfs/xqm"),
    )


def mounted_at(table: MountTable, path: str) -> Mount | None:
    """The mount whose mount point is ``path`` itself."""
    found = table.of(path)
    return found if found is not None and found.mount_point == path else None


def read_volume(volume: Mapping[str, Any], table: MountTable, view: View) -> Seen:
    """What the host has of one volume.

    :param volume: its plan.
    :raises HostError: what is beneath the mount can't be seen.
    """
    path = volume["path"]
    mount = mounted_at(table, path)
    beneath = _mount_point.look(view.path(path))
    above = posixpath.dirname(path)
    name = re.escape(posixpath.basename(path))
    old = [
        f"{above.rstrip('/')}/{one}" for one in view.names(above) if re.match(f"^{name}{_OLD.pattern}", one)
    ]
    if volume["kind"] == "directory":
        same = _same(view.path(path), view.path(volume["directory"])) if mount is not None else None
        there = view.exists(volume["directory"])
        return Seen(beneath=beneath, mount=mount, old=tuple(old), directory_there=there, same_directory=same)
    if mount is None:
        return Seen(beneath=beneath, old=tuple(old))
    disks = Disks(view.root)
    source = disks.device(mount)
    kernel_name = posixpath.basename(view.real(source)) if source else ""
    whole = sorted(disks.disks(mount)) if source else []
    # What LVM and dm-crypt make has a read-ahead of its own.
    upper = [kernel_name] if kernel_name.startswith("dm-") else []
    return Seen(
        beneath=beneath,
        mount=mount,
        source=source,
        superblock=_storage_superblock.read(view.path(source)) if source else None,
        sizes=_sizes(view, kernel_name, path, mount),
        migrating=view.exists(f"{path}/{MIGRATION}"),
        old=tuple(old),
        disks=tuple(identity(view, disk) for disk in whole),
        queues={disk: read_queue(view, disk) for disk in [*whole, *upper]},
        upper=kernel_name if upper else None,
        discards=_discards(view, kernel_name),
    )


def partition_labels(view: View) -> dict[str, str]:
    """The name that each partition has in its table, by path. Source: uevent in sysfs."""
    found = {}
    for name in view.names("/sys/class/block"):
        label = re.search(
            r"^PARTNAME=(.+)$", view.text(f"/sys/class/block/{name}/uevent") or "", re.MULTILINE
        )
        if label:
            found[f"/dev/{name}"] = label[1]
    return found


def _same(first: str, second: str) -> bool:
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False


def _sizes(view: View, name: str, path: str, mount: Mount) -> Sizes:
    device = _bytes(view, name)
    told = _storage_superblock.mounted_size(view.path(path), mount.filesystem)
    if told is None and mount.filesystem == "ext4":
        superblock = _storage_superblock.read(view.path(f"/dev/{name}"))
        told = superblock.size if superblock else None
    uuid = (view.text(f"/sys/class/block/{name}/dm/uuid") or "").strip()
    below = None
    if uuid.startswith("CRYPT-"):
        below = next((_bytes(view, one) for one in view.names(f"/sys/class/block/{name}/slaves")), None)
    number = view.integer(f"{view.real(f'/sys/class/block/{name}')}/partition")
    return Sizes(device, told, below, _room_behind(view, name), number)


def _room_behind(view: View, name: str) -> int | None:
    directory = view.real(f"/sys/class/block/{name}")
    number = view.integer(f"{directory}/partition")
    if number is None:
        return None
    disk = posixpath.dirname(directory)
    ends = []
    for other in view.names(disk):
        start = view.integer(f"{disk}/{other}/start")
        if start is not None and view.integer(f"{disk}/{other}/partition") is not None:
            ends.append((start + (view.integer(f"{disk}/{other}/size") or 0), other))
    last = max(ends, default=None)
    if last is None or last[1] != posixpath.basename(directory):
        return None
    return ((view.integer(f"{disk}/size") or 0) - last[0]) * SECTOR


def read_queue(view: View, disk: str) -> dict[str, str]:
    """The present scheduler and read-ahead of a disk, and which schedulers it offers."""
    queue = f"/sys/class/block/{disk}/queue"
    schedulers = (view.text(f"{queue}/scheduler") or "").strip()
    chosen = re.search(r"\[([\w-]+)\]", schedulers)
    return {
        "scheduler": chosen[1] if chosen else schedulers,
        "schedulers": schedulers.replace("[", "").replace("]", ""),
        "read_ahead_kb": (view.text(f"{queue}/read_ahead_kb") or "").strip(),
    }


def _discards(view: View, name: str) -> bool:
    directory = view.real(f"/sys/class/block/{name}")
    if view.integer(f"{directory}/partition") is not None:
        directory = posixpath.dirname(directory)
    return bool(view.integer(f"{directory}/queue/discard_max_bytes"))


def _bytes(view: View, name: str) -> int | None:
    sectors = view.integer(f"/sys/class/block/{name}/size")
    return None if sectors is None else sectors * SECTOR
