# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the engine inside an environment answer? Asked from the host, without starting a process.

The socket is reached through ``/proc/<pid>/root``. A symbolic link on that way would lead
into the host's own files, so there must be none; and only a harmless question is ever put
to the socket, because a job could have put another one there.
"""

from __future__ import annotations

import http.client
import os
import socket
import stat

FOLDER, SOCKET = "run", "docker.sock"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("engine", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def answers(pid: int, timeout: float = 2.0, proc: str = "/proc") -> bool:
    """True if the engine in the container whose first process is ``pid`` answers a ping."""
    folder = f"{proc}/{pid}/root/{FOLDER}"
    path = f"{folder}/{SOCKET}"
    connection = _Connection(path, timeout)
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode) or not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
