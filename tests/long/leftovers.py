# SPDX-License-Identifier: GPL-3.0-or-later
"""What may not be left on a host whose runners are ready: pure, from what ``recovery.py`` has seen.

Runs on the host too: standard library only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

ONE_EACH = ("host dockerd", "host containerd", "journald", "sshd", "logind", "message bus")
SET_ASIDE = "data-untrusted-"
"""Beginning of the name of a data root that the runner doesn't trust any more, and says so in its state."""
MARK = "data.mark"
"""Says beside a data root that outlives its environments whether it can be trusted."""
GONE_BY_NOW = (
    "mmdebstrap",
    "module",
    "module's child",
    "prune",
    "prune's docker client",
    "cleanup",
    "submitter",
)


def leftovers(left: Mapping[str, Any], runners: Sequence[str]) -> list[str]:
    """Complaints, one a thing."""
    found = of_containers(left, runners) + of_processes(left, runners)
    for runner in runners:
        found += of_folder(left, runner)
    running = sum(each["state"] == "running" for each in left["containers"])
    merged = [point for point in left["mounts"] if point.endswith("/merged")]
    if len(merged) != running:
        found.append(f"{len(merged)} root file systems of containers are mounted, {running} containers run")
    found += [f"{point} is mounted on the host" for point in left["mounts"] if point not in merged]
    found += [f"{name} of an image build is left in /var/tmp" for name in left["builds"]]
    return found


def environments(left: Mapping[str, Any], runner: str) -> dict[str, str]:
    """Names of the containers that a runner's state file tells of, and the state each has to be in."""
    state = left["states"].get(runner) or {}
    wanted = {"environment": "running", "next": "created"}
    return {state[key]["container"]: how for key, how in wanted.items() if state.get(key)}


def of_containers(left: Mapping[str, Any], runners: Sequence[str]) -> list[str]:
    """One environment and at most one spare a runner, nothing else."""
    known = {name: how for runner in runners for name, how in environments(left, runner).items()}
    found = []
    for each in left["containers"]:
        if known.get(each["name"]) != each["state"]:
            found.append(f"container {each['name']} is {each['state']}; the runners know {known}")
    there = {each["name"] for each in left["containers"]}
    return found + [f"container {name} isn't there" for name in known if name not in there]


def of_folder(left: Mapping[str, Any], runner: str) -> list[str]:
    """The data roots of the runner's environments, and those that it has set aside and named."""
    state = left["states"].get(runner) or {}
    wanted = {"lock", ".matryoshka"}
    for key in ("environment", "next"):
        if state.get(key):
            wanted |= {"data", f"data-{state[key]['id']}"}
    folder = left["folders"].get(runner, [])
    if "data" in folder:
        wanted.add(MARK)
    named = str(state.get("set_aside") or "")
    found = []
    for name in folder:
        if name in wanted or (name.startswith(SET_ASIDE) and name in named):
            continue
        if name.startswith("data"):
            found.append(f"data root {runner}/{name} is left")
    return found


def of_processes(left: Mapping[str, Any], runners: Sequence[str]) -> list[str]:
    """No process of a container that is gone, no program twice."""
    running = {each["id"] for each in left["containers"] if each["state"] == "running"}
    found = []
    for each in left["processes"]:
        if each["containers"] and each["containers"][0] not in running:
            found.append(f"a process of a container that is gone: {each['argv']}")
        if each["kind"] in GONE_BY_NOW:
            found.append(f"{each['kind']} still runs: {each['argv']}")
    kinds = Counter(each["kind"] for each in left["processes"])
    found += [f"{kinds[kind]} processes are {kind}" for kind in ONE_EACH if kinds[kind] != 1]
    programs = Counter(each["runner"] for each in left["processes"] if each["kind"] == "runner program")
    found += [f"runner {name} has {programs[name]} programs" for name in runners if programs[name] != 1]
    shims = kinds["environment's shim"]
    if shims != len(running):
        found.append(f"{shims} shims serve {len(running)} containers")
    return found
