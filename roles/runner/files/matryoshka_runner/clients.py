# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the clients of the engine, and waits for none of them, nor for an answer, in vain when the runner has to leave.

systemd stops the runners before it starts an engine that died, and holds the engine's socket open
meanwhile: a client that isn't ended waits for the engine, and the engine for the runner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import inf

from matryoshka_runner import process

GRACE = 5.0
"""Seconds that a client which was under way has to end by itself once the runner leaves."""
ASK = 1.0
"""Seconds between two questions to the engine while the runner leaves."""
SILENT = "the engine on the host doesn't answer"


class Clients:
    """A :class:`process.Run` for the engine's clients.

    :param leaving: whether the runner was told to leave; may change at any time.
    :param answers: asks the engine, with a short time limit of its own.
    """

    def __init__(self, leaving: Callable[[], bool], answers: Callable[[], bool]) -> None:
        self._leaving = leaving
        self._answers = answers

    def __call__(
        self, argv: Sequence[str], *, timeout: float = 60.0, enough: process.Enough | None = None
    ) -> process.Result:
        watch = self.watch()
        return process.run(argv, timeout=timeout, enough=lambda: watch() or (enough() if enough else ""))

    def watch(self) -> process.Enough:
        """Asked again and again while the engine is waited for: why it isn't any longer, empty if it is."""
        until, ask_at = inf if self._leaving() else 0.0, 0.0

        def enough() -> str:
            nonlocal until, ask_at
            if not self._leaving():
                return ""
            until = until or time.monotonic() + GRACE
            if time.monotonic() >= until:
                return f"no end within {GRACE:g} s after the runner was told to leave"
            if time.monotonic() >= ask_at:
                if not self._answers():
                    return SILENT
                ask_at = time.monotonic() + ASK
            return ""

        return enough
