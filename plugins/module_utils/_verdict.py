# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's answers against a whole plan: what it can carry, and what has to be refused. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _routes
from ansible_collections.matryoshka.host.plugins.module_utils._data_root import judge_apart, judge_data_root
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._modes import MODES
from ansible_collections.matryoshka.host.plugins.module_utils._networks import NamedRange, daemon_ranges
from ansible_collections.matryoshka.host.plugins.module_utils._preflight import judge_modes
from ansible_collections.matryoshka.host.plugins.module_utils._runner_plan import inner_ranges
from ansible_collections.matryoshka.host.plugins.module_utils._taken_ranges import ENGINES_OWN


def preflight_verdict(
    facts: Mapping[str, Any],
    *,
    modes: Sequence[str],
    supported: Mapping[str, Sequence[str]],
    runners: Sequence[Mapping[str, Any]] = (),
    daemon: Mapping[str, Any] | None = None,
    engine_version: str | None = None,
    volumes: Sequence[str] = (),
) -> dict[str, Any]:
    """What a host can carry of a plan.

    :param facts: the answer of ``host_info``, with the paths of all data roots among its paths.
    :param modes: the modes that the plan needs.
    :param supported: operating systems to versions.
    :param runners: the plan of the runners.
    :param daemon: the configuration of the host's engine.
    :param volumes: where volumes will be mounted; what lies there before isn't where data will be.
    :returns: ``modes`` (every mode of the table: possible, reasons) and ``refusals`` (sentences; empty if all fits).
    """
    verdicts = judge_modes(facts, sorted(MODES), supported=supported, engine_version=engine_version or None)
    refusals = [
        f"Mode {name} can't be had on this host. {reason}"
        for name in modes
        for reason in verdicts[name]["reasons"]
    ]
    root = facts["paths"].get((daemon or {}).get("data-root"))
    if root and not _waits_for_a_volume(root, volumes):
        refusals += _refused(judge_data_root, root, "docker_data_root", engine_content=True)
    roots = _runner_roots(facts, runners)
    for variable, (name, answer) in roots.items():
        if _waits_for_a_volume(answer, volumes):
            continue
        refusals += _refused(judge_data_root, answer, variable, owner="runner", name=name)
    refusals += _refused(judge_apart, {variable: answer for variable, (_name, answer) in roots.items()})
    refusals += _overlapping(facts, runners, daemon or {})
    refusals += _too_large(facts, runners)
    return {"modes": verdicts, "refusals": refusals}


def _waits_for_a_volume(facts: Mapping[str, Any], volumes: Sequence[str]) -> bool:
    """Whether a path is on a volume that isn't mounted yet."""
    return any(
        posixpath.commonpath([str(facts["path"]), volume]) == volume and facts["mount_point"] != volume
        for volume in volumes
    )


def _runner_roots(
    facts: Mapping[str, Any], runners: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[str, Mapping[str, Any]]]:
    return {
        f"runner_runners[{runner['name']}].directory": (runner["name"], facts["paths"][runner["directory"]])
        for runner in runners
        if runner["directory"] in facts["paths"]
    }


def _refused(judge: Callable[..., None], *arguments: Any, **options: Any) -> list[str]:
    """What ``judge`` refuses, as a list of no or one sentence."""
    try:
        judge(*arguments, **options)
    except HostError as error:
        return [str(error)]
    return []


def _overlapping(
    facts: Mapping[str, Any], runners: Sequence[Mapping[str, Any]], daemon: Mapping[str, Any]
) -> list[str]:
    """Ranges of the plan that meet the host's routes; each message names both sides."""
    found: list[str] = []
    ours: list[NamedRange] = daemon_ranges(daemon, "docker_daemon")
    for runner in runners:
        ours += inner_ranges(runner)
    ranges = {one.name: str(one.network) for one in ours}
    network = facts["network"]
    for overlap in _routes.overlaps(ranges, network["routes"], ENGINES_OWN, network["nameservers"]):
        found.append(f"{overlap}; choose another range")
    return found


def _too_large(facts: Mapping[str, Any], runners: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    for runner in runners:
        variable, limits = f"runner_runners[{runner['name']}]", runner["limits"]
        if limits["cpus"] and limits["cpus"] > facts["cpus"]:
            found.append(
                f"{variable}.cpus: {limits['cpus']} is refused; allowed: at most {facts['cpus']}, as the host has"
            )
        if limits["memory_bytes"] and limits["memory_bytes"] > facts["memory_bytes"]:
            allowed = f"at most the host's {facts['memory_bytes']} bytes"
            found.append(f"{variable}.memory: {limits['memory_bytes']} bytes are refused; allowed: {allowed}")
    return found
