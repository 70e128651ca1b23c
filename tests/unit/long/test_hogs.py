# SPDX-License-Identifier: GPL-3.0-or-later
"""What the table of hogs makes of what was measured."""

from __future__ import annotations

import math

import pytest
from hogs import Meal, against_the_median, table


def meal(alone: float, neighbour: float, **more: object) -> Meal:
    return Meal("CPU", alone, neighbour, 2.04, [], "succeeded", **more)  # type: ignore[arg-type]


def test_one_machine_has_one_reference() -> None:
    found = against_the_median([meal(20, 22), meal(30, 33), meal(math.nan, math.nan), meal(22, 44)])
    assert [one.ratio for one in found[:2] + found[3:]] == [1.0, 1.5, 2.0]
    assert math.isnan(found[2].ratio)
    assert against_the_median([]) == []
    assert math.isnan(against_the_median([meal(math.nan, 20)])[0].ratio)


@pytest.mark.parametrize(
    ("one", "row"),
    [
        (meal(20, 26), "| CPU | with | 1.30 | 2.0 s (not measured) | nothing | succeeded |"),
        (meal(20, 20, ssh_alone=1.96), "| CPU | with | 1.00 | 2.0 s (2.0 s) | nothing | succeeded |"),
        (
            Meal("CPU", 20, math.nan, math.inf, ["ssh", "docker"], "it went down"),
            "| CPU | with | no end | no answer (not measured) | ssh, docker | it went down |",
        ),
    ],
)
def test_a_row_says_what_could_not_be_measured(one: Meal, row: str) -> None:
    assert table({"with": [one]}).splitlines()[2:] == [row]
