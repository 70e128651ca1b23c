# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers a task from what ``pending_changes`` was told a moment ago about the very same call.

``meta/runtime.yml`` sends the modules that can be asked through here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action.normal import ActionModule as Normal

COLLECTION = "matryoshka.host."
ASKER = "pending_changes"
REGISTERED = "__preflight_pending"
ROLE = "matryoshka.host.preflight"


def digest(module: str, arguments: Mapping[str, Any]) -> str:
    """A call's name: equal only for the same module with the same arguments."""
    text = json.dumps([module.removeprefix(COLLECTION), arguments], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class ActionModule(Normal):  # type: ignore[misc]
    """As a module without an action plugin, unless the answer is known."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        variables = task_vars or {}
        module = str(self._task.action).rpartition(".")[2]
        if module != ASKER:
            known = self._known(module, variables)
            return dict(known) if known is not None else super().run(tmp, task_vars)
        calls = self._task.args.get("calls")
        result = super().run(tmp, task_vars)
        if result.get("results") is not None:
            digests = [digest(call["module"], call["arguments"]) for call in calls]
            result["answers"] = dict(zip(digests, result.pop("results"), strict=True))
        return dict(result)

    def _known(self, module: str, variables: Mapping[str, Any]) -> Mapping[str, Any] | None:
        registered = variables.get(REGISTERED)
        roles = variables.get("ansible_play_role_names", [])
        # In another play or on another host the answer is about something else, and somebody
        # else's role may have changed what was seen.
        if (
            not isinstance(registered, Mapping)
            or ROLE not in roles
            or not all(role.startswith(COLLECTION) for role in roles)
            or self._task.delegate_to
        ):
            return None
        answers = registered.get("answers")
        if not isinstance(answers, Mapping):
            return None
        found = answers.get(digest(module, self._task.args))
        return found if isinstance(found, Mapping) else None
