# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the list of volumes that a person wrote to a complete plan of each.

Pure: nothing here looks at a host. What has to be compared with the host is in
:mod:`_storage_volume_steps`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import within
from ansible_collections.matryoshka.host.plugins.module_utils._options import check_options
from ansible_collections.matryoshka.host.plugins.module_utils._sizes import parse_size
from ansible_collections.matryoshka.host.plugins.module_utils._storage_values import (
    check_bool,
    check_choice,
    check_encrypt,
    check_lvm,
    check_path,
    check_selector,
    check_units,
    check_uuid,
    check_whole,
    mount_options,
)

FILESYSTEMS = ("xfs", "ext4", "btrfs")
DISCARDS = ("periodic", "continuous", "none")
SCHEDULERS = ("none", "mq-deadline", "bfq", "kyber")
SMALLEST = {"xfs": 300 << 20, "ext4": 64 << 20, "btrfs": 128 << 20}
"""Bytes that a device has at least; mkfs.xfs refuses what is smaller."""

_NAME = re.compile(r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$")
_OPTIONS = (
    "name",
    "path",
    "device",
    "uuid",
    "partition",
    "lvm",
    "directory",
    "filesystem",
    "mount_options",
    "encrypt",
    "quota",
    "read_ahead_kb",
    "scheduler",
    "discard",
    "units",
)
_SYSTEM = (
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib64",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "var",
)


def plan_storage(
    volumes: Sequence[Mapping[str, Any]],
    users: Sequence[Mapping[str, str]] = (),
    runners: Sequence[Mapping[str, Any]] = (),
    variable: str = "storage_volumes",
) -> list[dict[str, Any]]:
    """The plan of every volume, in the order in which they are mounted: outer paths first.

    :param volumes: the list as a person wrote it.
    :param users: ``{path, unit}`` of what keeps its data where; a unit is guarded by the volume that its path is in.
    :param runners: the runners' plans; each is such a user.
    :raises InputError: names the variable, the value and what is allowed.
    """
    if isinstance(volumes, (str, Mapping)) or not isinstance(volumes, Sequence):
        raise InputError(variable, volumes, "a list of volumes")
    plan: list[dict[str, Any]] = []
    for index, given in enumerate(volumes):
        where = f"{variable}[{index}]"
        if not isinstance(given, Mapping):
            raise InputError(where, given, "a mapping with at least a name and a path")
        name = given.get("name")
        if not isinstance(name, str) or not _NAME.match(name):
            raise InputError(f"{where}.name", name, "1 to 32 lower-case letters, digits and hyphens")
        if name in [one["name"] for one in plan]:
            raise InputError(f"{where}.name", name, "a name that no other volume in the list has")
        plan.append(_volume(name, given, f"{variable}[{name}]"))
    _apart(plan)
    plan.sort(key=lambda volume: volume["path"].count("/"))
    own = [{"path": one["directory"], "unit": f"matryoshka-runner@{one['name']}.service"} for one in runners]
    for user in [*users, *own]:
        holder = holding(plan, user["path"])
        if holder is not None and user["unit"] not in holder["units"]:
            holder["units"].append(user["unit"])
    for volume in plan:
        volume["units"].sort()
    return plan


def holding(plan: Sequence[Mapping[str, Any]], path: str) -> Any:
    """The innermost volume that ``path`` is in; None if it is in none."""
    found = [volume for volume in plan if within(volume["path"], path)]
    return max(found, key=lambda volume: len(volume["path"]), default=None)


def volume_uuid(machine: str, name: str) -> str:
    """The UUID that a volume's file system is made with: always the same for a host and a name.

    So a mount unit can be written before the file system is there, a file system that was
    made is known again after a run that broke off, and another host's is never taken for it.
    """
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"matryoshka.host:{machine}:{name}"))


def plan_quotas(
    quotas: Sequence[Mapping[str, Any]],
    runners: Sequence[Mapping[str, Any]],
    volumes: Sequence[Mapping[str, Any]],
    variable: str = "storage_quotas",
) -> list[dict[str, Any]]:
    """Project quotas: those of the list, and one for each runner that has a limit of its disk.

    :param runners: the runners' plans; ``limits.disk_bytes`` of one is its limit.
    :raises InputError: a path on no volume, or on one without quotas; a limit that is no size.
    """
    found: dict[str, dict[str, Any]] = {}
    for index, given in enumerate(quotas):
        where = f"{variable}[{index}]"
        if not isinstance(given, Mapping) or not isinstance(given.get("path"), str):
            raise InputError(where, given, "a mapping with path, and size or inodes")
        check_options(given, ("path", "size", "inodes"), where)
        size, inodes = given.get("size"), given.get("inodes")
        if size in (None, "") and inodes in (None, ""):
            raise InputError(where, dict(given), "a mapping with path, and size or inodes")
        entry: dict[str, Any] = {"path": check_path(given["path"], f"{where}.path")}
        if size not in (None, ""):
            entry["size"] = parse_size(size, f"{where}.size", 1 << 20)
        if inodes not in (None, ""):
            entry["inodes"] = check_whole(inodes, f"{where}.inodes", 1, 1 << 50)
        if entry["path"] in found:
            raise InputError(f"{where}.path", entry["path"], "every path once in the list")
        _quota_possible(entry["path"], volumes, f"{where}.path")
        found[entry["path"]] = entry
    for runner in runners:
        disk = (runner.get("limits") or {}).get("disk_bytes")
        if disk:
            where = f"runner_runners[{runner['name']}].disk"
            _quota_possible(runner["directory"], volumes, where)
            found.setdefault(runner["directory"], {"path": runner["directory"], "size": int(disk)})
    return list(found.values())


def _quota_possible(path: str, volumes: Sequence[Mapping[str, Any]], variable: str) -> None:
    volume = holding(volumes, path)
    if volume is None or volume["kind"] == "directory":
        raise InputError(
            variable, path, "a folder on a volume of storage_volumes that has a file system of its own"
        )
    if not volume["quota"]:
        raise InputError(
            variable, path, f"a folder on a volume with quota: true; {volume['name']} has quota: false"
        )


def _volume(name: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    check_options(given, _OPTIONS, where)
    given = {key: value for key, value in given.items() if value is not None}
    path = check_path(given.get("path"), f"{where}.path")
    if path == "/" or path.strip("/") in _SYSTEM:
        raise InputError(f"{where}.path", path, "a folder that the system itself doesn't need")
    kind = _kind(given, where)
    filesystem = given.get("filesystem", "xfs")
    if filesystem not in FILESYSTEMS:
        raise InputError(f"{where}.filesystem", filesystem, "one of " + ", ".join(FILESYSTEMS))
    discard = check_choice(given.get("discard", "periodic"), DISCARDS, f"{where}.discard")
    quota = check_bool(given.get("quota", kind != "directory"), f"{where}.quota")
    if kind == "directory":
        _nothing_for_a_directory(given, where)
    return {
        "name": name,
        "variable": where,
        "path": path,
        "kind": kind,
        "device": check_selector(given.get("device"), f"{where}.device"),
        "uuid": check_uuid(given.get("uuid"), f"{where}.uuid"),
        "partition": check_bool(given.get("partition", False), f"{where}.partition"),
        "lvm": check_lvm(given.get("lvm"), f"{where}.lvm"),
        "directory": check_path(given["directory"], f"{where}.directory") if kind == "directory" else None,
        "filesystem": None if kind == "directory" else filesystem,
        "quota": quota,
        "options": mount_options(kind, filesystem, quota, discard, given.get("mount_options", []), where),
        "encrypt": check_encrypt(given.get("encrypt"), f"{where}.encrypt"),
        "read_ahead_kb": check_whole(given["read_ahead_kb"], f"{where}.read_ahead_kb", 0, 1 << 20)
        if "read_ahead_kb" in given
        else None,
        "scheduler": check_choice(given["scheduler"], SCHEDULERS, f"{where}.scheduler")
        if "scheduler" in given
        else None,
        "discard": discard,
        "units": check_units(given.get("units", []), f"{where}.units"),
    }


def _kind(given: Mapping[str, Any], where: str) -> str:
    """Where a volume's file system comes from: a device, a UUID that is there already, LVM, or a directory."""
    said = [key for key in ("device", "uuid", "directory") if key in given]
    if "lvm" in given and said in ([], ["device"]):
        return "lvm"
    if len(said) != 1:
        raise InputError(
            where, dict(given), "exactly one of device, uuid, directory and lvm (lvm also with device)"
        )
    return said[0]


def _nothing_for_a_directory(given: Mapping[str, Any], where: str) -> None:
    for key in ("filesystem", "partition", "encrypt", "quota", "read_ahead_kb", "scheduler", "discard"):
        if given.get(key):
            raise InputError(
                f"{where}.{key}", given[key], "nothing for a directory, which has no device of its own"
            )


def _apart(plan: Sequence[Mapping[str, Any]]) -> None:
    seen: dict[str, str] = {}
    for volume in plan:
        for path in dict.fromkeys((volume["path"], volume["directory"] or volume["path"])):
            if path in seen:
                raise InputError(
                    f"{volume['variable']}.path", path, f"a path of its own; volume {seen[path]} has it"
                )
            seen[path] = volume["name"]
        if volume["directory"] and volume["directory"] != volume["path"]:
            inner, outer = sorted((volume["directory"], volume["path"]), key=len, reverse=True)
            if within(outer, inner):
                raise InputError(
                    f"{volume['variable']}.directory",
                    volume["directory"],
                    f"a directory apart from {volume['path']}",
                )
