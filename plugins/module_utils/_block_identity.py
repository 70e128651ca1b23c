# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a block device is: what is printed on it and how it is attached.

Sources of facts: ``/sys/class/block`` (the kernel's Documentation/ABI/stable/sysfs-block and
Documentation/scsi), udev's data base ``/run/udev/data`` where udev runs, and ``/dev/disk/by-id``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View

TRANSPORTS = (
    "nvme",
    "sata",
    "scsi",
    "sas",
    "iscsi",
    "fc",
    "usb",
    "virtio",
    "xen",
    "mmc",
    "pmem",
    "loop",
    "nbd",
    "rbd",
    "ram",
)
"""How a disk can be attached. Devices that are made of others (LVM, RAID, dm-crypt) have no transport."""

SECTOR = 512
"""The unit of sysfs' ``size`` and ``start``, whatever the disk's own blocks are."""

_LETTERED = re.compile(r"^((?:/dev/)?(?:[hsv]d|xvd)[a-z]+)([1-9]\d*)$")
_BY_NAME = (
    (re.compile(r"^nvme\d+"), "nvme"),
    (re.compile(r"^mmcblk\d+"), "mmc"),
    (re.compile(r"^xvd[a-z]+"), "xen"),
    (re.compile(r"^loop\d+"), "loop"),
    (re.compile(r"^nbd\d+"), "nbd"),
    (re.compile(r"^rbd\d+"), "rbd"),
    (re.compile(r"^(?:zram|ram)\d+"), "ram"),
    (re.compile(r"^pmem\d+"), "pmem"),
)
_BY_PATH = (
    (re.compile(r"/usb\d+/"), "usb"),
    (re.compile(r"/ata\d+/"), "sata"),
    (re.compile(r"/session\d+/"), "iscsi"),
    (re.compile(r"/rport-[\d:-]+/"), "fc"),
    (re.compile(r"/end_device-[\d:]+/"), "sas"),
    (re.compile(r"/virtio\d+/block/"), "virtio"),
    (re.compile(r"/target[\d:]+/"), "scsi"),
)
_KINDS_BY_NAME = (
    (re.compile(r"^loop\d+$"), "loop"),
    (re.compile(r"^md"), "raid"),
    (re.compile(r"^bcache\d+$"), "bcache"),
    (re.compile(r"^zd\d+$"), "zvol"),
    (re.compile(r"^drbd\d+$"), "drbd"),
    (re.compile(r"^(?:zram|ram)\d+$"), "ram"),
    (re.compile(r"^(?:sr|scd)\d+$"), "rom"),
    (re.compile(r"^fd\d+$"), "floppy"),
)
_DM_KINDS = {"LVM": "lvm", "CRYPT": "crypt", "mpath": "multipath", "DMRAID": "raid", "VDO": "vdo"}
_SCSI_ROM = "5"
# The kernel cuts the model of a SCSI or SATA disk off after 16 characters.
_MODEL_LIMIT = 16


def partition_name(disk: str, number: int) -> str:
    """The kernel's name of a disk's partition: ``sda1``, but ``nvme0n1p1``.

    >>> partition_name("/dev/nvme0n1", 2)
    '/dev/nvme0n1p2'
    """
    return f"{disk}p{number}" if disk[-1:].isdigit() else f"{disk}{number}"


def split_partition(name: str) -> tuple[str, int] | None:
    """The disk and the number in a partition's name; None for one that can't be a partition.

    >>> split_partition("nvme0n1p2")
    ('nvme0n1', 2)
    """
    found = re.match(r"^(.*\d)p([1-9]\d*)$", name) or _LETTERED.match(name)
    return (found[1], int(found[2])) if found else None


def identity(view: View, name: str) -> dict[str, Any]:
    """Who the device with the kernel's ``name`` (``sda``, ``nvme0n1p1``, ``dm-0``) is.

    A partition has the model, serial, WWN and transport of its disk. What isn't known is None.
    A loop device's serial is the path of its backing file.
    """
    directory = view.real(f"/sys/class/block/{name}")
    number = view.integer(f"{directory}/partition")
    disk_directory = os.path.dirname(directory) if number is not None else directory
    disk = os.path.basename(disk_directory)
    kind = _kind(view, disk_directory, disk)
    # A multipath device is the disk at the end of its paths; any of them tells which.
    paths = view.names(f"{disk_directory}/slaves") if kind == "multipath" else []
    body = view.real(f"/sys/class/block/{paths[0]}") if paths else disk_directory
    attached = os.path.basename(body)
    udev = _udev(view, view.word(f"{body}/dev"))
    backing = view.word(f"{disk_directory}/loop/backing_file")
    size = view.integer(f"{directory}/size")
    found = {
        "name": name,
        "path": "/dev/" + name.replace("!", "/"),
        "number": view.word(f"{directory}/dev"),
        "kind": "partition" if number is not None else kind,
        "disk": disk,
        "partition": number,
        "partition_label": _uevent(view, directory).get("PARTNAME"),
        "size_bytes": (size or 0) * SECTOR,
        "transport": _transport(view, body, attached),
        "vendor": view.word(f"{body}/device/vendor") if kind in ("disk", "multipath", "rom") else None,
        "model": _model(view, body, udev),
        "serial": _serial(view, body, udev) or backing,
        "wwn": _wwn(view, body, udev),
        "rotational": _flag(view, f"{disk_directory}/queue/rotational"),
        "removable": _flag(view, f"{disk_directory}/removable"),
        "read_only": _flag(view, f"{directory}/ro") or _flag(view, f"{disk_directory}/ro"),
        "logical_block_bytes": view.integer(f"{disk_directory}/queue/logical_block_size"),
        "physical_block_bytes": view.integer(f"{disk_directory}/queue/physical_block_size"),
        "mapper_name": view.word(f"{disk_directory}/dm/name"),
        "backing_file": backing,
    }
    return {**found, "ids": ids(found)}


def ids(found: Mapping[str, Any]) -> list[str]:
    """The names that udev's rules make of an identity for ``/dev/disk/by-id``, as far as it holds them.

    They are worth having where udev isn't running; where it is, its links come on top.
    """
    model, serial, wwn = found["model"], found["serial"], found["wwn"]
    names = []
    if serial and found["transport"] == "virtio":
        names.append(f"virtio-{_plain(serial)}")
    if serial and model and found["transport"] == "nvme":
        names.append(f"nvme-{_plain(model)}_{_plain(serial)}")
    if serial and model and found["transport"] == "sata" and len(model) != _MODEL_LIMIT:
        names.append(f"ata-{_plain(model)}_{_plain(serial)}")
    if wwn and found["transport"] == "nvme":
        names.append(f"nvme-{wwn}")
    elif wwn and wwn.startswith("0x"):
        names.append(f"wwn-{wwn}")
    if found["mapper_name"]:
        names.append(f"dm-name-{found['mapper_name']}")
    suffix = f"-part{found['partition']}" if found["partition"] is not None else ""
    return [name + suffix for name in names]


def _plain(text: str) -> str:
    """Text as udev has it in names: runs of white space become one underscore."""
    return re.sub(r"\s+", "_", text.strip())


def _kind(view: View, directory: str, disk: str) -> str:
    uuid = view.word(f"{directory}/dm/uuid")
    if uuid is not None or view.exists(f"{directory}/dm"):
        return _DM_KINDS.get((uuid or "").partition("-")[0], "mapper")
    if view.word(f"{directory}/device/type") == _SCSI_ROM:
        return "rom"
    return next((kind for pattern, kind in _KINDS_BY_NAME if pattern.match(disk)), "disk")


def _transport(view: View, directory: str, disk: str) -> str | None:
    for pattern, transport in _BY_NAME:
        if pattern.match(disk):
            return transport
    for pattern, transport in _BY_PATH:
        if pattern.search(directory):
            # A disk behind a SAS controller may speak SATA; the vendor is then the layer's own name.
            ata = transport in ("sas", "scsi") and view.word(f"{directory}/device/vendor") == "ATA"
            return "sata" if ata else transport
    return None


def _model(view: View, directory: str, udev: Mapping[str, str]) -> str | None:
    for key in ("ID_MODEL_ENC", "ID_MODEL"):
        if udev.get(key):
            return _decoded(udev[key])
    return view.word(f"{directory}/device/model")


def _serial(view: View, directory: str, udev: Mapping[str, str]) -> str | None:
    for key in ("SCSI_IDENT_SERIAL", "ID_SCSI_SERIAL", "ID_SERIAL_SHORT"):
        if udev.get(key):
            return udev[key].strip()
    return (
        view.word(f"{directory}/serial")
        or view.word(f"{directory}/device/serial")
        or _page80(view.text(f"{directory}/device/vpd_pg80"))
    )


def _page80(text: str | None) -> str | None:
    """The serial number in SCSI's vital product data page 0x80, behind a head of four bytes."""
    return (text or "")[4:].replace("\0", "").strip() or None


def _wwn(view: View, directory: str, udev: Mapping[str, str]) -> str | None:
    if udev.get("ID_WWN"):
        return udev.get("ID_WWN_WITH_EXTENSION") or udev["ID_WWN"]
    wwid = view.word(f"{directory}/wwid") or view.word(f"{directory}/device/wwid")
    if wwid and wwid.startswith("naa."):
        return "0x" + wwid.removeprefix("naa.")
    return wwid


def _uevent(view: View, directory: str) -> dict[str, str]:
    lines = (view.text(f"{directory}/uevent") or "").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _udev(view: View, number: str | None) -> dict[str, str]:
    """The properties that udev keeps of a device, from its data base."""
    text = view.text(f"/run/udev/data/b{number}") if number else None
    found = {}
    for line in (text or "").splitlines():
        key, equals, value = line.removeprefix("E:").partition("=")
        if equals and line.startswith("E:"):
            found[key] = value
    return found


def _decoded(text: str) -> str:
    r"""Text that udev has encoded: ``Samsung\x20SSD\x20980`` is ``Samsung SSD 980``."""
    plain = re.sub(r"\\x([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text)
    return plain.strip()


def _flag(view: View, path: str) -> bool | None:
    number = view.integer(path)
    return None if number is None else bool(number)
