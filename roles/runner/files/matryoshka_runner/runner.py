# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop of one runner: an environment, a job, the next environment."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

from matryoshka_runner import jobrun
from matryoshka_runner.agents import Agent, Outcome
from matryoshka_runner.config import Config
from matryoshka_runner.engine import Engine
from matryoshka_runner.environment import Environment
from matryoshka_runner.errors import EngineUnavailable, ProgramError
from matryoshka_runner.events import Mailbox
from matryoshka_runner.files import now
from matryoshka_runner.jobrun import Work
from matryoshka_runner.locks import Gates
from matryoshka_runner.state import State
from matryoshka_runner.supply import Leaving, Supply

HEALTH = 5.0
"""Seconds between two checks of an idle environment."""
STRIKES = 2
"""Failed checks in a row after which an idle environment is replaced."""
REASON = 2.0
"""Seconds to wait for the cause after the way to a job broke."""
DELAYS = (1.0, 30.0)
"""First and longest pause after the engine couldn't be reached, doubled in between."""


class Backoff:
    """Pauses that grow from ``first`` to ``longest`` seconds."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest, self._next = first, longest, first

    def next(self) -> float:
        pause, self._next = self._next, min(max(2 * self._next, 1.0), self._longest)
        return pause

    def reset(self) -> None:
        self._next = self._first


class Runner:
    """Keeps one environment ready until it is told to leave. The caller holds the runner's lock.

    :param say: takes a line for the journal.
    """

    def __init__(
        self,
        config: Config,
        agent: Agent,
        engine: Engine,
        supply: Supply,
        state: State,
        gates: Gates,
        box: Mailbox,
        say: Callable[[str], None],
    ) -> None:
        self.config = config
        self.agent = agent
        self.engine = engine
        self.supply = supply
        self.state = state
        self.gates = gates
        self.box = box
        self.say = say
        self._job_ended: float | None = None

    def serve(self) -> None:
        """Returns when the runner has left: no environment, nothing left over, state ``stopped``."""
        unreachable, unfit = Backoff(*DELAYS), Backoff(self.config.restart_delay, 60.0)
        environment: Environment | None = None
        used = False
        while not self.box.leaving:
            try:
                if environment is None or not used:
                    environment = None
                    self.state.change("preparing", environment=None, next=None, job=None)
                    self._report_cut_off()
                    environment = self.supply.first()
                else:
                    old, environment = environment, None
                    self.state.change("cleaning", environment=None, next=None)
                    environment = self.supply.replace(old)
                self._ready(environment)
                unreachable.reset()
                unfit.reset()
                used = self._serve_one(environment)
            except Leaving:
                break
            except (ProgramError, OSError) as error:
                environment = None
                self.say(f"failed: {error}")
                self.state.change("failed", environment=None, next=None, job=None, error=str(error))
                away = isinstance(error, EngineUnavailable)
                self._pause((unreachable if away else unfit).next())
        self._leave(environment)

    def _report_cut_off(self) -> None:
        """No job runs now: those that are still claimed were cut off."""
        for result in self.agent.recover():
            self.say(f"job {result['job']}: {result['status']}: {result['reason']}")
            self._count(result)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.box.leaving and time.monotonic() < until:
            self.box.wait(until - time.monotonic())

    def _ready(self, environment: Environment) -> None:
        if self._job_ended is not None:
            turnaround = round(time.monotonic() - self._job_ended, 3)
            self.state["timings"]["turnaround_seconds"] = turnaround
            self._job_ended = None
        self.state["timings"]["ready_seconds"] = environment.ready_seconds
        self.state.change("ready", environment=environment.as_state(), job=None, error=None)
        self.say(f"{environment.container} is ready after {environment.ready_seconds} s")
        self.supply.make_spare()

    def _serve_one(self, environment: Environment) -> bool:
        """Wait for a job and run it. False if there was none: the environment is lost, or we leave."""
        strikes, check = 0, time.monotonic() + HEALTH
        while not self.box.leaving:
            if environment.id in self.box.ended:
                self.say(f"{environment.container} ended while idle: {self.box.ended[environment.id]}")
                self.box.forget(environment.id)
                return False
            self._show_reach()
            if time.monotonic() >= check and not self.box.engine_away:
                strikes = 0 if self.supply.healthy(environment) else strikes + 1
                check = time.monotonic() + (1.0 if strikes else HEALTH)
                if strikes >= STRIKES:
                    self.say(f"the inner engine of {environment.container} doesn't answer any more")
                    return False
            self._show_spare()
            if not self.box.engine_away and self.agent.pending() and self.gates.enter():
                try:
                    work = self.agent.claim(environment.id)
                    if work is not None:
                        self._run(environment, work)
                        return True
                finally:
                    self.gates.leave()
            self.box.wait(self.agent.interval)
        return False

    def _show_reach(self) -> None:
        """An engine that keeps containers alive while it is down leaves the environment as it is."""
        if self.box.engine_away and self.state["state"] == "ready":
            self.state.change("failed", error="the engine on the host doesn't answer; no job is taken")
        elif not self.box.engine_away and self.state["state"] == "failed":
            self.state.change("ready", error=None)

    def _show_spare(self) -> None:
        spare = self.supply.spare
        shown = {"id": spare.id, "container": spare.container} if spare else None
        if shown != self.state["next"]:
            self.state.change(next=shown)

    def _run(self, environment: Environment, work: Work) -> None:
        self.agent.started(work)
        self.state.change("running", job={"id": work.id, "started": now()})
        self.say(f"job {work.id} runs in {environment.container}")
        client: subprocess.Popen[bytes] | None = None
        try:
            client = jobrun.start(self.engine, environment, work, self.box)
            outcome = self._await(environment)
        except OSError as error:
            outcome = Outcome("cut off", None, f"the job couldn't be started: {error}")
        self._job_ended = time.monotonic()
        if outcome.status == "cut off":
            self._silence(environment, client)
        result = self.agent.finish(work, outcome)
        self._count(result)
        self.state.change("cleaning", job=None)
        code = "" if outcome.exit_code is None else f", exit code {outcome.exit_code}"
        self.say(
            f"job {result['job']}: {outcome.status}{code}" + (f": {outcome.reason}" if outcome.reason else "")
        )

    def _silence(self, environment: Environment, client: subprocess.Popen[bytes] | None) -> None:
        """Make sure that a job which is reported as cut off doesn't go on."""
        try:
            self.supply.end(environment)
        except ProgramError as error:
            self.say(str(error))
        if client is not None and client.poll() is None:
            client.terminate()
        self.box.wait(0.2)

    def _count(self, result: Mapping[str, Any]) -> None:
        last = {key: result.get(key) for key in ("exit_code", "status", "started", "ended")}
        self.state.change(last_job={"id": result["job"], **last}, jobs_done=self.state["jobs_done"] + 1)

    def _await(self, environment: Environment) -> Outcome:
        """Wait for the end of the running job; how it ended."""
        drained_by: float | None = None
        while True:
            ended = self.box.jobs.get(environment.id)
            if ended is not None:
                return self._judge(environment, ended.exit_code, ended.how)
            if environment.id in self.box.ended:
                self._wait_for_job_end(environment)
                ended = self.box.jobs.get(environment.id)
                code = ended.exit_code if ended else None
                return self._judge(environment, code, "")
            if self.box.stop:
                return self._stopped()
            if self.box.drain and drained_by is None:
                drained_by = time.monotonic() + self.config.drain_timeout
                self.state.change("draining")
                self.say(f"draining: leaves after this job, in {self.config.drain_timeout:g} s at the latest")
            if drained_by is not None and time.monotonic() >= drained_by:
                reason = f"drain timeout: the job still ran after {self.config.drain_timeout:g} s of draining"
                return Outcome("cut off", None, reason)
            self.box.wait(60.0 if drained_by is None else min(60.0, drained_by - time.monotonic()))

    def _wait_for_job_end(self, environment: Environment) -> None:
        until = time.monotonic() + REASON
        while environment.id not in self.box.jobs and time.monotonic() < until:
            self.box.wait(until - time.monotonic())

    def _judge(self, environment: Environment, code: int | None, how: str) -> Outcome:
        """A failure counts as the job's own only if its environment is well."""
        if code == 0:
            return Outcome("succeeded", 0)
        if code is not None and environment.id not in self.box.ended and self._well(environment):
            return Outcome("failed", code)
        until = time.monotonic() + REASON
        while environment.id not in self.box.ended and not self.box.engine_away and time.monotonic() < until:
            self.box.wait(until - time.monotonic())
        if self.box.stop:
            return self._stopped()
        if environment.id in self.box.ended:
            return Outcome(
                "cut off", None, f"the environment ended during the job: {self.box.ended[environment.id]}"
            )
        if self.box.engine_away:
            return Outcome("cut off", None, "the engine on the host stopped answering during the job")
        if code is not None:
            return Outcome("cut off", None, "the inner engine stopped answering during the job")
        return Outcome("cut off", None, f"the connection to the job broke: {how}")

    def _stopped(self) -> Outcome:
        """systemd stops a runner too when the engine that it needs has died."""
        try:
            self.engine.expect(1.0)
        except EngineUnavailable:
            return Outcome("cut off", None, "the engine on the host stopped answering during the job")
        return Outcome("cut off", None, "the runner was stopped")

    def _well(self, environment: Environment) -> bool:
        try:
            return not self.box.engine_away and self.supply.healthy(environment)
        except ProgramError:
            return False

    def _leave(self, environment: Environment | None) -> None:
        if self.state["state"] != "draining":
            self.state.change("cleaning")
        try:
            self.supply.take_down(environment)
        except (ProgramError, OSError) as error:
            self.say(f"left for the next start to remove: {error}")
        self.state.change("stopped", environment=None, next=None, job=None, error=None)
