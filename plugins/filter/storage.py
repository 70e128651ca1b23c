# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters: from volumes and quotas as a person wrote them to a plan, refused before a host is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.matryoshka.host.plugins.module_utils import _storage_plan
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError


def plan_storage(
    volumes: Sequence[Mapping[str, Any]],
    users: Sequence[Mapping[str, str]] = (),
    runners: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """The plan of every volume; ``users`` are units and the paths they keep their data at."""
    try:
        return _storage_plan.plan_storage(volumes, users, runners)
    except HostError as error:
        raise AnsibleFilterError(str(error)) from error


def plan_storage_quotas(
    quotas: Sequence[Mapping[str, Any]],
    volumes: Sequence[Mapping[str, Any]],
    runners: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Project quotas of the list, and of runners that have a limit of their disk."""
    try:
        return _storage_plan.plan_quotas(quotas, runners, volumes)
    except HostError as error:
        raise AnsibleFilterError(str(error)) from error


def storage_key_files(volumes: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The files with the keys of the named volumes, as module ``config_files`` takes them."""
    return [
        {"path": one["encrypt"]["key_file"], "content": one["encrypt"]["key"], "mode": "0600", "secret": True}
        for one in volumes
        if one["name"] in names and (one.get("encrypt") or {}).get("key")
    ]


class FilterModule:
    """Filters of role storage."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "plan_storage": plan_storage,
            "plan_storage_quotas": plan_storage_quotas,
            "storage_key_files": storage_key_files,
        }
