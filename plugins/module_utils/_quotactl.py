# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's interfaces for project quotas: quotactl(2) and the project id of an inode.

Sources of facts: ``linux/dqblk_xfs.h``, ``linux/fs.h``, ``fs/quota/quota.c``. The commands that came with XFS
(``Q_X…``) are answered for ext4 too, so there is one form of limits and usage for both file systems.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

PROJECT = 2
"""``PRJQUOTA``: the type of quota that all calls here are about."""

_GET_QUOTA, _SET_LIMITS, _GET_STATE, _GET_NEXT = (ord("X") << 8 | number for number in (3, 4, 8, 9))
_SYNC = 0x800001
_SYS_QUOTACTL_FD = 443
_SYS_FILE_SETATTR = 469
_HARD_AND_SOFT = 0b1111
_ACCOUNTED, _ENFORCED = 1 << 4, 1 << 5
_BLOCK = 512

_FSXATTR = struct.Struct("=IIIII8s")
_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820
_INHERIT = 0x200
_FILE_ATTR = struct.Struct("=QIIII")
_AT_SYMLINK_NOFOLLOW = 0x100

READ_ATTRIBUTES = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
"""How a file is opened for its attributes: never through a link, never waiting for a pipe's other end."""

UNSUPPORTED = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
"""What a file system without project ids answers."""

Answer = TypeVar("Answer")


class _Record(ctypes.Structure):
    """``struct fs_disk_quota``."""

    _fields_ = (
        ("version", ctypes.c_int8),
        ("flags", ctypes.c_int8),
        ("field_mask", ctypes.c_uint16),
        ("id", ctypes.c_uint32),
        ("hard_blocks", ctypes.c_uint64),
        ("soft_blocks", ctypes.c_uint64),
        ("hard_inodes", ctypes.c_uint64),
        ("soft_inodes", ctypes.c_uint64),
        ("blocks", ctypes.c_uint64),
        ("inodes", ctypes.c_uint64),
        ("timers_and_realtime", ctypes.c_uint8 * 56),
    )


class _State(ctypes.Structure):
    """``struct fs_quota_statv``; only its flags are read."""

    _fields_ = (
        ("version", ctypes.c_int8),
        ("padding", ctypes.c_uint8),
        ("flags", ctypes.c_uint16),
        ("rest", ctypes.c_uint8 * 156),
    )


@dataclass(frozen=True)
class Limits:
    """Limits of a project; 0 is no limit."""

    bytes: int = 0
    inodes: int = 0
    soft_bytes: int = 0
    soft_inodes: int = 0


@dataclass(frozen=True)
class Usage:
    """What a project uses now, and its limits."""

    id: int
    bytes: int = 0
    inodes: int = 0
    limits: Limits = Limits()


@dataclass(frozen=True)
class QuotaState:
    """Whether a file system counts what projects use, and holds them to their limits."""

    accounting: bool
    enforced: bool
    why: str = ""


def project_of(file: str | int) -> tuple[int, bool]:
    """The project id of a file or directory (path or descriptor), and whether new files in it inherit the id.

    :raises OSError: with an errno of :data:`UNSUPPORTED` where the file system has no project ids.
    """
    if isinstance(file, int):
        flags, _extent, _extents, project, _copy, _padding = _attributes(file)
        return project, bool(flags & _INHERIT)
    descriptor = os.open(file, READ_ATTRIBUTES)
    try:
        return project_of(descriptor)
    finally:
        os.close(descriptor)


def set_project(descriptor: int, project: int) -> None:
    """Give an open file or directory the project id. A directory hands it on to new files, unless it is 0."""
    flags, extent, extents, _project, copy, padding = _attributes(descriptor)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        flags = flags | _INHERIT if project else flags & ~_INHERIT
    fcntl.ioctl(descriptor, _SET_ATTRIBUTES, _FSXATTR.pack(flags, extent, extents, project, copy, padding))


def set_special_project(name: str, project: int, directory: int) -> bool:
    """The same for a link, socket, pipe or device, which can't be opened. False before Linux 6.17."""
    attributes = ctypes.create_string_buffer(_FILE_ATTR.pack(0, 0, 0, project, 0), _FILE_ATTR.size)
    try:
        _system_call(
            _SYS_FILE_SETATTR,
            directory,
            ctypes.c_char_p(os.fsencode(name)),
            attributes,
            ctypes.c_size_t(_FILE_ATTR.size),
            _AT_SYMLINK_NOFOLLOW,
        )
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return False
        raise
    return True


def kernel_has_quotas() -> bool:
    """Whether the kernel was built with quotas at all."""
    return _libc().quotactl(_command(_SYNC), None, 0, None) == 0 or ctypes.get_errno() != errno.ENOSYS


def quota_state(device: str | None, mount_point: str, filesystem: str = "") -> QuotaState:
    """What the kernel says of project quotas on a mounted file system (XFS, ext4)."""
    if filesystem not in ("xfs", "ext4", ""):
        return QuotaState(False, False, f"{filesystem} has no project quotas")
    try:
        return read_quota_state(device, mount_point)
    except OSError as error:
        return QuotaState(False, False, _why(error))


def read_quota_state(device: str | None, mount_point: str) -> QuotaState:
    """The same of any file system that may have project quotas.

    :raises OSError: the kernel doesn't say.
    """
    state = _State(version=1)
    _quotactl(device, mount_point, _GET_STATE, 0, state)
    accounted, enforced = bool(state.flags & _ACCOUNTED), bool(state.flags & _ENFORCED)
    why = "" if enforced else "limits are not enforced" if accounted else "not switched on"
    return QuotaState(accounted, enforced, why)


def get_project_quota(device: str | None, project: int, mount_point: str | None = None) -> Usage:
    """Usage and limits of a project; all zero for one that the file system doesn't know.

    :raises OSError: quotas aren't on.
    """
    return find_project_quota(device, project, mount_point) or Usage(project)


def find_project_quota(device: str | None, project: int, mount_point: str | None = None) -> Usage | None:
    """The same; None for one that the file system doesn't know, as XFS says before anything is charged to it."""
    record = _Record()
    try:
        _quotactl(device, mount_point, _GET_QUOTA, project, record)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return _usage(record)


def next_project_quota(device: str | None, project: int, mount_point: str | None = None) -> Usage | None:
    """The first project from ``project`` on that uses or has a limit for anything."""
    record = _Record()
    try:
        _quotactl(device, mount_point, _GET_NEXT, project, record)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return None
        raise
    return _usage(record)


def set_project_limits(
    device: str | None, project: int, limits: Limits, mount_point: str | None = None
) -> None:
    """Set all four limits of a project. Bytes are rounded up to 512."""
    record = _Record(
        version=1,
        flags=2,
        field_mask=_HARD_AND_SOFT,
        id=project,
        hard_blocks=-(-limits.bytes // _BLOCK),
        soft_blocks=-(-limits.soft_bytes // _BLOCK),
        hard_inodes=limits.inodes,
        soft_inodes=limits.soft_inodes,
    )
    _quotactl(device, mount_point, _SET_LIMITS, project, record)


def _usage(record: _Record) -> Usage:
    limits = Limits(
        record.hard_blocks * _BLOCK, record.hard_inodes, record.soft_blocks * _BLOCK, record.soft_inodes
    )
    return Usage(record.id, record.blocks * _BLOCK, record.inodes, limits)


def _attributes(descriptor: int) -> tuple[Any, ...]:
    return _FSXATTR.unpack(fcntl.ioctl(descriptor, _GET_ATTRIBUTES, bytes(_FSXATTR.size)))


def _quotactl(
    device: str | None, mount_point: str | None, command: int, project: int, record: ctypes.Structure
) -> None:
    """By any file of the file system where the kernel can (5.14), which needs no device node; else by device."""
    if mount_point is not None:
        descriptor = os.open(mount_point, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _system_call(
                _SYS_QUOTACTL_FD,
                descriptor,
                _command(command),
                ctypes.c_uint32(project),
                ctypes.byref(record),
            )
            return
        except OSError as error:
            if error.errno != errno.ENOSYS or device is None:
                raise
        finally:
            os.close(descriptor)
    if device is None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    _checked(
        lambda: _libc().quotactl(
            _command(command), os.fsencode(device or ""), ctypes.c_uint32(project), ctypes.byref(record)
        )
    )


def _command(command: int) -> ctypes.c_uint32:
    return ctypes.c_uint32(command << 8 | PROJECT)


def _why(error: OSError) -> str:
    if error.errno == errno.ENOSYS and not kernel_has_quotas():
        return "the kernel has no quotas"
    if error.errno in (errno.ENOSYS, errno.ESRCH, errno.EINVAL):
        return "not switched on"
    return f"quotactl: {error.strerror}"


def _system_call(number: int, *arguments: Any) -> int:
    return _checked(lambda: int(_libc().syscall(ctypes.c_long(number), *arguments)))


def _checked(call: Callable[[], Answer]) -> Answer:
    answer = call()
    if answer == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
