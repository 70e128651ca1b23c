# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuses options that aren't known."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError


def check_options(given: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    """Refuse a key of ``given``, the variable ``where``, that is none of ``known``.

    :raises InputError: naming the key, all that are known, and one that may be meant.
    """
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"{where}.{key}", given[key], "one of " + ", ".join(known) + hint)
