# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a job environment is made of: pure functions from the configuration to the engine's arguments."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from matryoshka_runner.cgroups import Place, slice_path
from matryoshka_runner.config import Config
from matryoshka_runner.containerd import Containerd
from matryoshka_runner.engine import ENVIRONMENT_LABEL, RUNNER_LABEL
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
    """Files on the host that the engine reads or binds when it makes an environment."""

    daemon: Path
    variables: Path

    @classmethod
    def write(cls, folder: Path, config: Config, iptables: str | None, filesystem: str = "") -> HandedIn:
        """Write them, readable by root only.

        :param iptables: the host's iptables backend, ``nft`` or ``legacy``; None if it has none.
        :param filesystem: that the environments' data is on, as in ``/proc/self/mountinfo``.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = cls(folder / "daemon.json", folder / "variables")
        write_whole(files.daemon, json.dumps(config.inner_daemon, indent=2) + "\n", 0o600, durable=False)
        variables = dict(config.environment_variables)
        if iptables:
            variables["MATRYOSHKA_IPTABLES"] = iptables
        if config.limits.disk_bytes is not None and filesystem in UNHELD:
            variables["MATRYOSHKA_BOUND"] = UNHELD[filesystem]
        variables["MATRYOSHKA_RUNNER"] = config.name
        text = "".join(f"{key}={value}\n" for key, value in variables.items())
        write_whole(files.variables, text, 0o600, durable=False)
        return files


def create_arguments(
    config: Config, environment: Environment, files: HandedIn, api: tuple[int, ...], driver: str = ""
) -> list[str]:
    """Arguments of ``docker create`` for ``environment``.

    :param api: the engine's API version.
    :param driver: who makes the engine's control groups, ``systemd`` or ``cgroupfs``.
    """
    words = [
        f"--name={environment.container}",
        f"--hostname={config.name}",
        f"--label={RUNNER_LABEL}={config.name}",
        f"--label={ENVIRONMENT_LABEL}={environment.id}",
        f"--label=matryoshka.mode={config.mode.name}",
        "--restart=no",
        "--pull=never",
        f"--env-file={files.variables}",
        f"--oom-score-adj={OOM_SCORE}",
    ]
    if config.mode.runtime != "runc":
        words.append(f"--runtime={config.mode.runtime}")
    if config.mode.privileged:
        words.append("--privileged")
    if api >= CGROUPNS_API:
        words.append("--cgroupns=private")
    words += _bounds(config, driver)
    words.append("--tmpfs=/run:exec,mode=755")
    if config.mode.inner_engine:
        words.append(f"--volume={environment.data_root}:{config.mode.inner_data_root}")
        words.append(f"--volume={files.daemon}:{INNER_DAEMON_FILE}:ro")
    words += [f"--volume={mount}" for mount in config.mounts]
    return [*words, config.image]


def _bounds(config: Config, driver: str) -> list[str]:
    """A runner's slice has its limits; without one the environment itself gets them."""
    limits, words = config.limits, []
    if config.slice is not None:
        return [f"--cgroup-parent={config.slice if driver == 'systemd' else slice_path(config.slice)}"]
    if limits.cpus is not None:
        words.append(f"--cpus={limits.cpus:g}")
    if limits.memory_bytes is not None:
        words += [f"--memory={limits.memory_bytes}", f"--memory-swap={limits.memory_bytes}"]
    if limits.pids is not None:
        words.append(f"--pids-limit={limits.pids}")
    return words


def iptables_backend(run: Run) -> str | None:
    """The backend of the host's iptables: ``nft``, ``legacy``, or None if it has no iptables.

    Since 1.8 ``iptables --version`` ends with it in brackets; before, there was only legacy.
    """
    result = run(["iptables", "--version"], timeout=10)
    if not result.ok:
        return None
    return "nft" if "nf_tables" in result.out else "legacy"
