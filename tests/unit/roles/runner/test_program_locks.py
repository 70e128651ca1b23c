# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks, held by real other processes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from matryoshka_runner.errors import HeldError, TurnError
from matryoshka_runner.locks import FileLock, Gate, Gates, Turns, is_held

HOLD = "import fcntl,sys; f=open(sys.argv[1],'a+'); fcntl.flock(f,fcntl.LOCK_EX); print('held',flush=True); sys.stdin.read()"


@contextmanager
def other_process_holds(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_held_lock_is_refused_and_names_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("4711\n", encoding="ascii")
    refusal = r"runner ci can't start: .*/lock is held by process 4711"
    with other_process_holds(path), pytest.raises(HeldError, match=refusal):
        FileLock(path).acquire("runner ci can't start")
    lock = FileLock(path)
    lock.acquire("runner ci can't start")
    assert path.read_text(encoding="ascii") == f"{os.getpid()}\n"
    lock.release()
    assert path.read_text(encoding="ascii") == ""


def test_a_lock_ends_with_a_killed_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with other_process_holds(path) as process:
        assert is_held(path)
        process.kill()
        process.wait()
        assert not is_held(path)


def test_children_dont_inherit_the_lock(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    lock.acquire("here")
    child = subprocess.Popen(["sleep", "30"])
    try:
        lock.release()
        assert not is_held(tmp_path / "lock")
    finally:
        child.kill()
        child.wait()


def test_what_isnt_there_isnt_held(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "metadata.db")


def test_jobs_pass_together_and_pruning_alone(tmp_path: Path) -> None:
    one, two, pruner = (Gate(tmp_path, "engine") for _ in range(3))
    assert one.enter()
    assert two.enter()
    with pytest.raises(TurnError, match="still ran after 0 s; nothing was done"), pruner.alone(0):
        pytest.fail("pruned while jobs ran")
    one.leave()
    two.leave()
    with pruner.alone(0):
        assert not one.enter()
    assert one.enter()


def test_a_waiting_pruner_isnt_starved(tmp_path: Path) -> None:
    running, fresh, pruner = (Gate(tmp_path, "engine") for _ in range(3))
    assert running.enter()
    tries: list[bool] = []

    def while_it_waits(_seconds: float) -> None:
        tries.append(fresh.enter())
        running.leave()

    with pruner.alone(5, sleep=while_it_waits):
        pass
    assert tries == [False]


def test_a_job_needs_both_gates_or_holds_none(tmp_path: Path) -> None:
    gates = Gates(tmp_path, "ci")
    with Gate(tmp_path, "engine").alone(0):
        assert not gates.enter()
        with Gate(tmp_path, "runner-ci").alone(0):
            pass
    assert gates.enter()
    with pytest.raises(TurnError), Gate(tmp_path, "runner-ci").alone(0):
        pass
    gates.leave()


def test_a_lock_of_the_same_kind_as_bolts_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "local-kv.db"
    with open(path, "w", encoding="ascii") as database:
        fcntl.flock(database, fcntl.LOCK_EX)
        assert is_held(path)
    assert not is_held(path)


def test_so_many_at_a_time_and_the_next_when_one_has_left(tmp_path: Path) -> None:
    waits: list[float] = []
    first, second, third = (Turns(tmp_path, "start", 2) for _ in range(3))
    with first.one(5, waits.append, lambda: False) as one:
        with second.one(5, waits.append, lambda: False) as two:
            assert (one, two, waits) == (True, True, [])
            with third.one(5, waits.append, lambda: len(waits) >= 3) as late:
                assert late is False and len(waits) == 3
        with third.one(5, waits.append, lambda: False) as after:
            assert after is True


def test_a_turn_that_doesn_t_come_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    first, second = (Turns(tmp_path, "start", 1) for _ in range(2))
    with first.one(0, time.sleep, lambda: False), second.one(0.2, time.sleep, lambda: False) as late:
        assert late is False


def test_where_no_turn_can_be_written_nobody_waits(tmp_path: Path) -> None:
    with Turns(tmp_path / "gone", "start", 1).one(5, time.sleep, lambda: False) as turn:
        assert turn is False
