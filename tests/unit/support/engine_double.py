# SPDX-License-Identifier: GPL-3.0-or-later
"""A double of the engine for the runner program's loop: containers are records, jobs local processes."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matryoshka_runner.containerd import Containerd
from matryoshka_runner.engine import Container, Engine, Inspection
from matryoshka_runner.errors import EngineUnavailable
from matryoshka_runner.process import Enough, Result

NEVER_BEGINS = "exit 126"
"""As a line in :attr:`EngineDouble.jobs`: what the engine's client does if it can't start anything."""


def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true value of ``condition``; fails if it stays false."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("it didn't happen")


@dataclass
class _Fake:
    environment: str
    state: str = "created"
    end: threading.Event = field(default_factory=threading.Event)
    code: int = 0


@dataclass(frozen=True)
class ContainerdDouble(Containerd):
    """Answers unless its root is one of ``without``."""

    without: set[str]

    def answers(self, timeout: float = 2.0) -> bool:
        return self.root not in self.without


class EngineDouble(Engine):
    """Stands in for Docker: containers are records, a job is a local shell process.

    ``jobs`` holds one shell line for each job to come; it gets the wrapper's token as ``$1``.
    """

    def __init__(self) -> None:
        super().__init__(run=lambda argv, timeout=60.0, enough=None: Result(127, "", f"{argv[0]}: not found"))
        self.made: dict[str, _Fake] = {}
        self.jobs: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log: list[str] = []
        self.away = False
        self.inner_dead = False
        self.without: set[str] = set()
        """Whose containerd doesn't answer: ``host``, ``inner``; ``way``: the engine doesn't reach it."""

    @staticmethod
    def half_made(environment: str = "deadbeef") -> _Fake:
        """A container that was made but never started."""
        return _Fake(environment)

    def expect(self, seconds: float = 3.0) -> str:
        if self.away:
            raise EngineUnavailable("the engine is away")
        return "1.45"

    def running_now(self) -> list[str]:
        return [name for name, fake in self.made.items() if fake.state == "running"]

    def finish(self, name: str, code: int = 137) -> None:
        """The container ends."""
        fake = self.made[name]
        fake.state, fake.code = "exited", code
        for process in self.processes:
            process.kill()
        fake.end.set()

    def api_version(self) -> tuple[int, ...]:
        self.expect()
        return (1, 45)

    def containers(self, runner: str) -> list[Container]:
        self.expect()
        return [Container(name, name, fake.environment, fake.state) for name, fake in self.made.items()]

    def create(self, name: str, content: Mapping[str, Any]) -> str:
        self.expect()
        self.made[name] = _Fake(name[-8:])
        self.log.append(f"create {name}")
        return name

    def start(self, name: str) -> None:
        self.expect()
        if self.running_now():
            raise AssertionError(f"{name} is started while {self.running_now()} run")
        self.made[name].state = "running"
        self.log.append(f"start {name}")

    def kill(self, name: str) -> None:
        self.expect()
        if name in self.made and self.made[name].state == "running":
            self.log.append(f"kill {name}")
            self.finish(name)

    def stop(self, name: str, seconds: float) -> None:
        self.kill(name)

    def remove(self, names: Sequence[str], timeout: float = 180) -> None:
        self.expect()
        for name in names:
            if name in self.made:
                self.kill(name)
                del self.made[name]
                self.log.append(f"remove {name}")

    def inspect(self, name: str) -> Inspection | None:
        self.expect()
        fake = self.made.get(name)
        return Inspection(fake.state == "running", 0, fake.code, False) if fake else None

    def reaches(self, name: str) -> bool:
        return "way" not in self.without

    def last_words(self, name: str, lines: int = 5) -> str:
        return "its last words"

    def answers(self, _pid: int) -> bool:
        """In place of the ping to the inner engine."""
        return bool(self.running_now()) and not self.inner_dead

    def containerd(self, root: str) -> Containerd:
        """In place of a look for the one in ``root``."""
        return ContainerdDouble("host" if root == "/" else "inner", "", self.without)

    def execute(
        self, name: str, argv: Sequence[str], timeout: float = 60.0, enough: Enough | None = None
    ) -> Result:
        return Result(1, "", "no answer") if self.inner_dead else Result(0)

    def wait(self, name: str) -> None:
        fake = self.made.get(name)
        while fake and not self.away and not fake.end.wait(0.02):
            pass

    def spawn(
        self, name: str, argv: Sequence[str], *, options: Sequence[str], stdin: int, stdout: int | None
    ) -> subprocess.Popen[bytes]:
        self.log.append(f"job in {name}")
        line = self.jobs.pop(0) if self.jobs else 'echo "$1 0" >&2'
        if line != NEVER_BEGINS:
            line = f'echo "$1 here" >&2; {line}'
        process = subprocess.Popen(
            ["sh", "-c", line, "job", argv[4]], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE
        )
        self.processes.append(process)
        return process
