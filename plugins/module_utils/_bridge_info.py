# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bridges over bridges: looks at the host and inside containers, and says what is in each other's way.

:func:`look` reads, :func:`judge` is pure, :func:`answer` is both, for the module and for verify.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._bridge_cut import cut_off, judge_bridges
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_inside import Inside
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_links import describe_bridge
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_mtu import Path, Place, paths
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_overlaps import (
    BROKEN,
    DEGRADED,
    NOTE,
    Overlap,
    claims,
    find_overlaps,
    reserved_claims,
)
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_processes import (
    Process,
    container_processes,
    outer_of,
    with_outer,
)
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_read import (
    HOST,
    Namespace,
    docker_runs,
    read_namespace,
    surroundings,
)
from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._networks import Network, parse_network
from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import Ask

ARGUMENTS: dict[str, Any] = {
    "containers": {"type": "list", "elements": "str", "default": []},
    "all_containers": {"type": "bool", "default": False},
    "docker_socket": {"type": "path", "default": "/run/docker.sock"},
    "reserved": {"type": "list", "elements": "raw", "default": []},
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*\Z")
_THREADS = 8


@dataclass
class Seen:
    """The host's namespace first, then those of containers."""

    namespaces: list[Namespace] = field(default_factory=list)

    @property
    def host(self) -> Namespace:
        return self.namespaces[0]

    @property
    def inside(self) -> list[Namespace]:
        """The containers with a network namespace of their own that could be looked at."""
        return [one for one in self.namespaces[1:] if not one.error and not one.same_as]


@dataclass(frozen=True)
class Judgement:
    """What is in each other's way."""

    overlaps: list[Overlap]
    cut_off: list[dict[str, Any]]
    paths: list[Path]
    findings: list[dict[str, str]]

    @property
    def verdict(self) -> str:
        severities = {one["severity"] for one in self.findings}
        return BROKEN if BROKEN in severities else DEGRADED if DEGRADED in severities else "ok"


def answer(params: Mapping[str, Any], run: Runner, ask: Ask) -> dict[str, Any]:
    """All that the module returns.

    :raises InputError: for a name that no container can have, a socket's path that isn't absolute, or a
        reserved range that isn't a network; before anything is looked at.
    """
    containers = [str(name) for name in params.get("containers") or []]
    for index, name in enumerate(containers):
        if not _NAME.match(name):
            raise InputError(f"containers[{index}]", name, "a container's name, such as ci-1, or ci-1/build")
    socket = str(params.get("docker_socket") or ARGUMENTS["docker_socket"]["default"])
    if not socket.startswith("/"):
        raise InputError("docker_socket", socket, "an absolute path, such as /run/docker.sock")
    reserved = parse_reserved(params.get("reserved") or [])
    seen = look(
        run,
        ask,
        containers,
        docker_socket=socket,
        all_containers=bool(params.get("all_containers")),
    )
    judged = judge(seen, reserved)
    return {
        "verdict": judged.verdict,
        "namespaces": {one.name: describe(one) for one in seen.namespaces},
        "overlaps": [one.as_dict() for one in judged.overlaps],
        "cut_off": judged.cut_off,
        "mtu_paths": [one.as_dict() for one in judged.paths],
        "findings": judged.findings,
    }


def parse_reserved(values: Sequence[Any]) -> list[tuple[str, Network]]:
    """Ranges of a site, each ``172.16.0.0/16`` or ``{name: campus, range: 172.16.0.0/16}``."""
    found = []
    for index, value in enumerate(values):
        variable = f"reserved[{index}]"
        if isinstance(value, Mapping):
            if set(value) != {"name", "range"}:
                raise InputError(variable, dict(value), "a network, or {name: campus, range: 172.16.0.0/16}")
            found.append((str(value["name"]), parse_network(f"{variable}.range", value["range"])))
        else:
            found.append(("", parse_network(variable, value)))
    return found


def look(
    run: Runner,
    ask: Ask,
    containers: Sequence[str] = (),
    *,
    docker_socket: str = "/run/docker.sock",
    all_containers: bool = False,
    view: View | None = None,
    pids: Mapping[str, int] | None = None,
) -> Seen:
    """The host's network namespace and those of ``containers``, read side by side. Changes nothing.

    :param pids: the containers' first processes, for a caller that knows them already.
    """
    files = view or View()
    socket = docker_socket if docker_runs(files, docker_socket) else None
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        reading = pool.submit(_host, run, ask, socket, files)
        if pids is not None:
            processes = {name: Process(pid) for name, pid in pids.items()}
        elif containers or all_containers:
            processes = container_processes(run, ask, socket, containers, all_containers, files)
        else:
            processes = {}
        inside = _inside(with_outer([*containers, *processes]), processes, files)
        read = pool.map(lambda one: _container(run, ask, one, processes.get(one.name), files), inside)
        namespaces = list(read)
        host = reading.result()
    return Seen([host, *namespaces])


def _inside(names: Sequence[str], processes: Mapping[str, Process], view: View) -> list[Namespace]:
    """The containers' namespaces before they are looked at; each namespace is looked at once."""
    found: list[Namespace] = []
    known = {view.link("/proc/self/ns/net"): HOST}
    for name in names:
        one = Namespace(name, processes[name].pid or None if name in processes else None)
        found.append(one)
        if not one.pid:
            one.error = (
                "isn't running" if name in processes else "isn't known to Docker or Podman of this host"
            )
            continue
        mark = view.link(f"/proc/{one.pid}/ns/net")
        if mark is not None:
            one.same_as = known.get(mark)
            known.setdefault(mark, name)
    return found


def _host(run: Runner, ask: Ask, socket: str | None, view: View) -> Namespace:
    seen = read_namespace(run, HOST)
    surroundings(seen, ask, view, docker_socket=socket)
    return seen


def _container(run: Runner, ask: Ask, one: Namespace, process: Process | None, view: View) -> Namespace:
    if one.error or one.same_as or not one.pid:
        return one
    seen = read_namespace(run, one.name, one.pid)
    if not seen.error:
        paused = process is not None and process.paused
        surroundings(seen, ask, Inside(one.pid, view.path("/proc")), paused=paused)
    return seen


def judge(seen: Seen, reserved: Sequence[tuple[str, Network]] = ()) -> Judgement:
    """What overlaps, what is cut off, what doesn't fit through. Pure."""

    def taken(one: Namespace) -> Any:
        return claims(one.name, one.routes, one.addresses, one.nameservers, one.engines)

    inside = {one.name: taken(one) for one in seen.inside}
    host = [*taken(seen.host), *reserved_claims(reserved)]
    between = [
        (inside[name], inside[outer])
        for name in inside
        for outer in with_outer([outer_of(name)] if outer_of(name) else [])
        if outer in inside
    ]
    overlaps = find_overlaps(host, list(inside.values()), between)
    places = [_place(one) for one in (seen.host, *seen.inside)]
    ways = paths(places[0], places[1:])
    cut = [found for one in (seen.host, *seen.inside) for found in cut_off(one)]
    return Judgement(overlaps, cut, ways, _findings(seen, overlaps, cut, ways))


def _place(one: Namespace) -> Place:
    return Place(one.name, tuple(one.links), tuple(one.routes), tuple(one.engines), outer_of(one.name))


def _findings(
    seen: Seen, overlaps: Sequence[Overlap], cut: Sequence[Mapping[str, Any]], ways: Sequence[Path]
) -> list[dict[str, str]]:
    """Everything that isn't as it should be, in one list and one form."""
    found = [
        _finding(
            "overlap_possible" if one.severity == NOTE else "overlap",
            one.ours.where,
            one.severity,
            one.text,
            one.remedy,
        )
        for one in overlaps
    ]
    found += [_finding("bridge_cut_off", one["where"], BROKEN, one["text"], one["remedy"]) for one in cut]
    for way in ways:
        if way.narrow:
            inner, outer = way.narrow
            remedy = (
                f"give {inner.interface} ({inner.where}) at most {outer.mtu}: mtu in docker_config on the host,"
                f" runner_mtu inside; or put {outer.interface} back: ip link set {outer.interface} mtu {inner.mtu}"
            )
            found.append(_finding("mtu", way.container, BROKEN, str(way.as_dict()["text"]), remedy))
    for one in seen.namespaces:
        if one.error:
            text = f"container {one.name} {one.error}" if one.pid is None and one.name != HOST else one.error
            found.append(_finding("not_looked_at", one.name, NOTE, text, "docker ps --all"))
        if one.unread:
            text = f"couldn't be read: {', '.join(one.unread)}"
            remedy = "apt-get install iproute2 iptables nftables"
            found.append(_finding("partly_read", one.name, NOTE, text, remedy))
        if {"nft", "legacy"} <= set(one.backends):
            text = "rules are in both backends of iptables: each packet has to pass both"
            remedy = "choose one with update-alternatives --config iptables, and flush the other's"
            found.append(_finding("both_backends", one.name, DEGRADED, text, remedy))
    return found


def _finding(code: str, subject: str, severity: str, text: str, remedy: str) -> dict[str, str]:
    return {"code": code, "subject": subject, "severity": severity, "text": text, "remedy": remedy}


def describe(one: Namespace) -> dict[str, Any]:
    """A namespace as the module returns it."""
    return {
        "error": one.error,
        "same_as": one.same_as,
        "pid": one.pid,
        "addresses": [
            {
                "interface": item.interface,
                "address": item.address,
                "family": ipaddress.ip_interface(item.address).version,
                "scope": item.scope,
            }
            for item in one.addresses
        ],
        "routes": [route.as_dict() for route in one.routes],
        "rules": one.rules,
        "learnt_mtus": one.learnt,
        "nameservers": one.nameservers,
        "bridges": judge_bridges(
            one,
            [
                describe_bridge(link, one.links, one.addresses)
                for link in one.links
                if link.bridge is not None
            ],
        ),
        "engines": [engine.as_dict() for engine in one.engines],
        "forwarding": {"ipv4": one.switches.get("forward4"), "ipv6": one.switches.get("forward6")},
        "br_netfilter": {
            "loaded": "call_iptables" in one.switches,
            **{
                name: one.switches.get(name) for name in ("call_iptables", "call_ip6tables", "call_arptables")
            },
        },
        "backends": one.backends,
        "unread": one.unread,
    }
