# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a file system by ioctl(2) on a directory of it."""

from __future__ import annotations

import fcntl
import os


def ask_directory(path: str, request: int, argument: bytes) -> bytes:
    """What the kernel makes of ``argument``.

    :raises OSError: it is no directory, or its file system doesn't know the request.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    # A buffer over 1024 bytes has to be one that can be written to.
    answer = bytearray(argument)
    try:
        fcntl.ioctl(descriptor, request, answer)
    finally:
        os.close(descriptor)
    return bytes(answer)
