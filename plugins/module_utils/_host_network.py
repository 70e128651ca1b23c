# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's addresses, routes, nameservers and bridges.

Source of facts: ``ip -j`` where it is installed, else ``/proc/net`` and the interface
ioctls; ``/sys/class/net``; resolv.conf; the configurations of engines.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import re
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._command import Result, Runner
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View

_SIOCGIFADDR = 0x8915
_SIOCGIFNETMASK = 0x891B
_BRIDGES = (
    (re.compile(r"^(docker\d+|docker_gwbridge|br-[0-9a-f]{12})$"), "docker"),
    (re.compile(r"^(podman\d+|cni-podman\d+)$"), "podman"),
    (re.compile(r"^virbr\d+$"), "libvirt"),
)
_STUB = "127.0.0.53"
_RANGES = ("bip", "default-address-pools")
DAEMON_JSON = "/etc/docker/daemon.json"
RUNNERS = "/etc/matryoshka/runners"
IP_COMMANDS: dict[str, tuple[str, ...]] = {
    "addresses": ("ip", "-j", "addr", "show"),
    "routes4": ("ip", "-j", "-4", "route", "show"),
    "routes6": ("ip", "-j", "-6", "route", "show"),
}


def read_network(results: Mapping[str, Result], view: View) -> dict[str, Any]:
    """Facts about the network from the results of :data:`IP_COMMANDS`, or from ``/proc`` without them.

    IPv6's link-local addresses and routes, which every interface has, are left out.
    """
    if all(result.ok for result in results.values()):
        addresses = parse_ip_addresses(results["addresses"].out)
        routes = parse_ip_routes(results["routes4"].out, 4) + parse_ip_routes(results["routes6"].out, 6)
    else:
        addresses = _addresses_without_ip(view)
        routes = parse_proc_routes(view.text("/proc/net/route") or "")
        routes += parse_proc_routes6(view.text("/proc/net/ipv6_route") or "")
    addresses = [entry for entry in addresses if (entry["family"], entry["scope"]) != (6, "link")]
    routes = [route for route in routes if route["destination"] != "fe80::/64"]
    default = default_interface(routes)
    return {
        "addresses": addresses,
        "routes": routes,
        "nameservers": read_nameservers(view),
        "default_interface": default,
        "mtu": _mtu(view, default) if default else None,
        "bridges": [
            {
                "name": name,
                "addresses": [entry["address"] for entry in addresses if entry["interface"] == name],
                "managed_by": bridge_manager(name),
                "mtu": _mtu(view, name),
            }
            for name in view.names("/sys/class/net")
            if view.exists(f"/sys/class/net/{name}/bridge")
        ],
        "engine_ranges": read_engine_ranges(view),
    }


def read_engine_ranges(view: View) -> dict[str, dict[str, Any]]:
    """The ranges that engines are configured with now: ``docker`` by its daemon.json, ``runner`` by a runner's file."""
    found = {}
    runners = [name for name in view.names(RUNNERS) if name.endswith(".json")]
    for level, path, key in (
        ("docker", DAEMON_JSON, None),
        *(("runner", f"{RUNNERS}/{name}", "inner_daemon") for name in runners[:1]),
    ):
        try:
            config = json.loads(view.text(path) or "{}")
            config = config[key] if key else config
            found[level] = {name: config[name] for name in _RANGES if name in config}
        except (ValueError, KeyError, TypeError):
            continue
    return {level: ranges for level, ranges in found.items() if ranges}


def start_ip(run: Runner, name: str) -> Result:
    """The result of one of :data:`IP_COMMANDS`; code 127 if ``ip`` isn't installed."""
    return run(IP_COMMANDS[name], check=False, timeout=10.0)


def parse_ip_addresses(text: str) -> list[dict[str, Any]]:
    """``ip -j addr show`` as a list of interface, address (with prefix length), family, scope."""
    return [
        {
            "interface": link["ifname"],
            "address": f"{entry['local']}/{entry['prefixlen']}",
            "family": 6 if entry["family"] == "inet6" else 4,
            "scope": entry.get("scope"),
        }
        for link in json.loads(text or "[]")
        for entry in link.get("addr_info", [])
        if "local" in entry
    ]


def parse_ip_routes(text: str, family: int) -> list[dict[str, Any]]:
    """``ip -j route show`` as a list of routes; a multipath route becomes one for each of its hops."""
    found = []
    for entry in json.loads(text or "[]"):
        destination = _destination(entry["dst"], family)
        for hop in entry.get("nexthops") or [entry]:
            found.append(
                _route(
                    destination,
                    hop.get("gateway", entry.get("gateway")),
                    hop.get("dev", entry.get("dev")),
                    family,
                    entry.get("metric", 0),
                    entry.get("type", "unicast"),
                )
            )
    return found


def parse_proc_routes(text: str) -> list[dict[str, Any]]:
    """``/proc/net/route`` (IPv4, hexadecimal in the machine's byte order); routes that are up."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or not int(fields[3], 16) & 1:
            continue
        network = f"{_little(fields[1])}/{_little(fields[7])}"
        gateway = _little(fields[2])
        found.append(
            _route(
                str(ipaddress.ip_network(network, strict=False)),
                None if gateway == "0.0.0.0" else gateway,
                fields[0],
                4,
                int(fields[6]),
                "unicast",
            )
        )
    return found


def parse_proc_routes6(text: str) -> list[dict[str, Any]]:
    """``/proc/net/ipv6_route``; without local, multicast and rejecting entries, as ``ip route`` shows it."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 10:
            continue
        flags = int(fields[8], 16)
        network = ipaddress.IPv6Network((int(fields[0], 16), int(fields[1], 16)), strict=False)
        rejecting, local = flags & 0x200, flags & 0x80000000
        if not flags & 1 or rejecting or local or fields[9] == "lo" or network.is_multicast:
            continue
        gateway = ipaddress.IPv6Address(int(fields[4], 16))
        found.append(
            _route(
                str(network),
                str(gateway) if int(gateway) else None,
                fields[9],
                6,
                int(fields[5], 16),
                "unicast",
            )
        )
    return found


def parse_resolv_conf(text: str) -> list[str]:
    """The nameservers of a resolv.conf, in their order."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            found.append(words[1])
    return found


def default_interface(routes: Sequence[Mapping[str, Any]]) -> str | None:
    """The interface of the default route with the lowest metric, IPv4 before IPv6."""
    ways = [route for route in routes if route["destination"] in ("0.0.0.0/0", "::/0") and route["interface"]]
    ways.sort(key=lambda route: (route["family"], route["metric"]))
    return ways[0]["interface"] if ways else None


def bridge_manager(name: str) -> str:
    """Who makes bridges of such a name: ``docker``, ``podman``, ``libvirt`` or ``other``.

    An engine's network with a bridge name of its own choice is ``other``: only the engine could tell.
    """
    for pattern, manager in _BRIDGES:
        if pattern.match(name):
            return manager
    return "other"


def _route(
    destination: str, gateway: str | None, interface: str | None, family: int, metric: int, kind: str
) -> dict[str, Any]:
    return {
        "destination": destination,
        "gateway": gateway,
        "interface": interface,
        "family": family,
        "metric": metric,
        "type": kind,
    }


def _destination(text: str, family: int) -> str:
    if text == "default":
        return "0.0.0.0/0" if family == 4 else "::/0"
    return str(ipaddress.ip_network(text, strict=False))


def _little(text: str) -> str:
    return socket.inet_ntoa(struct.pack("=I", int(text, 16)))


def _mtu(view: View, interface: str) -> int | None:
    text = (view.text(f"/sys/class/net/{interface}/mtu") or "").strip()
    return int(text) if text.isdigit() else None


def read_nameservers(view: View) -> list[str]:
    """The nameservers of resolv.conf, or those behind systemd-resolved's stub."""
    found = parse_resolv_conf(view.text("/etc/resolv.conf") or "")
    if found == [_STUB]:
        return parse_resolv_conf(view.text("/run/systemd/resolve/resolv.conf") or "") or found
    return found


def _addresses_without_ip(view: View) -> list[dict[str, Any]]:
    """The first IPv4 address of every interface, and all IPv6 ones."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for name in view.names("/sys/class/net"):
            request = struct.pack("256s", name.encode()[:15])
            try:
                address = socket.inet_ntoa(fcntl.ioctl(sock, _SIOCGIFADDR, request)[20:24])
                mask = socket.inet_ntoa(fcntl.ioctl(sock, _SIOCGIFNETMASK, request)[20:24])
            except OSError:
                continue
            interface = ipaddress.ip_interface(f"{address}/{mask}")
            scope = "host" if interface.is_loopback else "global"
            found.append({"interface": name, "address": str(interface), "family": 4, "scope": scope})
    return found + parse_if_inet6(view.text("/proc/net/if_inet6") or "")


def parse_if_inet6(text: str) -> list[dict[str, Any]]:
    """``/proc/net/if_inet6`` in the form of :func:`parse_ip_addresses`."""
    scopes = {0x00: "global", 0x10: "host", 0x20: "link", 0x40: "site"}
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 6:
            address = ipaddress.IPv6Interface((int(fields[0], 16), int(fields[2], 16)))
            scope = scopes.get(int(fields[3], 16), "global")
            found.append({"interface": fields[5], "address": str(address), "family": 6, "scope": scope})
    return found
