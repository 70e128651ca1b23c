# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters: what to ask a host about, and what its answer means for packages."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.matryoshka.host.plugins.module_utils import _packages


class FilterModule:
    """Filters of the collection that are about packages and questions to a host."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "packages_to_install": _packages.packages_to_install,
            "holds_to_change": _packages.holds_to_change,
            "merge_ask": _packages.merge_ask,
        }
