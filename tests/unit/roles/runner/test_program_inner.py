# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking into an environment from the host: its engine's socket, its first process, its jobs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from matryoshka_runner import inner
from matryoshka_runner.background import Background
from matryoshka_runner.firstprocess import FirstProcess
from matryoshka_runner.jobrun import command_for
from matryoshka_runner.ping import ping


class Pong(BaseHTTPRequestHandler):
    """Answers as dockerd does; a path of ``status`` decides with which code."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/_ping" else 404)
        self.end_headers()

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_words: object) -> None:
        return


@pytest.fixture
def proc(tmp_path: Path) -> Iterator[Path]:
    """A /proc in which process 7 has an engine's socket in its root."""
    folder = tmp_path / "7" / "root" / "run"
    folder.mkdir(parents=True)
    server = socketserver.ThreadingUnixStreamServer(str(folder / "docker.sock"), Pong)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path
    server.shutdown()
    server.server_close()


def test_an_engine_that_answers_is_heard(proc: Path) -> None:
    assert inner.answers(7, proc=str(proc))
    assert not inner.answers(8, proc=str(proc))


def test_a_link_that_leads_out_of_the_environment_isnt_followed(proc: Path) -> None:
    for number, link in ((8, "run"), (9, "run/docker.sock")):
        place = proc / str(number) / "root" / link
        place.parent.mkdir(parents=True)
        place.symlink_to(proc / "7" / "root" / link)
        assert ping(str(proc / str(number) / "root" / "run" / "docker.sock"), 1)
        assert not inner.answers(number, proc=str(proc))


class Drip(socketserver.BaseRequestHandler):
    """What a job might put in its engine's place: says one byte after the other, for ever."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.request.sendall(b"H")
                time.sleep(0.05)


def test_who_answers_slowly_for_ever_isnt_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), Drip) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        began = time.monotonic()
        assert not ping(str(path), 0.3)
        assert time.monotonic() - began < 5
        server.shutdown()


def test_an_engine_that_hangs_doesnt_answer(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    server = socketserver.ThreadingUnixStreamServer(str(path), socketserver.BaseRequestHandler)
    try:
        assert not ping(str(path), 0.1)
    finally:
        server.server_close()
    assert not ping(str(path), 0.1)


def test_an_ordinary_process_is_never_taken_for_an_environments_first() -> None:
    process = subprocess.Popen(["sleep", "30"])
    try:
        assert FirstProcess.of(process.pid) is None
        assert FirstProcess.of(os.getpid()) is None
        assert FirstProcess.of(0) is None
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_the_first_process_ends_with_all_of_its_namespace() -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can make a PID namespace here")
    outer = subprocess.Popen(
        ["unshare", "--pid", "--fork", "sh", "-c", "sleep 300 & echo ready; wait"], stdout=subprocess.PIPE
    )
    assert outer.stdout is not None
    assert outer.stdout.readline() == b"ready\n"
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text(encoding="ascii").split()
    inside = Path(f"/proc/{children[0]}/task/{children[0]}/children").read_text(encoding="ascii").split()
    first = FirstProcess.of(int(children[0]))
    assert first is not None
    assert not first.ended()
    assert FirstProcess.of(int(inside[0])) is None
    assert first.kill(5)
    assert first.ended()
    assert not Path(f"/proc/{inside[0]}").exists()
    first.close()
    outer.wait(5)


@pytest.mark.parametrize(
    ("start", "command"),
    [
        (b"#!/usr/bin/python3\nprint()\n", ["/job/script"]),
        (b"\x7fELF\x02\x01", ["/job/script"]),
        (b"echo hello\n", ["sh", "/job/script"]),
        (b"#", ["sh", "/job/script"]),
    ],
)
def test_a_script_says_itself_how_it_is_started(tmp_path: Path, start: bytes, command: list[str]) -> None:
    (tmp_path / "script").write_bytes(start)
    assert command_for(tmp_path / "script") == command


def test_a_background_task_that_fails_is_told_and_the_next_is_done() -> None:
    said: list[str] = []
    background = Background(said.append)
    assert background.finish()

    def fails() -> None:
        raise OSError("device busy")

    background.do(fails)
    background.do(lambda: said.append("done"))
    assert background.finish(5)
    assert said == ["left for later: device busy", "done"]
    assert background.failed


def test_signals_reach_the_loop_through_the_mailbox() -> None:
    from matryoshka_runner.events import Mailbox, Stop

    box = Mailbox()
    before = signal.signal(signal.SIGUSR1, lambda *_: box.put(Stop()))
    try:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        while not box.stop:
            assert box.wait(5)
        assert box.leaving
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not box.wait(0)
