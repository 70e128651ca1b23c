# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify: wait for the runners, look once, compare, and say it in words."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._verify_between import check_bridges
from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import Ask
from ansible_collections.matryoshka.host.plugins.module_utils._verify_environments import check_environments
from ansible_collections.matryoshka.host.plugins.module_utils._verify_firewall import (
    check_firewall_rules,
    check_settings,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_host import (
    check_engine,
    check_files,
    check_group,
    check_image,
    check_room,
    check_units,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_limits import check_limits_of_slices
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    Expect,
    Finding,
    Observed,
    Report,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_network import (
    TOLD,
    check_kernel,
    check_ranges,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_observe import (
    observe,
    state_marks,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_roots import check_roots
from ansible_collections.matryoshka.host.plugins.module_utils._verify_runners import (
    PASSING,
    check_queues,
    check_runners,
    unit_of_runner,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_storage import (
    check_volumes,
    with_volume_units,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_tree import lines, tree

#: Seconds between two looks at the runners' state files.
POLL = 0.05
#: Seconds until the next look while a runner is on its way, if it says nothing before.
AGAIN = 1.0
#: The same in times of what a look took, where that is longer.
SHARE = 5.0
#: Seconds until findings are looked at a second time, because a job may have ended in between.
CONFIRM = 0.4


ARGUMENTS: dict[str, Any] = {
    "expect": {"type": "dict", "required": True},
    "wait": {"type": "float", "default": 60},
    "fail": {"type": "bool", "default": True},
}


def answer(params: Mapping[str, Any], check_mode: bool, run: Runner, ask: Ask) -> dict[str, Any]:
    """The result of module ``verify`` for its parameters (:data:`ARGUMENTS`), also if it doesn't pass.

    :param check_mode: look once, and pass whatever is found: what the play has yet to do isn't there.
    :raises HostError: not root; bad input; systemd doesn't answer.
    """
    if os.geteuid() != 0:
        raise HostError(
            "verify asks engines, namespaces and locks that only root sees; run it with become: true"
        )
    result = verify(params["expect"], 0.0 if check_mode else params["wait"], run, ask)
    return {**result, "passed": check_mode or not result["findings"]}


def check(expect: Expect, seen: Observed) -> Report:
    """Every check on one observation. Pure."""
    expect = with_volume_units(expect, seen.volumes)
    report = Report()
    check_units(report, expect, seen)
    check_engine(report, expect, seen)
    check_kernel(report, seen)
    check_settings(report, expect, seen, told=TOLD)
    check_firewall_rules(report, expect, seen)
    check_ranges(report, expect, seen)
    check_volumes(report, expect, seen)
    check_roots(report, expect, seen)
    check_room(report, seen.disks, expect)
    check_group(report, expect, seen)
    check_image(report, expect, seen)
    check_runners(report, expect, seen)
    check_files(report, expect, seen)
    if seen.engine.error is None:
        check_environments(report, expect, seen)
    check_limits_of_slices(report, expect, seen)
    check_queues(report, expect, seen)
    check_bridges(report, expect, seen)
    report.accept(expect.allow)
    return report


def verify(
    given: Mapping[str, Any],
    wait: float,
    run: Runner,
    ask: Ask,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """The whole of it, as the module's result.

    :param given: the module's ``expect``.
    :param wait: seconds that runners which are on their way may take until they are ready.
    """
    begun = clock()
    expect = Expect.read(given)
    names = [str(one["name"]) for one in expect.runners]
    told: list[Finding] | None = None
    while True:
        before, looked = state_marks(names), clock()
        seen = observe(expect, run, ask)
        report = check(expect, seen)
        left = wait - (clock() - begun)
        if not report.findings or left <= 0:
            break
        coming = _coming(expect, seen)
        if not coming and report.findings == told and state_marks(names) == before:
            break
        told = report.findings
        # On a slow host looking takes the processor from the runners that are waited for.
        again = max(AGAIN, SHARE * (clock() - looked)) if coming else CONFIRM
        _pause(names, before, min(left, again), clock, sleep)
    dolls = tree(expect, seen)
    return {
        "findings": [one.as_dict() for one in report.findings],
        "notes": [one.as_dict() for one in report.notes],
        "report": lines(dolls, report),
        "tree": dolls,
        "runners": {
            name: (view.state or {"state": "unknown"}) for name, view in sorted(seen.runners.items())
        },
        "checks": report.checks,
        "seconds": round(clock() - begun, 3),
    }


def _coming(expect: Expect, seen: Observed) -> list[str]:
    """The runners that aren't ready yet and may become so by themselves."""
    coming = []
    for config in expect.runners:
        name = str(config["name"])
        unit, view = seen.units.get(unit_of_runner(name)), seen.runners.get(name)
        state = str(((view.state if view else None) or {}).get("state", ""))
        moving = unit is not None and unit.active_state == "deactivating"
        if moving or (unit is not None and unit.up and state in PASSING):
            coming.append(name)
    return coming


def _pause(
    names: list[str],
    before: dict[str, str | None],
    limit: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Return when a runner says something new, or after ``limit`` seconds."""
    end = clock() + limit
    while clock() < end and state_marks(names) == before:
        sleep(min(POLL, max(end - clock(), 0.0)))
