# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the benchmark. Each takes its repetitions in turns, so that a busy machine slows both sides."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import plays
from bench_host import BenchHost, Failure, say
from beneath import beneath as beneath_engines
from figures import Figure, Findings, Series, number, seconds
from plays import DOCKER_ONLY, PING, Play

WARM_GOAL, COLD_GOAL, RUNNERS_GOAL, TURNAROUND_GOAL, BUILD_GOAL = 4.0, 1.5, 1.2, 1.1, 1.15
MANY = 20
DATA = "/var/lib/matryoshka/bench"
IMAGE_ACTION = "matryoshka.host.environment_image"
BARE_INSTALL = (
    "export DEBIAN_FRONTEND=noninteractive; apt-get update && "
    "apt-get install -y --no-install-recommends {packages}"
)


@dataclass
class Bench:
    """The hosts of one run of the benchmark.

    :param repetitions: how often what takes seconds is repeated.
    """

    repetitions: int = 5
    hosts: dict[str, BenchHost] = field(default_factory=dict)

    def host(self, name: str) -> BenchHost:
        """The host of this name with the site on it, made first if need be."""
        if name not in self.hosts:
            say(f"making the host {name} and running the site on it")
            self.hosts[name] = BenchHost(name)
            plays.site(self.hosts[name], warm=False)
        return self.hosts[name]

    def fresh(self, name: str) -> BenchHost:
        self.hosts[name] = BenchHost.fresh(name)
        return self.hosts[name]

    def drop(self, name: str) -> None:
        if name in self.hosts:
            self.hosts.pop(name).remove()

    def close(self) -> None:
        for name in list(self.hosts):
            self.drop(name)


def bare_install(bench: Bench, packages: set[str]) -> float:
    host = bench.fresh("bench-bare")
    try:
        return host.timed(BARE_INSTALL.format(packages=shlex.join(sorted(packages))))
    finally:
        bench.drop("bench-bare")


def cold(bench: Bench) -> Findings:
    """The site on fresh hosts beside a bare ``apt-get install`` of the same packages."""
    sites: list[Play] = []
    bare: list[float] = []
    packages: set[str] = set()
    names = ("bench-1", "bench-2")[: bench.repetitions]
    for turn, name in enumerate(names, start=1):
        say(f"cold site, {turn} of {len(names)}")
        host = bench.fresh(name)
        before = host.packages()
        sites.append(plays.site(host, warm=False))
        packages = packages or host.packages() - before
        say(f"bare apt-get install, {turn} of {len(names)}")
        bare.append(bare_install(bench, packages))
    image = [sum(task.seconds for task in each.tasks if task.action == IMAGE_ACTION) for each in sites]
    without = Series(tuple(each.seconds - made for each, made in zip(sites, image, strict=True)))
    figure = Figure("cold site / bare apt-get install", without, Series(tuple(bare)), COLD_GOAL)
    found = Findings([figure])
    found.notes.append(
        f"cold site: {Series(tuple(each.seconds for each in sites))} in all, {Series(tuple(image))} of it for "
        f"building the image of job environments, which the ratio leaves out; both sides fetch package lists; "
        f"packages: {' '.join(sorted(packages))}"
    )
    if figure.verdict == "missed":
        typical = plays.median(sites)
        rest = tuple(task for task in typical.tasks if task.action != IMAGE_ACTION)
        made = sum(task.seconds for task in typical.tasks) - sum(task.seconds for task in rest)
        found.breakdowns["A cold site without the image"] = Play(typical.seconds - made, rest).parts()
    return found


def warm(bench: Bench) -> Findings:
    """The site on a host that needs no change beside a ping."""
    host = bench.host("bench-1")
    host.await_ready(1)
    say("warm site, ping and a play for Docker only, in turns")
    variants: dict[str, tuple[list[Play], Callable[[], Play]]] = {
        "ping": ([], lambda: plays.play(host, PING)),
        "site": ([], lambda: plays.site(host)),
        "docker": ([], lambda: plays.play(host, DOCKER_ONLY)),
        "fresh ping": ([], lambda: plays.play(host, PING, fresh=True)),
        "fresh site": ([], lambda: plays.site(host, fresh=True)),
    }
    for name in ("docker", "site", "ping"):
        variants[name][1]()
    for turn in range(bench.repetitions):
        for name, (taken, take) in variants.items():
            if not name.startswith("fresh") or turn < 3:
                taken.append(take())
    series = {name: Series(tuple(each.seconds for each in taken)) for name, (taken, _) in variants.items()}
    figure = Figure("warm site / ping", series["site"], series["ping"], WARM_GOAL)
    found = Findings([
        figure,
        Figure("  the same, new connections", series["fresh site"], series["fresh ping"]),
        Figure("  play for Docker only / ping", series["docker"], series["ping"]),
    ])  # fmt: skip
    typical = plays.median(variants["site"][0])
    calls = host.control / "calls"
    calls.unlink(missing_ok=True)
    plays.play(host, plays.SITE, calls=calls)
    started = len(calls.read_text(encoding="utf-8").splitlines())
    calls.unlink()
    found.notes.append(
        f"warm site: {len(typical.remote)} remote tasks of {len(typical.tasks)}, {started} starts of ssh; "
        f"the Docker-only play: {len(plays.median(variants['docker'][0]).remote)} remote tasks, facts included; "
        "connections are kept open between runs, except where it says new; all with pipelining and sudo"
    )
    if figure.verdict == "missed":
        found.breakdowns["A warm site"] = typical.parts()
        found.breakdowns["A ping"] = plays.median(variants["ping"][0]).parts()
    return found


def site(bench: Bench) -> Findings:
    """Cold, then warm on one of the hosts that this made."""
    installed = cold(bench)
    found = warm(bench)
    found.add(installed)
    return found


def runners(bench: Bench) -> Findings:
    """A warm site with many runners beside one with a single runner, on two hosts."""
    one, many = bench.host("bench-1"), bench.host("bench-2")
    wanted = {"runner_runners": [{"name": f"ci-{each:02}"} for each in range(1, MANY + 1)]}
    say(f"a host with {MANY} runners, until all are ready")
    growth = plays.site(many, wanted, warm=False)
    many.await_ready(MANY)
    one.await_ready(1)
    say(f"warm sites with {MANY} runners and with 1, in turns")
    taken: dict[int, list[Play]] = {1: [], MANY: []}
    plays.site(one)
    plays.site(many, wanted)
    for _ in range(bench.repetitions):
        taken[1].append(plays.site(one))
        taken[MANY].append(plays.site(many, wanted))
    above, below = (Series(tuple(each.seconds for each in taken[count])) for count in (MANY, 1))
    figure = Figure(f"warm site with {MANY} runners / with 1", above, below, RUNNERS_GOAL)
    found = Findings([figure])
    found.notes.append(
        f"remote tasks: {len(taken[MANY][0].remote)} with {MANY} runners, {len(taken[1][0].remote)} with 1; "
        f"going from 1 runner to {MANY}: {seconds(growth.seconds)}"
    )
    if figure.verdict == "missed":
        found.breakdowns[f"What {MANY} runners take longer"] = longer(taken[MANY], taken[1])
    bench.drop("bench-2")
    return found


def longer(above: list[Play], below: list[Play]) -> list[tuple[str, float]]:
    """By how much tasks of some runs outlast those of the same names in others, in medians."""

    def by_name(taken: list[Play]) -> dict[str, float]:
        names = {task.name for each in taken for task in each.tasks}
        return {
            name: statistics.median(
                sum(task.seconds for task in each.tasks if task.name == name) for each in taken
            )
            for name in names
        }

    first, second = by_name(above), by_name(below)
    return [
        (name, first[name] - second.get(name, 0.0)) for name in first if first[name] > second.get(name, 0.0)
    ]


def turnaround(bench: Bench) -> Findings:
    """From the end of a job to the next environment, beside bare starts of the same image."""
    host = bench.host("bench-1")
    wanted = {"runner_runners": [{"name": "ci"}, {"name": "once", "cache": "none"}]}
    plays.site(host, wanted, warm=False)
    host.await_ready(2)
    say("jobs and bare starts of the same image, in turns")
    asked = {"runners": ["ci", "once"], "repetitions": bench.repetitions, "directory": DATA}
    measured = host.program("turnaround", asked)
    found = Findings()
    for runner, cache in (("ci", "persistent"), ("once", "none")):
        taken = {name: Series(tuple(values)) for name, values in measured[runner].items()}
        found.figures.append(
            Figure(
                f"next environment / bare start, cache {cache}",
                taken["outside"],
                taken["bare"],
                TURNAROUND_GOAL,
            )
        )
        found.notes.append(
            f"cache {cache}: the program itself says {taken['program']} from a job's end to ready; "
            "the table has it as seen from outside, from the time that the job's last command printed"
        )
    return found


def build(bench: Bench) -> Findings:
    """One image build on the host's engine and in job environments."""
    host = bench.host("bench-1")
    say("the same image build on the host's engine, nested, and nested on vfs, in turns")
    host.run(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "docker-buildx"])
    states = host.states()
    if not states:
        raise Failure(f"{host.name} has no runner")
    asked = {
        "runner": states[0]["runner"],
        "repetitions": min(bench.repetitions, 4),
        "repetitions_vfs": 2,
        "directory": DATA,
    }
    measured = host.program("build", asked)
    taken = {kind: Series(tuple(measured[kind])) for kind in ("host", "nested", "vfs")}
    drivers = measured["drivers"]
    found = Findings([
        Figure("nested build / build on the host's engine", taken["nested"], taken["host"], BUILD_GOAL),
        Figure("  the same nested on vfs", taken["vfs"], taken["host"]),
    ])  # fmt: skip
    found.notes.append(
        f"build: {measured['steps']} steps over a base of {measured['base_megabytes']} MB, {measured['files']} "
        f"files handed in, BuildKit, no cache; storage: {drivers['host']} on the host, {drivers['nested']} nested, "
        f"{drivers['vfs']} without a volume"
    )
    if found.figures[0].verdict == "missed":
        nested, on_host = measured["step_seconds"]["nested"], measured["step_seconds"]["host"]
        slower = [(step, nested[step] - on_host.get(step, 0.0)) for step in nested]
        found.breakdowns["What a nested build takes longer"] = [each for each in slower if each[1] > 0]
    saved = taken["vfs"].median - taken["nested"].median
    found.notes.append(f"what the check of the storage driver saves on this build: {number(saved)} s")
    return found


def beneath(bench: Bench) -> Findings:
    """What lies under and between engines."""
    return beneath_engines(bench.host("bench-1"), bench.repetitions)


PARTS: dict[str, Callable[[Bench], Findings]] = {
    "site": site, "runners": runners, "beneath": beneath, "turnaround": turnaround, "build": build,
}  # fmt: skip
