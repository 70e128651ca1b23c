# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests run on the converged machine as long as it is well, then on copies of what it was before the first test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "long"))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "dev"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "default" / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from machines import IMAGE, Copies, Machine, machine_of


@pytest.fixture(scope="session")
def copies(request: pytest.FixtureRequest) -> Iterator[Copies]:
    """The Debian 13 machine as the play made it, and copies of it."""
    found = Copies(machine_of(request.config.getoption("--ansible-inventory"), IMAGE), "vm-copy")
    yield found
    found.remove()


@pytest.fixture
def machine(copies: Copies) -> Iterator[Machine]:
    """A converged machine that is up, its runners ready."""
    found = copies.fit()
    yield found
    found.let_go()
