# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from tree import draw, job_lines, runners


def doll(level: str, name: str, *children: dict[str, Any], **cells: Any) -> dict[str, Any]:
    return {"level": level, "name": name, "children": list(children), **cells}


DOLLS = [
    doll(
        "host",
        "h",
        doll(
            "engine",
            "docker",
            doll(
                "runner",
                "a",
                doll("inner engine", "docker", storage_driver="overlay2", subnet="172.22.0.0/16", mtu=1500),
            ),
            doll("runner", "b"),
            storage_driver="overlay2",
        ),
    )
]


def test_every_doll_is_below_its_own() -> None:
    assert [line.split("  -")[0].split("  overlay2")[0].rstrip() for line in draw(DOLLS)[1:]] == [
        "host h",
        "└─ engine docker",
        "   ├─ runner a",
        "   │  └─ inner engine docker",
        "   └─ runner b",
    ]


def test_cells_stand_in_columns() -> None:
    lines = draw(DOLLS)
    column = lines[0].index("storage driver")
    assert lines[2][column:].startswith("overlay2")
    assert lines[4][column:].startswith("overlay2")
    assert lines[4][lines[0].index("MTU") :].startswith("1500")


def test_columns_with_nothing_in_them_are_left_out() -> None:
    assert draw(DOLLS)[0].split() == ["storage", "driver", "on", "subnet", "MTU", "state"]
    inner = doll(
        "inner engine", "docker", disk="nvme", lan="closed", quota={"used": 3 << 30, "limit": 40 << 30}
    )
    told = draw([doll("host", "h", inner)])
    assert told[0].split() == ["storage", "driver", "on", "disk", "quota", "subnet", "MTU", "LAN", "state"]
    assert [told[2][told[0].index(name) :].split("  ")[0] for name in ("disk", "quota", "LAN")] == [
        "nvme",
        "3.0 of 40.0 GiB",
        "closed",
    ]


def test_runners_by_name() -> None:
    assert runners(DOLLS) == ["a", "b"]


def test_job_lines() -> None:
    state = {
        "runner": "a",
        "last_job": {"id": "1", "status": "succeeded", "exit_code": 0},
        "timings": {"turnaround_seconds": 1.94},
        "environment": {"container": "matryoshka-a-00", "ready_seconds": None},
    }
    assert job_lines([state]) == [
        "runner a: job 1 succeeded, exit code 0",
        "runner a: turnaround 1.9 s",
        "runner a: next environment matryoshka-a-00",
    ]
    assert job_lines([{"runner": "b", "last_job": None, "timings": None, "environment": None}]) == []
