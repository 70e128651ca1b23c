# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters: from limits that a person wrote to slices, refused before a host is changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.matryoshka.host.plugins.module_utils import _limits_plan
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError


def plan_limits(
    runners: Sequence[Mapping[str, Any]],
    defaults: Mapping[str, Any],
    options: Mapping[str, Any],
    plan: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    data_root: str | None = None,
    volumes: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The slice of all of CI, and below it one for each runner."""
    try:
        return _limits_plan.plan_limits(
            runners, defaults, options, plan, facts, data_root=data_root, volumes=volumes
        )
    except HostError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters for limits."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"plan_limits": plan_limits, "slice_units": _limits_plan.slice_units}
