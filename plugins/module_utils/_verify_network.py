# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bridges over bridges: ranges, addresses, MTUs, firewall rules and kernel switches, level by level."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _routes
from ansible_collections.matryoshka.host.plugins.module_utils._networks import daemon_ranges, overlaps
from ansible_collections.matryoshka.host.plugins.module_utils._verify_daemon import BRIDGE_MTU
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    SITE,
    EngineView,
    Environment,
    Expect,
    NetView,
    Observed,
    Report,
)

#: Settings that :func:`check_kernel` speaks of.
TOLD = ("net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables")
PARTS = ("pid", "mnt", "net", "ipc", "uts")


def check_ranges(report: Report, expect: Expect, seen: Observed) -> None:
    """No range of any level meets another level's, or what the host already reaches."""
    outer = daemon_ranges(_ranges_only(expect.engine_config), "the engine's configuration")
    routes = [{"interface": name, "destination": network} for name, network in seen.net.routes]
    addresses = [
        {"interface": "an interface of its own", "destination": f"{one}/32"}
        for one in seen.net.addresses
        if not any(_inside(one, network) for _ignored, network in seen.net.routes if network != "0.0.0.0/0")
    ]
    bridges = [bridge_of(network) for network in seen.engine.networks if network.get("Driver") == "bridge"]
    if seen.engine.error:
        bridges = ["docker0", "br-*"]
    for label, config, ignore in [
        ("engine " + expect.engine_name, expect.engine_config, bridges),
        *((f"runner {one['name']}", one.get("inner_daemon") or {}, []) for one in expect.runners),
    ]:
        ranges = daemon_ranges(_ranges_only(config), "")
        found = _routes.overlaps(
            {one.name.lstrip("."): str(one.network) for one in ranges},
            routes + addresses,
            ignore_devices=ignore,
            nameservers=seen.net.nameservers,
        )
        report.check(not found, "route_overlap", label, "; ".join(map(str, found)), _way_out(found))
        if ignore is not bridges:
            met = overlaps(list(ranges), outer)
            report.check(
                not met,
                "range_overlap",
                label,
                "inside and outside share addresses: " + "; ".join(one.lstrip(".") for one in met),
                f"give runner_bip and runner_address_pools ranges apart from docker_bip and docker_address_pools, and {SITE}",
            )


def _ranges_only(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in config.items()
        if key in ("bip", "bip6", "default-address-pools") and value
    }


def _inside(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


def bridge_of(network: Mapping[str, Any]) -> str:
    """The interface of a network of Docker's."""
    name = (network.get("Options") or {}).get("com.docker.network.bridge.name")
    return str(name or f"br-{str(network.get('Id', ''))[:12]}")


def _way_out(found: list[_routes.RouteOverlap]) -> str:
    name = next((one.interface for one in found if one.interface), None)
    if name is None:
        return (
            "choose other ranges (docker_bip, docker_address_pools, runner_bip, runner_address_pools), and "
            + SITE
        )
    return (
        f"ip route show dev {name} and remove that network (ip link delete {name} if nobody needs it), "
        f"or choose ranges apart from it (docker_address_pools, runner_address_pools), and {SITE}"
    )


def check_kernel(report: Report, seen: Observed) -> None:
    """The switches without which nested networks and containers don't work."""

    def value(name: str) -> str | None:
        text = seen.sysctl.get(name)
        return text.strip() if text is not None else None

    report.check(
        seen.net.forwarding is not False,
        "ip_forward",
        "host",
        "net.ipv4.ip_forward is 0: packets of containers don't leave the host",
        "sysctl -w net.ipv4.ip_forward=1, and look for who turns it off: grep -r ip_forward /etc/sysctl.conf /etc/sysctl.d",
    )
    report.check(
        value("net/bridge/bridge-nf-call-iptables") != "0",
        "bridge_nf",
        "host",
        "net.bridge.bridge-nf-call-iptables is 0: Docker's rules don't see packets between containers of a bridge",
        "sysctl -w net.bridge.bridge-nf-call-iptables=1",
    )
    for name in PARTS:
        key = f"user/max_{name}_namespaces"
        report.check(
            value(key) != "0",
            "namespaces_off",
            "host",
            f"{key.replace('/', '.')} is 0: no container can be made",
            f"sysctl -w {key.replace('/', '.')}=31000, and look for who sets it: grep -r max_{name}_namespaces /etc/sysctl.d",
        )


def check_bridge(report: Report, engine: EngineView, net: NetView, subject: str, remedy: str) -> None:
    """The default bridge's interface is there and has the address that the engine believes in."""
    bridge = engine.network("bridge")
    for config in (bridge.get("IPAM") or {}).get("Config") or []:
        gateway = str(config.get("Gateway") or "").partition("/")[0]
        if gateway and ":" not in gateway:
            report.check(
                gateway in net.addresses,
                "bridge_address",
                subject,
                f"its bridge {bridge_of(bridge)} should have the address {gateway}, but nothing has it",
                remedy,
            )


def check_mtu(report: Report, engine: EngineView, net: NetView, subject: str, option: str) -> None:
    """No network of the engine has a larger MTU than the way out: small packets would pass and TLS hang."""
    uplink = net.uplink
    limit = net.mtu.get(uplink or "")
    if limit is None:
        return
    for network in engine.networks:
        if network.get("Driver") == "bridge" and not network.get("Internal"):
            mtu = int((network.get("Options") or {}).get(BRIDGE_MTU) or 1500)
            report.check(
                mtu <= limit,
                "mtu",
                subject,
                f"its network {network.get('Name')} has MTU {mtu}, but the way out, {uplink}, only {limit}",
                f"set {option} to {limit} and {SITE}; or put {uplink} back: ip link set {uplink} mtu {mtu}",
            )


def check_firewall(
    report: Report, engine: EngineView, net: NetView, config: Mapping[str, Any], subject: str, remedy: str
) -> None:
    """Docker's rules are there: containers reach the outside, and nothing in front of them drops it all."""
    backend = str((engine.info.get("FirewallBackend") or {}).get("Driver") or "iptables")
    if config.get("iptables") is False or not backend.startswith("iptables"):
        return
    wall = net.firewall
    if not report.check(
        wall.error is None,
        "firewall_unread",
        subject,
        f"iptables-save fails: {wall.error}",
        "apt-get install iptables",
    ):
        return
    if not report.check(
        not wall.other,
        "firewall_backend",
        subject,
        f"its rules aren't in {wall.backend or 'the host'}'s tables, but in the other iptables backend's",
        "make both alike with update-alternatives --config iptables, then restart the inner one's environment",
    ):
        return
    forward = wall.rules("filter", "FORWARD")
    inner = forward + wall.rules("filter", "DOCKER-FORWARD")
    chains = {table: set(found) for table, found in wall.chains.items()}
    present = "DOCKER" in chains.get("nat", set()) and "DOCKER-USER" in chains.get("filter", set())
    jumps = any("-j DOCKER" in rule for rule in forward)
    bridge = bridge_of(engine.network("bridge")) if engine.network("bridge") else None
    passes = bridge is None or any(f"-i {bridge} " in rule and rule.endswith("-j ACCEPT") for rule in inner)
    report.check(
        present and jumps and passes,
        "firewall_forward",
        subject,
        "Docker's chains or its FORWARD rules are gone (somebody flushed iptables): containers have no way out",
        remedy,
    )
    subnets = [
        config["Subnet"]
        for config in (engine.network("bridge").get("IPAM") or {}).get("Config") or []
        if config.get("Subnet") and ":" not in config["Subnet"]
    ]
    masquerade = wall.rules("nat", "POSTROUTING")
    for subnet in subnets if config.get("ip-masq") is not False else []:
        report.check(
            any(f"-s {subnet} " in rule and "MASQUERADE" in rule for rule in masquerade),
            "firewall_nat",
            subject,
            f"the nat rule that masquerades {subnet} is gone: containers reach nothing outside",
            remedy,
        )
    drops = [
        rule
        for rule in (*_before(forward, "-j DOCKER"), *wall.rules("filter", "DOCKER-USER"))
        if rule in ("-j DROP", "-j REJECT") or rule.startswith("-j REJECT ")
    ]
    report.check(
        not drops,
        "firewall_blocked",
        subject,
        "a rule in front of Docker's own drops every forwarded packet",
        "iptables -S FORWARD and iptables -S DOCKER-USER, then delete the rule: iptables -D CHAIN RULE",
    )


def _before(rules: list[str], mark: str) -> list[str]:
    for index, rule in enumerate(rules):
        if mark in rule:
            return rules[:index]
    return rules


def check_backends(
    report: Report, environment: Environment, seen: Observed, subject: str, remedy: str
) -> None:
    """Inner and outer rules are in the same backend, else the kernel evaluates two sets."""
    inner, outer = environment.net.firewall.backend, seen.net.firewall.backend
    report.check(
        environment.net.firewall.other is False and (None in (inner, outer) or inner == outer),
        "firewall_backend",
        subject,
        f"the inner engine's rules aren't where the host's are ({outer or 'unknown'} tables)",
        remedy,
    )
