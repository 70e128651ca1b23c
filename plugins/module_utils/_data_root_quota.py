# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a directory's room is limited: project quotas of XFS and ext4, quota groups of btrfs.

Sources of facts: quotactl(2) and quotactl_fd(2) with the structures of ``linux/dqblk_xfs.h``
(which ext4 answers too), ``FS_IOC_FSGETXATTR`` of ``linux/fs.h`` for a directory's project, and
``/sys/fs/btrfs/<uuid>/qgroups`` (the kernel's Documentation/ABI/testing/sysfs-fs-btrfs). Read only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._device_chain import BTRFS, btrfs_uuid
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Mount

PROJECT_OPTIONS = frozenset({"prjquota", "pquota", "pqnoenforce"})
_PROJECT = 2
_GET_STATE = 0x5808
_GET_QUOTA = 0x5803
_STATE = struct.Struct("=bbHI QQII QQII QQII 32x")
_STATE_VERSION = 1
_ACCOUNTED = 1 << 4
_ENFORCED = 1 << 5
_QUOTA = struct.Struct("=bbHI QQQQQQ 56x")
_BLOCK = 512
_ROOM = 512
_SYS_QUOTACTL_FD = 443
_GET_XATTR = 0x801C581F
_XATTR = struct.Struct("=IIIII8x")
_INHERIT = 0x200
_INO_LOOKUP = 0xD0009412
_FIRST_FREE_OBJECT = 256
_LIMIT_REFERENCED = 1
_LIMIT_EXCLUSIVE = 2

Ask = Callable[[int, int, int], "bytes | int"]
"""``(command, project, room)`` gives the kernel's answer, or the number of the error."""


@dataclass(frozen=True)
class Quota:
    """What limits a directory. Sizes are bytes; None is "no limit" or "not known".

    ``kind`` is ``project`` or ``qgroup``; None where the file system has neither. ``error`` is why
    the kernel gave no state, as the name of an errno.
    """

    kind: str | None = None
    accounted: bool = False
    enforced: bool = False
    requested: bool = False
    error: str | None = None
    project: int | None = None
    inherited: bool | None = None
    qgroup: str | None = None
    inconsistent: bool | None = None
    used: int | None = None
    limit: int | None = None
    soft_limit: int | None = None
    exclusive_used: int | None = None
    exclusive_limit: int | None = None
    inodes_used: int | None = None
    inodes_limit: int | None = None
    inodes_soft_limit: int | None = None
    overlay2_size: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_quota(view: View, path: str, mount: Mount | None, ask: Ask | None = None) -> Quota:
    """The quota of the directory ``path`` (without links) on ``mount``.

    :param ask: how the kernel is asked for project quotas; None: really.
    """
    if mount is None:
        return Quota()
    if mount.filesystem == "btrfs":
        return _btrfs(view, path, mount)
    if mount.filesystem not in ("xfs", "ext4", "f2fs"):
        return Quota()
    project = read_project(view.path(path))
    return project_quota(mount, project, ask or _kernel(view.path(path), mount.source))


def project_quota(mount: Mount, project: tuple[int, bool] | None, ask: Ask) -> Quota:
    """The quota of ``project`` (its id, and whether new files inherit it)."""
    requested = bool(PROJECT_OPTIONS & set(mount.super_options))
    number, inherited = project if project else (None, None)
    known: dict[str, Any] = {"kind": "project", "requested": requested}
    known |= {"project": number, "inherited": inherited}
    state = ask(_GET_STATE, 0, _ROOM)
    if isinstance(state, int):
        return Quota(**known, error=errno.errorcode.get(state, str(state)))
    flags = _STATE.unpack_from(state)[2]
    accounted, enforced = bool(flags & _ACCOUNTED), bool(flags & _ENFORCED)
    known |= {"accounted": accounted, "enforced": enforced}
    known["overlay2_size"] = enforced and mount.filesystem == "xfs"
    if not accounted or not number:
        return Quota(**known)
    answer = ask(_GET_QUOTA, number, _ROOM)
    if isinstance(answer, int):
        # XFS says ENOENT of a project that nothing has been charged to yet.
        return Quota(**known, error=None if answer == errno.ENOENT else errno.errorcode.get(answer))
    hard, soft, inodes_hard, inodes_soft, blocks, inodes = _QUOTA.unpack_from(answer)[4:10]
    return Quota(
        **known,
        used=blocks * _BLOCK,
        limit=hard * _BLOCK or None,
        soft_limit=soft * _BLOCK or None,
        inodes_used=inodes,
        inodes_limit=inodes_hard or None,
        inodes_soft_limit=inodes_soft or None,
    )


def read_project(path: str) -> tuple[int, bool] | None:
    """A directory's project id, and whether what is made in it inherits that; None if it has no such thing."""
    answer = _ioctl(path, _GET_XATTR, bytes(_XATTR.size))
    if answer is None:
        return None
    fields = _XATTR.unpack(answer)
    return fields[3], bool(fields[0] & _INHERIT)


def _btrfs(view: View, path: str, mount: Mount) -> Quota:
    uuid = btrfs_uuid(view, mount)
    groups = f"{BTRFS}/{uuid}/qgroups"
    if uuid is None or not view.exists(groups):
        return Quota(kind="qgroup")
    # Older kernels show the folder only while quotas are on, and have no file "enabled".
    enabled = _number(view, f"{groups}/enabled") in (None, 1)
    subvolume = read_subvolume(view.path(path)) or mount.super_option("subvolid")
    group = f"{groups}/0_{subvolume}"
    known = Quota(
        kind="qgroup",
        accounted=enabled,
        enforced=enabled,
        requested=enabled,
        inconsistent=_number(view, f"{groups}/inconsistent") == 1,
    )
    if subvolume is None or not view.exists(group):
        return known
    flags = _number(view, f"{group}/limit_flags") or 0
    limits = [
        _number(view, f"{group}/{name}") if flags & flag else None
        for name, flag in (("max_referenced", _LIMIT_REFERENCED), ("max_exclusive", _LIMIT_EXCLUSIVE))
    ]
    return Quota(
        **{
            **known.as_dict(),
            "qgroup": f"0/{subvolume}",
            "used": _number(view, f"{group}/referenced"),
            "exclusive_used": _number(view, f"{group}/exclusive"),
            "limit": limits[0],
            "exclusive_limit": limits[1],
        }
    )


def read_subvolume(path: str) -> str | None:
    """The id of the btrfs subvolume that a directory is in."""
    answer = _ioctl(path, _INO_LOOKUP, struct.pack("=QQ", 0, _FIRST_FREE_OBJECT).ljust(4096, b"\0"))
    return str(struct.unpack_from("=Q", answer)[0]) if answer else None


def _ioctl(path: str, request: int, buffer: bytes) -> bytes | None:
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        # A buffer over 1024 bytes has to be one that can be written to.
        room = bytearray(buffer)
        fcntl.ioctl(directory, request, room, True)
        return bytes(room)
    except OSError:
        return None
    finally:
        os.close(directory)


def _kernel(path: str, source: str) -> Ask:
    """Asks for a file system by a directory on it, and by its device where the kernel is older than 5.14."""

    def ask(command: int, project: int, room: int) -> bytes | int:
        library = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(room)
        if command == _GET_STATE:
            buffer[0] = bytes([_STATE_VERSION])
        word = ctypes.c_uint((command << 8) | _PROJECT)
        try:
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            return error.errno or errno.EIO
        try:
            number = ctypes.c_long(_SYS_QUOTACTL_FD)
            if library.syscall(number, ctypes.c_uint(directory), word, ctypes.c_uint(project), buffer) == 0:
                return buffer.raw
        finally:
            os.close(directory)
        # ENOSYS is said by a kernel without the call, and by a file system with no quota on.
        if ctypes.get_errno() == errno.ENOSYS:
            special = ctypes.c_char_p(os.fsencode(source))
            if library.quotactl(word, special, ctypes.c_int(project), buffer) == 0:
                return buffer.raw
        return ctypes.get_errno()

    return ask


def _number(view: View, path: str) -> int | None:
    text = (view.text(path) or "").strip()
    return int(text) if text.isdecimal() else None
