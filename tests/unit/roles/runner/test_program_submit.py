# SPDX-License-Identifier: GPL-3.0-or-later
"""``matryoshka job``: hand in, follow, end with the job's exit code."""

from __future__ import annotations

import errno
import io
import os
import threading
import time
from pathlib import Path

import pytest
from matryoshka_runner.errors import ProgramError
from matryoshka_runner.jobqueue import Ending, JobQueue
from matryoshka_runner.submit import Follower, RefusedFile, follow, hand_in, report


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    made = JobQueue(tmp_path / "queue", "ci", frozenset({"ci", "other"}))
    made.make_folders()
    return made


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "build all.sh"
    path.write_text("echo hello\n", encoding="utf-8")
    return path


def test_a_job_arrives_whole_and_fit_to_be_claimed(queue: JobQueue, script: Path) -> None:
    script.chmod(0o666)
    identity = hand_in(script, queue.root, "ci")
    claim = queue.claim()
    assert claim is not None
    assert (claim.id, claim.refusal) == (identity, "")
    assert "build-all" in identity
    assert claim.script.read_text(encoding="utf-8") == "echo hello\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing", "no such file"), (".", "isn't a regular file"), ("empty", "is empty")],
)
def test_what_isnt_a_job_is_refused_before_it_is_handed_in(
    queue: JobQueue, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(RefusedFile, match=message) as caught:
        hand_in(tmp_path / name, queue.root, None)
    assert caught.value.code == 65
    assert not list((queue.root / "new").iterdir())


def test_jobs_keep_their_order_wherever_the_clock_is_set_to(queue: JobQueue, script: Path) -> None:
    first = hand_in(script, queue.root, None)
    ahead = time.time() + 86400
    os.utime(queue.root / "new" / first, (ahead, ahead))
    later = [hand_in(script, queue.root, None) for _ in range(3)]
    claims = [queue.claim() for _ in range(4)]
    assert [claim.id for claim in claims if claim] == [first, *later]


def test_a_full_disk_is_told_and_leaves_no_half_a_job(
    queue: JobQueue, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ProgramError, match="can't be handed in: No space left on device; make room"):
        hand_in(script, queue.root, None)
    assert not list((queue.root / "new").iterdir())


def test_a_failure_is_told_with_its_reason() -> None:
    said: list[str] = []
    result = {
        "job": "a", "status": "failed", "exit_code": 3, "seconds": 1.5, "runner": "ci",
        "reason": "its disk of 2 GiB is full",
    }  # fmt: skip
    assert report(result, said.append) == 3
    assert said == ["a: failed, exit code 3, 1.5 s on runner ci: its disk of 2 GiB is full"]


def test_a_host_without_the_queue_says_so(script: Path, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="this host has no runner with the local queue"):
        hand_in(script, tmp_path / "nowhere", None)


@pytest.mark.parametrize(
    ("status", "code", "reason", "expected", "told"),
    [
        ("succeeded", 0, "", 0, "succeeded, exit code 0"),
        ("failed", 3, "", 3, "failed, exit code 3"),
        ("cut off", None, "the runner was stopped", 75, "cut off: the runner was stopped"),
        ("refused", None, "the job is a fifo", 65, "refused: the job is a fifo"),
    ],
)
def test_the_log_streams_and_the_exit_code_is_the_jobs(
    queue: JobQueue, script: Path, status: str, code: int | None, reason: str, expected: int, told: str
) -> None:
    identity = hand_in(script, queue.root, None)
    out, said = io.BytesIO(), list[str]()
    ended: list[int] = []
    thread = threading.Thread(
        target=lambda: ended.append(follow(Follower(queue.root, identity, None, out), said.append))
    )
    thread.start()
    claim = queue.claim()
    assert claim is not None
    with open(claim.log, "ab", buffering=0) as log:
        log.write(b"first\n")
        for _ in range(100):
            if out.getvalue() == b"first\n":
                break
            threading.Event().wait(0.05)
        assert out.getvalue() == b"first\n"
        log.write(b"last\n")
    queue.report(claim, Ending(status, code, reason))
    thread.join(10)
    assert ended == [expected]
    assert out.getvalue() == b"first\nlast\n"
    assert told in said[-1]


def test_only_a_job_that_nobody_took_can_be_taken_back(queue: JobQueue, script: Path) -> None:
    waiting = Follower(queue.root, hand_in(script, queue.root, "other"), "other", io.BytesIO())
    assert waiting.withdraw()
    taken = Follower(queue.root, hand_in(script, queue.root, None), None, io.BytesIO())
    assert queue.claim() is not None
    assert not taken.withdraw()
