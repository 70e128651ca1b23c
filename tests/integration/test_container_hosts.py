# SPDX-License-Identifier: GPL-3.0-or-later
"""The test hosts are what a test believes them to be."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from container_host import ContainerHost


@pytest.mark.parametrize("fixture", ["plain_host", "debian12_host", "docker_host"])
def test_host_is_up(request: pytest.FixtureRequest, fixture: str) -> None:
    host: ContainerHost = request.getfixturevalue(fixture)
    assert host.run("systemctl is-system-running").out.strip() == "running"
    assert host.run("cat /proc/1/comm").out.strip() == "systemd"


def test_plain_host_has_no_engine_and_no_package_lists(make_host: Callable[..., ContainerHost]) -> None:
    host = make_host()
    assert not host.run("command -v docker podman", check=False).ok
    assert not host.run("ls /var/lib/apt/lists/*Packages*", check=False).ok


def test_docker_host_stores_on_a_real_file_system(docker_host: ContainerHost) -> None:
    info = json.loads(docker_host.run("docker info -f '{{json .}}'").out)
    assert info["Driver"] == "overlay2"
    assert ["Backing Filesystem", "overlayfs"] not in info["DriverStatus"]


def test_module_runs_and_check_mode_changes_nothing(plain_host: ContainerHost) -> None:
    args = {"path": "/root/made", "state": "directory", "mode": "0700"}
    assert plain_host.module("ansible.builtin.file", args, check=True)["changed"] is True
    assert not plain_host.exists("/root/made")
    done = plain_host.module("ansible.builtin.file", args, diff=True)
    assert done["changed"] is True
    assert done["diff"]["after"]["state"] == "directory"
    assert plain_host.exists("/root/made")
    assert plain_host.module("ansible.builtin.file", args)["changed"] is False


def test_failure_comes_back_as_a_result(plain_host: ContainerHost) -> None:
    failed = plain_host.module("ansible.builtin.file", {"path": "/root/x", "state": "nonsense"})
    assert failed["failed"] is True
    assert "nonsense" in failed["msg"]


def test_write_and_read(plain_host: ContainerHost) -> None:
    plain_host.write("/root/a folder/file", "one\ntwo $HOME\n", mode="0600")
    assert plain_host.read("/root/a folder/file") == "one\ntwo $HOME\n"
    assert plain_host.run(["stat", "-c", "%a", "/root/a folder/file"]).out.strip() == "600"
