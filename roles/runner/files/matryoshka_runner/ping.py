# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a Docker engine behind a Unix socket whether it is there, without starting a process.

A job can have put a program of its own behind the socket of its environment: no more than the status line
is read, and it isn't waited for any longer than for an engine, however slowly it comes.
"""

from __future__ import annotations

import re
import socket
import time

QUESTION = b"GET /_ping HTTP/1.0\r\n\r\n"
WELL = re.compile(rb"HTTP/1\.[01] 200[ \r]")
ENOUGH = 16
"""Bytes of the answer that are read at most."""


def ping(path: str, timeout: float) -> bool:
    """True if the engine behind the socket at ``path`` answers within ``timeout`` seconds."""
    until, said = time.monotonic() + timeout, b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as end:
            end.settimeout(timeout)
            end.connect(path)
            end.sendall(QUESTION)
            while len(said) < ENOUGH:
                end.settimeout(max(until - time.monotonic(), 0.001))
                more = end.recv(ENOUGH - len(said))
                if not more:
                    break
                said += more
    except OSError:
        return False
    return WELL.match(said) is not None
