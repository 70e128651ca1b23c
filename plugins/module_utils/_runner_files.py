# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan of runners means in files and folders on the host."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MARKER = ".matryoshka"


def sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def installed_files(
    paths: Sequence[str], contents: Sequence[str], directory: str, mode: str = "0644"
) -> list[dict[str, str]]:
    """Local files as files of the host in ``directory``."""
    return [
        {"path": posixpath.join(directory, posixpath.basename(path)), "content": content, "mode": mode}
        for path, content in zip(paths, contents, strict=True)
    ]


def runner_config(runner: Mapping[str, Any]) -> str:
    """The text of a runner's configuration file."""
    return json.dumps(runner, indent=2, sort_keys=True) + "\n"


def runner_files(plan: Sequence[Mapping[str, Any]], directory: str) -> list[dict[str, Any]]:
    """For every runner its configuration and the mark that its folder is ours."""
    files: list[dict[str, Any]] = []
    for runner in plan:
        mark = json.dumps({"owner": "runner", "name": runner["name"]}) + "\n"
        files.append(
            {
                "path": posixpath.join(directory, f"{runner['name']}.json"),
                "content": runner_config(runner),
                "mode": "0600",
                "secret": True,
            }
        )
        files.append({"path": posixpath.join(runner["directory"], MARKER), "content": mark, "mode": "0644"})
    return files


def runner_directories(
    plan: Sequence[Mapping[str, Any]], config: str, library: str, root: str, queue_group: str
) -> list[dict[str, str]]:
    """The folders that runners need, parents first, each once."""
    wanted: dict[str, dict[str, str]] = {}

    def add(path: str, mode: str, group: str = "root") -> None:
        wanted.setdefault(path, {"path": path, "mode": mode, "owner": "root", "group": group})

    for path in (posixpath.dirname(config), config, posixpath.dirname(library), library):
        add(path, "0755")
    add(root, "0711")
    for runner in plan:
        add(runner["directory"], "0711")
    for queue in sorted({runner["agent"]["queue"] for runner in plan if "queue" in runner["agent"]}):
        add(queue, "0755")
        add(posixpath.join(queue, "new"), "2770", queue_group)
        for name in ("claimed", "done", "refused"):
            add(posixpath.join(queue, name), "2750", queue_group)
    return list(wanted.values())


def runner_triggers(
    plan: Sequence[Mapping[str, Any]], program: Iterable[Mapping[str, str]]
) -> dict[str, str]:
    """For every runner what makes its process read everything anew: its configuration or the program."""
    base = sha256("".join(sha256(one["content"]) for one in program))
    return {runner["name"]: sha256(base + runner_config(runner)) for runner in plan}


def file_digests(files: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Files without their contents, for comparison with what is on the host."""
    return [
        {
            "path": one["path"],
            "sha256": sha256(one["content"]),
            "mode": one.get("mode", "0644"),
            "owner": one.get("owner", "root"),
            "group": one.get("group", "root"),
        }
        for one in files
    ]
