# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark makes of the records of a run, and of a container's inspection."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmark"
sys.path[:0] = [str(BENCHMARK), str(BENCHMARK / "on_host")]
from build import median_steps, step_seconds
from common import same_flags
from parts import longer
from plays import Play, median, tasks_of


def task(
    name: str, action: str = "matryoshka.host.verify", seconds: float = 1.0, **ends: int
) -> dict[str, Any]:
    return {"name": name, "action": action, "seconds": seconds, **(ends or {"ok": 1})}


@pytest.mark.parametrize(
    ("record", "remote", "changed"),
    [
        (task("a"), True, False),
        (task("a", changed=1), True, True),
        (task("a", skipped=1), False, False),
        (task("a", "set_fact"), False, False),
        (task("a", "ansible.builtin.set_fact"), False, False),
        (task("a", "ansible.builtin.validate_argument_spec"), False, False),
        (task("a", "ansible.builtin.include_tasks"), False, False),
        (task("a", "ansible.builtin.ping"), True, False),
        (task("a", "gather_facts"), True, False),
        (task("a", failed=1), True, False),
    ],
)
def test_which_tasks_reach_for_the_host(record: dict[str, Any], remote: bool, changed: bool) -> None:
    (found,) = tasks_of([record])
    assert (found.remote, found.changed) == (remote, changed)


def test_parts_of_a_play_add_up_to_all_of_it() -> None:
    records = [
        task("matryoshka.host.docker : Service", seconds=1.5),
        task("Plan", "set_fact", seconds=0.25),
        task("Skipped", seconds=0.125, skipped=1),
    ]
    found = Play(4.0, tasks_of(records))
    assert found.parts() == [
        ("remote: docker : Service", 1.5),
        ("here: 2 tasks that don't reach for the host", 0.375),
        ("here: start and end of ansible-playbook", 2.125),
    ]
    assert sum(seconds for _, seconds in found.parts()) == found.seconds


def test_median_run() -> None:
    assert median([Play(3.0, ()), Play(1.0, ()), Play(2.0, ())]).seconds == 2.0


def test_longer_names_only_what_grew() -> None:
    above = [Play(5.0, tasks_of([task("a", seconds=3.0), task("b", seconds=1.0), task("c", seconds=1.0)]))]
    below = [Play(3.0, tasks_of([task("a", seconds=1.0), task("b", seconds=2.0)]))]
    assert sorted(longer(above, below)) == [
        ("a", 2.0),
        ("c", 1.0),
    ]


def inspected(**host: Any) -> dict[str, Any]:
    base = {
        "CgroupnsMode": "private", "Privileged": True, "Runtime": "runc", "NanoCpus": 0, "Memory": 0,
        "MemorySwap": 0, "PidsLimit": 8192, "Tmpfs": {"/run": "exec,mode=755"},
        "Binds": ["/data/ci:/var/lib/docker", "/run/daemon.json:/etc/docker/daemon.json:ro"],
    }  # fmt: skip
    return {
        "Config": {
            "Hostname": "ci",
            "Env": ["PATH=/bin", "MATRYOSHKA_IPTABLES=nft"],
            "Image": "matryoshka/env:1",
        },
        "HostConfig": {**base, **host},
    }


@pytest.mark.parametrize(
    ("host", "data_root", "present", "absent"),
    [
        ({}, "/bench", ["--privileged", "--pids-limit=8192", "--tmpfs=/run:exec,mode=755"], ["--cpus"]),
        ({}, "/bench", ["--volume=/bench:/var/lib/docker"], ["/data/ci"]),
        ({}, None, ["--volume=/run/daemon.json:/etc/docker/daemon.json:ro"], [":/var/lib/docker"]),
        ({}, None, ["--env=MATRYOSHKA_IPTABLES=nft"], ["PATH"]),
        ({"Privileged": False, "Runtime": "runsc"}, None, ["--runtime=runsc"], ["--privileged"]),
        ({"NanoCpus": 1_500_000_000}, None, ["--cpus=1.5"], []),
        (
            {"Memory": 1 << 30, "MemorySwap": 1 << 30},
            None,
            ["--memory=1073741824", "--memory-swap=1073741824"],
            [],
        ),
        (
            {"PidsLimit": None, "Tmpfs": None, "Binds": None},
            None,
            [],
            ["--pids-limit", "--tmpfs", "--volume"],
        ),
    ],
)
def test_same_flags(
    host: dict[str, Any], data_root: str | None, present: list[str], absent: list[str]
) -> None:
    words = same_flags(inspected(**host), ["PATH=/bin"], data_root)
    assert words[-1] == "matryoshka/env:1"
    assert set(present) <= set(words)
    assert not [word for word in words for name in absent if name in word]


PROGRESS = """\
#0 building with "default" instance using docker driver

#4 [internal] load build context
#4 transferring context: 1.2MB 0.2s done
#4 DONE 0.3s

#5 [2/3] COPY library /src/library
#5 DONE 0.5s

#6 [3/3] RUN make
#6 0.1 DONE 9s
#6 DONE 12.5s

#7 exporting to image
#7 exporting layers 0.4s done
#7 DONE 0.4s
"""


def test_seconds_of_the_steps_of_a_build() -> None:
    assert step_seconds(PROGRESS) == {
        "[internal] load build context": 0.3,
        "[2/3] COPY library /src/library": 0.5,
        "[3/3] RUN make": 12.5,
        "exporting to image": 0.4,
    }


def test_median_steps() -> None:
    assert median_steps([{"a": 1.0, "b": 5.0}, {"a": 3.0}, {"a": 2.0, "b": 7.0}]) == {"a": 2.0, "b": 5.0}
