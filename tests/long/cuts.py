#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Twenty power cuts: a converged machine under QEMU is killed at random moments and turned on again. Prints a table."""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from converged import LONG, converged
from machine import STATE, Failure
from machines import booted
from power_cuts import HEAD, MOMENTS, cuts_of, row


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./dev test long cuts --", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--look", type=int, default=2, help="how many cuts there are to one look")
    parser.add_argument(
        "--again", type=int, default=3, help="how many looks there are to one run of the play"
    )
    parser.add_argument("--moment", action="append", default=[], choices=[one.name for one in MOMENTS])
    args = parser.parse_args()

    def say(text: str) -> None:
        print(text, flush=True)

    say(f"seed {args.seed}")
    try:
        with booted(converged(LONG, say), f"{LONG}-cuts") as machine:
            cuts = cuts_of(
                machine,
                args.cuts,
                random.Random(args.seed),
                say,
                args.moment,
                look=args.look,
                again=args.again,
            )
    except Failure as failure:
        print(f"cuts.py: {failure}", file=sys.stderr)
        return 1
    text = "\n".join([HEAD, *map(row, cuts)])
    file = STATE / "long" / "power-cuts.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"seed {args.seed}\n\n{text}\n", encoding="utf-8")
    wrong = sum(1 for one in cuts if one.wrong)
    say(f"{len(cuts)} power cuts, {wrong} with something wrong; the table: {file}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
