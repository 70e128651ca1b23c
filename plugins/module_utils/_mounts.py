# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which file system a path lies on, and which disk is behind it.

Source of facts: ``/proc/<pid>/mountinfo`` (proc_pid_mountinfo(5)) and ``/sys/dev/block``.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError

UNION = frozenset({"overlay", "aufs", "fuse.fuse-overlayfs", "fuse-overlayfs"})
MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "afs", "lustre", "gfs2", "ocfs2"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.cephfs", "fuse.s3fs", "fuse.rclone"}
)
NATIVE = ("ext4", "xfs", "btrfs", "zfs", "ext3", "f2fs", "bcachefs")
"""File systems that an engine can keep its data on."""

_ESCAPE = re.compile(r"\\([0-7]{3})")


def within(outer: str, inner: str) -> bool:
    """Whether the path ``inner`` is ``outer`` or below it."""
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo. ``device`` is ``major:minor``, ``root`` the path within the file system."""

    id: int
    parent: int
    device: str
    root: str
    mount_point: str
    options: tuple[str, ...]
    filesystem: str
    source: str
    super_options: tuple[str, ...]

    @property
    def read_only(self) -> bool:
        return "ro" in self.options or "ro" in self.super_options

    def super_option(self, name: str) -> str | None:
        """The value of ``name=value`` among the file system's own options."""
        for option in self.super_options:
            key, equals, value = option.partition("=")
            if equals and key == name:
                return value
        return None


def parse_mountinfo(text: str) -> list[Mount]:
    """The mounts in ``text``, in the kernel's order.

    :raises HostError: for a line that isn't one of mountinfo.
    """
    return [_mount(line) for line in text.split("\n") if line.strip()]


def _mount(line: str) -> Mount:
    fields = line.split(" ")
    try:
        separator = fields.index("-", 6)
        filesystem, source, super_options = fields[separator + 1 : separator + 4]
        return Mount(
            id=int(fields[0]),
            parent=int(fields[1]),
            device=fields[2],
            root=_unescape(fields[3]),
            mount_point=_unescape(fields[4]),
            options=tuple(fields[5].split(",")),
            filesystem=_unescape(filesystem),
            source=_unescape(source),
            super_options=tuple(_unescape(option) for option in super_options.split(",")),
        )
    except (ValueError, IndexError) as error:
        raise HostError(f"mountinfo has a line that can't be read: {line!r}") from error


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)


class MountTable:
    """The mounts of one mount namespace."""

    def __init__(self, mounts: Iterable[Mount]) -> None:
        self.mounts = list(mounts)
        self._at: dict[str, list[Mount]] = {}
        for mount in self.mounts:
            self._at.setdefault(mount.mount_point, []).append(mount)

    @classmethod
    def parse(cls, text: str) -> MountTable:
        """A table from the text of a mountinfo file."""
        return cls(parse_mountinfo(text))

    def of(self, path: str) -> Mount | None:
        """The mount that ``path`` (absolute, without symlinks) lies on, as the kernel resolves it.

        A mount that was covered later by one on a shorter path doesn't count.
        """
        known = {mount.id for mount in self.mounts}
        start = [
            mount for mount in self._at.get("/", []) if mount.parent not in known or mount.parent == mount.id
        ]
        if not start:
            start = self._at.get("/", [])[:1]
        current = start[0] if start else None
        point = ""
        for part in ["", *[name for name in posixpath.normpath(path).split("/") if name]]:
            point = f"{point}/{part}" if part else "/"
            point = "/" + point.lstrip("/")
            current = self._top(current, point)
        return current

    def _top(self, below: Mount | None, point: str) -> Mount | None:
        """The uppermost mount on ``point`` whose chain of parents begins with ``below``."""
        here = self._at.get(point, [])
        seen: set[int] = set()
        while True:
            upper = [
                mount
                for mount in here
                if below is not None
                and mount.parent == below.id
                and mount.id not in seen
                and mount is not below
            ]
            if not upper:
                return below
            below = upper[-1]
            seen.add(below.id)


class Disks:
    """Whole disks behind a mount, from ``/sys/dev/block`` below ``root``."""

    def __init__(self, root: str = "/") -> None:
        self._root = root

    def device(self, mount: Mount) -> str | None:
        """The path of the block device behind ``mount``, None if there is none (tmpfs, overlay, NFS)."""
        number = self._number(mount)
        if number is None:
            return mount.source if mount.source.startswith("/dev/") else None
        return "/dev/" + os.path.basename(os.path.realpath(self._block(number)))

    def disks(self, mount: Mount) -> frozenset[str]:
        """Names of the whole disks behind ``mount`` (``vda``); through partitions, LVM, RAID and dm-crypt.

        A ZFS pool counts as one disk, ``zfs:<pool>``.
        """
        if mount.filesystem == "zfs":
            return frozenset({"zfs:" + mount.source.split("/")[0]})
        number = self._number(mount)
        return self._whole(os.path.realpath(self._block(number))) if number else frozenset()

    def shared(self, first: Mount, second: Mount) -> bool:
        """Whether both are one file system, or have a disk in common."""
        return first.device == second.device or bool(self.disks(first) & self.disks(second))

    def _block(self, number: str) -> str:
        return os.path.join(self._root, "sys/dev/block", number)

    def _number(self, mount: Mount) -> str | None:
        if os.path.exists(self._block(mount.device)):
            return mount.device
        if mount.source.startswith("/dev/"):
            # btrfs shows an anonymous device number; its source names a real one.
            try:
                number = os.stat(os.path.join(self._root, mount.source.lstrip("/"))).st_rdev
            except OSError:
                return None
            text = f"{os.major(number)}:{os.minor(number)}"
            return text if os.path.exists(self._block(text)) else None
        return None

    def _whole(self, directory: str) -> frozenset[str]:
        if os.path.exists(os.path.join(directory, "partition")):
            directory = os.path.dirname(directory)
        try:
            below: Sequence[str] = os.listdir(os.path.join(directory, "slaves"))
        except OSError:
            below = ()
        if not below:
            return frozenset({os.path.basename(directory)})
        found: set[str] = set()
        for name in below:
            found |= self._whole(os.path.realpath(os.path.join(directory, "slaves", name)))
        return frozenset(found)
