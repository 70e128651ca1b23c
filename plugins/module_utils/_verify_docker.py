# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to a Docker daemon over its Unix socket, read-only, without starting a process.

Inner daemons are asked through ``/proc/PID/root`` of their environment, so nothing of the
environment's own programs runs, and no link in it can lead elsewhere: every part of the path
has to be a real folder, and the socket a real socket.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
from typing import Any, Protocol

from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError


class Ask(Protocol):
    """Asks the daemon behind ``path`` (below ``root``) for ``url``; returns the parsed answer."""

    def __call__(self, path: str, url: str, *, root: str = "/", timeout: float = 5.0) -> Any: ...


class NoAnswer(HostError):
    """The daemon isn't there, doesn't answer in time, or refuses; ``status`` is its HTTP status, if any."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class _Connection(http.client.HTTPConnection):
    def __init__(self, descriptor: int, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.descriptor = descriptor

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(f"/proc/self/fd/{self.descriptor}")


def _open(root: str, path: str) -> int:
    """Open the socket ``path`` below ``root`` without following any link in it."""
    here = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        for part in path.strip("/").split("/"):
            below = os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        if not stat.S_ISSOCK(os.fstat(here).st_mode):
            raise NoAnswer(f"{path} isn't a socket")
    except BaseException:
        os.close(here)
        raise
    return here


def ask(path: str, url: str, *, root: str = "/", timeout: float = 5.0) -> Any:
    """``GET url`` from the daemon on the Unix socket ``path`` below ``root``.

    :param timeout: seconds for each step of the conversation.
    :raises NoAnswer: with the reason in words.
    """
    try:
        descriptor = _open(root, path)
    except FileNotFoundError:
        raise NoAnswer(f"no socket at {path}") from None
    except OSError as error:
        raise NoAnswer(f"{path} can't be opened: {error.strerror}") from None
    connection = _Connection(descriptor, timeout)
    try:
        connection.request("GET", url)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise NoAnswer(
                f"{url} answers {answer.status}: {body[:300].decode(errors='replace')}", answer.status
            )
        return json.loads(body)
    except ConnectionRefusedError:
        raise NoAnswer(f"nothing listens on {path}") from None
    except TimeoutError:
        raise NoAnswer(f"{path} gave no answer within {timeout:g} s") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(f"{path}: {error or type(error).__name__}") from None
    finally:
        connection.close()
        os.close(descriptor)
