# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What limits come to in total, against what the host has and keeps for itself. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._limits_input import (
    MEMORY_MINIMUM,
    PIDS_MINIMUM,
    parse_whole,
)
from ansible_collections.matryoshka.host.plugins.module_utils._sizes import parse_size, show_size

MEMORY_RESERVE = 256 << 20
MEMORY_RESERVE_PART = 20
"""The host keeps the larger of 256 MiB and one part in 20, unless it is told otherwise."""
MEMORY_GRAIN = 16 << 20
PIDS_GRAIN = 256
"""What is CI's is rounded down to these: the same machine has a page more or less after each boot."""


def host_share(options: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is CI's: ``memory`` in bytes and ``pids``, and the reserves that were taken off.

    :raises InputError: for a reserve that is none, or that leaves nothing.
    """
    total, given = facts["memory_bytes"], options.get("reserve_memory", "auto")
    if given == "auto":
        reserve = max(MEMORY_RESERVE, total // MEMORY_RESERVE_PART)
    else:
        reserve = parse_size(given or 0, "limits_reserve_memory", 0)
    if total - reserve < MEMORY_MINIMUM:
        allowed = f"at most {show_size(max(0, total - MEMORY_MINIMUM))}: the host has {show_size(total)}"
        raise InputError("limits_reserve_memory", given, allowed)
    capacity = facts["capacity"]
    there = [capacity[name] for name in ("pids", "threads") if capacity[name]]
    pids = min(there) if there else None
    kept = parse_whole(options.get("reserve_pids") or 0, "limits_reserve_pids", 0, 4194304)
    if pids is not None and pids - kept < PIDS_MINIMUM:
        allowed = f"at most {max(0, pids - PIDS_MINIMUM)}: the host can have {pids} processes and threads"
        raise InputError("limits_reserve_pids", options.get("reserve_pids"), allowed)
    return {
        "memory": max(MEMORY_MINIMUM, _rounded(total - reserve, MEMORY_GRAIN)),
        "reserve_memory": reserve,
        "pids": None if pids is None else max(PIDS_MINIMUM, _rounded(pids - kept, PIDS_GRAIN)),
        "reserve_pids": kept,
        "reserve_cpus": _reserve_cpus(options.get("reserve_cpus")),
    }


def _rounded(number: int, grain: int) -> int:
    return number // grain * grain


def _reserve_cpus(value: Any) -> float:
    allowed = "a number of processors, 0 or more"
    try:
        number = float(value or 0)
    except (TypeError, ValueError):
        raise InputError("limits_reserve_cpus", value, allowed) from None
    if isinstance(value, bool) or not 0 <= number < 4096:
        raise InputError("limits_reserve_cpus", value, allowed)
    return number


def check_whole(
    found: Mapping[str, Any], host: Mapping[str, Any], options: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """All of CI leaves the host its reserve.

    :raises InputError: naming what it would have to be.
    """
    if found["memory"] and found["memory"] > host["memory"]:
        allowed = (
            f"at most {show_size(host['memory'])}: the host has {show_size(facts['memory_bytes'])}, of which "
            f"limits_reserve_memory keeps {show_size(host['reserve_memory'])}; or limits_overcommit: true"
        )
        raise InputError("limits_memory", options["memory"], allowed)
    if found["pids"] and host["pids"] is not None and found["pids"] > host["pids"]:
        allowed = f"at most {host['pids']}, as limits_reserve_pids keeps {host['reserve_pids']}; or limits_overcommit: true"
        raise InputError("limits_pids", options["pids"], allowed)


def check_sums(
    runners: Sequence[Mapping[str, Any]],
    everything: Mapping[str, Any],
    options: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """What runners may have at most comes to no more than there is.

    Threads aren't counted against what the memory is enough for (``threads-max``), only against the numbers
    that there are (``pid_max``): the slice of all of CI keeps to the former.

    :param runners: their slices.
    :param everything: the slice of all of CI.
    :raises InputError: showing the sum.
    """
    host = host_share(options, facts)
    memory = [(one["runner"], one["memory"]) for one in runners if one["memory"]]
    limit, why = (
        host["memory"],
        f"the host has {show_size(facts['memory_bytes'])}, of which limits_reserve_memory keeps "
        f"{show_size(host['reserve_memory'])}",
    )
    if everything["memory"] and everything["memory"] < limit:
        limit, why = everything["memory"], f"limits_memory is {show_size(everything['memory'])}"
    _check_sum("memory", memory, limit, why, show_size)
    numbers = facts["capacity"]["pids"]
    pids = [(one["runner"], one["pids"]) for one in runners if one["pids"]]
    if numbers:
        why = f"the host has {numbers} process ids, of which limits_reserve_pids keeps {host['reserve_pids']}"
        _check_sum("pids", pids, numbers - host["reserve_pids"], why, str)


def _check_sum(
    what: str, parts: Sequence[tuple[str, int]], limit: int, why: str, show: Callable[[int], str]
) -> None:
    total = sum(value for _name, value in parts)
    if total > limit:
        text = " + ".join(f"{show(value)} ({name})" for name, value in parts) + f" = {show(total)}"
        allowed = f"at most {show(limit)} together: {why}; or limits_overcommit: true"
        raise InputError(f"runner_runners[].{what}", text, allowed)
