# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only place in the program where a process is started and waited for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
}
"""All that a started program is given: nothing of the caller's environment changes what it does."""

GLANCE = 0.2
"""Seconds between two looks whether a process is still to be waited for."""


@dataclass(frozen=True)
class Result:
    """What a finished process left: exit code (127: not there, 124: took too long), output, errors."""

    code: int
    out: str = ""
    err: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def detail(self) -> str:
        """What it said about itself, in one line."""
        return " ".join((self.err.strip() or self.out.strip() or f"exit code {self.code}").split())


Enough = Callable[[], str]
"""Why a process isn't waited for any longer; empty if it is."""


class Run(Protocol):
    """Runs ``argv`` to its end within ``timeout`` seconds; never raises for what the program did. See :func:`run`."""

    def __call__(
        self, argv: Sequence[str], *, timeout: float = 60.0, enough: Enough | None = None
    ) -> Result: ...


def run(argv: Sequence[str], *, timeout: float = 60.0, enough: Enough | None = None) -> Result:
    """Run ``argv`` with closed standard input; the process is killed after ``timeout`` seconds.

    :param enough: asked every :data:`GLANCE`; the process is killed when it says why.
    """
    try:
        client = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=dict(ENVIRONMENT),
        )
    except FileNotFoundError:
        return Result(127, "", f"{argv[0]}: not found in {ENVIRONMENT['PATH']}")
    until, why = time.monotonic() + timeout, ""
    with client:
        while not why:
            left = until - time.monotonic()
            try:
                out, err = client.communicate(timeout=min(left, GLANCE) if enough else left)
            except subprocess.TimeoutExpired:
                late = f"no end within {timeout:g} s" if time.monotonic() >= until else ""
                why = late or (enough() if enough else "")
            except BaseException:
                client.kill()
                raise
            else:
                return Result(client.returncode, out, err)
        client.kill()
    return Result(124, "", f"{' '.join(argv[:3])}: {why}")
