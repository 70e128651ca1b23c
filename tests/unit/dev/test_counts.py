# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from counts import Counts, from_junit, from_junit_file, molecule_steps, step_seconds, total
from counts import test_seconds as seconds_of_tests

REPORT = """\x1b[36mINFO    \x1b[0m Molecule executed 1 scenario (\x1b[32m1 successful\x1b[0m)

\x1b[1m\x1b[4mDETAILS      \x1b[0m
\x1b[32mdefault\x1b[0m ➜ \x1b[33mdestroy\x1b[0m: \x1b[32mExecuted: Successful\x1b[0m
\x1b[32mdefault\x1b[0m ➜ \x1b[33mcreate\x1b[0m: \x1b[32mExecuted: Successful\x1b[0m
\x1b[32mdefault\x1b[0m ➜ \x1b[33mverify\x1b[0m: \x1b[31mExecuted: Failed\x1b[0m \x1b[2m(the reason)\x1b[0m
\x1b[32mdefault\x1b[0m ➜ \x1b[33mcleanup\x1b[0m: \x1b[35mExecuted: Missing playbook\x1b[0m
\x1b[32mdefault\x1b[0m ➜ \x1b[33mdestroy\x1b[0m: \x1b[32mExecuted: Successful\x1b[0m

\x1b[1m\x1b[4mSCENARIO RECAP\x1b[0m
"""


def test_steps_of_a_scenario() -> None:
    assert molecule_steps(REPORT) == {"destroy": True, "create": True, "verify": False, "destroy#2": True}


def test_no_report_no_steps() -> None:
    assert molecule_steps("CRITICAL 'molecule/x/molecule.yml' glob failed.  Exiting.\n") == {}


def test_seconds_of_steps() -> None:
    lines = [
        (0.0, "INFO     default ➜ discovery: scenario test matrix: create, converge\n"),
        (
            1.0,
            "\x1b[36mINFO    \x1b[0m \x1b[32mdefault\x1b[0m ➜ \x1b[33mcreate\x1b[0m: \x1b[36mExecuting\x1b[0m\n",
        ),
        (3.0, "INFO     default ➜ converge: Executing\n"),
        (9.0, "INFO     default ➜ converge: Executed: Successful\n"),
    ]
    assert step_seconds(lines, 10.0) == [("create", 2.0), ("converge", 7.0)]


def test_a_scenario_that_molecule_refuses_has_no_steps() -> None:
    assert step_seconds([(1.0, "ERROR    Failed to validate molecule.yml")], 2.0) == []


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ("", Counts()),
        ("<testcase classname='a' name='b'/>", Counts(passed=1)),
        ("<testcase classname='a' name='b'><failure/></testcase>", Counts(failed=1)),
        ("<testcase classname='a' name='b'><error/></testcase>", Counts(failed=1)),
        ("<testcase classname='a' name='b'><skipped/></testcase>", Counts(skipped=1)),
        # A test that passes and then breaks in teardown is there twice.
        (
            "<testcase classname='a' name='b'/><testcase classname='a' name='b'><error/></testcase>",
            Counts(failed=1),
        ),
        ("<testcase classname='a' name='b'/><testcase classname='a' name='c'/>", Counts(passed=2)),
    ],
)
def test_junit(cases: str, expected: Counts) -> None:
    assert from_junit(f"<testsuites><testsuite>{cases}</testsuite></testsuites>") == expected


def test_half_a_report_is_none(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    assert from_junit_file(path) is None
    path.write_text("<testsuites><testsuite>", encoding="utf-8")
    assert from_junit_file(path) is None


def test_the_line_at_the_end() -> None:
    assert str(total([Counts(3, 1, 0), Counts(2, 0, 4)])) == "5 passed, 1 failed, 4 skipped"


def test_seconds_of_tests(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    assert seconds_of_tests(report) == {}
    report.write_text("<testsuite>", encoding="utf-8")
    assert seconds_of_tests(report) == {}
    cases = "<testcase classname='x.a' name='b' time='1.5'/>" * 2 + "<testcase classname='c' name='d'/>"
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>", encoding="utf-8")
    assert seconds_of_tests(report) == {"a::b": 3.0, "c::d": 0.0}
