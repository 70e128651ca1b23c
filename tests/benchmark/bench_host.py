# SPDX-License-Identifier: GPL-3.0-or-later
"""Container hosts that measurements are taken on."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "dev"))
import hosts as container_hosts

WORK = ROOT / ".dev" / "bench"
ON_HOST = Path(__file__).resolve().parent / "on_host"
FOLDER = "/run/matryoshka-bench"
"""Where those programs go on a host."""

Failure = container_hosts.Failure


def say(text: str) -> None:
    """Progress, for a person."""
    print(f"  {text}", file=sys.stderr, flush=True)


def load() -> float:
    """Processes that want to run, for each core, in the last minute."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def control_folder() -> Path:
    """Where connections are kept open: short, because a socket's path has at most 108 bytes."""
    folder = Path(f"/tmp/matryoshka-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


class BenchHost:
    """A running container host."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reach = container_hosts.create(name, "debian13", "admin")
        self.control = control_folder()
        self.inventory = WORK / f"{name}.json"
        container_hosts.write_inventory(self.inventory, [self.reach])

    @classmethod
    def fresh(cls, name: str) -> BenchHost:
        """One that nothing has run on."""
        container_hosts.remove([name])
        return cls(name)

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout: float = 900) -> str:
        """Standard output of ``argv``, run as root. Raises :class:`Failure` unless it ends with 0."""
        kept = [
            "-o",
            "ControlMaster=auto",
            "-o",
            "ControlPersist=60",
            "-o",
            f"ControlPath={self.control}/b-%C",
        ]
        ssh = self.reach.ssh
        done = subprocess.run(
            [*ssh[:1], *kept, *ssh[1:], shlex.join(["sudo", *argv])],
            input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
            raise Failure(f"{self.name}: {shlex.join(argv)[:200]} ended with {done.returncode}:\n{said}")
        return done.stdout

    def timed(self, line: str) -> float:
        """Seconds that a shell line takes, run as root."""
        begin = time.monotonic()
        self.run(["sh", "-c", line])
        return time.monotonic() - begin

    def program(self, name: str, arguments: Any, timeout: float = 900) -> Any:
        """What a program of ``on_host/`` found, run as root with ``arguments`` as JSON."""
        self.run(["mkdir", "-p", FOLDER])
        for source in sorted(ON_HOST.glob("*.py")):
            self.run(["tee", f"{FOLDER}/{source.name}"], stdin=source.read_text(encoding="utf-8"))
        return json.loads(
            self.run(["python3", "-B", f"{FOLDER}/{name}.py", json.dumps(arguments)], timeout=timeout)
        )

    def packages(self) -> set[str]:
        """Packages that were asked for by name."""
        return set(self.run(["apt-mark", "showmanual"]).split())

    def states(self) -> list[dict[str, Any]]:
        """What the runners say of themselves."""
        return json.loads(self.run(["matryoshka", "status", "--json"]))

    def await_ready(self, runners: int, seconds: float = 300) -> None:
        """Until so many runners are ready, with the next environment made."""
        end = time.monotonic() + seconds
        while True:
            states = self.states()
            ready = [state for state in states if state["state"] == "ready" and state.get("next")]
            if len(ready) == runners == len(states):
                return
            if time.monotonic() > end:
                found = ", ".join(f"{state['runner']} {state['state']}" for state in states)
                raise Failure(f"{self.name}: {runners} runners aren't ready after {seconds:g} s: {found}")
            time.sleep(0.5)

    def remove(self) -> None:
        """Take it away with its volumes."""
        container_hosts.remove([self.name])
        self.inventory.unlink(missing_ok=True)
