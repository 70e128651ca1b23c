# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory beneath a mount, seen and protected while something is mounted on it.

``open_tree(2)`` gives a private copy of the mount that holds the directory, without the mounts
upon it. The immutable flag (chattr(1), ``+i``) keeps everybody, root and engines included, from
writing there while the disk is away. Source of facts: the kernel's ``include/uapi/linux/mount.h``
and ``include/uapi/linux/fs.h``. Needs Linux 5.2 and root.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError

_SYS_OPEN_TREE = 428  # The same on every architecture but Alpha.
_AT_FDCWD = -100
_OPEN_TREE_CLONE = 1
_FS_IOC_GETFLAGS = 2 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1
_FS_IOC_SETFLAGS = 1 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 2
_IMMUTABLE = 0x10
_UNSUPPORTED = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)

ARGUMENTS: dict[str, Any] = {
    "paths": {"type": "list", "elements": "path", "required": True},
    "protected": {"type": "bool", "default": True},
}


@dataclass(frozen=True)
class Beneath:
    """What lies beneath a mount point. ``protected`` is None where the file system knows no such flag.

    ``kind`` is ``directory``, ``absent`` or ``other``.
    """

    kind: str
    entries: tuple[str, ...] = ()
    protected: bool | None = None


def look(path: str) -> Beneath:
    """What lies at ``path`` beneath whatever is mounted on it.

    :raises HostError: the kernel doesn't let it be seen.
    """
    with _parent(path) as parent:
        if parent is None:
            return Beneath("absent")
        try:
            kind = os.stat(os.path.basename(path), dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return Beneath("absent")
        if not stat.S_ISDIR(kind):
            return Beneath("other")
        with _directory(parent, os.path.basename(path)) as handle:
            flags = _flags(handle)
            names = tuple(sorted(name for name in os.listdir(handle) if name != "lost+found"))
            return Beneath("directory", names, None if flags is None else bool(flags & _IMMUTABLE))


def ensure(path: str, protected: bool = True) -> None:
    """Make the directory beneath whatever is mounted on ``path``, and protect it or let go of it.

    :raises HostError: something else is there, or it can't be made.
    """
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    name = os.path.basename(path)
    with _parent(path) as parent:
        if parent is None:
            raise HostError(f"{path}: the folder above it can't be opened")
        try:
            os.mkdir(name, mode=0o755, dir_fd=parent)
        except FileExistsError:
            pass
        except OSError as error:
            raise HostError(f"{path} can't be made: {error.strerror}") from error
        with _directory(parent, name) as handle:
            flags = _flags(handle)
            if flags is None or bool(flags & _IMMUTABLE) == protected:
                return
            _set_flags(handle, flags | _IMMUTABLE if protected else flags & ~_IMMUTABLE, path)


def answer(params: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """The result of module ``mount_points`` for its parameters (:data:`ARGUMENTS`).

    :raises HostError: before anything has changed, unless the kernel refuses what was planned.
    """
    wanted = params["protected"]
    changed = []
    for index, path in enumerate(params["paths"]):
        variable = f"paths[{index}]"
        if not os.path.isabs(path) or os.path.normpath(path) != path or path == "/":
            raise InputError(variable, path, "an absolute path without '..' and '//', not /")
        found = look(path)
        if found.kind == "other":
            raise InputError(variable, path, "a directory, or a path where nothing is")
        if found.entries and wanted and not found.protected:
            raise InputError(variable, path, f"an empty directory; it holds {', '.join(found.entries[:5])}")
        if (found.kind == "absent" and wanted) or found.protected is (not wanted):
            changed.append(path)
    for path in [] if check else changed:
        ensure(path, wanted)
    return {"changed": bool(changed), "changed_paths": changed}


@contextmanager
def _parent(path: str) -> Iterator[int | None]:
    above = os.path.dirname(path)
    if not os.path.isdir(above):
        yield None
        return
    library = ctypes.CDLL(None, use_errno=True)
    handle = library.syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(above), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    if handle < 0:
        code = ctypes.get_errno()
        raise HostError(
            f"{path} can't be seen beneath its mount: open_tree: {os.strerror(code)}; needed are Linux 5.2 and root"
        )
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _directory(parent: int, name: str) -> Iterator[int]:
    try:
        handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError as error:
        raise HostError(f"{name} is no directory that a file system can be mounted on") from error
    try:
        yield handle
    finally:
        os.close(handle)


def _flags(handle: int) -> int | None:
    try:
        answer = fcntl.ioctl(handle, _FS_IOC_GETFLAGS, bytes(struct.calcsize("l")))
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return int(struct.unpack_from("=i", answer)[0])


def _set_flags(handle: int, flags: int, path: str) -> None:
    try:
        fcntl.ioctl(handle, _FS_IOC_SETFLAGS, struct.pack("=i", flags) + bytes(struct.calcsize("l") - 4))
    except OSError as error:
        raise HostError(f"{path} can't be protected with chattr +i: {error.strerror}") from error
