# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the disk up to the file system of a volume: what is there of it, what is to be made. Pure.

Disk, partition, LVM volume, encryption, file system; each layer but the first and the last may be left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._block_identity import partition_name
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._sizes import show_size
from ansible_collections.matryoshka.host.plugins.module_utils._storage_plan import SMALLEST

Device = Mapping[str, Any]

LABEL = "matryoshka-"
"""Before a volume's name in the names of its partition and its LUKS header."""


@dataclass
class Outcome:
    """What a volume lacks. ``target`` is the device that holds, or will hold, its file system."""

    steps: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    disk: str | None = None
    partition: str | None = None
    number: int = 1
    crypt: str | None = None
    target: str | None = None
    wipe: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Devices:
    """All devices of the host, and of them the one that a volume's selector means.

    ``labels`` are the names of partitions by path; ``refusal`` says why there is no ``picked``;
    ``queue`` is that of the picked one.
    """

    found: Sequence[Device] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    picked: Device | None = None
    refusal: str | None = None
    key_there: bool = True
    queue: Mapping[str, str] = field(default_factory=dict)


def add_chain(out: Outcome, volume: Mapping[str, Any], devices: Devices) -> None:
    """From the disk up to the file system: what is there of it, what is to be made."""
    device = _disk(out, volume, devices)
    if out.refusals:
        return
    closed = False
    if volume["lvm"]:
        group, name = volume["lvm"]["vg"], volume["lvm"]["lv"]
        out.target = f"/dev/{group}/{name}"
        below, device = device, _mapped(devices, f"{group.replace('-', '--')}-{name.replace('-', '--')}")
        if device is None:
            ours = below is not None and any(
                one["kind"] == "lvm" and one["name"] == group for one in below["members"]
            )
            if below is not None and not ours:
                _blank(out, volume, below)
            out.steps.append("lvm")
    if volume["encrypt"]:
        closed = device is not None and any(
            member["kind"] == "luks" and member["name"] == f"{LABEL}{volume['name']}"
            for member in device["members"]
        )
        if device is not None and not closed:
            _blank(out, volume, device)
        out.crypt = out.target
        out.target = f"/dev/mapper/{LABEL}{volume['name']}"
        device = _mapped(devices, f"{LABEL}{volume['name']}")
        if device is None:
            out.steps.append("encrypt")
            if not volume["encrypt"]["key_given"] and not devices.key_there:
                error = InputError(
                    f"{volume['variable']}.encrypt.key_file",
                    volume["encrypt"]["key_file"],
                    "a file that is there; or give key, and it is written",
                )
                out.refusals.append(str(error))
    if device is None:
        # What is in a closed volume shows when it has been opened.
        out.steps += [] if closed else ["filesystem"]
        return
    if (device["filesystem"] or {}).get("uuid") == volume["uuid"]:
        if device["filesystem"]["type"] != volume["filesystem"]:
            allowed = f"{device['filesystem']['type']}, as the volume has it; it is never made anew"
            error = InputError(f"{volume['variable']}.filesystem", volume["filesystem"], allowed)
            out.refusals.append(str(error))
        return
    _blank(out, volume, device)
    _large_enough(out, volume, device)
    out.steps.append("filesystem")


def _disk(out: Outcome, volume: Mapping[str, Any], devices: Devices) -> Device | None:
    """The disk or the partition on it that all else is built upon; None if that has yet to be made."""
    if volume["device"] is None:
        group = volume["lvm"]["vg"]
        if not any(member["name"] == group for one in devices.found for member in one["members"]):
            allowed = "a volume group that is there, or a device to make it on"
            out.refusals.append(str(InputError(f"{volume['variable']}.lvm.vg", group, allowed)))
        return None
    if devices.picked is None:
        out.refusals.append(devices.refusal or f"{volume['variable']}.device: no device was found")
        return None
    disk = devices.picked
    out.disk = disk["path"]
    if volume["partition"]:
        mine = [
            part
            for part in devices.found
            if part["path"] in disk["partitions"] and _is_mine(volume, part, devices)
        ]
        out.partition = out.target = mine[0]["path"] if mine else partition_name(disk["path"], 1)
        if mine:
            return mine[0]
    else:
        out.target = disk["path"]
    if disk.get("wipe"):
        out.steps.append("wipe")
        out.wipe = [*disk["partitions"], disk["path"]]
    if volume["partition"]:
        _blank(out, volume, disk)
        out.steps.append("partition")
        _large_enough(out, volume, disk)
        return None
    return disk


def _is_mine(volume: Mapping[str, Any], part: Device, devices: Devices) -> bool:
    label = f"{LABEL}{volume['name']}"
    marked = (part["filesystem"] or {}).get("uuid") == volume["uuid"] or any(
        member["name"] == label for member in part["members"]
    )
    return marked or devices.labels.get(part["path"]) == label


def _mapped(devices: Devices, name: str) -> Device | None:
    return next((one for one in devices.found if one["mapper_name"] == name), None)


def _blank(out: Outcome, volume: Mapping[str, Any], device: Device) -> None:
    """Nothing may be on a device that something is made on, but for what a wipe list gives up."""
    if device["content"] and device["path"] not in out.wipe:
        allowed = f"a device without a signature; {device['path']} holds {device['shown']}"
        out.refusals.append(str(InputError(f"{volume['variable']}.device", device["path"], allowed)))


def _large_enough(out: Outcome, volume: Mapping[str, Any], device: Device) -> None:
    least = SMALLEST[volume["filesystem"]]
    if device["size_bytes"] < least:
        allowed = f"a device of at least {show_size(least)} for {volume['filesystem']}; it has {show_size(device['size_bytes'])}"
        out.refusals.append(str(InputError(f"{volume['variable']}.device", device["path"], allowed)))
