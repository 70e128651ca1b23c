# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Data roots of the engine and of every runner's inner engine: whose they are, what they lie on, what limits them.

Looked at by :mod:`_data_root_info`, in one pass over all processes. Here that becomes findings.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _data_root_info
from ansible_collections.matryoshka.host.plugins.module_utils._verify_environments import (
    named_by_state,
    restart,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    ENGINE_COMPANIONS,
    LABEL,
    SITE,
    Expect,
    Observed,
    Report,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_storage import on_missing_volume

#: What of :mod:`_data_root_judge` is a finding here; the rest is told by the checks of storage, holders and mounts.
_FAULTS = (
    "not_mounted",
    "not_a_directory",
    "same_as_another",
    "inside_another",
    "quota_full",
    "quota_nearly_full",
    "quota_off",
    "quota_inconsistent",
    "raid_degraded",
)
#: What is worth knowing, and no fault.
_NOTES = ("foreign_mount_read_only", "leftover_driver")
_KEPT = ("path", "disk", "quota", "owner", "holders", "seen_by", "reasons")


def observe_roots(expect: Expect, seen: Observed) -> list[dict[str, Any]]:
    """Every data root with ``subject``, ``runner`` (null: the engine's) and what ``data_root_info`` says of it."""
    wanted = list({posixpath.normpath(one["path"]): one for one in _roots(expect, seen)}.values())
    if not wanted:
        return []
    asked = [{"path": one["path"], "holder": one["holder"]} for one in wanted]
    found = _data_root_info.answer({"roots": asked})["roots"]
    return [{**root, **{key: one[key] for key in _KEPT}} for root, one in zip(wanted, found, strict=True)]


def _roots(expect: Expect, seen: Observed) -> Iterator[dict[str, Any]]:
    if expect.engine:
        path = seen.engine.info.get("DockerRootDir") or expect.engine.get("data_root") or "/var/lib/docker"
        yield {
            "subject": f"engine {expect.engine_name}",
            "runner": None,
            "path": str(path),
            "holder": "host",
        }
    for config in expect.runners:
        name = str(config["name"])
        environment = ((seen.runners[name].state if name in seen.runners else None) or {}).get("environment")
        path = (environment or {}).get("data_root") or posixpath.join(str(config["directory"]), "data")
        current = [one for one, key in named_by_state(seen, name).items() if key == "environment"]
        known = [one.name for one in seen.environments_of(name)]
        holder = next((one for one in known if one in current), known[-1] if known else f"matryoshka-{name}")
        yield {"subject": f"runner {name}", "runner": name, "path": str(path), "holder": holder}


def check_roots(report: Report, expect: Expect, seen: Observed) -> None:
    """Each root is its engine's alone, is mounted, and has room left in its quota."""
    for root in seen.roots:
        _check_holders(report, expect, seen, root)
        for stranger in _strangers(seen, root):
            _check_stranger(report, root, stranger)
        report.checks += len(_FAULTS)
        for reason in root["reasons"]:
            if reason["code"] in _FAULTS and not _told(report, root, reason["code"]):
                report.check(False, reason["code"], root["subject"], reason["text"], reason["remedy"])
            elif reason["code"] in _NOTES:
                report.note(reason["code"], root["subject"], reason["text"], reason["remedy"])
    _check_stopped(report, seen)


def _told(report: Report, root: Mapping[str, Any], code: str) -> bool:
    """Whether the checks of the planned volumes have said the same."""
    return code == "not_mounted" and on_missing_volume(report, root["path"])


def _check_holders(report: Report, expect: Expect, seen: Observed, root: Mapping[str, Any]) -> None:
    foreign = [one for one in root["holders"] if not _is_ours(expect, seen, root, one)]
    if root["runner"] is None:
        before, after = f"another process holds its data root {root['path']}: ", ""
        end = f"systemctl restart {expect.engine_unit}"
    else:
        # While the host's engine is silent nobody can say which containers are whose.
        foreign = foreign if seen.engine.error is None else []
        before, after = "its data root is held by ", ", which isn't in its environment"
        end = restart(str(root["runner"]))
    pids = [process["pid"] for one in foreign for process in one["processes"]]
    report.check(
        not foreign,
        "data_root_held",
        root["subject"],
        before + "; ".join(_holder(one) for one in foreign) + after,
        "; ".join(f"kill {pid}" for pid in pids)
        + f"; then {end}, and look at images and volumes: two engines may have damaged them",
    )


def _is_ours(expect: Expect, seen: Observed, root: Mapping[str, Any], holder: Mapping[str, Any]) -> bool:
    if root["runner"] is None:
        ours = (expect.engine_unit, *ENGINE_COMPANIONS[expect.engine_name])
        main = int(seen.unit_details.get(expect.engine_unit, {}).get("MainPID") or 0)
        started = [process["pid"] for process in holder["processes"]]
        return holder["container"] is None and (holder["unit"] in ours or main in started)
    return holder["name"] == root["holder"] or _inside_owner(root, holder)


def _inside_owner(root: Mapping[str, Any], one: Mapping[str, Any]) -> bool:
    """Whether it is in a container of the environment: what a job does in there is its own business."""
    owner = (root["owner"] or {}).get("container")
    return owner is not None and owner in one["inside"]


def _holder(one: Mapping[str, Any]) -> str:
    names = ", ".join(
        f"{process['name'] or 'a process'} (pid {process['pid']})" for process in one["processes"]
    )
    where = (
        f"in container {one['name']}"
        if one["container"]
        else f"of {one['unit']}"
        if one["unit"]
        else "of the host"
    )
    return f"{names} {where}" + ("" if one["locks"] else ", which waits for the lock")


def _strangers(seen: Observed, root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Who has the root mounted for writing and isn't its owner, each once."""
    known = set()
    if root["runner"] is not None and seen.engine.error is not None:
        return
    for one in root["seen_by"]:
        ours = one["name"] == root["holder"] or _inside_owner(root, one)
        if one["foreign"] and not one["read_only"] and not ours and one["name"] not in known:
            known.add(one["name"])
            yield one


def _check_stranger(report: Report, root: Mapping[str, Any], one: Mapping[str, Any]) -> None:
    place = posixpath.join(root["path"], one["part"]) if one["part"] else root["path"]
    running = f"; {' and '.join(one['engines'])} runs in it" if one["engines"] else ""
    report.check(
        False,
        "data_root_shared",
        root["subject"],
        f"the container {one['name']} mounts {place}, where its data is, for writing (on {one['path']}){running}",
        f"docker rm --force {one['name']}, or make it again without that mount",
    )


def _check_stopped(report: Report, seen: Observed) -> None:
    """Containers that don't run and would have a root mounted if somebody started them; not environments."""
    for container in seen.containers:
        if container.get("State") == "running" or LABEL in (container.get("Labels") or {}):
            continue
        name = str((container.get("Names") or ["?"])[0]).lstrip("/")
        for mount in container.get("Mounts") or []:
            source = str(mount.get("Source") or "")
            for root in seen.roots if mount.get("RW", True) else ():
                report.check(
                    not _meets(source, root["path"], root["runner"] is None),
                    "data_root_shared",
                    root["subject"],
                    f"the stopped container {name} mounts {source}, where its data is, for writing",
                    f"docker rm {name}, or {SITE} if a role made it",
                )


def _meets(source: str, folder: str, engine: bool) -> bool:
    """Whether a mount of ``source`` shows ``folder``; the engine's own volumes below its root are its business."""
    if not source:
        return False
    if source in (folder, "/") or folder.startswith(source.rstrip("/") + "/"):
        return True
    return not engine and source.startswith(folder.rstrip("/") + "/")
