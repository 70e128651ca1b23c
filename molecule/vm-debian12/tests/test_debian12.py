# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker 20.10 of Debian 12, rootful, with ``--privileged``: container hosts refuse it, a stock kernel doesn't."""

from __future__ import annotations

import json

import pytest
from machines import Machine, given, machine_of
from vm_host import VmHost


@pytest.fixture(scope="module")
def bookworm(request: pytest.FixtureRequest) -> Machine:
    """The scenario's machine, as the play made it."""
    image = "vm-debian12"
    machine = machine_of(request.config.getoption("--ansible-inventory"), image)
    found = Machine(VmHost(machine), given(image), runners=("ci",))
    found.boot()
    found.all_ready()
    return found


def test_a_job_runs_in_a_privileged_environment_of_docker_20(bookworm: Machine) -> None:
    info = json.loads(bookworm.sh("docker info --format '{{json .}}'"))
    assert info["ServerVersion"].startswith("20.10.") and info["CgroupVersion"] == "2"
    container = bookworm.ready("ci", 300)["environment"]["container"]
    assert bookworm.sh(f"docker inspect -f '{{{{.HostConfig.Privileged}}}}' {container}").strip() == "true"
    ended = bookworm.submit(
        "docker version --format '{{.Server.Version}}'\n"
        "cp /bin/busybox . && tar c busybox | docker import - box >/dev/null\n"
        "docker run --rm --privileged box /busybox echo from two dolls down\n",
        "ci",
    ).succeeds(300)
    assert ended.log.splitlines()[-1] == "from two dolls down"
    assert ended.log.startswith("20.10.")


def test_verify_is_clean(bookworm: Machine) -> None:
    assert bookworm.unhealthy() == ""
