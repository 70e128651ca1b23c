# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the first processes of containers, also of those in containers, as the host knows them.

A container of an inner engine is named with its outer one, ``ci-1/build``. Its engine knows it by
a process id of its own namespace; the host's is the one of ``ci-1``'s descendants that has that
id there (``NSpid`` in ``/proc/<pid>/status``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import Ask, NoAnswer

INNER_SOCKET = "/run/docker.sock"
#: Seconds for an answer of a daemon: one that hangs mustn't hold up the rest.
PATIENCE = 3.0


@dataclass(frozen=True)
class Process:
    """A container's first process; its id is 0 if the container isn't running."""

    pid: int
    paused: bool = False


def outer_of(name: str) -> str:
    """The container that a container is in; empty for one of the host's."""
    return name.rpartition("/")[0]


def with_outer(names: Sequence[str]) -> list[str]:
    """``names`` and the containers that they are in, the outermost first."""
    found = []
    for name in names:
        parts = name.split("/")
        found += ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    return list(dict.fromkeys(found))


def container_processes(
    run: Runner, ask: Ask, socket: str | None, names: Sequence[str], everything: bool, view: View
) -> dict[str, Process]:
    """The first process of each container. A container that isn't there is left out.

    :param socket: of the host's Docker; None if it isn't to be asked.
    :param everything: all running containers of the host too.
    """
    wanted = with_outer(names)
    found = _of_the_host(run, ask, socket, [name for name in wanted if not outer_of(name)], everything)
    for name in wanted:
        outer = found.get(outer_of(name))
        if outer and outer.pid and not outer.paused:
            inner = _inner(ask, view, outer.pid, name.rpartition("/")[2])
            if inner:
                found[name] = inner
    return found


def _inner(ask: Ask, view: View, outer: int, name: str) -> Process | None:
    """A container of the engine inside the container whose first process is ``outer``."""
    try:
        state = _state(ask, INNER_SOCKET, name, f"/proc/{outer}/root")
    except NoAnswer:
        return None
    if state is None:
        return None
    pid = int(state.get("Pid") or 0)
    return Process(host_pid(view, outer, pid) if pid else 0, bool(state.get("Paused")))


def host_pid(view: View, outer: int, pid: int) -> int:
    """The process that ``outer``, the first of its namespace, and its children know as ``pid``; 0 if there is none."""
    level = len(_numbers(view, outer)) - 1
    for name in view.names("/proc"):
        if name.isdigit():
            numbers = _numbers(view, int(name))
            if (
                level >= 0
                and len(numbers) > level
                and numbers[level] == pid
                and outer in _parents(view, int(name))
            ):
                return int(name)
    return 0


def _status(view: View, pid: int, field: str) -> list[int]:
    for line in (view.text(f"/proc/{pid}/status") or "").splitlines():
        if line.startswith(f"{field}:"):
            return [int(word) for word in line.split()[1:] if word.isdigit()]
    return []


def _numbers(view: View, pid: int) -> list[int]:
    return _status(view, pid, "NSpid")


def _parents(view: View, pid: int) -> Iterator[int]:
    """The processes above, up to the first; a chain that changes meanwhile ends somewhere."""
    for _step in range(1000):
        above = _status(view, pid, "PPid")
        if not above or above[0] == 0:
            return
        pid = above[0]
        yield pid


def _of_the_host(
    run: Runner, ask: Ask, socket: str | None, names: Sequence[str], everything: bool
) -> dict[str, Process]:
    found: dict[str, Process] = {}
    try:
        wanted = [*names, *(_running(ask, socket) if everything and socket else [])]
        for name in dict.fromkeys(wanted) if socket else []:
            state = _state(ask, str(socket), name)
            if state is not None:
                found[name] = Process(int(state.get("Pid") or 0), bool(state.get("Paused")))
    except NoAnswer:
        found = {}
    missing = [name for name in names if name not in found]
    if missing or everything:
        found = _podman_processes(run, missing, everything) | found
    return found


def _running(ask: Ask, socket: str) -> list[str]:
    return [str(one["Names"][0]).lstrip("/") for one in ask(socket, "/containers/json") if one.get("Names")]


def _state(ask: Ask, socket: str, name: str, root: str = "/") -> Mapping[str, Any] | None:
    try:
        return ask(socket, f"/containers/{name}/json", root=root, timeout=PATIENCE).get("State") or {}
    except NoAnswer as error:
        if error.status is None:
            raise
        return None


def _podman_processes(run: Runner, names: Sequence[str], everything: bool) -> dict[str, Process]:
    template = "{{.Names}} {{.Pid}}"
    result = run(["podman", "ps", "--all", "--no-trunc", "--format", template], check=False, timeout=20.0)
    found = {}
    for line in result.out.splitlines() if result.ok else []:
        name, separator, pid = line.strip().rpartition(" ")
        if separator and pid.isdigit() and (name in names or (everything and int(pid))):
            found[name] = Process(int(pid))
    return found
