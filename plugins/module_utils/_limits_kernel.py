# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel holds of slices' limits, on cgroup v1 and v2, against what was planned.

Sources of facts: the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/*.rst; how systemd turns weights of v2 into
shares of v1, and which disk it takes for a path: its src/core/cgroup.c.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._limits_input import (
    IO_DEVICE,
    parse_cpu_list,
)
from ansible_collections.matryoshka.host.plugins.module_utils._limits_plan import CONTROLLERS, NOT_ON_V1
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import MountTable

PAGE = os.sysconf("SC_PAGE_SIZE")
PERIOD = 100_000
"""Microseconds in which systemd lets a slice have its quota (``CPUQuotaPeriodSec=`` isn't set)."""
_IO_KEYS = {
    "io_read_bandwidth": "rbps",
    "io_write_bandwidth": "wbps",
    "io_read_iops": "riops",
    "io_write_iops": "wiops",
}
_IO_FILES_V1 = {
    "io_read_bandwidth": "blkio.throttle.read_bps_device",
    "io_write_bandwidth": "blkio.throttle.write_bps_device",
}


@dataclass(frozen=True)
class Held:
    """What the kernel holds of one limit: ``file``, ``value`` in its own words (None: there is no such file).

    ``wanted`` is what the file should say; ``same`` whether it does, to the kernel's rounding.
    """

    limit: str
    file: str
    wanted: str
    value: str | None
    same: bool


@dataclass
class SliceView:
    """What the kernel holds of a slice; ``lacking`` are limits that this host's version of cgroup hasn't."""

    held: list[Held] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)


@dataclass
class Limited:
    """All slices by name, and of each environment, by name, the processes outside its runner's slice.

    ``outside`` maps a process id to where it is; ``processes`` is how many were looked at.
    """

    slices: dict[str, SliceView] = field(default_factory=dict)
    outside: dict[str, dict[int, str]] = field(default_factory=dict)
    processes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Tree:
    """Where each controller's cgroups are: controller to the folder that systemd's slices are in."""

    unified: bool
    folders: Mapping[str, str]

    def folder(self, controller: str, name: str) -> str | None:
        """The cgroup of a slice, or None where the host hasn't this controller."""
        name_here = "blkio" if controller == "io" and not self.unified else controller
        base = self.folders.get(name_here)
        return None if base is None else posixpath.join(base, slice_path(name))


def slice_path(name: str) -> str:
    """The folder of a slice below the root, from its name (systemd.slice(5))."""
    parts = name.removesuffix(".slice").split("-")
    return "/".join("-".join(parts[: index + 1]) + ".slice" for index in range(len(parts)))


def read_tree(view: View) -> Tree:
    """The cgroups of this host, from its mounts and those of process 1."""
    table = MountTable.parse(view.text("/proc/self/mountinfo") or "")
    own: dict[str, str] = {}
    for line in (view.text("/proc/1/cgroup") or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(",") if parts[1] else ["unified"]:
                own[controller] = parts[2].removesuffix("/init.scope")
    folders: dict[str, str] = {}
    unified = None
    for mount in table.mounts:
        if mount.filesystem == "cgroup":
            names = [name for name in own if name in mount.super_options]
        elif mount.filesystem == "cgroup2":
            names = ["unified"]
        else:
            continue
        for name in names:
            path = own.get(name, "")
            if mount.root != "/" and path.startswith(mount.root):
                path = path[len(mount.root) :]
            folders.setdefault(name, posixpath.join(mount.mount_point, path.lstrip("/")).rstrip("/"))
        unified = folders.get("unified")
    if unified and not set(folders) & {"memory", "cpu", "pids"}:
        names = [*(view.text(f"{unified}/cgroup.controllers") or "").split()]
        return Tree(True, dict.fromkeys(names, unified))
    return Tree(False, folders)


def whole_disk(number: str, view: View) -> str:
    """The disk of a block device, as systemd finds it: through devices made of one other, and partitions."""
    for _depth in range(16):
        parts = view.names(f"/sys/dev/block/{number}/slaves")
        below = view.text(f"/sys/dev/block/{number}/slaves/{parts[0]}/dev") if parts else None
        if len(parts) != 1 or not below:
            break
        number = below.strip()
    if view.exists(f"/sys/dev/block/{number}/partition"):
        real = os.path.dirname(view.real(f"/sys/dev/block/{number}"))
        return (view.text(f"{real}/dev") or number).strip()
    return number


def device_of(path: str, view: View) -> str | None:
    """The number of the disk that systemd takes for ``path``; None where there is none."""
    try:
        found = os.stat(view.path(path))
    except (OSError, ValueError):
        return None
    number = found.st_rdev if path.startswith("/dev/") else found.st_dev
    if os.major(number):
        return whole_disk(f"{os.major(number)}:{os.minor(number)}", view)
    mount = MountTable.parse(view.text("/proc/self/mountinfo") or "").of(path)
    if mount is None or mount.filesystem != "btrfs":
        return None
    source = view.text(f"/sys/class/block/{posixpath.basename(view.real(mount.source))}/dev")
    return whole_disk(source.strip(), view) if source else None


def held(one: Mapping[str, Any], tree: Tree, view: View) -> list[Held]:
    """What the kernel holds of each limit of a slice that can be had here."""
    found: list[Held] = []
    for limit in CONTROLLERS:
        if one[limit] is None or (not tree.unified and limit in NOT_ON_V1):
            continue
        folder = tree.folder(CONTROLLERS[limit], one["name"]) or ""
        if limit in IO_DEVICE:
            found += [
                _device_limit(limit, one[limit], path, one["name"], tree, view) for path in one["io_paths"]
            ]
        else:
            found.append((_V2 if tree.unified else _V1)[limit](limit, one[limit], folder, view))
    return found


def lacking_on_v1(one: Mapping[str, Any], tree: Tree) -> list[str]:
    """The limits of a slice that can't be had on this host's version of cgroup."""
    return [] if tree.unified else [limit for limit in NOT_ON_V1 if one[limit] is not None]


def _file(limit: str, wanted: Any, path: str, view: View, same: Callable[[str], bool]) -> Held:
    text = view.text(path)
    value = None if text is None else text.strip()
    return Held(limit, path, str(wanted), value, value is not None and same(value))


def _exact(file: str) -> Callable[[str, Any, str, View], Held]:
    return lambda limit, wanted, folder, view: _file(
        limit, wanted, f"{folder}/{file}", view, lambda text: text == str(wanted)
    )


def _bytes(file: str) -> Callable[[str, Any, str, View], Held]:
    """The kernel keeps whole pages."""
    return lambda limit, wanted, folder, view: _file(
        limit,
        wanted,
        f"{folder}/{file}",
        view,
        lambda text: text.isdigit() and 0 <= wanted - int(text) < PAGE,
    )


def _same_quota(text: str, cpus: float) -> bool:
    """Whether ``QUOTA PERIOD``, in microseconds, is ``cpus``; systemd may lengthen the period."""
    words = text.split()
    if len(words) != 2 or not all(word.isdigit() for word in words) or not int(words[1]):
        return False
    return abs(int(words[0]) / int(words[1]) - cpus) <= 0.01 * cpus


def _quota_v2(limit: str, cpus: float, folder: str, view: View) -> Held:
    wanted = f"{cpus * PERIOD:.0f} {PERIOD}"
    return _file(limit, wanted, f"{folder}/cpu.max", view, lambda text: _same_quota(text, cpus))


def _quota_v1(limit: str, cpus: float, folder: str, view: View) -> Held:
    period = (view.text(f"{folder}/cpu.cfs_period_us") or "").strip()
    wanted = f"{cpus * (int(period) if period.isdigit() else PERIOD):.0f}"
    path = f"{folder}/cpu.cfs_quota_us"
    return _file(limit, wanted, path, view, lambda text: _same_quota(f"{text} {period}", cpus))


def _shares(limit: str, weight: int, folder: str, view: View) -> Held:
    shares = str(min(max(weight * 1024 // 100, 2), 262144))
    return _file(limit, shares, f"{folder}/cpu.shares", view, lambda text: text == shares)


def _cpu_set(limit: str, wanted: str, folder: str, view: View) -> Held:
    cpus = parse_cpu_list(wanted, limit)

    def same(text: str) -> bool:
        return bool(text) and parse_cpu_list(text, limit) == cpus

    return _file(limit, wanted, f"{folder}/cpuset.cpus.effective", view, same)


def bfq_weight(weight: int) -> int:
    """systemd's weight (1 to 10000, 100 is usual) in BFQ's range of 1 to 1000, as systemd does it."""
    if weight <= 100:
        return weight
    return 100 + (weight - 100) * (1000 - 100) // (10000 - 100)


def blkio_weight(weight: int) -> int:
    """systemd's weight as the one of cgroup v1, where 500 is usual and 10 to 1000 allowed."""
    return min(max(weight * 5, 10), 1000)


def _one_weight(limit: str, wanted: str, path: str, view: View) -> Held:
    return _file(
        limit, wanted, path, view, lambda text: text.splitlines()[:1] in ([wanted], [f"default {wanted}"])
    )


def _weight(files: Sequence[tuple[str, Callable[[int], int]]]) -> Callable[[str, Any, str, View], Held]:
    """A weight that one file of several holds, as the kernel's scheduler has it; ``default N`` or ``N``."""

    def read(limit: str, weight: int, folder: str, view: View) -> Held:
        looks = [_one_weight(limit, str(scale(weight)), f"{folder}/{file}", view) for file, scale in files]
        there = [look for look in looks if look.value is not None]
        return next((look for look in there if look.same), (there or looks)[0])

    return read


def parse_io(text: str) -> dict[str, dict[str, str]]:
    """``io.max``: device number to keys and values; a limit that isn't is ``max``."""
    found = {}
    for line in text.splitlines():
        number, _ignored, rest = line.partition(" ")
        found[number] = dict(word.split("=", 1) for word in rest.split() if "=" in word)
    return found


def parse_throttle(text: str) -> dict[str, str]:
    """``blkio.throttle.*_device``: device number to value."""
    return {words[0]: words[1] for line in text.splitlines() if len(words := line.split()) == 2}


def device_limits(limit: str, name: str, tree: Tree, view: View) -> tuple[str, dict[str, str]]:
    """The file that holds a limit of a slice by device, and in it device number to value, where there is a limit."""
    file = "io.max" if tree.unified else _IO_FILES_V1.get(limit)
    path = f"{tree.folder('io', name) or ''}/{file}"
    text = (view.text(path) or "") if file else ""
    if not tree.unified:
        return path, parse_throttle(text)
    values = {number: keys.get(_IO_KEYS[limit], "max") for number, keys in parse_io(text).items()}
    return path, {number: value for number, value in values.items() if value != "max"}


def _device_limit(limit: str, wanted: int, path: str, name: str, tree: Tree, view: View) -> Held:
    number = device_of(path, view)
    file, values = device_limits(limit, name, tree, view)
    if number is None or not view.exists(file):
        return Held(limit, file, f"{wanted} for {path}, {number or 'which is on no disk'}", None, False)
    value = values.get(number, "no limit")
    return Held(limit, file, f"{wanted} for {number}", f"{value} for {number}", value == str(wanted))


_Look = Callable[[str, Any, str, View], Held]
_V2: dict[str, _Look] = {
    "cpu_weight": _exact("cpu.weight"),
    "cpus": _quota_v2,
    "allowed_cpus": _cpu_set,
    "memory": _bytes("memory.max"),
    "memory_high": _bytes("memory.high"),
    "swap": _bytes("memory.swap.max"),
    "pids": _exact("pids.max"),
    "io_weight": _weight((("io.weight", int), ("io.bfq.weight", bfq_weight))),
}
_V1: dict[str, _Look] = {
    "cpu_weight": _shares,
    "cpus": _quota_v1,
    "memory": _bytes("memory.limit_in_bytes"),
    "pids": _exact("pids.max"),
    "io_weight": _weight(
        (
            ("blkio.weight", blkio_weight),
            ("blkio.bfq.weight", lambda weight: bfq_weight(blkio_weight(weight))),
        )
    ),
}
