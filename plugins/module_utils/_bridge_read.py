# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks into network namespaces, of the host and of containers, with the host's own programs.

A container's namespace is entered, never its file system: a job could have put another ``ip``
there. One process is started for each namespace; engines are asked over their sockets, or
their files are read.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._bridge_engines import (
    Engine,
    docker_configuration,
    docker_engine,
    libvirt_network,
    network_setting,
    podman_engine,
    podman_networks,
)
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_links import (
    Address,
    Link,
    Route,
    parse_learnt,
    parse_links,
    parse_routes,
    parse_rules,
)
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_processes import (
    INNER_SOCKET,
    PATIENCE,
)
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_rules import (
    BaseChain,
    iptables_chains,
    nft_chains,
    parse_policies,
    parse_sets,
)
from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._host_network import read_nameservers
from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import Ask, NoAnswer
from ansible_collections.matryoshka.host.plugins.module_utils._verify_kernel import parse_firewall
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import Firewall

HOST = "host"
NOT_RUNNING = "not asked: it isn't running"
#: $1 parts the answers: nobody inside a namespace can guess it.
SCRIPT = """\
part() { name=$1; shift; printf '%s begin %s\\n' "$MARK" "$name"; "$@" 2>/dev/null; printf '\\n%s end %s\\n' "$MARK" $?; }
MARK=$1
part links ip -j -d addr show
part routes ip -j route show table all
part routes6 ip -j -6 route show table all
part rules ip -j rule show
part rules6 ip -j -6 rule show
part learnt ip -j route show cache
part switches grep -H . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding \
  /proc/sys/net/bridge/bridge-nf-call-iptables /proc/sys/net/bridge/bridge-nf-call-ip6tables \
  /proc/sys/net/bridge/bridge-nf-call-arptables
if command -v iptables-nft-save >/dev/null
then part nft4 iptables-nft-save; part nft6 ip6tables-nft-save
else part nft4 iptables-save; part nft6 ip6tables-save
fi
[ -z "$(cat /proc/net/ip_tables_names 2>/dev/null)" ] || part legacy4 iptables-legacy-save
[ -z "$(cat /proc/net/ip6_tables_names 2>/dev/null)" ] || part legacy6 ip6tables-legacy-save
command -v ipset >/dev/null && part sets ipset save
part native nft -j -t list ruleset
"""
_SWITCHES = {
    "/proc/sys/net/ipv4/ip_forward": "forward4",
    "/proc/sys/net/ipv6/conf/all/forwarding": "forward6",
    "/proc/sys/net/bridge/bridge-nf-call-iptables": "call_iptables",
    "/proc/sys/net/bridge/bridge-nf-call-ip6tables": "call_ip6tables",
    "/proc/sys/net/bridge/bridge-nf-call-arptables": "call_arptables",
}
_PODMAN_CONF = "containers.conf"
_PODMAN_SIGNS = ("/var/lib/containers/storage", "/etc/containers/networks")
_LIBVIRT = "/etc/libvirt/qemu/networks"


@dataclass
class Namespace:
    """What was seen in one network namespace, the host's or a container's."""

    name: str
    pid: int | None = None
    same_as: str | None = None
    error: str | None = None
    links: list[Link] = field(default_factory=list)
    addresses: list[Address] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    rules: list[dict[str, Any]] = field(default_factory=list)
    learnt: list[dict[str, Any]] = field(default_factory=list)
    nameservers: list[str] = field(default_factory=list)
    switches: dict[str, bool] = field(default_factory=dict)
    filters: list[BaseChain] = field(default_factory=list)
    backends: list[str] = field(default_factory=list)
    firewalls: dict[str, Firewall] = field(default_factory=dict)
    """What the savers printed, by family and backend: ``ip nft``, ``ip6 legacy``."""
    unread: list[str] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)


def read_namespace(
    run: Runner,
    name: str,
    pid: int | None = None,
    *,
    timeout: float = 20.0,
    token: Callable[[], str] = lambda: secrets.token_hex(16),
) -> Namespace:
    """The network namespace of this process, or that of process ``pid``: one process start."""
    enter = ["nsenter", f"--net=/proc/{pid}/ns/net", "--"] if pid else []
    mark = token()
    result = run([*enter, "/bin/sh", "-c", SCRIPT, "sh", mark], check=False, timeout=timeout)
    parts = split_parts(result.out, mark)
    seen = Namespace(name, pid)
    if not parts:
        seen.error = (result.err or result.out).strip() or f"nothing could be read (code {result.code})"
        return seen
    fill(seen, parts)
    return seen


def split_parts(text: str, mark: str) -> dict[str, tuple[int, str]]:
    """What :data:`SCRIPT` printed: name to (code, output)."""
    pattern = rf"^{re.escape(mark)} begin (\w+)\n(.*?)\n{re.escape(mark)} end (\d+)$"
    return {
        name: (int(code), output)
        for name, output, code in re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    }


def fill(seen: Namespace, parts: Mapping[str, tuple[int, str]]) -> None:
    """Put the parts of the answer into ``seen``; what failed is named in ``unread``."""

    def text(name: str) -> str:
        code, output = parts.get(name, (0, ""))
        return output if code == 0 else ""

    seen.links, seen.addresses = parse_links(text("links"))
    routes = parse_routes(text("routes")) + parse_routes(text("routes6"))
    seen.routes = list(dict.fromkeys(routes))
    seen.rules = [
        {**rule, "family": family}
        for family, name in ((4, "rules"), (6, "rules6"))
        for rule in parse_rules(text(name))
    ]
    seen.learnt = parse_learnt(text("learnt"))
    seen.switches = _switches(parts.get("switches", (0, ""))[1])
    _filters(seen, parts)
    seen.unread += [name for name in ("links", "routes") if parts.get(name, (1, ""))[0]]


def _switches(text: str) -> dict[str, bool]:
    found = {}
    for line in text.splitlines():
        path, separator, value = line.rpartition(":")
        if separator and path in _SWITCHES:
            found[_SWITCHES[path]] = value.strip() != "0"
    return found


def _filters(seen: Namespace, parts: Mapping[str, tuple[int, str]]) -> None:
    known = []
    sets = parse_sets(parts.get("sets", (0, ""))[1])
    used = {"nft": False, "legacy": False}
    for family, digit in (("ip", "4"), ("ip6", "6")):
        for backend in ("nft", "legacy"):
            if f"{backend}{digit}" not in parts:
                continue
            code, text = parts[f"{backend}{digit}"]
            if code:
                seen.unread.append(f"{'iptables' if digit == '4' else 'ip6tables'} ({backend})")
                continue
            firewall, policies = parse_firewall(text), parse_policies(text)
            actual = "legacy" if firewall.backend == "legacy" else "nft"
            seen.firewalls[f"{family} {actual}"] = firewall
            known += [(family, table) for table in firewall.chains if actual == "nft"]
            used[actual] |= any(
                rules for chains in firewall.chains.values() for rules in chains.values()
            ) or any(policy != "ACCEPT" for chains in policies.values() for policy in chains.values())
            seen.filters += iptables_chains(firewall, policies, family, actual, sets)
    code, text = parts.get("native", (1, ""))
    if code:
        seen.unread.append("nft")
    native = nft_chains(text, known) if not code else []
    seen.filters += native
    seen.backends = [name for name, there in used.items() if there] + (["nft native"] if native else [])


def read_engines(
    view: View, ask: Ask, socket: str | None, root: str = "/", reason: str = NOT_RUNNING
) -> list[Engine]:
    """The engines whose networks are in one namespace, asked or read from their files.

    :param socket: Docker's socket below ``root``; None if it isn't to be asked, for ``reason``.
    """
    found = []
    docker = _docker(view, ask, socket, root, reason)
    if docker:
        found.append(docker)
    if any(view.exists(path) for path in _PODMAN_SIGNS):
        texts = _containers_conf(view)
        folder = network_setting(texts, "network_config_dir") or "/etc/containers/networks"
        names = [f"{folder}/{name}" for name in view.names(folder) if name.endswith(".json")]
        names += [
            f"/etc/cni/net.d/{name}" for name in view.names("/etc/cni/net.d") if name.endswith(".conflist")
        ]
        networks = [one for name in names for one in podman_networks(view.text(name) or "")]
        found.append(podman_engine(networks, texts))
    files = [f"{_LIBVIRT}/{name}" for name in view.names(_LIBVIRT) if name.endswith(".xml")]
    libvirt = [one for name in files if (one := libvirt_network(view.text(name) or ""))]
    if libvirt:
        found.append(Engine("libvirt", live=True, networks=tuple(libvirt)))
    return found


def _docker(view: View, ask: Ask, socket: str | None, root: str, reason: str) -> Engine | None:
    configuration = view.text("/etc/docker/daemon.json")
    if socket is None:
        return docker_configuration(configuration, reason) if configuration else None
    try:
        info, networks = (ask(socket, url, root=root, timeout=PATIENCE) for url in ("/info", "/networks"))
        return docker_engine(info, networks)
    except NoAnswer as error:
        there = configuration is not None or view.exists(socket)
        return docker_configuration(configuration, str(error)) if there else None


def _containers_conf(view: View) -> list[str]:
    """The texts of containers.conf, the weakest first, as containers.conf(5) orders them."""
    paths = [f"/usr/share/containers/{_PODMAN_CONF}", f"/etc/containers/{_PODMAN_CONF}"]
    folder = f"/etc/containers/{_PODMAN_CONF}.d"
    paths += [f"{folder}/{name}" for name in view.names(folder) if name.endswith(".conf")]
    return [text for path in paths if (text := view.text(path))]


def surroundings(
    seen: Namespace, ask: Ask, view: View, *, docker_socket: str | None = None, paused: bool = False
) -> None:
    """Add engines and nameservers to a namespace.

    :param docker_socket: of the host's daemon, None if that isn't running; that of a container is known.
    :param paused: nobody in the container could answer.
    """
    if seen.pid is None:
        seen.engines = read_engines(view, ask, docker_socket)
    else:
        socket = None if paused else INNER_SOCKET
        root = f"/proc/{seen.pid}/root"
        seen.engines = read_engines(view, ask, socket, root, "not asked: the container is paused")
    seen.nameservers = read_nameservers(view)


def docker_runs(view: View, socket: str) -> bool:
    """Whether a daemon is there to be asked: a socket of systemd's would start one."""
    pid = (view.text("/run/docker.pid") or "").strip()
    if pid.isdigit() and (view.text(f"/proc/{pid}/comm") or "").strip() == "dockerd":
        return True
    own = view.link("/proc/self/ns/pid")
    return view.exists(socket) and any(
        name.isdigit()
        and (view.text(f"/proc/{name}/comm") or "").strip() == "dockerd"
        and view.link(f"/proc/{name}/ns/pid") == own
        for name in view.names("/proc")
    )
