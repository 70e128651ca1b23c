# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies between a file system and its disks: partitions, LVM, dm-crypt, RAID, loop devices.

Sources of facts: ``/sys/class/block`` (the kernel's Documentation/ABI/stable/sysfs-block),
``/sys/fs/btrfs/<uuid>/devices``, and for a loop device the mount that its backing file is on.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._block_identity import SECTOR, identity
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import (
    MEMORY,
    NETWORK,
    UNION,
    Mount,
    MountTable,
)

BLOCK = "/sys/class/block"
BTRFS = "/sys/fs/btrfs"
DELETED = " (deleted)"
_DEPTH = 16
_BRACKETS = re.compile(r"\[([^\]]+)\]")
_SHOWN = ("name", "path", "number", "kind", "size_bytes", "mapper_name", "backing_file", "read_only")
_OF_DISKS = ("model", "serial", "transport", "rotational", "wwn")


def chain(view: View, start: Mount | str, mounts: MountTable | None = None) -> list[dict[str, Any]]:
    """The layers below ``start``, the uppermost first, each layer once.

    ``below`` of a layer names the layers it is made of; one with nothing below it is a disk, or
    something whose parts the kernel doesn't show. A loop device goes on with what its backing file
    is on. A file system without a block device (memory, network, overlay) has no layers.

    :param start: a mount, or a device number, ``major:minor``.
    :param mounts: the mounts that backing files of loop devices are looked up in.
    """
    found: dict[str, dict[str, Any]] = {}
    _descend(view, _first(view, start), mounts, found, _DEPTH)
    return list(found.values())


def disks_of(layers: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The layers at the bottom."""
    return [layer for layer in layers if not layer["below"]]


def disk_kind(layers: Sequence[Mapping[str, Any]], filesystem: str | None = None) -> str | None:
    """In one word what the data is on; several kinds are joined with ``+``.

    ``nvme``, ``ssd``, ``rotating``, ``virtio``, ``loop``, ``ram``, ``zfs``, ``memory``, ``network``,
    ``overlay``, or None if nothing is known.
    """
    if not layers:
        for name, kinds in (("memory", MEMORY), ("network", NETWORK), ("overlay", UNION)):
            if filesystem in kinds:
                return name
        return None
    if any(layer["kind"] == "loop" for layer in layers):
        return "loop"
    return "+".join(sorted({_kind_of_disk(layer) for layer in disks_of(layers)}))


def discard_path(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether freed blocks are told to the disk: ``passes``, and ``stopped_by``, the layers that swallow them.

    A layer passes discards on if the kernel takes them there (``discard_max_bytes`` isn't 0); dm-crypt
    does so with ``allow_discards`` only. What lies above such a layer takes none either, and isn't named.
    """
    deaf = {layer["name"] for layer in layers if layer["discard"] is False}
    stopped = [layer["name"] for layer in layers if layer["name"] in deaf and not deaf & set(layer["below"])]
    known = bool(layers) and all(layer["discard"] is not None for layer in layers)
    return {"passes": False if stopped else (True if known else None), "stopped_by": stopped}


def btrfs_uuid(view: View, mount: Mount) -> str | None:
    """The name in ``/sys/fs/btrfs`` of the file system that ``mount`` shows."""
    if mount.filesystem != "btrfs":
        return None
    name = _device_name(view, mount.source)
    for uuid in view.names(BTRFS):
        if name and name in view.names(f"{BTRFS}/{uuid}/devices"):
            return uuid
    return None


def _first(view: View, start: Mount | str) -> list[dict[str, Any] | str]:
    """The layers (made already) or names of devices that the chain begins with."""
    if isinstance(start, str):
        return list(_named(view, start))
    if start.filesystem == "zfs":
        return [_pool("zfs", start.source.split("/")[0], [])]
    uuid = btrfs_uuid(view, start)
    if uuid:
        devices = view.names(f"{BTRFS}/{uuid}/devices")
        pool = _pool("btrfs", uuid, devices, _size(view, devices))
        return [pool] if len(devices) > 1 else [*devices]
    by_number = list(_named(view, start.device))
    if by_number:
        return [*by_number]
    name = _device_name(view, start.source)
    return [name] if name else []


def _named(view: View, number: str) -> Iterable[str]:
    if view.exists(f"/sys/dev/block/{number}"):
        yield posixpath.basename(view.real(f"/sys/dev/block/{number}"))


def _device_name(view: View, source: str) -> str | None:
    """The kernel's name of the device behind ``/dev/…``, links followed."""
    if not source.startswith("/dev/"):
        return None
    for path in (view.real(source), source):
        name = path.removeprefix("/dev/").replace("/", "!")
        if view.exists(f"{BLOCK}/{name}"):
            return name
    return None


def _descend(
    view: View,
    start: Sequence[dict[str, Any] | str],
    mounts: MountTable | None,
    found: dict[str, dict[str, Any]],
    depth: int,
) -> None:
    for one in start:
        name = one if isinstance(one, str) else one["name"]
        if name in found or depth == 0:
            continue
        below: Sequence[dict[str, Any] | str]
        if isinstance(one, str):
            layer, below = _layer(view, one, mounts)
        else:
            layer, below = one, one["below"]
        found[name] = layer
        _descend(view, below, mounts, found, depth - 1)


def _layer(
    view: View, name: str, mounts: MountTable | None
) -> tuple[dict[str, Any], list[dict[str, Any] | str]]:
    """A block device, and what is below it."""
    directory = view.real(f"{BLOCK}/{name}")
    who = identity(view, name)
    below: list[dict[str, Any] | str]
    if who["partition"] is not None:
        below = [posixpath.basename(posixpath.dirname(directory))]
    elif who["kind"] == "loop" and who["backing_file"]:
        below = _below_file(view, str(who["backing_file"]), mounts)
    else:
        below = [*view.names(f"{directory}/slaves")]
    queue = f"{posixpath.dirname(directory) if who['partition'] is not None else directory}/queue"
    disk = not below or who["kind"] == "disk"
    layer = {
        **{key: who[key] for key in _SHOWN},
        **{key: who[key] if disk else None for key in _OF_DISKS},
        **_queue(view, queue),
        "raid": _raid(view, directory),
        "below": [one if isinstance(one, str) else one["name"] for one in below],
    }
    return layer, below


def _queue(view: View, queue: str) -> dict[str, Any]:
    scheduler = view.word(f"{queue}/scheduler")
    chosen = _BRACKETS.search(scheduler or "")
    cache = view.word(f"{queue}/write_cache")
    discard = view.integer(f"{queue}/discard_max_bytes")
    return {
        "scheduler": chosen[1] if chosen else scheduler,
        "schedulers": (scheduler or "").replace("[", "").replace("]", "").split(),
        "read_ahead_kb": view.integer(f"{queue}/read_ahead_kb"),
        "discard": None if discard is None else discard > 0,
        "discard_granularity": view.integer(f"{queue}/discard_granularity"),
        "write_cache": {"write back": "back", "write through": "through"}.get(cache or "", cache),
        "zoned": view.word(f"{queue}/zoned"),
        "logical_block_bytes": view.integer(f"{queue}/logical_block_size"),
        "physical_block_bytes": view.integer(f"{queue}/physical_block_size"),
    }


def _raid(view: View, directory: str) -> dict[str, Any] | None:
    """State of an md device (the kernel's Documentation/admin-guide/md.rst)."""
    level = view.word(f"{directory}/md/level")
    if level is None:
        return None
    return {
        "level": level,
        "state": view.word(f"{directory}/md/array_state"),
        "devices": view.integer(f"{directory}/md/raid_disks"),
        "missing": view.integer(f"{directory}/md/degraded") or 0,
        "action": view.word(f"{directory}/md/sync_action"),
    }


def _below_file(view: View, path: str, mounts: MountTable | None) -> list[dict[str, Any] | str]:
    if mounts is None or path.endswith(DELETED) or not view.exists(path):
        return []
    mount = mounts.of(view.real(path))
    return _first(view, mount) if mount else []


def _pool(kind: str, name: str, devices: Sequence[str], size: int | None = None) -> dict[str, Any]:
    """Several devices that a file system itself puts together."""
    nothing = dict.fromkeys((*_SHOWN, *_OF_DISKS, *_queue(View(), "/nonexistent"), "raid"))
    # btrfs and ZFS pass on to their devices what is discarded; the devices decide.
    discard = True if devices else None
    given: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "size_bytes": size,
        "discard": discard,
        "schedulers": [],
    }
    return {**nothing, **given, "below": [*devices]}


def _size(view: View, devices: Iterable[str]) -> int:
    return sum((view.integer(f"{BLOCK}/{name}/size") or 0) * SECTOR for name in devices)


def _kind_of_disk(layer: Mapping[str, Any]) -> str:
    transport = layer["transport"]
    if layer["kind"] == "zfs":
        return "zfs"
    if transport in ("nvme", "virtio", "ram"):
        return str(transport)
    return {True: "rotating", False: "ssd", None: "unknown"}[layer["rotational"]]
