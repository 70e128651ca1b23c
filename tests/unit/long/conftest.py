# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets these tests import the parts of the long runs."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("dev", "long"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / folder))
