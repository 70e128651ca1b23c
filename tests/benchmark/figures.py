# SPDX-License-Identifier: GPL-3.0-or-later
"""What a benchmark found: measured seconds, ratios with their spread, goals, and tables of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Series:
    """Seconds of repetitions of one thing, in the order in which they were taken."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or min(self.values) <= 0:
            raise ValueError(f"seconds of a series: {self.values} is refused; allowed: one or more above 0")

    @classmethod
    def of(cls, *values: float) -> Series:
        return cls(tuple(values))

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        if len(self.values) == 1:
            return seconds(self.median)
        return f"{seconds(self.median)} ({number(min(self.values))}-{number(max(self.values))})"


@dataclass(frozen=True)
class Ratio:
    """A ratio of two medians. ``low`` and ``high`` bound what single repetitions gave."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True)
class Figure:
    """One line of the table of ratios.

    :param goal: the highest ratio that is good enough; None for what is only shown.
    """

    name: str
    measured: Series
    reference: Series
    goal: float | None = None

    @property
    def ratio(self) -> Ratio:
        return ratio(self.measured, self.reference)

    @property
    def verdict(self) -> str:
        """``ok`` or ``missed``, judged by the value to two digits; empty without a goal."""
        if self.goal is None:
            return ""
        return "ok" if round(self.ratio.value, 2) <= self.goal else "missed"


@dataclass
class Findings:
    """What one part of the benchmark found.

    :ivar notes: lines below the table.
    :ivar breakdowns: by heading, what the time goes to: (what, seconds).
    """

    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    breakdowns: dict[str, list[tuple[str, float]]] = field(default_factory=dict)

    def add(self, other: Findings) -> None:
        self.figures += other.figures
        self.notes += other.notes
        self.breakdowns.update(other.breakdowns)


def number(value: float) -> str:
    """Seconds with as many digits as they deserve."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def seconds(value: float) -> str:
    return f"{number(value)} s"


def ratio(measured: Series, reference: Series) -> Ratio:
    """The ratio of the medians.

    Repetitions that were taken in turns are compared pair by pair for the spread, others all with all.
    """
    if len(measured.values) == len(reference.values):
        single = [above / below for above, below in zip(measured.values, reference.values, strict=True)]
    else:
        single = [above / below for above in measured.values for below in reference.values]
    return Ratio(measured.median / reference.median, min(single), max(single))


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """``rows`` as lines of text in columns; the columns numbered in ``right`` end flush."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def table(figures: Sequence[Figure]) -> list[str]:
    """The ratios, a line each, under a line of headings."""
    rows = [("figure", "measured", "compared with", "ratio", "goal", "")]
    for figure in figures:
        goal = "" if figure.goal is None else f"<= {figure.goal:g}"
        rows.append(
            (
                figure.name,
                str(figure.measured),
                str(figure.reference),
                str(figure.ratio),
                goal,
                figure.verdict,
            )
        )
    return aligned(rows)


def breakdown(parts: Sequence[tuple[str, float]], most: int = 12, least: float = 0.0) -> list[str]:
    """What a time goes to, the largest first, with shares of the whole; the rest in one line.

    :param most: so many lines, the one for the rest not counted.
    :param least: smaller parts go to the rest.
    """
    whole = sum(value for _, value in parts)
    ordered = sorted(parts, key=lambda part: -part[1])
    shown = [part for part in ordered[:most] if part[1] >= least]
    rest = ordered[len(shown) :]
    if rest:
        shown.append((f"{len(rest)} more", sum(value for _, value in rest)))
    rows = [(f"{value:.2f} s", f"{value / whole:.0%}" if whole else "", what) for what, value in shown]
    return aligned(rows, right=(0, 1)) if rows else []


def report(found: Findings) -> list[str]:
    """All of it, for a person."""
    lines = table(found.figures) if found.figures else []
    if found.notes:
        lines += ["", *(f"- {note}" for note in found.notes)]
    for heading, parts in found.breakdowns.items():
        lines += ["", f"{heading}:", *(f"  {line}" for line in breakdown(parts))]
    missed = [figure.name for figure in found.figures if figure.verdict == "missed"]
    judged = [figure for figure in found.figures if figure.goal is not None]
    if judged:
        reached = f"{len(judged) - len(missed)} of {len(judged)} goals reached"
        lines += ["", reached + (f"; missed: {', '.join(missed)}" if missed else "")]
    return lines
