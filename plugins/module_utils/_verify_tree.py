# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dolls as a tree: host, engine, runners, inner engines; storage and network of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._mounts import MountTable
from ansible_collections.matryoshka.host.plugins.module_utils._storage import EngineStorage
from ansible_collections.matryoshka.host.plugins.module_utils._verify_daemon import BRIDGE_MTU
from ansible_collections.matryoshka.host.plugins.module_utils._verify_environments import (
    named_by_state,
    runner_state,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_lan import CLOSED, OPEN, UNSURE
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    EngineView,
    Environment,
    Expect,
    NetView,
    Observed,
    Report,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_network import bridge_of


def tree(expect: Expect, seen: Observed) -> list[dict[str, Any]]:
    """One node for the host, with the others below it in ``children``.

    Each has ``level`` (``host``, ``engine``, ``runner``, ``inner engine``), ``name``,
    ``storage_driver``, ``backing_filesystem``, ``disk`` (what that is on), ``quota`` (``used`` and
    ``limit`` in bytes), ``subnet``, ``mtu``, ``lan`` (whether its packets get there) and ``state``;
    what a level doesn't have, or nobody could see, is null.
    """
    root = MountTable.parse(seen.mountinfo).of("/") if seen.mountinfo else None
    subnet, mtu = _uplink(seen.net)
    host = _node(
        "host", seen.hostname, "up", filesystem=root.filesystem if root else None, subnet=subnet, mtu=mtu
    )
    if expect.engine:
        unit = seen.units.get(expect.engine_unit)
        engine = _engine("engine", expect.engine_name, seen.engine, seen.storage)
        engine["state"] = unit.active_state if unit and seen.engine.error else engine["state"]
        engine.update(_beneath(seen, None), lan=_lan(seen, ["bridge"]))
        host["children"].append(engine)
        engine["children"] = [_runner(seen, str(one["name"])) for one in expect.runners]
    return [host]


def _node(
    level: str,
    name: str,
    state: str,
    *,
    driver: str | None = None,
    filesystem: str | None = None,
    subnet: str | None = None,
    mtu: int | None = None,
) -> dict[str, Any]:
    return {
        "level": level,
        "name": name,
        "storage_driver": driver,
        "backing_filesystem": filesystem,
        "disk": None,
        "quota": None,
        "subnet": subnet,
        "mtu": mtu,
        "lan": None,
        "state": state,
        "children": [],
    }


def _beneath(seen: Observed, runner: str | None) -> dict[str, Any]:
    """What a data root lies on, and how much of its quota is used."""
    root = next((one for one in seen.roots if one["runner"] == runner), None)
    if root is None:
        return {}
    quota = root["quota"]
    limited = quota["enforced"] and quota["limit"]
    return {
        "disk": root["disk"],
        "quota": {"used": quota["used"] or 0, "limit": quota["limit"]} if limited else None,
    }


def _lan(seen: Observed, networks: Sequence[str]) -> str | None:
    """How far packets of these networks of the host's engine get, the farthest of them."""
    bridges = [bridge_of(one) for one in seen.engine.networks if one.get("Name") in networks]
    found = {seen.bridges.get("lan", {}).get(one) for one in bridges}
    return next((one for one in (OPEN, UNSURE, CLOSED) if one in found), None)


def _uplink(net: NetView) -> tuple[str | None, int | None]:
    """The on-link network and the MTU of the default route's interface."""
    name = net.uplink
    subnet = next((network for link, network in net.routes if link == name and network != "0.0.0.0/0"), None)
    return subnet, net.mtu.get(name or "")


def _engine(level: str, name: str, engine: EngineView, storage: EngineStorage | None) -> dict[str, Any]:
    bridge = engine.network("bridge")
    subnet = next((one.get("Subnet") for one in (bridge.get("IPAM") or {}).get("Config") or []), None)
    mtu = int((bridge.get("Options") or {}).get(BRIDGE_MTU) or 1500) if bridge else None
    state = "silent" if engine.error else f"answers, {engine.info.get('ServerVersion')}"
    return _node(
        level,
        name,
        state,
        driver=storage.driver if storage else None,
        filesystem=storage.backing_filesystem if storage else None,
        subnet=subnet,
        mtu=mtu,
    )


def _runner(seen: Observed, name: str) -> dict[str, Any]:
    current = [one for one, key in named_by_state(seen, name).items() if key == "environment"]
    found: Environment | None = next((one for one in seen.environments_of(name) if one.name in current), None)
    node = _node("runner", name, runner_state(seen, name) or "unknown")
    if found is not None:
        node["storage_driver"] = found.inspect.get("Driver")
        table = MountTable.parse(found.mountinfo) if found.mountinfo else None
        mount = table.of("/") if table else None
        node["backing_filesystem"] = mount.filesystem if mount else None
        node["subnet"], node["mtu"] = _uplink(found.net)
        node["environment"] = found.name
        node["lan"] = _lan(seen, list((found.inspect.get("NetworkSettings") or {}).get("Networks") or {}))
        inner = _engine("inner engine", "docker", found.engine, found.storage)
        inner.update(_beneath(seen, name), lan=node["lan"])
        node["children"].append(inner)
    return node


#: Headings and keys. Those in :data:`OPTIONAL` are shown only if some level has something there.
COLUMNS = {
    "storage": "storage_driver",
    "on": "backing_filesystem",
    "disk": "disk",
    "quota": "quota",
    "subnet": "subnet",
    "MTU": "mtu",
    "LAN": "lan",
    "state": "state",
}
OPTIONAL = ("disk", "quota", "lan")


def lines(dolls: Sequence[Mapping[str, Any]], report: Report) -> list[str]:
    """The tree, the notes and the findings for people, line by line."""
    shown = {
        heading: key
        for heading, key in COLUMNS.items()
        if key not in OPTIONAL or any(_has(node, key) for node in dolls)
    }
    rows = [
        ("level", *shown),
        *(row for node in dolls for row in _rows(node, list(shown.values()), 0)),
    ]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    told = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    told += [f"note: {one.subject}: {one.text} [{one.code}]" for one in report.notes]
    for number, one in enumerate(report.findings, 1):
        told += [f"{number}. {one.subject}: {one.text} [{one.code}]", f"   remedy: {one.remedy}"]
    count = len(report.findings)
    said = "nothing to complain about" if not count else f"{count} finding{'s' if count > 1 else ''}"
    return [*told, f"{report.checks} checks, {said}"]


def _has(node: Mapping[str, Any], key: str) -> bool:
    return node[key] is not None or any(_has(child, key) for child in node["children"])


def _rows(node: Mapping[str, Any], keys: Sequence[str], depth: int) -> list[tuple[str, ...]]:
    first = "  " * depth + f"{node['level']} {node['name']}"
    row = (first, *(_cell(node[key]) for key in keys))
    return [row, *(below for child in node["children"] for below in _rows(child, keys, depth + 1))]


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        used, limit = value["used"] / (1 << 30), value["limit"] / (1 << 30)
        return f"{used:.1f} of {limit:.1f} GiB"
    return "-" if value is None else str(value)
