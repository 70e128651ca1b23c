# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes as people write them: ``4G``, ``512MiB``, ``1.5g``, or a number of bytes."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
ALLOWED = "a size such as 512M, 4G or 1.5GiB (units are powers of 1024), or a number of bytes"


def parse_size(value: Any, variable: str, minimum: int = 1) -> int:
    """``value`` in bytes. Units are powers of 1024, as in Docker's ``--memory``.

    :raises InputError: if it isn't a size, or is smaller than ``minimum`` bytes.
    """
    found = None if isinstance(value, bool) else _SIZE.match(str(value).strip())
    if not found:
        raise InputError(variable, value, ALLOWED)
    size = int(float(found[1]) * _FACTORS[found[2].lower()])
    if size < minimum:
        raise InputError(variable, value, f"{ALLOWED}, at least {minimum} bytes")
    return size


def show_size(size: int) -> str:
    """Bytes for a person: ``400 GiB``, ``1.5 MiB``, ``512 bytes``."""
    for unit in ("T", "G", "M", "K"):
        factor = _FACTORS[unit.lower()]
        if size >= factor:
            return f"{size / factor:.1f}".removesuffix(".0") + f" {unit}iB"
    return f"{size} bytes"
