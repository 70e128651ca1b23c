# SPDX-License-Identifier: GPL-3.0-or-later
"""Cuts the power of a converged machine at random moments, and asks what became of it.

After each cut the machine is only turned on again: nobody touches it until its runners are ready.
"""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from machine import Failure

if TYPE_CHECKING:
    from machines import Machine

QUEUE = "/var/lib/matryoshka/queue"
TRACE = "/var/lib/trace"
"""Bound into every environment at ``/trace``: what a job writes there is on the disk before the job goes on."""
SCRIPT = """\
echo "$MATRYOSHKA_JOB" >> /trace/runs; sync /trace/runs
docker volume create heap >/dev/null
cd "$(docker volume inspect -f '{{{{.Mountpoint}}}}' heap)"
cp /bin/busybox . && tar c busybox | docker import - "cut:$MATRYOSHKA_JOB" >/dev/null
dd if=/dev/urandom of=some bs=1M count=16 2>/dev/null
sleep {seconds}
echo "$MATRYOSHKA_JOB" >> /trace/ends; sync /trace/ends
"""
CACHE_WORKS = """\
docker image ls -q | xargs -r -n 1 docker image inspect -f '{{.Id}}' >/dev/null
cp /bin/busybox . && tar c busybox | docker import - look >/dev/null && docker run --rm look /busybox true
"""
PATIENCE = 900.0
"""Seconds within which all jobs have to end that a cut left."""


@dataclass
class Cut:
    """One cut and what came of it; seconds are counted from power-on."""

    number: int
    moment: str
    after: float
    ssh: float = 0.0
    ready: float | None = None
    jobs: dict[str, str] = field(default_factory=dict)
    caches: str = "kept"
    converge: str = ""
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Moment:
    """Something that a machine is in the middle of.

    :param begin: sets it going and returns at once; the ids of the jobs that it handed in.
    :param window: seconds after that within which the power is cut.
    """

    name: str
    begin: Callable[[Machine, random.Random], list[str]]
    window: tuple[float, float]


def in_background(machine: Machine, script: str) -> list[str]:
    machine.sh(f"systemd-run --quiet --collect /bin/sh -c '{script}'")
    return []


def play(machine: Machine, variables: dict[str, Any]) -> list[str]:
    """The site's play with other variables; the cut ends it."""

    def run() -> None:
        try:
            machine.playbook("site", **variables)
        except subprocess.SubprocessError:
            return

    threading.Thread(target=run, daemon=True).start()
    return []


def converge(machine: Machine, chance: random.Random) -> list[str]:
    mark = str(chance.randrange(10, 99))
    return play(
        machine, {"runner_environment": {"MARK": mark}, "docker_log_options": {"max-size": f"{mark}m"}}
    )


def image_build(machine: Machine, chance: random.Random) -> list[str]:
    extra = chance.choice(["file", "less", "patch", "rsync"])
    return play(machine, {"runner_image_packages_extra": [extra], "runner_image_archive": ""})


def environment_start(machine: Machine, _chance: random.Random) -> list[str]:
    return in_background(machine, "systemctl restart matryoshka-runner@ci matryoshka-runner@neighbour")


def hand_in(machine: Machine, count: int, seconds: int) -> list[str]:
    """Jobs that are on the disk when this returns, as ``matryoshka job`` has them before it says their names."""
    jobs = machine.submit_all([SCRIPT.format(seconds=seconds)] * count, name="cut")
    machine.sh(f"sync -f {QUEUE}")
    return [one.id for one in jobs]


def job(machine: Machine, _chance: random.Random) -> list[str]:
    return hand_in(machine, 2, 30)


def end_of_job(machine: Machine, _chance: random.Random) -> list[str]:
    return hand_in(machine, 4, 0)


def prune(machine: Machine, _chance: random.Random) -> list[str]:
    return in_background(
        machine, "matryoshka prune ci --until 0s --build-cache; matryoshka prune --engine --until 0s"
    )


MOMENTS = (
    Moment("job", job, (0, 25)),
    Moment("start of an environment", environment_start, (0, 15)),
    Moment("end of a job", end_of_job, (8, 40)),
    Moment("prune", prune, (0, 12)),
    Moment("converge", converge, (5, 90)),
    Moment("image build", image_build, (45, 240)),
)


def strike(machine: Machine, number: int, moment: Moment, chance: random.Random, jobs: list[str]) -> Cut:
    """Set ``moment`` going and cut the power in the midst of it.

    :param jobs: that were handed in and not looked for yet; this moment's are added.
    """
    after = chance.uniform(*moment.window)
    jobs += moment.begin(machine, chance)
    time.sleep(after)
    machine.vm.machine.cut()
    return Cut(number, moment.name, round(after, 1))


def look_after(machine: Machine, found: Cut, jobs: list[str], again: bool) -> None:
    """What became of the jobs and caches of a machine that is ready.

    :param jobs: those to look for; none is left afterwards.
    :param again: run the site's play, too, which ends with verify.
    """
    judge_jobs(machine, found, jobs)
    jobs.clear()
    judge_caches(machine, found)
    if again:
        judge_converge(machine, found)


def cut(
    machine: Machine,
    number: int,
    moment: Moment,
    chance: random.Random,
    jobs: list[str],
    look: bool = True,
    again: bool = True,
) -> Cut:
    """Set ``moment`` going, cut the power in the midst of it, turn it on and look.

    :param jobs: as of :func:`strike`.
    :param look: wait until all is well and look for the jobs. Else the next cut meets a machine that still comes up.
    :param again: as of :func:`look_after`.
    """
    found = Cut(number, moment.name, 0.0)
    try:
        found = strike(machine, number, moment, chance, jobs)
        begin = time.monotonic()
        found.ssh = machine.vm.boot(whole=False)
        if look:
            machine.all_ready()
            found.ready = time.monotonic() - begin
            look_after(machine, found, jobs, again)
    except (AssertionError, Failure, subprocess.SubprocessError) as failed:
        found.wrong.append(str(failed))
    return found


def judge_jobs(machine: Machine, found: Cut, jobs: Sequence[str]) -> None:
    """Every job that was handed in has one end, and ran once at most."""
    until = time.monotonic() + PATIENCE
    results = read_results(machine, jobs)
    while len(results) < len(jobs) and waiting(machine, jobs) and time.monotonic() < until:
        time.sleep(2)
        results = read_results(machine, jobs)
    # The last one may have ended between the two questions.
    results = read_results(machine, jobs)
    runs = machine.sh(f"cat {TRACE}/runs 2>/dev/null || true").split()
    ends = machine.sh(f"cat {TRACE}/ends 2>/dev/null || true").split()
    for identity in jobs:
        result = results.get(identity)
        if result is None:
            found.wrong.append(f"job {identity} has no result and ran {runs.count(identity)} times")
            continue
        found.jobs[identity] = str(result["status"])
        found.wrong += judge_result(identity, result, runs.count(identity), identity in ends)


def judge_result(identity: str, result: dict[str, Any], runs: int, ended: bool) -> list[str]:
    """What is wrong with one job's end."""
    wrong = []
    if runs > 1:
        wrong.append(f"job {identity} ran {runs} times")
    if result["status"] == "succeeded" and not ended:
        wrong.append(f"job {identity} is called succeeded and didn't end")
    if result["status"] == "cut off" and not result["reason"]:
        wrong.append(f"job {identity} was cut off without a reason")
    if result["status"] not in ("succeeded", "cut off"):
        wrong.append(f"job {identity}: {result['status']}: {result['reason']}")
    return wrong


def read_results(machine: Machine, jobs: Sequence[str]) -> dict[str, dict[str, Any]]:
    if not jobs:
        return {}
    files = " ".join(f"{QUEUE}/{place}/{one}/result.json" for one in jobs for place in ("done", "refused"))
    text = machine.sh(f"for file in {files}; do [ -s $file ] && tr -d '\\n' <$file && echo; done; true")
    return {result["job"]: result for line in text.splitlines() if (result := json.loads(line))}


def waiting(machine: Machine, jobs: Sequence[str]) -> bool:
    """Whether any of them is in the queue or at work."""
    listed = machine.sh(f"ls {QUEUE}/new {QUEUE}/claimed/* 2>/dev/null || true").split()
    return any(name.partition("@")[0] in jobs for name in listed)


def judge_caches(machine: Machine, found: Cut) -> None:
    """A cache that isn't trusted is set aside and named; what a runner uses now works."""
    aside = machine.sh("find /srv/*/runners -maxdepth 2 -name 'data-untrusted-*'").split()
    if aside:
        found.caches = f"{len(aside)} set aside"
    looks = {runner: machine.submit(CACHE_WORKS, runner, "look") for runner in machine.runners}
    for runner, look in looks.items():
        said = (machine.state(runner).get("set_aside") or {}).get("path")
        mine = [path for path in aside if f"/{runner}/" in path]
        if said and said not in mine:
            found.wrong.append(f"{runner}: its state names {said}, there is {mine}")
        ended = look.wait(400)
        if ended.status != "succeeded":
            found.wrong.append(f"{runner}: a job on its cache {ended.status}: {ended.reason}\n{ended.log}")


def judge_converge(machine: Machine, found: Cut) -> None:
    """The site's play, which ends with verify, finds nothing broken."""
    machine.all_ready()
    code, said = machine.playbook("site", verify_wait=300)
    recap = [line for line in said.splitlines() if "changed=" in line]
    found.converge = " ".join(recap[-1].split()[2:4]) if recap else "no end"
    if code:
        found.wrong.append(f"the play failed:\n{said[-3000:]}")


def row(one: Cut) -> str:
    """A cut as a line of a Markdown table."""
    kinds = sorted(set(one.jobs.values()))
    jobs = ", ".join(f"{list(one.jobs.values()).count(kind)} {kind}" for kind in kinds) or "none"
    wrong = "; ".join(text.splitlines()[0] for text in one.wrong) or "nothing"
    ready = "not waited for" if one.ready is None else f"{one.ready:.0f} s"
    return (
        f"| {one.number} | {one.moment} | {one.after:g} s | {one.ssh:.0f} s | {ready} | {jobs} "
        f"| {one.caches} | {one.converge or 'not run'} | {wrong} |"
    )


HEAD = (
    "| # | moment | cut after | SSH | ready | jobs | caches | converge | wrong |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def looks(count: int, moments: int, look: int, again: int) -> dict[int, bool]:
    """The numbers of the cuts that are looked after, and whether the play runs again then. See :func:`cuts_of`."""
    turns = {number: (number - 1) // moments for number in range(1, count + 1)}
    chosen = [number for number, turn in turns.items() if number == count or (turn + number) % look == 0]
    return {number: number == count or place % again == 0 for place, number in enumerate(chosen, 1)}


def cuts_of(
    machine: Machine,
    count: int,
    chance: random.Random,
    say: Callable[[str], None],
    moments: Sequence[str] = (),
    look: int = 1,
    again: int = 1,
) -> list[Cut]:
    """Cut the power ``count`` times, the moments in turn; each is told of when it is done.

    :param moments: names of those that are meant; empty for all.
    :param look: how many cuts there are to one look at the jobs and caches. Every moment has its turn to be looked
        after, and the last cut always is.
    :param again: how many looks there are to one run of the site's play; the last one always has it.
    """
    jobs: list[str] = []
    chosen = [moment for moment in MOMENTS if not moments or moment.name in moments]
    looked = looks(count, len(chosen), look, again)
    found = []
    say(HEAD)
    for number in range(1, count + 1):
        moment = chosen[(number - 1) % len(chosen)]
        one = cut(machine, number, moment, chance, jobs, number in looked, looked.get(number, False))
        found.append(one)
        say(row(one))
        for text in one.wrong:
            say(text)
    return found
