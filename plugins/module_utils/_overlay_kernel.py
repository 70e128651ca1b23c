# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Linux system calls for namespaces and mounts that Python's library lacks.

Sources: unshare(2), mount(2), umount(2), prctl(2), open_tree(2), move_mount(2), mount_setattr(2), readdir(3).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
MS_RDONLY = 1
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_OPEN_TREE = 428
_MOVE_MOUNT = 429
_MOUNT_SETATTR = 442
_OPEN_TREE_CLONE = 1
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOUNT_ATTR_IDMAP = 0x00100000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = ctypes.c_void_p
_libc.closedir.argtypes = [ctypes.c_void_p]
_readdir = getattr(_libc, "readdir64", _libc.readdir)
_readdir.argtypes = [ctypes.c_void_p]
_readdir.restype = ctypes.c_void_p
_libc.syscall.restype = ctypes.c_long


def errno_name(number: int | None) -> str | None:
    """``EINVAL`` for 22."""
    return None if number is None else errno.errorcode.get(number, str(number))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Leave namespaces for new ones."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, filesystem: str | None, flags: int = 0, data: str | None = None) -> None:
    """Mount, or change how what is mounted propagates."""
    words = [os.fsencode(word) if word is not None else None for word in (source, target, filesystem)]
    options = os.fsencode(data) if data is not None else None
    _checked(_libc.mount(*words, ctypes.c_ulong(flags), options), f"mount {filesystem or target}")


def unmount(target: str) -> None:
    """Take the uppermost mount off ``target`` at once, whoever uses it."""
    _checked(_libc.umount2(os.fsencode(target), ctypes.c_int(MNT_DETACH)), f"umount {target}")


def die_with_parent(signal_number: int) -> None:
    """Be sent the signal when the process that forked this one ends."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0), "prctl")


def stay_dumpable() -> None:
    """Let this process's files in /proc belong to it again after its ids changed."""
    _checked(_libc.prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(1), 0, 0, 0), "prctl")


def mount_idmapped(source: str, target: str, user_namespace: int) -> None:
    """Mount a copy of ``source`` on ``target`` with ids as the user namespace (a file descriptor) maps them."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    tree = _checked(
        _libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), ctypes.c_uint(flags)), "open_tree"
    )
    try:
        attributes = struct.pack("=QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, user_namespace)
        size = ctypes.c_size_t(len(attributes))
        empty = ctypes.c_uint(_AT_EMPTY_PATH)
        _checked(_libc.syscall(_MOUNT_SETATTR, tree, b"", empty, attributes, size), "mount_setattr")
        move = ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH)
        _checked(
            _libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), move),
            "move_mount",
        )
    finally:
        os.close(tree)


def entry_types(directory: str) -> dict[str, int]:
    """The ``d_type`` that readdir(3) gives for each entry; 0 is DT_UNKNOWN."""
    stream = _libc.opendir(os.fsencode(directory))
    if not stream:
        _checked(-1, f"opendir {directory}")
    found: dict[str, int] = {}
    try:
        while entry := _readdir(stream):
            # struct dirent64: inode and offset (8 bytes each), length (2), type (1), name
            name = os.fsdecode(ctypes.string_at(entry + 19))
            if name not in (".", ".."):
                found[name] = ctypes.string_at(entry + 18, 1)[0]
    finally:
        _libc.closedir(stream)
    return found
