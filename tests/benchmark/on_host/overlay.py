# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the probe of overlayfs takes.

Argument: JSON with ``program`` (the probe with its request, as ``_overlay_start.program`` makes it) and
``repetitions``. Output: JSON, ``seconds`` of each run and the ``paths`` that were probed.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from common import run


def measure(program: str, repetitions: int) -> dict[str, Any]:
    """Run the probe so often."""
    seconds = []
    found: dict[str, Any] = {}
    for _ in range(repetitions):
        begin = time.monotonic()
        found = json.loads(run([sys.executable, "-I", "-B", "-"], stdin=program.encode()))
        seconds.append(time.monotonic() - begin)
    return {"seconds": seconds, "paths": [path for path, one in found.items() if "failed" not in one]}


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(measure(asked["program"], asked["repetitions"])))
