# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a runner is doing, for people and for checks: one small JSON file, always whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from matryoshka_runner import SCHEMA
from matryoshka_runner.files import now, read_json, write_json
from matryoshka_runner.notify import notify

STATES = ("preparing", "ready", "running", "cleaning", "draining", "failed", "stopped")


class State:
    """The state file of one runner. Every change is written at once.

    What outlives a start of the program (``last_job``, ``jobs_done``, ``timings``) is taken
    from the file that is there.
    """

    def __init__(self, path: Path, name: str, config_sha256: str) -> None:
        self._path = path
        before = read_json(path)
        if not isinstance(before, dict):
            before = {}
        self.content: dict[str, Any] = {
            "schema": SCHEMA,
            "runner": name,
            "pid": os.getpid(),
            "state": "preparing",
            "since": now(),
            "config_sha256": config_sha256,
            "environment": None,
            "next": None,
            "job": None,
            "last_job": before.get("last_job"),
            "jobs_done": before.get("jobs_done") or 0,
            "timings": before.get("timings") or {},
            "error": None,
        }

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def change(self, state: str | None = None, **values: Any) -> None:
        """Set the state's name and other keys, write them, and tell systemd."""
        if state is not None:
            if state not in STATES:
                raise ValueError(f"{state!r} is none of {', '.join(STATES)}")
            if state != self.content["state"]:
                self.content["since"] = now()
            self.content["state"] = state
        for key, value in values.items():
            if key not in self.content:
                raise KeyError(key)
            self.content[key] = value
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        write_json(self._path, self.content, durable=False)
        notify(f"STATUS={self.summary()}")

    def summary(self) -> str:
        """One line for ``systemctl status``."""
        text = str(self.content["state"])
        if self.content["job"]:
            text += f", job {self.content['job']['id']}"
        if self.content["environment"]:
            text += f", environment {self.content['environment']['container']}"
        if self.content["error"]:
            text += f": {self.content['error']}"
        return " ".join(text.split())


def mark_stopped(path: Path) -> None:
    """Say in an existing state file that nothing runs any more; no file, nothing to say."""
    content = read_json(path)
    if isinstance(content, dict) and content.get("state") != "stopped":
        content.update(state="stopped", since=now(), environment=None, next=None, job=None)
        write_json(path, content, durable=False)
