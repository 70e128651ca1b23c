# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts for tests. They are made at first use and removed at the end of the run.

``MATRYOSHKA_KEEP=1`` keeps them for the next run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "dev"))
from container_host import ContainerHost

KEEP = bool(os.environ.get("MATRYOSHKA_KEEP"))
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")


def _host(name: str, image: str) -> Iterator[ContainerHost]:
    host = ContainerHost(f"test{WORKER}-{name}", image)
    yield host
    if not KEEP:
        host.remove()


@pytest.fixture(scope="session")
def plain_host() -> Iterator[ContainerHost]:
    """Debian 13 with systemd and Python, no engine, no package lists: as installed."""
    yield from _host("plain", "debian13")


@pytest.fixture(scope="session")
def debian12_host() -> Iterator[ContainerHost]:
    """The same with Debian 12."""
    yield from _host("plain12", "debian12")


@pytest.fixture(scope="session")
def docker_host() -> Iterator[ContainerHost]:
    """Debian 13 with Debian's Docker running, busybox and mmdebstrap."""
    for host in _host("docker", "debian13-docker"):
        host.run("systemctl start docker.service && docker info >/dev/null")
        yield host


@pytest.fixture(scope="session")
def site_host() -> Iterator[ContainerHost]:
    """Debian 13 on which ``playbooks/site.yml`` has run: one dind runner, ci."""
    for host in _host("site", "debian13"):
        host.playbook("site")
        yield host


@pytest.fixture
def make_host() -> Iterator[Callable[..., ContainerHost]]:
    """A function that makes a fresh host for one test: ``make_host(image="debian13")``."""
    made: list[ContainerHost] = []

    def make(image: str = "debian13") -> ContainerHost:
        host = ContainerHost(f"test{WORKER}-{os.getpid()}-{len(made)}", image)
        made.append(host)
        return host

    yield make
    for host in made:
        host.remove()
