# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads files of a container from outside, although a job could have put anything there.

No link is followed, for it would lead into the host's own files; only real files are opened,
for a pipe would never answer; and only so much is read.
"""

from __future__ import annotations

import os
import stat

from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View

LIMIT = 1 << 20


class Inside(View):
    """The files of the container whose first process is ``pid``."""

    def __init__(self, pid: int, proc: str = "/proc") -> None:
        super().__init__(f"{proc}/{pid}/root")

    def text(self, path: str) -> str | None:
        descriptor = self._open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        if descriptor is None:
            return None
        try:
            return os.read(descriptor, LIMIT).decode(errors="replace")
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def names(self, path: str) -> list[str]:
        descriptor = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        if descriptor is None:
            return []
        try:
            return sorted(os.listdir(descriptor))
        except OSError:
            return []
        finally:
            os.close(descriptor)

    def exists(self, path: str) -> bool:
        descriptor = self._open(path, os.O_PATH)
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is not None

    def link(self, path: str) -> str | None:
        return None

    def real(self, path: str) -> str:
        return path

    def _open(self, path: str, flags: int) -> int | None:
        """A descriptor of ``path``, reached part by part; None if it isn't there or isn't what is wanted."""
        try:
            here = os.open(self.root, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return None
        try:
            parts = [part for part in path.split("/") if part]
            for part in parts[:-1]:
                below = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
            if parts:
                below = os.open(parts[-1], os.O_PATH | os.O_NOFOLLOW, dir_fd=here)
                os.close(here)
                here = below
            kind = os.fstat(here).st_mode
            if stat.S_ISLNK(kind) or not (flags & (os.O_PATH | os.O_DIRECTORY) or stat.S_ISREG(kind)):
                return None
            # What was looked at is what is opened, whatever has its name by now.
            return os.open(f"/proc/self/fd/{here}", flags | os.O_CLOEXEC)
        except (OSError, ValueError):
            return None
        finally:
            os.close(here)
