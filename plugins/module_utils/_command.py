# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only place in the collection's modules where a process is started.

Code that needs a program takes a :data:`Runner` as a parameter, so that its tests are
tables of ``argv -> Result`` and patch nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any, Protocol

from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Result:
    """What a finished process left: its exit code (127 if the program isn't there) and its output."""

    code: int
    out: str = ""
    err: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 0


class Runner(Protocol):
    """Runs ``argv`` to its end. See :func:`run` for the meaning of the parameters."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        check: bool = True,
        timeout: float = 60.0,
    ) -> Result: ...


class CommandError(HostError):
    """A program ended with a code that wasn't expected, took too long, or isn't there."""

    def __init__(self, argv: Sequence[str], result: Result) -> None:
        detail = (result.err or result.out).strip() or "no output"
        super().__init__(f"{' '.join(argv)} ended with {result.code}: {detail}")
        self.argv = list(argv)
        self.result = result


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    check: bool = True,
    timeout: float = 60.0,
) -> Result:
    """Run ``argv`` (a list, never a shell line) in the C locale with a fixed search path.

    :param stdin: text for standard input; without it standard input is closed.
    :param check: raise :class:`CommandError` if the exit code isn't 0.
    :param timeout: seconds until the process is killed, which is reported as code 124.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": "C", "PATH": SEARCH_PATH}
    try:
        done = subprocess.run(
            list(argv),
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=timeout,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
    except FileNotFoundError:
        result = Result(127, "", f"{argv[0]}: not found in {SEARCH_PATH}")
    except PermissionError as error:
        result = Result(126, "", str(error))
    except subprocess.TimeoutExpired:
        result = Result(124, "", f"no end within {timeout:g} s")
    if check and not result.ok:
        raise CommandError(argv, result)
    return result


class Piper(Protocol):
    """Runs two processes, the first one's output into the second. See :func:`pipe`."""

    def __call__(
        self, source: Sequence[str], sink: Sequence[str], *, timeout: float = 600.0, log: str | None = None
    ) -> tuple[Result, Result]: ...


def pipe(
    source: Sequence[str], sink: Sequence[str], *, timeout: float = 600.0, log: str | None = None
) -> tuple[Result, Result]:
    """Run ``source | sink`` to their ends; both exit codes are returned and neither is judged.

    A sink can't see that its source broke off, so a caller has to look at both.

    :param timeout: seconds until both get SIGTERM and, 10 s later, SIGKILL; reported as code 124.
    :param log: path that the source's standard error is appended to while it runs.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": "C", "PATH": SEARCH_PATH}
    deadline = time.monotonic() + timeout
    with ExitStack() as stack:
        source_error: IO[bytes] = stack.enter_context(_open(log))
        source_error.seek(0, os.SEEK_END)
        begin = source_error.tell()
        sink_out, sink_error = (stack.enter_context(TemporaryFile()) for _ignored in range(2))
        processes: list[subprocess.Popen[bytes]] = []

        def start(argv: Sequence[str], **streams: Any) -> subprocess.Popen[bytes] | Result:
            try:
                process = subprocess.Popen(list(argv), env=environment, start_new_session=True, **streams)
            except FileNotFoundError:
                return Result(127, "", f"{argv[0]}: not found in {SEARCH_PATH}")
            except PermissionError as error:
                return Result(126, "", str(error))
            processes.append(process)
            return process

        try:
            first = start(source, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=source_error)
            if isinstance(first, Result):
                return first, Result(0)
            second = start(sink, stdin=first.stdout, stdout=sink_out, stderr=sink_error)
            if first.stdout is None:
                raise AssertionError("first.stdout is set by now")
            first.stdout.close()
            try:
                codes = [p.wait(max(0.0, deadline - time.monotonic())) for p in processes]
            except subprocess.TimeoutExpired:
                late = f"no end within {timeout:g} s"
                return Result(124, "", late), Result(124, "", late)
        finally:
            _end(processes)

        def text(stream: IO[bytes], offset: int = 0) -> str:
            stream.seek(offset)
            return stream.read().decode(errors="replace")

        left = Result(codes[0], "", text(source_error, begin))
        if isinstance(second, Result):
            return left, second
        return left, Result(codes[1], text(sink_out), text(sink_error))


def _open(path: str | None) -> IO[bytes]:
    return open(path, "a+b") if path else TemporaryFile()


def _end(processes: Sequence[subprocess.Popen[bytes]], patience: float = 10.0) -> None:
    """End the process groups that still run: ask all, then kill."""
    deadline = time.monotonic() + patience
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal_number)
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
    for process in processes:
        process.wait()
