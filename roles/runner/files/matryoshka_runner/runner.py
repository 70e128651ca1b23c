# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop of one runner: an environment, a job, the next environment."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from matryoshka_runner import jobrun
from matryoshka_runner.agents import Agent, Outcome
from matryoshka_runner.backoff import Backoff
from matryoshka_runner.causes import explain, lack_of_room
from matryoshka_runner.config import Config
from matryoshka_runner.engine import Engine
from matryoshka_runner.environment import Environment
from matryoshka_runner.errors import EngineUnavailable, ProgramError
from matryoshka_runner.events import Mailbox
from matryoshka_runner.files import now
from matryoshka_runner.jobrun import Work
from matryoshka_runner.locks import Gates
from matryoshka_runner.meter import SAMPLE, Evidence, Meter
from matryoshka_runner.state import State
from matryoshka_runner.supply import Leaving, Supply
from matryoshka_runner.verdict import in_words, met, used

HEALTH = 5.0
"""Seconds between two checks of an idle environment."""
BESIDE = 2.0
"""Seconds between two looks for the containerd of a job that runs; dockerd starts a new one after 7 to 12."""
STRIKES = 2
"""Failed checks in a row after which an environment is replaced."""
ADRIFT = "the inner engine's containerd stopped answering during the job"
"""dockerd starts a new one, but never learns of a container that ended meanwhile, and whoever
waits for that one waits forever (Docker 26)."""
KILLED = 128 + signal.SIGKILL
"""Exit code of a job whose environment its own memory limit killed, as a shell has it."""
REASON = 2.0
"""Seconds to wait for the cause after the way to a job broke."""
DELAYS = (1.0, 30.0)
"""First and longest pause after the engine couldn't be reached, doubled in between."""


class Strikes:
    """Counts how often a check has failed in a row.

    :param rest: seconds between two checks as long as none fails.
    """

    def __init__(self, rest: float) -> None:
        self._rest = rest
        self._count = 0
        self._next = time.monotonic() + rest

    def out(self, well: Callable[[], bool]) -> bool:
        """Check if it is time to; True after :data:`STRIKES` in a row that failed."""
        if time.monotonic() >= self._next:
            self._count = 0 if well() else self._count + 1
            self._next = time.monotonic() + (1.0 if self._count else self._rest)
        return self._count >= STRIKES


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
        self._lacking = ""

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
                if self.box.stop:
                    self.say(f"left undone: {explain(error)}")
                    break
                why = explain(error, again=True)
                self.say(f"failed: {why}")
                self.state.change("failed", environment=None, next=None, job=None, error=why)
                self._show_set_aside()
                away = isinstance(error, EngineUnavailable)
                self._pause((unreachable if away else unfit).next())
        self._leave(environment)

    def _report_cut_off(self) -> None:
        """No job runs now: those that are still claimed were cut off."""
        for result in self.agent.recover():
            self.say(in_words(result))
            self._count(result)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.box.leaving and time.monotonic() < until:
            self.state.catch_up()
            self.box.wait(min(SAMPLE, until - time.monotonic()))

    def _show_set_aside(self) -> None:
        found = self.supply.trust.found(self.state["set_aside"])
        if found != self.state["set_aside"]:
            self.state.change(set_aside=found)

    def _ready(self, environment: Environment) -> None:
        if self._job_ended is not None:
            turnaround = round(time.monotonic() - self._job_ended, 3)
            self.state["timings"]["turnaround_seconds"] = turnaround
            self._job_ended = None
        self.state["timings"]["ready_seconds"] = environment.ready_seconds
        self.state.change("ready", environment=environment.as_state(), job=None, error=None)
        self._show_set_aside()
        self.say(f"{environment.container} is ready after {environment.ready_seconds} s")
        self.supply.make_spare()

    def _serve_one(self, environment: Environment) -> bool:
        """Wait for a job and run it. False if there was none: the environment is lost, or we leave."""
        strikes = Strikes(HEALTH)
        while not self.box.leaving:
            if environment.id in self.box.ended:
                self.say(f"{environment.container} ended while idle: {self.box.ended[environment.id]}")
                self.box.forget(environment.id)
                return False
            self._show_reach(environment)
            self.state.catch_up()
            if not self.box.engine_away and strikes.out(partial(self._is_fit, environment)):
                self.say(f"the inner engine of {environment.container} doesn't answer any more")
                return False
            self._show_spare()
            if self._may_claim(environment) and self.gates.enter():
                try:
                    work = self.agent.claim(environment.id)
                    if work is not None:
                        self._run(environment, work)
                        return True
                finally:
                    self.gates.leave()
            self.box.wait(self.agent.interval)
        return False

    def _is_fit(self, environment: Environment) -> bool:
        self._lacking = self.supply.footing.lacks(environment)
        return self.supply.healthy(environment)

    def _may_claim(self, environment: Environment) -> bool:
        if self.state["state"] != "ready" or not self.agent.pending():
            return False
        self._lacking = self.supply.footing.lacks(environment)
        return not self._lacking

    def _show_reach(self, environment: Environment) -> None:
        """What keeps a ready environment from taking a job: a lost engine, which may come back; a full disk."""
        if self._lacking:
            self._lacking = self.supply.footing.lacks(environment)
        if self.box.engine_away:
            why = "the engine on the host doesn't answer; no job is taken"
        elif self._lacking:
            why = f"{self._lacking}; no job is taken"
        else:
            lack = self._lack()
            why = f"{lack}; no job is taken until then" if lack else ""
        if why and self.state["state"] == "ready":
            self.say(why)
            self.state.change("failed", error=why)
        elif not why and self.state["state"] == "failed":
            self.state.change("ready", error=None)

    def _lack(self) -> str:
        """Where there is no room for what a job needs before it can run; empty if there is."""
        folders = (self.supply.run_folder, self.agent.folder)
        lacks = (lack_of_room(folder) for folder in folders if folder is not None)
        return next((lack for lack in lacks if lack), "")

    def _show_spare(self) -> None:
        spare = self.supply.spare
        shown = {"id": spare.id, "container": spare.container} if spare else None
        if shown != self.state["next"]:
            self.state.change(next=shown)

    def _run(self, environment: Environment, work: Work) -> None:
        self.state.change("running", job={"id": work.id, "started": now()})
        self.say(f"job {work.id} runs in {environment.container}")
        client: subprocess.Popen[bytes] | None = None
        with closing(Meter(environment.place, environment.data_root)) as meter:
            try:
                self.agent.started(work)
                if environment.place is not None:
                    environment.place.environment.die_whole()
                client = jobrun.start(self.engine, environment, work, self.box, self.config.limits.log_bytes)
                outcome = self._await(environment, meter)
            except OSError as error:
                outcome = Outcome("cut off", None, f"the job couldn't be started: {explain(error)}")
            outcome = replace(outcome, usage=meter.usage())
        self._job_ended = time.monotonic()
        if outcome.status == "cut off" or environment.id not in self.box.jobs:
            self._silence(environment, client)
        if outcome.status == "cut off" and self._keep(environment, work, outcome):
            return
        self._end_log(environment, work, outcome)
        try:
            result = self.agent.finish(work, outcome)
        except OSError:
            self._silence(environment, client)
            raise
        self._count(result)
        self.state.change("cleaning", job=None)
        self.say(in_words(result))
        self.say(f"job {result['job']}: used {used(outcome.usage or {}) or 'what the kernel does not tell'}")

    def _keep(self, environment: Environment, work: Work, outcome: Outcome) -> bool:
        """Have a job that never began run in the next environment; True if it will be."""
        ended = self.box.jobs.get(environment.id)
        if ended is None or ended.began or self.box.leaving or not self.agent.keep(work):
            return False
        self.state.change("cleaning", job=None)
        why = f"it never began, the next environment gets it: {outcome.reason}"
        self.say(f"job {work.id}: {why}")
        if work.log is not None:
            with suppress(OSError):
                jobrun.end_log(work.log, [why])
        return True

    def _end_log(self, environment: Environment, work: Work, outcome: Outcome) -> None:
        """The log's last lines say if it was cut, and why the job didn't go on."""
        ended = self.box.jobs.get(environment.id)
        thrown = ended.thrown if ended else None
        note = jobrun.cut_note(work.log, self.config.limits.log_bytes, thrown)
        lines = [line for line in (note, outcome.reason) if line]
        if work.log is None:
            if note:
                self.say(f"job {work.id}: {note}")
            return
        try:
            if lines:
                jobrun.end_log(work.log, lines)
        except OSError as error:
            self.say(f"job {work.id}: the log's last line can't be written: {explain(error)}")

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
        keys = ("exit_code", "status", "reason", "started", "ended", "usage")
        last = {key: result.get(key) for key in keys}
        self.state.change(last_job={"id": result["job"], **last}, jobs_done=self.state["jobs_done"] + 1)

    def _await(self, environment: Environment, meter: Meter) -> Outcome:
        """Wait for the end of the running job; how it ended."""
        drained_by: float | None = None
        strikes = Strikes(BESIDE)
        while True:
            ended = self.box.jobs.get(environment.id)
            if ended is not None:
                return self._judge(environment, ended.exit_code, ended.how, meter)
            if environment.id in self.box.ended:
                self._wait_for_job_end(environment)
                ended = self.box.jobs.get(environment.id)
                code = ended.exit_code if ended else None
                return self._judge(environment, code, "", meter)
            if self.box.stop:
                return self._stopped()
            if self.box.drain and drained_by is None:
                drained_by = time.monotonic() + self.config.drain_timeout
                self.state.change("draining")
                self.say(f"draining: leaves after this job, in {self.config.drain_timeout:g} s at the latest")
            if drained_by is not None and time.monotonic() >= drained_by:
                reason = f"drain timeout: the job still ran after {self.config.drain_timeout:g} s of draining"
                return Outcome("cut off", None, reason)
            if strikes.out(partial(self._stands, environment)):
                return self._broken(environment, ADRIFT, meter)
            self.state.catch_up()
            self.box.wait(SAMPLE if drained_by is None else min(SAMPLE, drained_by - time.monotonic()))
            meter.sample()

    def _stands(self, environment: Environment) -> bool:
        """False if the inner engine has lost its containerd, and not because the whole environment ends."""
        ends = environment.first is not None and environment.first.ended()
        return ends or not self.supply.footing.inner_lacks(environment)

    def _wait_for_job_end(self, environment: Environment) -> None:
        until = time.monotonic() + REASON
        while environment.id not in self.box.jobs and time.monotonic() < until:
            self.box.wait(until - time.monotonic())

    def _judge(self, environment: Environment, code: int | None, how: str, meter: Meter) -> Outcome:
        """A failure counts as the job's own only if its environment is well. Says which limits were met."""
        if code == 0:
            return Outcome("succeeded", 0)
        if code is not None and environment.id not in self.box.ended and self._well(environment):
            return Outcome("failed", code, self._limits_met(environment, meter.evidence()))
        until = time.monotonic() + REASON
        while environment.id not in self.box.ended and not self.box.engine_away and time.monotonic() < until:
            self.box.wait(until - time.monotonic())
        if self.box.stop:
            return self._stopped()
        if environment.id in self.box.ended:
            why = f"the environment ended during the job: {self.box.ended[environment.id]}"
        elif self.box.engine_away:
            why = "the engine on the host stopped answering during the job"
        elif code is not None:
            lack = self.supply.footing.lacks(environment)
            why = (
                f"{lack} at the end of the job"
                if lack
                else "the inner engine stopped answering during the job"
            )
        else:
            lack = self._lack() or self.supply.footing.lacks(environment)
            why = f"the connection to the job broke: {how}" + (f"; {lack}" if lack else "")
        return self._broken(environment, why, meter)

    def _broken(self, environment: Environment, why: str, meter: Meter) -> Outcome:
        """A job that its environment didn't carry to its end: cut off, unless its own memory limit did that."""
        evidence = meter.evidence()
        limits = self._limits_met(environment, evidence)
        reason = f"{limits}; {why}" if limits else why
        if evidence.own_oom and not self.box.engine_away:
            # Another try would end the same way. A busy host may not have told yet that the environment ended.
            return Outcome("failed", KILLED, reason)
        return Outcome("cut off", None, reason)

    def _limits_met(self, environment: Environment, evidence: Evidence) -> str:
        out_of_memory = "out of memory" in self.box.ended.get(environment.id, "")
        return met(evidence, self.config.limits, out_of_memory)

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
            self.say(f"left for the next start to remove: {explain(error)}")
        self.state.change("stopped", environment=None, next=None, job=None, error=None)
