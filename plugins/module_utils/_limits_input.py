# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits of slices as a person writes them. Pure.

A slice is a mapping with ``name``, ``runner`` (None for all of CI), each of :data:`LIMITS` (None is no limit) and
``io_paths``, the places whose device the limits of input and output are about. Units: ``cpus`` processors,
``allowed_cpus`` a list such as ``0-3,8``, weights 1 to 10000, memory and swap bytes, bandwidths bytes a second,
``*_iops`` operations a second, ``pids`` processes and threads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._sizes import parse_size

ROOT_SLICE = "matryoshka.slice"
MEMORY_MINIMUM = 128 << 20
PIDS_MINIMUM = 64
PIDS_MAXIMUM = 4194304
CPUS_ALLOWED = "a number of processors above 0, such as 1.5"
_CPU_LIST = re.compile(r"^\d+(?:-\d+)?(?:[\s,]+\d+(?:-\d+)?)*$")
_HIGHEST_CPU = 8191


def slice_name(runner: str) -> str:
    """The slice of a runner. A hyphen in a slice's name is a level (systemd.slice(5)), so it becomes ``_``."""
    return f"matryoshka-{runner.replace('-', '_')}.slice"


def parse_cpus(value: Any, variable: str) -> float:
    """A number of processors.

    :raises InputError: if it isn't one, or not above 0.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(variable, value, CPUS_ALLOWED) from None
    if isinstance(value, bool) or not 0 < number < 4096:
        raise InputError(variable, value, CPUS_ALLOWED)
    return number


def parse_whole(value: Any, variable: str, lowest: int, highest: int) -> int:
    """A whole number within a range.

    :raises InputError: if it isn't one.
    """
    allowed = f"a whole number from {lowest} to {highest}"
    if isinstance(value, bool) or not re.fullmatch(r"\d+", str(value)):
        raise InputError(variable, value, allowed)
    if not lowest <= int(value) <= highest:
        raise InputError(variable, value, allowed)
    return int(value)


def parse_cpu_list(value: Any, variable: str) -> frozenset[int]:
    """Processors by number, from ``0-3,8``.

    :raises InputError: if it isn't such a list.
    """
    allowed = "processors by number, such as 0-3,8"
    text = str(value).strip()
    if isinstance(value, bool) or not _CPU_LIST.match(text):
        raise InputError(variable, value, allowed)
    found: set[int] = set()
    for part in re.split(r"[\s,]+", text):
        first, _ignored, last = part.partition("-")
        if int(last or first) > _HIGHEST_CPU or int(last or first) < int(first):
            raise InputError(variable, value, allowed)
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def show_cpu_list(cpus: Iterable[int]) -> str:
    """``0-3,8``: numbers in order, as ranges, as the kernel has them."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _cpu_list(value: Any, variable: str) -> str:
    return show_cpu_list(parse_cpu_list(value, variable))


def _weight(value: Any, variable: str) -> int:
    return parse_whole(value, variable, 1, 10000)


def _memory(value: Any, variable: str) -> int:
    return parse_size(value, variable, MEMORY_MINIMUM)


def _swap(value: Any, variable: str) -> int:
    return parse_size(value, variable, 0)


def _bandwidth(value: Any, variable: str) -> int:
    return parse_size(value, variable, 1 << 12)


def _iops(value: Any, variable: str) -> int:
    return parse_whole(value, variable, 1, 1 << 31)


def _pids(value: Any, variable: str) -> int:
    return parse_whole(value, variable, PIDS_MINIMUM, PIDS_MAXIMUM)


IO_DEVICE = ("io_read_bandwidth", "io_write_bandwidth", "io_read_iops", "io_write_iops")
"""Limits that are about a device."""

LIMITS: dict[str, Callable[[Any, str], Any]] = {
    "cpu_weight": _weight,
    "cpus": parse_cpus,
    "allowed_cpus": _cpu_list,
    "memory": _memory,
    "memory_high": _memory,
    "swap": _swap,
    "pids": _pids,
    "io_weight": _weight,
    "io_read_bandwidth": _bandwidth,
    "io_write_bandwidth": _bandwidth,
    "io_read_iops": _iops,
    "io_write_iops": _iops,
}
"""Every limit of a slice, and what reads it."""

SLICE_ONLY = tuple(name for name in LIMITS if name not in ("cpus", "memory", "pids"))
"""Limits that a runner has only by a slice; the others are the container's without one."""

PROPERTIES = {
    "cpu_weight": "CPUWeight",
    "cpus": "CPUQuota",
    "allowed_cpus": "AllowedCPUs",
    "memory": "MemoryMax",
    "memory_high": "MemoryHigh",
    "swap": "MemorySwapMax",
    "pids": "TasksMax",
    "io_weight": "IOWeight",
    "io_read_bandwidth": "IOReadBandwidthMax",
    "io_write_bandwidth": "IOWriteBandwidthMax",
    "io_read_iops": "IOReadIOPSMax",
    "io_write_iops": "IOWriteIOPSMax",
}
"""systemd's name of each limit, from systemd.resource-control(5)."""


def parse_limits(values: Mapping[str, Any], prefix: str, skip: Iterable[str] = ()) -> dict[str, Any]:
    """Each of :data:`LIMITS` from what a person wrote; empty and null are no limit.

    :param prefix: what stands before a limit in the name of its variable.
    :param skip: limits that are read elsewhere; they are None here.
    :raises InputError: naming the variable, the value and what is allowed.
    """
    return {
        name: None
        if name in skip or values.get(name) in (None, "")
        else read(values[name], f"{prefix}{name}")
        for name, read in LIMITS.items()
    }


def percent(cpus: float) -> str:
    """Processors as ``CPUQuota`` has them: ``1.5`` is ``150%``."""
    return f"{cpus * 100:.2f}".rstrip("0").rstrip(".") + "%"


def settings(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings of a slice that are limits, in systemd's words, in a fixed order."""
    found: list[tuple[str, str]] = []
    for name, word in PROPERTIES.items():
        value = one.get(name)
        if value is None:
            continue
        if name in IO_DEVICE:
            found += [(word, f"{path} {value}") for path in one["io_paths"]]
        else:
            found.append((word, percent(value) if name == "cpus" else str(value)))
    return found
