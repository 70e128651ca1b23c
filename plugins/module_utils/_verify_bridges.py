# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look into the network namespaces of the host and of environments, with what module ``bridge_info`` makes of it.

Each namespace is entered once, for the rules that other checks compare too. Engines aren't asked
again: what they have answered already is told to those who ask.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._bridge_info import (
    Judgement,
    Seen,
    judge,
    look,
    parse_reserved,
)
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_overlaps import Claim
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_read import Namespace
from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import Ask, NoAnswer
from ansible_collections.matryoshka.host.plugins.module_utils._verify_lan import reach
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    EngineView,
    Expect,
    Firewall,
)

_WHERE = "/usr/sbin:/sbin:/usr/bin:/bin"
#: What read_namespace calls the programs whose rules are compared.
_SAVERS = ("iptables (nft)", "iptables (legacy)")


def told(engines: Mapping[str, EngineView]) -> Ask:
    """An ``ask`` that knows what engines have answered already, by the folder their socket was looked for in."""

    def answer(path: str, url: str, *, root: str = "/", timeout: float = 5.0) -> Any:
        engine = engines.get(root)
        if engine is None or not engine.info:
            raise NoAnswer((engine.error if engine else None) or f"{path} wasn't asked")
        return {"/info": engine.info, "/networks": engine.networks}[url]

    return answer


def look_around(
    expect: Expect, run: Runner, engines: Mapping[str, EngineView], processes: Mapping[str, int]
) -> Seen:
    """The host's network namespace and those of environments.

    :param engines: what the engines have answered, for :func:`told`.
    :param processes: the environments' first processes by name.
    """
    return look(run, told(engines), list(processes), docker_socket=expect.engine_socket, pids=processes)


def default_backend() -> str:
    """The backend of the host's ``iptables``: ``nft`` or ``legacy``."""
    program = shutil.which("iptables-save", path=_WHERE)
    return "legacy" if program and "legacy" in os.path.basename(os.path.realpath(program)) else "nft"


def firewall_of(seen: Namespace, backend: str) -> Firewall:
    """The IPv4 rules of a namespace in ``backend``, and whether Docker's are in the other one instead."""
    if seen.error:
        return Firewall(error=seen.error)
    here = seen.firewalls.get(f"ip {backend}")
    elsewhere = seen.firewalls.get(f"ip {'nft' if backend == 'legacy' else 'legacy'}")
    failed = [one for one in seen.unread if one in _SAVERS]
    if here is None and failed:
        return Firewall(error=f"{failed[0]} can't be read")
    found = here or Firewall(backend="legacy" if backend == "legacy" else "nf_tables")
    other = not _has_docker(found) and elsewhere is not None and _has_docker(elsewhere)
    return Firewall(backend=found.backend, chains=found.chains, other=other)


def _has_docker(firewall: Firewall) -> bool:
    return "DOCKER" in firewall.chains.get("nat", {})


def describe(expect: Expect, seen: Seen) -> dict[str, Any]:
    """What the checks and the tree need of the look, as plain data.

    ``overlaps``, ``cut_off``, ``narrow`` (of the paths, what doesn't fit), ``learnt`` and ``mixed``
    (namespaces with rules in both backends of iptables); ``lan`` is how far guests of each bridge of
    the host reach, of :func:`_verify_lan.reach`.
    """
    judged = judge(seen, parse_reserved(expect.network.get("reserved") or []))
    return {
        "overlaps": _overlaps(judged),
        "cut_off": judged.cut_off,
        "narrow": _narrow(judged),
        "learnt": [{"where": one.name, **entry} for one in (seen.host, *seen.inside) for entry in one.learnt],
        "mixed": [one.name for one in seen.namespaces if {"nft", "legacy"} <= set(one.backends)],
        "lan": reach(seen.host),
    }


def _overlaps(judged: Judgement) -> list[dict[str, Any]]:
    return [
        {
            "where": one.ours.where,
            "severity": one.severity,
            "text": one.text,
            "remedy": one.remedy,
            "sides": [_side(claim) for claim in (one.ours, one.other)],
        }
        for one in judged.overlaps
    ]


def _side(claim: Claim) -> dict[str, Any]:
    return {
        "where": claim.where,
        "kind": claim.kind,
        "engine": claim.engine,
        "range": str(claim.network),
        "live": claim.live,
    }


def _narrow(judged: Judgement) -> list[dict[str, Any]]:
    found = []
    for way in judged.paths:
        if way.narrow:
            inner, outer = way.narrow
            found.append({"inner": inner.as_dict(), "outer": outer.as_dict()})
    return found
