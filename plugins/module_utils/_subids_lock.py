# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks of the user database, as glibc's lckpwdf and shadow's programs take them.

``/etc/.pwd.lock`` is a record lock (fcntl). ``FILE.lock`` is a hard link to a file with the
holder's process id and a NUL; one whose process is gone is taken over.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError

PATIENCE = 30.0
PAUSE = 0.05


@contextmanager
def locked(database: str, paths: Sequence[str], patience: float = PATIENCE) -> Iterator[None]:
    """Hold the lock file ``database`` (``/etc/.pwd.lock``) and ``FILE.lock`` of each of ``paths``.

    :raises HostError: somebody else holds one for longer than ``patience`` seconds; says who.
    """
    deadline = time.monotonic() + patience
    with ExitStack() as stack:
        stack.enter_context(_record_lock(database, deadline))
        for path in paths:
            stack.enter_context(_lock_file(path, deadline))
        yield


@contextmanager
def _record_lock(path: str, deadline: float) -> Iterator[None]:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"{path} can't be opened: {error.strerror}") from error
    try:
        while not _try_record_lock(handle):
            _wait(deadline, f"{path} is locked by another process")
        yield
    finally:
        os.close(handle)


def _try_record_lock(handle: int) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


@contextmanager
def _lock_file(path: str, deadline: float) -> Iterator[None]:
    lock, own = f"{path}.lock", f"{path}.{os.getpid()}"
    try:
        with open(own, "wb") as stream:
            stream.write(f"{os.getpid()}\0".encode())
            stream.flush()
            os.fsync(stream.fileno())
        try:
            while not _try_link(own, lock):
                _wait(deadline, f"{lock} is held by process {_holder(lock)}")
        finally:
            os.unlink(own)
    except OSError as error:
        raise HostError(f"{lock} can't be made: {error.strerror}") from error
    try:
        yield
    finally:
        os.unlink(lock)


def _try_link(own: str, lock: str) -> bool:
    try:
        os.link(own, lock)
    except FileExistsError:
        holder = _holder(lock)
        if holder is not None and not _alive(holder):
            os.unlink(lock)
        return False
    return True


def _holder(lock: str) -> int | None:
    try:
        with open(lock, "rb") as stream:
            text = stream.read(32).split(b"\0")[0].strip()
    except FileNotFoundError:
        return None
    return int(text) if text.isdigit() else None


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _wait(deadline: float, text: str) -> None:
    if time.monotonic() >= deadline:
        raise HostError(f"{text}; nothing was changed")
    time.sleep(PAUSE)
