# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the kernel hold a slice's limits while jobs run in it.

systemd writes a changed unit's limits to its cgroup when something next starts in the slice, not on a
daemon-reload (measured with 252 and 257). ``systemctl set-property --runtime`` writes them at once; the drop-ins that it
leaves behind are taken away again, because they would win over the unit's file until the next boot.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._limits_input import (
    IO_DEVICE,
    LIMITS,
    PROPERTIES,
    settings,
)
from ansible_collections.matryoshka.host.plugins.module_utils._limits_kernel import (
    Held,
    Tree,
    device_limits,
    device_of,
    held,
    read_tree,
)
from ansible_collections.matryoshka.host.plugins.module_utils._limits_plan import CONTROLLERS, no_limit

CONTROL = "/run/systemd/system.control"
"""Where ``systemctl set-property --runtime`` puts its drop-ins (systemd's src/basic/path-lookup.c)."""

ARGUMENTS: dict[str, Any] = {"slices": {"type": "list", "elements": "dict", "required": True}}
_LIFTED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "cpu_weight": ("cpu.weight", "cpu.shares", ("100", "1024")),
    "cpus": ("cpu.max", "cpu.cfs_quota_us", ("max", "-1")),
    "allowed_cpus": ("cpuset.cpus", "", ("",)),
    "memory": ("memory.max", "memory.limit_in_bytes", ("max",)),
    "memory_high": ("memory.high", "", ("max",)),
    "swap": ("memory.swap.max", "", ("max",)),
    "pids": ("pids.max", "pids.max", ("max",)),
}
"""The files (v2, v1) of limits that may be gone from a plan while the kernel still holds them, and what says so."""
_V1_UNLIMITED = 1 << 60


def check_slices(slices: Sequence[Mapping[str, Any]], variable: str = "slices") -> None:
    """Refuse what isn't a list of slices as :mod:`_limits_plan` makes them.

    :raises InputError: naming the entry.
    """
    keys = ("name", "runner", "io_paths", *LIMITS)
    for index, one in enumerate(slices):
        missing = [key for key in keys if key not in one]
        if missing or not str(one["name"]).endswith(".slice"):
            raise InputError(f"{variable}[{index}]", one, f"a slice with {', '.join(keys)}")


def stale_devices(one: Mapping[str, Any], tree: Tree, view: View) -> list[tuple[str, str, str, str]]:
    """Limit, file, device number and value of each limit on a device that nobody planned."""
    found = []
    for limit in IO_DEVICE:
        planned = one["io_paths"] if one[limit] is not None else []
        numbers = {device_of(path, view) for path in planned}
        file, devices = device_limits(limit, one["name"], tree, view)
        found += [(limit, file, number, value) for number, value in devices.items() if number not in numbers]
    return found


def lifted(one: Mapping[str, Any], tree: Tree, view: View) -> list[Held]:
    """Limits that the kernel holds and nobody planned."""
    found = []
    for limit, (unified, legacy, free) in _LIFTED.items():
        file = unified if tree.unified else legacy
        folder = tree.folder(CONTROLLERS[limit], one["name"])
        text = view.text(f"{folder}/{file}") if file and folder else None
        if one[limit] is not None or text is None:
            continue
        value = (text.split() or [""])[0]
        unlimited = value in free or (file == "memory.limit_in_bytes" and int(value) >= _V1_UNLIMITED)
        if not unlimited:
            found.append(Held(limit, f"{folder}/{file}", "no limit", value, False))
    found += [
        Held(limit, file, f"no limit for {number}", f"{value} for {number}", False)
        for limit, file, number, value in stale_devices(one, tree, view)
    ]
    return found


def differences(one: Mapping[str, Any], tree: Tree, view: View) -> list[Held]:
    """Where the kernel holds something else than was planned, and could hold it."""
    return [
        look
        for look in (*held(one, tree, view), *lifted(one, tree, view))
        if look.value is not None and not look.same
    ]


def answer(params: Mapping[str, Any], check: bool, run: Runner, view: View | None = None) -> dict[str, Any]:
    """The result of module ``slice_limits`` for its parameters (:data:`ARGUMENTS`).

    A slice that isn't there yet has no limits to change: systemd gives it those of its unit when it starts.

    :raises HostError: bad input, or systemd refuses a limit.
    """
    slices, view = params["slices"], view or View()
    check_slices(slices)
    tree = read_tree(view)
    wrong = {str(one["name"]): differences(one, tree, view) for one in slices}
    changed = [one for one in slices if wrong[one["name"]]]
    before = [f"{look.file}: {look.value}" for one in changed for look in wrong[one["name"]]]
    after = [f"{look.file}: {look.wanted}" for one in changed for look in wrong[one["name"]]]
    if changed and not check:
        for one in changed:
            _apply(one, tree, run, view)
        run(["systemctl", "daemon-reload"])
    return {
        "changed": bool(changed),
        "slices": [one["name"] for one in changed],
        "diff": {
            "before_header": "limits",
            "after_header": "limits",
            "before": "".join(f"{line}\n" for line in before),
            "after": "".join(f"{line}\n" for line in after),
        },
    }


def _apply(one: Mapping[str, Any], tree: Tree, run: Runner, view: View) -> None:
    gone = [no_limit(limit) for limit in PROPERTIES if one[limit] is None and limit not in IO_DEVICE]
    # systemd forgets a disk that is in no unit any more, the kernel doesn't. One that still is has to be named as the
    # unit names it: for each name of it systemd writes all its limits.
    names = {number: path for path in one["io_paths"] if (number := device_of(path, view))}
    gone += [
        f"{PROPERTIES[limit]}={names.get(number, f'/dev/block/{number}')} infinity"
        for limit, _file, number, _value in stale_devices(one, tree, view)
    ]
    wanted = [f"{word}={value}" for word, value in settings(one)]
    run(["systemctl", "set-property", "--runtime", one["name"], *gone, *wanted])
    folder = view.path(f"{CONTROL}/{one['name']}.d")
    for name in view.names(f"{CONTROL}/{one['name']}.d"):
        if name.removeprefix("50-").removesuffix(".conf") in PROPERTIES.values():
            os.unlink(posixpath.join(folder, name))
    if os.path.isdir(folder) and not os.listdir(folder):
        os.rmdir(folder)
