# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of kills comes from the seed and leaves nothing out."""

from __future__ import annotations

import random

from phases import PHASES, Plan, pairs


def test_every_kind_in_every_phase_has_its_turn() -> None:
    plan = Plan(random.Random(1))
    taken = [plan.take() for _ in range(pairs())]
    assert {(phase.name, kind) for phase, kind in taken} == {
        (phase.name, kind) for phase in PHASES for kind in phase.kinds
    }


def test_a_short_run_sees_every_phase() -> None:
    plan = Plan(random.Random(5))
    names = [plan.take()[0].name for _ in range(12)]
    assert set(names) == {phase.name for phase in PHASES}
    assert names.count("image build") == 1


def test_the_same_seed_gives_the_same_order() -> None:
    one, two, other = (Plan(random.Random(seed)) for seed in (7, 7, 8))
    orders = [
        [(phase.name, kind) for phase, kind in (plan.take() for _ in range(50))] for plan in (one, two, other)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_what_is_avoided_comes_later() -> None:
    kept, plan = Plan(random.Random(3)), Plan(random.Random(3))
    usual = [kept.take() for _ in range(pairs())]
    spared = [plan.take({"host dockerd"}) for _ in range(40)]
    assert all(kind != "host dockerd" for _, kind in spared)
    later = [plan.take() for _ in range(pairs() - 40)]
    assert sorted((phase.name, kind) for phase, kind in spared + later) == sorted(
        (phase.name, kind) for phase, kind in usual
    )
