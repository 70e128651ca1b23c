# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the first blocks of a device say about the file system on it: type, UUID and size.

One read without a process. Sources of facts: the kernel's ``fs/xfs/libxfs/xfs_format.h``,
``fs/ext4/ext4.h``, ``include/uapi/linux/btrfs_tree.h`` and ``fs/xfs/libxfs/xfs_fs.h``.
"""

from __future__ import annotations

import fcntl
import os
import struct
import uuid
from dataclasses import dataclass

HEAD = (64 << 10) + 4096
"""Bytes from the beginning that hold every superblock that is known here."""

_EXT = 1024
_BTRFS = 64 << 10
_EXT_COMPAT_JOURNAL = 0x4
_EXT_INCOMPAT_EXTENTS = 0x40
_EXT_INCOMPAT_64BIT = 0x80
_EXT_RO_COMPAT_PROJECT = 0x2000
_XFS_RO_COMPAT_REFLINK = 0x4
_XFS_GEOMETRY = struct.Struct("=8I4Q16s2Ii4I4x")
_XFS_IOC_FSGEOMETRY_V1 = 2 << 30 | _XFS_GEOMETRY.size << 16 | ord("X") << 8 | 100


@dataclass(frozen=True)
class Superblock:
    """A file system as it describes itself. ``size`` is in bytes; ``reflink`` and ``project`` are features."""

    filesystem: str
    uuid: str
    size: int
    reflink: bool = False
    project: bool = False


def parse(head: bytes) -> Superblock | None:
    """The file system that ``head``, the first :data:`HEAD` bytes of a device, belongs to."""
    return _xfs(head) or _ext4(head) or _btrfs(head)


def read(path: str) -> Superblock | None:
    """The file system on a device or in a file; None without one, or if it can't be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return parse(os.pread(handle, HEAD, 0))
    except OSError:
        return None
    finally:
        os.close(handle)


def mounted_size(path: str, filesystem: str) -> int | None:
    """The size in bytes of the mounted file system at ``path``, as :func:`read` would tell it.

    XFS writes its superblock past the cache that a read of the device goes through, so the
    mounted file system is asked. ext4 keeps both in step. On btrfs statvfs(3) tells all of it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if filesystem == "btrfs":
            found = os.fstatvfs(handle)
            return found.f_blocks * found.f_frsize
        if filesystem != "xfs":
            return None
        answer = fcntl.ioctl(handle, _XFS_IOC_FSGEOMETRY_V1, bytes(_XFS_GEOMETRY.size))
        fields = _XFS_GEOMETRY.unpack(answer)
        return int(fields[0]) * int(fields[8])
    except OSError:
        return None
    finally:
        os.close(handle)


def _xfs(head: bytes) -> Superblock | None:
    if head[:4] != b"XFSB" or len(head) < 264:
        return None
    block, blocks = struct.unpack_from(">IQ", head, 4)
    version = struct.unpack_from(">H", head, 100)[0] & 0xF
    features = struct.unpack_from(">I", head, 212)[0] if version == 5 else 0
    return Superblock(
        "xfs",
        str(uuid.UUID(bytes=head[32:48])),
        block * blocks,
        reflink=bool(features & _XFS_RO_COMPAT_REFLINK),
        # Every XFS can have project quotas.
        project=True,
    )


def _ext4(head: bytes) -> Superblock | None:
    if len(head) < _EXT + 1024 or head[_EXT + 0x38 : _EXT + 0x3A] != b"\x53\xef":
        return None
    compat, incompat, ro_compat = struct.unpack_from("<III", head, _EXT + 0x5C)
    blocks = struct.unpack_from("<I", head, _EXT + 0x4)[0]
    if incompat & _EXT_INCOMPAT_64BIT:
        blocks |= struct.unpack_from("<I", head, _EXT + 0x150)[0] << 32
    block = 1024 << struct.unpack_from("<I", head, _EXT + 0x18)[0]
    older = "ext3" if compat & _EXT_COMPAT_JOURNAL else "ext2"
    return Superblock(
        "ext4" if incompat & _EXT_INCOMPAT_EXTENTS else older,
        str(uuid.UUID(bytes=head[_EXT + 0x68 : _EXT + 0x78])),
        block * blocks,
        project=bool(ro_compat & _EXT_RO_COMPAT_PROJECT),
    )


def _btrfs(head: bytes) -> Superblock | None:
    if head[_BTRFS + 0x40 : _BTRFS + 0x48] != b"_BHRfS_M":
        return None
    return Superblock(
        "btrfs",
        str(uuid.UUID(bytes=head[_BTRFS + 0x20 : _BTRFS + 0x30])),
        struct.unpack_from("<Q", head, _BTRFS + 0x70)[0],
        reflink=True,
        project=True,
    )
