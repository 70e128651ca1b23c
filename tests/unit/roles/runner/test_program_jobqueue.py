# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory queue, in real folders and with real contention."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matryoshka_runner import cgroups, files, jobqueue
from matryoshka_runner.jobqueue import ID, Claim, Ending, JobQueue, elapsed, still_written


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    made = JobQueue(tmp_path / "queue", "ci", frozenset({"ci", "other"}))
    made.make_folders()
    return made


def drop(queue: JobQueue, name: str, text: str = "true\n", mode: int = 0o640) -> Path:
    hidden = queue.root / f".{abs(hash(name))}"
    hidden.write_text(text, encoding="utf-8")
    hidden.chmod(mode)
    path = queue.root / "new" / name
    hidden.rename(path)
    return path


def test_a_job_goes_from_new_to_done(queue: JobQueue) -> None:
    drop(queue, "build.sh", "echo hello\n")
    claim = queue.claim()
    assert claim is not None
    assert (claim.id, claim.refusal) == ("build.sh", "")
    assert claim.script.read_text(encoding="utf-8") == "echo hello\n"
    assert not list((queue.root / "new").iterdir())
    queue.describe(claim, environment="0123abcd", started="2026-11-22T08:00:00.000Z")
    claim.log.write_text("hello\n", encoding="utf-8")
    queue.report(claim, Ending("failed", 3, ""))
    result = json.loads((queue.root / "done" / "build.sh" / "result.json").read_text(encoding="utf-8"))
    assert list(result) == [
        "job", "runner", "environment", "status", "exit_code", "reason",
        "submitted", "claimed", "started", "ended", "seconds", "usage",
    ]  # fmt: skip
    assert (result["job"], result["runner"], result["environment"]) == ("build.sh", "ci", "0123abcd")
    assert (result["status"], result["exit_code"]) == ("failed", 3)
    assert result["seconds"] > 0
    assert (queue.root / "done" / "build.sh" / "log").read_text(encoding="utf-8") == "hello\n"
    assert queue.claim() is None
    assert queue.left() == []


def test_twenty_threads_claim_each_job_exactly_once(queue: JobQueue) -> None:
    jobs = {f"job-{number}" for number in range(100)}
    for name in jobs:
        drop(queue, name, f"{name}\n")
    claims: list[tuple[str, str]] = []
    start = threading.Barrier(20)

    def work(number: int) -> None:
        mine = JobQueue(queue.root, f"runner-{number}")
        mine.make_folders()
        start.wait()
        while (claim := mine.claim()) is not None or any((queue.root / "new").iterdir()):
            if claim is not None:
                claims.append((claim.id, claim.script.read_text(encoding="utf-8").strip()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claims) == sorted((name, name) for name in jobs)


def test_the_oldest_job_comes_first(queue: JobQueue) -> None:
    for age, name in ((10, "young"), (30, "oldest"), (20, "middle")):
        path = drop(queue, name)
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))
    claims = [queue.claim() for _ in range(3)]
    assert [claim.id for claim in claims if claim] == ["oldest", "middle", "young"]


def test_a_job_for_one_runner_is_left_by_the_others(queue: JobQueue) -> None:
    drop(queue, "build@other")
    assert queue.claim() is None
    claim = JobQueue(queue.root, "other", queue.known)
    claim.make_folders()
    taken = claim.claim()
    assert taken is not None
    assert (taken.id, taken.refusal) == ("build", "")


def test_a_name_that_was_used_gets_a_number(queue: JobQueue) -> None:
    for _ in range(3):
        drop(queue, "build")
        claim = queue.claim()
        assert claim is not None
        queue.report(claim, Ending("succeeded", 0, ""))
    assert sorted(path.name for path in (queue.root / "done").iterdir()) == ["build", "build.2", "build.3"]


def unsuitable(queue: JobQueue, kind: str) -> None:
    new = queue.root / "new"
    if kind == "directory":
        (new / "job").mkdir()
    elif kind == "symlink":
        (new / "job").symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(new / "job")
    elif kind == "writable":
        drop(queue, "job", mode=0o666)
    elif kind == "empty":
        drop(queue, "job", "")
    elif kind == "stranger":
        os.chown(drop(queue, "job"), 4711, 4711)
    elif kind == "nobody's":
        drop(queue, "job@nobody")
    else:
        drop(queue, "job with spaces")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("directory", "the job is a directory; allowed: a regular file"),
        ("symlink", "the job is a symbolic link; allowed: a regular file"),
        ("fifo", "the job is a fifo; allowed: a regular file"),
        ("writable", "the job is world-writable (mode 0666); allowed: no write permission for others"),
        ("empty", "the job is empty; allowed: a script or a program"),
        ("stranger", "the job belongs to uid 4711, gid 4711; allowed: owned by root or of group"),
        ("nobody's", "there is no runner 'nobody' on this host"),
        ("spaces", "the name 'job with spaces' is refused; allowed: 1 to 128 letters"),
    ],
)
def test_what_isnt_a_job_is_refused_with_a_reason(queue: JobQueue, kind: str, reason: str) -> None:
    if kind == "stranger" and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    unsuitable(queue, kind)
    claim = queue.claim()
    assert claim is not None
    assert claim.refusal.startswith(reason)
    queue.report(claim, Ending("refused", None, claim.refusal))
    refused = list((queue.root / "refused").iterdir())
    assert len(refused) == 1
    result = json.loads((refused[0] / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], result["exit_code"], result["started"]) == ("refused", None, None)
    assert result["reason"].startswith(reason)
    assert not list((queue.root / "new").iterdir())


def test_a_file_that_is_still_written_is_left_alone(queue: JobQueue) -> None:
    path = queue.root / "new" / "job"
    with open(path, "w", encoding="utf-8") as writer:
        writer.write("echo half")
        writer.flush()
        path.chmod(0o640)
        assert still_written(path)
        assert queue.claim() is None
        assert path.exists()
    claim = queue.claim()
    assert claim is not None
    assert claim.refusal == ""


def test_hidden_files_are_ignored(queue: JobQueue) -> None:
    (queue.root / "new" / ".half").write_text("x", encoding="utf-8")
    assert queue.claim() is None


def test_pending_notices_a_new_job_and_nothing_else(queue: JobQueue) -> None:
    os.utime(queue.root / "new", (1, 1))
    assert queue.pending()
    assert queue.claim() is None
    assert not queue.pending()
    drop(queue, "job")
    assert queue.pending()


CRASHES = {
    "after the folder was made": [],
    "after the rename": ["script"],
    "after the claim was noted": ["script", "claim.json"],
}


@pytest.mark.parametrize("files", CRASHES.values(), ids=CRASHES.keys())
def test_a_crash_in_the_middle_of_a_claim_loses_nothing(queue: JobQueue, files: list[str]) -> None:
    folder = queue.root / "claimed" / "ci" / ".0123abcd.build"
    folder.mkdir()
    for name in files:
        (folder / name).write_text('{"submitted": "2026-11-22T08:00:00.000Z"}', encoding="utf-8")
    results = queue.recover()
    if not files:
        assert results == []
    else:
        assert [(result["job"], result["status"]) for result in results] == [("build", "cut off")]
        assert results[0]["reason"] == "the runner ended before the job started"
        assert (queue.root / "done" / "build" / "result.json").exists()
    assert queue.left() == []


def test_a_job_that_ran_is_reported_as_cut_off_once(queue: JobQueue) -> None:
    drop(queue, "build")
    claim = queue.claim()
    assert claim is not None
    queue.describe(claim, environment="0123abcd", started="2026-11-22T08:00:00.000Z")
    results = queue.recover()
    assert [(result["job"], result["reason"]) for result in results] == [
        ("build", "the runner ended while the job ran")
    ]
    assert queue.recover() == []
    assert queue.claim() is None


def test_a_result_that_was_written_before_the_crash_stands(queue: JobQueue) -> None:
    drop(queue, "build")
    claim = queue.claim()
    assert claim is not None
    (claim.folder / "result.json").write_text('{"job": "build", "status": "succeeded"}', encoding="utf-8")
    assert [result["status"] for result in queue.recover()] == ["succeeded"]
    assert (queue.root / "done" / "build").is_dir()


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', '{"status": "asleep"}', "\0\0\0"])
def test_half_written_notes_of_a_job_are_no_obstacle(queue: JobQueue, text: str) -> None:
    drop(queue, "build")
    claim = queue.claim()
    assert claim is not None
    for name in ("claim.json", "result.json"):
        (claim.folder / name).write_text(text, encoding="utf-8")
    (result,) = queue.recover()
    assert (result["status"], result["reason"]) == ("cut off", "the runner ended before the job started")


def test_a_job_of_before_a_power_cut_is_told_as_such(queue: JobQueue) -> None:
    drop(queue, "build")
    claim = queue.claim()
    assert claim is not None
    queue.describe(claim, started="2026-11-22T08:00:00.000Z", clock=5.0, boot="another")
    (result,) = queue.recover()
    assert (result["status"], result["reason"]) == ("cut off", "the machine went down while the job ran")
    assert result["seconds"] is None


@pytest.mark.parametrize(
    ("known", "low", "high"),
    [
        ({}, None, None),
        ({"started": "half"}, None, None),
        ({"started": "2026-11-22T08:00:00.000Z", "clock": 5.0, "boot": "another"}, None, None),
        ({"started": "2999-11-22T08:00:00.000Z"}, 0, 0),
    ],
)
def test_no_clock_makes_a_job_last_less_than_nothing(
    known: dict[str, object], low: float | None, high: float | None
) -> None:
    found = elapsed(known)
    assert found is low if low is None else low <= (found or 0) <= (high or 0)


def test_a_clock_that_is_set_doesnt_change_how_long_a_job_took(queue: JobQueue) -> None:
    drop(queue, "build")
    claim = queue.claim()
    assert claim is not None
    queue.describe(
        claim, started="2999-11-22T08:00:00.000Z", clock=time.monotonic() - 3, boot=cgroups.boot_id()
    )
    assert 3 <= queue.report(claim, Ending("succeeded", 0, ""))["seconds"] < 60


def test_a_clock_that_was_set_back_doesnt_hold_a_job_back(queue: JobQueue) -> None:
    path = drop(queue, "build")
    ahead = time.time() + 86400
    os.utime(path, (ahead, ahead))
    os.utime(queue.root / "new", (ahead, ahead))
    claim = queue.claim()
    assert claim is not None
    assert claim.id == "build"
    os.utime(queue.root / "new", (ahead, ahead))
    assert queue.claim() is None
    assert not queue.pending()
    drop(queue, "next")
    assert queue.pending()


def lack(*_words: object, **_more: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/queue")


def test_a_job_isnt_taken_where_there_is_no_room_to_note_it(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(queue, "build")
    with monkeypatch.context() as patch:
        patch.setattr(jobqueue, "write_json", lack)
        with pytest.raises(OSError, match="No space left"):
            queue.claim()
    assert [path.name for path in (queue.root / "new").iterdir()] == ["build"]
    assert queue.left() == []
    assert queue.claim() is not None


def test_a_result_that_cant_be_written_is_written_later_and_as_it_was(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(queue, "build")
    claim = queue.claim()
    assert claim is not None
    endings = {claim.id: Ending("succeeded", 0, "", {"cpu_seconds": 1}, "2026-11-22T08:00:00.000Z", 3.5)}
    with monkeypatch.context() as patch:
        patch.setattr(jobqueue, "write_json", lack)
        with pytest.raises(OSError, match="No space left"):
            queue.recover(endings)
    (result,) = queue.recover(endings)
    assert (result["status"], result["exit_code"], result["seconds"]) == ("succeeded", 0, 3.5)
    assert (result["ended"], result["usage"]) == ("2026-11-22T08:00:00.000Z", {"cpu_seconds": 1})
    assert endings == {}


def test_a_claim_survives_a_power_cut_in_the_right_order(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was renamed and what was synced, in order: a note is durable before the job has its id."""
    drop(queue, "build")
    steps: list[str] = []

    def recorded(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def act(*words: Any, **more: Any) -> Any:
            steps.append(f"{name} {Path(words[-1] if name == 'rename' else words[0]).name.lstrip('.')[-11:]}")
            return call(*words, **more)

        return act

    monkeypatch.setattr(jobqueue, "sync_file", recorded("file", files.sync_file))
    monkeypatch.setattr(jobqueue, "sync_folder", recorded("folder", files.sync_folder))
    monkeypatch.setattr(os, "rename", recorded("rename", os.rename))
    queue.claim()
    assert [step.split(".")[-1] for step in steps] == [
        "json", "rename script", "json", "build", "rename build", "folder new", "folder ci",
    ]  # fmt: skip


def test_two_jobs_of_one_name_both_end_in_done(queue: JobQueue) -> None:
    drop(queue, "build")
    claim = queue.claim()
    assert claim is not None
    (queue.root / "done" / "build").mkdir()
    (queue.root / "done" / "build" / "result.json").write_text("{}", encoding="utf-8")
    result = queue.report(claim, Ending("succeeded", 0, ""))
    assert result["job"].startswith("build.")
    assert (queue.root / "done" / result["job"] / "result.json").exists()


@given(st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=60))
def test_every_name_gives_a_claim_with_an_acceptable_id(name: str) -> None:
    if name.startswith(".") or len(name.encode()) > 200:
        return
    with tempfile.TemporaryDirectory() as folder:
        queue = JobQueue(Path(folder), "ci", frozenset({"ci"}))
        queue.make_folders()
        (queue.root / "new" / name).write_text("true\n", encoding="utf-8")
        claim = queue.claim()
        assert isinstance(claim, Claim)
        assert ID.fullmatch(claim.id)
        queue.report(claim, Ending("refused" if claim.refusal else "succeeded", 0, claim.refusal))
