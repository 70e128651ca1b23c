# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a runner is doing, for people and for checks: one small JSON file, always whole."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matryoshka_runner import SCHEMA
from matryoshka_runner.causes import explain
from matryoshka_runner.files import now, read_json, write_json
from matryoshka_runner.notify import notify

AGAIN = 1.0
"""Seconds between two tries to write a state that couldn't be written."""
STATES = ("preparing", "ready", "running", "cleaning", "draining", "failed", "stopped")


class State:
    """The state file of one runner. Every change is written at once.

    A change that can't be written, as where ``/run`` is full, is told once and written when it can be.
    What outlives a start of the program (``last_job``, ``jobs_done``, ``timings``, ``set_aside``) is
    taken from the file that is there.

    :param say: takes a line for the journal.
    """

    def __init__(
        self, path: Path, name: str, config_sha256: str, say: Callable[[str], None] = lambda _line: None
    ) -> None:
        self._path = path
        self._say = say
        self._unwritten = False
        self._try_at = 0.0
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
            "last_job": _kept(before, "last_job", dict, None),
            "jobs_done": _kept(before, "jobs_done", int, 0),
            "timings": _kept(before, "timings", dict, {}),
            "error": None,
            "set_aside": _kept(before, "set_aside", dict, None),
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
        self._write()
        notify(f"STATUS={self.summary()}")

    def catch_up(self) -> None:
        """Write what couldn't be written, not more often than once in :data:`AGAIN` seconds."""
        if self._unwritten and time.monotonic() >= self._try_at:
            self._write()

    def _write(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            write_json(self._path, self.content, durable=False)
        except OSError as error:
            if not self._unwritten:
                self._say(f"the state can't be written: {explain(error, again=True)}; it is {self.summary()}")
            self._unwritten, self._try_at = True, time.monotonic() + AGAIN
            return
        if self._unwritten:
            self._say("the state can be written again")
        self._unwritten = False

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


def _kept(before: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = before.get(key)
    return value if isinstance(value, kind) else default


def mark_stopped(path: Path) -> None:
    """Say in an existing state file that nothing runs any more; no file, nothing to say."""
    content = read_json(path)
    if isinstance(content, dict) and content.get("state") != "stopped":
        content.update(state="stopped", since=now(), environment=None, next=None, job=None)
        write_json(path, content, durable=False)
