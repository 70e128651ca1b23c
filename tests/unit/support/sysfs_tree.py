# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a directory that looks like a host's ``/sys`` and ``/proc``, of a few files and links."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View

QUEUE = {
    "rotational": "0",
    "scheduler": "[none] mq-deadline",
    "read_ahead_kb": "128",
    "discard_max_bytes": "2199023255040",
    "discard_granularity": "512",
    "write_cache": "write back",
    "zoned": "none",
    "logical_block_size": "512",
    "physical_block_size": "4096",
}


class Tree:
    """A host's files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.view = View(str(root))

    def write(self, path: str, text: str = "") -> None:
        """A file, its folders included."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def folder(self, path: str) -> None:
        (self.root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def link(self, path: str, target: str) -> None:
        """A symbolic link. One to a path of the host becomes a relative one, as the kernel makes them."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        inside = target.startswith("/") and target != "/" and not target.startswith(str(self.root))
        place.symlink_to(os.path.relpath(self.root / target.lstrip("/"), place.parent) if inside else target)

    def block(
        self,
        place: str,
        number: str,
        files: Mapping[str, str] | None = None,
        *,
        sectors: int = 0,
        below: Sequence[str] = (),
        queue: Mapping[str, str] | None = None,
    ) -> None:
        """A block device at ``/sys/devices/PLACE``. A partition (``partition`` in ``files``) has no queue.

        :param below: names of the devices it is made of.
        :param queue: what differs from :data:`QUEUE`.
        """
        files = files or {}
        name, home = place.rpartition("/")[2], f"/sys/devices/{place}"
        for path, text in {"dev": number, "size": str(sectors), **files}.items():
            self.write(f"{home}/{path}", text + "\n")
        if "partition" not in files:
            for path, text in {**QUEUE, **(queue or {})}.items():
                self.write(f"{home}/queue/{path}", text + "\n")
        self.folder(f"{home}/slaves")
        for one in below:
            self.link(f"{home}/slaves/{one}", f"/sys/class/block/{one}")
        self.link(f"/sys/class/block/{name}", home)
        self.link(f"/sys/dev/block/{number}", home)

    def process(
        self,
        pid: int,
        name: str,
        *,
        mount: str = "mnt:[1]",
        space: str = "pid:[1]",
        cgroup: str = "0::/init.scope",
        parent: int = 0,
        mountinfo: str | None = None,
        opened: Sequence[str] = (),
    ) -> None:
        """A process; ``opened`` are files that it has open, as it would name them on the host."""
        home = f"/proc/{pid}"
        self.write(f"{home}/comm", name + "\n")
        self.write(f"{home}/cgroup", cgroup + "\n")
        self.write(f"{home}/stat", f"{pid} ({name}) S {parent} 1 1 0\n")
        if mountinfo is not None:
            self.write(f"{home}/mountinfo", mountinfo)
        self.link(f"{home}/ns/mnt", mount)
        self.link(f"{home}/ns/pid", space)
        self.link(f"{home}/root", "/")
        self.link(f"{home}/exe", "/proc/self")
        self.folder(f"{home}/fd")
        for number, path in enumerate(opened):
            self.link(f"{home}/fd/{number}", str(self.root / path.lstrip("/")))

    def lock(self, path: str, pid: int, device: str | None = None) -> str:
        """A line of ``/proc/locks`` for a lock of ``pid`` on a file; ``device`` if not the file's own."""
        found = os.stat(self.root / path.lstrip("/"))
        where = device or f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
        return f"1: FLOCK  ADVISORY  WRITE {pid} {where}:{found.st_ino} 0 EOF\n"
