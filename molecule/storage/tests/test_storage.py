# SPDX-License-Identifier: GPL-3.0-or-later
"""Engine and runner live on the disk, go with it, and come back with it. Comes last: the host's address changes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "dev"))
import hosts as container_hosts
from container_host import ContainerHost
from machine import podman

PATH = "/var/lib/matryoshka/disk"
IMAGE = "/var/lib/matryoshka/molecule-storage.img"
MOUNT = "var-lib-matryoshka-disk.mount"
RUNNER = "matryoshka-runner@ci.service"


@pytest.fixture(scope="module")
def disk_host() -> ContainerHost:
    """The host of this scenario, which is there already."""
    return ContainerHost("storage-debian13", "debian13")


def wait_until(what: str, test: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.5)


def state(host: ContainerHost, *units: str) -> list[str]:
    return host.run(["systemctl", "is-active", *units], check=False).out.split()


def runner_state(host: ContainerHost) -> str:
    text = host.run("cat /run/matryoshka/runners/ci.json", check=False).out
    found: dict[str, Any] = json.loads(text) if text else {}
    return str(found.get("state"))


def test_the_engine_s_data_is_on_the_disk(disk_host: ContainerHost) -> None:
    info = json.loads(disk_host.run("docker info -f '{{json .}}'").out)
    assert info["DockerRootDir"] == f"{PATH}/docker" and info["Driver"] == "overlay2"
    assert ["Backing Filesystem", "xfs"] in info["DriverStatus"]
    source = disk_host.run(["findmnt", "-rnvo", "SOURCE", "-T", f"{PATH}/docker"]).out.strip()
    assert source == disk_host.run(["losetup", "-nO", "NAME", "-j", IMAGE]).out.strip() != ""


def test_the_runner_s_cache_is_on_it_too(disk_host: ContainerHost) -> None:
    wait_until("the runner is ready", lambda: runner_state(disk_host) == "ready")
    assert disk_host.run(["findmnt", "-rno", "TARGET", "-T", f"{PATH}/runners/ci"]).out.strip() == PATH
    bound = disk_host.run(["systemctl", "show", "-p", "BindsTo", "--value", RUNNER]).out
    assert MOUNT in bound.split()


def test_the_host_boots_without_its_disk_and_nothing_starts_beneath(disk_host: ContainerHost) -> None:
    disk_host.run("systemctl stop docker.socket docker.service")
    disk_host.run(["systemctl", "stop", MOUNT])
    disk_host.run(f"losetup -j {IMAGE} -nO NAME | xargs losetup -d")
    podman("stop", "--time", "30", disk_host.container)
    podman("start", disk_host.container)
    disk_host.reach = container_hosts.create(disk_host.name, disk_host.image, "root")

    said = "systemctl is-system-running"
    wait_until("the host has booted", lambda: disk_host.run(said, check=False).out.strip() == "degraded")
    assert state(disk_host, "multi-user.target", "sshd.service", MOUNT)[0::2] == ["active", "inactive"]
    assert state(disk_host, "docker.service", RUNNER) == ["inactive", "inactive"]
    refused = disk_host.run("systemctl start docker.service", check=False)
    assert not refused.ok and state(disk_host, "docker.service") == ["inactive"]
    written = disk_host.run(f"mkdir {PATH}/docker", check=False)
    assert not written.ok and "not permitted" in written.err
    assert disk_host.run(["ls", "-A", PATH]).out == ""


def test_with_the_disk_all_of_it_comes_back(disk_host: ContainerHost) -> None:
    disk_host.run(f"losetup --find {IMAGE}")
    disk_host.run(["systemctl", "start", MOUNT])
    wait_until("the engine is back", lambda: state(disk_host, "docker.service") == ["active"])
    wait_until("the runner is ready", lambda: runner_state(disk_host) == "ready")
    info = disk_host.run("docker info -f '{{.Driver}} {{.DockerRootDir}}'").out.strip()
    assert info == f"overlay2 {PATH}/docker"
