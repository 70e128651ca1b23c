# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only place in the collection's modules where a process is started.

Code that needs a program takes a :data:`Runner` as a parameter, so that its tests are
tables of ``argv -> Result`` and patch nothing.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import Protocol, Sequence

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
