# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a runner's jobs come from. An agent is a class here and a line in :data:`AGENTS`.

To add one (GitLab, GitHub, Forgejo, Buildbot): read its keys in ``__init__``, say in
:meth:`Agent.claim` what is to be run in a fresh environment, and in :meth:`Agent.finish`
what becomes of the result. The loop, the environments and the locks stay as they are.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matryoshka_runner.causes import explain
from matryoshka_runner.cgroups import boot_id
from matryoshka_runner.config import Config
from matryoshka_runner.files import now
from matryoshka_runner.jobqueue import Claim, Ending, JobQueue
from matryoshka_runner.jobrun import Work
from matryoshka_runner.paths import Paths


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    :param status: ``succeeded``, ``failed``, ``cut off`` or ``refused``.
    :param exit_code: the job's own; None if it didn't end by itself.
    """

    status: str
    exit_code: int | None = None
    reason: str = ""
    usage: Mapping[str, Any] | None = None
    """What the job used, see :mod:`~matryoshka_runner.meter`; None if that wasn't measured."""


class Agent(ABC):
    """One source of jobs."""

    name = ""
    interval = 0.1
    """Seconds between two looks for a job."""
    folder: Path | None = None
    """Where it has to write before a job can run."""

    def __init__(self, config: Config, paths: Paths) -> None:
        self.config = config
        self.paths = paths

    def recover(self) -> list[Mapping[str, Any]]:
        """Report jobs that a crash left, as cut off; their results. Called once, before any claim."""
        return []

    def pending(self) -> bool:
        """False if :meth:`claim` would find nothing; has to be cheap."""
        return True

    @abstractmethod
    def claim(self, environment: str) -> Work | None:
        """A job for the environment with this id, from now on this runner's alone; None if there is none."""

    def started(self, work: Work) -> None:
        """The job is about to be run."""
        return

    def keep(self, work: Work) -> bool:
        """Nothing of the job has run or will: True if the next claim brings it again, unchanged."""
        return False

    @abstractmethod
    def finish(self, work: Work, outcome: Outcome) -> Mapping[str, Any]:
        """The job has ended and won't be run again; its result."""


class Local(Agent):
    """A directory on the host, see :mod:`matryoshka_runner.jobqueue`."""

    name = "local"
    TRIES = 3
    """So many environments are tried for a job that doesn't begin."""

    def __init__(self, config: Config, paths: Paths) -> None:
        super().__init__(config, paths)
        root = config.agent.folder("queue", default=str(paths.queue))
        self._queue = JobQueue(root, config.name)
        self.folder = root
        self._claims: dict[str, Claim] = {}
        self._endings: dict[str, Ending] = {}
        """Of jobs whose results can't be written yet."""
        self._kept: list[Claim] = []
        self._tries: dict[str, int] = {}

    def recover(self) -> list[Mapping[str, Any]]:
        self._queue.make_folders()
        self._claims.clear()
        return list(self._queue.recover(self._endings, {claim.id for claim in self._kept}))

    def pending(self) -> bool:
        return bool(self._kept) or self._queue.pending()

    def claim(self, environment: str) -> Work | None:
        self._queue.known = frozenset(path.stem for path in self.paths.configs.glob("*.json"))
        while claim := self._kept.pop(0) if self._kept else self._queue.claim():
            if claim.refusal:
                self._end(claim, Ending("refused", None, claim.refusal))
                continue
            try:
                self._queue.describe(claim, runner=self.config.name, environment=environment)
                claim.log.touch(mode=0o640)
            except OSError as error:
                self._endings[claim.id] = Ending("cut off", None, f"it couldn't be started: {explain(error)}")
                raise
            self._claims[claim.id] = claim
            return Work(claim.id, script=claim.script, log=claim.log)
        return None

    def started(self, work: Work) -> None:
        clock = {"boot": boot_id(), "clock": time.monotonic()}
        self._queue.describe(self._claims[work.id], started=now(), **clock)

    def keep(self, work: Work) -> bool:
        """It stays claimed: its id, its log and its turn stay its own."""
        tries = self._tries.get(work.id, 0) + 1
        try:
            if tries == self.TRIES:
                return False
            self._queue.describe(self._claims[work.id], started=None, clock=None)
        except OSError:
            return False
        self._tries[work.id] = tries
        self._kept.append(self._claims.pop(work.id))
        return True

    def finish(self, work: Work, outcome: Outcome) -> Mapping[str, Any]:
        claim = self._claims.pop(work.id)
        self._tries.pop(work.id, None)
        seconds = self._queue.seconds(claim)
        ending = Ending(outcome.status, outcome.exit_code, outcome.reason, outcome.usage, now(), seconds)
        return self._end(claim, ending)

    def _end(self, claim: Claim, ending: Ending) -> Mapping[str, Any]:
        try:
            return self._queue.report(claim, ending)
        except OSError:
            self._endings[claim.id] = ending
            raise


class Command(Agent):
    """A command that is run once in each environment; its output goes to the journal.

    One that fails fast is held back for a while, longer each time.
    """

    name = "command"
    FAST = 5.0
    LONGEST = 60.0

    def __init__(self, config: Config, paths: Paths) -> None:
        super().__init__(config, paths)
        self._command = config.agent.texts("command", "a list of texts: the program and its arguments")
        if not self._command:
            raise config.agent.refuse("command", [], "a list of texts: the program and its arguments")
        self._delay = 0.0
        self._not_before = 0.0
        self._times: dict[str, str] = {}
        self._began = 0.0

    def pending(self) -> bool:
        return time.monotonic() >= self._not_before

    def claim(self, environment: str) -> Work | None:
        if not self.pending():
            return None
        self._times = {"claimed": now()}
        return Work(f"command-{environment}", command=tuple(self._command))

    def started(self, work: Work) -> None:
        self._times["started"] = now()
        self._began = time.monotonic()

    def finish(self, work: Work, outcome: Outcome) -> Mapping[str, Any]:
        ended = now()
        started = self._times.get("started")
        seconds = round(time.monotonic() - self._began, 3) if started else 0.0
        fast = outcome.status != "succeeded" and seconds < self.FAST
        self._delay = min(max(2 * self._delay, 1.0), self.LONGEST) if fast else 0.0
        self._not_before = time.monotonic() + self._delay
        return {
            "job": work.id,
            "runner": self.config.name,
            "environment": work.id.removeprefix("command-"),
            "status": outcome.status,
            "exit_code": outcome.exit_code,
            "reason": outcome.reason,
            "submitted": None,
            "claimed": self._times.get("claimed"),
            "started": started or ended,
            "ended": ended,
            "seconds": seconds,
            "usage": outcome.usage,
        }


AGENTS: Mapping[str, type[Agent]] = {agent.name: agent for agent in (Local, Command)}


def make(config: Config, paths: Paths) -> Agent:
    """The agent that a configuration asks for; ConfigError for an unknown one or a wrong key."""
    agent = AGENTS[config.agent.choice("name", tuple(AGENTS))](config, paths)
    config.agent.finish()
    return agent
