# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies under and between engines: roles storage and network, the probe of overlayfs, packets through the rules."""

from __future__ import annotations

import sys
from typing import Any

import plays
from bench_host import ROOT, BenchHost, say
from figures import Figure, Findings, Series, seconds
from plays import BENEATH, PING, Play

sys.path.insert(0, str(ROOT / "playbooks" / "collections"))
from ansible_collections.matryoshka.host.plugins.module_utils import _overlay_start

ROLES_GOAL, PROBE_SECONDS, PACKETS_GOAL = 1.5, 2.0, 1.1
PATHS = ("/", "/run", "/tmp", "/var/lib/docker", "/var/lib/matryoshka")
FEW, MANY = 10, 1000


def beneath(host: BenchHost, repetitions: int) -> Findings:
    """All of it on a host with the site."""
    found = roles(host, repetitions)
    found.add(probe(host, repetitions))
    found.add(packets(host, repetitions))
    return found


def roles(host: BenchHost, repetitions: int) -> Findings:
    """Roles storage and network on a host that is as planned beside a ping; a hundred rules beside none."""
    say("roles storage and network, warm, and a ping, in turns")
    rules = {"network_allow": [{"to": f"10.9.{each}.0/24", "ports": [443]} for each in range(100)]}
    taken: dict[str, list[Play]] = {"roles": [], "ping": [], "rules": []}
    plays.play(host, BENEATH)
    for _ in range(repetitions):
        taken["roles"].append(plays.play(host, BENEATH))
        taken["ping"].append(plays.play(host, PING))
    plays.play(host, BENEATH, rules)
    for _ in range(min(repetitions, 3)):
        taken["rules"].append(plays.play(host, BENEATH, rules))
    plays.play(host, BENEATH)
    series = {name: Series(tuple(each.seconds for each in runs)) for name, runs in taken.items()}
    found = Findings([
        Figure("storage and network, warm / ping", series["roles"], series["ping"], ROLES_GOAL),
        Figure("  with 100 entries allowed / without", series["rules"], series["roles"]),
    ])  # fmt: skip
    count = {name: len(plays.median(runs).remote) for name, runs in taken.items()}
    found.notes.append(
        f"storage and network: {count['roles']} remote tasks, {count['rules']} with 100 entries allowed"
    )
    if found.figures[0].verdict == "missed":
        found.breakdowns["Storage and network, warm"] = plays.median(taken["roles"]).parts()
    return found


def probe(host: BenchHost, repetitions: int) -> Findings:
    """``overlay_info``'s probe on five paths."""
    say("the probe of overlayfs on five paths")
    parents = {path: path for path in PATHS}
    request: dict[str, Any] = {"parents": parents, "users": [], "fuse_overlayfs": None, "timeout": 20.0}
    asked = {"program": _overlay_start.program(request), "repetitions": repetitions}
    measured = host.program("overlay", asked)
    taken = Series(tuple(measured["seconds"]))
    found = Findings([Figure("overlay_info on five paths / 2 s", taken, Series((PROBE_SECONDS,)), 1.0)])
    found.notes.append(f"overlay_info: {seconds(taken.median)} for {', '.join(measured['paths'])}")
    return found


def packets(host: BenchHost, repetitions: int) -> Findings:
    """Time for a packet through the rules, by the number of entries that are allowed."""
    say(f"packets through the rules with {FEW} and with {MANY} entries allowed, in turns")
    measured = host.program("packets", {"entries": [FEW, MANY], "repetitions": repetitions})
    rates = measured["packets_per_second"]
    each = {name: Series(tuple(1 / rate for rate in taken)) for name, taken in rates.items()}
    found = Findings([
        Figure(f"a packet with {MANY} entries allowed / with {FEW}", each["many"], each["few"], PACKETS_GOAL),
        Figure(f"  {MANY} as rules of their own / {FEW} in a set", each["many_rules"], each["few"]),
    ])  # fmt: skip
    found.notes.append(f"packets a second, medians: {measured['median']}")
    return found
