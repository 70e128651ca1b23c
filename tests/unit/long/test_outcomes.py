# SPDX-License-Identifier: GPL-3.0-or-later
"""The table tells of phases, victims and what came of them."""

from __future__ import annotations

from expectations import Kill, Verdict
from outcomes import summary, table


def kill(number: int, phase: str, kind: str) -> Kill:
    return Kill(number, phase, kind, "ci", 0.0, {}, "job" if phase == "running" else "")


DONE = [
    (kill(1, "idle", "runner program"), Verdict("-", 4.0)),
    (kill(2, "running", "runner program"), Verdict("cut off: x (y)", 6.0, remarks=["r"])),
    (kill(3, "running", "runner program"), Verdict("cut off: x (z)", 8.0, remarks=["r"])),
    (kill(4, "running", "host dockerd"), Verdict("succeeded", None, complaints=["late"])),
]


def test_kills_of_one_kind_are_one_line() -> None:
    lines = table(DONE).splitlines()
    assert [line.split() for line in lines] == [
        ["PHASE", "VICTIM", "KILLS", "OUTCOME", "MEDIAN", "WORST", "REMARKS"],
        ["idle", "runner", "program", "1", "-", "4.0", "4.0"],
        ["running", "host", "dockerd", "1", "succeeded", "-", "-", "1", "FAILED"],
        ["running", "runner", "program", "2", "2", "cut", "off:", "x", "7.0", "8.0", "r"],
    ]
    assert lines[0].index("OUTCOME") == lines[3].index("2 cut")


def test_the_summary_counts_jobs_and_failures() -> None:
    assert summary(DONE) == (
        "4 kills; jobs that were there: 2 cut off, 1 succeeded;"
        " ready again after 6.0 s in the middle, 8.0 s at most; 1 failed"
    )
    assert summary([]) == "0 kills"
