# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who uses a block device: mounts in any mount namespace, swap, devices built on it, processes.

Sources of facts: ``/proc/*/mountinfo``, ``/proc/swaps``, ``/sys/class/block/*/holders``,
``/sys/block/loop*/loop/backing_file``, ``/sys/fs/btrfs/*/devices``, ``/proc/*/fd``.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Disks, Mount, MountTable

SYSTEM_DIRECTORIES = ("/", "/boot", "/boot/efi", "/efi", "/usr", "/var")
"""Directories without which a host doesn't boot; the disks behind them are never free."""


@dataclass(frozen=True)
class Usage:
    """Who uses which device, by the kernel's names."""

    mounts: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    swaps: Collection[str] = ()
    holders: Mapping[str, list[str]] = field(default_factory=dict)
    system: Collection[str] = ()


def read_usage(view: View, numbers: Mapping[str, str]) -> Usage:
    """Who uses the devices.

    :param numbers: the kernel's name of each ``major:minor``.
    """
    names = set(numbers.values())
    tables = list(_tables(view))
    return Usage(
        mounts=_mounted(view, tables, numbers),
        swaps=_swaps(view, names),
        holders=_holders(view, names),
        system=_system(view, tables[0][1]) if tables else (),
    )


def _tables(view: View) -> Iterator[tuple[str, MountTable]]:
    """The mount table of each mount namespace with the id of a process in it, process 1's first."""
    seen: set[str] = set()
    for pid in ["1", "self", *(name for name in view.names("/proc") if name.isdigit())]:
        namespace = view.link(f"/proc/{pid}/ns/mnt") or ("" if pid in ("1", "self") else None)
        if namespace is None or namespace in seen:
            continue
        text = view.text(f"/proc/{pid}/mountinfo")
        if text:
            seen.add(namespace)
            try:
                yield pid, MountTable.parse(text)
            except HostError:
                continue


def _mounted(
    view: View, tables: list[tuple[str, MountTable]], numbers: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """Mounts by device. Other namespaces' count only for a device that the host itself hasn't mounted."""
    found: dict[str, list[dict[str, Any]]] = {}
    for pid, table in tables:
        own: dict[str, list[dict[str, Any]]] = {}
        for mount in table.mounts:
            name = _device(view, mount, numbers)
            if name is not None and (name not in found or pid in ("1", "self")):
                process = None if pid in ("1", "self") else pid
                own.setdefault(name, []).append(_entry(view, mount, process))
        for name, mounts in own.items():
            found.setdefault(name, []).extend(mounts)
    return found


def _entry(view: View, mount: Mount, pid: str | None) -> dict[str, Any]:
    return {
        "mount_point": mount.mount_point,
        "root": mount.root,
        "filesystem": mount.filesystem,
        "options": list(mount.options),
        "read_only": mount.read_only,
        "pid": int(pid) if pid else None,
        "process": (view.text(f"/proc/{pid}/comm") or "").strip() or None if pid else None,
    }


def _device(view: View, mount: Mount, numbers: Mapping[str, str]) -> str | None:
    if mount.device in numbers:
        return numbers[mount.device]
    # btrfs shows an anonymous device number; its source names a real one.
    if mount.source.startswith("/dev/"):
        return _name(view, mount.source, set(numbers.values()))
    return None


def _name(view: View, path: str, names: Collection[str]) -> str | None:
    """The kernel's name of the device at ``path``."""
    name = posixpath.basename(view.real(path))
    if name in names:
        return name
    if posixpath.dirname(path) == "/dev/mapper":
        wanted = posixpath.basename(path)
        for other in names:
            if (view.text(f"/sys/class/block/{other}/dm/name") or "").strip() == wanted:
                return other
    return None


def _swaps(view: View, names: Collection[str]) -> set[str]:
    found = set()
    for line in (view.text("/proc/swaps") or "").splitlines()[1:]:
        path = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), (line.split() or [""])[0])
        name = _name(view, path, names) if path.startswith("/dev/") else None
        if name is not None:
            found.add(name)
    return found


def _holders(view: View, names: Collection[str]) -> dict[str, list[str]]:
    """What is built on each device: other devices, loop devices, file systems over several devices."""
    found: dict[str, list[str]] = {}
    for name in names:
        for holder in view.names(f"/sys/class/block/{name}/holders"):
            found.setdefault(name, []).append(_holder(view, holder))
        backing = (view.text(f"/sys/class/block/{name}/loop/backing_file") or "").strip()
        below = _name(view, backing, names) if backing.startswith("/dev/") else None
        if below is not None:
            found.setdefault(below, []).append(f"/dev/{name}")
    for uuid in view.names("/sys/fs/btrfs"):
        for name in view.names(f"/sys/fs/btrfs/{uuid}/devices"):
            if name in names:
                found.setdefault(name, []).append(f"the mounted btrfs {uuid}")
    return found


def _holder(view: View, name: str) -> str:
    mapper = (view.text(f"/sys/class/block/{name}/dm/name") or "").strip()
    return f"/dev/mapper/{mapper}" if mapper else f"/dev/{name}"


def _system(view: View, table: MountTable) -> set[str]:
    disks = Disks(view.root)
    found: set[str] = set()
    for directory in SYSTEM_DIRECTORIES:
        mount = table.of(directory)
        if mount is not None and (directory == "/" or mount.mount_point == directory):
            found |= disks.disks(mount)
    return found


def writers(view: View, paths: Mapping[str, str]) -> dict[str, list[str]]:
    """Processes that have a device open for writing, such as a virtual machine whose disk it is.

    :param paths: the kernel's name of the device at each path.
    """
    found: dict[str, list[str]] = {}
    own = str(os.getpid())
    for pid in view.names("/proc") if paths else []:
        if not pid.isdigit() or pid == own:
            continue
        for descriptor in view.names(f"/proc/{pid}/fd"):
            name = paths.get(view.link(f"/proc/{pid}/fd/{descriptor}") or "")
            if name is None or not _writes(view.text(f"/proc/{pid}/fdinfo/{descriptor}")):
                continue
            process = (view.text(f"/proc/{pid}/comm") or "").strip() or "a process"
            text = f"{process} ({pid})"
            if text not in found.setdefault(name, []):
                found[name].append(text)
    return found


def _writes(text: str | None) -> bool:
    flags = re.search(r"^flags:\s*([0-7]+)$", text or "", re.MULTILINE)
    return flags is not None and bool(int(flags[1], 8) & os.O_ACCMODE)
