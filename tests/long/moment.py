# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the host: waits for a moment, kills one process, prints what it did (JSON).

Argument: JSON with the fields of :class:`Wanted`. Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from victims import Victim, classify, pick, processes, read

TRACE = Path("/srv/kills/trace")
STATES = Path("/run/matryoshka/runners")
PATIENCE = 4.0
"""Seconds that a victim is waited for once the moment is there."""
GLANCE = 0.005
"""Seconds between two looks."""


@dataclass(frozen=True)
class Wanted:
    """Whom to kill, and when.

    :param states: the moment comes when the runner is in one of these states; empty: any.
    :param event: and when the job whose name holds ``job`` has left this in its trace; empty: at once.
    :param presence: and when a process of one of these kinds is there; empty: at once.
    :param delay: seconds from that moment on.
    :param wait: seconds that the moment is waited for.
    """

    kinds: list[str]
    runner: str
    choice: float
    states: list[str]
    event: str
    job: str
    presence: list[str]
    delay: float
    wait: float


def state(runner: str) -> str:
    try:
        return str(json.loads((STATES / f"{runner}.json").read_text(encoding="utf-8"))["state"])
    except (OSError, ValueError, KeyError):
        return ""


def has_happened(event: str, job: str) -> bool:
    """Whether a job has left ``event`` in its trace."""
    try:
        lines = TRACE.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(line.startswith(f"{event} ") and job in line for line in lines)


def has_come(wanted: Wanted) -> bool:
    """Whether the moment is there."""
    if wanted.states and state(wanted.runner) not in wanted.states:
        return False
    if wanted.event and not has_happened(wanted.event, wanted.job):
        return False
    if wanted.presence:
        return any(each.kind in wanted.presence for each in classify(processes(), os.getpid()))
    return True


def kill(victim: Victim) -> bool:
    """Kill this very process and no later one of its number; False if it had ended already."""
    try:
        handle = os.pidfd_open(victim.process.pid)
    except ProcessLookupError:
        return False
    try:
        now = read(Path(f"/proc/{victim.process.pid}"))
        if now is None or now.started != victim.process.started:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def act(wanted: Wanted) -> dict[str, Any]:
    """What was killed; an empty ``kind`` if the moment or the victim didn't come in time."""
    deadline = time.monotonic() + wanted.wait
    while not has_come(wanted):
        if time.monotonic() > deadline:
            return {"kind": "", "seen": f"the moment didn't come within {wanted.wait:g} s"}
        time.sleep(GLANCE)
    time.sleep(wanted.delay)
    deadline = time.monotonic() + PATIENCE
    kinds: set[str] = set()
    while time.monotonic() < deadline:
        there = classify(processes(), os.getpid())
        kinds |= {each.kind for each in there if each.runner in (wanted.runner, "")}
        victim = pick(there, wanted.kinds, wanted.runner, wanted.choice)
        if victim is not None and kill(victim):
            return {
                "kind": victim.kind,
                "runner": victim.runner,
                "pid": victim.process.pid,
                "argv": " ".join(victim.process.argv)[:160],
                "state": state(wanted.runner),
                "monotonic": time.monotonic(),
                "time": time.time(),
            }
        time.sleep(GLANCE)
    return {"kind": "", "seen": f"no {' or '.join(wanted.kinds)}; there were: {', '.join(sorted(kinds))}"}


def main() -> None:
    print(json.dumps(act(Wanted(**json.loads(sys.argv[1])))))


if __name__ == "__main__":
    main()
