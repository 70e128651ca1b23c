# SPDX-License-Identifier: GPL-3.0-or-later
"""What a runner can be doing, how it is brought to that, which processes are there then; and the order of kills."""

from __future__ import annotations

import random
from collections.abc import Container, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """One phase.

    :param cause: what the harness does: ``nothing``, ``job``, ``restart``, ``prune``, ``image`` or ``converge``.
    :param kinds: kinds of processes that are there; see ``victims.py``.
    :param states: of the runner, in which the phase has begun; empty: any.
    :param event: that the phase's job has written into its trace; empty: none is waited for.
    :param presence: kinds, one of which is there when the phase has begun.
    :param delays: shortest and longest time from then to the kill, in seconds.
    """

    name: str
    cause: str
    kinds: tuple[str, ...]
    states: tuple[str, ...] = ()
    event: str = ""
    presence: tuple[str, ...] = ()
    delays: tuple[float, float] = (0.0, 1.0)


ENGINES = ("host dockerd", "host containerd", "environment's shim", "runner program")
INSIDE = ("first process", "environment-start", "inner dockerd", "inner containerd")
SERVICES = ("journald", "logind", "message bus", "sshd")
JOB = (
    "job's wrapper", "job's script", "job's docker client", "job's container", "inner shim",
)  # fmt: skip
"""What dies with or for the job alone: it may well fail then."""
CLIENTS = ("submitter", "sshd session")

PHASES = (
    Phase("idle", "nothing", (*ENGINES, *INSIDE, *SERVICES), ("ready",)),
    Phase("handing in", "job", ("submitter", "sshd session"), presence=("submitter",), delays=(0.0, 0.5)),
    Phase(
        "starting, after a job", "job", (*ENGINES, *INSIDE),
        ("cleaning", "preparing"), "end", delays=(0.0, 1.0),
    ),
    Phase(
        "starting, after a restart", "restart", (*ENGINES, *INSIDE),
        ("preparing",), delays=(0.0, 1.5),
    ),
    Phase(
        "running", "job",
        (*ENGINES, *INSIDE, *JOB, *CLIENTS, "journald", "sshd", "runner's docker exec"),
        ("running",), "nested", delays=(0.1, 1.5),
    ),
    Phase(
        "ending", "job",
        (*ENGINES, "first process", "inner dockerd", "inner containerd", "job's wrapper", "runner's docker exec"),
        event="end", delays=(0.0, 0.02),
    ),
    Phase(
        "prune", "prune",
        ("prune", "prune's docker client", *ENGINES, "first process", "inner dockerd", "inner containerd"),
        presence=("prune",), delays=(0.0, 0.8),
    ),
    Phase(
        "converge", "converge",
        ("module", "module's child", *ENGINES, "first process", "inner dockerd", "journald", "sshd session", "sshd"),
        presence=("module",), delays=(0.0, 9.0),
    ),
    Phase(
        "image build", "image",
        ("module", "mmdebstrap", "module's child", "host dockerd", "host containerd", "runner program", "sshd session"),
        presence=("mmdebstrap",), delays=(0.0, 10.0),
    ),
)  # fmt: skip


class Plan:
    """Pairs of a phase and a kind of victim, every phase in turn, every kind of it in turn.

    The same generator gives the same order.
    """

    def __init__(self, chance: random.Random, phases: tuple[Phase, ...] = PHASES) -> None:
        self._chance = chance
        self._phases = phases
        self._waiting: list[tuple[Phase, str]] = []
        self._coming = self._laps()

    def _laps(self) -> Iterator[tuple[Phase, str]]:
        queues: dict[str, list[str]] = {phase.name: [] for phase in self._phases}
        seen: set[str] = set()
        while True:
            for phase in self._phases:
                if not queues[phase.name]:
                    if phase.name in seen and len(seen) < len(self._phases):
                        # It has had its turns; the others come first.
                        continue
                    queues[phase.name] = self._chance.sample(phase.kinds, len(phase.kinds))
                yield phase, queues[phase.name].pop()
                if not queues[phase.name]:
                    seen.add(phase.name)
            if len(seen) == len(self._phases):
                seen.clear()

    def take(self, avoid: Container[str] = ()) -> tuple[Phase, str]:
        """The next pair; one whose kind is to be avoided now comes later."""
        for place, pair in enumerate(self._waiting):
            if pair[1] not in avoid:
                return self._waiting.pop(place)
        for pair in self._coming:
            if pair[1] not in avoid:
                return pair
            self._waiting.append(pair)
        raise AssertionError("the laps never end")


def pairs(phases: tuple[Phase, ...] = PHASES) -> int:
    """How many kills have every kind in every phase."""
    return sum(len(phase.kinds) for phase in phases)
