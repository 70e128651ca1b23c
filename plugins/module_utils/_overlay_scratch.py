# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scratch directories that vanish: with their maker, with a guard if the maker is killed, or at the next call.

Who uses a scratch directory holds a lock (flock(2)) on it, so one whose lock is free was left by the dead.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import signal
import stat
import time

PREFIX = ".matryoshka-overlay-probe-"
_TRIES = 20


class Guard:
    """A process that outlives this one to remove the scratch directories it left, then ends.

    It learns of the end by a pipe: this process and all that it forks hold the writing side.
    """

    def __init__(self) -> None:
        reader, self._writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._writer)
            _stand_guard(reader)
        os.close(reader)

    def announce(self, path: str) -> None:
        """Say before a directory is made that it has to go."""
        os.write(self._writer, b"+" + os.fsencode(path) + b"\0")

    def dismiss(self, path: str) -> None:
        """Say that a directory is gone."""
        os.write(self._writer, b"-" + os.fsencode(path) + b"\0")

    def end(self, patience: float = 3.0) -> None:
        """Wait until the guard has done what was left to do, unless that hangs: then it goes on alone."""
        os.close(self._writer)
        deadline = time.monotonic() + patience
        while os.waitpid(self._pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.002)


def _stand_guard(reader: int) -> None:
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    told = b""
    while part := os.read(reader, 65536):
        told += part
    for path in outstanding(told):
        remove(path)
    os._exit(0)


def outstanding(told: bytes) -> list[str]:
    """The directories that were announced and not dismissed, in what a guard was told."""
    open_paths: dict[str, None] = {}
    for message in told.split(b"\0")[:-1]:
        path = os.fsdecode(message[1:])
        if message.startswith(b"+"):
            open_paths[path] = None
        else:
            open_paths.pop(path, None)
    return list(open_paths)


class Scratch:
    """A directory of one's own in ``parent``; ``descriptor`` is it, opened and locked.

    :raises OSError: if it can't be made, as on a read-only or full file system.
    """

    def __init__(self, parent: str, guard: Guard) -> None:
        self._guard = guard
        for attempt in range(_TRIES):
            self.path = os.path.join(parent, f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}")
            guard.announce(self.path)
            try:
                os.mkdir(self.path, 0o711)
                self.descriptor = _lock(self.path)
                return
            except (BlockingIOError, FileNotFoundError):
                # Another call swept it away between its making and its locking.
                if attempt + 1 == _TRIES:
                    raise
            except OSError:
                remove(self.path)
                raise

    def remove(self) -> None:
        """Take it away."""
        remove(self.path)
        os.close(self.descriptor)
        if not os.path.lexists(self.path):
            self._guard.dismiss(self.path)


def _lock(path: str) -> int:
    """The directory, opened and locked.

    :raises BlockingIOError: if somebody else has locked it.
    :raises FileNotFoundError: if it isn't there any more.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        if not os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def remove(path: str, patience: float = 2.0) -> None:
    """Remove a tree, without following links; try again while something still writes into it."""
    deadline = time.monotonic() + patience
    while os.path.lexists(path):
        shutil.rmtree(path, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        if os.path.lexists(path):
            time.sleep(0.02)


def sweep(parent: str) -> list[str]:
    """Remove what dead calls of this user left in ``parent``; the names of it."""
    try:
        names = [name for name in os.listdir(parent) if name.startswith(PREFIX)]
    except OSError:
        return []
    gone = []
    for name in sorted(names):
        path = os.path.join(parent, name)
        try:
            found = os.lstat(path)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(path)
            gone.append(name)
        except OSError:
            continue
        finally:
            os.close(descriptor)
    return gone
