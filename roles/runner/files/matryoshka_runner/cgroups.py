# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Control groups of an environment: where they are, and what the kernel counts in them.

The kernel's documents: ``admin-guide/cgroup-v2.rst``, ``admin-guide/cgroup-v1/*.rst``. What
can't be read is None; nothing here raises.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = "/sys/fs/cgroup"
SLICE = re.compile(r"[A-Za-z0-9_]+(?:-[A-Za-z0-9_]+)*\.slice")
SLICE_ALLOWED = "null or a slice's name such as matryoshka-ci.slice"


@dataclass(frozen=True)
class Group:
    """One control group.

    :param unified: cgroup v2.
    :param folders: its folder, by controller; one for all on v2.
    """

    unified: bool
    folders: Mapping[str, Path]

    def text(self, controller: str, name: str) -> str | None:
        """The content of ``controller``'s file ``name``."""
        folder = self.folders.get(controller)
        if folder is None:
            return None
        try:
            return (folder / name).read_text(encoding="ascii", errors="replace")
        except OSError:
            return None

    def number(self, controller: str, name: str) -> int | None:
        """A file that holds one number; None for ``max`` too."""
        return whole(self.text(controller, name))

    def entry(self, controller: str, name: str, key: str) -> int | None:
        """One number of a file of lines ``key number``."""
        return flat(self.text(controller, name)).get(key)

    def there(self) -> bool:
        """False once the kernel has removed it."""
        return any(folder.is_dir() for folder in self.folders.values())

    def die_whole(self) -> bool:
        """Have an out-of-memory kill end all in the group together; False where that can't be had (v1)."""
        folder = self.folders.get("memory")
        if not self.unified or folder is None:
            return False
        try:
            (folder / "memory.oom.group").write_text("1\n", encoding="ascii")
        except OSError:
            return False
        return True


@dataclass(frozen=True)
class Place:
    """Where an environment is.

    :param slice: the runner's slice, None if it has none.
    :param ci: the slice of all runners.
    """

    environment: Group
    slice: Group | None = None
    ci: Group | None = None

    @property
    def limited(self) -> Group:
        """The group that has the runner's limits."""
        return self.slice or self.environment


def whole(text: str | None) -> int | None:
    """A text that is one whole number."""
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def flat(text: str | None) -> dict[str, int]:
    """Lines of ``key number``, others left out."""
    pairs = (line.split() for line in (text or "").splitlines())
    return {words[0]: int(words[1]) for words in pairs if len(words) == 2 and whole(words[1]) is not None}


def transferred(text: str | None, unified: bool) -> tuple[int, int] | None:
    """Bytes read and written on all devices, from ``io.stat`` or v1's ``blkio.throttle.io_service_bytes``."""
    if text is None:
        return None
    if unified:
        read = sum(int(number) for number in re.findall(r"\brbytes=(\d+)", text))
        return read, sum(int(number) for number in re.findall(r"\bwbytes=(\d+)", text))
    sums = {
        kind: sum(int(number) for number in re.findall(rf"^\d+:\d+ {kind} (\d+)$", text, re.MULTILINE))
        for kind in ("Read", "Write")
    }
    return sums["Read"], sums["Write"]


def pressure(text: str | None) -> dict[str, tuple[float, int]]:
    """``some`` and ``full`` of a pressure file: share of the last 10 s in percent, total microseconds.

    The kernel's ``accounting/psi.rst``.
    """
    found = re.findall(r"^(some|full) avg10=(\d+\.\d+) .*\btotal=(\d+)$", text or "", re.MULTILINE)
    return {kind: (float(share), int(total)) for kind, share, total in found}


def refused_forks(place: Place) -> int | None:
    """How often a limit of processes that isn't the job's own stopped a fork.

    From Linux 6.11 on v2 the group that has the limit counts it. Before, and on v1, the group of
    the process that forks does: they are summed, except groups that a job gave a limit itself.
    """
    exact = place.limited.entry("pids", "pids.events.local", "max")
    top = place.environment.folders.get("pids")
    if exact is not None or top is None:
        return exact
    total, found = 0, False
    for folder, below, _files in os.walk(top):
        here = Group(place.environment.unified, {"pids": Path(folder)})
        if folder != str(top) and here.number("pids", "pids.max") is not None:
            below.clear()
            continue
        count = here.entry("pids", "pids.events", "max")
        total, found = total + (count or 0), found or count is not None
    return total if found else None


def memberships(text: str) -> dict[str, str]:
    """``/proc/PID/cgroup`` as controller and path; v2 is the controller named by an empty text."""
    found = {}
    for line in text.splitlines():
        _number, _colon, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon and path.startswith("/"):
            found.update(dict.fromkeys(controllers.split(","), path))
    return found


def cut(path: str, fits: Callable[[str], bool]) -> str | None:
    """``path`` up to its first part that ``fits``."""
    parts = path.split("/")
    for number, part in enumerate(parts):
        if part and fits(part):
            return "/".join(parts[: number + 1])
    return None


def place_of(
    pid: int, container: str, slice_name: str | None, proc: str = "/proc", root: str = ROOT
) -> Place | None:
    """Where the environment with the first process ``pid`` is; None if that can't be read.

    :param container: the container's id, which is part of its group's name.
    """
    try:
        text = Path(proc, str(pid), "cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    unified = Path(root, "cgroup.controllers").exists()
    ours = memberships(text)
    paths = {"": ours.get("", "")} if unified else {name: path for name, path in ours.items() if name}

    def group(fits: Callable[[str], bool]) -> Group | None:
        found = {name: cut(path, fits) for name, path in paths.items()}
        if unified:
            one = found[""]
            names = ("cpu", "cpuacct", "memory", "pids", "io")
            return Group(True, {name: Path(root + one) for name in names}) if one else None
        folders = {name: Path(root, name + path) for name, path in found.items() if path}
        return Group(False, folders) if folders else None

    environment = group(lambda part: bool(container) and container in part)
    if environment is None:
        return None
    if slice_name is None:
        return Place(environment)
    top = slice_name.split("-")[0].removesuffix(".slice") + ".slice"
    return Place(environment, group(lambda part: part == slice_name), group(lambda part: part == top))


def slice_path(name: str) -> str:
    """The path of a slice in the tree, each hyphen one step down: ``/a.slice/a-b.slice``."""
    parts = name.removesuffix(".slice").split("-")
    return "".join(f"/{'-'.join(parts[: count + 1])}.slice" for count in range(len(parts)))


def boot_id(proc: str = "/proc") -> str:
    """What tells this boot of the machine from all others."""
    try:
        return Path(proc, "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
