# SPDX-License-Identifier: GPL-3.0-or-later
"""Which checks run beside each other, and which only when they are named."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "dev"))
import suite


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = []

    def run_part(_suite: suite.Suite, part: str, args: Sequence[str], patient: bool = False) -> None:
        found.append((f"patient {part}" if patient else part, tuple(args)))

    monkeypatch.setattr(suite, "run_part", run_part)
    return found


def test_whole_machines_come_last_beside_what_is_patient(ran: list[tuple[str, tuple[str, ...]]]) -> None:
    parts = {"lint": [], "unit": [], "sanity": [], "molecule": ["vm", "default", "network"]}
    suite.run_together(suite.Suite(live=False), parts)
    assert sorted(ran[:-3]) == [
        ("image", ("vm",)),
        ("molecule", ("default",)),
        ("molecule", ("network",)),
        ("unit", ()),
    ]
    assert sorted(ran[-3:]) == [("molecule", ("vm",)), ("patient lint", ()), ("patient sanity", ())]


def test_without_whole_machines_nothing_waits(ran: list[tuple[str, tuple[str, ...]]]) -> None:
    suite.run_together(suite.Suite(live=False), {"lint": [], "molecule": ["network"]})
    assert sorted(ran) == [("lint", ()), ("molecule", ("network",))]


def test_what_is_patient_has_the_lowest_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "STATE", tmp_path)
    check = suite.Check("lint", [sys.executable, "-c", "import os; print('nice', os.nice(0))"])
    monkeypatch.setattr(suite, "lint", lambda _suite, _args: [check])
    suite.run_part(suite.Suite(live=False), "lint", [], patient=True)
    assert (tmp_path / "log" / "test-lint.log").read_text(encoding="utf-8") == "nice 19\n"


def test_debian_12_as_a_whole_machine_and_the_long_part_only_run_when_named(
    ran: list[tuple[str, tuple[str, ...]]],
) -> None:
    suite.run_together(suite.Suite(live=False), {part: [] for part in suite.PARTS})
    names = [args[0] for part, args in ran if part == "molecule"]
    assert sorted(names) == sorted(set(suite.scenarios()) - {"vm-debian12"})
    assert sorted({part.removeprefix("patient ") for part, _ in ran} - {"image"}) == sorted(suite.PARTS)
    assert [check.name for check in suite.molecule(suite.Suite(live=False), [])] == suite.usual_scenarios()


def test_named_scenarios_are_all_that_runs(ran: list[tuple[str, tuple[str, ...]]]) -> None:
    suite.run_together(suite.Suite(live=False), {"unit": [], "molecule": ["vm", "network"]})
    assert sorted(ran) == [
        ("image", ("vm",)),
        ("molecule", ("network",)),
        ("molecule", ("vm",)),
        ("unit", ()),
    ]


@pytest.mark.parametrize(
    ("args", "names"),
    [([], ["kills", "cuts", "faults"]), (["cuts"], ["cuts"]), (["kills", "--kills", "12"], ["kills"])],
)
def test_the_long_part(args: list[str], names: list[str]) -> None:
    checks = suite.long(suite.Suite(live=False), args)
    assert [check.name for check in checks] == names
    assert checks[0].argv[2:] == args[1:]


def test_options_of_the_long_part_need_a_name() -> None:
    with pytest.raises(SystemExit, match="of which of kills, cuts, faults"):
        suite.long(suite.Suite(live=False), ["--kills", "12"])


def test_emulated_scenarios_are_there() -> None:
    assert set(suite.NAMED) <= set(suite.EMULATED) <= set(suite.scenarios())
