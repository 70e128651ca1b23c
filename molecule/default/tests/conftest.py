# SPDX-License-Identifier: GPL-3.0-or-later
"""The host of this scenario, and the sets of runners that tests ask for.

The play that converged the host had no variables: one runner, ``ci``. Tests that need more
runners get them from the same play with other variables, and it is put back at the end.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "dev"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from live import Site

SMALL = {
    "name": "small",
    "cache": "none",
    "cpus": 1,
    "memory": "512M",
    "pids": 300,
    "bip": "172.23.0.1/16",
    "drain_timeout": 2,
}
"""A runner that keeps nothing and may use little."""


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """The host, as root; as the play without variables makes it, at the end too."""
    inventory = request.config.getoption("--ansible-inventory")
    found: list[Any] = testinfra.get_hosts(
        [request.config.getoption("--hosts") or "all"],
        connection="ansible",
        ansible_inventory=inventory,
        sudo=True,
    )
    assert len(found) == 1, f"{inventory} has {len(found)} hosts; allowed: one"
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        share_connection(found[0], folder)
        live = Site(found[0], inventory)
        yield live
        live.wants({})


def share_connection(host: Any, folder: str) -> None:
    """Have testinfra's commands go through one SSH connection; by itself it makes one for each."""
    reached = host.backend.ansible_runner.get_host(host.backend.host)
    if reached is not None and hasattr(reached.backend, "controlpath"):
        reached.backend.controlpath = reached.backend.controlpath or f"{folder}/c"


@pytest.fixture(autouse=True)
def let_go(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a job behind that another would wait for."""
    yield
    if "site" in request.fixturenames:
        request.getfixturevalue("site").let_go()


@pytest.fixture
def defaults(site: Site) -> Site:
    """One runner, ``ci``, ready; no variable is set."""
    site.wants({})
    site.ready("ci")
    return site


@pytest.fixture
def two_runners(site: Site) -> Site:
    """``ci`` as by default, and ``small`` (:data:`SMALL`); both ready."""
    site.wants({"runner_runners": [{"name": "ci"}, SMALL], "runner_remove_caches": True})
    site.ready("ci")
    site.ready("small")
    return site
