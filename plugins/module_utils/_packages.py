# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages have to change, from what is wanted and what a host has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any


def packages_to_install(wanted: Mapping[str, str], present: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What apt has to be asked for: ``name`` or ``name=version``, in the order of ``wanted``.

    :param wanted: package to version; a version may be exact, a pattern (``26.1.*``) or empty for any.
    :param present: package to ``{"version": …}``, as ``host_info`` returns it.
    """
    return [
        f"{name}={version}" if version else name
        for name, version in wanted.items()
        if name not in present or (version and not fnmatchcase(str(present[name]["version"]), version))
    ]


def holds_to_change(names: Sequence[str], hold: bool, present: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The packages of ``names`` whose hold isn't as wanted; one that isn't there yet isn't held."""
    return [name for name in names if bool(present.get(name, {}).get("hold", False)) != hold]


def merge_ask(ask: Mapping[str, Sequence[str]], *more: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Several lists of questions to a host as one, each question once and in a fixed order."""
    every = (ask, *more)
    return {
        key: sorted({question for one in every for question in one.get(key, ())})
        for key in sorted({key for one in every for key in one})
    }
