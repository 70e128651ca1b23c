# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Speaks to the Docker engine on the host by its HTTP API, without starting a process.

A client of the engine is a program of 30 MB and more, and an environment's life took eight of them.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import time
from dataclasses import dataclass
from typing import Any

from matryoshka_runner.clients import SILENT
from matryoshka_runner.errors import EngineError, EngineUnavailable
from matryoshka_runner.process import GLANCE, Enough


@dataclass(frozen=True)
class Answer:
    """An engine's answer: HTTP status, body, and the newest version of its API, which every answer names."""

    status: int
    body: bytes = b""
    version: str = ""

    @property
    def ok(self) -> bool:
        """Done, or there was nothing to do (304)."""
        return self.status < 400

    @property
    def said(self) -> str:
        """What it says of an error, in one line."""
        try:
            text = str(json.loads(self.body)["message"])
        except (ValueError, KeyError, TypeError):
            text = self.body.decode(errors="replace")
        return " ".join(text.split()) or f"HTTP status {self.status}"

    def data(self) -> Any:
        """The body's JSON; EngineError if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise EngineError(f"{self.body[:80]!r} isn't an answer in JSON") from None


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("engine", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(
    path: str,
    method: str,
    target: str,
    body: Any = None,
    timeout: float = 60.0,
    enough: Enough | None = None,
) -> Answer:
    """Ask the engine behind the socket at ``path``.

    :param target: the request's path, and its query.
    :param body: sent as JSON, unless it is None.
    :param enough: asked every :data:`GLANCE` until the answer begins: why it isn't waited for any longer.
    :raises EngineUnavailable: it can't be reached, goes away before it has answered, or doesn't answer at all.
    :raises EngineError: there was no answer within ``timeout`` seconds, or ``enough`` said why.
    """
    until = time.monotonic() + timeout
    connection = _Connection(path, timeout)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method, target, sent, {"Content-Type": "application/json"} if sent else {})
        _await(connection.sock, until, enough)
        connection.sock.settimeout(max(until - time.monotonic(), 0.001))
        response = connection.getresponse()
        return Answer(response.status, response.read(), response.getheader("Api-Version") or "")
    except TimeoutError:
        raise EngineError(f"no end within {timeout:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise EngineUnavailable(f"{SILENT} on {path}: {error or type(error).__name__}") from error
    finally:
        connection.close()


def _await(end: socket.socket, until: float, enough: Enough | None) -> None:
    poll = select.poll()
    poll.register(end, select.POLLIN)
    while True:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if poll.poll((min(left, GLANCE) if enough else left) * 1000):
            return
        why = enough() if enough else ""
        if why:
            raise (EngineUnavailable if why == SILENT else EngineError)(why)
