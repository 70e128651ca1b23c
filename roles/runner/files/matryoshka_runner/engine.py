# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container engine on the host, spoken to by its API, and by its client where a program runs in a container."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import IO, Any
from urllib.parse import urlencode

from matryoshka_runner import api, process
from matryoshka_runner.api import Answer
from matryoshka_runner.clients import GRACE, SILENT, Clients
from matryoshka_runner.errors import EngineError, EngineUnavailable
from matryoshka_runner.ping import ping

Http = Callable[..., Answer]

RUNNER_LABEL = "matryoshka.runner"
ENVIRONMENT_LABEL = "matryoshka.environment"
MODE_LABEL = "matryoshka.mode"
SOCKET = "/run/docker.sock"
UNREACHABLE = (
    "Cannot connect to the Docker daemon",
    "error during connect",
    "no such file or directory: docker.sock",
    SILENT,
)
GONE = 404
"""HTTP status for a container that isn't there."""
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


def _mapping(data: Any) -> Mapping[str, Any]:
    """What has to be a JSON object; EngineError if it is something else."""
    if not isinstance(data, Mapping):
        raise EngineError(f"{str(data)[:80]!r} isn't what the engine's API answers")
    return data


class Engine:
    """Docker. Every method raises EngineUnavailable if it doesn't answer, EngineError if it refuses.

    What is only asked goes by its API; what has a program's input and output goes by its client.

    :param run: runs a client to its end; a test gives a table.
    :param http: asks the API: method, target, body, timeout in seconds; see :func:`api.ask`.
    """

    def __init__(self, run: process.Run = process.run, http: Http | None = None) -> None:
        self._run = run
        self._http = http or partial(api.ask, SOCKET)
        self._version = ""

    @classmethod
    def until(cls, leaving: Callable[[], bool]) -> Engine:
        """One whose clients and answers aren't waited for in vain once ``leaving`` is true."""
        clients = Clients(leaving, lambda: ping(SOCKET, 2.0))

        def http(method: str, target: str, body: Any = None, timeout: float = 60.0) -> Answer:
            # What is over soon anyway isn't watched: the watch is a question to the engine, too.
            watch = clients.watch() if timeout > GRACE else None
            return api.ask(SOCKET, method, target, body, timeout, watch)

        return cls(clients, http)

    def expect(self, seconds: float = 3.0) -> str:
        """The newest version of its API; EngineUnavailable if the engine doesn't answer within ``seconds``.

        Worth asking first: where systemd holds the engine's socket while the engine is
        down, every other question waits until it is up again.
        """
        try:
            answer = self._http("GET", "/_ping", None, seconds)
        except EngineError as error:
            raise EngineUnavailable(f"{SILENT} on {SOCKET} within {seconds:g} s") from error
        if answer.status != 200 or not answer.version:
            raise EngineUnavailable(f"{SILENT} on {SOCKET} as an engine does: {answer.said}")
        return answer.version

    def _request(
        self, word: str, method: str, target: str, body: Any = None, timeout: float = 60.0
    ) -> Answer:
        """An answer of the API, whatever its status; ``word`` is what the engine's client calls the request."""
        try:
            self._version = self._version or self.expect()
            return self._http(method, f"/v{self._version}{target}", body, timeout)
        except EngineUnavailable as error:
            # It may be another one when it is back.
            self._version = ""
            raise EngineUnavailable(f"docker {word}: {error}") from error
        except EngineError as error:
            raise EngineError(f"docker {word}: {error}") from error

    def _call(self, word: str, method: str, target: str, body: Any = None, timeout: float = 60.0) -> Answer:
        """The same, where anything but success is an EngineError."""
        answer = self._request(word, method, target, body, timeout)
        if not answer.ok:
            raise EngineError(f"docker {word}: {answer.said}")
        return answer

    @staticmethod
    def argv(*words: str) -> list[str]:
        return ["docker", "--host", f"unix://{SOCKET}", *words]

    def ask(self, *words: str, timeout: float = 60.0) -> process.Result:
        """How ``docker words…`` ended; the only error that it raises is EngineUnavailable."""
        result = self._run(self.argv(*words), timeout=timeout)
        if result.code == 127 or (not result.ok and any(sign in result.err for sign in UNREACHABLE)):
            raise EngineUnavailable(f"docker {words[0]}: {result.detail}")
        return result

    def api_version(self) -> tuple[int, ...]:
        """The version of the engine's API, as numbers; also the test whether it answers."""
        self._version = self.expect()
        return tuple(int(part) for part in self._version.split("."))

    def cgroup_driver(self) -> str:
        """Who makes the control groups of containers: ``systemd`` or ``cgroupfs``."""
        return str(_mapping(self._call("info", "GET", "/info", timeout=30).data()).get("CgroupDriver") or "")

    def containers(self, runner: str) -> list[Container]:
        """All containers of a runner, half-made ones too."""
        filters = json.dumps({"label": [f"{RUNNER_LABEL}={runner}"]})
        query = urlencode({"all": "1", "filters": filters})
        found = self._call("ps", "GET", f"/containers/json?{query}").data()
        if not isinstance(found, list):
            raise EngineError(f"docker ps: {str(found)[:80]!r} isn't a list of containers")
        return [
            Container(
                str(each.get("Id") or ""),
                next(iter(each.get("Names") or []), "").removeprefix("/"),
                (each.get("Labels") or {}).get(ENVIRONMENT_LABEL, ""),
                str(each.get("State") or ""),
            )
            for each in map(_mapping, found)
        ]

    def create(self, name: str, content: Mapping[str, Any]) -> str:
        """Make a container, not started; its id. :param content: the API's ``ContainerConfig``."""
        target = f"/containers/create?{urlencode({'name': name})}"
        return str(_mapping(self._call("create", "POST", target, content, 120).data()).get("Id") or "")

    def start(self, name: str) -> None:
        self._call("start", "POST", f"/containers/{name}/start", timeout=120)

    def kill(self, name: str) -> None:
        """End a container now; returns when it has ended. One that doesn't run is no error."""
        try:
            self._call("kill", "POST", f"/containers/{name}/kill")
        except EngineUnavailable:
            raise
        except EngineError:
            if self.running(name):
                raise

    def stop(self, name: str, seconds: float) -> None:
        """Ask a container to end, and end it after ``seconds``."""
        self._call("stop", "POST", f"/containers/{name}/stop?t={int(seconds)}", timeout=seconds + 60)

    def remove(self, names: Sequence[str], timeout: float = 180) -> None:
        """Remove containers, running or not, with their unnamed volumes; gone ones are no error."""
        refused = []
        for name in names:
            answer = self._request("rm", "DELETE", f"/containers/{name}?force=1&v=1", timeout=timeout)
            if not answer.ok and answer.status != GONE:
                refused.append(answer.said)
        if refused:
            raise EngineError(f"docker rm: {'; '.join(refused)}")

    def inspect(self, name: str) -> Inspection | None:
        """The state of one container; None if there is no such container."""
        answer = self._request("inspect", "GET", f"/containers/{name}/json", timeout=20)
        if answer.status == GONE:
            return None
        if not answer.ok:
            raise EngineError(f"docker inspect: {answer.said}")
        state = _mapping(_mapping(answer.data()).get("State"))
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
            answer = self._request("top", "GET", f"/containers/{name}/top", timeout=10)
        except EngineError:
            return False
        return answer.ok or UNAVAILABLE not in answer.said

    def wait(self, name: str) -> None:
        """Returns when the container has ended, after a day, or at once if the engine can't say."""
        with suppress(EngineError):
            self._request("wait", "POST", f"/containers/{name}/wait", timeout=86400)

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
