# SPDX-License-Identifier: GPL-3.0-or-later
"""One job that takes all it can get, a neighbour at work meanwhile, and a person who logs in."""

from __future__ import annotations

import contextlib
import math
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from machines import Machine

SECONDS = 60
"""How long a hog goes on if nothing stops it; longer than its neighbour's job."""
LOGIN = 60
"""Seconds after which a login counts as not answered."""
CPU = "for one in 1 2 3 4 5 6 7 8; do timeout {0} sh -c 'while :; do :; done' & done"
MEMORY = "timeout {0} tail /dev/zero"
FORKS = "timeout -s KILL {0} sh -c 'bomb() {{ bomb | bomb & }}; bomb; sleep {0}'"
WRITES = """\
(cd "$(docker volume inspect -f '{{{{.Mountpoint}}}}' "$(docker volume create)")"
timeout {0} sh -c 'while :; do dd if=/dev/zero of=big bs=1M count=256 conv=fsync 2>/dev/null; done')"""
LINES = "yes 'this line is written again and again and again'"
LOG = f"timeout {{0}} {LINES}"
HOGS: Mapping[str, str] = {
    "CPU": f"{CPU}; wait",
    "memory": MEMORY,
    "fork bomb": FORKS,
    "disk writes": WRITES,
    "log flood": LOG,
    # Among all the others nobody knows how far the flood would get.
    "all but memory at once": f"{LINES} | head -c 9M\n{WRITES} &\n{LOG} &\n{CPU}\n{FORKS}\nwait",
}
"""What is run as a job, by name; ``{0}`` stands for its seconds."""
WORK = """\
count=0; while [ $count -lt {0} ]; do count=$((count + 1)); done
for one in 1 2 3; do dd if=/dev/zero of=small bs=64k count=16 conv=fsync 2>/dev/null; done
"""
"""The neighbour's job: one processor's worth of work, ``{0}`` steps, and a few writes that have to reach the disk."""
SHORT, LONG = 60000, 400000
"""Steps of such a job: some 2 and 15 seconds where processors are emulated. What is to be timed is long: for the first
seconds the engine that starts it has a part in them."""
SERVICES = (
    "ssh",
    "docker",
    "containerd",
    "systemd-journald",
    "matryoshka-runner@ci",
    "matryoshka-runner@neighbour",
)


@dataclass(frozen=True)
class Meal:
    """What a hog did to the others. Not a number is what couldn't be measured.

    :param neighbour: seconds of the neighbour's job.
    :param alone: seconds of the same job on its fair share: no hog, and the other processor at work for the host. An
        emulated processor is slower where another one works, so beside an idle one it would be compared with too much.
    :param ssh: the longest of some logins, in seconds; infinite if one got no answer.
    :param ssh_alone: the same with nobody beside it.
    :param killed: services of the host that aren't the processes that they were.
    :param end: how the hog ended.
    """

    hog: str
    alone: float
    neighbour: float
    ssh: float
    killed: Sequence[str]
    end: str
    ssh_alone: float = math.nan

    @property
    def ratio(self) -> float:
        """Not a number where the one or the other wasn't measured."""
        return self.neighbour / self.alone


def main_processes(machine: Machine) -> dict[str, str]:
    """The main process of each of the host's services."""
    text = machine.sh(f"systemctl show -p Id,MainPID --value {' '.join(SERVICES)}").split()
    return (
        dict(zip(text[1::2], text[::2], strict=True))
        if text[0].isdigit()
        else dict(zip(text[::2], text[1::2], strict=True))
    )


def neighbour_seconds(machine: Machine, steps: int = SHORT, seconds: float = 900) -> float:
    """How long the neighbour's job takes, by its own result."""
    work = WORK.format(steps)
    ended = machine.submit(
        f"begin=$(date +%s.%N)\n{work}\necho took $begin $(date +%s.%N)", "neighbour", "work"
    ).wait(seconds)
    assert ended.status == "succeeded", f"the neighbour's job {ended.status}: {ended.reason}\n{ended.log}"
    begin, end = ended.log.split("took ")[1].split()[:2]
    return float(end) - float(begin)


def login_seconds(machine: Machine) -> float:
    begin = time.monotonic()
    try:
        said = machine.vm.run("true", login=True, timeout=LOGIN)
    except subprocess.TimeoutExpired:
        return math.inf
    return time.monotonic() - begin if said.rc == 0 else math.inf


def logins(machine: Machine, count: int = 2) -> float:
    """The longest of some logins, in seconds."""
    return max(login_seconds(machine) for _ in range(count))


def feed(machine: Machine, name: str, seconds: int = SECONDS, steps: int = SHORT) -> Meal:
    """Let a hog loose in a job of ``ci``, have the neighbour work, log in meanwhile. Nothing is measured alone."""
    machine.all_ready()
    before = main_processes(machine)
    hog = machine.submit(HOGS[name].format(seconds), "ci", "hog")
    machine.becomes("ci", "running")
    before_work = logins(machine)
    neighbour = neighbour_seconds(machine, steps)
    ssh = max(before_work, logins(machine))
    ended = hog.wait(600)
    killed = [unit for unit, process in main_processes(machine).items() if before[unit] != process]
    return Meal(
        name,
        math.nan,
        neighbour,
        ssh,
        killed,
        f"{ended.status}: {ended.reason}" if ended.reason else ended.status,
    )


@contextlib.contextmanager
def other_processor_busy(machine: Machine) -> Iterator[None]:
    """The second of two processors works for the host meanwhile, for five minutes at most."""
    machine.sh(
        "systemd-run --quiet --collect --unit=busy -p AllowedCPUs=1 -p RuntimeMaxSec=300"
        " sh -c 'while :; do :; done'"
    )
    try:
        yield
    finally:
        machine.sh("systemctl stop busy || true")


def tried(machine: Machine, name: str) -> Meal:
    """A meal beside what is measured alone. A machine that the hog takes along is an outcome, too."""
    alone = ssh = math.nan
    try:
        with other_processor_busy(machine):
            alone = neighbour_seconds(machine, LONG)
        ssh = logins(machine, 4)
        return replace(feed(machine, name, steps=LONG), alone=alone, ssh_alone=ssh)
    except (AssertionError, subprocess.SubprocessError) as failure:
        why = str(failure).strip().splitlines()[0][:120]
        return Meal(
            name, alone, math.nan, math.inf, ["not known"], f"the machine didn't get through: {why}", ssh
        )


def seconds_in_words(seconds: float) -> str:
    """As the table has it; see :class:`Meal` for what isn't a number of seconds."""
    if math.isnan(seconds):
        return "not measured"
    return "no answer" if math.isinf(seconds) else f"{seconds:.1f} s"


def against_the_median(meals: Sequence[Meal]) -> list[Meal]:
    """Meals of one machine, each beside the median of what was measured alone: one machine has one reference.

    A single job alone takes 20 to 30 s on emulated processors, for no reason that a hog has a part in.
    """
    alone = [one.alone for one in meals if math.isfinite(one.alone)]
    return [replace(one, alone=statistics.median(alone)) for one in meals] if alone else list(meals)


def table(meals: Mapping[str, Sequence[Meal]]) -> str:
    """Meals under several headings (such as *with limits*) as Markdown."""
    lines = [
        "| hog | limits | neighbour's job ÷ on its fair share alone | SSH, longest (alone) | killed of the host's | the hog |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for heading, several in meals.items():
        for one in against_the_median(several):
            lines.append(
                f"| {one.hog} | {heading} | {'no end' if math.isnan(one.ratio) else f'{one.ratio:.2f}'} "
                f"| {seconds_in_words(one.ssh)} ({seconds_in_words(one.ssh_alone)}) "
                f"| {', '.join(one.killed) or 'nothing'} | {one.end} |"
            )
    return "\n".join(lines)
