# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What planned volumes lack on this host, in one look. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import (
    _block,
    _config_files,
    _project_quota_apply,
    _storage_units,
    _systemd_apply,
)
from ansible_collections.matryoshka.host.plugins.module_utils._block_judge import check_wipe
from ansible_collections.matryoshka.host.plugins.module_utils._block_select import Refusal, pick_devices
from ansible_collections.matryoshka.host.plugins.module_utils._block_selector import Selector
from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._host_paths import read_path
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import NATIVE, Disks, MountTable
from ansible_collections.matryoshka.host.plugins.module_utils._storage_plan import volume_uuid
from ansible_collections.matryoshka.host.plugins.module_utils._storage_units import OWNER, RULES
from ansible_collections.matryoshka.host.plugins.module_utils._storage_volume_chain import (
    LABEL,
    Devices,
    Outcome,
)
from ansible_collections.matryoshka.host.plugins.module_utils._storage_volume_state import (
    Host,
    Seen,
    mounted_at,
    partition_labels,
    read_host,
    read_queue,
    read_volume,
)
from ansible_collections.matryoshka.host.plugins.module_utils._storage_volume_steps import (
    mkfs_options,
    on_free,
    on_mounted,
)
from ansible_collections.matryoshka.host.plugins.module_utils._systemd import read_units
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_text import owner_of

UNITS = "/etc/systemd/system"
_LISTS = ("lacking", "refusals", "volumes", "units", "pending", "old", "missing_directories", "packages")
QUOTA_OWNER = "matryoshka"

ARGUMENTS: dict[str, Any] = {
    "volumes": {"type": "list", "elements": "dict", "required": True},
    "quotas": {"type": "list", "elements": "dict", "default": []},
    "wipe": {"type": "list", "elements": "dict", "default": []},
    "migrate": {"type": "bool", "default": False},
    "remove_old": {"type": "bool", "default": False},
}


def answer(params: Mapping[str, Any], run: Runner, view: View | None = None) -> dict[str, Any]:
    """The result of module ``storage_volume_info`` for its parameters (:data:`ARGUMENTS`).

    ``changed`` says that something is lacking; the module itself changes nothing.

    :raises HostError: a host that can't be looked at, or a list that isn't one of ``plan_storage``.
    """
    if not params["volumes"]:
        empty: dict[str, list[Any]] = {key: [] for key in _LISTS}
        return {"changed": False, "config": {"files": [], "absent": []}, "udev": False, **empty}
    view = view or View()
    host = read_host(view)
    volumes = [_complete(volume, host) for volume in params["volumes"]]
    table = MountTable.parse(view.text("/proc/1/mountinfo") or view.text("/proc/self/mountinfo") or "")
    seen = {volume["name"]: read_volume(volume, table, view) for volume in volumes}
    outcomes = _outcomes(volumes, seen, host, params, table, run, view)
    old = [path for one in seen.values() for path in one.old] if params["remove_old"] else []
    trim = [
        volume["path"]
        for volume in volumes
        if volume["discard"] == "periodic" and seen[volume["name"]].discards and not host.container
    ]
    rules = _storage_units.plan_rules(volumes, {name: one.disks for name, one in seen.items()})
    config = {
        "files": [{"path": RULES, "content": rules}] if rules else [],
        "absent": [] if rules else [RULES],
    }
    units = _storage_units.plan_units(volumes, udev=host.udev, trim=trim)
    refusals = [text for name in outcomes for text in outcomes[name].refusals]
    refusals += _left_over(units, table, view)
    pending: list[str] = []
    told: dict[str, Any] = {}
    if not refusals:
        pending, told = _pending(params, config, units, outcomes, run, view, refusals)
    pending += ["remove_old"] if old else []
    steps = [f"{name}: {', '.join(one.steps)}" for name, one in outcomes.items() if one.steps]
    return {
        "changed": bool(steps or pending or refusals),
        "lacking": [*steps, *pending],
        "refusals": refusals,
        "volumes": [
            _shown(
                volume,
                seen[volume["name"]],
                outcomes[volume["name"]],
                _running(volume, run) if "migrate" in outcomes[volume["name"]].steps else [],
                view,
            )
            for volume in volumes
        ],
        "config": config,
        "units": units,
        "pending": pending,
        "old": old,
        "missing_directories": [
            quota["path"] for quota in params["quotas"] if not view.exists(quota["path"])
        ],
        "packages": _packages(volumes, outcomes, view),
        "udev": host.udev,
        **told,
    }


def _complete(volume: Mapping[str, Any], host: Host) -> dict[str, Any]:
    needed = {"name", "variable", "path", "kind", "options", "units"}
    if not needed <= set(volume):
        raise HostError("volumes: give it what the filter plan_storage makes of the list of volumes")
    own = volume["kind"] in ("device", "lvm")
    return {**volume, "uuid": volume_uuid(host.machine, volume["name"]) if own else volume["uuid"]}


def _outcomes(
    volumes: Sequence[Mapping[str, Any]],
    seen: Mapping[str, Seen],
    host: Host,
    params: Mapping[str, Any],
    table: MountTable,
    run: Runner,
    view: View,
) -> dict[str, Outcome]:
    found = {
        volume["name"]: on_mounted(volume, seen[volume["name"]], host)
        for volume in volumes
        if seen[volume["name"]].mount is not None and volume["directory"] != volume["path"]
    }
    waiting = [volume for volume in volumes if volume["name"] not in found]
    devices = _find_devices(waiting, params["wipe"], run, view)
    for volume in waiting:
        name = volume["name"]
        found[name] = on_free(volume, seen[name], host, devices.get(name, Devices()), params["migrate"])
        if volume["kind"] == "directory":
            found[name].refusals += _directory_refusals(volume, table, view)
    return {volume["name"]: found[volume["name"]] for volume in volumes}


def _find_devices(
    volumes: Sequence[Mapping[str, Any]], wipe: Sequence[Mapping[str, Any]], run: Runner, view: View
) -> dict[str, Devices]:
    """The devices of volumes that aren't mounted; nothing is read if all are."""
    asking = [volume for volume in volumes if volume["kind"] != "directory"]
    if not asking:
        return {}
    given_up = check_wipe(wipe, "storage_wipe")
    devices = _block.read_devices(run, wipe=given_up, view=view)
    labels = partition_labels(view)
    selectors = [
        Selector.parse({**volume["device"], "own": _marks(volume)}) for volume in asking if volume["device"]
    ]
    picked, refusals = pick_devices(selectors, devices, given_up)
    refused = {refusal.name: refusal for refusal in refusals}
    found = {}
    for volume in asking:
        place = (volume["device"] or {}).get("name", "")
        device: dict[str, Any] | None = None
        if place in picked:
            chosen = picked[place]
            device = {**chosen.device, "wipe": list(chosen.verdict.wipe) if not chosen.own else []}
        elif place in refused:
            device = _begun(volume, refused[place], devices, labels)
        text = refused[place].text if place in refused and device is None else None
        key = (volume["encrypt"] or {}).get("key_file")
        queue = read_queue(view, device["disk"]) if device else {"schedulers": volume["scheduler"] or ""}
        there = key is None or view.exists(key)
        found[volume["name"]] = Devices(devices, labels, device, text, there, queue)
    return found


def _marks(volume: Mapping[str, Any]) -> list[str]:
    marks = [volume["uuid"]]
    marks += [f"{LABEL}{volume['name']}"] if volume["encrypt"] else []
    return marks + ([volume["lvm"]["vg"]] if volume["lvm"] else [])


def _begun(
    volume: Mapping[str, Any], refusal: Refusal, devices: Sequence[dict[str, Any]], labels: Mapping[str, str]
) -> dict[str, Any] | None:
    """The disk that an earlier run has made the volume's partition on, and then broke off."""
    if not volume["partition"]:
        return None
    mine = [
        disk
        for disk in devices
        if disk["path"] in refusal.candidates
        and [labels.get(part) for part in disk["partitions"]] == [f"{LABEL}{volume['name']}"]
    ]
    return {**mine[0], "wipe": []} if len(mine) == 1 else None


def _directory_refusals(volume: Mapping[str, Any], table: MountTable, view: View) -> list[str]:
    facts = read_path(volume["directory"], view, table, Disks(view.root))
    where, allowed = (
        f"{volume['variable']}.directory",
        f"a directory on {', '.join(NATIVE[:-1])} or {NATIVE[-1]}",
    )
    kind = facts["target_type"] if facts["type"] == "symlink" else facts["type"]
    if kind not in ("directory", "absent"):
        return [str(InputError(where, volume["directory"], f"{allowed}; this is no directory"))]
    if facts["filesystem"] not in NATIVE:
        on = f"{facts['mounted_on']} is on {facts['filesystem']}"
        return [str(InputError(where, volume["directory"], f"{allowed}; {on}"))]
    return []


def _left_over(units: Sequence[Mapping[str, Any]], table: MountTable, view: View) -> list[str]:
    """Refusals for volumes that the list no longer has, but that are mounted still."""
    planned = {unit["name"] for unit in units}
    found = []
    for name in view.names(UNITS):
        text = view.text(f"{UNITS}/{name}") if name.endswith(".mount") and name not in planned else None
        where = re.search(r"^Where=(.+)$", text or "", re.MULTILINE)
        if text and where and owner_of(text) == OWNER and mounted_at(table, where[1]) is not None:
            found.append(
                f"storage_volumes: {where[1]} isn't in the list any more, but is mounted; stop what uses it "
                f"and unmount it (systemctl stop '{name}'), or put it back into the list"
            )
    return found


def _pending(
    params: Mapping[str, Any],
    config: Mapping[str, Any],
    units: Sequence[Mapping[str, Any]],
    outcomes: Mapping[str, Outcome],
    run: Runner,
    view: View,
    refusals: list[str],
) -> tuple[list[str], dict[str, Any]]:
    """Which of rules, units and quotas differ, and what their modules say about that."""
    found = []
    full = {"directories": [], "orphans": [], **config}
    files = [{"mode": "0644", "secret": False, **file} for file in full["files"]]
    if _config_files.answer({**full, "files": files}, check=True, lenient=True)["changed"]:
        found.append("rules")
    asked = {
        "owner": OWNER,
        "units": units,
        "orphans": True,
        "directory": UNITS,
        "wait": True,
        "timeout": 900,
    }
    if _systemd_apply.answer(asked, True, run)["changed"]:
        found.append("units")
    quotas = [quota for quota in params["quotas"] if view.exists(quota["path"])]
    if any(one.steps for one in outcomes.values()) or "units" in found:
        # A quota is judged on the file system that is going to be there.
        return found + (["quotas"] if params["quotas"] else []), {}
    if len(quotas) < len(params["quotas"]):
        return [*found, "quotas"], {}
    try:
        said = _project_quota_apply.answer(
            {"quotas": quotas, "owner": QUOTA_OWNER, "orphans": True}, True, run
        )
    except HostError as error:
        refusals.append(f"storage_quotas: {error}")
        return found, {}
    return found + (["quotas"] if said["changed"] else []), {"quotas": said["quotas"]}


def _shown(
    volume: Mapping[str, Any], seen: Seen, outcome: Outcome, running: Sequence[str], view: View
) -> dict[str, Any]:
    mounted = seen.mount is not None
    return {
        "name": volume["name"],
        "path": volume["path"],
        "kind": volume["kind"],
        "unit": None if volume["directory"] == volume["path"] else _storage_units.mount_unit(volume["path"]),
        "units": volume["units"],
        "running": list(running),
        "uuid": volume["uuid"],
        "filesystem": volume["filesystem"],
        "directory": volume["directory"],
        "mounted": mounted,
        "bytes": seen.sizes.filesystem,
        "disks": [disk["path"] for disk in seen.disks],
        "nodes": [disk["path"] for disk in seen.disks] + ([f"/dev/{seen.upper}"] if seen.upper else []),
        "quota": volume["quota"],
        "discard": volume["discard"],
        "mkfs": mkfs_options(volume),
        "key_missing": bool(volume["encrypt"]) and not view.exists(volume["encrypt"]["key_file"]),
        **outcome.as_dict(),
    }


def _running(volume: Mapping[str, Any], run: Runner) -> list[str]:
    """The units that have to be stopped before what is at a volume's path can be moved."""
    asked = list(volume["units"])
    # Its socket would start it again.
    asked += ["docker.socket"] if "docker.service" in asked else []
    states = read_units(run, asked) if asked else {}
    return sorted(name for name, state in states.items() if state.up)


_FOLDERS = (
    *("/usr/sbin", "/sbin", "/usr/bin", "/bin"),
    *("/usr/lib/systemd/system-generators", "/lib/systemd/system-generators"),
)
_PROGRAMS = {
    "filesystem:xfs": (("mkfs.xfs", "xfsprogs"),),
    "filesystem:ext4": (("mkfs.ext4", "e2fsprogs"),),
    "filesystem:btrfs": (("mkfs.btrfs", "btrfs-progs"),),
    "grow:xfs": (("xfs_growfs", "xfsprogs"),),
    "grow:ext4": (("resize2fs", "e2fsprogs"),),
    "grow:btrfs": (("btrfs", "btrfs-progs"),),
    "partition": (("parted", "parted"),),
    "grow_partition": (("sfdisk", "fdisk"),),
    "lvm": (("vgs", "lvm2"),),
    "encrypt": (
        ("cryptsetup", "cryptsetup-bin"),
        # Reads crypttab at boot; a part of package systemd before Debian 13.
        ("systemd-cryptsetup-generator", "systemd-cryptsetup"),
    ),
    "migrate": (("rsync", "rsync"),),
}


def _packages(volumes: Sequence[Mapping[str, Any]], outcomes: Mapping[str, Outcome], view: View) -> list[str]:
    """Packages of programs that the steps need and that the host hasn't."""
    found = set()
    for volume in volumes:
        for step in outcomes[volume["name"]].steps:
            needed = _PROGRAMS.get(step, _PROGRAMS.get(f"{step}:{volume['filesystem']}", ()))
            for program, package in needed:
                if not any(view.exists(f"{folder}/{program}") for folder in _FOLDERS):
                    found.add(package)
    return sorted(found)
