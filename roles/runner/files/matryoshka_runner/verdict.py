# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says in words which limit a job met, and what it used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matryoshka_runner.config import Limits
from matryoshka_runner.meter import Disk, Evidence

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def amount(number: float) -> str:
    """Bytes with a binary unit, as exactly as a person needs: ``512 MiB``, ``1.5 GiB``."""
    unit = 0
    while number >= 1024 and unit < len(UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.3g} {UNITS[unit]}" if number < 1000 else f"{number:.0f} {UNITS[unit]}"


def met(evidence: Evidence, limits: Limits, docker_says_oom: bool = False) -> str:
    """Which limits a job that didn't succeed met; empty if none.

    :param docker_says_oom: the engine says that its environment ended out of memory.
    """
    said = [_memory(evidence, limits, docker_says_oom)]
    if evidence.forks:
        number = limits.pids if limits.pids is not None else evidence.pids_limit
        said.append(
            f"hit its limit of {number} processes ({_times(evidence.forks)} no new one could be started)"
            if number is not None
            else f"hit a limit of processes of the host's ({_times(evidence.forks)})"
        )
    if evidence.ci_forks:
        said.append(
            f"all runners together hit their limit of processes ({_times(evidence.ci_forks)} no new one could be started)"
        )
    if evidence.disk:
        what = "is full" if evidence.disk.files_free != 0 else "has no room for another file"
        said.append(f"{disk_in_words(evidence.disk)} {what}")
    return "; ".join(text for text in said if text)


def disk_in_words(disk: Disk) -> str:
    return (
        f"the disk of {amount(disk.size)} at {disk.path}"
        if disk.whole
        else f"its disk of {amount(disk.size)}"
    )


def _memory(evidence: Evidence, limits: Limits, docker_says_oom: bool) -> str:
    docker_says_oom = docker_says_oom and not evidence.exact
    killed = f"the kernel killed {_processes(evidence.kills)}" if evidence.kills else "out of memory"
    if evidence.own_oom or (docker_says_oom and not evidence.ci_oom and not evidence.host_oom):
        limit = limits.memory_bytes if limits.memory_bytes is not None else evidence.memory_limit
        if limit is not None and limit < 1 << 60:
            return f"killed by its limit: memory {amount(limit)} ({killed})"
    if evidence.ci_oom:
        limit = evidence.ci_memory_limit
        text = f" {amount(limit)}" if limit is not None and limit < 1 << 60 else ""
        return f"killed by the limit of all runners together: memory{text} ({killed})"
    if evidence.host_oom:
        return f"killed because the host ran out of memory ({killed})"
    return f"killed as it was {killed}" if docker_says_oom and not evidence.kills else ""


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"


def used(usage: Mapping[str, Any]) -> str:
    """A job's ``usage`` in one line; what isn't known is left out, empty if nothing is."""
    parts = []
    if usage.get("cpu_seconds") is not None:
        parts.append(f"{usage['cpu_seconds']:.2f} s of cpu")
    if usage.get("memory_peak_bytes") is not None:
        parts.append(f"{amount(usage['memory_peak_bytes'])} of memory at most")
    if usage.get("tasks_peak") is not None:
        parts.append(f"{usage['tasks_peak']} tasks at most")
    if usage.get("read_bytes") is not None:
        parts.append(f"{amount(usage['read_bytes'])} read, {amount(usage['written_bytes'])} written")
    for name, values in (usage.get("pressure") or {}).items():
        if values and values.get("some_seconds") is not None:
            parts.append(
                f"waited {values['some_seconds']:.2f} s for {name} (last 10 s: {values['some_avg10']:g} %)"
            )
    return ", ".join(parts)


def in_words(result: Mapping[str, Any]) -> str:
    """How a job ended, as a line for the journal."""
    code, reason = result.get("exit_code"), result.get("reason")
    text = f"job {result.get('job')}: {result.get('status')}"
    return text + ("" if code is None else f", exit code {code}") + (f": {reason}" if reason else "")
