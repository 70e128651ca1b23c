# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a play does to a host whose runners may be at work: between jobs, never in the middle of one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from matryoshka_runner import dataroot, process
from matryoshka_runner.config import check_name, read
from matryoshka_runner.errors import ConfigError, ProgramError
from matryoshka_runner.locks import Gate
from matryoshka_runner.paths import Paths


def exclusive(paths: Paths, wait: float, command: Sequence[str]) -> int:
    """Run ``command`` while no runner runs a job and none can begin one; its exit code.

    :param wait: seconds that running jobs are given to end; TurnError after that.
    """
    with Gate(paths.gates, "engine").alone(wait):
        return subprocess.run(list(command), check=False, env=process.ENVIRONMENT).returncode


def forget(
    paths: Paths,
    names: Sequence[str],
    wait: float,
    cache: bool,
    say: Callable[[str], None],
    run: process.Run = process.run,
) -> None:
    """Take runners away when their jobs have ended: unit, configuration, state and, if asked, data.

    :param wait: seconds that all their jobs together are given to end; TurnError after that.
    :param cache: remove the runner's folder too.
    """
    deadline = time.monotonic() + wait
    for name in names:
        check_name(name)
        with Gate(paths.gates, f"runner-{name}").alone(max(0.0, deadline - time.monotonic())):
            directory = _directory(paths, name)
            for unit in (f"matryoshka-prune@{name}.timer", f"matryoshka-runner@{name}.service"):
                result = run(["systemctl", "disable", "--now", unit])
                if (
                    not result.ok
                    and "does not exist" not in result.detail
                    and "not loaded" not in result.detail
                ):
                    raise ProgramError(f"{unit} can't be stopped: {result.detail}")
            paths.config(name).unlink(missing_ok=True)
            paths.state(name).unlink(missing_ok=True)
            if cache:
                dataroot.remove_tree(directory, run)
        say(f"runner {name} was taken away, {'with' if cache else 'without'} its data in {directory}")


def _directory(paths: Paths, name: str) -> Path:
    try:
        return read(paths, name).directory
    except ConfigError:
        return paths.lib / "runners" / name
