# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Data roots of inner engines: who holds one, what a job left in it, which are left over."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from matryoshka_runner.errors import ProgramError
from matryoshka_runner.files import write_whole
from matryoshka_runner.locks import is_held
from matryoshka_runner.process import Run
from matryoshka_runner.trust import ASIDE

DATABASES = (
    "volumes/metadata.db",
    "network/files/local-kv.db",
    "containerd/daemon/io.containerd.metadata.v1.bolt/meta.db",
    "buildkit/*.db",
)
"""Files that a live dockerd keeps locked, seen across namespaces of one kernel."""

JOB_STATE = ("volumes", "network", "swarm", "plugins", "tmp")
"""Folders of a data root that belong to a job; dockerd makes them anew. The rest is cache."""

LEFT = "data-*"
"""Name pattern of roots that don't outlive their environment, in a runner's directory; those that were
set aside stay."""


def holders(data: Path) -> list[Path]:
    """Databases in ``data`` that a live daemon holds; empty means that nobody uses the root."""
    return [path for pattern in DATABASES for path in sorted(data.glob(pattern)) if is_held(path)]


def left_roots(directory: Path) -> list[Path]:
    """Roots in a runner's directory that a crash left."""
    found = (path for path in sorted(directory.glob(LEFT)) if not path.name.startswith(ASIDE))
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def containers_in(data: Path) -> bool:
    """True if containers are recorded in the root."""
    try:
        return any(entry.is_dir() for entry in os.scandir(data / "containers"))
    except OSError:
        return False


def disarm(data: Path) -> int:
    """Take the restart policy off every container in the root, so that none starts with the daemon.

    To be called while nobody holds the root. Returns how many had one.
    """
    count = 0
    for path in data.glob("containers/*/hostconfig.json"):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            policy = content.get("RestartPolicy") or {}
        except (OSError, ValueError, AttributeError):
            continue
        if policy.get("Name") not in ("", "no", None):
            content["RestartPolicy"] = {"Name": "no", "MaximumRetryCount": 0}
            write_whole(path, json.dumps(content), 0o600)
            count += 1
    return count


def forget_job(data: Path, directory: Path, run: Run) -> list[Path]:
    """Move what the last job left (volumes, networks, a swarm…) out of the root.

    To be called while nobody holds the root. Returns the folders that are still to be
    removed with :func:`remove_tree`; what couldn't be moved is removed already.
    """
    present = [data / name for name in JOB_STATE if (data / name).exists()]
    if not present:
        return []
    aside = directory / f"data-left-{secrets.token_hex(4)}"
    aside.mkdir(mode=0o700)
    for path in present:
        try:
            os.rename(path, aside / path.name)
        except OSError:
            remove_tree(path, run)
    return [aside]


def mounts_below(root: Path, table: str) -> Iterator[str]:
    """Mount points at or below ``root`` in the text of a ``mountinfo`` file, deepest first."""
    found = []
    for line in table.splitlines():
        fields = line.split(" ")
        if len(fields) > 4:
            point = fields[4].encode().decode("unicode_escape")
            if point == str(root) or point.startswith(f"{root}/"):
                found.append(point)
    yield from sorted(found, key=len, reverse=True)


def filesystem_of(path: Path, table: str | None = None) -> str:
    """The type of the file system that ``path`` is on, by a ``mountinfo`` file; empty if that can't be told."""
    if table is None:
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    found, longest = "", -1
    for line in table.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if not dash or len(fields) < 5:
            continue
        point = Path(fields[4].encode().decode("unicode_escape"))
        if (point == path or point in path.parents) and len(point.parts) >= longest:
            found, longest = after.split(" ")[0], len(point.parts)
    return found


def remove_tree(root: Path, run: Run) -> None:
    """Remove a folder and all in it, but nothing that is mounted there.

    ProgramError if something stays.
    """
    if root.is_symlink() or not root.exists():
        return
    table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    for point in mounts_below(root, table):
        run(["umount", "--lazy", point])
    result = run(["rm", "-rf", "--one-file-system", "--", str(root)], timeout=3600)
    if root.exists():
        raise ProgramError(f"{root} can't be removed: {result.detail}")
