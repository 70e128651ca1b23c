# SPDX-License-Identifier: GPL-3.0-or-later
"""Three more cuts of the power at random moments, two while the machine still comes up from the one before.

The first one takes a disk along, see ``test_missing_disk.py``. ``./dev test long`` makes twenty, in more phases.
"""

from __future__ import annotations

import random
import time

from machines import Machine
from power_cuts import cuts_of, row

MOMENTS = ("start of an environment", "end of a job", "prune")


def test_after_a_power_cut_nothing_is_lost_and_nobody_is_needed(machine: Machine) -> None:
    seed = int(time.time())
    print(f"seed {seed}")
    cuts = cuts_of(machine, 3, random.Random(seed), print, MOMENTS, look=3)
    wrong = [text for one in cuts for text in one.wrong]
    assert not wrong, "\n".join([f"seed {seed}", *map(row, cuts), *wrong])
