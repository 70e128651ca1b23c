# SPDX-License-Identifier: GPL-3.0-or-later
"""Pruning: what is asked of Docker, what is kept, when nothing is done."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence

import pytest
from matryoshka_runner.errors import ConfigError, ProgramError, TurnError
from matryoshka_runner.locks import Gate
from matryoshka_runner.paths import Paths
from matryoshka_runner.process import Enough, Result
from matryoshka_runner.prune import Policy, freed, parse_policy, prune_engine, prune_runner, seconds
from support.engine_double import EngineDouble


class Recorder(EngineDouble):
    """Has one old container without labels and remembers what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.pruned: list[list[str]] = []

    def ask(self, *words: str, timeout: float = 60.0) -> Result:
        self.pruned.append(list(words))
        if words[0] == "ps" and "--filter" in words:
            return Result(0, "old\nspare\n")
        if words[:2] == ("container", "inspect") and "{{.Image}}" not in words:
            spare = '["spare","2020-01-01T00:00:00Z",{"matryoshka.runner":"ci"},[]]'
            return Result(0, f'["old","2020-01-01T00:00:00Z",null,[]]\n{spare}\n')
        if words[:2] == ("system", "df"):
            return Result(0, f"Containers\t{'1kB' if removals(self) else '1.5MB'}\n")
        return Result(0, "Total:\t20MB\n" if words[0] == "builder" else "")

    def execute(
        self, name: str, argv: Sequence[str], timeout: float = 60.0, enough: Enough | None = None
    ) -> Result:
        assert name == "matryoshka-ci-0123abcd" and argv[0] == "docker"
        return self.ask(*argv[1:])


def runner_is(paths: Paths, state: str, container: str | None = "matryoshka-ci-0123abcd") -> None:
    environment = {"container": container} if container else None
    content = {"runner": "ci", "state": state, "pid": os.getpid(), "environment": environment}
    paths.state("ci").write_text(json.dumps(content), encoding="utf-8")


def removals(engine: Recorder) -> list[list[str]]:
    return [words for words in engine.pruned if words[0] in ("rm", "builder") or "rm" in words[1:2]]


def test_the_hosts_engine_keeps_what_is_ours(paths: Paths) -> None:
    engine, said = Recorder(), list[str]()
    prune_engine(paths, Policy("24h", ("keep", "team=infra")), engine, said.append)
    assert removals(engine) == [
        ["rm", "old"],
        ["builder", "prune", "--all", "--force", "--filter", "until=24h"],
    ]
    assert said == [
        "engine: containers: 1.499MB freed",
        "engine: networks: 0B freed",
        "engine: images: 0B freed",
        "engine: build cache: 20MB freed",
    ]


def test_inside_a_runner_its_ready_environment_is_pruned(paths: Paths) -> None:
    runner_is(paths, "ready")
    engine, said = Recorder(), list[str]()
    prune_runner(paths, "ci", Policy(build_cache=False), engine, said.append)
    assert removals(engine) == [["rm", "old", "spare"]]
    assert said[0] == "runner ci: containers: 1.499MB freed"
    assert len(said) == 3, "the build cache was to be left alone"


class Hanging(Recorder):
    """Its clients end only when nobody waits for them any longer."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    def execute(
        self, name: str, argv: Sequence[str], timeout: float = 60.0, enough: Enough | None = None
    ) -> Result:
        assert enough is not None and enough() == ""
        self._meanwhile()
        return Result(124, "", enough())


@pytest.mark.parametrize("environment", ["another", None])
def test_an_environment_that_ends_meanwhile_ends_the_prune(paths: Paths, environment: str | None) -> None:
    runner_is(paths, "ready")
    engine = Hanging(lambda: runner_is(paths, "ready", environment))
    with pytest.raises(ProgramError, match="the environment ended meanwhile"):
        prune_runner(paths, "ci", Policy(), engine, print)
    assert Gate(paths.gates, "runner-ci").enter(), "jobs would wait for the prune"


def test_what_is_younger_stays(paths: Paths) -> None:
    engine = Recorder()
    prune_engine(paths, Policy("1000000h"), engine, lambda _text: None)
    assert [words[0] for words in removals(engine)] == ["builder"]


def test_a_stopped_runner_has_nothing_to_prune(paths: Paths) -> None:
    runner_is(paths, "stopped", None)
    engine, said = Recorder(), list[str]()
    prune_runner(paths, "ci", Policy(), engine, said.append)
    assert engine.pruned == []
    assert said == ["runner ci is stopped: there is nothing to prune inside"]


def test_a_runner_that_doesnt_get_ready_is_left_alone(paths: Paths) -> None:
    runner_is(paths, "preparing", None)
    engine = Recorder()
    with pytest.raises(TurnError, match="runner ci is preparing, not ready; nothing was pruned"):
        prune_runner(paths, "ci", Policy(wait_seconds=0), engine, print)
    assert engine.pruned == []


@pytest.mark.parametrize("kind", ["engine", "runner-ci"])
def test_nothing_is_pruned_while_a_job_runs(paths: Paths, kind: str) -> None:
    policy = Policy(wait_seconds=0.2)
    runner_is(paths, "ready")
    job = Gate(paths.gates, kind)
    assert job.enter()
    engine, began = Recorder(), time.monotonic()
    with pytest.raises(TurnError, match=r"jobs or another prune still ran after 0\.2 s") as caught:
        if kind == "engine":
            prune_engine(paths, policy, engine, print)
        else:
            prune_runner(paths, "ci", policy, engine, print)
    assert caught.value.code == 75
    assert time.monotonic() - began >= 0.2
    assert engine.pruned == []


def test_an_age_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"--until: '1 week' is refused; allowed: a duration such as 168h"):
        parse_policy("1 week", [], True, 60)


@pytest.mark.parametrize(
    ("output", "amount"),
    [
        ("Deleted Images:\nx\n\nTotal reclaimed space: 12.3MB\n", "12.3MB"),
        ("ID RECLAIMABLE SIZE\nTotal:\t4.096kB\n", "4.096kB"),
        ("", "0B"),
    ],
)
def test_what_was_freed_is_read(output: str, amount: str) -> None:
    assert freed(output) == amount


@pytest.mark.parametrize(
    ("until", "amount"), [("168h", 604800), ("1h30m", 5400), ("90s", 90), ("0.5h", 1800), ("1h1m1s", 3661)]
)
def test_an_age_is_read(until: str, amount: float) -> None:
    assert seconds(until) == amount
