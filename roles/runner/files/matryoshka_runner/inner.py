# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the engine inside an environment answer? Asked from the host, without starting a process.

The socket is reached through ``/proc/<pid>/root``. A symbolic link on that way would lead
into the host's own files, so there must be none; and only a harmless question is ever put
to the socket, because a job could have put another one there.
"""

from __future__ import annotations

import os
import stat

from matryoshka_runner.ping import ping

FOLDER, SOCKET = "run", "docker.sock"


def answers(pid: int, timeout: float = 2.0, proc: str = "/proc") -> bool:
    """True if the engine in the container whose first process is ``pid`` answers a ping."""
    folder = f"{proc}/{pid}/root/{FOLDER}"
    path = f"{folder}/{SOCKET}"
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode) or not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except OSError:
        return False
    return ping(path, timeout)
