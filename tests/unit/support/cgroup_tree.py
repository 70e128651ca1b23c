# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a host with slices, for tests of what the kernel holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._limits_input import LIMITS

ROOT = "30 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
V2 = ROOT + "31 30 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = (
    ROOT
    + "31 30 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n"
    + "".join(
        f"{number} 31 0:{number} / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n"
        for number, name in enumerate(("cpu", "memory", "pids", "blkio"), 32)
    )
    + "40 31 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
RUNNER = "matryoshka.slice/matryoshka-ci.slice"


def slice_of(name: str = "matryoshka-ci.slice", runner: str | None = "ci", **limits: Any) -> dict[str, Any]:
    """A planned slice."""
    return {
        "name": name,
        "runner": runner,
        **dict.fromkeys(LIMITS),
        "io_paths": [],
        **limits,
    }


def write(root: Path, files: Mapping[str, str]) -> View:
    """A view of a host that has these files."""
    for path, text in files.items():
        where = root / path.lstrip("/")
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(text, encoding="utf-8")
    return View(str(root))


def v2(root: Path, files: Mapping[str, str] = {}, runner: str = RUNNER) -> View:
    """A host with cgroup v2; ``files`` are those of the runner's slice."""
    return write(
        root,
        {
            "/proc/self/mountinfo": V2,
            "/proc/1/cgroup": "0::/init.scope\n",
            "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
            **{f"/sys/fs/cgroup/{runner}/{name}": text for name, text in files.items()},
        },
    )


def v1(root: Path, files: Mapping[str, str] = {}) -> View:
    """A hybrid host; ``files`` are ``CONTROLLER/FILE`` of the runner's slice."""
    placed = {}
    for name, text in files.items():
        controller, _slash, file = name.partition("/")
        placed[f"/sys/fs/cgroup/{controller}/{RUNNER}/{file}"] = text
    return write(
        root,
        {
            "/proc/self/mountinfo": V1,
            "/proc/1/cgroup": "4:blkio:/\n3:pids:/init.scope\n2:memory:/init.scope\n1:cpu:/init.scope\n0::/init.scope\n",
            "/sys/fs/cgroup/unified/cgroup.controllers": "",
            **placed,
        },
    )
