# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks and address pools of container engines and libvirt, as they tell or keep them. Pure.

Sources: Docker's ``/networks`` and ``/info`` (API 1.40 and later) and daemon.json, Podman's network
files (containers-networks of netavark, conflists of CNI) and containers.conf(5), libvirt's
network XML. Built-in pools: moby's ``libnetwork/ipamutils``, containers-common's ``config``.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from ansible_collections.matryoshka.host.plugins.module_utils._networks import Network, Pool

MTU_OPTION = "com.docker.network.driver.mtu"
_BRIDGE_NAME = "com.docker.network.bridge.name"
_ICC = "com.docker.network.bridge.enable_icc"
_POOL = re.compile(r"\{([^{}]*)\}")
_PAIR = re.compile(r"(\w+)\"?\s*=\s*\"?([^\",}\s]+)")


def _pools(*items: tuple[str, int]) -> tuple[Pool, ...]:
    return tuple(Pool(ipaddress.ip_network(base), size) for base, size in items)


#: What an engine hands out if nobody tells it otherwise.
BUILT_IN = {
    "docker": _pools(
        ("172.17.0.0/16", 16),
        ("172.18.0.0/16", 16),
        ("172.19.0.0/16", 16),
        ("172.20.0.0/14", 16),
        ("172.24.0.0/14", 16),
        ("172.28.0.0/14", 16),
        ("192.168.0.0/16", 20),
    ),
    "podman": _pools(
        ("10.89.0.0/16", 24),
        ("10.90.0.0/15", 24),
        ("10.92.0.0/14", 24),
        ("10.96.0.0/11", 24),
        ("10.128.0.0/9", 24),
    ),
    "libvirt": (),
}
PODMAN_DEFAULT = "10.88.0.0/16"


@dataclass(frozen=True)
class EngineNetwork:
    """A network of an engine: ``interface`` is its bridge, or the parent of a macvlan or ipvlan."""

    engine: str
    name: str
    driver: str
    interface: str | None
    ranges: tuple[Network, ...]
    mtu: int | None = None
    internal: bool = False
    isolated: bool = False
    """Whether its containers aren't meant to reach each other."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "name": self.name,
            "driver": self.driver,
            "interface": self.interface,
            "ranges": [str(one) for one in self.ranges],
            "mtu": self.mtu,
            "internal": self.internal,
            "isolated": self.isolated,
        }


@dataclass(frozen=True)
class Engine:
    """An engine that is there: ``live`` says whether it was asked itself or its files were read."""

    kind: str
    live: bool
    networks: tuple[EngineNetwork, ...] = ()
    pools: tuple[Pool, ...] = ()
    built_in: bool = True
    """Whether the pools are those that the engine has without a configuration."""
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "engine": self.kind,
            "live": self.live,
            "error": self.error,
            "networks": [one.as_dict() for one in self.networks],
            "pools": [{"base": str(pool.base), "size": pool.size} for pool in self.pools],
            "built_in_pools": self.built_in,
        }


def docker_engine(info: Mapping[str, Any], networks: Sequence[Mapping[str, Any]]) -> Engine:
    """A Docker daemon from its answers to ``/info`` and ``/networks``."""
    pools = _pool_list(info.get("DefaultAddressPools"))
    return Engine(
        "docker",
        live=True,
        networks=tuple(found for one in networks if (found := _docker_network(one))),
        pools=pools or BUILT_IN["docker"],
        built_in=not pools,
    )


def docker_configuration(text: str | None, error: str) -> Engine:
    """A Docker daemon that doesn't answer, from its daemon.json."""
    config = _object(text)
    pools = _pool_list(config.get("default-address-pools"))
    ranges = _ranges([config.get("bip"), config.get("bip6"), config.get("fixed-cidr-v6")])
    default = EngineNetwork(
        "docker",
        "bridge",
        "bridge",
        str(config.get("bridge") or "docker0"),
        ranges,
        mtu=_number(config.get("mtu")),
        isolated=config.get("icc") is False,
    )
    return Engine(
        "docker",
        live=False,
        networks=(default,) if ranges else (),
        pools=pools or BUILT_IN["docker"],
        built_in=not pools,
        error=error,
    )


def _docker_network(network: Mapping[str, Any]) -> EngineNetwork | None:
    driver = str(network.get("Driver") or "")
    if driver in ("host", "null", ""):
        return None
    options = network.get("Options") or {}
    configs = (network.get("IPAM") or {}).get("Config") or []
    if driver in ("macvlan", "ipvlan"):
        interface = options.get("parent")
    elif driver == "bridge":
        interface = options.get(_BRIDGE_NAME) or f"br-{str(network.get('Id', ''))[:12]}"
    else:
        interface = None
    return EngineNetwork(
        "docker",
        str(network.get("Name")),
        driver,
        interface,
        _ranges([config.get("Subnet") for config in configs]),
        mtu=_number(options.get(MTU_OPTION)) or (1500 if driver == "bridge" else None),
        internal=bool(network.get("Internal")),
        isolated=str(options.get(_ICC, "true")).lower() == "false",
    )


def podman_networks(text: str) -> list[EngineNetwork]:
    """Networks of Podman: a file of netavark's, or what ``podman network inspect`` prints."""
    try:
        found = json.loads(text)
    except ValueError:
        return []
    networks: list[EngineNetwork] = []
    for one in found if isinstance(found, list) else [found]:
        if isinstance(one, dict) and isinstance(one.get("plugins"), list):
            networks += _cni_networks(one)
        elif isinstance(one, dict) and one.get("driver") and one.get("name"):
            options = one.get("options") or {}
            networks.append(
                EngineNetwork(
                    "podman",
                    str(one["name"]),
                    str(one["driver"]),
                    one.get("network_interface") or None,
                    _ranges([entry.get("subnet") for entry in one.get("subnets") or []]),
                    mtu=_number(options.get("mtu")),
                    internal=bool(one.get("internal")),
                )
            )
    return networks


def _cni_networks(config: Mapping[str, Any]) -> Iterable[EngineNetwork]:
    for plugin in config["plugins"]:
        if plugin.get("type") in ("bridge", "macvlan", "ipvlan"):
            ipam = plugin.get("ipam") or {}
            ranges = [entry.get("subnet") for group in ipam.get("ranges") or [] for entry in group]
            yield EngineNetwork(
                "podman",
                str(config.get("name")),
                str(plugin["type"]),
                plugin.get("bridge") or plugin.get("master"),
                _ranges([ipam.get("subnet"), *ranges]),
                mtu=_number(plugin.get("mtu")),
                internal=plugin.get("type") == "bridge" and not plugin.get("isGateway"),
            )


def podman_engine(networks: Sequence[EngineNetwork], configuration: Sequence[str]) -> Engine:
    """Podman from its networks and the texts of its containers.conf files, the strongest last."""
    settings: dict[str, str] = {}
    for text in configuration:
        settings |= _network_section(text)
    pools = tuple(_toml_pools(settings.get("default_subnet_pools", "")))
    name = settings.get("default_network", "podman").strip("\"'")
    if not any(one.name == name for one in networks):
        subnet = settings.get("default_subnet", PODMAN_DEFAULT).strip("\"'")
        default = EngineNetwork("podman", name, "bridge", "podman0", _ranges([subnet]))
        networks = [default, *networks]
    return Engine(
        "podman",
        live=True,
        networks=tuple(networks),
        pools=pools or BUILT_IN["podman"],
        built_in=not pools,
    )


def network_setting(texts: Iterable[str], name: str) -> str | None:
    """A string of the section ``[network]`` of containers.conf; the last file that has it wins."""
    found = [value for text in texts if (value := _network_section(text).get(name))]
    return found[-1].strip("\"'") if found else None


def _network_section(text: str) -> dict[str, str]:
    """The settings of ``[network]``, raw; lists over several lines are joined."""
    section = re.search(r"^\[network\]\s*?$(.*?)(?=^\[\w[\w.]*\]\s*?$|\Z)", text, re.MULTILINE | re.DOTALL)
    found: dict[str, str] = {}
    name = ""
    for line in (section[1] if section else "").splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        start = re.match(r"(\w+)\s*=\s*(.*)", line)
        if start and not (name and found[name].count("[") > found[name].count("]")):
            name = start[1]
            found[name] = start[2]
        elif name:
            found[name] += line
    return found


def _toml_pools(text: str) -> Iterable[Pool]:
    for item in _POOL.findall(text):
        pair = dict(_PAIR.findall(item))
        yield from _pool_list([{"Base": pair.get("base"), "Size": pair.get("size")}])


def libvirt_network(text: str) -> EngineNetwork | None:
    """A network of libvirt from its XML: a file of the configuration, a status file, or ``net-dumpxml``."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None
    network = root if root.tag == "network" else root.find("network")
    if network is None:
        return None
    bridge, forward, mtu = network.find("bridge"), network.find("forward"), network.find("mtu")
    mode = "isolated" if forward is None else forward.get("mode", "nat")
    ranges = [
        f"{entry.get('address')}/{entry.get('prefix') or entry.get('netmask') or _classful(entry.get('address', ''))}"
        for entry in network.findall("ip")
    ]
    interface = (
        bridge.get("name") if bridge is not None else forward.get("dev") if forward is not None else None
    )
    return EngineNetwork(
        "libvirt",
        network.findtext("name") or "unnamed",
        mode,
        interface,
        _ranges(ranges),
        mtu=_number(mtu.get("size")) if mtu is not None else None,
        internal=mode == "isolated",
    )


def _classful(address: str) -> str:
    """The prefix length that libvirt gives an address without one."""
    first = address.partition(".")[0]
    if not first.isdigit():
        return "64"
    return "8" if int(first) < 128 else "16" if int(first) < 192 else "24"


def _ranges(values: Iterable[Any]) -> tuple[Network, ...]:
    found: list[Network] = []
    for value in values:
        try:
            found += [ipaddress.ip_interface(str(value)).network] if value else []
        except ValueError:
            continue
    return tuple(dict.fromkeys(found))


def _pool_list(items: Any) -> tuple[Pool, ...]:
    """Pools as Docker tells or is told them; what isn't one is left out."""
    found = []
    for item in items if isinstance(items, list) else []:
        if isinstance(item, Mapping):
            values = {str(key).lower(): value for key, value in item.items()}
            size = _number(values.get("size"))
            for base in _ranges([values.get("base")]):
                found.append(Pool(base, max(base.prefixlen, size or (24 if base.version == 4 else 64))))
    return tuple(found)


def _object(text: str | None) -> Mapping[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() else None
