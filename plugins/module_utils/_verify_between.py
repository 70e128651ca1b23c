# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bridges between engines: ranges that meet, bridges that are cut off, packets that don't fit. Pure.

What :mod:`_verify_network` has named by an engine's own configuration isn't told a second time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._bridge_overlaps import (
    BROKEN,
    NOTE,
    RESERVED,
)
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_read import HOST
from ansible_collections.matryoshka.host.plugins.module_utils._verify_environments import runner_state
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    SITE,
    Expect,
    Finding,
    Observed,
    Report,
)

#: Findings after which it needs no saying that an engine's own bridges are cut off.
_ENGINE_CUT = ("firewall_", "ip_forward")
#: Findings that cut off every bridge of a host.
_ALL_CUT = ("firewall_blocked", "firewall_forward", "ip_forward")


def check_bridges(report: Report, expect: Expect, seen: Observed) -> None:
    """All that the look into the namespaces found and nobody has told yet."""
    found = seen.bridges
    if not found:
        return
    ranges = [one for one in report.findings if one.code in ("route_overlap", "range_overlap")]
    for overlap in found["overlaps"]:
        _check_overlap(report, expect, seen, overlap, ranges)
    for narrow in found["narrow"]:
        _check_narrow(report, expect, seen, narrow)
    for cut in found["cut_off"]:
        _check_cut(report, expect, seen, cut)
    for entry in found["learnt"]:
        report.note(
            "mtu_learnt",
            subject_of(expect, seen, entry["where"]),
            f"a router has said that the way to {entry['destination']} carries {entry['mtu']} bytes at most",
            f"ip route get {entry['destination']}; ip route flush cache forgets it",
        )
    for where in found["mixed"]:
        report.check(
            where != HOST or bool(expect.firewall),
            "firewall_both",
            "host",
            "rules are loaded in both iptables backends, and a packet has to pass both",
            "choose one with update-alternatives --config iptables, and flush the other's",
        )


def subject_of(expect: Expect, seen: Observed, where: str, engine: str = "") -> str:
    """What a finding is about that was made in a namespace: an engine of the host, or a runner's inner one."""
    if where == HOST:
        return f"engine {engine}" if engine and engine == expect.engine_name else HOST
    runner = runner_in(seen, where)
    return f"runner {runner}, inner engine" if runner else f"container {where}"


def runner_in(seen: Observed, where: str) -> str | None:
    """The runner whose environment is called ``where``."""
    return next((one.runner for one in seen.environments if one.name == where), None)


def _check_overlap(
    report: Report, expect: Expect, seen: Observed, overlap: Mapping[str, Any], told: list[Finding]
) -> None:
    ours, other = overlap["sides"]
    subject = subject_of(expect, seen, overlap["where"], ours["engine"])
    if _concerns_nobody(expect, overlap) or any(
        subject.startswith(one.subject) and _names(one, ours, other) for one in told
    ):
        report.checks += 1
        return
    runner = runner_in(seen, overlap["where"])
    if overlap["severity"] == NOTE or (runner and runner_state(seen, runner) == "running"):
        # What engines avoid by themselves isn't worth a line; a job's own networks go with it.
        if overlap["severity"] != NOTE:
            report.note("overlap", subject, overlap["text"], overlap["remedy"])
        return
    report.check(False, "overlap", subject, overlap["text"], overlap["remedy"])


def _concerns_nobody(expect: Expect, overlap: Mapping[str, Any]) -> bool:
    """Whether it is between others than the promised engine, the runners and the site's ranges, and harms nobody yet."""
    sides = overlap["sides"]
    return overlap["severity"] != BROKEN and not any(
        one["where"] != HOST
        or one["kind"] == RESERVED
        or (expect.engine and one["engine"] == expect.engine_name)
        for one in sides
    )


def _names(finding: Finding, ours: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a finding on ranges speaks of the same two sides."""
    if finding.code == "range_overlap":
        return bool(other["engine"])
    words = set(re.split(r"[;\s]+", finding.text))
    return bool(words & {other["range"], str(other["range"]).partition("/")[0]})


def _check_narrow(report: Report, expect: Expect, seen: Observed, narrow: Mapping[str, Any]) -> None:
    inner, outer = narrow["inner"], narrow["outer"]
    subject = subject_of(expect, seen, inner["where"], expect.engine_name)
    if any(one.code == "mtu" and one.subject == subject for one in report.findings):
        return
    way, own = outer["interface"], outer["interface_mtu"]
    by_route = outer["mtu"] < own
    says = f", as its route says ({way} itself takes {own})" if by_route else ""
    option = "docker_daemon.mtu" if inner["where"] == HOST else "runner_mtu"
    back = (
        "take mtu out of the default route (ip route show default)"
        if by_route
        else f"put {way} back: ip link set {way} mtu {inner['mtu']}"
    )
    report.check(
        False,
        "mtu",
        subject,
        f"packets of {inner['interface']} have {inner['mtu']} bytes, but {way} lets only {outer['mtu']} through{says}",
        f"set {option} to {outer['mtu']} and {SITE}; or {back}",
    )


def _check_cut(report: Report, expect: Expect, seen: Observed, cut: Mapping[str, Any]) -> None:
    engine = expect.engine_name if cut["network"] else ""
    subject = subject_of(expect, seen, cut["where"], engine)
    level = (f"engine {expect.engine_name}", "firewall", HOST) if cut["where"] == HOST else (subject,)
    codes = [one.code for one in report.findings if one.subject in level]
    planned = str(expect.firewall.get("owner") or "").upper()
    explained = any(one.startswith(_ENGINE_CUT if cut["network"] else _ALL_CUT) for one in codes)
    if explained or (planned and f" {planned}-" in f" {cut['because']}"):
        report.checks += 1
        return
    report.check(False, "bridge_cut_off", subject, cut["text"], cut["remedy"])
