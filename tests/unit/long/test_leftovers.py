# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is left is complained about, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from leftovers import leftovers
from support.clean_host import CLEAN, GONE, process


def test_a_clean_host_has_none() -> None:
    assert leftovers(CLEAN, ["ci"]) == []


def test_a_host_that_throws_its_roots_away_has_none() -> None:
    left = copy.deepcopy(CLEAN)
    left["folders"]["ci"] = ["data-e1", "data-e2", "lock"]
    assert leftovers(left, ["ci"]) == []


def second_container(left: dict[str, Any]) -> None:
    left["containers"].append({"id": GONE, "name": "matryoshka-ci-e0", "runner": "ci", "state": "exited"})


def lost_spare(left: dict[str, Any]) -> None:
    del left["containers"][1]


def left_root(left: dict[str, Any]) -> None:
    left["folders"]["ci"].append("data-e0")


def left_mark(left: dict[str, Any]) -> None:
    left["folders"]["ci"] = ["data-e1", "data-e2", "data.mark", "lock"]


def silent_set_aside(left: dict[str, Any]) -> None:
    left["folders"]["ci"].append("data-untrusted-20261129T100000Z")


def left_mount(left: dict[str, Any]) -> None:
    left["mounts"].append("/var/lib/docker/overlay2/2/merged")


def mounted_root(left: dict[str, Any]) -> None:
    left["mounts"].append("/var/lib/matryoshka/runners/ci/data/overlay2/x/merged2")


def orphan(left: dict[str, Any]) -> None:
    left["processes"].append(process("inner dockerd", "ci", (GONE,)))


def two_programs(left: dict[str, Any]) -> None:
    left["processes"].append(process("runner program", "ci"))


def no_engine(left: dict[str, Any]) -> None:
    del left["processes"][0]


def left_build(left: dict[str, Any]) -> None:
    left["builds"].append("matryoshka-image-x")


def build_goes_on(left: dict[str, Any]) -> None:
    left["processes"].append(process("mmdebstrap"))


def left_shim(left: dict[str, Any]) -> None:
    left["processes"].append(process("environment's shim"))


@pytest.mark.parametrize(
    ("breakage", "complaint"),
    [
        (second_container, "container matryoshka-ci-e0 is exited"),
        (lost_spare, "container matryoshka-ci-e2 isn't there"),
        (left_root, "data root ci/data-e0 is left"),
        (left_mark, "data root ci/data.mark is left"),
        (silent_set_aside, "data root ci/data-untrusted-20261129T100000Z is left"),
        (left_mount, "2 root file systems of containers are mounted, 1 containers run"),
        (mounted_root, "/var/lib/matryoshka/runners/ci/data/overlay2/x/merged2 is mounted on the host"),
        (orphan, "a process of a container that is gone: inner dockerd"),
        (two_programs, "runner ci has 2 programs"),
        (no_engine, "0 processes are host dockerd"),
        (left_build, "matryoshka-image-x of an image build is left in /var/tmp"),
        (build_goes_on, "mmdebstrap still runs: mmdebstrap"),
        (left_shim, "2 shims serve 1 containers"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_is_left_is_named(breakage: Callable[[dict[str, Any]], None], complaint: str) -> None:
    left = copy.deepcopy(CLEAN)
    breakage(left)
    found = leftovers(left, ["ci"])
    assert len(found) == 1 and found[0].startswith(complaint), found


def test_a_data_root_that_the_runner_names_as_set_aside_may_stay() -> None:
    left = copy.deepcopy(CLEAN)
    silent_set_aside(left)
    path = "/var/lib/matryoshka/runners/ci/data-untrusted-20261129T100000Z"
    left["states"]["ci"]["set_aside"] = {"path": path, "reason": "x"}
    assert leftovers(left, ["ci"]) == []
