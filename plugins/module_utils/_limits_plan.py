# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From limits that a person wrote to slices that a host can keep, or a refusal. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _limits_sums as sums
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._limits_input import (
    IO_DEVICE,
    PROPERTIES,
    ROOT_SLICE,
    SLICE_ONLY,
    parse_cpu_list,
    parse_limits,
    settings,
    slice_name,
)
from ansible_collections.matryoshka.host.plugins.module_utils._sizes import show_size
from ansible_collections.matryoshka.host.plugins.module_utils._storage_units import escape, mount_unit

CONTROLLERS = {
    "cpu_weight": "cpu",
    "cpus": "cpu",
    "allowed_cpus": "cpuset",
    "memory": "memory",
    "memory_high": "memory",
    "swap": "memory",
    "pids": "pids",
    "io_weight": "io",
    **dict.fromkeys(IO_DEVICE, "io"),
}
"""The controller of cgroup v2 that keeps each limit (the kernel's cgroup-v2.rst)."""

NOT_ON_V1 = ("allowed_cpus", "memory_high", "swap", "io_read_iops", "io_write_iops")
"""Limits that systemd doesn't apply on cgroup v1 (systemd's src/core/cgroup.c)."""


def plan_limits(
    runners: Sequence[Mapping[str, Any]],
    defaults: Mapping[str, Any],
    options: Mapping[str, Any],
    plan: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    *,
    data_root: str | None = None,
    volumes: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The slice of all of CI, and below it one for each runner (see :mod:`_limits_input`).

    :param runners: the list as a person wrote it (``runner_runners``), checked by ``plan_runners``.
    :param defaults: the value of each limit that a runner doesn't set.
    :param options: those of role limits, without their prefix.
    :param plan: the plan of the runners.
    :param facts: the answer of ``host_info``, with the runners' folders, ``data_root`` and ``io_device`` among its paths.
    :param data_root: that of the host's engine.
    :param volumes: where volumes will be mounted; what lies there before isn't where data will be.
    :raises InputError: naming the variable, the value and what is allowed.
    """
    variables = {ROOT_SLICE: "limits_"}
    everything = _whole(options, facts)
    slices = [everything]
    for given, one in zip(runners, plan, strict=True):
        name, limits = slice_name(one["name"]), one["limits"]
        variables[name] = f"runner_runners[{one['name']}]."
        values = {key: given[key] if given.get(key) is not None else defaults.get(key) for key in SLICE_ONLY}
        found = parse_limits(values, variables[name])
        found.update(cpus=limits["cpus"], memory=limits["memory_bytes"], pids=limits["pids"])
        if found["memory"] and found["swap"] is None:
            found["swap"] = 0
        slices.append({"name": name, "runner": one["name"], **found})
    for each in slices:
        prefix = variables[each["name"]]
        _check_controllers(each, prefix, facts["cgroup"])
        _check_cpu_list(each, prefix, facts, everything)
        if each["memory_high"] and each["memory"] and each["memory_high"] > each["memory"]:
            allowed = f"at most {prefix}memory, {show_size(each['memory'])}"
            raise InputError(f"{prefix}memory_high", show_size(each["memory_high"]), allowed)
        homes = [one["directory"] for one in plan if each["runner"] in (None, one["name"])]
        each["io_paths"] = _io_paths(
            each, prefix, options, facts, [*([data_root] if data_root else []), *homes], volumes
        )
    if not options.get("overcommit"):
        sums.check_sums(slices[1:], everything, options, facts)
    return slices


def _whole(options: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The slice of all of CI: what isn't said is what the host has less its reserve."""
    host = sums.host_share(options, facts)
    automatic = [name for name in ("memory", "pids") if options.get(name) == "auto"]
    found = parse_limits(options, "limits_", skip=automatic)
    for name in automatic:
        found[name] = host[name]
    cpus, reserve = found["cpus"], host["reserve_cpus"]
    if cpus and cpus + reserve > facts["cpus"]:
        allowed = f"at most {facts['cpus'] - reserve:g}: the host has {facts['cpus']}, limits_reserve_cpus is {reserve:g}"
        raise InputError("limits_cpus", options["cpus"], allowed)
    if reserve >= facts["cpus"]:
        allowed = f"less than the host's {facts['cpus']} processors, or nothing is left for CI"
        raise InputError("limits_reserve_cpus", options["reserve_cpus"], allowed)
    if reserve and not cpus:
        found["cpus"] = facts["cpus"] - reserve
    if not options.get("overcommit"):
        sums.check_whole(found, host, options, facts)
    return {"name": ROOT_SLICE, "runner": None, **found}


def _check_controllers(one: Mapping[str, Any], prefix: str, cgroup: Mapping[str, Any]) -> None:
    unified = cgroup["version"] == 2
    for name, controller in CONTROLLERS.items():
        if one[name] is None or (not unified and name in NOT_ON_V1):
            continue
        needed = controller if unified or controller != "io" else "blkio"
        if needed not in cgroup["controllers"]:
            there = ", ".join(cgroup["controllers"]) or "none"
            allowed = (
                f"nothing, as the kernel gives this host no controller {needed} (cgroup version {cgroup['version']} "
                f"has {there}); boot without cgroup_disable=, or delegate it to the container that this host is"
            )
            raise InputError(f"{prefix}{name}", one[name], allowed)


def _check_cpu_list(
    one: Mapping[str, Any], prefix: str, facts: Mapping[str, Any], everything: Mapping[str, Any]
) -> None:
    text, there = one["allowed_cpus"], facts["capacity"]["cpu_list"]
    if text is None:
        return
    variable, cpus = f"{prefix}allowed_cpus", parse_cpu_list(text, "allowed_cpus")
    if there and not cpus <= parse_cpu_list(there, "cpu_list"):
        raise InputError(variable, text, f"processors that the host has: {there}")
    outer = everything["allowed_cpus"]
    if outer and not cpus <= parse_cpu_list(outer, "limits_allowed_cpus"):
        raise InputError(variable, text, f"processors of limits_allowed_cpus: {outer}")


def _io_paths(
    one: Mapping[str, Any],
    prefix: str,
    options: Mapping[str, Any],
    facts: Mapping[str, Any],
    homes: Sequence[str],
    volumes: Sequence[str],
) -> list[str]:
    """Mount points, or a device, by which systemd finds the disk; nothing where no limit asks for it.

    A mount point is there whenever the disk is, a folder on it perhaps not yet.
    """
    asking = next((name for name in IO_DEVICE if one[name] is not None), None)
    if asking is None:
        return []
    device = str(options.get("io_device") or "")
    if device and not device.startswith("/"):
        raise InputError("limits_io_device", device, "a block device or a path on one, absolute")
    found: list[str] = []
    for home in [device] if device else homes:
        volume = next((each for each in volumes if posixpath.commonpath([each, home]) == each), None)
        answer = facts["paths"].get(home)
        if volume:
            found.append(volume)
        elif answer is not None:
            variable, value = ("limits_io_device", device) if device else (f"{prefix}{asking}", one[asking])
            found.append(_place(answer, variable, value))
    return list(dict.fromkeys(found))


def _place(answer: Mapping[str, Any], variable: str, value: Any) -> str:
    path, kind = str(answer["path"]), answer["target_type"] or answer["type"]
    if path.startswith("/dev/"):
        if kind != "other":
            raise InputError(variable, value, f"a device that is there: {path} isn't one")
        return path
    if variable == "limits_io_device" and not answer["exists"]:
        raise InputError(variable, value, "a device, or a path, that is there")
    number = str(answer["device_number"] or "0:0")
    if number.startswith("0:") and answer["filesystem"] != "btrfs":
        where = f"{path} lies on {answer['filesystem']}, which is on no block device"
        raise InputError(variable, value, f"nothing, as {where}; set limits_io_device to the disk")
    return str(answer["mount_point"])


def slice_units(slices: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The slices as ``systemd_units`` takes them."""
    return [
        {
            "name": one["name"],
            "content": _text(one),
            "state": "started",
            "enabled": True,
            "masked": False,
            # To restart a slice is to kill what is in it.
            "on_change": "none",
        }
        for one in slices
    ]


def _text(one: Mapping[str, Any]) -> str:
    what = f"Environments of runner {one['runner']}" if one["runner"] else "Environments of all runners"
    mounts = [path for path in one["io_paths"] if path != "/" and not path.startswith("/dev/")]
    devices = [f"{escape(path)}.device" for path in one["io_paths"] if path.startswith("/dev/")]
    unit = [f"Description={what}"]
    if mounts:
        unit.append(f"RequiresMountsFor={' '.join(mounts)}")
    if devices:
        unit += [f"Wants={' '.join(devices)}", f"After={' '.join(devices)}"]
    accounting = ("CPUAccounting", "MemoryAccounting", "IOAccounting", "TasksAccounting")
    return "\n".join(
        [
            "# Managed by matryoshka.host: limits",
            "[Unit]",
            *unit,
            "",
            "[Slice]",
            *(f"{word}=yes" for word in accounting),
            *(f"{word}={value}" for word, value in settings(one)),
            "",
            "[Install]",
            f"WantedBy={' '.join(['multi-user.target', *(mount_unit(path) for path in mounts)])}",
            "",
        ]
    )


def no_limit(name: str) -> str:
    """What takes a limit away again, in systemd's words."""
    word = PROPERTIES[name]
    if word in ("MemoryMax", "MemoryHigh", "MemorySwapMax", "TasksMax"):
        return f"{word}=infinity"
    return f"{word}={'100' if name == 'cpu_weight' else ''}"
