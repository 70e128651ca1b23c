# SPDX-License-Identifier: GPL-3.0-or-later
"""The moment of a kill is seen in what jobs and runners leave."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import moment
import pytest
import victims
from moment import Wanted
from victims import Victim

ANY = Wanted(["x"], "ci", 0.0, [], "", "", [], 0.0, 0.1)


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the trace of jobs and the states of runners."""
    monkeypatch.setattr(moment, "TRACE", tmp_path / "trace")
    monkeypatch.setattr(moment, "STATES", tmp_path)
    return tmp_path


def test_nothing_wanted_comes_at_once() -> None:
    assert moment.has_come(ANY)


def test_a_jobs_event_is_its_own(left: Path) -> None:
    wanted = replace(ANY, event="end", job="k1-001-job")
    assert not moment.has_come(wanted)
    (left / "trace").write_text("start a-k1-001-job-b 1.0\nend a-k1-002-job-b 2.0\n", encoding="utf-8")
    assert not moment.has_come(wanted)
    with (left / "trace").open("a", encoding="utf-8") as trace:
        trace.write("end a-k1-001-job-b 3.0\n")
    assert moment.has_come(wanted)


def test_the_runners_state_counts(left: Path) -> None:
    wanted = replace(ANY, states=["ready"])
    assert not moment.has_come(wanted)
    (left / "ci.json").write_text('{"state": "running"}', encoding="utf-8")
    assert not moment.has_come(wanted)
    (left / "ci.json").write_text('{"state": "ready"}', encoding="utf-8")
    assert moment.has_come(wanted)


def test_a_victim_that_never_comes_is_told_of() -> None:
    assert moment.act(ANY)["seen"].startswith("no x; there were: ")
    assert moment.act(replace(ANY, states=["never"]))["seen"] == "the moment didn't come within 0.1 s"


def test_only_the_very_process_is_killed() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()  # /proc knows no command line of a program that is just being loaded
    found = victims.read(Path(f"/proc/{child.pid}"))
    try:
        assert found is not None
        assert not moment.kill(Victim(replace(found, started=found.started - 1), "x", ""))
        assert child.poll() is None
        assert moment.kill(Victim(found, "x", ""))
        assert child.wait(10) == -9
    finally:
        child.kill()
        child.communicate()
    assert not moment.kill(Victim(found, "x", ""))
