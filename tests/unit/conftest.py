# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets the tests import the collection under its own name from any checkout, and the host's program."""

from __future__ import annotations

import sys
from pathlib import Path

import hypothesis

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT / "tests" / "unit"),
    str(ROOT / "roles" / "runner" / "files"),
    str(ROOT / "playbooks" / "collections"),
]
# How long an example takes says something of the machine that day, nothing of what is tested.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
