# SPDX-License-Identifier: GPL-3.0-or-later
"""Which environments the engine doesn't know, found in a made-up tree of control groups; the first process is a double.

``test_failures.py`` of the default scenario has a real one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from matryoshka_runner import orphans

SLICE = "matryoshka-ci.slice"
BELOW = f"matryoshka.slice/{SLICE}"
KNOWN, LOST, NESTED = "1" * 64, "2" * 64, "3" * 64


def group(root: Path, path: str, *pids: int) -> None:
    folder = root / path
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids), encoding="ascii")


@pytest.fixture(params=["v2 systemd", "v2 cgroupfs", "v1"])
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Two environments in the runner's slice, one with a nested container, and the neighbour's."""
    driver = request.param
    if driver.startswith("v2"):
        (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n", encoding="ascii")
    trees = [tmp_path] if driver.startswith("v2") else [tmp_path / "systemd", tmp_path / "pids"]
    name = "docker-{}.scope" if driver == "v2 systemd" else "{}"
    for tree in trees:
        group(tree, f"{BELOW}/{name.format(KNOWN)}", 100)
        group(tree, f"{BELOW}/{name.format(LOST)}", 200)
        group(tree, f"{BELOW}/{name.format(LOST)}/init", 201)
        group(tree, f"{BELOW}/{name.format(LOST)}/docker/{NESTED}", 202)
        group(tree, f"matryoshka.slice/matryoshka-cinema.slice/{name.format('4' * 64)}", 400)
    return tmp_path


def test_processes_are_those_of_the_outermost_container_in_this_slice(root: Path) -> None:
    assert orphans.members(SLICE, str(root)) == {KNOWN: {100}, LOST: {200, 201, 202}}
    assert orphans.members("matryoshka-gone.slice", str(root)) == {}


def process(proc: Path, pid: int, parent: int, *argv: str) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "stat").write_text(f"{pid} (a (b) c) S {parent} 1 1 0 -1\n", encoding="ascii")
    (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in argv))


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    process(folder, 1, 0, "/sbin/init")
    process(folder, 20, 1, "/usr/bin/containerd-shim-runc-v2", "-namespace", "moby", "-id", LOST)
    process(folder, 200, 20, "/usr/bin/tini")
    process(folder, 201, 200, "dockerd")
    process(folder, 300, 1, "/usr/bin/tini")
    return folder


@pytest.mark.parametrize(
    ("pid", "identity", "shim"),
    [(200, LOST, 20), (200, KNOWN, 0), (201, LOST, 0), (300, LOST, 0), (9, LOST, 0)],
)
def test_the_shim_is_the_parent_that_names_the_container(
    proc: Path, pid: int, identity: str, shim: int
) -> None:
    assert orphans.shim_of(pid, identity, str(proc)) == shim


def test_only_what_the_engine_doesn_t_know_is_ended(
    root: Path, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    firsts: list[int] = []
    killed: list[tuple[int, int]] = []

    class First:
        def __init__(self, pid: int) -> None:
            self.pid = pid

        @classmethod
        def of(cls, pid: int, _proc: str) -> First | None:
            return cls(pid) if pid in (100, 200) else None

        def kill(self) -> bool:
            firsts.append(self.pid)
            return True

        def close(self) -> None:
            firsts.append(-self.pid)

    monkeypatch.setattr(orphans, "FirstProcess", First)
    monkeypatch.setattr(f"{orphans.__name__}.os.kill", lambda pid, number: killed.append((pid, int(number))))
    assert orphans.end(SLICE, lambda identity: identity == KNOWN, str(proc), str(root)) == [LOST]
    assert (firsts, killed) == ([200, -200], [(20, 9)])
    assert orphans.end(SLICE, lambda _identity: True, str(proc), str(root)) == []
