# SPDX-License-Identifier: GPL-3.0-or-later
"""What scenario ``vm`` has for its machines serves here, too."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
for folder in ("tests/long", "tests/dev", "molecule/default/tests", "molecule/vm/tests"):
    sys.path.insert(0, str(ROOT / folder))
