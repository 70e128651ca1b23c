# SPDX-License-Identifier: GPL-3.0-or-later
"""Ratios, goals and tables of the benchmark."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmark"))
from figures import Figure, Findings, Ratio, Series, aligned, breakdown, number, ratio, report, table

POSITIVE = st.floats(min_value=0.001, max_value=1e5)


@pytest.mark.parametrize(
    ("values", "median", "text"),
    [
        ((2.0,), 2.0, "2.00 s"),
        ((3.0, 1.0, 2.0), 2.0, "2.00 s (1.00-3.00)"),
        ((10.0, 20.0), 15.0, "15.0 s (10.0-20.0)"),
        ((100.4, 99.0, 120.0), 100.4, "100 s (99.0-120)"),
    ],
)
def test_series(values: tuple[float, ...], median: float, text: str) -> None:
    series = Series(values)
    assert series.median == median
    assert str(series) == text


@pytest.mark.parametrize("values", [(), (1.0, 0.0), (-1.0,)])
def test_series_refuses_what_no_clock_measures(values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="is refused; allowed: one or more above 0"):
        Series(values)


@pytest.mark.parametrize(
    ("measured", "reference", "expected"),
    [
        ((4.0,), (2.0,), Ratio(2.0, 2.0, 2.0)),
        # In turns: a slow moment that met both sides doesn't widen the spread.
        ((4.0, 40.0, 5.0), (2.0, 20.0, 2.0), Ratio(2.5, 2.0, 2.5)),
        # Of different number: all with all.
        ((4.0,), (1.0, 2.0), Ratio(4.0 / 1.5, 2.0, 4.0)),
    ],
)
def test_ratio(measured: tuple[float, ...], reference: tuple[float, ...], expected: Ratio) -> None:
    assert ratio(Series(measured), Series(reference)) == expected


@given(st.lists(POSITIVE, min_size=1, max_size=9), POSITIVE)
def test_ratio_to_a_constant_lies_within_its_spread(values: list[float], reference: float) -> None:
    found = ratio(Series(tuple(values)), Series.of(reference))
    slack = 1e-9 * found.high
    assert found.low - slack <= found.value <= found.high + slack


@given(st.lists(POSITIVE, min_size=1, max_size=9), st.floats(min_value=0.01, max_value=100))
def test_ratio_does_not_depend_on_the_unit(values: list[float], unit: float) -> None:
    scaled = Series(tuple(value * unit for value in values))
    assert ratio(scaled, Series(tuple(values))).value == pytest.approx(unit)


@pytest.mark.parametrize(
    ("measured", "goal", "verdict"),
    [(4.0, 4.0, "ok"), (4.004, 4.0, "ok"), (4.01, 4.0, "missed"), (3.0, 4.0, "ok"), (9.0, None, "")],
)
def test_verdict(measured: float, goal: float | None, verdict: str) -> None:
    assert Figure("x", Series.of(measured), Series.of(1.0), goal).verdict == verdict


@pytest.mark.parametrize(
    ("value", "text"), [(0.126, "0.13"), (9.99, "9.99"), (12.34, "12.3"), (123.4, "123")]
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_aligned_columns() -> None:
    assert aligned([("a", "bb", "c"), ("aaa", "b", "")], right=(1,)) == ["a    bb  c", "aaa   b"]


def test_table_shows_goal_and_verdict_of_each_line() -> None:
    lines = table([
        Figure("warm", Series.of(8.0), Series.of(2.0), 3.0),
        Figure("  context", Series.of(2.0), Series.of(2.0)),
    ])  # fmt: skip
    assert lines == [
        "figure     measured  compared with  ratio  goal",
        "warm       8.00 s    2.00 s         4.00   <= 3  missed",
        "  context  2.00 s    2.00 s         1.00",
    ]


def test_breakdown_keeps_the_largest_and_sums_the_rest() -> None:
    parts = [("small", 1.0), ("large", 6.0), ("tiny", 1.0), ("middle", 2.0)]
    assert breakdown(parts, most=2) == ["6.00 s  60%  large", "2.00 s  20%  middle", "2.00 s  20%  2 more"]


def test_breakdown_of_nothing() -> None:
    assert breakdown([]) == []
    assert breakdown([("a", 0.0)]) == ["0.00 s    a"]


@given(st.lists(st.tuples(st.just("x"), POSITIVE), max_size=40), st.integers(min_value=1, max_value=20))
def test_breakdown_is_never_longer_than_asked(parts: list[tuple[str, float]], most: int) -> None:
    assert len(breakdown(parts, most=most)) <= min(len(parts), most + 1)


def test_report_ends_with_what_was_reached() -> None:
    found = Findings(
        [Figure("warm", Series.of(8.0), Series.of(2.0), 3.0)], ["a note"], {"Warm": [("x", 1.0)]}
    )
    found.add(Findings([Figure("cold", Series.of(1.0), Series.of(1.0), 1.5)]))
    lines = report(found)
    assert lines[-1] == "1 of 2 goals reached; missed: warm"
    assert "- a note" in lines
    assert lines[lines.index("Warm:") + 1] == "  1.00 s  100%  x"
