# SPDX-License-Identifier: GPL-3.0-or-later
"""State files, the status table, and what systemd is told."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from matryoshka_runner.errors import ProgramError
from matryoshka_runner.files import seconds_between, stamp, write_whole
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
        "last_job", "jobs_done", "timings", "error",
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


def test_systemd_is_told_and_its_absence_is_no_error(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    notify("READY=1", address="")
    notify("READY=1", address=address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        notify("READY=1", "STATUS=ready", address=address)
        assert manager.recv(100) == b"READY=1\nSTATUS=ready"
