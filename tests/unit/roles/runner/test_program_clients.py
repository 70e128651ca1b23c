# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that are waited for: to their end, to a time limit, or until the runner has to leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from matryoshka_runner import clients, process
from matryoshka_runner.clients import SILENT, Clients
from matryoshka_runner.events import Mailbox, Stop
from matryoshka_runner.process import Result, run

HANGS = ["sleep", "30"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GLANCE", 0.02)
    monkeypatch.setattr(clients, "GRACE", 0.3)
    monkeypatch.setattr(clients, "ASK", 0.1)


@dataclass
class Host:
    """A runner that is told to leave, and an engine that answers or doesn't; counts the questions."""

    leaving: bool = False
    answers: bool = True
    asked: list[float] = field(default_factory=list)

    def clients(self) -> Clients:
        return Clients(lambda: self.leaving, self._answer)

    def soon(self, act: Callable[[], None]) -> None:
        threading.Timer(0.15, act).start()

    def leave(self) -> None:
        self.leaving = True

    def die(self) -> None:
        self.answers = False

    def _answer(self) -> bool:
        self.asked.append(time.monotonic())
        return self.answers


def timed(clients: Clients, argv: list[str], timeout: float = 20.0) -> tuple[Result, float]:
    began = time.monotonic()
    return clients(argv, timeout=timeout), time.monotonic() - began


@pytest.mark.parametrize(
    ("script", "result"),
    [
        ("echo out; echo err >&2; exit 3", Result(3, "out\n", "err\n")),
        ("head -c 300000 /dev/zero | tr '\\0' x; sleep 0.1", Result(0, "x" * 300000)),
        ("cat", Result(0)),
        ("printf '\\377'", Result(0, "\ufffd")),
        ("echo $HOME", Result(0, "/root\n")),
    ],
)
def test_what_a_program_says_comes_out_watched_or_not(script: str, result: Result) -> None:
    assert run(["sh", "-c", script]) == result
    assert run(["sh", "-c", script], enough=lambda: "") == result


def test_a_program_that_isnt_there_or_doesnt_end_is_told() -> None:
    assert run(["matryoshka-no-such"]).code == 127
    assert run(HANGS, timeout=0.1) == Result(124, "", "sleep 30: no end within 0.1 s")
    late = run(HANGS, timeout=0.1, enough=lambda: "")
    assert (late.code, late.err) == (124, "sleep 30: no end within 0.1 s")


def test_a_client_that_hangs_is_ended_soon_after_the_runner_is_told_to_leave() -> None:
    host = Host()
    host.soon(host.leave)
    result, seconds = timed(host.clients(), HANGS)
    assert "no end within 0.3 s after the runner was told to leave" in result.err
    assert result.code == 124
    assert seconds < 2


def test_a_client_that_ends_within_its_grace_counts() -> None:
    host = Host(leaving=False)
    host.soon(host.leave)
    assert timed(host.clients(), ["sh", "-c", "sleep 0.3; echo done"])[0] == Result(0, "done\n")


def test_no_client_is_waited_for_when_the_engine_is_silent_too() -> None:
    host = Host(answers=False)
    host.soon(host.leave)
    result, seconds = timed(host.clients(), HANGS)
    assert (result.code, result.err.endswith(SILENT)) == (124, True)
    assert seconds < 2


def test_a_clean_stop_by_an_engine_that_answers_has_all_its_time() -> None:
    host = Host(leaving=True)
    result, seconds = timed(host.clients(), ["sh", "-c", "sleep 0.8; echo stopped"])
    assert result == Result(0, "stopped\n")
    assert seconds >= 0.8
    assert 2 <= len(host.asked) <= 12


def test_a_stop_is_given_up_when_the_engine_dies_in_it() -> None:
    host = Host(leaving=True)
    host.soon(host.die)
    result, seconds = timed(host.clients(), HANGS)
    assert result.err.endswith(SILENT)
    assert seconds < 2


def test_an_engine_isnt_asked_while_the_runner_stays() -> None:
    host = Host(answers=False)
    assert timed(host.clients(), ["sh", "-c", "sleep 0.2; echo done"])[0].ok
    assert host.asked == []


def test_a_client_ends_for_a_reason_of_its_own_too() -> None:
    host = Host()
    ended = host.clients()(HANGS, enough=lambda: "its container is gone")
    assert (ended.code, ended.err) == (124, "sleep 30: its container is gone")


def test_a_stop_is_seen_before_the_mailbox_is_looked_into() -> None:
    box = Mailbox()
    box.put(Stop())
    assert box.leaving
