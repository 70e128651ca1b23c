# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each task of a run cost, as JSON."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: cost
type: aggregate
short_description: What each task cost, as JSON
description:
  - Writes E(MATRYOSHKA_COST), a JSON list of tasks in their order, with name, action, seconds, and
    how many results were V(ok), V(changed), V(skipped) and V(failed).
"""


class CallbackModule(CallbackBase):
    """Listens only; prints nothing."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "cost"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._tasks: list[dict[str, Any]] = []
        self._begin = time.monotonic()

    def _close(self) -> None:
        now = time.monotonic()
        if self._tasks:
            self._tasks[-1]["seconds"] = now - self._begin
        self._begin = now

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._close()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._close()
        self._tasks.append({"name": task.get_name().strip(), "action": task.action, "seconds": 0.0})

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def _count(self, end: str) -> None:
        if self._tasks:
            self._tasks[-1][end] = self._tasks[-1].get(end, 0) + 1

    def v2_runner_on_ok(self, result: Any) -> None:
        self._count("changed" if result.is_changed() else "ok")

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._count("skipped")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._count("failed")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._close()
        path = os.environ.get("MATRYOSHKA_COST")
        if path:
            Path(path).write_text(json.dumps(self._tasks), encoding="utf-8")
