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
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    EngineView,
    Environment,
    Expect,
    NetView,
    Observed,
    Report,
)


def tree(expect: Expect, seen: Observed) -> list[dict[str, Any]]:
    """One node for the host, with the others below it in ``children``.

    Each has ``level`` (``host``, ``engine``, ``runner``, ``inner engine``), ``name``,
    ``storage_driver``, ``backing_filesystem``, ``subnet``, ``mtu`` and ``state``; what a level
    doesn't have is null.
    """
    root = MountTable.parse(seen.mountinfo).of("/") if seen.mountinfo else None
    host = _node("host", seen.hostname, None, root.filesystem if root else None, *_uplink(seen.net), "up")
    if expect.engine:
        unit = seen.units.get(expect.engine_unit)
        engine = _engine("engine", expect.engine_name, seen.engine, seen.storage)
        engine["state"] = unit.active_state if unit and seen.engine.error else engine["state"]
        host["children"].append(engine)
        engine["children"] = [_runner(seen, str(one["name"])) for one in expect.runners]
    return [host]


def _node(
    level: str,
    name: str,
    driver: str | None,
    filesystem: str | None,
    subnet: str | None,
    mtu: int | None,
    state: str,
) -> dict[str, Any]:
    return {
        "level": level,
        "name": name,
        "storage_driver": driver,
        "backing_filesystem": filesystem,
        "subnet": subnet,
        "mtu": mtu,
        "state": state,
        "children": [],
    }


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
        storage.driver if storage else None,
        storage.backing_filesystem if storage else None,
        subnet,
        mtu,
        state,
    )


def _runner(seen: Observed, name: str) -> dict[str, Any]:
    current = [one for one, key in named_by_state(seen, name).items() if key == "environment"]
    found: Environment | None = next((one for one in seen.environments_of(name) if one.name in current), None)
    node = _node("runner", name, None, None, None, None, runner_state(seen, name) or "unknown")
    if found is not None:
        node["storage_driver"] = found.inspect.get("Driver")
        table = MountTable.parse(found.mountinfo) if found.mountinfo else None
        mount = table.of("/") if table else None
        node["backing_filesystem"] = mount.filesystem if mount else None
        node["subnet"], node["mtu"] = _uplink(found.net)
        node["environment"] = found.name
        node["children"].append(_engine("inner engine", "docker", found.engine, found.storage))
    return node


COLUMNS = ("level", "storage", "on", "subnet", "MTU", "state")


def lines(dolls: Sequence[Mapping[str, Any]], report: Report) -> list[str]:
    """The tree, the notes and the findings for people, line by line."""
    rows = [COLUMNS, *(row for node in dolls for row in _rows(node, 0))]
    widths = [max(len(row[index]) for row in rows) for index in range(len(COLUMNS))]
    told = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    told += [f"note: {one.subject}: {one.text} [{one.code}]" for one in report.notes]
    for number, one in enumerate(report.findings, 1):
        told += [f"{number}. {one.subject}: {one.text} [{one.code}]", f"   remedy: {one.remedy}"]
    count = len(report.findings)
    said = "nothing to complain about" if not count else f"{count} finding{'s' if count > 1 else ''}"
    return [*told, f"{report.checks} checks, {said}"]


def _rows(node: Mapping[str, Any], depth: int) -> list[tuple[str, ...]]:
    cells = (node["storage_driver"], node["backing_filesystem"], node["subnet"], node["mtu"], node["state"])
    first = "  " * depth + f"{node['level']} {node['name']}"
    row = (first, *("-" if cell is None else str(cell) for cell in cells))
    return [row, *(below for child in node["children"] for below in _rows(child, depth + 1))]
