# SPDX-License-Identifier: GPL-3.0-or-later
"""Pruning: what is asked of Docker, what is kept, when nothing is done."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence

import pytest
from matryoshka_runner.errors import ConfigError, TurnError
from matryoshka_runner.locks import Gate
from matryoshka_runner.paths import Paths
from matryoshka_runner.process import Result
from matryoshka_runner.prune import Policy, commands, freed, parse_policy, prune_engine, prune_runner
from support.engine_double import EngineDouble


class Recorder(EngineDouble):
    """Remembers what was pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.pruned: list[list[str]] = []

    def call(self, *words: str, timeout: float = 60.0) -> str:
        self.pruned.append(list(words))
        return "Total reclaimed space: 1.5GB\n"

    def execute(self, name: str, argv: Sequence[str], timeout: float = 60.0) -> Result:
        self.pruned.append([name, *argv])
        return Result(0, "Total:\t20MB\n")


def runner_is(paths: Paths, state: str, container: str | None = "matryoshka-ci-0123abcd") -> None:
    environment = {"container": container} if container else None
    content = {"runner": "ci", "state": state, "pid": os.getpid(), "environment": environment}
    paths.state("ci").write_text(json.dumps(content), encoding="utf-8")


def test_the_hosts_engine_keeps_what_is_ours_and_what_is_marked(paths: Paths) -> None:
    policy = Policy("24h", ("keep", "team=infra"))
    engine, said = Recorder(), list[str]()
    prune_engine(paths, policy, engine, said.append)
    keep = [
        "--filter", "label!=matryoshka.runner", "--filter", "label!=matryoshka.role",
        "--filter", "label!=keep", "--filter", "label!=team=infra",
    ]  # fmt: skip
    until = ["--filter", "until=24h"]
    assert engine.pruned == [
        ["container", "prune", "--force", *until, *keep],
        ["network", "prune", "--force", *until, *keep],
        ["image", "prune", "--all", "--force", *until, *keep],
        ["builder", "prune", "--all", "--force", *until],
    ]
    assert said[2] == "engine: images: 1.5GB freed"


def test_inside_a_runner_its_ready_environment_is_pruned(paths: Paths) -> None:
    policy = Policy(build_cache=False)
    runner_is(paths, "ready")
    engine, said = Recorder(), list[str]()
    prune_runner(paths, "ci", policy, engine, said.append)
    assert [words[:4] for words in engine.pruned] == [
        ["matryoshka-ci-0123abcd", "docker", kind, "prune"] for kind in ("container", "network", "image")
    ]
    assert said[-1] == "runner ci: images: 20MB freed"


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


def test_the_build_cache_can_be_left_alone() -> None:
    assert "build cache" not in commands(Policy(build_cache=False))
