# SPDX-License-Identifier: GPL-3.0-or-later
"""A configuration to vary, and folders of its own for every test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matryoshka_runner.paths import Paths
from support.engine_double import EngineDouble


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(tmp_path / "etc", tmp_path / "run", tmp_path / "lib")
    found.configs.mkdir(parents=True)
    found.states.mkdir(parents=True)
    found.lib.mkdir()
    return found


@pytest.fixture
def content(paths: Paths) -> dict[str, Any]:
    """The configuration of runner ``ci`` as the role writes it."""
    return {
        "schema": 1,
        "name": "ci",
        "mode": {
            "name": "dind",
            "engine": "docker",
            "runtime": "runc",
            "privileged": True,
            "inner_engine": "docker",
            "inner_data_root": "/var/lib/docker",
        },
        "image": "matryoshka/environment-dind:0123456789ab",
        "directory": str(paths.lib / "runners" / "ci"),
        "cache": "persistent",
        "limits": {"cpus": 1.5, "memory_bytes": 1073741824, "pids": None},
        "inner_daemon": {"bip": "172.22.0.1/16"},
        "agent": {"name": "local", "queue": str(paths.queue)},
        "environment_variables": {"HELLO": "world"},
        "mounts": ["/srv/cache:/cache:ro"],
        "ready_timeout": 5,
        "drain_timeout": 60,
        "stop_timeout": 1,
        "restart_delay": 0,
    }


@pytest.fixture
def write(paths: Paths) -> Callable[[dict[str, Any]], Path]:
    """Writes a configuration to where the program looks for it."""

    def put(values: dict[str, Any]) -> Path:
        path = paths.config("ci")
        path.write_text(json.dumps(values), encoding="utf-8")
        return path

    return put


@pytest.fixture
def engine() -> EngineDouble:
    return EngineDouble()
