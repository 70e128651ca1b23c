# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads files of a host, or of a container of it through ``/proc/<pid>/root``."""

from __future__ import annotations

import os


class View:
    """The files below ``root``. What isn't there or can't be read is None or empty, never an error."""

    def __init__(self, root: str = "/") -> None:
        self.root = root

    def path(self, path: str) -> str:
        """``path`` (absolute, as seen inside) as this process reaches it."""
        return path if self.root == "/" else os.path.join(self.root, path.lstrip("/"))

    def text(self, path: str) -> str | None:
        """The content of a file."""
        try:
            with open(self.path(path), encoding="utf-8", errors="replace") as file:
                return file.read()
        except (OSError, ValueError):
            return None

    def word(self, path: str) -> str | None:
        """The content of a file of one line, without the space around it; None for an empty one too."""
        return (self.text(path) or "").strip() or None

    def integer(self, path: str) -> int | None:
        """The number, not below 0, that a file holds and nothing else; None if it isn't one."""
        text = self.word(path) or ""
        return int(text) if text.isascii() and text.isdecimal() else None

    def names(self, path: str) -> list[str]:
        """The sorted names in a directory."""
        try:
            return sorted(os.listdir(self.path(path)))
        except (OSError, ValueError):
            return []

    def exists(self, path: str) -> bool:
        return os.path.exists(self.path(path))

    def link(self, path: str) -> str | None:
        """Where a symbolic link points, one step."""
        try:
            return os.readlink(self.path(path))
        except (OSError, ValueError):
            return None

    def real(self, path: str) -> str:
        """``path`` without symbolic links, resolved within the view; what doesn't exist stays as it is."""
        if self.root == "/":
            return os.path.realpath(path)
        done = "/"
        todo = [part for part in path.split("/") if part]
        links = 0
        while todo:
            part = todo.pop(0)
            if part in (".", ".."):
                done = os.path.dirname(done) if part == ".." else done
                continue
            target = self.link(os.path.join(done, part))
            links += target is not None
            if target is None or links > 40:
                done = os.path.join(done, part)
                continue
            todo = [name for name in target.split("/") if name] + todo
            done = "/" if target.startswith("/") else done
        return done
