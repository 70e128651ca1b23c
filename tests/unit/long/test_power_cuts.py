# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a job's end after a power cut, and how cuts and hogs are told of."""

from __future__ import annotations

import subprocess
from typing import Any, cast

import pytest
from hogs import HOGS, Meal, tried
from hogs import table as hog_table
from power_cuts import HEAD, MOMENTS, Cut, judge_result, looks, row


def result(status: str, reason: str = "") -> dict[str, Any]:
    return {"job": "cut-1", "status": status, "reason": reason}


@pytest.mark.parametrize(
    ("given", "runs", "ended", "words"),
    [
        (result("succeeded"), 1, True, None),
        (result("cut off", "the host went down"), 1, False, None),
        (result("cut off", "the host went down"), 0, False, None),
        (result("succeeded"), 2, True, "ran 2 times"),
        (result("succeeded"), 1, False, "didn't end"),
        (result("cut off"), 1, False, "without a reason"),
        (result("failed", "exit code 1"), 1, False, "exit code 1"),
    ],
)
def test_a_job_has_one_honest_end(given: dict[str, Any], runs: int, ended: bool, words: str | None) -> None:
    wrong = judge_result("cut-1", given, runs, ended)
    assert (wrong == []) if words is None else (len(wrong) == 1 and words in wrong[0])


def test_a_row_has_a_cell_for_each_heading() -> None:
    good = Cut(1, "job", 3.5, 61.0, 130.4, {"a": "succeeded", "b": "cut off", "c": "succeeded"})
    bad = Cut(2, "prune", 1.0, wrong=["job x is lost\nits log", "another"])
    columns = HEAD.splitlines()[0].count("|")
    assert row(good).count("|") == row(bad).count("|") == columns
    assert "1 cut off, 2 succeeded" in row(good) and "nothing" in row(good) and "not run" in row(good)
    assert "job x is lost; another" in row(bad)


def test_moments_are_told_apart_and_have_time() -> None:
    assert len({one.name for one in MOMENTS}) == len(MOMENTS) == 6
    assert all(0 <= one.window[0] < one.window[1] for one in MOMENTS)


def test_every_moment_has_its_turn_to_be_looked_after() -> None:
    assert looks(4, 4, look=2, again=2) == {2: False, 4: True}
    assert looks(3, 3, look=3, again=1) == {3: True}
    twenty = looks(20, 6, look=2, again=3)
    assert {(number - 1) % 6 for number in twenty} == set(range(6))
    assert [number for number, again in twenty.items() if again] == [6, 11, 18, 20]
    assert looks(3, 6, look=1, again=1) == {1: True, 2: True, 3: True}
    assert looks(3, 6, look=2, again=3) == {2: False, 3: True}


def test_the_hog_table() -> None:
    meal = Meal("CPU", 10.0, 12.5, 1.24, ["docker"], "failed: killed", 0.81)
    lines = hog_table({"with": [meal], "without": [meal]}).splitlines()
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 4
    assert "| 1.25 | 1.2 s (0.8 s) | docker | failed: killed |" in lines[2]


def test_a_machine_that_a_hog_took_along_is_an_outcome() -> None:
    class Gone:
        def sh(self, _script: str) -> None:
            raise AssertionError("matryoshka job\nended with 255:\nConnection timed out")

    lines = hog_table({"without": [tried(cast(Any, Gone()), "memory")]}).splitlines()
    assert lines[2] == (
        "| memory | without | no end | no answer (not measured) | not known | the machine didn't get through: matryoshka job |"
    )


@pytest.mark.parametrize("name", list(HOGS))
def test_a_hog_is_a_shell_script(name: str) -> None:
    script = HOGS[name].format(5)
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert "{" not in script.replace("{{.Mountpoint}}", "").replace("bomb() { bomb | bomb & }", "")
