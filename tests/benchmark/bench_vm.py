#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures a whole machine: power-on to work, what hogs do to a neighbour, power cuts, what limits cost.

``./dev bench vm`` calls it. All ratios are taken in this one run, repetitions in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
for folder in ("dev", "long"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / folder))
import hosts
import qemu
from converged import LONG, converged, platform
from figures import Figure, Findings, Series, report
from hogs import HOGS, Meal, tried
from hogs import table as hog_table
from machine import Failure
from machines import Copies, Machine, booted, copied
from power_cuts import HEAD, cuts_of, row
from vm_host import VmHost

NAME, BARE, UNLIMITED = "bench", "bench-bare", "bench-unlimited"
NO_LIMITS = {
    "limits_enabled": False,
    "runner_disk": "",
    "runner_pids": "",
    "runner_runners": [{"name": "ci"}, {"name": "neighbour", "directory": "/srv/slow/runners/neighbour"}],
}
"""Variables over the scenario's: the same runners, and nothing that holds them."""
WORK = """\
begin=$(date +%s.%N); count=0
while [ $count -lt 60000 ]; do count=$((count + 1)); [ $((count % 2000)) != 0 ] || /bin/true; done
echo took $begin $(date +%s.%N)
"""
"""Some seconds of work: steps of a shell, and programs that it starts."""
TURNS = 10
"""Pairs for each repetition: emulated processors are slower at one time than at another, and short pairs even that out."""

FAIR = {
    "runner_runners": [
        {
            "name": "ci",
            "allowed_cpus": "1",
            "memory": "768M",
            "pids": 600,
            "io_write_bandwidth": "40M",
            "log_limit": "8M",
        },
        {
            "name": "neighbour",
            "directory": "/srv/slow/runners/neighbour",
            "disk": "1G",
            "allowed_cpus": "0",
        },
    ]
}
"""Variables over the scenario's: of the two processors each runner has its fair share, one.

By weight alone, or by quota, a job of one process beside one of eight gets less: the kernel divides a slice's weight
among the processors that it works on (Linux, kernel/sched/fair.c, ``calc_group_shares``)."""


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def bare() -> Iterator[VmHost]:
    """A machine of the same image that no play has touched, off."""
    hosts.create(**{**platform(), "name": BARE, "disks": []})
    machine = qemu.Machine.read(BARE)
    assert machine is not None
    machine.shut_down()
    try:
        yield VmHost(machine)
    finally:
        machine.remove()


def power_on(machine: Machine) -> tuple[float, float, float]:
    """Seconds from power-on to SSH, to a ready runner, to the end of a first job."""
    begin = time.monotonic()
    machine.vm.boot(whole=False)
    ssh = time.monotonic() - begin
    job = machine.submit("docker version >/dev/null", "ci", "first")
    machine.ready("ci", 600)
    ready = time.monotonic() - begin
    job.succeeds(600)
    return ssh, ready, time.monotonic() - begin


def boots(base: qemu.Machine, repetitions: int) -> list[Figure]:
    """A converged machine's way to its first job beside a bare machine's way to SSH."""
    taken, reference = [], []
    with bare() as plain, copied(base, f"{NAME}-boot") as machine:
        for number in range(1, repetitions + 1):
            say(f"boot {number} of {repetitions}")
            reference.append(plain.boot(whole=False))
            plain.machine.shut_down()
            taken.append(power_on(machine))
            machine.vm.machine.shut_down()
    against = Series.of(*reference)
    names = (
        "power-on to SSH ÷ a bare boot",
        "to runner ready ÷ a bare boot",
        "to first job done ÷ a bare boot",
    )
    return [
        Figure(name, Series.of(*values), against)
        for name, values in zip(names, zip(*taken, strict=True), strict=True)
    ]


def meals(base: qemu.Machine, heading: str, hogs: Sequence[str]) -> list[Meal]:
    """What each of the hogs does; a machine that isn't well afterwards, as without limits, gives way to a new one."""
    eaten = []
    copies = Copies(base, f"{NAME}-hog")
    try:
        for name in hogs:
            say(f"{name}, {heading}")
            eaten.append(tried(copies.fit(), name))
            say(str(eaten[-1]))
    finally:
        copies.remove()
    return eaten


def work_seconds(machine: Machine, runner: str) -> float:
    """Seconds of :data:`WORK` in the runner's environment, where the runner would start a job, the same way."""
    begin, end = machine.inside(runner, WORK).split("took ")[1].split()[:2]
    return float(end) - float(begin)


def overhead(base: qemu.Machine, pairs: int) -> Figure:
    """Work that meets none of its limits, beside the same work of a runner that has none for it."""
    taken: dict[str, list[float]] = {"ci": [], "neighbour": []}
    with booted(base, f"{NAME}-overhead") as machine:
        for number in range(pairs):
            for runner in sorted(taken, reverse=number % 2 == 1):
                taken[runner].append(work_seconds(machine, runner))
    limited, free = taken.values()
    return Figure("work under limits ÷ without", Series.of(*limited), Series.of(*free), goal=1.02)


Base = Callable[[], qemu.Machine]
"""The converged machine with the scenario's variables, made when it is first asked for."""


def figures(found: Sequence[Figure], repetitions: int) -> str:
    return "\n".join(report(Findings(list(found), [f"{repetitions} repetitions"])))


def boot_part(base: Base, args: argparse.Namespace) -> str:
    return figures(boots(base(), args.repetitions), args.repetitions)


def overhead_part(base: Base, args: argparse.Namespace) -> str:
    return figures([overhead(base(), TURNS * args.repetitions)], TURNS * args.repetitions)


def hogs_part(_base: Base, args: argparse.Namespace) -> str:
    hogs = (args.hog or list(HOGS)) * args.turns
    limited = meals(converged(LONG, say, **FAIR), "with limits", hogs)
    unlimited = converged(UNLIMITED, say, **NO_LIMITS)
    return hog_table({"with": limited, "without": meals(unlimited, "without limits", hogs)})


def cuts_part(base: Base, args: argparse.Namespace) -> str:
    with booted(base(), f"{NAME}-cuts") as machine:
        cuts = cuts_of(machine, args.cuts, random.Random(args.seed), say, again=2)
    return "\n".join([f"seed {args.seed}", HEAD, *map(row, cuts)])


MEASURES: Mapping[str, Callable[[Base, argparse.Namespace], str]] = {
    "boot": boot_part,
    "overhead": overhead_part,
    "cuts": cuts_part,
    "hogs": hogs_part,
}
"""What is printed of each part, as soon as it is known: the next one may fail. The last one changes the machine."""
PARTS = tuple(MEASURES)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench vm", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="*", help=f"{', '.join(PARTS)}; without any: all")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--cuts", type=int, default=4)
    parser.add_argument("--hog", action="append", choices=list(HOGS), help="only this one; repeatable")
    parser.add_argument("--turns", type=int, default=1, help="how often each hog is let loose (1)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    for part in args.part:
        if part not in PARTS:
            parser.error(f"no part {part}: there are {', '.join(PARTS)}")
    started, code = time.monotonic(), 0
    base = functools.cache(lambda: converged(LONG, say))
    for part in [part for part in PARTS if part in (args.part or PARTS)]:
        try:
            print(MEASURES[part](base, args), end="\n\n", flush=True)
        except (Failure, AssertionError) as failure:
            print(f"bench vm {part}: {failure}", file=sys.stderr, flush=True)
            code = 1
    say(f"{time.monotonic() - started:.0f} s in all")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
