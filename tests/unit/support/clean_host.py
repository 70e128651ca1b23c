# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with one ready runner, as the long runs see it: nothing is left on it."""

from __future__ import annotations

from typing import Any

ENVIRONMENT, GONE = "a" * 64, "b" * 64


def process(kind: str, runner: str = "", containers: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"kind": kind, "runner": runner, "containers": list(containers), "argv": kind}


CLEAN: dict[str, Any] = {
    "states": {
        "ci": {
            "environment": {"id": "e1", "container": "matryoshka-ci-e1"},
            "next": {"id": "e2", "container": "matryoshka-ci-e2"},
        }
    },
    "containers": [
        {"id": ENVIRONMENT, "name": "matryoshka-ci-e1", "runner": "ci", "state": "running"},
        {"id": "c" * 64, "name": "matryoshka-ci-e2", "runner": "ci", "state": "created"},
    ],
    "folders": {"ci": [".matryoshka", "data", "data.mark", "lock"]},
    "mounts": ["/var/lib/docker/overlay2/1/merged"],
    "builds": [],
    "processes": [
        process("host dockerd"),
        process("host containerd"),
        process("journald"),
        process("sshd"),
        process("logind"),
        process("message bus"),
        process("runner program", "ci"),
        process("environment's shim", "ci"),
        process("first process", "ci", (ENVIRONMENT,)),
    ],
}
