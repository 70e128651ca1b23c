# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to the engine's API, against a real HTTP server behind a socket."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from matryoshka_runner.api import Answer, ask
from matryoshka_runner.clients import SILENT, Clients
from matryoshka_runner.engine import Engine
from matryoshka_runner.errors import EngineError, EngineUnavailable


class Handler(BaseHTTPRequestHandler):
    """Answers with what it was asked; a path says what it does besides."""

    def do_GET(self) -> None:
        if self.path.endswith("/slow"):
            time.sleep(1.0)
        if self.path.endswith("/gone"):
            self.connection.close()
            return
        length = int(self.headers.get("Content-Length") or 0)
        asked = {
            "method": self.command,
            "path": self.path,
            "type": self.headers.get("Content-Type"),
            "body": self.rfile.read(length).decode(),
        }
        body = json.dumps(asked).encode()
        self.send_response(404 if self.path.endswith("/none") else 200)
        self.send_header("Api-Version", "1.45")
        if self.path.endswith("/half"):
            self.send_header("Content-Length", str(len(body) + 1))
        self.end_headers()
        self.wfile.flush()
        if self.path.endswith("/wait"):
            time.sleep(0.5)
        self.wfile.write(body)

    do_POST = do_DELETE = do_GET

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_words: object) -> None:
        return


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def handle_error(self, *_about: object) -> None:
        """A client that goes away is no error."""


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    place = str(tmp_path / "docker.sock")
    with Server(place, Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield place
        server.shutdown()


def test_a_question_and_its_answer(path: str) -> None:
    found = ask(path, "POST", "/containers/create?name=x", {"Image": "y"})
    assert (found.status, found.version, found.ok) == (200, "1.45", True)
    assert found.data() == {
        "method": "POST",
        "path": "/containers/create?name=x",
        "type": "application/json",
        "body": '{"Image": "y"}',
    }
    assert ask(path, "DELETE", "/containers/x").data() == {
        "method": "DELETE",
        "path": "/containers/x",
        "type": None,
        "body": "",
    }
    assert not ask(path, "GET", "/none").ok


def test_an_end_that_is_waited_for_comes_long_after_the_answer_began(path: str) -> None:
    began = time.monotonic()
    assert ask(path, "POST", "/wait", timeout=20).ok
    assert time.monotonic() - began >= 0.5
    with pytest.raises(EngineError, match=r"no end within 0\.2 s") as caught:
        ask(path, "POST", "/wait", timeout=0.2)
    assert caught.type is EngineError


@pytest.mark.parametrize("target", ["/gone", "/half"])
def test_an_engine_that_goes_away_is_unavailable(path: str, target: str) -> None:
    with pytest.raises(EngineUnavailable, match=r"doesn't answer on .*docker\.sock: "):
        ask(path, "GET", target)


def test_without_a_socket_it_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="No such file or directory"):
        ask(str(tmp_path / "none"), "GET", "/_ping")


def test_an_engine_that_is_too_slow_isnt_waited_for(path: str) -> None:
    with pytest.raises(EngineError, match=r"no end within 0\.1 s") as caught:
        ask(path, "GET", "/slow", timeout=0.1)
    assert caught.type is EngineError
    with pytest.raises(EngineError, match=r"no end within 0\.1 s"):
        ask(path, "GET", "/slow", timeout=0.1, enough=lambda: "")
    assert ask(path, "GET", "/slow", enough=lambda: "").ok


@pytest.mark.parametrize(("why", "kind"), [(SILENT, EngineUnavailable), ("it leaves", EngineError)])
def test_it_isnt_waited_for_in_vain(path: str, why: str, kind: type[Exception]) -> None:
    with pytest.raises(EngineError, match=why) as caught:
        ask(path, "GET", "/slow", enough=lambda: why)
    assert caught.type is kind


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(409, b'{"message": "it\\nruns"}'), "it runs"),
        (Answer(404, b"page not found\n"), "page not found"),
        (Answer(500, b"[]"), "[]"),
        (Answer(502), "HTTP status 502"),
    ],
)
def test_what_it_says_of_an_error_is_one_line(answer: Answer, said: str) -> None:
    assert answer.said == said


@pytest.mark.parametrize("answers", [True, False])
def test_a_runner_that_leaves_tells_a_silent_engine_from_a_slow_one(path: str, answers: bool) -> None:
    clients = Clients(lambda: True, lambda: answers)

    def http(method: str, target: str, body: Any = None, timeout: float = 60.0) -> Answer:
        slow = target.replace("/start", "/slow")
        return ask(path, method, slow, body, min(timeout, 0.5), clients.watch())

    with pytest.raises(EngineError, match="no end within" if answers else SILENT) as caught:
        Engine(http=http).start("x")
    assert caught.type is (EngineError if answers else EngineUnavailable)
