# SPDX-License-Identifier: GPL-3.0-or-later
"""The wrapper that runs a job, by a real shell in place of an environment's."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from matryoshka_runner import jobrun
from matryoshka_runner.engine import Engine
from matryoshka_runner.environment import Environment
from matryoshka_runner.events import JobEnded, Mailbox
from matryoshka_runner.jobrun import Work, cut_note, end_log
from support.engine_double import eventually

LIMIT = 1 << 20


class Shell(Engine):
    """Runs the wrapper here, with its folders below ``root``."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def spawn(
        self, name: str, argv: Sequence[str], *, options: Sequence[str], stdin: int, stdout: int | None
    ) -> subprocess.Popen[bytes]:
        words = [
            word.replace("/job", f"{self._root}/job").replace("/work", f"{self._root}/work") for word in argv
        ]
        return subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE)


def carry_out(tmp_path: Path, script: str, limit: int | None) -> tuple[JobEnded, bytes]:
    """Run a script; how it ended, and its log."""
    place, log = tmp_path / "script", tmp_path / "log"
    place.write_text(script, encoding="utf-8")
    log.touch()
    box = Mailbox()
    environment = Environment("0123abcd", "x", "image", tmp_path)
    jobrun.start(Shell(tmp_path), environment, Work("one", place, log=log), box, limit)
    eventually(lambda: box.wait(0.05) and environment.id in box.jobs)
    return box.jobs[environment.id], log.read_bytes()


BOTH = pytest.mark.parametrize("limit", [None, LIMIT])


@BOTH
def test_output_exit_code_and_both_channels_come_out(tmp_path: Path, limit: int | None) -> None:
    ended, log = carry_out(tmp_path, "echo out; echo err >&2; cat; exit 7\n", limit)
    assert (ended.exit_code, ended.how) == (7, "")
    assert log == b"out\nerr\n"
    assert ended.thrown == (None if limit is None else 0)


def test_a_flood_is_cut_at_the_limit_and_the_rest_is_counted(tmp_path: Path) -> None:
    began = time.monotonic()
    ended, log = carry_out(tmp_path, "yes 0123456789 | head -c 300000000\nexit 6\n", LIMIT)
    assert (ended.exit_code, ended.thrown) == (6, 300000000 - LIMIT)
    assert len(log) == LIMIT
    assert time.monotonic() - began < 10


def test_output_of_exactly_the_limit_is_whole(tmp_path: Path) -> None:
    ended, log = carry_out(tmp_path, f"head -c {LIMIT} /dev/zero\n", LIMIT)
    assert (ended.exit_code, ended.thrown, len(log)) == (0, 0, LIMIT)


def test_output_comes_as_it_is_written(tmp_path: Path) -> None:
    place, log, box = tmp_path / "script", tmp_path / "log", Mailbox()
    place.write_text("echo first; read _ < $0.go; exit 0\n", encoding="utf-8")
    log.touch()
    (tmp_path / "job").mkdir()
    fifo = tmp_path / "job" / "script.go"
    subprocess.run(["mkfifo", str(fifo)], check=True)
    jobrun.start(
        Shell(tmp_path), Environment("0123abcd", "x", "i", tmp_path), Work("one", place, log=log), box, LIMIT
    )
    eventually(lambda: log.read_bytes() == b"first\n")
    fifo.write_text("go\n", encoding="utf-8")
    eventually(lambda: box.wait(0.05) and box.jobs["0123abcd"].exit_code == 0)


@BOTH
def test_a_background_process_doesnt_hold_the_end_back(tmp_path: Path, limit: int | None) -> None:
    began = time.monotonic()
    ended, log = carry_out(tmp_path, "sleep 8 & echo early\n", limit)
    assert (ended.exit_code, log) == (0, b"early\n")
    assert time.monotonic() - began < 5


@BOTH
def test_a_job_that_is_killed_has_the_signals_exit_code(tmp_path: Path, limit: int | None) -> None:
    ended, _log = carry_out(tmp_path, "echo hi; kill -KILL $$\n", limit)
    assert ended.exit_code == 137


@BOTH
def test_a_job_cant_say_its_own_exit_code(tmp_path: Path, limit: int | None) -> None:
    ended, log = carry_out(
        tmp_path, 'echo "matryoshka-exit-0123 0"; echo 55 >&2; echo 66 >&3; exit 4\n', limit
    )
    assert ended.exit_code == 4
    assert ended.thrown in (None, 0)
    assert b"55" in log


def test_a_way_that_breaks_has_no_exit_code(tmp_path: Path) -> None:
    ended, _log = carry_out(tmp_path, "kill -KILL $PPID\n", None)
    assert ended.exit_code is None


class Broken(Shell):
    """Runs ``before`` in the wrapper's place, with the script's way in as its standard input."""

    def __init__(self, root: Path, before: str) -> None:
        super().__init__(root)
        self._before = before

    def spawn(
        self, name: str, argv: Sequence[str], *, options: Sequence[str], stdin: int, stdout: int | None
    ) -> subprocess.Popen[bytes]:
        words = ["sh", "-c", self._before, "job", argv[4]]
        return subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("before", "began", "how", "sent"),
    [
        ("timeout 0.3 cat; exit 126", False, "docker exec ended with 126", b""),
        ("echo no such container >&2; timeout 0.3 cat; exit 1", False, "no such container", b""),
        ('echo "other here" >&2; timeout 0.3 cat; exit 1', False, "other here", b""),
        ('echo "$1 here" >&2; cat; exit 126', True, "docker exec ended with 126", b"true\n"),
        ('echo "$1 here" >&2; exec <&-; echo unexpected EOF >&2', True, "unexpected EOF", b""),
    ],
)
def test_a_script_is_withheld_until_the_wrapper_is_there(
    tmp_path: Path, before: str, began: bool, how: str, sent: bytes
) -> None:
    place, log, box = tmp_path / "script", tmp_path / "log", Mailbox()
    place.write_text("true\n", encoding="utf-8")
    log.touch()
    environment = Environment("0123abcd", "x", "i", tmp_path)
    jobrun.start(Broken(tmp_path, before), environment, Work("one", place, log=log), box)
    eventually(lambda: box.wait(0.05) and "0123abcd" in box.jobs)
    ended = box.jobs["0123abcd"]
    assert (ended.exit_code, ended.began) == (None, began)
    assert log.read_bytes() == sent


def test_a_large_script_arrives_whole(tmp_path: Path) -> None:
    ended, log = carry_out(tmp_path, "exit 5\n" + "#" * 3_000_000, None)
    assert (ended.exit_code, ended.began, log) == (5, True, b"")


def test_a_log_ends_with_the_runners_own_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"half a li")
    end_log(log, ["cut", "killed"])
    assert log.read_bytes() == b"half a li\nmatryoshka: cut\nmatryoshka: killed\n"
    log.write_bytes(b"")
    end_log(log, ["cut"])
    assert log.read_bytes() == b"matryoshka: cut\n"


def test_a_cut_log_says_how_much_went(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 2048)
    assert cut_note(log, 2048, 9) == "the log is cut at its limit of 2 KiB; 9 bytes more were thrown away"
    assert cut_note(log, 2048, None).endswith("2 KiB; what came after was thrown away")
    for whole in (
        cut_note(log, 4096, None),
        cut_note(log, 2048, 0),
        cut_note(log, None, 9),
        cut_note(None, 9, None),
    ):
        assert whole == ""
