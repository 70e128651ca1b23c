# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions over real Unix sockets: answers, refusals, silence, and traps that a job could lay."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import socketserver
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import NoAnswer, ask


class _Daemon(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers = {
            "/info": (200, b'{"ID": "x"}'),
            "/none": (404, b'{"message": "no such thing"}'),
            "/odd": (200, b"<"),
        }
        status, body = answers[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def root() -> Iterator[Path]:
    """A root with a daemon on run/docker.sock; the path is short enough for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="v-") as folder:
        path = Path(folder)
        (path / "run").mkdir()
        with socketserver.ThreadingUnixStreamServer(str(path / "run/docker.sock"), _Daemon) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            yield path
            server.shutdown()
            thread.join()


def test_an_answer(root: Path) -> None:
    assert ask("/run/docker.sock", "/info", root=str(root)) == {"ID": "x"}


def test_a_refusal_has_its_status(root: Path) -> None:
    with pytest.raises(NoAnswer, match="no such thing") as caught:
        ask("/run/docker.sock", "/none", root=str(root))
    assert caught.value.status == 404


def test_what_is_no_json(root: Path) -> None:
    with pytest.raises(NoAnswer):
        ask("/run/docker.sock", "/odd", root=str(root))


def test_no_socket(root: Path) -> None:
    with pytest.raises(NoAnswer, match=r"no socket at /run/other\.sock"):
        ask("/run/other.sock", "/info", root=str(root))


def test_a_file_in_its_place(root: Path) -> None:
    (root / "run/other.sock").touch()
    with pytest.raises(NoAnswer, match="isn't a socket"):
        ask("/run/other.sock", "/info", root=str(root))


@pytest.mark.parametrize("link", ["socket", "folder"])
def test_a_link_leads_nowhere(root: Path, link: str) -> None:
    if link == "socket":
        (root / "run/trap.sock").symlink_to(root / "run/docker.sock")
        path = "/run/trap.sock"
    else:
        (root / "trap").symlink_to(root / "run")
        path = "/trap/docker.sock"
    with pytest.raises(NoAnswer):
        ask(path, "/info", root=str(root))


def test_nobody_listens(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(root / "run/left.sock"))
    with pytest.raises(NoAnswer, match="nothing listens"):
        ask("/run/left.sock", "/info", root=str(root))


def test_silence_ends(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(root / "run/silent.sock"))
        silent.listen()
        with pytest.raises(NoAnswer, match=r"no answer within 0\.1 s"):
            ask("/run/silent.sock", "/info", root=str(root), timeout=0.1)


def test_no_descriptor_is_left(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path, url in (("/run/docker.sock", "/info"), ("/run/docker.sock", "/none"), ("/run/x", "/info")):
        with contextlib.suppress(NoAnswer):
            ask(path, url, root=str(root))
    # The daemon's own ends of the conversations are in this process too, and its threads close them in time.
    end = time.monotonic() + 10
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < end:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) <= before
