# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be true after a kill: pure, from what was done and what ``recovery.py`` has seen."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from leftovers import leftovers
from phases import CLIENTS, JOB

READY_SECONDS = {"host dockerd": 60.0, "host containerd": 60.0}
"""Seconds in which the runners have to be ready again, by the kind of what was killed."""
READY_OTHERWISE = 30.0
CUT_OFF = 75
"""Exit code of ``matryoshka job`` for a job that was cut off."""
SLACK = 0.5
"""Seconds by which a job's own clock readings may come after its result's."""


def ready_limit(kind: str) -> float:
    return READY_SECONDS.get(kind, READY_OTHERWISE)


@dataclass(frozen=True)
class Kill:
    """One kill, as the harness did it.

    :param kind: of the process that was killed.
    :param job: a part of the name of the job that was there; empty if there was none.
    :param submitter: exit code of its ``matryoshka job``; None if there was none.
    :param play: exit code of the play that ran; None if none did.
    """

    number: int
    phase: str
    kind: str
    runner: str
    delay: float
    victim: Mapping[str, Any]
    job: str = ""
    submitter: int | None = None
    play: int | None = None


@dataclass
class Verdict:
    """What came of a kill.

    :param outcome: of the job, or of the play, in few words.
    :param seconds: until the runner of the victim was ready; None if it wasn't.
    """

    outcome: str
    seconds: float | None
    complaints: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def judge(kill: Kill, seen: Mapping[str, Any], runners: Sequence[str], known: Container[str] = ()) -> Verdict:
    """What came of a kill, with all that isn't as it has to be.

    :param known: complaints about what kills before this one left.
    """
    limit = ready_limit(kill.kind)
    complaints = [f"runner {name} wasn't ready within {limit:g} s" for name in seen["missing"]]
    remarks: list[str] = []
    for ends in seen["probes"]:
        for runner, code in ends.items():
            if code not in (0, CUT_OFF):
                complaints.append(f"the next job on {runner} ended with {code}")
            elif code:
                remarks.append(f"the next job on {runner} was cut off")
    if seen["probes"] and any(seen["probes"][-1].values()):
        complaints.append(f"the runners' jobs ended with {seen['probes'][-1]} at the second try")
    left = seen["left"]
    complaints += [text for text in leftovers(left, runners) if text not in known]
    complaints += [text for job in by_name(left["jobs"]).values() for text in of_job(job, left["trace"])]
    outcome = "-"
    if kill.job:
        outcome, more = of_killed_job(kill, left)
        complaints += more
    if kill.play is not None:
        outcome = "play went through" if kill.play == 0 else "play failed"
    if "Result=success" not in left["engine"]:
        remarks.append(f"docker.service: {' '.join(left['engine'])}")
    for runner in runners:
        aside = (left["states"].get(runner) or {}).get("set_aside")
        if aside:
            remarks.append(f"{runner}: data root set aside: {aside}")
    own = seen["ready"].get(kill.runner)
    seconds = own if kill.victim.get("runner") else max(seen["ready"].values(), default=None)
    return Verdict(outcome, seconds, complaints, remarks)


def by_name(jobs: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """All that the queue has of each job."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for job in jobs:
        found.setdefault(job["id"].partition("@")[0], []).append(job)
    return found


def of_job(places: Sequence[Mapping[str, Any]], trace: Sequence[str]) -> list[str]:
    """Complaints about one job: one result, run once at most, over when it is said to be."""
    name = str(places[0]["id"])
    results = [each["result"] for each in places if each["place"] in ("done", "refused")]
    if len(places) != 1 or len(results) != 1 or not results[0]:
        return [f"job {name} has no single result: {places}"]
    result = results[0]
    lines = [line.split() for line in trace if name in line.split()]
    starts = sum(line[0] == "start" for line in lines)
    ends = [float(line[2]) for line in lines if line[0] == "end"]
    found = []
    if starts > 1:
        found.append(f"job {name} ran {starts} times")
    if result["status"] == "succeeded" and (starts, len(ends)) != (1, 1):
        found.append(f"job {name} succeeded, but its trace is {lines}")
    if result["status"] in ("cut off", "refused") and not result["reason"]:
        found.append(f"job {name} is {result['status']} without a reason")
    over = datetime.fromisoformat(result["ended"].replace("Z", "+00:00")).timestamp()
    if any(float(line[2]) > over + SLACK for line in lines):
        found.append(f"job {name} went on after its end at {over}: {lines}")
    return found


def of_killed_job(kill: Kill, left: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The outcome of the job that was there at the kill, and complaints about it."""
    mine = {name: places for name, places in by_name(left["jobs"]).items() if kill.job in name}
    if not mine and kill.phase == "handing in":
        return "not handed in", [line for line in left["trace"] if kill.job in line]
    if len(mine) != 1:
        return "lost", [f"the queue has {sorted(mine)} of job {kill.job}"]
    result = next(iter(mine.values()))[0]["result"] or {}
    status = str(result.get("status"))
    allowed = {"succeeded", "cut off"} | ({"failed"} if kill.kind in JOB else set())
    complaints = []
    if status not in allowed:
        complaints.append(f"the job was reported as {status}, exit code {result.get('exit_code')}")
    expected = {"succeeded": 0, "cut off": CUT_OFF}.get(status, result.get("exit_code"))
    if kill.submitter != expected and kill.kind not in (*CLIENTS, "sshd"):
        complaints.append(f"the job's submitter ended with {kill.submitter}, not with {expected}")
    reason = f": {result['reason']}" if result.get("reason") else ""
    return status + reason, complaints
