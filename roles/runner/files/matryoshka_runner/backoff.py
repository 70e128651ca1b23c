# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long to wait before something is tried again."""

from __future__ import annotations


class Backoff:
    """Pauses that grow from ``first`` to ``longest`` seconds."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest, self._next = first, longest, first

    def next(self) -> float:
        pause, self._next = self._next, min(max(2 * self._next, 1.0), self._longest)
        return pause

    def reset(self) -> None:
        self._next = self._first
