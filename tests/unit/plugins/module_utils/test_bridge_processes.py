# SPDX-License-Identifier: GPL-3.0-or-later
"""The first processes of containers, on the host and in each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_processes import (
    Process,
    container_processes,
    host_pid,
    outer_of,
    with_outer,
)
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import NoAnswer
from bridge_fixtures import Daemon, Programs

PODMAN = Result(0, "ci-9 900\nold 0\nother 77\n")


def test_processes_of_containers() -> None:
    ask = Daemon(
        {
            "/containers/ci-1/json": {"State": {"Pid": 505}},
            "/containers/off/json": {"State": {"Pid": 0}},
            "/containers/still/json": {"State": {"Pid": 506, "Paused": True}},
            "/containers/json": [{"Names": ["/ci-1"]}, {"Names": []}],
        }
    )
    run = Programs({"podman ps": PODMAN})

    def found(names: list[str], everything: bool) -> dict[str, Process]:
        return container_processes(run, ask, "/run/docker.sock", names, everything, View("/nowhere"))

    assert found(["ci-1", "still"], False) == {"ci-1": Process(505), "still": Process(506, paused=True)}
    assert run.started == []
    names = ["ci-1", "off", "ci-9", "none"]
    assert found(names, False) == {"ci-1": Process(505), "off": Process(0), "ci-9": Process(900)}
    assert found([], True) == {"ci-1": Process(505), "ci-9": Process(900), "other": Process(77)}


def test_processes_without_docker_or_podman() -> None:
    dead = Daemon({"/containers/ci/json": NoAnswer("gone"), "/containers/json": NoAnswer("gone")})
    assert container_processes(Programs({}), dead, "/run/docker.sock", ["ci"], True, View("/nowhere")) == {}
    assert container_processes(Programs({}), dead, None, ["ci"], False, View("/nowhere")) == {}


# ci-1 is 500; its Docker's container knows itself as 1, ci-1 knows it as 40. ci-2 is 600 and has a 40 too.
STATUS = {
    1: ("0", "1"),
    400: ("1", "400"),
    500: ("400", "500 1"),
    510: ("500", "510 30"),
    520: ("510", "520 40 1"),
    600: ("400", "600 1"),
    620: ("600", "620 40 1"),
    640: ("600", "640 41"),
    700: ("1", "40"),
}


@pytest.fixture
def view(tmp_path: Path) -> View:
    for pid, (parent, numbers) in STATUS.items():
        folder = tmp_path / "proc" / str(pid)
        folder.mkdir(parents=True)
        (folder / "status").write_text(f"Name:\tx\nPPid:\t{parent}\nNSpid:\t{numbers}\n")
    return View(str(tmp_path))


@pytest.mark.parametrize(
    ("outer", "pid", "wanted"), [(500, 40, 520), (600, 40, 620), (500, 30, 510), (500, 41, 0), (999, 40, 0)]
)
def test_the_host_s_process_behind_an_inner_id(view: View, outer: int, pid: int, wanted: int) -> None:
    assert host_pid(view, outer, pid) == wanted


class Nested:
    """The host's Docker and that of ci-1."""

    def __call__(self, path: str, url: str, *, root: str = "/", timeout: float = 5.0) -> Mapping[str, object]:
        states = {
            ("/", "ci-1"): {"Pid": 500},
            ("/", "off"): {"Pid": 0},
            ("/proc/500/root", "build"): {"Pid": 40},
            ("/proc/500/root", "done"): {"Pid": 0},
        }
        key = (root, url.split("/")[2])
        if key not in states:
            raise NoAnswer("answers 404", 404)
        return {"State": states[key]}


def test_containers_in_containers(view: View) -> None:
    names = ["ci-1/build", "ci-1/done", "ci-1/none", "off/build", "gone/build", "ci-1/build/deeper"]
    found = container_processes(Programs({}), Nested(), "/run/docker.sock", names, False, view)
    assert found == {
        "ci-1": Process(500),
        "ci-1/build": Process(520),
        "ci-1/done": Process(0),
        "off": Process(0),
    }


def test_names() -> None:
    assert with_outer(["a/b/c", "d", "a"]) == ["a", "a/b", "a/b/c", "d"]
    assert (outer_of("a/b/c"), outer_of("a")) == ("a/b", "")
