# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Environments that live on though the engine has no container of theirs.

Where containerd dies while dockerd starts a container, dockerd takes the start for failed and forgets the
container when told to, while its processes run and hold their data root. What is in a runner's slice and in no
container is such an environment.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

from matryoshka_runner.cgroups import ROOT, slice_path
from matryoshka_runner.firstprocess import FirstProcess

CONTAINER = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
"""A container's id in the name of its control group, of either cgroup driver."""


def end(slice_name: str, known: Callable[[str], bool], proc: str = "/proc", root: str = ROOT) -> list[str]:
    """End all environments in a slice whose containers aren't known; the ids of those that were ended.

    :param known: whether the engine has a container with this id.
    """
    ended: dict[str, None] = {}
    for identity, pids in members(slice_name, root).items():
        if known(identity):
            continue
        for pid in sorted(pids):
            shim = shim_of(pid, identity, proc)
            if _end_first(pid, proc):
                ended[identity] = None
                if shim:
                    _kill(shim)
    return list(ended)


def members(slice_name: str, root: str = ROOT) -> dict[str, set[int]]:
    """The processes below a slice by the id of the outermost container that they are in."""
    unified = Path(root, "cgroup.controllers").exists()
    trees = [Path(root)] if unified else [path for path in Path(root).glob("*") if not path.is_symlink()]
    found: dict[str, set[int]] = {}
    for tree in trees:
        top = f"{tree}{slice_path(slice_name)}"
        for folder, _below, _files in os.walk(top):
            container = CONTAINER.search(folder.removeprefix(top))
            if container is not None:
                found.setdefault(container[0], set()).update(_pids(Path(folder)))
    return found


def shim_of(pid: int, identity: str, proc: str = "/proc") -> int:
    """The container's shim if it is the parent of a process; else 0."""
    try:
        stat = Path(proc, str(pid), "stat").read_text(encoding="ascii", errors="replace")
        parent = int(stat.rpartition(")")[2].split()[1])
        words = Path(proc, str(parent), "cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, IndexError):
        return 0
    is_shim = os.path.basename(words[0]).startswith(b"containerd-shim") and identity.encode() in words
    return parent if is_shim else 0


def _pids(folder: Path) -> set[int]:
    try:
        return {int(line) for line in (folder / "cgroup.procs").read_text(encoding="ascii").split()}
    except (OSError, ValueError):
        return set()


def _end_first(pid: int, proc: str) -> bool:
    """End a container by its first process; False for any other process."""
    first = FirstProcess.of(pid, proc)
    if first is None:
        return False
    try:
        return first.kill()
    finally:
        first.close()


def _kill(shim: int) -> None:
    """containerd cleans up after a shim that is gone; one that nobody asks any more stays."""
    try:
        os.kill(shim, signal.SIGKILL)
    except OSError:
        return
