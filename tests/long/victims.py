# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds processes by what they are: program, command line, cgroup, PID namespaces. See proc(5).

Runs on the host too: standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CONTAINER = re.compile(r"/(?:docker[/-])?([0-9a-f]{64})(?:\.scope)?(?![^/])")
"""A container in a cgroup's path, of either cgroup driver, in a slice or not; a nested one comes behind its environment."""
RUNNER_UNIT = re.compile(r"/matryoshka-runner@([a-z0-9-]+)\.service")
SERVICES = {
    "systemd-journald": "journald",
    "systemd-logind": "logind",
    "dbus-daemon": "message bus",
}


@dataclass(frozen=True)
class Process:
    """One process, as ``/proc`` tells of it.

    :param started: clock ticks from boot to its start; with ``pid`` its identity.
    :param cgroup: path in systemd's hierarchy, or in the unified one.
    :param namespaces: how many PID namespaces, the host's included, see it.
    :param first: whether it is the first of its innermost PID namespace.
    :param runner: the runner named in its environment variables; empty if none is.
    """

    pid: int
    parent: int
    started: int
    program: str
    argv: tuple[str, ...]
    cgroup: str
    namespaces: int = 1
    first: bool = False
    runner: str = ""

    @property
    def containers(self) -> list[str]:
        """Ids of the containers it is in, the outermost first."""
        return CONTAINER.findall(self.cgroup)


@dataclass(frozen=True)
class Victim:
    """A process of a known kind, and the runner that it works for; empty if it works for all."""

    process: Process
    kind: str
    runner: str


def parse_stat(text: str) -> tuple[int, int]:
    """Parent and start time from ``/proc/PID/stat``; the name in brackets may hold anything."""
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), int(fields[19])


def parse_cgroup(text: str) -> str:
    """The path in systemd's hierarchy; without one, that in the unified hierarchy."""
    paths = {}
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        paths["unified" if number == "0" else controllers] = path
    return paths.get("name=systemd", paths.get("unified", ""))


def parse_levels(status: str) -> tuple[int, bool]:
    """How many PID namespaces see a process, and whether it is the first of the innermost."""
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            numbers = line.split()[1:]
            return len(numbers), len(numbers) > 1 and numbers[-1] == "1"
    return 1, False


def words(raw: bytes) -> tuple[str, ...]:
    """The strings of a list that ends each with a zero byte."""
    return tuple(part.decode(errors="replace") for part in raw.split(b"\0")[:-1])


def read(folder: Path) -> Process | None:
    """The process of a folder of ``/proc``; None if it ended meanwhile, or is a kernel's thread or a zombie."""
    try:
        argv = words((folder / "cmdline").read_bytes())
        if not argv:
            return None
        parent, started = parse_stat((folder / "stat").read_text(errors="replace"))
        namespaces, first = parse_levels((folder / "status").read_text(errors="replace"))
        variables = words((folder / "environ").read_bytes())
        marker = "MATRYOSHKA_RUNNER="
        return Process(
            int(folder.name),
            parent,
            started,
            str((folder / "exe").readlink()).removesuffix(" (deleted)"),
            argv,
            parse_cgroup((folder / "cgroup").read_text(errors="replace")),
            namespaces,
            first,
            next((each.removeprefix(marker) for each in variables if each.startswith(marker)), ""),
        )
    except (OSError, ValueError, IndexError):
        return None


def processes(proc: Path = Path("/proc")) -> dict[int, Process]:
    """All processes by their number."""
    found = (read(folder) for folder in proc.iterdir() if folder.name.isdigit())
    return {process.pid: process for process in found if process is not None}


def ancestors(pid: int, table: Mapping[int, Process]) -> list[Process]:
    """A process's parents, the nearest first."""
    found: list[Process] = []
    while (process := table.get(pid)) is not None and process.parent in table and len(found) < len(table):
        pid = process.parent
        found.append(table[pid])
    return found


def matryoshka_command(process: Process) -> str:
    """The command of the host's program that a process carries out; empty if it is another program."""
    for place, word in enumerate(process.argv[:-1]):
        if word == "/usr/local/sbin/matryoshka" and place <= 1:
            return process.argv[place + 1]
    return ""


def is_module(process: Process) -> bool:
    """Whether it is an Ansible module that came through a pipe."""
    python = re.fullmatch(r"python3[.0-9]*", Path(process.program).name) is not None
    return python and len(process.argv) == 1 and not process.containers


def in_environment(process: Process) -> str:
    """The kind of a process in a job environment."""
    name = Path(process.program).name
    if len(process.containers) > 1:
        return "job's container"
    if process.first and process.namespaces == 2:
        return "first process"
    if name in ("dockerd", "containerd"):
        return f"inner {name}"
    if name.startswith("containerd-shim"):
        return "inner shim"
    if name == "docker":
        return "job's docker client"
    if "/usr/local/sbin/environment-start" in process.argv[:2]:
        return "environment-start"
    if process.argv[-1] == "/job/script":
        return "job's wrapper" if "-c" in process.argv[:2] else "job's script"
    return "other in the environment"


def on_the_host(process: Process, table: Mapping[int, Process]) -> str:
    """The kind of a process on the host itself."""
    name = Path(process.program).name
    command = matryoshka_command(process)
    if command:
        return {"run": "runner program", "job": "submitter"}.get(command, command)
    if name in ("dockerd", "containerd"):
        return f"host {name}"
    if name.startswith("containerd-shim"):
        return "environment's shim"
    if name in SERVICES:
        return SERVICES[name]
    if name == "sshd" and "[listener]" in process.argv[0]:
        return "sshd"
    if name in ("sshd", "sshd-session"):
        return "sshd session"
    above = ancestors(process.pid, table)
    if name == "docker":
        if RUNNER_UNIT.search(process.cgroup):
            return "runner's docker exec" if "exec" in process.argv else "runner's docker client"
        if any(matryoshka_command(each) == "prune" for each in above):
            return "prune's docker client"
    if is_module(process):
        return "module"
    if any("mmdebstrap" in word for each in (process, *above) for word in each.argv[:2]):
        return "mmdebstrap"
    if any(is_module(each) for each in above):
        return "module's child"
    return "other on the host"


def classify(table: Mapping[int, Process], own: int = 0) -> list[Victim]:
    """All processes that may be killed, by kind.

    :param own: a process that is left alone, with its session; the first process of the host is too.
    """
    above = [each for each in ancestors(own, table) if on_the_host(each, table) != "sshd"]
    spared = {1, own, *(process.pid for process in above)}
    runners = {
        process.containers[0]: process.runner
        for process in table.values()
        if process.containers and process.runner
    }
    found = []
    for process in table.values():
        if process.pid in spared:
            continue
        if process.containers:
            kind, runner = in_environment(process), runners.get(process.containers[0], "")
        else:
            kind, runner = on_the_host(process, table), ""
            unit = RUNNER_UNIT.search(process.cgroup)
            if unit:
                runner = unit[1]
            elif kind == "environment's shim":
                runner = next((runners[word] for word in process.argv if word in runners), "")
        found.append(Victim(process, kind, runner))
    return found


def pick(victims: Iterable[Victim], kinds: Sequence[str], runner: str, choice: float) -> Victim | None:
    """One victim of the wanted kinds, of ``runner`` or of nobody; None if there is none.

    :param choice: from 0 to below 1, which of them.
    """
    fit = [each for each in victims if each.kind in kinds and each.runner in (runner, "")]
    fit.sort(key=lambda each: (each.process.started, each.process.pid))
    return fit[int(choice * len(fit))] if fit else None
