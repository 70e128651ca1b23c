# SPDX-License-Identifier: GPL-3.0-or-later
"""The host whose processes are killed: made, converged, and spoken to over SSH."""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import hosts as container_hosts

HERE = Path(__file__).resolve().parent
UPLOADED = ("victims.py", "moment.py", "leftovers.py", "recovery.py")
FOLDER = "/srv/kills"
RUNNERS: list[dict[str, Any]] = [
    {"name": "ci", "mounts": [f"{FOLDER}:/kills"]},
    {"name": "neighbour", "cache": "none", "bip": "172.23.0.1/16", "mounts": [f"{FOLDER}:/kills"]},
]
NAMES = [str(runner["name"]) for runner in RUNNERS]
PERSIST = 5
"""Seconds for which a play's connection is kept for the next one."""
NO_CONNECTION = 255
"""Exit code of an SSH client that couldn't reach its host."""

SCRIPT = """\
#!/bin/sh
set -eu
note() {{ echo "$1 $MATRYOSHKA_JOB $(date +%s.%N)" >>/kills/trace; }}
note start
if ! docker image inspect busybox:local >/dev/null 2>&1; then
    tar --create --dereference --directory=/ bin/busybox | docker import - busybox:local >/dev/null
fi
docker run --rm busybox:local /bin/busybox true
note nested
docker run --rm busybox:local /bin/busybox sleep {seconds}
note end
"""
"""A job that leaves its trace outside of its environment, and uses what the runner's cache has kept."""


class PlayFailed(Exception):
    """A play that has to go through didn't."""


class KillSite:
    """One container host.

    :param playbooks: folder with ``site.yml``; the collection that it takes is that of the same checkout.
    :param log: takes the output of every play.
    """

    def __init__(self, name: str, image: str, playbooks: Path, log: IO[str]) -> None:
        self.reach = container_hosts.create(name, image, "root")
        self.playbooks = playbooks
        self.log = log
        self.variables: dict[str, Any] = {"runner_runners": RUNNERS}
        self.inventory = container_hosts.STATE / "long" / f"{name}.json"
        container_hosts.write_inventory(self.inventory, [self.reach])
        self.bring()

    def ssh(self, script: str) -> list[str]:
        return [*self.reach.ssh, script]

    def run(self, script: str, stdin: bytes = b"", timeout: float = 300) -> str:
        """Standard output of a shell script on the host, tried again for as long as there is no connection."""
        deadline = time.monotonic() + 30
        while True:
            done = subprocess.run(
                self.ssh(script), input=stdin, capture_output=True, timeout=timeout, check=False
            )
            if done.returncode == 0:
                return done.stdout.decode(errors="replace")
            said = (done.stdout + done.stderr).decode(errors="replace")
            if done.returncode != NO_CONNECTION or time.monotonic() > deadline:
                raise container_hosts.Failure(f"{script[:200]}\nended with {done.returncode}:\n{said}")
            time.sleep(0.3)

    def bring(self) -> None:
        """Put the programs that run there onto the host."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name in UPLOADED:
                tar.add(HERE / name, name)
        self.run(f"mkdir -p {FOLDER} && tar -C {FOLDER} --no-same-owner -xf -", packed.getvalue())
        self.run(f"cat >{FOLDER}/probe", SCRIPT.format(seconds=0).encode())

    def program(self, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What an uploaded program prints for this argument."""
        said = self.run(f"python3 {FOLDER}/{name} {shlex.quote(json.dumps(dict(asked)))}")
        found: dict[str, Any] = json.loads(said)
        return found

    def start_program(self, name: str, asked: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        """The same, without waiting."""
        line = self.ssh(f"python3 {FOLDER}/{name} {shlex.quote(json.dumps(dict(asked)))}")
        return subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def submit(self, name: str, runner: str, seconds: float) -> subprocess.Popen[bytes]:
        """``matryoshka job`` in an SSH session of its own."""
        text = base64.b64encode(SCRIPT.format(seconds=seconds).encode()).decode()
        script = f"echo {text} | base64 -d >/run/{name} && exec matryoshka job /run/{name} --runner {runner}"
        return self.background(self.ssh(script))

    def background(
        self, argv: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
        )

    def start_play(
        self, name: str, variables: Mapping[str, Any] | None = None, tags: str = "all"
    ) -> subprocess.Popen[bytes]:
        """A play that is under way; its output goes to the log. It has connections of its own."""
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(self.playbooks / "collections"),
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_SSH_ARGS": f"-o ControlMaster=auto -o ControlPersist={PERSIST}s",
        }
        asked = json.dumps({**self.variables, **(variables or {})})
        program = Path(sys.executable).with_name("ansible-playbook")
        line = [str(program), "-i", str(self.inventory), "-e", asked, "--tags", tags]
        self.log.write(f"\n--- {name}.yml {variables or ''}\n")
        self.log.flush()
        return self.background([*line, str(self.playbooks / f"{name}.yml")], environment)

    def play(self, name: str) -> str:
        """Output of a play that has to go through; :class:`PlayFailed` if it doesn't."""
        before = self.log.tell() if self.log.seekable() else 0
        code = self.start_play(name).wait(600)
        self.log.flush()
        with open(self.log.name, encoding="utf-8", errors="replace") as written:
            written.seek(before)
            said = written.read()
        if code != 0:
            last = "\n".join(said.strip().splitlines()[-30:])
            raise PlayFailed(f"{name}.yml ended with {code}:\n{last}")
        return said

    def remove(self) -> None:
        container_hosts.remove([self.reach.name])
