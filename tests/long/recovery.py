# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the host: waits until the runners are ready by themselves, has each run a job, says what is left (JSON).

Argument: JSON with ``since`` (monotonic seconds of the kill; 0 for now), ``limit`` (seconds until the runners are
ready), ``hold`` (seconds for which they have to stay so), ``grace`` (seconds until nothing is left), ``runners``,
``probe`` (a job's file), ``whose`` (what the names of this kill's jobs begin with) and ``known`` (complaints of
kills before this one, not waited for again).
Standard library only.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leftovers import leftovers
from victims import classify, processes

ROOT = Path("/var/lib/matryoshka")
QUEUE = ROOT / "queue"
STATES = Path("/run/matryoshka/runners")
TRACE = Path("/srv/kills/trace")
WORK = Path("/var/tmp")


def run(*argv: str, timeout: float = 60) -> str:
    """What a program said on its output; empty if it failed or hung."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout if done.returncode == 0 else ""


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def answers(pid: int) -> bool:
    """Whether the engine that process ``pid`` sees on its socket answers."""
    try:
        with socket.socket(socket.AF_UNIX) as way:
            way.settimeout(2)
            way.connect(f"/proc/{pid}/root/run/docker.sock")
            way.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
            return b" 200 " in way.recv(256)
    except OSError:
        return False


def first_processes() -> dict[str, int]:
    """The first process of each runner's environment; 0 if it has several."""
    found: dict[str, int] = {}
    for victim in classify(processes()):
        if victim.kind == "first process":
            found[victim.runner] = 0 if victim.runner in found else victim.process.pid
    return found


def ready(runner: str, first: Mapping[str, int]) -> str:
    """The environment that is ready; empty unless state, program and inner engine agree."""
    state = read_json(STATES / f"{runner}.json") or {}
    if state.get("state") != "ready" or not Path(f"/proc/{state.get('pid')}").exists():
        return ""
    pid = first.get(runner, 0)
    return str(state["environment"]["container"]) if pid and answers(pid) else ""


def settle(runners: Sequence[str], since: float, limit: float, hold: float) -> dict[str, float]:
    """Seconds from ``since`` until each runner was ready for good; those that aren't are left out."""
    times: dict[str, float] = {}
    names: dict[str, str] = {}
    while True:
        first = first_processes()
        now = time.monotonic()
        for runner in runners:
            name = ready(runner, first)
            if not name:
                times.pop(runner, None)
                names.pop(runner, None)
            elif names.get(runner) != name:
                names[runner], times[runner] = name, now - since
        if len(times) == len(runners) and now - since >= max(times.values()) + hold:
            return times
        if now - since > limit:
            return times
        time.sleep(0.1)


def probe(file: str, runners: Sequence[str]) -> dict[str, int]:
    """Hand a job to every runner; the exit code of each."""
    began = {
        runner: subprocess.Popen(
            ["/usr/local/sbin/matryoshka", "job", file, "--runner", runner],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for runner in runners
    }
    ends = {}
    for runner, process in began.items():
        try:
            ends[runner] = process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            ends[runner] = -1
    return ends


def containers() -> list[dict[str, str]]:
    form = '{{.ID}}\t{{.Names}}\t{{.Label "matryoshka.runner"}}\t{{.State}}'
    keys = ("id", "name", "runner", "state")
    listed = run("docker", "ps", "-a", "--no-trunc", "--format", form).splitlines()
    return [dict(zip(keys, line.split("\t"), strict=True)) for line in listed]


def mount_points() -> list[str]:
    """What is mounted on the host below the folders of runners, of the engine's containers, and of image builds."""
    table = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [line.split(" ")[4] for line in table]
    kept = re.compile(rf"{ROOT}/runners/|/var/lib/docker/.*/merged$|{WORK}/")
    return [point for point in points if kept.match(point)]


def ended_jobs(whose: str) -> list[dict[str, Any]]:
    """Every trace of these jobs in the queue: place, id and result."""
    found = []
    for place, pattern in (("new", "*"), ("claimed", "*/*"), ("done", "*"), ("refused", "*")):
        for path in QUEUE.glob(f"{place}/{pattern}"):
            if whose in path.name or path.name.startswith(".") or place in ("new", "claimed"):
                found.append({"place": place, "id": path.name, "result": read_json(path / "result.json")})
    return found


def look(whose: str) -> dict[str, Any]:
    """All that could have been left, and all that is known of the jobs."""
    victims = classify(processes())
    folders = {
        path.name: sorted(each.name for each in path.iterdir()) for path in (ROOT / "runners").iterdir()
    }
    return {
        "states": {path.stem: read_json(path) for path in STATES.glob("*.json")},
        "containers": containers(),
        "folders": folders,
        "mounts": mount_points(),
        "jobs": ended_jobs(whose),
        "trace": [line for line in TRACE.read_text(encoding="utf-8").splitlines() if whose in line]
        if TRACE.exists()
        else [],
        "processes": [
            {"kind": each.kind, "runner": each.runner, "containers": each.process.containers}
            | {"argv": " ".join(each.process.argv)[:200]}
            for each in victims
        ],
        "engine": run("systemctl", "show", "docker.service", "--property=ActiveState,Result").split(),
        "builds": [path.name for path in WORK.glob("matryoshka-image-*")],
    }


def main() -> None:
    asked: dict[str, Any] = json.loads(sys.argv[1])
    runners, limit = asked["runners"], asked["limit"]
    job = Path("/run") / f"{asked['whose']}-probe"
    shutil.copyfile(asked["probe"], job)
    times = settle(runners, asked["since"] or time.monotonic(), limit, asked["hold"])
    found: dict[str, Any] = {"ready": times, "probes": [], "missing": sorted(set(runners) - set(times))}
    while not found["missing"] and len(found["probes"]) < 2:
        found["probes"].append(probe(str(job), runners))
        again = settle(runners, time.monotonic(), limit, 0.2)
        found["missing"] = sorted(set(runners) - set(again))
        if not any(found["probes"][-1].values()):
            break
    deadline = time.monotonic() + asked["grace"]
    job.unlink()
    left = look(asked["whose"])
    while set(leftovers(left, runners)) - set(asked["known"]) and time.monotonic() < deadline:
        time.sleep(0.5)
        left = look(asked["whose"])
    print(json.dumps(found | {"left": left}))


if __name__ == "__main__":
    main()
