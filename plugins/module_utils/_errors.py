# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors that the collection's own code raises; modules turn them into ``fail_json``."""

from __future__ import annotations

from typing import Any


class HostError(Exception):
    """Something on the host isn't as needed. The message says what, and what to do about it."""


class InputError(HostError):
    """A value that a person gave is refused.

    The message always names the variable, the value and what is allowed, so that it
    can be acted on without reading any code.
    """

    def __init__(self, variable: str, value: Any, allowed: str) -> None:
        super().__init__(f"{variable}: {value!r} is refused; allowed: {allowed}")
        self.variable = variable
        self.value = value
        self.allowed = allowed
