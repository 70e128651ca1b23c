# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``matryoshka status``: what the host's runners do, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matryoshka_runner import SCHEMA
from matryoshka_runner.errors import ProgramError
from matryoshka_runner.files import now, read_json, seconds_between
from matryoshka_runner.paths import Paths
from matryoshka_runner.verdict import used

COLUMNS = ("RUNNER", "STATE", "FOR", "ENVIRONMENT", "JOB", "LAST JOB", "DONE")


def states(paths: Paths, name: str | None = None) -> list[dict[str, Any]]:
    """The state of every configured runner, and of others that have a state file.

    ``alive`` tells whether the process that wrote it is there.
    """
    names = {path.stem for folder in (paths.configs, paths.states) for path in folder.glob("*.json")}
    if name is not None:
        if name not in names:
            raise ProgramError(
                f"there is no runner {name!r} on this host; there are: {', '.join(sorted(names)) or 'none'}"
            )
        names = {name}
    found = []
    for each in sorted(names):
        state = read_json(paths.state(each))
        if not isinstance(state, dict) or not isinstance(state.get("state"), str):
            state = {"schema": SCHEMA, "runner": each, "pid": None, "state": "stopped", "error": None}
        state.setdefault("runner", each)
        pid = state.get("pid")
        state["alive"] = state.get("state") != "stopped" and pid is not None and Path(f"/proc/{pid}").exists()
        found.append(state)
    return found


def duration(seconds: float) -> str:
    """Seconds as a person says it."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _mapping(state: dict[str, Any], key: str) -> dict[str, Any]:
    value = state.get(key)
    return value if isinstance(value, dict) else {}


def _for(since: Any) -> str:
    """How long it has been so, by the machine's clock; one that was set back gives 0 s."""
    try:
        return duration(max(0.0, seconds_between(since, now())))
    except (AttributeError, TypeError, ValueError):
        return "-"


def notes(state: dict[str, Any], last_job: bool = False) -> Iterator[str]:
    """What a person should know besides the table.

    :param last_job: also how it ended, and what it used.
    """
    if state.get("error"):
        yield str(state["error"])
    aside, last = _mapping(state, "set_aside"), _mapping(state, "last_job")
    if aside:
        yield f"a cache that isn't used again lies in {aside.get('path')}: {aside.get('reason')}"
    if last_job and last.get("reason"):
        yield f"last job {last.get('id')}: {last['reason']}"
    if last_job and isinstance(last.get("usage"), dict) and used(last["usage"]):
        yield f"last job {last.get('id')}: {used(last['usage'])}"


def row(state: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    name = state["state"]
    if name != "stopped" and not state["alive"]:
        name = f"dead (was {name})"
    since = state.get("since")
    last = _mapping(state, "last_job")
    return (
        str(state.get("runner", "-")),
        name,
        _for(since),
        str(_mapping(state, "environment").get("container", "-")),
        str(_mapping(state, "job").get("id", "-")),
        f"{last.get('id')}: {last.get('status')}" if last else "-",
        str(state.get("jobs_done", 0)),
    )


def table(found: Sequence[dict[str, Any]], last_job: bool = False) -> str:
    """All states as aligned columns, what a person should know below."""
    lines = [COLUMNS, *(row(state) for state in found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    texts = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    texts += [f"{state.get('runner')}: {note}" for state in found for note in notes(state, last_job)]
    return "\n".join(texts)


def show(paths: Paths, name: str | None, as_json: bool) -> str:
    """What ``matryoshka status`` prints; of a runner that is asked for by name, more."""
    found = states(paths, name)
    return json.dumps(found, indent=2) if as_json else table(found, name is not None)
