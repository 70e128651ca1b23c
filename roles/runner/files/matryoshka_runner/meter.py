# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one job uses and which of its limits it meets: differences between its beginning and its end."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matryoshka_runner.cgroups import Group, Place, pressure, refused_forks, transferred

PRESSURES = ("cpu", "memory", "io")
SAMPLE = 0.25
"""Seconds between two looks at a job's disk, which may be full only for a moment."""
COUNT = 1.0
"""Seconds between two looks at what an environment takes with it when it dies."""
FULL = (100, 8 << 20)
"""A disk counts as full with less than this part of it, and less than these bytes, free."""


@dataclass(frozen=True)
class Disk:
    """The project quota of a data root, which ``statvfs(2)`` shows on xfs and ext4, or its file system.

    :param whole: it is the file system.
    """

    path: Path
    size: int
    free: int
    files_free: int | None = None
    whole: bool = False

    @property
    def full(self) -> bool:
        return self.free < min(self.size // FULL[0], FULL[1]) or self.files_free == 0

    @classmethod
    def of(cls, path: Path) -> Disk | None:
        """What has the least room where ``path`` is; None if it can't be asked.

        A quota that isn't used up is of no use in a file system that is, and not every kernel shows that
        (kernel, fs/ext4/super.c, ext4_statfs_project).
        """
        mount = path
        while not os.path.ismount(mount) and mount != mount.parent:
            mount = mount.parent
        try:
            own, all_of_it = cls._at(path), cls._at(mount, whole=True)
        except OSError:
            return None
        return all_of_it if all_of_it.full or own.size == all_of_it.size else own

    @classmethod
    def _at(cls, path: Path, whole: bool = False) -> Disk:
        found = os.statvfs(path)
        files = found.f_favail if found.f_files else None
        return cls(path, found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, files, whole)


@dataclass(frozen=True)
class Evidence:
    """What happened to a job's environment while the job ran.

    :param own_oom: how often its own memory limit was out of memory.
    :param ci_oom: the same for the slice of all runners.
    :param host_oom: it was killed as the host was out of memory.
    :param kills: processes that the kernel killed; None where it doesn't say (v1).
    :param forks: forks that were refused for its limit of processes.
    :param ci_forks: the same for the slice of all runners, where the kernel tells that.
    :param disk: its disk at its fullest, if that was full.
    """

    own_oom: int = 0
    ci_oom: int = 0
    host_oom: bool = False
    kills: int | None = None
    forks: int = 0
    ci_forks: int = 0
    disk: Disk | None = None
    memory_limit: int | None = None
    ci_memory_limit: int | None = None
    pids_limit: int | None = None
    exact: bool = False
    """It comes from a group that outlives the environment."""


class OutOfMemory:
    """Counts how often a v1 memory group was out of memory (``eventfd(2)``, ``cgroup-v1/memory.rst`` 9, 10)."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._counter = -1
        folder = group.folders.get("memory")
        if group.unified or folder is None:
            return
        try:
            self._counter = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            control = os.open(folder / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                (folder / "cgroup.event_control").write_text(f"{self._counter} {control}", encoding="ascii")
            finally:
                os.close(control)
        except OSError:
            self.close()

    def count(self) -> int:
        """Since it was made; 0 if the group is gone, as its removal counts too."""
        if self._counter < 0:
            return 0
        try:
            number = os.eventfd_read(self._counter)
        except OSError:
            number = 0
        return number if self._group.text("memory", "memory.oom_control") is not None else 0

    def close(self) -> None:
        if self._counter >= 0:
            os.close(self._counter)
            self._counter = -1


class Meter:
    """Measures one job. Made when it begins; :meth:`sample` is called now and then.

    :param place: None if the environment's groups can't be found; little is told then.
    """

    def __init__(self, place: Place | None, data_root: Path) -> None:
        self._place = place
        self._data_root = data_root
        self._peaks: dict[str, int] = {}
        self._fullest: Disk | None = None
        self._count_at = 0.0
        self._notice = OutOfMemory(place.limited) if place else None
        self._before = counters(place) if place else {}
        self._last = dict(self._before)
        self.sample()

    def sample(self, all_of_it: bool = False) -> None:
        """Note what goes with the environment if it dies; what is dear to read, not every time."""
        disk = Disk.of(self._data_root)
        seen = [each for each in (self._fullest, disk) if each is not None]
        self._fullest = min(seen, key=lambda each: (not each.full, each.free), default=None)
        if self._place is None or (time.monotonic() < self._count_at and not all_of_it):
            return
        self._count_at = time.monotonic() + COUNT
        group = self._place.environment
        for key, value in (
            (
                "memory",
                group.number("memory", "memory.peak" if group.unified else "memory.max_usage_in_bytes"),
            ),
            ("tasks", group.number("pids", "pids.peak")),
        ):
            if value is not None:
                self._peaks[key] = max(value, self._peaks.get(key, 0))
        for key, value in counters(self._place).items():
            self._last[key] = max(value, self._last.get(key, 0))

    def _gone(self) -> dict[str, int]:
        self.sample(all_of_it=True)
        return {key: self._last[key] - value for key, value in self._before.items()}

    def close(self) -> None:
        if self._notice:
            self._notice.close()

    def evidence(self) -> Evidence:
        """What happened until now; to be asked once, before the environment is removed."""
        gone = self._gone()
        disk = self._fullest if self._fullest and self._fullest.full else None
        if self._place is None:
            return Evidence(disk=disk)
        group, ci = self._place.limited, self._place.ci
        own, whole = gone.get("oom", 0), gone.get("ci oom", 0)
        kills = gone.get("kills")
        if not group.unified and self._notice:
            times = self._notice.count()
            # A parent's shortage is told to the groups below too; only its own raises failcnt.
            own, whole = (times, 0) if gone.get("failures", 0) > 0 else (0, times)
            kills = None
        elif not kills:
            own = whole = 0
        names = ("memory.max" if group.unified else "memory.limit_in_bytes", "pids.max")
        return Evidence(
            own_oom=own,
            ci_oom=whole,
            host_oom=not own and not whole and gone.get("group kills", 0) > 0,
            kills=kills,
            forks=gone.get("forks", 0),
            ci_forks=gone.get("ci forks", 0),
            disk=disk,
            memory_limit=group.number("memory", names[0]),
            ci_memory_limit=ci.number("memory", names[0]) if ci else None,
            pids_limit=group.number("pids", names[1]),
            exact=self._place.slice is not None,
        )

    def usage(self) -> dict[str, Any]:
        """What the job used until now, as its result says it."""
        gone = self._gone()

        def seconds(key: str) -> float | None:
            return round(gone[key] / 1e6, 3) if key in gone else None

        pressures = {}
        for name in PRESSURES if self._place else ():
            found = pressure(self._place.limited.text(name, f"{name}.pressure")) if self._place else {}
            pressures[name] = {
                f"{kind}_{part}": value
                for kind, (share, _total) in found.items()
                for part, value in (("avg10", share), ("seconds", seconds(f"{name} {kind}")))
            } or None
        return {
            "cpu_seconds": seconds("cpu"),
            "memory_peak_bytes": self._peaks.get("memory"),
            "read_bytes": gone.get("read"),
            "written_bytes": gone.get("written"),
            "tasks_peak": self._peaks.get("tasks"),
            "pressure": pressures if any(pressures.values()) else None,
        }


def counters(place: Place) -> dict[str, int]:
    """What the kernel counts and never resets while the group is there; times in microseconds."""
    group, ci = place.limited, place.ci
    found: dict[str, int | None] = {"forks": refused_forks(place)}
    found["ci forks"] = ci.entry("pids", "pids.events.local", "max") if ci else None
    if group.unified:
        found["cpu"] = group.entry("cpu", "cpu.stat", "usage_usec")
        moved = transferred(group.text("io", "io.stat"), True)
        found["oom"] = group.entry("memory", "memory.events.local", "oom")
        found["kills"] = group.entry("memory", "memory.events", "oom_kill")
        found["group kills"] = group.entry("memory", "memory.events", "oom_group_kill")
        found["ci oom"] = ci.entry("memory", "memory.events.local", "oom") if ci else None
        for name in PRESSURES:
            for kind, (_share, total) in pressure(group.text(name, f"{name}.pressure")).items():
                found[f"{name} {kind}"] = total
    else:
        found["failures"] = group.number("memory", "memory.failcnt")
        nanoseconds = group.number("cpuacct", "cpuacct.usage")
        found["cpu"] = None if nanoseconds is None else nanoseconds // 1000
        name = "blkio.throttle.io_service_bytes"
        # Of groups that are gone nothing is kept above them: the slice's sum falls with every environment.
        group = place.environment
        text = group.text("blkio", f"{name}_recursive") or group.text("blkio", name)
        moved = transferred(text, False)
    found["read"], found["written"] = moved or (None, None)
    return {key: value for key, value in found.items() if value is not None}
