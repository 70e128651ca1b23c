# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One line a task, with its seconds; and a record of the whole run as JSON for other programs."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: brief
type: stdout
short_description: One line a task, with its seconds
description:
  - Prints one line for each task that changed something or took long, and what went wrong in full.
  - Writes E(MATRYOSHKA_RECORD), a JSON file of seconds, counts, and what the module C(verify) returned, by host.
options:
  show_custom_stats:
    description: Not used; every callback for standard output has it.
    type: bool
    default: false
    ini:
      - section: defaults
        key: show_custom_stats
"""

KEPT = ("tree", "runners", "report", "findings", "seconds")


class CallbackModule(CallbackBase):
    """Prints to standard output; on a terminal, the task at work is shown, too."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "brief"

    def __init__(self) -> None:
        super().__init__()
        self._begin = time.monotonic()
        self._task_begin = self._begin
        self._task: str | None = None
        self._ends: list[str] = []
        self._terminal = sys.stdout.isatty()
        self._verified: dict[str, dict[str, Any]] = {}

    def _close(self) -> None:
        """End the present task's line."""
        if self._task is None:
            return
        ends = sorted(set(self._ends)) or ["skipped"]
        seconds = time.monotonic() - self._task_begin
        quiet = ends in (["ok"], ["skipped"], ["ok", "skipped"]) and seconds < 3
        if self._terminal:
            sys.stdout.write("\r\033[K")
        if not quiet:
            print(f"  {', '.join(ends):<9}{seconds:5.1f} s  {self._task}", flush=True)
        self._task = None

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._close()
        print(play.get_name().strip(), flush=True)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._close()
        self._task, self._ends, self._task_begin = task.get_name().strip(), [], time.monotonic()
        if self._terminal:
            sys.stdout.write(f"  ...  {self._task}")
            sys.stdout.flush()

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_cleanup_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_ok(self, result: Any) -> None:
        values = result.result if hasattr(result, "result") else result._result
        self._ends.append("changed" if values.get("changed") else "ok")
        if isinstance(values.get("tree"), list):
            self._verified[_host(result)] = {key: values[key] for key in KEPT if key in values}

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._ends.append("skipped")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._fail("ignored" if ignore_errors else "failed", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._fail("unreachable", result)

    def _fail(self, end: str, result: Any) -> None:
        values = result.result if hasattr(result, "result") else result._result
        self._ends.append(end)
        task = self._task
        self._close()
        said = values.get("msg") or values.get("stderr") or values.get("stdout") or values
        lines = said if isinstance(said, list) else str(said).splitlines()
        print(f"    {_host(result)}:")
        for line in lines:
            print(f"      {line}")
        for line in str(values.get("stderr") or "").splitlines()[-20:]:
            print(f"      {line}")
        self._task, self._task_begin = task if end == "ignored" else None, time.monotonic()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._close()
        hosts = {}
        for name in sorted(stats.processed):
            hosts[name] = {**stats.summarize(name), **self._verified.get(name, {})}
            counts = ", ".join(f"{stats.summarize(name)[key]} {key}" for key in ("ok", "changed", "failures"))
            print(f"{name}: {counts}, in {time.monotonic() - self._begin:.0f} s", flush=True)
        record = os.environ.get("MATRYOSHKA_RECORD")
        if record:
            text = json.dumps({"seconds": time.monotonic() - self._begin, "hosts": hosts}, indent=2)
            Path(record).write_text(text + "\n", encoding="utf-8")


def _host(result: Any) -> str:
    host = result.host if hasattr(result, "host") else result._host
    return str(host.get_name())
