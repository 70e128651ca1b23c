# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a runner holds while it runs; waits where there is no room for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from matryoshka_runner.backoff import Backoff
from matryoshka_runner.causes import explain
from matryoshka_runner.config import Config
from matryoshka_runner.events import Mailbox
from matryoshka_runner.locks import FileLock, Gates
from matryoshka_runner.paths import Paths
from matryoshka_runner.state import State

PAUSES = (1.0, 30.0)
"""First and longest pause between two tries, in seconds, doubled in between."""


def hold(
    config: Config, paths: Paths, state: State, box: Mailbox, say: Callable[[str], None]
) -> tuple[FileLock, Gates] | None:
    """The runner's lock, held, and its gates; None if the runner was told to leave meanwhile.

    Where a full disk or a read-only file system is in the way, the state is ``failed`` and says so
    until it isn't any more. HeldError if another runner has the lock.
    """
    pauses = Backoff(*PAUSES)
    while not box.leaving:
        try:
            config.directory.mkdir(parents=True, exist_ok=True, mode=0o711)
            gates = Gates(paths.gates, config.name)
            lock = FileLock(config.lock)
            lock.acquire(f"runner {config.name} can't start, another one uses its directory")
            return lock, gates
        except OSError as error:
            why = explain(error, again=True)
            say(f"failed: {why}")
            state.change("failed", error=why)
        until = time.monotonic() + pauses.next()
        while not box.leaving and time.monotonic() < until:
            state.catch_up()
            box.wait(min(1.0, until - time.monotonic()))
    state.change("stopped", error=None)
    return None
