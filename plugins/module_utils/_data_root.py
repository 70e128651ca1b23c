# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges a directory that somebody wants an engine to keep its data in. Changes nothing."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import (
    MEMORY,
    NATIVE,
    NETWORK,
    UNION,
    within,
)

ALLOWED = f"a directory on {', '.join(NATIVE[:-1])} or {NATIVE[-1]} that is empty, absent or already ours"


def judge_data_root(
    facts: Mapping[str, Any],
    variable: str,
    *,
    owner: str | None = None,
    name: str | None = None,
    engine_content: bool = False,
) -> None:
    """Refuse the path that ``facts`` (of :func:`_host_paths.read_path`) are about, or return.

    :param variable: the variable the path came from, for the message.
    :param owner: who must have marked a directory that isn't empty (``{"owner": …}``); None: any mark will do.
    :param name: and under which name; None: any.
    :param engine_content: accept an unmarked directory that holds an engine's data (the engine's own root).
    :raises InputError: if another path has to be chosen.
    :raises HostError: if the host has to be put right (mounted read-only).
    """
    path = str(facts["path"])
    if not posixpath.isabs(path):
        raise InputError(variable, path, "an absolute path")
    kind = facts["target_type"] if facts["type"] == "symlink" else facts["type"]
    if facts["type"] == "symlink" and kind == "absent":
        raise InputError(
            variable, path, f"{ALLOWED}; this is a symbolic link to {facts['real_path']}, which isn't there"
        )
    if kind not in ("directory", "absent"):
        raise InputError(variable, path, f"{ALLOWED}; this is {_article(kind)}")
    if facts.get("mounted_on_type", "directory") != "directory":
        raise InputError(
            variable, path, f"{ALLOWED}; {facts['mounted_on']} is a file, so nothing can be in it"
        )
    _judge_filesystem(facts, variable, path)
    if facts["exists"] and facts["empty"] is False:
        _judge_content(facts, variable, path, owner, name, engine_content)
    if facts["read_only"]:
        raise HostError(
            f"{variable}: {path!r} lies on {facts['mount_point']}, which is mounted read-only; "
            f"remount it read-write (mount -o remount,rw {facts['mount_point']}) or choose another directory"
        )


def judge_apart(roots: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse two labels (variables) whose paths are one directory, or one inside the other.

    :raises InputError: naming the second variable and the first one.
    """
    done: list[tuple[str, Mapping[str, Any]]] = []
    for label, facts in roots.items():
        for other, taken in done:
            inode = facts.get("inode") is not None and (
                (facts["stat_device"], facts["inode"]) == (taken["stat_device"], taken["inode"])
            )
            first, second = str(taken["real_path"]), str(facts["real_path"])
            if inode or within(first, second) or within(second, first):
                raise InputError(
                    label,
                    facts["path"],
                    f"a directory of its own; {other} has {taken['path']!r}, and two engines on one data root destroy it",
                )
        done.append((label, facts))


def _article(kind: str) -> str:
    return "a file" if kind == "file" else "neither a directory nor a file"


def _judge_filesystem(facts: Mapping[str, Any], variable: str, path: str) -> None:
    filesystem = facts["filesystem"]
    if filesystem in NATIVE:
        return
    where = f"{facts['mounted_on']} is on {filesystem} (mounted on {facts['mount_point']})"
    if filesystem in UNION:
        why = "an engine can't stack layers on an overlay and falls back to copying them"
    elif filesystem in MEMORY:
        why = "it keeps images in memory and loses them at a restart"
    elif filesystem in NETWORK or str(filesystem).startswith("fuse."):
        why = "network and FUSE file systems lack the locks and attributes that layers need"
    else:
        why = "no engine is known to keep its layers there"
    raise InputError(variable, path, f"{ALLOWED}; {where}: {why}")


def _judge_content(
    facts: Mapping[str, Any],
    variable: str,
    path: str,
    owner: str | None,
    name: str | None,
    engine_content: bool,
) -> None:
    marker = facts["marker"]
    if marker is not None:
        theirs = (marker.get("owner"), marker.get("name"))
        if (owner is None or owner == theirs[0]) and (name is None or name == theirs[1]):
            return
        raise InputError(
            variable,
            path,
            f"{ALLOWED}; its mark says it belongs to {theirs[0] or 'an unknown owner'} {theirs[1] or ''}".rstrip(),
        )
    if engine_content and facts["engine_markers"]:
        return
    shown = ", ".join(facts["entries"][:5])
    if facts["engine_markers"]:
        raise InputError(variable, path, f"{ALLOWED}; another engine's data is in it ({shown})")
    raise InputError(variable, path, f"{ALLOWED}; it isn't empty and nothing marks it as ours ({shown})")
