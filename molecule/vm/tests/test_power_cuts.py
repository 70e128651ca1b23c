# SPDX-License-Identifier: GPL-3.0-or-later
"""Four cuts of the power at random moments, every other one while the machine still comes up.

``./dev test long`` makes twenty, in more phases, and looks after each.
"""

from __future__ import annotations

import random
import time

from machines import Machine
from power_cuts import cuts_of, row

MOMENTS = ("job", "start of an environment", "end of a job", "prune")


def test_after_a_power_cut_nothing_is_lost_and_nobody_is_needed(machine: Machine) -> None:
    seed = int(time.time())
    print(f"seed {seed}")
    cuts = cuts_of(machine, 4, random.Random(seed), print, MOMENTS, look=2, again=2)
    wrong = [text for one in cuts for text in one.wrong]
    assert not wrong, "\n".join([f"seed {seed}", *map(row, cuts), *wrong])
