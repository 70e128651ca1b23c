# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container engine on the host, spoken to by its command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from matryoshka_runner import process
from matryoshka_runner.clients import SILENT, Clients
from matryoshka_runner.errors import EngineError, EngineUnavailable
from matryoshka_runner.ping import ping

RUNNER_LABEL = "matryoshka.runner"
ENVIRONMENT_LABEL = "matryoshka.environment"
SOCKET = "/run/docker.sock"
UNREACHABLE = (
    "Cannot connect to the Docker daemon",
    "error during connect",
    "no such file or directory: docker.sock",
    SILENT,
)
UNAVAILABLE = ": unavailable"
"""How the engine's messages end where it doesn't reach containerd (``ErrUnavailable`` of containerd/errdefs)."""


@dataclass(frozen=True)
class Container:
    """One container of a runner."""

    id: str
    name: str
    environment: str
    state: str


@dataclass(frozen=True)
class Inspection:
    """What the engine says about one container. ``pid`` is 0 unless it runs."""

    running: bool
    pid: int
    exit_code: int
    out_of_memory: bool
    error: str = ""

    def end(self) -> str:
        """How it ended, in words."""
        cause = ", out of memory" if self.out_of_memory else ""
        return f"exit code {self.exit_code}{cause}" + (f", {self.error}" if self.error else "")


def _state(text: str) -> dict[str, Any]:
    try:
        state = json.loads(text)
    except ValueError:
        state = None
    if not isinstance(state, dict):
        raise EngineError(f"docker inspect: {text[:80]!r} isn't the state of a container")
    return state


class Engine:
    """Docker. Every method raises EngineUnavailable if it doesn't answer, EngineError if it refuses.

    :param run: runs a program to its end; a test gives a table.
    :param ping: asks whether an engine answers on a socket.
    """

    def __init__(self, run: process.Run = process.run, ping: Callable[[str, float], bool] = ping) -> None:
        self._run = run
        self._ping = ping

    @classmethod
    def until(cls, leaving: Callable[[], bool]) -> Engine:
        """One whose clients aren't waited for in vain once ``leaving`` is true."""
        return cls(Clients(leaving, lambda: ping(SOCKET, 2.0)))

    def expect(self, seconds: float = 3.0) -> None:
        """EngineUnavailable if the engine doesn't answer within ``seconds``.

        Worth asking first: where systemd holds the engine's socket while the engine is
        down, every other question waits until it is up again.
        """
        if not self._ping(SOCKET, seconds):
            raise EngineUnavailable(f"{SILENT} on {SOCKET} within {seconds:g} s")

    @staticmethod
    def argv(*words: str) -> list[str]:
        return ["docker", "--host", f"unix://{SOCKET}", *words]

    def ask(self, *words: str, timeout: float = 60.0) -> process.Result:
        """How ``docker words…`` ended; the only error that it raises is EngineUnavailable."""
        result = self._run(self.argv(*words), timeout=timeout)
        if result.code == 127 or (not result.ok and any(sign in result.err for sign in UNREACHABLE)):
            raise EngineUnavailable(f"docker {words[0]}: {result.detail}")
        return result

    def call(self, *words: str, timeout: float = 60.0) -> str:
        """Standard output of ``docker words…``."""
        result = self.ask(*words, timeout=timeout)
        if not result.ok:
            raise EngineError(f"docker {words[0]}: {result.detail}")
        return result.out

    def api_version(self) -> tuple[int, ...]:
        """The version of the engine's API, as numbers; also the test whether it answers."""
        self.expect()
        text = self.call("version", "--format", "{{.Server.APIVersion}}", timeout=20).strip()
        return tuple(int(part) for part in text.split("."))

    def cgroup_driver(self) -> str:
        """Who makes the control groups of containers: ``systemd`` or ``cgroupfs``."""
        return self.call("info", "--format", "{{.CgroupDriver}}", timeout=30).strip()

    def containers(self, runner: str) -> list[Container]:
        """All containers of a runner, half-made ones too."""
        form = '{{.ID}}\t{{.Names}}\t{{.Label "' + ENVIRONMENT_LABEL + '"}}\t{{.State}}'
        out = self.call(
            "ps", "-a", "--no-trunc", "--filter", f"label={RUNNER_LABEL}={runner}", "--format", form
        )
        return [Container(*line.split("\t")) for line in out.splitlines() if line]

    def create(self, arguments: Sequence[str]) -> str:
        """Make a container, not started; its id."""
        return self.call("create", *arguments, timeout=120).strip()

    def start(self, name: str) -> None:
        self.call("start", name, timeout=120)

    def kill(self, name: str) -> None:
        """End a container now; returns when it has ended. One that doesn't run is no error."""
        try:
            self.call("kill", name)
        except EngineUnavailable:
            raise
        except EngineError:
            if self.running(name):
                raise

    def stop(self, name: str, seconds: float) -> None:
        """Ask a container to end, and end it after ``seconds``."""
        self.call("stop", "--time", str(int(seconds)), name, timeout=seconds + 60)

    def remove(self, names: Sequence[str], timeout: float = 180) -> None:
        """Remove containers, running or not, with their unnamed volumes; gone ones are no error."""
        if not names:
            return
        try:
            self.call("rm", "--force", "--volumes", *names, timeout=timeout)
        except EngineUnavailable:
            raise
        except EngineError as error:
            if "No such container" not in str(error):
                raise

    def inspect(self, name: str) -> Inspection | None:
        """The state of one container; None if there is no such container."""
        result = self._run(
            self.argv("inspect", "--type", "container", "--format", "{{json .State}}", name), timeout=20
        )
        if not result.ok:
            if "No such container" in result.err:
                return None
            if any(sign in result.err for sign in UNREACHABLE) or result.code == 127:
                raise EngineUnavailable(f"docker inspect: {result.detail}")
            raise EngineError(f"docker inspect: {result.detail}")
        state = _state(result.out)
        return Inspection(
            bool(state.get("Running")),
            int(state.get("Pid") or 0),
            int(state.get("ExitCode") or 0),
            bool(state.get("OOMKilled")),
            str(state.get("Error") or ""),
        )

    def running(self, name: str) -> bool:
        found = self.inspect(name)
        return found is not None and found.running

    def reaches(self, name: str) -> bool:
        """True if the engine reaches its containerd, asked for the processes of a container that was started.

        Once containerd is back the engine needs a moment until it has connected to it again. That the
        container has ended is an answer too.
        """
        try:
            result = self.ask("top", name, timeout=10)
        except EngineUnavailable:
            return False
        return result.ok or (result.code == 1 and UNAVAILABLE not in result.err)

    def last_words(self, name: str, lines: int = 5) -> str:
        """The last lines a container printed, in one line; empty if it can't be had."""
        result = self._run(self.argv("logs", "--tail", str(lines), name), timeout=20)
        return " | ".join((result.out + result.err).split("\n")).strip(" |") if result.ok else ""

    def execute(
        self, name: str, argv: Sequence[str], timeout: float = 60.0, enough: process.Enough | None = None
    ) -> process.Result:
        """Run a program in a container to its end; never raises for what the program did.

        :param enough: asked again and again: why it isn't waited for any longer. A client of a container whose
            shim was killed waits for the end of a program that nobody tells it of.
        """
        return self._run(self.argv("exec", name, *argv), timeout=timeout, enough=enough)

    def wait(self, name: str) -> process.Result:
        """Returns when the container has ended, after a day, or at once if the engine can't say."""
        return self._run(self.argv("wait", name), timeout=86400)

    def spawn(
        self, name: str, argv: Sequence[str], *, options: Sequence[str], stdin: int, stdout: int | None
    ) -> subprocess.Popen[bytes]:
        """Start a program in a container and return the client, whose standard error is a pipe."""
        return subprocess.Popen(
            self.argv("exec", *options, name, *argv),
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=dict(process.ENVIRONMENT),
        )


def errors_of(client: subprocess.Popen[bytes]) -> IO[bytes]:
    """The pipe of :meth:`Engine.spawn`."""
    assert client.stderr is not None
    return client.stderr
