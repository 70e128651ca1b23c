# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runners leave on the host: state, configuration, lock, queue; and any file's identity."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import posixpath
import pwd
import stat
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._verify_kernel import (
    Lock,
    lock_holders,
    read_process,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    FileView,
    QueueView,
    RunnerView,
)

CONFIGS = "/etc/matryoshka/runners"
STATES = "/run/matryoshka/runners"
FOLDERS = ("new", "claimed", "done", "refused")
#: Entries of a queue's folder that are looked at; a folder of finished jobs may hold many.
ENTRIES = 200


def read_file(path: str, digest: bool = False) -> FileView | None:
    """A path as ``lstat`` sees it, with the SHA-256 of a regular file if ``digest``; None if it isn't there."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None
    return FileView(
        kind=_kind(found.st_mode),
        mode=f"{stat.S_IMODE(found.st_mode):04o}",
        owner=_user(found.st_uid),
        group=_group(found.st_gid),
        size=found.st_size,
        sha256=_digest(path) if digest and stat.S_ISREG(found.st_mode) else None,
        changed=found.st_ctime,
    )


def _kind(mode: int) -> str:
    for test, name in ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "link")):
        if test(mode):
            return name
    return "other"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _digest(path: str) -> str | None:
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except OSError:
        return None


def read_runner(config: Mapping[str, Any], locks: Iterable[Lock]) -> RunnerView:
    """State, configuration and lock of the runner that should have ``config``."""
    name, host, seen = config["name"], View(), RunnerView()
    seen.state, seen.state_error = _json(host.text(f"{STATES}/{name}.json"), f"{STATES}/{name}.json")
    text = host.text(f"{CONFIGS}/{name}.json")
    if text is not None:
        seen.config_sha256 = hashlib.sha256(text.encode()).hexdigest()
        seen.config = _json(text, "")[0]
    pid = (seen.state or {}).get("pid")
    if isinstance(pid, int) and host.exists(f"/proc/{pid}"):
        seen.pid_unit = read_process(pid).unit
    lock = posixpath.join(str(config["directory"]), "lock")
    seen.lock_exists = host.exists(lock)
    seen.lock_holders = lock_holders(lock, locks)
    return seen


def _json(text: str | None, path: str) -> tuple[dict[str, Any] | None, str | None]:
    if text is None:
        return None, f"{path} isn't there"
    try:
        value = json.loads(text)
    except ValueError as error:
        return None, f"{path} isn't JSON: {error}"
    return (value, None) if isinstance(value, dict) else (None, f"{path} isn't a JSON mapping")


def read_queue(path: str) -> QueueView:
    """The folders of a directory queue and what lies in those that should be drained."""
    seen = QueueView(folders={"": read_file(path)})
    for name in FOLDERS:
        folder = posixpath.join(path, name)
        seen.folders[name] = read_file(folder)
        names = View().names(folder) if name != "done" else []
        if name == "claimed":
            names = [
                f"{runner}/{job}" for runner in names for job in View().names(posixpath.join(folder, runner))
            ]
        views = {entry: read_file(posixpath.join(folder, entry)) for entry in names[:ENTRIES]}
        seen.entries[name] = {entry: view for entry, view in views.items() if view is not None}
    return seen
