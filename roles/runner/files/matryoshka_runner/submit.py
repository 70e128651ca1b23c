# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``matryoshka job``: hand a script to the directory queue, stream its log, end with its exit code."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from matryoshka_runner.causes import explain
from matryoshka_runner.errors import EXIT_FAILED, EXIT_REFUSED, EXIT_TRY_LATER, ProgramError
from matryoshka_runner.files import read_json, sync_folder

POLL = 0.1
PATIENCE = 5.0
"""Seconds after which a waiting job says so, on standard error."""


class RefusedFile(ProgramError):
    """The file isn't a job."""

    code = EXIT_REFUSED


def hand_in(source: Path, queue: Path, runner: str | None) -> str:
    """Put a copy of ``source`` into the queue under a new id, in one step; the id.

    :param runner: the only runner that may take it; None for any.
    """
    if not source.exists():
        raise RefusedFile(f"{source}: no such file")
    if not stat.S_ISREG(source.stat().st_mode):
        raise RefusedFile(f"{source} isn't a regular file; a job is a script or a program")
    if source.stat().st_size == 0:
        raise RefusedFile(f"{source} is empty; a job is a script or a program")
    new = queue / "new"
    if not new.is_dir():
        raise ProgramError(f"{new} isn't there: this host has no runner with the local queue")
    base = re.sub(r"[^A-Za-z0-9_+-]", "-", source.stem)[:40].strip("-+_") or "job"
    identity = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{base}-{secrets.token_hex(4)}"
    hidden = new / f".{identity}"
    try:
        with open(source, "rb") as read, open(hidden, "xb") as write:
            os.fchmod(write.fileno(), 0o640)
            shutil.copyfileobj(read, write)
            write.flush()
            last_in_line(write.fileno(), new)
            os.fsync(write.fileno())
        os.rename(hidden, new / (f"{identity}@{runner}" if runner else identity))
        sync_folder(new)
    except BaseException as error:
        with suppress(OSError):
            hidden.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ProgramError(f"{new}: the job can't be handed in: {explain(error)}") from None
        raise
    return identity


def last_in_line(file: int, new: Path) -> None:
    """Jobs are taken by their files' times: give ``file`` one after all that wait, wherever the clock was set to."""
    newest = 0
    with os.scandir(new) as found:
        for entry in found:
            with suppress(OSError):
                if not entry.name.startswith("."):
                    newest = max(newest, entry.stat(follow_symlinks=False).st_mtime_ns)
    if newest >= os.fstat(file).st_mtime_ns:
        os.utime(file, ns=(newest, newest + 1_000_000))


class Follower:
    """Follows one job from the queue to its end."""

    def __init__(self, queue: Path, identity: str, runner: str | None, out: IO[bytes]) -> None:
        self.queue = queue
        self.identity = identity
        self.waiting = queue / "new" / (f"{identity}@{runner}" if runner else identity)
        self._out = out
        self._log: IO[bytes] | None = None

    def result(self) -> dict[str, Any] | None:
        """The job's result once it has one."""
        for place in ("done", "refused"):
            found = read_json(self.queue / place / self.identity / "result.json")
            if isinstance(found, dict):
                return found
        return None

    def copy_log(self) -> None:
        """Write what the log has got since the last call."""
        if self._log is None:
            places = [
                *self.queue.glob(f"claimed/*/{self.identity}/log"),
                self.queue / "done" / self.identity / "log",
            ]
            for place in places:
                try:
                    self._log = open(place, "rb")  # noqa: SIM115  (kept open: the log moves with its job)
                    break
                except OSError:
                    continue
        if self._log is not None:
            shutil.copyfileobj(self._log, self._out)
            self._out.flush()

    def withdraw(self) -> bool:
        """Take the job back; False if it is claimed already."""
        try:
            self.waiting.unlink()
        except OSError:
            return False
        return True


def follow(
    follower: Follower, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> int:
    """Stream the log until the job has ended; the exit code for the caller."""
    patience = time.monotonic() + PATIENCE
    while True:
        result = follower.result()
        follower.copy_log()
        if result is not None:
            return report(result, say)
        if patience and time.monotonic() > patience and follower.waiting.exists():
            say(f"{follower.identity} waits for a runner (matryoshka status)")
            patience = 0.0
        sleep(POLL)


def report(result: dict[str, Any], say: Callable[[str], None]) -> int:
    """Say how the job ended; the exit code: its own, 75 if it was cut off, 65 if it was refused."""
    status, code = result.get("status"), result.get("exit_code")
    if status in ("cut off", "refused"):
        say(f"{result.get('job')}: {status}: {result.get('reason')}")
        return EXIT_TRY_LATER if status == "cut off" else EXIT_REFUSED
    where = f"{result.get('seconds')} s on runner {result.get('runner')}"
    why = f": {result['reason']}" if result.get("reason") else ""
    say(f"{result.get('job')}: {status}, exit code {code}, {where}{why}")
    return code if isinstance(code, int) else EXIT_FAILED


def submit(source: Path, queue: Path, runner: str | None) -> int:
    """The whole of ``matryoshka job``."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    identity = hand_in(source, queue, runner)
    follower = Follower(queue, identity, runner, sys.stdout.buffer)
    try:
        return follow(follower, say)
    except KeyboardInterrupt:
        taken_back = follower.withdraw()
        say(
            f"{identity}: "
            + ("taken back" if taken_back else f"goes on; its log comes to {queue}/done/{identity}/log")
        )
        return 130
