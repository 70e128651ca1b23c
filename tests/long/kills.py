#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills every process of a site in turn, in every phase of a runner, and asks the system what came of it.

Makes a container host, converges ``playbooks/site.yml`` with the runners ``ci`` (persistent cache) and
``neighbour`` (none), and then again and again: brings a runner into a phase, kills one process (SIGKILL),
waits until both runners are ready without a hand, has each run a job, and looks at everything that could
be left. Every few kills and at the end, verify.yml has to be clean and site.yml may change nothing.
Which process, when and in which order comes from a seed. Ends with 1 if an expectation wasn't met.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "dev")]

import hosts as container_hosts
from expectations import Kill, Verdict, judge, ready_limit
from kill_site import FOLDER, NAMES, PERSIST, KillSite, PlayFailed
from leftovers import leftovers
from outcomes import summary, table
from phases import PHASES, Phase, Plan, pairs

ENGINE_STARTS = 2
"""How often the engine is killed in :data:`ENGINE_SECONDS`: Debian's unit starts it thrice in a minute at most."""
ENGINE_SECONDS = 65.0
JOB_SECONDS = 2.5
LATEST = 300.0
"""Seconds for which runners that missed their time are waited for, before the next kill."""
SMALL_IMAGE = ["ca-certificates", "docker-cli", "tini"]
"""Packages of the image that is built to be killed at; no runner gets it."""
BUILD_ENDS = 180.0
"""Seconds within which an image build is over that has lost whoever waited for it: it goes on to its end."""
TRIES = 3
"""How often a moment that was missed is tried for again."""


@dataclass
class Shot:
    """A kill under way: who waits for the moment, and what runs meanwhile."""

    killer: subprocess.Popen[bytes]
    job: subprocess.Popen[bytes] | None = None
    play: subprocess.Popen[bytes] | None = None


class Harness:
    """One run.

    :param say: takes a line for the person who waits.
    """

    def __init__(
        self, site: KillSite, seed: int, phases: tuple[Phase, ...], say: Callable[[str], None]
    ) -> None:
        self.site = site
        self.say = say
        self.chance = random.Random(seed)
        self.plan = Plan(random.Random(seed), phases)
        self.tag = f"k{int(time.time()) % 0xFFFF:04x}"
        self.done: list[tuple[Kill, Verdict]] = []
        self.failures: list[str] = []
        self._engine: list[float] = []
        self._known: list[str] = []
        self._number = 0

    def run(self, kills: int, every: int) -> None:
        """All kills, with a check after ``every`` of them and at the end."""
        while len(self.done) < kills:
            self.next_kill()
            if len(self.done) % every == 0 and len(self.done) < kills:
                self.check()
        self.check()

    def next_kill(self) -> None:
        """One kill, judged; a pair whose moment is missed again and again is named and left out."""
        recent = [each for each in self._engine if time.monotonic() - each < ENGINE_SECONDS]
        phase, kind = self.plan.take({"host dockerd"} if len(recent) >= ENGINE_STARTS else ())
        runner = "ci" if self.chance.random() < 0.7 else "neighbour"
        for attempt in range(1, TRIES + 1):
            delay = round(self.chance.uniform(*phase.delays) / attempt, 3)
            if self.one(phase, kind, runner, delay):
                return
        self.say(f"    {phase.name}: {kind} was never there at its moment")

    def one(self, phase: Phase, kind: str, runner: str, delay: float) -> bool:
        """Whether a process was killed."""
        self._number += 1
        whose = f"{self.tag}-{self._number:03}"
        begin = time.monotonic()
        shot = self.begin(phase, kind, runner, delay, f"{whose}-job")
        said, errors = shot.killer.communicate(timeout=200)
        victim: dict[str, Any] = json.loads(said) if said else {"kind": "", "seen": errors.decode()}
        if kind == "host dockerd" and victim["kind"]:
            self._engine.append(time.monotonic())
        play = shot.play.wait(600) if shot.play else None
        if play is not None and victim["kind"]:
            if victim["kind"] in ("sshd", "sshd session"):
                # Ansible's shared connection, dead or not, is used again for as long as it is kept.
                time.sleep(PERSIST + 1)
            self.repeat(phase, victim)
        asked = {
            "since": 0 if shot.play or not victim["kind"] else victim["monotonic"],
            "limit": ready_limit(kind), "hold": 3.0 if kind.startswith("host ") else 0.7,
            "grace": BUILD_ENDS if phase.cause == "image" else 20.0,
            "runners": NAMES, "probe": f"{FOLDER}/probe", "whose": whose,
            "known": self._known,
        }  # fmt: skip
        seen = self.recover(asked)
        if phase.cause == "image" and play and victim["kind"]:
            # The build may have gone on to its end; what it made, the next play takes away.
            self.repeat(phase, victim)
        submitter = self.end_of(shot.job) if shot.job else None
        if victim["kind"] == "message bus":
            # D-Bus can't be restarted under its users: logind doesn't come back to it, and logins wait for logind.
            self.site.run("systemctl restart systemd-logind.service")
        if not victim["kind"]:
            self.say(f"    {phase.name}: {victim['seen']}")
            return False
        job = f"{whose}-job" if shot.job else ""
        kill = Kill(len(self.done) + 1, phase.name, kind, runner, delay, victim, job, submitter, play)
        verdict = judge(kill, seen, NAMES, self._known)
        self._known = leftovers(seen["left"], NAMES)
        self.record(kill, verdict, time.monotonic() - begin)
        return True

    @staticmethod
    def end_of(client: subprocess.Popen[bytes]) -> int | None:
        """Exit code of a job's submitter; None if it still waits, as for a job that hangs."""
        try:
            return client.wait(120)
        except subprocess.TimeoutExpired:
            client.kill()
            return None

    def recover(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What there is once the runners are ready again. One that comes late is waited for; it is told of as late."""
        seen = self.site.program("recovery.py", asked)
        if seen["missing"]:
            late = self.site.program("recovery.py", {**asked, "limit": LATEST})
            if late["missing"]:
                self.say("     lending a hand: the engine and the runners are started")
                units = " ".join(f"matryoshka-runner@{name}.service" for name in NAMES)
                self.site.run(f"systemctl reset-failed; systemctl start docker.service {units}")
                late = self.site.program("recovery.py", asked) | {"ready": {}}
            seen = late | {"missing": seen["missing"]}
        return seen

    def begin(self, phase: Phase, kind: str, runner: str, delay: float, job: str) -> Shot:
        """Bring about the phase, with somebody on the host who waits for it."""
        wanted = {
            "kinds": [kind], "runner": runner, "choice": self.chance.random(), "states": phase.states,
            "event": phase.event, "job": job, "presence": phase.presence, "delay": delay, "wait": 60.0,
        }  # fmt: skip
        shot = Shot(self.site.start_program("moment.py", wanted))
        if phase.cause == "job":
            shot.job = self.site.submit(job, runner, JOB_SECONDS if phase.name == "running" else 0.2)
        elif phase.cause == "restart":
            self.site.run(f"systemctl restart --no-block matryoshka-runner@{runner}.service")
        elif phase.cause == "prune":
            what = "--engine" if self.chance.random() < 0.3 else runner
            command = f"matryoshka prune {what} --until 1s --build-cache"
            self.site.run(f"systemd-run --quiet --collect --unit=kills-{job} {command}")
        elif phase.cause == "image":
            wanted_image = {"runner_image_refresh": job, "runner_image_packages": SMALL_IMAGE}
            shot.play = self.site.start_play("site", wanted_image, "runner_image")
        elif phase.cause == "converge":
            self.site.variables["runner_pids"] = 8000 + self._number
            shot.play = self.site.start_play("site")
        return shot

    def repeat(self, phase: Phase, victim: dict[str, Any]) -> None:
        """A play that died is run again, as a person would; it has to go through."""
        try:
            self.site.play("site")
        except PlayFailed as failure:
            self.fail(f"{phase.name}: {victim['kind']}: the play run again: {failure}")

    def record(self, kill: Kill, verdict: Verdict, took: float) -> None:
        self.done.append((kill, verdict))
        ready = "not ready" if verdict.seconds is None else f"ready after {verdict.seconds:.1f} s"
        remarks = "; ".join(verdict.remarks)
        self.say(
            f"{kill.number:4} {kill.phase}: {kill.kind} ({kill.runner}, {kill.delay:.2f} s,"
            f" {kill.victim['state'] or 'no state'}): {verdict.outcome}; {ready}; {took:.0f} s in all"
            + (f"; {remarks}" if remarks else "")
        )
        for complaint in verdict.complaints:
            self.fail(f"kill {kill.number}, {kill.phase}, {kill.kind} of {kill.runner}: {complaint}")
        if verdict.complaints:
            self.say(f"     {json.dumps(asdict(kill))}")

    def fail(self, text: str) -> None:
        self.failures.append(text)
        self.say(f"     FAILED {text}")

    def check(self) -> None:
        """The play changes nothing, and verify has nothing to complain about."""
        try:
            said = self.site.play("site")
            changed = re.search(r"changed=(\d+)", said)
            if changed is None or changed[1] != "0":
                tasks = re.findall(r"TASK \[([^]]*)\][^\n]*\n(?:(?!TASK )[^\n]*\n)*?changed:", said)
                self.fail(f"after {len(self.done)} kills the play changed {tasks}")
            if "nothing to complain about" not in self.site.play("verify"):
                self.fail(f"after {len(self.done)} kills verify.yml complains; see {self.site.log.name}")
        except PlayFailed as failure:
            self.fail(f"after {len(self.done)} kills {failure}")
        self.say(f"     checked after {len(self.done)} kills")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./dev test long kills --", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--kills", type=int, default=100, help=f"how many (100); {pairs()} have every kind in every phase"
    )
    parser.add_argument("--seed", type=int, default=None, help="repeat a run's choices")
    parser.add_argument(
        "--phase", action="append", choices=[phase.name for phase in PHASES], help="only this one; repeatable"
    )
    parser.add_argument("--every", type=int, default=25, help="kills between two checks by the plays (25)")
    parser.add_argument("--host", default="kills", help="the container host's name (kills)")
    parser.add_argument("--image", default="debian13-docker")
    parser.add_argument("--playbooks", type=Path, default=HERE.parents[1] / "playbooks")
    parser.add_argument("--keep", action="store_true", help="leave the host as it is")
    args = parser.parse_args()
    phases = tuple(phase for phase in PHASES if phase.name in (args.phase or [phase.name]))
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1_000_000)
    folder = container_hosts.STATE / "long"
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "kills.txt"
    print(f"seed {seed}; the table comes to {report}", flush=True)
    begin = time.monotonic()
    with open(folder / "kills-plays.log", "w", encoding="utf-8") as log:
        site = KillSite(args.host, args.image, args.playbooks.resolve(), log)
        site.play("site")
        harness = Harness(site, seed, phases, lambda text: print(text, flush=True))
        print(f"converged after {time.monotonic() - begin:.0f} s", flush=True)
        try:
            harness.run(args.kills, args.every)
        except KeyboardInterrupt:
            harness.fail(f"interrupted after {len(harness.done)} of {args.kills} kills")
    lines = [table(harness.done), "", summary(harness.done)]
    lines += [f"FAILED (seed {seed}) {failure}" for failure in harness.failures]
    text = "\n".join(lines) + f"\nseed {seed}, {time.monotonic() - begin:.0f} s\n"
    report.write_text(text, encoding="utf-8")
    print(f"\n{text}", end="")
    if not args.keep:
        site.remove()
    return 1 if harness.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
