# SPDX-License-Identifier: GPL-3.0-or-later
"""The host of this scenario, with the neighbourhood of ``lab.sh`` around it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests/dev"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "default/tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from lab import Lab
from live import Site


def site_on(inventory: str, hosts: str = "all") -> Site:
    """The one host of an inventory, as root over one SSH connection."""
    found: list[Any] = testinfra.get_hosts(
        [hosts], connection="ansible", ansible_inventory=inventory, sudo=True
    )
    assert len(found) == 1, f"{inventory} has {len(found)} hosts; allowed: one"
    reached = found[0].backend.ansible_runner.get_host(found[0].backend.host)
    if reached is not None and hasattr(reached.backend, "controlpath"):
        reached.backend.controlpath = f"{tempfile.mkdtemp(prefix='t-')}/c"
    return Site(found[0], inventory)


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The host with its neighbours, and an inner container in runner ci's environment."""
    inventory = request.config.getoption("--ansible-inventory")
    found = Lab(site_on(inventory, request.config.getoption("--hosts") or "all"), site_on)
    found.build()
    yield found
    found.clear()
