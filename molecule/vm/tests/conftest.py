# SPDX-License-Identifier: GPL-3.0-or-later
"""The converged machine is turned off, and tests run on copies of it: each begins clean, whatever the last one broke."""

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
from machines import Machine, base_of, booted, copied


@pytest.fixture(scope="session")
def base(request: pytest.FixtureRequest) -> qemu.Machine:
    """The Debian 13 machine as the play made it, off."""
    return base_of(request.config.getoption("--ansible-inventory"), "vm-debian13")


def own_name(request: pytest.FixtureRequest) -> str:
    return "vm-" + request.module.__name__.rpartition(".")[2].removeprefix("test_").replace("_", "-")


@pytest.fixture(scope="module")
def machine(base: qemu.Machine, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A copy of the converged machine that is up, its runners ready; one for each file of tests."""
    with booted(base, own_name(request)) as found:
        yield found


@pytest.fixture(scope="module")
def off(base: qemu.Machine, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A copy of the converged machine that isn't turned on yet; one for each file of tests."""
    with copied(base, own_name(request)) as found:
        yield found
