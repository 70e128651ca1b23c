# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts probes of overlayfs on a host and kills parts of them at random moments; prints what is left.

Input: JSON list of the probe's program, the directories it probes, how often, and what names of scratch
directories begin with. Output: JSON: ``seen`` (how often each kind of kill met a living process), ``dirty``
(scratch directories left), ``running`` (processes left), ``stale`` and ``after_all`` (scratch directories before
and after a kill of everything, the guard first).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

KINDS = ("first", "one", "all but guard", "terminate")


def below(pid: int) -> list[int]:
    """Descendants of a process, oldest children first."""
    parents: dict[int, list[int]] = {}
    for name in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(name))
    found: list[int] = []
    todo = [pid]
    while todo:
        more = parents.get(todo.pop(), [])
        found += more
        todo += more
    return found


def kill(pid: int, number: int = signal.SIGKILL) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)


def start(program: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if process.stdin is None:
        raise SystemExit("the probe has no standard input")
    process.stdin.write(program.encode())
    process.stdin.close()
    return process


def main(program: str, paths: Sequence[str], rounds: int, prefix: str) -> dict[str, object]:
    chance = random.Random(4)

    def left() -> list[str]:
        return [
            os.path.join(path, name) for path in paths for name in os.listdir(path) if name.startswith(prefix)
        ]

    def quiet(processes: Sequence[str]) -> bool:
        return not left() and not any(map(os.path.exists, processes))

    seen = dict.fromkeys(KINDS, 0)
    dirty: list[str] = []
    running = 0
    for turn in range(rounds):
        process = start(program)
        until(lambda: bool(left()), 10)
        time.sleep(chance.uniform(0, 0.1))
        family = below(process.pid)
        others = family[1:]  # the first child is the guard
        kind = KINDS[turn % len(KINDS)]
        if kind == "terminate":
            hits = [kill(process.pid, signal.SIGTERM)]
        else:
            victims = {
                "first": [process.pid],
                "one": [chance.choice(others)] if others else [],
                "all but guard": [process.pid, *others],
            }[kind]
            hits = [kill(pid) for pid in victims]
        seen[kind] += any(hits)
        process.wait()
        alive = [f"/proc/{pid}" for pid in family]
        until(partial(quiet, alive), 5)
        dirty += left()
        running += sum(map(os.path.exists, alive))
    process = start(program)
    until(lambda: bool(left()), 10)
    time.sleep(0.02)
    stale = left()
    family = below(process.pid)
    for pid in (*family[:1], process.pid, *family[1:]):
        kill(pid)
    process.wait()
    time.sleep(0.3)
    return {"seen": seen, "dirty": dirty, "running": running, "stale": stale, "after_all": left()}


if __name__ == "__main__":
    print(json.dumps(main(*json.loads(sys.stdin.read()))))
