# SPDX-License-Identifier: GPL-3.0-or-later
"""A live host as tests see it: hand in jobs, ask what runners do, wait, break things, run the play again."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[3]
QUEUE = "/var/lib/matryoshka/queue"
DATA = "/var/lib/matryoshka/runners"

HOLD = "echo holding; while [ ! -e /release ]; do sleep 0.1; done; echo released"
"""Lines of a job that goes on until :meth:`Job.release`."""

Found = TypeVar("Found")


def wait_for(
    what: str, seconds: float, probe: Callable[[], Found | None], explain: Callable[[], str]
) -> Found:
    """What ``probe`` returns as soon as it is true; fails the test with ``explain()`` after ``seconds``.

    It rests longer than it asks: who asks must not be what the host is busy with.
    """
    deadline = time.monotonic() + seconds
    while True:
        begin = time.monotonic()
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain until {what}\n{explain()}")
        time.sleep(max(0.1, 2 * (time.monotonic() - begin)))


@dataclass(frozen=True)
class Ended:
    """A job's end, as its ``result.json`` and its log tell of it."""

    status: str
    exit_code: int | None
    reason: str
    runner: str
    environment: str | None
    started: str | None
    ended: str
    log: str


class Job:
    """A script in the host's queue."""

    def __init__(self, site: Site, identity: str) -> None:
        self.site = site
        self.id = identity

    def __repr__(self) -> str:
        return f"job {self.id}"

    def log(self) -> str:
        """The output so far."""
        return self.site.sh(
            f"cat {QUEUE}/claimed/*/{self.id}/log {QUEUE}/done/{self.id}/log 2>/dev/null; true"
        )

    def says(self, text: str, seconds: float = 60) -> Job:
        """Wait until the log holds ``text``."""
        wait_for(f"{self!r} says {text!r}", seconds, lambda: text in self.log(), self._explain)
        return self

    def waits(self) -> bool:
        """Whether no runner has taken it yet."""
        return bool(
            self.site.sh(f"ls -d {QUEUE}/new/{self.id} {QUEUE}/new/{self.id}@* 2>/dev/null; true").strip()
        )

    def release(self, runner: str = "ci") -> Job:
        """End the loop of :data:`HOLD` in the environment of ``runner``."""
        self.site.inside(runner, "touch /release")
        return self

    def ended(self) -> Ended | None:
        """How it ended; None if it hasn't."""
        text = self.site.sh(
            f"cat {QUEUE}/done/{self.id}/result.json {QUEUE}/refused/{self.id}/result.json 2>/dev/null; true"
        )
        if not text.strip():
            return None
        result = json.loads(text)
        keys = ("status", "exit_code", "reason", "runner", "environment", "started", "ended")
        return Ended(**{key: result[key] for key in keys}, log=self.log())

    def wait(self, seconds: float = 90) -> Ended:
        """Wait for its end, however it is."""
        return wait_for(f"{self!r} ends", seconds, self.ended, self._explain)

    def succeeds(self, seconds: float = 90) -> Ended:
        """Wait for its end, which has to be exit code 0."""
        ended = self.wait(seconds)
        assert (ended.status, ended.exit_code) == ("succeeded", 0), f"{self!r}: {ended}\n{ended.log}"
        return ended

    def starts(self) -> int:
        """How often any runner says it has started this job."""
        return int(
            self.site.sh(
                f"journalctl -o cat -u 'matryoshka-runner@*' | grep -c '^job {self.id} runs in' || true"
            )
        )

    def _explain(self) -> str:
        files = self.site.sh(f"find {QUEUE} -path '*{self.id}*' -printf '%P\\n'")
        return f"its files: {files}its log:\n{self.log()}{self.site.explain()}"


class Site:
    """One host on which the site's play has run.

    :param host: testinfra's host, root by sudo.
    :param inventory: the inventory that the play ran with.
    """

    def __init__(self, host: Any, inventory: str) -> None:
        self.host = host
        self.inventory = inventory
        self.variables: Mapping[str, Any] = {}
        self._held: list[tuple[Job, str]] = []

    def sh(self, script: str, *, check: bool = True) -> str:
        """Standard output of a shell script on the host; it has to end with 0 unless told otherwise."""
        done = self.host.run("timeout 180 /bin/sh -c %s", script)
        if check and done.rc != 0:
            raise AssertionError(f"{script}\nended with {done.rc}:\n{done.stdout}{done.stderr}")
        return str(done.stdout)

    def fails(self, script: str, code: int | None = None) -> str:
        """All output of a shell script that has to fail, with exit code ``code`` if given."""
        done = self.host.run("timeout 180 /bin/sh -c %s", f"{{ {script}; }} 2>&1")
        assert done.rc != 0 and code in (None, done.rc), f"{script}\nended with {done.rc}:\n{done.stdout}"
        return str(done.stdout)

    def lines(self, script: str) -> list[str]:
        """The lines that a shell script prints."""
        return self.sh(script).splitlines()

    def write(self, path: str, text: str, mode: str = "0640") -> None:
        """Make a file on the host."""
        quoted = shlex.quote(path)
        self.sh(f"printf %s {shlex.quote(text)} > {quoted} && chmod {mode} {quoted}")

    # --- jobs

    def submit(self, script: str, runner: str | None = None, name: str = "test") -> Job:
        """Hand a script to the queue, for ``runner`` alone if given."""
        return self.submit_all([script], runner, name)[0]

    def submit_all(self, scripts: list[str], runner: str | None = None, name: str = "test") -> list[Job]:
        """Hand in several jobs at the same moment."""
        stamp, jobs, steps = f"{os.getpid()}-{time.monotonic_ns()}", [], [f"cd {QUEUE}/new"]
        for number, script in enumerate(scripts):
            identity = f"{name}-{stamp}-{number}"
            jobs.append(Job(self, identity))
            steps.append(f"printf %s {shlex.quote(script)} > .{identity}")
        for job in jobs:
            steps.append(f"mv .{job.id} {job.id}" + (f"@{runner}" if runner else ""))
        self.sh(" && ".join(steps))
        return jobs

    def held(self, runner: str = "ci", before: str = "", after: str = "") -> Job:
        """A job that runs on ``runner`` now and goes on until it is released."""
        job = self.submit("\n".join(["set -e", before, HOLD, after]), runner, "held")
        self._held.append((job, runner))
        return job.says("holding")

    def let_go(self) -> None:
        """Release the held jobs that still run: a test that failed leaves no runner busy."""
        for job, runner in self._held:
            if self.lines(f"ls {QUEUE}/claimed/{runner} | grep -xF {job.id}; true"):
                job.release(runner)
        self._held.clear()

    # --- runners

    def state(self, runner: str = "ci") -> dict[str, Any]:
        """What the runner says of itself; empty if it never said anything."""
        text = self.sh(f"cat /run/matryoshka/runners/{runner}.json 2>/dev/null; true")
        return json.loads(text) if text else {}

    def ready(self, runner: str = "ci", seconds: float = 60, *, after: str | None = None) -> dict[str, Any]:
        """Wait until an environment of ``runner`` is ready for a job; the runner's state.

        :param after: the id of an environment that is not to be taken for the ready one.
        """

        def probe() -> dict[str, Any]:
            state = self.state(runner)
            is_new = state.get("environment") and state["environment"]["id"] != after
            return state if state.get("state") == "ready" and is_new else {}

        return wait_for(f"runner {runner} is ready", seconds, probe, self.explain)

    def becomes(self, runner: str, name: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until the runner's state is called ``name``."""

        def probe() -> dict[str, Any]:
            state = self.state(runner)
            return state if state.get("state") == name else {}

        return wait_for(f"runner {runner} is {name}", seconds, probe, self.explain)

    def inside(self, runner: str, script: str) -> str:
        """Standard output of a shell script in the runner's present environment."""
        environment = self.state(runner)["environment"]
        assert environment, f"runner {runner} has no environment\n{self.explain()}"
        return self.sh(f"docker exec {environment['container']} sh -c {shlex.quote(script)}")

    def first_process(self, container: str) -> int:
        """Process id, on the host, of the first process of a container."""
        return int(self.sh(f"docker inspect --format '{{{{.State.Pid}}}}' {container}"))

    def main_pid(self, unit: str) -> int:
        """Process id of a unit's main process."""
        return int(self.sh(f"systemctl show --value -p MainPID {unit}"))

    # --- time

    def now(self) -> str:
        """A place in the journal, for :meth:`journal`."""
        return self.lines("journalctl --sync; journalctl -q -n 0 --show-cursor")[-1].removeprefix(
            "-- cursor: "
        )

    def journal(self, unit: str, after: str) -> list[str]:
        """Messages of a unit, and systemd's about it, since :meth:`now` was ``after``."""
        return self.lines(f"journalctl --sync; journalctl -q -o cat -u '{unit}' --after-cursor='{after}'")

    def explain(self) -> str:
        """What a person would look at first when a wait was in vain."""
        return self.sh(
            "echo '--- runners'; matryoshka status; echo '--- containers'; docker ps -a --format "
            "'{{.Names}} {{.Status}}' 2>&1; echo '--- journal'; journalctl -n 40 -o short-precise --no-hostname "
            "-u 'matryoshka-*' -u docker.service; true",
            check=False,
        )

    # --- the play

    def play(self, variables: Mapping[str, Any], name: str = "runners") -> str:
        """Run ``playbooks/NAME.yml`` with extra variables; its output."""
        argv = ["ansible-playbook", "-i", self.inventory, "-e", json.dumps(dict(variables))]
        done = subprocess.run(
            [*argv, str(ROOT / "playbooks" / f"{name}.yml")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, f"{shlex.join(argv)}\nended with {done.returncode}:\n{output}"
        return output

    def wants(self, variables: Mapping[str, Any]) -> None:
        """Have the host as the play makes it with these variables; nothing to do if it is so already."""
        if variables != self.variables:
            self.play(variables)
            self.variables = variables
