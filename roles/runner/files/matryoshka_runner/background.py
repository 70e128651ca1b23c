# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that nobody waits for: done one after another by one thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from matryoshka_runner.causes import explain

Task = Callable[[], None]


class Background:
    """Runs tasks in the order they were given.

    :param say: takes the message of a task that failed; :attr:`failed` remembers that one did.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.failed = False

    def do(self, task: Task) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="background", daemon=True)
            self._thread.start()
        self._tasks.put(task)

    def finish(self, seconds: float = 600.0) -> bool:
        """Wait until all that was given is done; False if that took too long."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._tasks.put(done.set)
        return done.wait(seconds)

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            try:
                task()
            except Exception as error:
                self.failed = True
                self._say(f"left for later: {explain(error)}")
