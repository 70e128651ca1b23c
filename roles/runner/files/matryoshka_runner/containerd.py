# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the containerd below a Docker engine answer? Without it dockerd answers, and starts nothing.

A file of a socket stays when its owner was killed, and a folder when another place is used
since: only where it answered once is known to be the engine's. It is connected to, and nothing is
said: inside an environment a job could have put another socket, or a link, in its place.
"""

from __future__ import annotations

import os
import socket
import stat
from dataclasses import dataclass

PLACES = ("run/docker/containerd/containerd.sock", "run/containerd/containerd.sock")
"""Where dockerd has the one that it starts (``libcontainerd/supervisor``), and where a service has its own."""
HOST = "/"


@dataclass(frozen=True)
class Containerd:
    """A containerd that answered once: the folder that is its root, and its socket's place in it."""

    root: str
    place: str

    @classmethod
    def find(cls, root: str) -> Containerd | None:
        """The one that answers in ``root``, ``/proc/<pid>/root`` for a container's; None if none is known."""
        found = (cls(root, place) for place in PLACES)
        return next((one for one in found if one.answers()), None)

    def answers(self, timeout: float = 2.0) -> bool:
        """True if its socket takes a connection within ``timeout`` seconds."""
        path = self.root.rstrip("/")
        *folders, name = self.place.split("/")
        try:
            for folder in folders:
                path += f"/{folder}"
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    return False
            path += f"/{name}"
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                return False
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as end:
                end.settimeout(timeout)
                end.connect(path)
        except OSError:
            return False
        return True
