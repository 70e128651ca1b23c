# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs playbooks on one host and says what they cost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_host import ROOT, WORK, BenchHost, Failure

HERE = Path(__file__).resolve().parent
SITE = ROOT / "playbooks" / "site.yml"
PING = HERE / "plays" / "ping.yml"
BENEATH = HERE / "plays" / "beneath.yml"
DOCKER_ONLY = HERE / "plays" / "docker_only.yml"

LOCAL = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "ansible.builtin.", "ansible.legacy.")
    for name in (
        "add_host", "assert", "debug", "fail", "group_by", "import_playbook", "import_role", "import_tasks",
        "include_role", "include_tasks", "include_vars", "meta", "pause", "set_fact", "set_stats",
        "validate_argument_spec",
    )
)  # fmt: skip
"""Actions that never reach for the host."""


@dataclass(frozen=True)
class Task:
    """One task of a run. ``seconds`` reach to the start of the next."""

    name: str
    action: str
    seconds: float
    ran: bool
    changed: bool

    @property
    def remote(self) -> bool:
        """Whether it went to the host."""
        return self.ran and self.action not in LOCAL

    @property
    def short(self) -> str:
        """Its name without the collection's."""
        return self.name.replace("matryoshka.host.", "")


@dataclass(frozen=True)
class Play:
    """One run of ``ansible-playbook``. ``seconds`` are the whole command's."""

    seconds: float
    tasks: tuple[Task, ...]

    @property
    def remote(self) -> list[Task]:
        return [task for task in self.tasks if task.remote]

    @property
    def changed(self) -> list[str]:
        return [task.short for task in self.tasks if task.changed]

    def parts(self) -> list[tuple[str, float]]:
        """What the time went to, for a breakdown: remote tasks one by one, what stays here together."""
        here = [task for task in self.tasks if not task.remote]
        inside = sum(task.seconds for task in self.tasks)
        return [
            *((f"remote: {task.short}", task.seconds) for task in self.remote),
            (f"here: {len(here)} tasks that don't reach for the host", sum(task.seconds for task in here)),
            ("here: start and end of ansible-playbook", self.seconds - inside),
        ]


def tasks_of(records: Sequence[Mapping[str, Any]]) -> tuple[Task, ...]:
    """Tasks as the callback ``cost`` wrote them."""
    return tuple(
        Task(
            str(record["name"]), str(record["action"]), float(record["seconds"]),
            ran=any(record.get(end) for end in ("ok", "changed", "failed")), changed=bool(record.get("changed")),
        )
        for record in records
    )  # fmt: skip


def run_to_its_end(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Exit code and output of ``argv``. If this is interrupted, all that it started ends with it."""
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=dict(environment), start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return process.returncode, said


def play(
    host: BenchHost,
    playbook: Path,
    variables: Mapping[str, Any] | None = None,
    *,
    fresh: bool = False,
    calls: Path | None = None,
) -> Play:
    """Run ``playbook`` on ``host`` over SSH with pipelining. Raises :class:`Failure` with its output's end.

    :param fresh: with a connection of its own instead of the one that is kept open.
    :param calls: a file that gets a line for each start of the SSH client.
    """
    with tempfile.TemporaryDirectory(prefix="play-", dir=WORK) as name:
        folder = Path(name)
        cost = folder / "cost.json"
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks" / "collections"),
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "cost",
            "ANSIBLE_STDOUT_CALLBACK": "default",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(host.control),
            "MATRYOSHKA_COST": str(cost),
        }
        # Compiled Python is kept, as everywhere; without it most of the time would go to compiling Ansible.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if fresh:
            environment["ANSIBLE_SSH_ARGS"] = "-o ControlMaster=auto -o ControlPersist=5s"
            environment["ANSIBLE_SSH_CONTROL_PATH_DIR"] = tempfile.mkdtemp(dir=host.control)
        if calls is not None:
            client = folder / "ssh"
            client.write_text(f'#!/bin/sh\necho >>"{calls}"\nexec ssh "$@"\n', encoding="utf-8")
            client.chmod(0o755)
            environment["ANSIBLE_SSH_EXECUTABLE"] = str(client)
        argv = ["ansible-playbook", "-i", str(host.inventory), str(playbook)]
        if variables:
            argv += ["-e", json.dumps(dict(variables))]
        begin = time.monotonic()
        code, said = run_to_its_end(argv, environment)
        elapsed = time.monotonic() - begin
        if code != 0:
            last = "\n".join(said.strip().splitlines()[-25:])
            raise Failure(f"{playbook.name} on {host.name} ended with {code}:\n{last}")
        return Play(elapsed, tasks_of(json.loads(cost.read_text(encoding="utf-8"))))


def site(
    host: BenchHost, variables: Mapping[str, Any] | None = None, *, fresh: bool = False, warm: bool = True
) -> Play:
    """Run the whole site. A ``warm`` one that changes something is a :class:`Failure`."""
    done = play(host, SITE, variables, fresh=fresh)
    if warm and done.changed:
        raise Failure(f"a warm site on {host.name} changed: {', '.join(done.changed)}")
    return done


def median(plays: Sequence[Play]) -> Play:
    """The one of median length."""
    return sorted(plays, key=lambda each: each.seconds)[len(plays) // 2]
