# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks that the kernel takes back when their holder dies (``flock(2)``)."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from matryoshka_runner.errors import HeldError, TurnError

POLL = 0.1
"""Seconds between two tries for a lock that has to be waited for."""


class FileLock:
    """An exclusive lock on a file, which holds the holder's process id as text.

    The file is never removed: two processes could then hold two files of one name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number: int | None = None

    def acquire(self, purpose: str) -> None:
        """Take the lock at once, or raise HeldError naming the holder.

        :param purpose: what the lock is for, as the message's beginning.
        """
        number = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(number, 64).decode(errors="replace").strip() or "unknown"
            os.close(number)
            raise HeldError(f"{purpose}: {self.path} is held by process {holder}") from None
        self._number = number
        # Only for people, and for the message above: the lock holds without it.
        with suppress(OSError):
            os.ftruncate(number, 0)
            os.pwrite(number, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self._number is not None:
            with suppress(OSError):
                os.ftruncate(self._number, 0)
            os.close(self._number)
            self._number = None


class _Turn:
    """One lock file, shared or exclusive, never waited for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number: int | None = None

    def take(self, how: int) -> bool:
        if self._number is None:
            self._number = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._number, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def leave(self) -> None:
        if self._number is not None:
            os.close(self._number)
            self._number = None


class Gate:
    """Jobs go through together, pruning goes through alone, and neither starves the other.

    Two files: whoever wants to go through first takes the turnstile. A job passes it only if
    nobody waits there; pruning keeps it while it waits for the jobs inside to leave.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        self.name = name
        self._turnstile = _Turn(folder / f"{name}.turnstile")
        self._busy = _Turn(folder / f"{name}.busy")

    def enter(self) -> bool:
        """A job wants to go through: True if it is inside now, False if it has to try again."""
        try:
            return self._turnstile.take(fcntl.LOCK_SH) and self._busy.take(fcntl.LOCK_SH)
        finally:
            self._turnstile.leave()

    def leave(self) -> None:
        self._busy.leave()

    @contextmanager
    def alone(self, wait: float, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
        """Be inside alone; TurnError if that takes more than ``wait`` seconds."""
        deadline = time.monotonic() + wait
        try:
            for turn in (self._turnstile, self._busy):
                while not turn.take(fcntl.LOCK_EX):
                    if time.monotonic() >= deadline:
                        late = f"jobs or another prune still ran after {wait:g} s"
                        raise TurnError(f"{self.name}: {late}; nothing was done")
                    sleep(POLL)
            yield
        finally:
            self._busy.leave()
            self._turnstile.leave()


class Gates:
    """The gates that one job goes through: its runner's and the engine's."""

    def __init__(self, folder: Path, runner: str) -> None:
        self._gates = (Gate(folder, f"runner-{runner}"), Gate(folder, "engine"))

    def enter(self) -> bool:
        for gate in self._gates:
            if not gate.enter():
                self.leave()
                return False
        return True

    def leave(self) -> None:
        for gate in self._gates:
            gate.leave()


class Turns:
    """So many at the same time on one host, and the others after them."""

    def __init__(self, folder: Path, name: str, count: int) -> None:
        self._paths = [folder / f"{name}-{number}" for number in range(count)]

    @contextmanager
    def one(
        self, seconds: float, wait: Callable[[float], object], enough: Callable[[], bool]
    ) -> Iterator[bool]:
        """Inside, a turn is ours: True. False without one after ``seconds``, as soon as ``enough``, or if there can't be any."""
        turns = [_Turn(path) for path in self._paths]
        try:
            yield self._wait(turns, time.monotonic() + seconds, wait, enough)
        finally:
            for turn in turns:
                turn.leave()

    @staticmethod
    def _wait(
        turns: Sequence[_Turn], deadline: float, wait: Callable[[float], object], enough: Callable[[], bool]
    ) -> bool:
        with suppress(OSError):
            while not any(turn.take(fcntl.LOCK_EX) for turn in turns):
                if enough() or time.monotonic() >= deadline:
                    return False
                wait(POLL)
            return True
        return False


def is_held(path: Path) -> bool:
    """True if any process, in whatever namespace, holds a lock on the existing file ``path``."""
    try:
        number = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False
