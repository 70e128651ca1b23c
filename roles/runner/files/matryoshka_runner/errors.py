# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program's errors. Each carries the exit code that it ends the program with."""

from __future__ import annotations

from typing import Any

EXIT_FAILED = 1
EXIT_REFUSED = 65
"""``EX_DATAERR``: the job or the configuration isn't acceptable."""
EXIT_TRY_LATER = 75
"""``EX_TEMPFAIL``: cut off, held by another process, or no turn within the time allowed."""


class ProgramError(Exception):
    """Something a person can act on; the message says what it is."""

    code = EXIT_FAILED


class ConfigError(ProgramError):
    """A configuration file is refused: names the file, the key, the value and what is allowed."""

    code = EXIT_REFUSED

    def __init__(self, path: object, key: str, value: Any, allowed: str) -> None:
        super().__init__(f"{path}: {key}: {value!r} is refused; allowed: {allowed}")
        self.key = key


class HeldError(ProgramError):
    """Another live process holds what is needed."""

    code = EXIT_TRY_LATER


class TurnError(ProgramError):
    """A turn didn't come within the time allowed."""

    code = EXIT_TRY_LATER


class EngineError(ProgramError):
    """The engine refused, failed, or can't be reached."""


class EngineUnavailable(EngineError):
    """The engine doesn't answer at all."""


class EnvironmentFailed(ProgramError):
    """An environment ended before it was ready, or wasn't ready in time."""
