# SPDX-License-Identifier: GPL-3.0-or-later
"""The converged machine is turned off, and tests run on copies of it.

A copy whose runners aren't all ready is thrown away: whatever a test breaks, the next one doesn't begin with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "long"))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "dev"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "default" / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import qemu
from machines import IMAGE, Machine, booted, copied, machine_of


class Copies:
    """At most one copy of a machine, on."""

    def __init__(self, base: qemu.Machine) -> None:
        self._base = base
        self._stack = ExitStack()
        self._copy: Machine | None = None

    def fit(self) -> Machine:
        """A copy with all runners ready: the one that is there, or a new one."""
        if self._copy is None or not self._copy.is_well():
            self.remove()
            self._copy = self._stack.enter_context(booted(self._base, "vm-copy"))
        return self._copy

    def remove(self) -> None:
        self._copy = None
        self._stack.close()


@pytest.fixture(scope="session")
def base(request: pytest.FixtureRequest) -> qemu.Machine:
    """The Debian 13 machine as the play made it, off."""
    machine = machine_of(request.config.getoption("--ansible-inventory"), IMAGE)
    machine.shut_down()
    return machine


@pytest.fixture(scope="session")
def copies(base: qemu.Machine) -> Iterator[Copies]:
    found = Copies(base)
    yield found
    found.remove()


@pytest.fixture
def machine(copies: Copies) -> Iterator[Machine]:
    """A copy of the converged machine that is up, its runners ready."""
    found = copies.fit()
    yield found
    found.let_go()


@pytest.fixture(scope="module")
def off(base: qemu.Machine, copies: Copies) -> Iterator[Machine]:
    """A copy of the converged machine that isn't turned on yet, for all tests of a file."""
    copies.remove()
    with copied(base, "vm-off") as found:
        yield found
