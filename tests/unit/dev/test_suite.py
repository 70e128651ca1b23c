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

    def run_part(_suite: suite.Suite, part: str, args: Sequence[str]) -> None:
        found.append((part, tuple(args)))

    monkeypatch.setattr(suite, "run_part", run_part)
    return found


def test_whole_machines_come_last_and_alone(ran: list[tuple[str, tuple[str, ...]]]) -> None:
    suite.run_together(suite.Suite(live=False), {"unit": [], "molecule": ["vm", "default", "network"]})
    assert ran[-1] == ("molecule", ("vm",))
    assert sorted(ran[:-1]) == [
        ("image", ("vm",)),
        ("molecule", ("default",)),
        ("molecule", ("network",)),
        ("unit", ()),
    ]


def test_debian_12_as_a_whole_machine_and_the_long_part_only_run_when_named(
    ran: list[tuple[str, tuple[str, ...]]],
) -> None:
    suite.run_together(suite.Suite(live=False), {part: [] for part in suite.PARTS})
    names = [args[0] for part, args in ran if part == "molecule"]
    assert sorted(names) == sorted(set(suite.scenarios()) - {"vm-debian12"})
    assert names[-1] == "vm"
    assert sorted({part for part, _ in ran} - {"image"}) == sorted(suite.PARTS)
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
