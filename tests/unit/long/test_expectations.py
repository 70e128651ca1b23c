# SPDX-License-Identifier: GPL-3.0-or-later
"""A kill is judged by what the system says; every broken promise is a complaint."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from expectations import Kill, judge
from support.clean_host import CLEAN

JOB = "20261129T100000Z-k1-001-job-aa"
OVER = "2026-11-29T10:00:05.000Z"
OVER_SECONDS = 1795946405.0
TRACE = [
    f"start {JOB} {OVER_SECONDS - 3}",
    f"nested {JOB} {OVER_SECONDS - 2}",
    f"end {JOB} {OVER_SECONDS - 0.1}",
]


def result(status: str, code: int | None = None, reason: str = "") -> dict[str, Any]:
    return {"status": status, "exit_code": code, "reason": reason, "ended": OVER}


def seen(outcome: dict[str, Any], trace: list[str]) -> dict[str, Any]:
    left = copy.deepcopy(CLEAN) | {
        "jobs": [{"place": "done", "id": JOB, "result": outcome}],
        "trace": list(trace),
        "engine": ["Result=success", "ActiveState=active"],
    }
    return {"ready": {"ci": 2.0}, "missing": [], "probes": [{"ci": 0}], "left": left}


def kill(kind: str, submitter: int, phase: str = "running") -> Kill:
    return Kill(1, phase, kind, "ci", 0.1, {"runner": "ci"}, "k1-001-job", submitter)


def test_a_job_that_succeeded_is_as_good_as_one_that_was_cut_off() -> None:
    verdict = judge(kill("host containerd", 0), seen(result("succeeded", 0), TRACE), ["ci"])
    assert (verdict.outcome, verdict.seconds, verdict.complaints) == ("succeeded", 2.0, [])
    verdict = judge(kill("runner program", 75), seen(result("cut off", None, "x"), TRACE[:2]), ["ci"])
    assert (verdict.outcome, verdict.complaints) == ("cut off: x", [])


def test_a_job_whose_own_process_died_has_failed() -> None:
    verdict = judge(kill("job's script", 137), seen(result("failed", 137), TRACE[:2]), ["ci"])
    assert (verdict.outcome, verdict.complaints) == ("failed", [])


def test_a_job_that_was_never_handed_in_needs_no_result() -> None:
    what = seen(result("succeeded", 0), [])
    what["left"]["jobs"] = []
    assert judge(kill("submitter", 137, "handing in"), what, ["ci"]).complaints == []
    assert judge(kill("submitter", 137), what, ["ci"]).outcome == "lost"


def twice(what: dict[str, Any]) -> None:
    what["left"]["trace"].append(TRACE[0])


def no_result(what: dict[str, Any]) -> None:
    what["left"]["jobs"][0].update(place="claimed", result=None)


def two_places(what: dict[str, Any]) -> None:
    what["left"]["jobs"].append({"place": "claimed", "id": JOB, "result": None})


def lost(what: dict[str, Any]) -> None:
    what["left"]["jobs"] = []


def no_reason(what: dict[str, Any]) -> None:
    what["left"]["jobs"][0]["result"]["reason"] = ""


def went_on(what: dict[str, Any]) -> None:
    what["left"]["trace"].append(f"end {JOB} {OVER_SECONDS + 2}")


def late(what: dict[str, Any]) -> None:
    what["missing"] = ["ci"]


def next_failed(what: dict[str, Any]) -> None:
    what["probes"] = [{"ci": 1}, {"ci": 0}]


def never_again(what: dict[str, Any]) -> None:
    what["probes"] = [{"ci": 75}, {"ci": 75}]


def reported_as_failed(what: dict[str, Any]) -> None:
    what["left"]["jobs"][0]["result"].update(status="failed", exit_code=75)


@pytest.mark.parametrize(
    ("breakage", "complaint"),
    [
        (twice, f"job {JOB} ran 2 times"),
        (no_result, f"job {JOB} has no single result"),
        (two_places, f"job {JOB} has no single result"),
        (lost, "the queue has [] of job k1-001-job"),
        (no_reason, f"job {JOB} is cut off without a reason"),
        (went_on, f"job {JOB} went on after its end"),
        (late, "runner ci wasn't ready within 30 s"),
        (next_failed, "the next job on ci ended with 1"),
        (never_again, "the runners' jobs ended with {'ci': 75} at the second try"),
        (reported_as_failed, "the job was reported as failed, exit code 75"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_broken_promise_is_named(breakage: Callable[[dict[str, Any]], None], complaint: str) -> None:
    what = seen(result("cut off", None, "x"), TRACE[:2])
    breakage(what)
    complaints = judge(kill("runner program", 75), what, ["ci"]).complaints
    assert any(text.startswith(complaint) for text in complaints), complaints


def test_a_success_without_its_trace_is_none() -> None:
    complaints = judge(kill("runner program", 0), seen(result("succeeded", 0), TRACE[:2]), ["ci"]).complaints
    assert len(complaints) == 1 and "succeeded, but its trace is" in complaints[0]


def test_the_submitter_ends_as_the_job_did() -> None:
    complaints = judge(kill("runner program", 1), seen(result("succeeded", 0), TRACE), ["ci"]).complaints
    assert complaints == ["the job's submitter ended with 1, not with 0"]
    assert judge(kill("submitter", 137), seen(result("succeeded", 0), TRACE), ["ci"]).complaints == []


def test_what_an_earlier_kill_left_is_told_of_once() -> None:
    what = seen(result("succeeded", 0), TRACE)
    what["left"]["builds"] = ["matryoshka-image-x"]
    complaints = judge(kill("runner program", 0), what, ["ci"]).complaints
    assert len(complaints) == 1
    assert judge(kill("runner program", 0), what, ["ci"], complaints).complaints == []


def test_what_is_no_fault_is_remarked() -> None:
    what = seen(result("succeeded", 0), TRACE)
    what["probes"] = [{"ci": 75}, {"ci": 0}]
    what["left"]["engine"] = ["Result=start-limit-hit", "ActiveState=failed"]
    what["left"]["states"]["ci"]["set_aside"] = "x"
    verdict = judge(kill("host dockerd", 0), what, ["ci"])
    assert verdict.complaints == []
    assert verdict.remarks == [
        "the next job on ci was cut off",
        "docker.service: Result=start-limit-hit ActiveState=failed",
        "ci: data root set aside: x",
    ]
