# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which steps a volume lacks, and why it can't have them: plan and present state in, steps out.

Pure. The steps, in the order in which they are done:
``wipe``, ``partition``, ``grow_partition``, ``lvm``, ``encrypt``, ``filesystem``, ``migrate``,
``mount_point``, ``grow``, ``remount``, ``queue``, ``migrated``; of a directory only ``directory``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._storage_units import queue_settings
from ansible_collections.matryoshka.host.plugins.module_utils._storage_volume_chain import (
    LABEL,
    Devices,
    Outcome,
    add_chain,
)
from ansible_collections.matryoshka.host.plugins.module_utils._storage_volume_state import Host, Seen

GROWTH = 16 << 20
"""Bytes that a device is larger than what is on it before that is grown: alignment leaves less."""


_KEPT = ("noatime", "discard", "discard=async")
"""Options that can be looked up on a live mount and taken over in place."""

_PROGRAMS = {"xfs": "mkfs.xfs", "ext4": "mkfs.ext4", "btrfs": "mkfs.btrfs"}


def mkfs_options(volume: Mapping[str, Any]) -> str | None:
    """Options of mkfs: the UUID that is known beforehand, and what overlay and quotas need."""
    if volume["filesystem"] == "xfs":
        return f"-m crc=1,reflink=1,uuid={volume['uuid']} -n ftype=1"
    if volume["filesystem"] == "ext4":
        quota = " -O project,quota -E quotatype=prjquota" if volume["quota"] else ""
        return f"-U {volume['uuid']} -O extent,filetype{quota}"
    return f"-U {volume['uuid']}" if volume["filesystem"] == "btrfs" else None


def on_mounted(volume: Mapping[str, Any], seen: Seen, host: Host) -> Outcome:
    """The steps of a volume on whose path something is mounted."""
    if seen.mount is None:
        raise HostError(f"{volume['path']}: nothing is mounted there")
    out = Outcome(target=seen.source)
    path = f"{volume['variable']}.path"
    if volume["kind"] == "directory":
        if not seen.same_directory:
            out.refusals.append(_other_mount(path, volume, seen))
        _mount_point(out, volume, seen)
        return out
    if seen.superblock is None or seen.superblock.uuid != volume["uuid"]:
        out.refusals.append(_other_mount(path, volume, seen))
        return out
    if seen.mount.filesystem != volume["filesystem"]:
        allowed = (
            f"{seen.mount.filesystem}, as the volume has it; a file system that is there is never made anew"
        )
        error = InputError(f"{volume['variable']}.filesystem", volume["filesystem"], allowed)
        out.refusals.append(str(error))
    if volume["quota"] and volume["filesystem"] in ("xfs", "ext4"):
        _quota(out, volume, seen)
    if seen.mount.read_only:
        out.refusals.append(
            f"{volume['path']} is mounted read-only; read dmesg for the reason, repair it, and mount it again"
        )
    _growth(out, volume, seen)
    live = {*seen.mount.options, *seen.mount.super_options}
    if any(option in _KEPT and option not in live for option in volume["options"]):
        out.steps.append("remount")
    _mount_point(out, volume, seen)
    _queue(out, volume, seen, host)
    if seen.migrating:
        out.steps.append("migrated")
    return out


def on_free(volume: Mapping[str, Any], seen: Seen, host: Host, devices: Devices, migrate: bool) -> Outcome:
    """The steps of a volume on whose path nothing is mounted yet."""
    out = Outcome()
    if volume["kind"] == "directory":
        out.steps += [] if seen.directory_there else ["directory"]
    else:
        _can_be_made(out, volume, host)
        if volume["kind"] == "uuid":
            _by_uuid(out, volume, devices)
        else:
            add_chain(out, volume, devices)
            _scheduler(out, volume, devices.queue, host)
    if seen.beneath.kind == "other":
        allowed = "a directory, or a path where nothing is"
        out.refusals.append(str(InputError(f"{volume['variable']}.path", volume["path"], allowed)))
    elif seen.beneath.entries and volume["directory"] != volume["path"]:
        if migrate:
            out.steps.append("migrate")
        else:
            shown = ", ".join(seen.beneath.entries[:5])
            allowed = (
                f"a path where nothing is, or an empty directory; it holds {shown}. "
                "storage_migrate: true moves that to the volume, with the engine stopped"
            )
            out.refusals.append(str(InputError(f"{volume['variable']}.path", volume["path"], allowed)))
    if out.steps[-1:] == ["migrate"]:
        out.steps.append("mount_point")
    else:
        _mount_point(out, volume, seen)
    return out


def _other_mount(variable: str, volume: Mapping[str, Any], seen: Seen) -> str:
    if seen.mount is None:
        return ""
    there = f"{seen.mount.source} ({seen.mount.filesystem}) is"
    wanted = f"file system {volume['uuid']}" if volume["uuid"] else volume["directory"]
    return str(
        InputError(
            variable, volume["path"], f"a path where nothing but {wanted} is mounted; {there} mounted there"
        )
    )


def _quota(out: Outcome, volume: Mapping[str, Any], seen: Seen) -> None:
    if seen.mount is None or {"prjquota", "pquota"} & set(seen.mount.super_options):
        return
    stop = f"stop what uses it, then umount {volume['path']}, and run the play again"
    if volume["filesystem"] == "ext4" and seen.superblock is not None and not seen.superblock.project:
        stop = f"stop what uses it, umount it, run tune2fs -O project,quota {seen.source}, and run the play again"
    out.refusals.append(
        f"{volume['variable']}.quota: {volume['path']} is mounted without project quotas, "
        f"which {volume['filesystem']} takes only when it is mounted: {stop}"
    )


def _growth(out: Outcome, volume: Mapping[str, Any], seen: Seen) -> None:
    sizes = seen.sizes
    grown = False
    if volume["partition"] and sizes.room_behind is not None and sizes.room_behind >= GROWTH:
        out.steps.append("grow_partition")
        out.disk = seen.disks[0]["path"] if len(seen.disks) == 1 else None
        out.partition = seen.source
        out.number = seen.sizes.partition or 1
        grown = True
    if volume["lvm"] and volume["lvm"]["size"].endswith("m"):
        wanted = int(volume["lvm"]["size"][:-1]) << 20
        has = sizes.below_crypt if volume["encrypt"] else sizes.device
        if has is not None and wanted > has:
            out.steps.append("lvm")
            grown = True
    inside = sizes.below_crypt is not None and sizes.device is not None
    if inside and (sizes.below_crypt or 0) - (sizes.device or 0) >= GROWTH * 2:
        grown = True
    if grown or (sizes.device or 0) - (sizes.filesystem or sizes.device or 0) >= GROWTH:
        out.steps.append("grow")
        out.crypt = f"{LABEL}{volume['name']}" if volume["encrypt"] else None


def _queue(out: Outcome, volume: Mapping[str, Any], seen: Seen, host: Host) -> None:
    wanted = queue_settings(volume)
    for disk in seen.disks:
        _scheduler(out, volume, seen.queues.get(disk["name"], {}), host)
    places = [(disk["name"], key) for disk in seen.disks for key in wanted]
    places += [(seen.upper, "read_ahead_kb")] if seen.upper and "read_ahead_kb" in wanted else []
    differs = any(seen.queues.get(name, {}).get(key) != wanted[key] for name, key in places)
    if differs and host.udev:
        out.steps.append("queue")
    elif differs:
        out.notes.append("udev doesn't run here, so scheduler and read-ahead stay as they are")


def _scheduler(out: Outcome, volume: Mapping[str, Any], queue: Mapping[str, str], host: Host) -> None:
    """A scheduler that the disk offers, or that the kernel loads when it is chosen."""
    wanted, offered = volume["scheduler"], queue.get("schedulers", "").split()
    if wanted is None or wanted in offered or {wanted, f"{wanted}-iosched"} & host.kernel_has:
        return
    allowed = f"one that the disk can have: {', '.join(offered) or 'it has none'}"
    out.refusals.append(str(InputError(f"{volume['variable']}.scheduler", wanted, allowed)))


def _mount_point(out: Outcome, volume: Mapping[str, Any], seen: Seen) -> None:
    if volume["directory"] == volume["path"]:
        return
    if seen.beneath.kind == "absent" or seen.beneath.protected is False:
        out.steps.append("mount_point")
    elif seen.beneath.protected is None:
        out.notes.append(
            f"the file system beneath {volume['path']} can't protect the empty mount point (chattr +i)"
        )


def _can_be_made(out: Outcome, volume: Mapping[str, Any], host: Host) -> None:
    kind = volume["filesystem"]
    if kind not in host.kernel_has:
        able = [one for one in _PROGRAMS if one in host.kernel_has]
        allowed = f"one that this host's kernel can mount: {', '.join(able) or 'none of them'}"
        out.refusals.append(str(InputError(f"{volume['variable']}.filesystem", kind, allowed)))
    if kind == "xfs" and volume["quota"] and not host.xfs_quota:
        allowed = "false, as this host's kernel was built without quotas for XFS"
        out.refusals.append(str(InputError(f"{volume['variable']}.quota", True, allowed)))


def _by_uuid(out: Outcome, volume: Mapping[str, Any], devices: Devices) -> None:
    holders = [one for one in devices.found if (one["filesystem"] or {}).get("uuid") == volume["uuid"]]
    where = f"{volume['variable']}.uuid"
    if len(holders) != 1:
        there = ", ".join(one["path"] for one in holders) or "no device"
        allowed = f"the UUID of one file system that is there; {there} holds it"
        out.refusals.append(str(InputError(where, volume["uuid"], allowed)))
        return
    out.target = holders[0]["path"]
    kind = holders[0]["filesystem"]["type"]
    if kind != volume["filesystem"]:
        error = InputError(f"{volume['variable']}.filesystem", volume["filesystem"], f"{kind}, which it is")
        out.refusals.append(str(error))
