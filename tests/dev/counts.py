# SPDX-License-Identifier: GPL-3.0-or-later
"""How many tests passed, failed and were skipped, read from what tools report."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ANSI = re.compile(r"\x1b(\[[0-9;]*m|\]8;;[^\x1b]*\x1b\\)")
STEP = re.compile(r"^(\S+) ➜ (\S+?): Executed: (\w+)")
BEGUN = re.compile(r"^INFO\s+(\S+) ➜ (\S+?): Executing$")


@dataclass(frozen=True)
class Counts:
    """Numbers of tests by their end."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def one(ok: bool) -> Counts:
    """The counts of a single check."""
    return Counts(passed=1) if ok else Counts(failed=1)


def total(counts: Iterable[Counts]) -> Counts:
    return sum(counts, Counts())


def from_junit(text: str) -> Counts:
    """Counts of a JUnit report; a test that failed and then broke in teardown counts once."""
    cases: dict[tuple[str, str, int], set[str]] = {}
    for suite in ElementTree.fromstring(text).iter("testsuite"):
        for number, case in enumerate(suite.iter("testcase")):
            name = (case.get("classname", ""), case.get("name", ""), 0 if case.get("name") else number)
            cases.setdefault(name, set()).update(child.tag for child in case)
    failed = sum(1 for ends in cases.values() if ends & {"failure", "error"})
    skipped = sum(1 for ends in cases.values() if "skipped" in ends and not ends & {"failure", "error"})
    return Counts(len(cases) - failed - skipped, failed, skipped)


def from_junit_file(path: Path) -> Counts | None:
    """:func:`from_junit` of a file; None if there is none or if it isn't whole."""
    try:
        return from_junit(path.read_text(encoding="utf-8"))
    except (OSError, ElementTree.ParseError):
        return None


def test_seconds(path: Path) -> dict[str, float]:
    """How long each test of a JUnit report took, by ``FILE::NAME``; empty if there is none or if it isn't whole."""
    try:
        cases = ElementTree.fromstring(path.read_text(encoding="utf-8")).iter("testcase")
    except (OSError, ElementTree.ParseError):
        return {}
    found: dict[str, float] = {}
    for case in cases:
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '')}"
        found[name] = found.get(name, 0.0) + float(case.get("time", 0))
    return found


def molecule_steps(output: str) -> dict[str, bool]:
    """The steps of one scenario and whether each succeeded, from the report at the end of Molecule's output."""
    plain = ANSI.sub("", output)
    _, _, details = plain.rpartition("\nDETAILS")
    steps: dict[str, bool] = {}
    for line in details.splitlines():
        if (found := STEP.match(line.strip())) is not None:
            step = found.group(2)
            number = sum(1 for name in steps if name.split("#")[0] == step)
            if found.group(3) in ("Successful", "Failed"):
                steps[f"{step}#{number + 1}" if number else step] = found.group(3) == "Successful"
    return steps


def step_seconds(lines: Iterable[tuple[float, str]], end: float) -> list[tuple[str, float]]:
    """How long each step of a scenario took.

    :param lines: Molecule's output, each line with its time in seconds.
    :param end: when it ended.
    """
    begun = [
        (found.group(2), at)
        for at, line in lines
        if (found := BEGUN.match(ANSI.sub("", line).strip())) is not None
    ]
    ends = [*(at for _, at in begun), end]
    return [(step, until - at) for (step, at), until in zip(begun, ends[1:], strict=True)]
