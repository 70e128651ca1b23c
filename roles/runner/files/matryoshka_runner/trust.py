# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a persistent data root can be trusted after the machine went down.

A mark beside the root, out of the environment's reach, says ``dirty BOOT`` from before a daemon first
writes in it until the last one has ended and all it wrote is on disk; then it says ``clean``. While
the machine runs, the kernel loses nothing, whatever is killed. A power cut loses what was written last:
a root that is dirty of another boot is set aside, named, and a new one begun.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matryoshka_runner.cgroups import boot_id
from matryoshka_runner.files import now, sync_folder, write_whole
from matryoshka_runner.meter import Disk

ASIDE = "data-untrusted-"
"""Beginning of the names of roots that were set aside; a time in UTC follows."""
SCARCE = 0.2
"""With less than this part of the disk free, a root that was set aside isn't kept."""


def sync_all(folder: Path) -> None:
    """Returns when all that was written to the file system of ``folder`` is on disk (``syncfs(2)``)."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if library.syncfs(number) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(number)


def set_aside_roots(directory: Path) -> list[Path]:
    """What was set aside in a runner's directory, the oldest first."""
    return sorted(path for path in directory.glob(f"{ASIDE}*") if path.is_dir() and not path.is_symlink())


class Trust:
    """The mark of one data root. The caller holds the runner's lock.

    :param data: the root; the mark lies beside it.
    :param boot: what tells this boot from others.
    """

    def __init__(self, data: Path, say: Callable[[str], None], boot: Callable[[], str] = boot_id) -> None:
        self._data = data
        self._mark = data.with_name("data.mark")
        self._say = say
        self._boot = boot
        self._dirty = False
        self.last: dict[str, Any] | None = None

    def doubt(self) -> str:
        """Why the root can't be trusted; empty if it can. A root without a mark is older than marks: it can."""
        try:
            words = self._mark.read_text(encoding="utf-8", errors="replace").split()
        except FileNotFoundError:
            return ""
        if words == ["clean"] or words == ["dirty", self._boot()]:
            return ""
        if len(words) == 2 and words[0] == "dirty":
            return "the machine went down while a daemon wrote in it"
        return f"{self._mark} can't be read: {' '.join(words)[:40]!r}"

    def begin(self) -> list[Path]:
        """A daemon is about to write. Sets aside what can't be trusted; folders that may be removed.

        Costs nothing from the second environment of a start of the program on.
        """
        if self._dirty:
            return []
        doubt = self.doubt()
        surplus = self.set_aside(doubt) if doubt else []
        self._data.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        write_whole(self._mark, f"dirty {self._boot()}\n", 0o600)
        self._dirty = True
        return surplus

    def set_aside(self, reason: str) -> list[Path]:
        """Move the root out of the way; the folders that may be removed: older ones, or it too if room is scarce."""
        directory = self._data.parent
        if not self._data.is_dir() or not any(self._data.iterdir()):
            return []
        target = directory / f"{ASIDE}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        number = 1
        older = set_aside_roots(directory)
        while target.exists():
            number += 1
            target = target.with_name(f"{target.name.split('.')[0]}.{number}")
        os.rename(self._data, target)
        sync_folder(directory)
        self.last = {"path": str(target), "reason": reason, "time": now()}
        disk = Disk.of(directory)
        scarce = disk is not None and disk.free < SCARCE * disk.size
        fate = "it is removed, as room is scarce" if scarce else "it can be removed"
        self._say(f"the cache isn't used again, {reason}: set aside as {target}; {fate}")
        return [*older, target] if scarce else older

    def found(self, before: Any) -> dict[str, Any] | None:
        """What lies set aside, for the state: path, reason, time.

        :param before: the same as an earlier start of the program said it.
        """
        if self.last is not None and Path(self.last["path"]).is_dir():
            return self.last
        roots = set_aside_roots(self._data.parent)
        if not roots:
            return None
        path = str(roots[-1])
        if isinstance(before, dict) and before.get("path") == path:
            return before
        return {"path": path, "reason": "it couldn't be trusted at an earlier start", "time": None}

    def end(self) -> None:
        """No daemon writes any more: have what the last one wrote on disk, then say so.

        However it ended: what a killed one leaves is trusted while the machine runs, and on disk it is the same.
        """
        if not self._dirty or not self._data.is_dir():
            return
        sync_all(self._data)
        write_whole(self._mark, "clean\n", 0o600)
        self._dirty = False
