# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the system in words a person can act on: the path, the cause, what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

ROOM = 1 << 18
"""Bytes that have to be free, so that a note or a state can be written."""
KEPT = 16 << 20
"""What ext4 keeps from root too: 2 % of the blocks, 4096 at most (``fs/ext4/super.c``); it is told as free."""
WHAT_TO_DO: Mapping[int, str] = {
    errno.ENOSPC: "make room on its file system (df -h, df -i)",
    errno.EDQUOT: "make room below its quota, or raise the quota",
    errno.EROFS: "its file system was turned read-only: see dmesg, repair it and mount it writable again",
    errno.EIO: "its disk doesn't do what it is told: see dmesg",
}


def explain(error: BaseException, again: bool = False) -> str:
    """An error in one line.

    :param again: say that the runner tries again by itself.
    """
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error) or type(error).__name__
    path = error.filename2 or error.filename
    if isinstance(path, bytes):
        path = path.decode(errors="replace")
    text = f"{path}: {error.strerror}" if path is not None else error.strerror
    todo = WHAT_TO_DO.get(error.errno or 0)
    return f"{text}; {todo}{'; it is tried again' if again else ''}" if todo else text


def is_lack(error: BaseException) -> bool:
    """Whether room, or a writable file system, is what is missing."""
    return isinstance(error, OSError) and error.errno in WHAT_TO_DO


def lack_of_room(folder: Path) -> str:
    """Why root can't write another file in ``folder``, empty if it can, or if that can't be asked."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return ""
    kept = min(found.f_blocks * found.f_frsize // 50, KEPT)
    if found.f_bfree * found.f_frsize < ROOM + kept or (found.f_files and not found.f_ffree):
        return f"{folder}: {os.strerror(errno.ENOSPC)}; {WHAT_TO_DO[errno.ENOSPC]}"
    if found.f_flag & os.ST_RDONLY:
        return f"{folder}: {os.strerror(errno.EROFS)}; {WHAT_TO_DO[errno.EROFS]}"
    return ""
