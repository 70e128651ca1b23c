# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests run on the converged machine as long as it is well, then on copies of what it was before the first test.

An emulated machine that does one thing after another keeps one processor busy: two lots of tests run side by side, each
on a machine of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "long"))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "dev"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "default" / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from machines import IMAGE, Copies, Machine, machine_of, wait_until_alone

ASIDE = ("test_power_cuts.py", "test_disks.py")
"""Files whose tests take about as long as all others."""


def pytest_sessionstart(session: pytest.Session) -> None:
    wait_until_alone(session.config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.xdist_group("aside" if item.path.name in ASIDE else "first"))


@pytest.fixture(scope="session")
def copies(request: pytest.FixtureRequest, worker_id: str) -> Iterator[Copies]:
    """The Debian 13 machine as the play made it, and copies of it."""
    base = machine_of(request.config.getoption("--ansible-inventory"), IMAGE)
    found = Copies(base, f"vm-copy-{worker_id}")
    yield found
    found.remove()


@pytest.fixture
def machine(copies: Copies) -> Iterator[Machine]:
    """A converged machine that is up, its runners ready."""
    found = copies.fit()
    yield found
    found.let_go()


@pytest.fixture(scope="module")
def off(copies: Copies) -> Machine:
    """A converged machine that was shut down, for all tests of a file."""
    found = copies.fit()
    found.vm.machine.shut_down()
    return found
