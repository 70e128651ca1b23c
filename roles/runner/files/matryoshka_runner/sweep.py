# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes away what is left of a runner, whatever state it was left in. Can be repeated."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from matryoshka_runner import dataroot, orphans
from matryoshka_runner.engine import Engine
from matryoshka_runner.errors import EngineError, EngineUnavailable, HeldError
from matryoshka_runner.process import Run

ATTEMPTS = 20
"""How often the engine is asked to remove what it still lists, with a growing pause."""


def containers(engine: Engine, runner: str, patience: float = 600.0) -> int:
    """Remove every container of ``runner``, half-made ones too; how many there were.

    Returns only when the engine itself lists none of them any more.

    :param patience: seconds after which no further try begins.
    """
    count, why = 0, ""
    until = time.monotonic() + patience
    for attempt in range(ATTEMPTS):
        found = engine.containers(runner)
        if not found:
            return count
        count = max(count, len(found))
        try:
            engine.remove([container.id for container in found], timeout=min(180.0, patience))
        except EngineUnavailable:
            raise
        except EngineError as error:
            why = f": {error}"
            if time.monotonic() >= until:
                break
            time.sleep(min(0.1 * attempt, 1.0))
    names = ", ".join(container.name for container in found)
    raise EngineError(f"the engine still lists {names} after {attempt + 1} removals{why}")


def forgotten(engine: Engine, slice_name: str | None, say: Callable[[str], None]) -> None:
    """End the environments in a runner's slice that the engine has no container of. Without a slice they aren't found."""
    if slice_name is None:
        return
    for identity in orphans.end(slice_name, lambda one: engine.inspect(one) is not None):
        say(f"container {identity[:12]} ran in {slice_name} and the engine didn't know it; it was ended")


def refuse_held(root: Path) -> None:
    """HeldError if a live daemon uses the data root."""
    held = dataroot.holders(root)
    if held:
        names = ", ".join(str(path) for path in held)
        raise HeldError(f"a live daemon holds {names}; this data root isn't touched until it is gone")


def roots(directory: Path, run: Run) -> int:
    """Remove the roots in a runner's directory that don't outlive their environment; how many."""
    left = dataroot.left_roots(directory)
    for root in left:
        refuse_held(root)
        dataroot.remove_tree(root, run)
    return len(left)
