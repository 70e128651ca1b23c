#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the collection and prints a table of ratios, each taken in this one run. ``./dev bench`` calls it.

The hosts are container hosts of this machine, reached over SSH with pipelining. Repetitions are taken in
turns; the table has medians and, in brackets, the least and the most. All figures also go to
``.dev/bench/figures.json``.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bench_host import WORK, Failure, load, say
from figures import Findings, report
from parts import PARTS, Bench

BUSY = 0.75
"""Load for each core from which ratios are doubtful."""


def record(found: Findings, path: Path) -> None:
    """Write the figures as JSON."""
    figures = [
        {
            "name": figure.name.strip(),
            "measured_seconds": figure.measured.values,
            "reference_seconds": figure.reference.values,
            "ratio": figure.ratio.value,
            "goal": figure.goal,
            "verdict": figure.verdict or None,
        }
        for figure in found.figures
    ]
    path.write_text(json.dumps({"figures": figures, "notes": found.notes}, indent=2) + "\n", encoding="utf-8")


def stop(*_: object) -> None:
    """End like an interrupted run: with what was found, and without hosts left over."""
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="*", help=f"{', '.join(PARTS)}; without any: all")
    parser.add_argument("--repetitions", type=int, default=5, help="of what takes seconds; default: 5")
    parser.add_argument("--keep", action="store_true", help="leave the hosts for a look")
    args = parser.parse_args()
    for part in args.part:
        if part not in PARTS:
            parser.error(f"no part {part}: there are {', '.join(PARTS)}")
    if args.repetitions < 1:
        parser.error("--repetitions: at least 1")
    WORK.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, stop)
    begin, found, bench = time.monotonic(), Findings(), Bench(args.repetitions)
    busy: list[str] = []
    code = 0
    try:
        for name, part in PARTS.items():
            if name in (args.part or PARTS):
                say(f"{name}:")
                if load() > BUSY:
                    busy.append(f"{name} ({load():.1f})")
                found.add(part(bench))
                record(found, WORK / "figures.json")
    except (Failure, subprocess.TimeoutExpired) as failure:
        print(f"bench: {failure}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
        code = 130
    finally:
        if not args.keep:
            bench.close()
    if busy:
        found.notes.append(
            f"the machine was busy when a part began, so its ratios are doubtful; load for each core: {', '.join(busy)}"
        )
    found.notes.append(f"{args.repetitions} repetitions; {time.monotonic() - begin:.0f} s in all")
    print("\n".join(report(found)))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
