# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a job environment is made of: from the configuration to what the engine is asked for."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matryoshka_runner.cgroups import Place, slice_path
from matryoshka_runner.config import Config
from matryoshka_runner.containerd import Containerd
from matryoshka_runner.engine import ENVIRONMENT_LABEL, MODE_LABEL, RUNNER_LABEL
from matryoshka_runner.files import now, write_whole
from matryoshka_runner.firstprocess import FirstProcess
from matryoshka_runner.process import Run

CGROUPNS_API = (1, 41)
"""Docker 20.10, the first that can give a container its own cgroup namespace."""
OOM_SCORE = 500
"""Where the host runs out of memory, environments end before what the host itself needs (``proc(5)``)."""
UNHELD = {"ext4": "sys_resource"}
"""Capabilities that a file system's quota doesn't hold (Linux, fs/quota/dquot.c, ``ignore_hardlimit``); XFS has its own."""
INNER_DAEMON_FILE = "/etc/docker/daemon.json"
READY_PROGRAM = "/usr/local/sbin/environment-ready"
"""Part of every environment image: ends with 0 when the inner engine answers."""


@dataclass
class Environment:
    """One container in which one job lives and dies."""

    id: str
    container: str
    image: str
    data_root: Path
    started: str = ""
    ready_seconds: float | None = None
    pid: int = 0
    container_id: str = ""
    place: Place | None = field(default=None, repr=False)
    first: FirstProcess | None = field(default=None, repr=False)
    containerd: Containerd | None = field(default=None, repr=False)
    began: float = 0.0

    @classmethod
    def fresh(cls, config: Config) -> Environment:
        """One that isn't made yet, with a new id."""
        identity = secrets.token_hex(4)
        root = config.data if config.persistent else config.directory / f"data-{identity}"
        return cls(identity, f"matryoshka-{config.name}-{identity}", config.image, root)

    def starts(self) -> None:
        self.started = now()
        self.began = time.monotonic()

    def is_ready(self) -> None:
        self.ready_seconds = round(time.monotonic() - self.began, 3)

    def as_state(self) -> dict[str, object]:
        """Its part of the state file."""
        return {
            "id": self.id,
            "container": self.container,
            "image": self.image,
            "data_root": str(self.data_root),
            "started": self.started,
            "ready_seconds": self.ready_seconds,
        }


@dataclass(frozen=True)
class HandedIn:
    """What an environment gets from the host: the file that is its daemon's configuration, and variables."""

    daemon: Path
    variables: Mapping[str, str] = field(repr=False)

    @classmethod
    def write(cls, folder: Path, config: Config, iptables: str | None, filesystem: str = "") -> HandedIn:
        """Write the file, readable by root only.

        :param iptables: the host's iptables backend, ``nft`` or ``legacy``; None if it has none.
        :param filesystem: that the environments' data is on, as in ``/proc/self/mountinfo``.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        daemon = folder / "daemon.json"
        write_whole(daemon, json.dumps(config.inner_daemon, indent=2) + "\n", 0o600, durable=False)
        variables = dict(config.environment_variables)
        if iptables:
            variables["MATRYOSHKA_IPTABLES"] = iptables
        if config.limits.disk_bytes is not None and filesystem in UNHELD:
            variables["MATRYOSHKA_BOUND"] = UNHELD[filesystem]
        variables["MATRYOSHKA_RUNNER"] = config.name
        return cls(daemon, variables)


def container_of(
    config: Config, environment: Environment, given: HandedIn, version: tuple[int, ...], driver: str = ""
) -> dict[str, Any]:
    """The container of ``environment`` as the engine's API has it (``ContainerConfig`` with ``HostConfig``).

    :param version: of the engine's API.
    :param driver: who makes the engine's control groups, ``systemd`` or ``cgroupfs``.
    """
    inner = [
        f"{environment.data_root}:{config.mode.inner_data_root}",
        f"{given.daemon}:{INNER_DAEMON_FILE}:ro",
    ]
    host: dict[str, Any] = {
        "RestartPolicy": {"Name": "no"},
        "OomScoreAdj": OOM_SCORE,
        "Privileged": config.mode.privileged,
        "Tmpfs": {"/run": "exec,mode=755"},
        "Binds": [*(inner if config.mode.inner_engine else []), *config.mounts],
        **_bounds(config, driver),
    }
    if config.mode.runtime != "runc":
        host["Runtime"] = config.mode.runtime
    if version >= CGROUPNS_API:
        host["CgroupnsMode"] = "private"
    return {
        "Image": config.image,
        "Hostname": config.name,
        "Labels": {
            RUNNER_LABEL: config.name,
            ENVIRONMENT_LABEL: environment.id,
            MODE_LABEL: config.mode.name,
        },
        "Env": [f"{key}={value}" for key, value in given.variables.items()],
        "HostConfig": host,
    }


def _bounds(config: Config, driver: str) -> dict[str, Any]:
    """A runner's slice has its limits; without one the environment itself gets them."""
    limits = config.limits
    found: dict[str, Any] = {}
    if config.slice is not None:
        return {"CgroupParent": config.slice if driver == "systemd" else slice_path(config.slice)}
    if limits.cpus is not None:
        found["NanoCpus"] = round(limits.cpus * 1e9)
    if limits.memory_bytes is not None:
        found["Memory"] = found["MemorySwap"] = limits.memory_bytes
    if limits.pids is not None:
        found["PidsLimit"] = limits.pids
    return found


def iptables_backend(run: Run) -> str | None:
    """The backend of the host's iptables: ``nft``, ``legacy``, or None if it has no iptables.

    Since 1.8 ``iptables --version`` ends with it in brackets; before, there was only legacy.
    """
    result = run(["iptables", "--version"], timeout=10)
    if not result.ok:
        return None
    return "nft" if "nf_tables" in result.out else "legacy"
