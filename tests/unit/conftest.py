# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets the tests import the collection under its own name from any checkout."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT / "tests" / "unit"),
    str(ROOT / "roles" / "runner" / "files"),
]
try:
    import ansible_collections

    ansible_collections.__path__.insert(0, str(ROOT / "playbooks" / "collections" / "ansible_collections"))
except ImportError:
    sys.path.insert(0, str(ROOT / "playbooks" / "collections"))
