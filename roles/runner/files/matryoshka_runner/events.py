# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can happen to a runner from outside its loop, and the mailbox in which it arrives."""

from __future__ import annotations

import queue
from dataclasses import dataclass


@dataclass(frozen=True)
class Stop:
    """SIGTERM: leave now."""


@dataclass(frozen=True)
class Drain:
    """SIGHUP: leave when the job is done."""


@dataclass(frozen=True)
class EngineReach:
    """The engine stopped answering, or answers again."""

    away: bool


@dataclass(frozen=True)
class EnvironmentEnded:
    """The container of an environment doesn't run any more."""

    environment: str
    how: str


@dataclass(frozen=True)
class JobEnded:
    """A job's program ended, or the way to it broke: then ``exit_code`` is None and ``how`` says why.

    ``thrown`` is how many bytes of its output were over the log's limit; None if that isn't known.
    ``began`` is False only where it is certain that nothing of the job ever ran, nor will.
    """

    environment: str
    exit_code: int | None
    how: str = ""
    thrown: int | None = None
    began: bool = True


Event = Stop | Drain | EngineReach | EnvironmentEnded | JobEnded


class Mailbox:
    """Events from signals and threads, sorted for the loop, which alone calls :meth:`wait`.

    ``put`` may be called from a signal handler: ``queue.SimpleQueue`` allows that.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.stop = False
        self.drain = False
        self.engine_away = False
        self.ended: dict[str, str] = {}
        self.jobs: dict[str, JobEnded] = {}

    @property
    def leaving(self) -> bool:
        return self.stop or self.drain

    def put(self, event: Event) -> None:
        self._queue.put(event)
        if isinstance(event, Stop):
            # Seen at once: who waits for the engine's client doesn't look into the mailbox.
            self.stop = True

    def wait(self, seconds: float) -> bool:
        """Wait for an event at most ``seconds`` and take in all there are; False if there was none."""
        try:
            self._take(self._queue.get(timeout=max(seconds, 0.0)))
            while True:
                self._take(self._queue.get_nowait())
        except queue.Empty:
            pass
        came, self._came = self._came, False
        return came

    _came = False

    def _take(self, event: Event) -> None:
        self._came = True
        if isinstance(event, Drain):
            self.drain = True
        elif isinstance(event, EngineReach):
            self.engine_away = event.away
        elif isinstance(event, EnvironmentEnded):
            self.ended[event.environment] = event.how
        elif isinstance(event, JobEnded):
            self.jobs.setdefault(event.environment, event)

    def forget(self, environment: str) -> None:
        """Drop what is known of an environment that is gone."""
        self.ended.pop(environment, None)
        self.jobs.pop(environment, None)
