# SPDX-License-Identifier: GPL-3.0-or-later
"""The table at the end: phase and victim, kills, what came of them, seconds until ready."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from expectations import Kill, Verdict

COLUMNS = ("PHASE", "VICTIM", "KILLS", "OUTCOME", "MEDIAN", "WORST", "REMARKS")


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def short(outcome: str) -> str:
    """An outcome without the names that differ from kill to kill."""
    return outcome.partition(" (")[0].strip()


def table(done: Sequence[tuple[Kill, Verdict]]) -> str:
    """All kills in lines by phase and victim, in the order in which these came first."""
    groups: dict[tuple[str, str], list[tuple[Kill, Verdict]]] = {}
    for kill, verdict in done:
        groups.setdefault((kill.phase, kill.kind), []).append((kill, verdict))
    order = list(dict.fromkeys(kill.phase for kill, _ in done))
    lines: list[tuple[str, ...]] = [COLUMNS]
    for phase, kind in sorted(groups, key=lambda pair: (order.index(pair[0]), pair[1])):
        verdicts = [verdict for _, verdict in groups[phase, kind]]
        counted = Counter(short(verdict.outcome) for verdict in verdicts)
        outcome = "; ".join(text if number == 1 else f"{number} {text}" for text, number in counted.items())
        times = [verdict.seconds for verdict in verdicts if verdict.seconds is not None]
        remarks = list(dict.fromkeys(text for verdict in verdicts for text in verdict.remarks))
        failed = sum(bool(verdict.complaints) for verdict in verdicts)
        if failed:
            remarks.insert(0, f"{failed} FAILED")
        lines.append(
            (
                phase, kind, str(len(verdicts)), outcome,
                seconds(statistics.median(times) if times else None),
                seconds(max(times, default=None)), "; ".join(remarks),
            )
        )  # fmt: skip
    widths = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def summary(done: Sequence[tuple[Kill, Verdict]]) -> str:
    """One line over all kills."""
    jobs = Counter(verdict.outcome.partition(":")[0] for kill, verdict in done if kill.job)
    times = [verdict.seconds for _, verdict in done if verdict.seconds is not None]
    told = ", ".join(f"{number} {name}" for name, number in jobs.most_common()) or "none"
    return (
        f"{len(done)} kills; jobs that were there: {told}; ready again after {seconds(statistics.median(times))} s"
        f" in the middle, {seconds(max(times))} s at most; {sum(bool(v.complaints) for _, v in done)} failed"
        if times
        else f"{len(done)} kills"
    )
