# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quota groups of btrfs: read from sysfs, changed by ``btrfs``.

Sources of facts: ``linux/btrfs.h``, ``Documentation/ABI/testing`` and ``fs/btrfs/sysfs.c`` (qgroups since Linux 5.9),
btrfs-quota(8), btrfs-qgroup(8).
"""

from __future__ import annotations

import os
import struct
import uuid
from dataclasses import dataclass
from typing import Protocol

from ansible_collections.matryoshka.host.plugins.module_utils._command import CommandError, Runner
from ansible_collections.matryoshka.host.plugins.module_utils._device_chain import BTRFS
from ansible_collections.matryoshka.host.plugins.module_utils._directory_ioctl import ask_directory
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._quotactl import Limits, QuotaState, Usage

_INO_LOOKUP, _FS_INFO = 0xD0009412, 0x8400941F
_FIRST_INODE = 256
_LIMIT_REFERENCED, _LIMIT_EXCLUSIVE = 1, 2
_USED = ("referenced", "rsv_data", "rsv_meta_pertrans", "rsv_meta_prealloc")


class Trees(Protocol):
    """Which file system and which subvolume a directory is."""

    def subvolume(self, path: str) -> int | None: ...

    def filesystem(self, path: str) -> str: ...


class Ioctls:
    """:class:`Trees` as the kernel says."""

    def subvolume(self, path: str) -> int | None:
        """The id of the subvolume whose top ``path`` is; None if it is a directory within one."""
        if os.stat(path).st_ino != _FIRST_INODE:
            return None
        return subvolume_of(path)

    def filesystem(self, path: str) -> str:
        """The UUID of the file system."""
        return str(uuid.UUID(bytes=ask_directory(path, _FS_INFO, bytes(1024))[16:32]))


def subvolume_of(path: str) -> int:
    """The id of the subvolume that a directory is in.

    :raises OSError: it isn't there, or isn't on btrfs.
    """
    found = ask_directory(path, _INO_LOOKUP, struct.pack("=QQ4080s", 0, _FIRST_INODE, b""))
    return int(struct.unpack_from("=Q", found)[0])


@dataclass(frozen=True)
class Accounting:
    """How a file system counts. ``mode`` is ``qgroup``, ``squota`` or empty."""

    mode: str
    consistent: bool = True

    @property
    def state(self) -> QuotaState:
        if not self.mode:
            return QuotaState(False, False, "not switched on")
        why = (
            ""
            if self.consistent
            else "the numbers are out of date, so limits needn't hold, until a rescan has ended"
        )
        return QuotaState(True, True, why)


@dataclass(frozen=True)
class Group:
    """What a subvolume uses and is held to; None is no limit.

    ``used`` is what it refers to with what is being written. The sum is what ``fs/btrfs/qgroup.c`` holds against
    the limit; what is referred to alone lags by a commit.
    """

    used: int
    limit: int | None
    exclusive: int | None
    exclusive_limit: int | None


def groups_folder(filesystem: str) -> str:
    """Where sysfs has the quota groups of the file system with this UUID. Older kernels: only while they are on."""
    return f"{BTRFS}/{filesystem}/qgroups"


def accounting(view: View, filesystem: str) -> Accounting:
    """What the file system with this UUID counts."""
    folder = groups_folder(filesystem)
    if not view.exists(folder):
        return Accounting("")
    # Linux before 6.7 doesn't say the mode and knows one only.
    mode = (view.text(f"{folder}/mode") or "qgroup").strip()
    if mode == "disabled" or (view.text(f"{folder}/enabled") or "1").strip() == "0":
        mode = ""
    return Accounting(mode, (view.text(f"{folder}/inconsistent") or "0").strip() == "0")


def group(view: View, filesystem: str, subvolume: int) -> Group | None:
    """The quota group of a subvolume; None if it isn't counted."""
    folder = f"{groups_folder(filesystem)}/0_{subvolume}"
    if not view.exists(folder):
        return None

    def number(name: str) -> int | None:
        return view.integer(f"{folder}/{name}")

    flags = number("limit_flags") or 0
    return Group(
        used=sum(number(name) or 0 for name in _USED),
        limit=number("max_referenced") if flags & _LIMIT_REFERENCED else None,
        exclusive=number("exclusive"),
        exclusive_limit=number("max_exclusive") if flags & _LIMIT_EXCLUSIVE else None,
    )


def usage(view: View, filesystem: str, subvolume: int) -> Usage | None:
    """What a subvolume uses, and its limit; None if it isn't counted."""
    found = group(view, filesystem, subvolume)
    return None if found is None else Usage(subvolume, found.used, 0, Limits(bytes=found.limit or 0))


def simple_possible(view: View) -> bool:
    """Whether the kernel has simple quotas (Linux 6.7)."""
    return view.exists(f"{BTRFS}/features/simple_quota")


def enable(run: Runner, path: str, simple: bool) -> None:
    """Switch counting on for the whole file system of ``path``; what is there already is counted unless ``simple``."""
    if simple and run(["btrfs", "quota", "enable", "--simple", path], check=False).ok:
        return
    # A rescan counts what has been committed.
    run(["btrfs", "filesystem", "sync", path], timeout=600.0)
    run(["btrfs", "quota", "enable", path])
    rescan(run, path)


def rescan(run: Runner, path: str) -> None:
    """Count anew, to the end."""
    argv = ["btrfs", "quota", "rescan", "-w", path]
    result = run(argv, check=False, timeout=3600.0)
    if not result.ok and "in progress" not in result.err:
        raise CommandError(argv, result)


def make_subvolume(run: Runner, path: str, exists: bool) -> None:
    """A subvolume in the place of nothing, or of an empty directory, whose mode and owner it keeps."""
    if not exists:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        run(["btrfs", "subvolume", "create", path])
        return
    status = os.stat(path)
    os.rmdir(path)
    run(["btrfs", "subvolume", "create", path])
    os.chown(path, status.st_uid, status.st_gid)
    os.chmod(path, status.st_mode & 0o7777)


def set_limit(run: Runner, path: str, limits: Limits) -> None:
    """Limit what a subvolume refers to; 0 lifts the limit."""
    run(["btrfs", "qgroup", "limit", str(limits.bytes) if limits.bytes else "none", path])
