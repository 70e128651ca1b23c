# SPDX-License-Identifier: GPL-3.0-or-later
"""The converged machine is turned off, and tests run on copies of it.

A copy whose runners aren't all ready is thrown away: whatever a test breaks, the next one doesn't begin with it.
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
import qemu
from machines import IMAGE, Copies, Machine, copied, machine_of


@pytest.fixture(scope="session")
def base(request: pytest.FixtureRequest) -> qemu.Machine:
    """The Debian 13 machine as the play made it, off."""
    machine = machine_of(request.config.getoption("--ansible-inventory"), IMAGE)
    machine.shut_down()
    return machine


@pytest.fixture(scope="session")
def copies(base: qemu.Machine) -> Iterator[Copies]:
    found = Copies(base, "vm-copy")
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
