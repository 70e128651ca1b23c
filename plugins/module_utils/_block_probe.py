# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Touches a block device itself, for reading only: whether it can be read, is blank, is claimed."""

from __future__ import annotations

import errno
import os
import stat
import time
from dataclasses import dataclass
from typing import Protocol

SAMPLE = 1 << 20
"""Bytes at the beginning and at the end of a device that are looked at."""

CLAIMS = 10
"""How often a claim is tried: another program that looks, or makes a file system, claims for a moment, too."""
BETWEEN_CLAIMS = 0.1
"""Seconds between two tries."""

_BLANKS = (b"\x00", b"\xff")


@dataclass(frozen=True)
class Touched:
    """``blank``: both ends hold nothing. ``busy``: somebody in the kernel claims it; None: not asked."""

    opened: bool = True
    error: str | None = None
    blank: bool | None = None
    busy: bool | None = None


class Probe(Protocol):
    """Looks at a device. See :func:`touch` for the meaning of the parameters."""

    def __call__(self, path: str, size: int, number: str | None, *, claim: bool = False) -> Touched: ...


def touch(path: str, size: int, number: str | None, *, claim: bool = False) -> Touched:
    """Read both ends of the device at ``path``, or try whether it can be had for oneself.

    :param size: its size as sysfs has it, in bytes.
    :param number: its ``major:minor``; a node that is another device is an error.
    :param claim: open it exclusively and close it at once. The kernel refuses that for what is mounted,
        swapped on, or built on, in whatever namespace; and for a partition while its disk is claimed (block/bdev.c,
        ``bd_may_claim``). What is refused for a second is busy.
    """
    try:
        descriptor = _claim(path) if claim else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if claim and error.errno == errno.EBUSY:
            return Touched(busy=True)
        return Touched(opened=False, error=f"it can't be opened: {error.strerror}")
    try:
        wrong = _wrong(descriptor, number)
        if wrong or claim:
            return Touched(error=wrong, busy=None if wrong else False)
        return _read_ends(descriptor, size)
    except OSError as error:
        return Touched(error=f"it can't be read: {error.strerror}")
    finally:
        os.close(descriptor)


def _claim(path: str) -> int:
    """A descriptor that excludes others; OSError if it can't be had, EBUSY if others had it every time."""
    for tried in range(CLAIMS):
        if tried:
            time.sleep(BETWEEN_CLAIMS)
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_EXCL)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)


def _wrong(descriptor: int, number: str | None) -> str | None:
    found = os.fstat(descriptor)
    if not stat.S_ISBLK(found.st_mode):
        return "its node isn't a block device"
    present = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    return None if number in (None, present) else f"its node is the device {present}, not {number}"


def _read_ends(descriptor: int, size: int) -> Touched:
    length = min(SAMPLE, size)
    samples = {offset: os.pread(descriptor, length, offset) for offset in (0, size - length)}
    short = [offset for offset, data in samples.items() if len(data) < length]
    if short:
        return Touched(error=f"it ends before its {size} bytes: nothing to read at {short[0]}")
    return Touched(blank=any(all(is_filled(data, byte) for data in samples.values()) for byte in _BLANKS))


def is_filled(data: bytes, byte: bytes) -> bool:
    """Whether ``data`` is ``byte`` over and over."""
    return data.count(byte) == len(data)
