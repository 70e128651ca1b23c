# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with file systems that count: its kernel, its btrfs, its files below a temporary directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._command import CommandError, Result
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._project_quota_apply import answer
from ansible_collections.matryoshka.host.plugins.module_utils._project_quota_read import System
from ansible_collections.matryoshka.host.plugins.module_utils._quotactl import Limits, QuotaState, Usage

ON = QuotaState(True, True)
UUID = "8c1b5f4e-0000-4000-8000-000000000001"


class FakeMarks:
    """Project ids, kept by inode."""

    def __init__(self, special: bool = True) -> None:
        self.ids: dict[int, tuple[int, bool]] = {}
        self.special = special

    def project_of(self, file: str | int) -> tuple[int, bool]:
        return self.ids.get(os.stat(file).st_ino, (0, False))

    def set_project(self, descriptor: int, project: int) -> None:
        status = os.fstat(descriptor)
        self.ids[status.st_ino] = (project, stat.S_ISDIR(status.st_mode) and bool(project))

    def set_special_project(self, name: str, project: int, directory: int) -> bool:
        if self.special:
            self.ids[os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino] = (project, False)
        return self.special

    def of(self, path: Path) -> int:
        """The project id of a file that needn't be one to open."""
        return self.ids.get(path.lstat().st_ino, (0, False))[0]


class FakeKernel(FakeMarks):
    """Quotas by project id; ``used`` is what a test says is used."""

    def __init__(self, state: QuotaState = ON) -> None:
        super().__init__()
        self.state = state
        self.limits: dict[int, Limits] = {}
        self.used: dict[int, tuple[int, int]] = {}
        self.calls: list[int] = []

    def quota_state(self, device: str | None, mount_point: str, filesystem: str = "") -> QuotaState:
        return self.state

    def get_project_quota(self, device: str | None, project: int, mount_point: str | None = None) -> Usage:
        return Usage(project, *self.used.get(project, (0, 1)), self.limits.get(project, Limits()))

    def next_project_quota(
        self, device: str | None, project: int, mount_point: str | None = None
    ) -> Usage | None:
        known = sorted(number for number in {*self.limits, *self.used} if number >= project)
        return self.get_project_quota(device, known[0]) if known else None

    def set_project_limits(
        self, device: str | None, project: int, limits: Limits, mount_point: str | None = None
    ) -> None:
        self.calls.append(project)
        self.limits[project] = limits


@dataclass
class FakeBtrfs:
    """``btrfs`` as a program and as ioctls; its sysfs lies below ``root``."""

    root: Path
    simple: bool = True
    subvolumes: dict[str, int] = field(default_factory=dict)
    argv: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.simple:
            self._file("features/simple_quota", "0")

    def subvolume(self, path: str) -> int | None:
        return self.subvolumes.get(path)

    def filesystem(self, path: str) -> str:
        return UUID

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        self.argv.append(list(argv))
        result = self._run(list(argv[1:]))
        if check and not result.ok:
            raise CommandError(argv, result)
        return result

    def _run(self, argv: list[str]) -> Result:
        path = argv[-1]
        if argv[:2] == ["subvolume", "create"]:
            os.mkdir(path)
            self.subvolumes[path] = 256 + len(self.subvolumes)
        elif argv[:2] == ["quota", "enable"]:
            if "--simple" in argv and not self.simple:
                return Result(1, "", "btrfs quota enable: unrecognized option '--simple'")
            self._file(f"{UUID}/qgroups/mode", "squota\n" if "--simple" in argv else "qgroup\n")
        elif argv[:2] == ["quota", "rescan"]:
            self._file(f"{UUID}/qgroups/inconsistent", "0\n")
        elif argv[:2] == ["qgroup", "limit"]:
            group = f"{UUID}/qgroups/0_{self.subvolumes[path]}"
            self._file(f"{group}/max_referenced", "0" if argv[2] == "none" else argv[2])
            self._file(f"{group}/limit_flags", "0" if argv[2] == "none" else "1")
        return Result(0)

    def use(self, path: str, size: int) -> None:
        """Let a subvolume refer to ``size`` bytes."""
        self._file(f"{UUID}/qgroups/0_{self.subvolumes[path]}/referenced", f"{size}\n")

    def stop_counting(self) -> None:
        """As btrfs does when a large subvolume is deleted."""
        self._file(f"{UUID}/qgroups/inconsistent", "1\n")

    def _file(self, name: str, text: str) -> None:
        target = self.root / "sys/fs/btrfs" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


@dataclass
class QuotaHost:
    """All of it. ``data`` is where the file system is mounted."""

    data: Path
    root: Path
    kernel: FakeKernel
    btrfs: FakeBtrfs
    system: System

    def text(self, path: str) -> str:
        file = self.root / path.lstrip("/")
        return file.read_text() if file.exists() else ""

    def write(self, path: str, text: str) -> None:
        (self.root / path.lstrip("/")).write_text(text)


def quota_host(base: Path, filesystem: str, state: QuotaState = ON, simple: bool = True) -> QuotaHost:
    """A host with ``filesystem`` mounted on ``base``/data."""
    base = base.resolve()
    data, root = base / "data", base / "host"
    for folder in (data, root / "etc", root / "proc/self", root / "sys/dev/block/259:1"):
        folder.mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(
        "1 0 8:1 / / rw - overlay overlay rw\n"
        f"2 1 259:1 / {data} rw,noatime shared:1 - {filesystem} /dev/nvme0n1p1 rw,prjquota\n"
    )
    (root / "sys/dev/block/259:1/size").write_text("209715200\n")
    kernel, btrfs = FakeKernel(state), FakeBtrfs(root, simple)
    return QuotaHost(data, root, kernel, btrfs, System(View(str(root)), kernel, btrfs))


def ask(host: QuotaHost, *entries: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
    """The answer for entries whose paths are below the mounted file system."""
    quotas = [{"size": None, "soft": None, "inodes": None} | entry for entry in entries]
    for entry in quotas:
        if not entry["path"].startswith("/"):
            entry["path"] = str(host.data / entry["path"])
    parameters = {"quotas": quotas, "owner": "matryoshka", "orphans": True} | options
    return answer(parameters, check, host.btrfs, host.system)


def state(host: QuotaHost) -> Any:
    """All that a refused call must leave alone."""
    files = sorted(str(path) for path in host.data.parent.rglob("*"))
    texts = host.text("/etc/projects"), host.text("/etc/projid")
    return files, texts, dict(host.kernel.ids), dict(host.kernel.limits), list(host.btrfs.argv)
