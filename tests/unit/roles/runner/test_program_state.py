# SPDX-License-Identifier: GPL-3.0-or-later
"""State files, the status table, and what systemd is told."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matryoshka_runner import start, state
from matryoshka_runner.causes import explain, is_lack, lack_of_room
from matryoshka_runner.config import read
from matryoshka_runner.errors import ProgramError
from matryoshka_runner.events import Mailbox, Stop
from matryoshka_runner.files import seconds_between, stamp, write_whole
from matryoshka_runner.locks import FileLock
from matryoshka_runner.notify import notify
from matryoshka_runner.paths import Paths
from matryoshka_runner.report import duration, show
from matryoshka_runner.state import State, mark_stopped


def test_the_state_file_is_whole_and_readable_by_all(paths: Paths) -> None:
    state = State(paths.state("ci"), "ci", "abc")
    state.change("failed", error="no such image")
    content = json.loads(paths.state("ci").read_text(encoding="utf-8"))
    assert list(content) == [
        "schema", "runner", "pid", "state", "since", "config_sha256", "environment", "next", "job",
        "last_job", "jobs_done", "timings", "error", "set_aside",
    ]  # fmt: skip
    assert (content["state"], content["error"], content["pid"]) == ("failed", "no such image", os.getpid())
    assert paths.state("ci").stat().st_mode & 0o777 == 0o644
    assert state.summary() == "failed: no such image"


def test_since_changes_with_the_state_only(paths: Paths) -> None:
    state = State(paths.state("ci"), "ci", "abc")
    state.change("ready")
    since = state["since"]
    state.change("ready", jobs_done=1)
    assert state["since"] == since


def test_what_was_done_outlives_a_start(paths: Paths) -> None:
    State(paths.state("ci"), "ci", "abc").change(jobs_done=5, last_job={"id": "x"}, error="old")
    state = State(paths.state("ci"), "ci", "def")
    assert (state["jobs_done"], state["last_job"], state["error"]) == (5, {"id": "x"}, None)


@pytest.mark.parametrize(("state", "values"), [("asleep", {}), ("ready", {"colour": "red"})])
def test_only_known_states_and_keys_are_written(paths: Paths, state: str, values: dict[str, str]) -> None:
    with pytest.raises((ValueError, KeyError)):
        State(paths.state("ci"), "ci", "abc").change(state, **values)
    assert not paths.state("ci").exists()


def test_a_dead_runner_is_marked_as_stopped(paths: Paths) -> None:
    mark_stopped(paths.state("ci"))
    assert not paths.state("ci").exists()
    State(paths.state("ci"), "ci", "abc").change("running", job={"id": "x", "started": "y"}, jobs_done=2)
    mark_stopped(paths.state("ci"))
    content = json.loads(paths.state("ci").read_text(encoding="utf-8"))
    assert (content["state"], content["job"], content["jobs_done"]) == ("stopped", None, 2)


def test_status_tells_a_runner_that_died_from_one_that_works(paths: Paths) -> None:
    State(paths.state("ci"), "ci", "abc").change("ready")
    State(paths.state("dead"), "dead", "abc").change("running", pid=2**22 + 1, error="gone")
    (paths.configs / "new.json").write_text("{}", encoding="utf-8")
    lines = show(paths, None, False).splitlines()
    assert lines[0].split()[:2] == ["RUNNER", "STATE"]
    assert [line.split("  ")[0].strip() for line in lines[1:4]] == ["ci", "dead", "new"]
    assert "dead (was running)" in lines[2]
    assert "stopped" in lines[3]
    assert lines[4] == "dead: gone"
    listed = json.loads(show(paths, None, True))
    assert [(state["runner"], state["alive"]) for state in listed] == [
        ("ci", True),
        ("dead", False),
        ("new", False),
    ]


def test_an_unknown_runner_has_no_status(paths: Paths) -> None:
    (paths.configs / "ci.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ProgramError, match="no runner 'cu' on this host; there are: ci"):
        show(paths, "cu", False)


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "3 s"), (119, "119 s"), (180, "3 min"), (7200, "2 h"), (200000, "2 d")]
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_times_survive_being_written() -> None:
    assert stamp(0.5) == "1970-01-01T00:00:00.500Z"
    assert seconds_between(stamp(10), stamp(12.25)) == 2.25


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_whole(path, "old")

    def fails(*_names: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(OSError, match="no space left"):
        write_whole(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["state.json"]


def full(*_words: object, **_more: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run/matryoshka/runners/ci.json")


def test_a_state_that_cant_be_written_is_told_once_and_written_later(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    held = State(paths.state("ci"), "ci", "abc", said.append)
    with monkeypatch.context() as patch:
        patch.setattr(state, "write_json", full)
        held.change("ready")
        held.change("running")
    assert len(said) == 1
    assert "ci.json: No space left on device; make room on its file system" in said[0]
    held.catch_up()
    assert not paths.state("ci").exists()
    monkeypatch.setattr(state, "AGAIN", 0.0)
    held.change("running")
    assert said[1] == "the state can be written again"
    assert json.loads(paths.state("ci").read_text(encoding="utf-8"))["state"] == "running"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"state": 7}',
        '{"state": "ready", "last_job": [], "jobs_done": "x", "since": 5, "timings": 1}',
    ],
)
def test_a_half_written_state_breaks_nothing(paths: Paths, text: str) -> None:
    (paths.configs / "ci.json").write_text("{}", encoding="utf-8")
    paths.state("ci").write_text(text, encoding="utf-8")
    assert "ci" in show(paths, None, False)
    mark_stopped(paths.state("ci"))
    held = State(paths.state("ci"), "ci", "abc")
    assert (held["jobs_done"], held["timings"], held["last_job"]) == (0, {}, None)


def test_a_clock_that_was_set_back_shows_no_negative_age(paths: Paths) -> None:
    held = State(paths.state("ci"), "ci", "abc")
    held.content["since"] = "2999-01-01T00:00:00.000Z"
    held.change(jobs_done=1)
    assert "0 s" in show(paths, None, False)


def test_status_says_what_was_set_aside_and_what_the_last_job_used(paths: Paths) -> None:
    usage = {"cpu_seconds": 1.5, "memory_peak_bytes": 1 << 20}
    last = {"id": "x", "status": "failed", "reason": "its disk of 2 GiB is full", "usage": usage}
    State(paths.state("ci"), "ci", "abc").change(
        "ready", last_job=last, set_aside={"path": "/d/data-untrusted-1", "reason": "a power cut"}
    )
    assert len(show(paths, None, False).splitlines()) == 3
    lines = show(paths, "ci", False).splitlines()
    assert lines[2] == "ci: a cache that isn't used again lies in /d/data-untrusted-1: a power cut"
    assert lines[3:] == [
        "ci: last job x: its disk of 2 GiB is full",
        "ci: last job x: 1.50 s of cpu, 1 MiB of memory at most",
    ]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/var/x"),
            "/var/x: No space left on device; make room",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded", "/var/x"),
            "/var/x: Disk quota exceeded; make room below",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/x"),
            "/x: Read-only file system; its file system was",
        ),
        (OSError(errno.EIO, "Input/output error", "/x"), "/x: Input/output error; its disk doesn't"),
        (OSError(errno.ENOENT, "No such file or directory", "/x"), "/x: No such file or directory"),
        (ProgramError("as it is"), "as it is"),
        (OSError("only words"), "only words"),
    ],
)
def test_an_error_names_the_path_the_cause_and_what_to_do(error: Exception, words: str) -> None:
    assert explain(error).startswith(words)
    assert explain(error, again=True).endswith("; it is tried again") is is_lack(error)


def test_a_file_system_without_room_is_seen_before_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lack_of_room(tmp_path) == ""
    assert lack_of_room(tmp_path / "gone") == ""
    about = {"f_blocks": 1 << 20, "f_bfree": 4000, "f_frsize": 4096, "f_files": 10, "f_ffree": 5, "f_flag": 0}
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(**about))
    assert lack_of_room(tmp_path).startswith(f"{tmp_path}: No space left on device; make room")
    about.update(f_bfree=1 << 20, f_ffree=0)
    assert "No space left" in lack_of_room(tmp_path)
    about.update(f_ffree=5, f_flag=os.ST_RDONLY)
    assert "Read-only file system" in lack_of_room(tmp_path)


def test_an_error_while_writing_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(tmp_path / "x", "text")
    assert caught.value.filename == str(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_runner_without_room_for_its_lock_waits_and_says_so(
    paths: Paths,
    content: dict[str, Any],
    write: Callable[[dict[str, Any]], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(content)
    said: list[str] = []
    held, box = State(paths.state("ci"), "ci", "abc", said.append), Mailbox()
    acquire, tries = FileLock.acquire, iter([full, full])

    def scarce(lock: FileLock, purpose: str) -> None:
        next(tries, lambda: acquire(lock, purpose))()

    monkeypatch.setattr(FileLock, "acquire", scarce)
    monkeypatch.setattr(start, "PAUSES", (0.01, 0.02))
    found = start.hold(read(paths, "ci"), paths, held, box, said.append)
    assert found is not None
    found[0].release()
    assert len(said) == 2
    assert "No space left on device; make room" in str(held["error"])
    box.put(Stop())
    box.wait(0)
    assert start.hold(read(paths, "ci"), paths, held, box, said.append) is None
    assert held["state"] == "stopped"


def test_systemd_is_told_and_its_absence_is_no_error(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    notify("READY=1", address="")
    notify("READY=1", address=address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        notify("READY=1", "STATUS=ready", address=address)
        assert manager.recv(100) == b"READY=1\nSTATUS=ready"
