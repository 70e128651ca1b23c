# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes what nobody used for a while, on the host's engine or inside a persistent runner."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matryoshka_runner.engine import Engine
from matryoshka_runner.errors import ConfigError, ProgramError, TurnError
from matryoshka_runner.files import read_json
from matryoshka_runner.locks import Gate
from matryoshka_runner.paths import Paths
from matryoshka_runner.process import Result
from matryoshka_runner.unused import KINDS, Docker, human, remove, size, unused

UNTIL = re.compile(r"(?:\d+(?:\.\d+)?(?:h|m|s))+")
OWN_LABELS = ("matryoshka.runner", "matryoshka.role")
"""What the collection made itself is never pruned."""


@dataclass(frozen=True)
class Policy:
    """What is pruned.

    Ages are differences of wall-clock times, here as in Docker: where the clock was set back, what was made
    before counts as younger and stays longer; set forward, as older. It never waits for a time of the clock.

    :param until: only what is older than this, as Docker writes durations (``168h``).
    :param keep_labels: things with one of these labels (``name`` or ``name=value``) stay.
    :param wait_seconds: how long to wait for jobs to end.
    """

    until: str = "168h"
    keep_labels: tuple[str, ...] = ()
    build_cache: bool = True
    wait_seconds: float = 3600.0


def parse_policy(until: str, keep_labels: Sequence[str], build_cache: bool, wait: float) -> Policy:
    """A policy as it was given on the command line; ConfigError if there is no such age."""
    if not UNTIL.fullmatch(until):
        raise ConfigError("prune", "--until", until, "a duration such as 168h or 1h30m")
    return Policy(until, tuple(keep_labels), build_cache, wait)


def seconds(until: str) -> float:
    """An age such as ``1h30m`` in seconds."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", until))


def freed(output: str) -> str:
    """The amount that Docker says it reclaimed; ``0B`` if it says nothing."""
    found = re.search(r"^Total(?: reclaimed space)?:\s*(\S+)", output, re.MULTILINE)
    return found[1] if found else "0B"


def carry_out(
    policy: Policy, docker: Docker, where: str, say: Callable[[str], None], own: Sequence[str] = ()
) -> None:
    """Remove one kind after another and say what that freed; ProgramError if the engine doesn't answer."""
    older_than = time.time() - seconds(policy.until)
    for name, kind in KINDS.items():
        things = unused(docker, name, older_than, (*own, *policy.keep_labels))
        before = size(docker, name) if things and kind.size else 0.0
        stayed = remove(docker, name, things)
        after = size(docker, name) if things and kind.size else 0.0
        say(f"{where}: {name}: {human(max(0.0, before - after))} freed")
        for reason in stayed:
            say(f"{where}: not all {name} went: {reason}")
    if policy.build_cache:
        words = ["builder", "prune", "--all", "--force", "--filter", f"until={policy.until}"]
        result = docker(words)
        if not result.ok:
            raise ProgramError(f"{where}: docker builder prune: {result.detail}")
        say(f"{where}: build cache: {freed(result.out)} freed")


def prune_engine(paths: Paths, policy: Policy, engine: Engine, say: Callable[[str], None]) -> None:
    """Prune the host's engine while no runner runs a job."""
    with Gate(paths.gates, "engine").alone(policy.wait_seconds):

        def docker(words: Sequence[str]) -> Result:
            return engine.ask(*words, timeout=3600)

        carry_out(policy, docker, "engine", say, OWN_LABELS)


def prune_runner(paths: Paths, name: str, policy: Policy, engine: Engine, say: Callable[[str], None]) -> None:
    """Prune inside the environment of runner ``name`` while it runs no job."""
    deadline = time.monotonic() + policy.wait_seconds
    with Gate(paths.gates, f"runner-{name}").alone(policy.wait_seconds):
        container = idle_environment(paths.state(name), deadline)
        if container is None:
            say(f"runner {name} is stopped: there is nothing to prune inside")
            return

        def docker(words: Sequence[str]) -> Result:
            return engine.execute(
                container,
                ["docker", *words],
                timeout=3600,
                enough=lambda: _gone(paths.state(name), container),
            )

        carry_out(policy, docker, f"runner {name}", say)


def _gone(state_file: Path, container: str) -> str:
    """That a runner has another environment by now; empty if it hasn't."""
    state = read_json(state_file)
    environment = state.get("environment") if isinstance(state, dict) else None
    return "" if (environment or {}).get("container") == container else "the environment ended meanwhile"


def idle_environment(state_file: Path, deadline: float) -> str | None:
    """The container of a runner that is ready, waited for until ``deadline``; None if it is stopped."""
    while True:
        state = read_json(state_file)
        if not isinstance(state, dict) or state.get("state") == "stopped":
            return None
        if not Path(f"/proc/{state.get('pid')}").exists():
            return None
        if state.get("state") == "ready" and state.get("environment"):
            return str(state["environment"]["container"])
        if time.monotonic() >= deadline:
            raise TurnError(
                f"runner {state.get('runner')} is {state.get('state')}, not ready; nothing was pruned"
            )
        time.sleep(0.2)
