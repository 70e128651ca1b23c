# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that take too long for every change begin at all, from any folder, by themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "program", ["benchmark/bench.py", "benchmark/bench_vm.py", "long/cuts.py", "long/kills.py"]
)
def test_a_long_program_says_what_it_takes(program: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TESTS / program), "--help"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ./dev ")
