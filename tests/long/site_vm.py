#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boots the machine of ``./dev site --vm`` and keeps the variables of scenario ``vm`` with it, for every play about it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from converged import running
from machine import Failure


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name")
    args = parser.parse_args()
    try:
        machine = running(args.name, lambda text: print(text, flush=True))
    except Failure as failure:
        print(f"site_vm.py: {failure}", file=sys.stderr)
        return 1
    machine.vm.machine.given.write_text(json.dumps(machine.given, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
