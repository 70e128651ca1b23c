# SPDX-License-Identifier: GPL-3.0-or-later
"""This machine: what it can do, and how Podman is called on it. Standard library only."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".dev"
CHECKOUT = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
CAP_SYS_RESOURCE = 1 << 24


class Failure(Exception):
    """Something outside this program didn't work; the text is for a person."""


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def root_command(argv: Sequence[str]) -> list[str]:
    """``argv`` as root: through sudo for everybody else."""
    return list(argv) if os.geteuid() == 0 else ["sudo", *argv]


def run(argv: Sequence[str], *, check: bool = True, stdin: bytes = b"", timeout: float = 900) -> str:
    """Standard output of ``argv``; raises :class:`Failure` with what it said if it fails."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise Failure(f"{argv[0]} isn't installed; ./dev installs what it needs") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"no end within {timeout:g} s: {shlex.join(argv)}") from None
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise Failure(f"{shlex.join(argv)} ended with {done.returncode}:\n{said}")
    return done.stdout.decode(errors="replace")


def podman(*args: str, check: bool = True) -> str:
    return run(root_command(["podman", *args]), check=check)


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Only one process of this checkout at a time."""
    (STATE / "lock").mkdir(parents=True, exist_ok=True)
    with (STATE / "lock" / name).open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def unified_cgroups(root: Path = Path("/sys/fs/cgroup")) -> bool:
    """Whether the machine runs on cgroup v2 alone."""
    return (root / "cgroup.controllers").exists()


def has_sys_resource(status: str) -> bool:
    """Whether CAP_SYS_RESOURCE is in the bounding set that ``/proc/self/status`` tells of."""
    for line in status.splitlines():
        if line.startswith("CapBnd:"):
            return bool(int(line.split()[1], 16) & CAP_SYS_RESOURCE)
    return True


def start_options(unified: bool, sys_resource: bool, limits: dict[str, int]) -> tuple[list[str], list[str]]:
    """Podman's global options and ``run`` options that this machine needs beyond the ordinary ones.

    :param limits: hard limits of this process by Podman's name, used where they can't be raised.
    """
    options: list[str] = []
    if not sys_resource:
        for name, value in limits.items():
            if value != resource.RLIM_INFINITY:
                options += ["--ulimit", f"{name}={value}:{value}"]
    if unified:
        return [], ["--systemd=always", *options]
    # Podman's own preparation for systemd would mount the machine's whole name=systemd tree into every
    # host, so that all hosts share one system.slice; without it each has a tree of its own.
    legacy = [
        "--systemd=false", "--cgroupns", "private", "--stop-signal", "SIGRTMIN+3",
        "--tmpfs", "/run:rw,nosuid,nodev,mode=755", "--tmpfs", "/run/lock:rw,nosuid,nodev",
        "--tmpfs", "/tmp:rw,nosuid,nodev,exec",
        "-e", "container=podman", "-e", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
    ]  # fmt: skip
    return ["--runtime", "runc"], [*legacy, *options]


def this_machine() -> tuple[list[str], list[str]]:
    """:func:`start_options` for this machine."""
    limits = {
        "nofile": min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        "nproc": min(20000, resource.getrlimit(resource.RLIMIT_NPROC)[1]),
    }
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return start_options(unified_cgroups(), has_sys_resource(status), limits)
