# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a block device is: fake trees of sysfs with the values of real disks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._block_identity import (
    TRANSPORTS,
    identity,
    partition_name,
    split_partition,
)
from hypothesis import given
from hypothesis import strategies as st
from support.block_tree import GIB, SAS, USB, VIRTIO, BlockTree, nvme, sata


@pytest.fixture
def tree(tmp_path: Path) -> BlockTree:
    return BlockTree(tmp_path)


def some(found: dict[str, Any], *keys: str) -> list[Any]:
    return [found[key] for key in keys]


def test_nvme_and_its_partition(tree: BlockTree) -> None:
    nvme(tree, 0, "S5GXNX0T123456")
    tree.partition("nvme0n1", "nvme0n1p2", 2)
    uevent = "MAJOR=259\nDEVNAME=nvme0n1p2\nDEVTYPE=partition\nPARTN=2\nPARTNAME=engine a=b\n"
    tree.write("sys/class/block/nvme0n1p2/uevent", uevent)
    found = identity(tree.view, "nvme0n1")
    assert found == {
        "name": "nvme0n1",
        "path": "/dev/nvme0n1",
        "number": "259:0",
        "kind": "disk",
        "disk": "nvme0n1",
        "partition": None,
        "partition_label": None,
        "size_bytes": 400 * GIB,
        "transport": "nvme",
        "vendor": None,
        "model": "Samsung SSD 980 PRO",
        "serial": "S5GXNX0T123456",
        "wwn": "eui.0025385b71b0a2c0",
        "rotational": False,
        "removable": False,
        "read_only": False,
        "logical_block_bytes": 512,
        "physical_block_bytes": 4096,
        "mapper_name": None,
        "backing_file": None,
        "ids": ["nvme-Samsung_SSD_980_PRO_S5GXNX0T123456", "nvme-eui.0025385b71b0a2c0"],
    }
    part = identity(tree.view, "nvme0n1p2")
    assert some(part, "kind", "disk", "partition", "size_bytes") == ["partition", "nvme0n1", 2, GIB]
    assert some(part, "serial", "partition_label") == [found["serial"], "engine a=b"]
    assert part["ids"] == [name + "-part2" for name in found["ids"]]


def test_sata_without_udev_and_with_it(tree: BlockTree) -> None:
    sata(tree, "sda", 1, "ZC1A2B3C")
    found = identity(tree.view, "sda")
    keys = ("transport", "vendor", "model", "serial", "wwn", "rotational", "ids")
    assert some(found, *keys) == [
        "sata",
        "ATA",
        "ST4000NM0035-1V4",
        "ZC1A2B3C",
        "0x5000c500a1b2c3d1",
        True,
        # A model of 16 characters may have been cut off, so it makes no name.
        ["wwn-0x5000c500a1b2c3d1"],
    ]
    lines = [
        "E:ID_MODEL_ENC=ST4000NM0035-1V4107\\x20\\x20\\x20",
        "E:ID_MODEL=ST4000NM0035-1V4107",
        "S:disk/x",
    ]
    lines += [
        "E:ID_SERIAL=ST4000NM0035-1V4107_ZC1A2B3C",
        "E:ID_SERIAL_SHORT=ZC1A2B3C",
        "E:ID_WWN=0x5000c500a1b2c3d1",
    ]
    tree.write("run/udev/data/b259:0", "\n".join(lines))
    found = identity(tree.view, "sda")
    assert some(found, "model", "ids") == [
        "ST4000NM0035-1V4107",
        ["ata-ST4000NM0035-1V4107_ZC1A2B3C", "wwn-0x5000c500a1b2c3d1"],
    ]


@pytest.mark.parametrize(
    ("name", "bus", "device", "attributes", "wanted"),
    [
        (
            "vdb",
            VIRTIO.format(3),
            {"vendor": "0x1af4"},
            {"serial": "engine-data"},
            ["disk", "virtio", "engine-data"],
        ),
        (
            "sdb",
            VIRTIO.format(1) + "/host2/target2:0:0/2:0:0:1",
            {"vendor": "QEMU", "type": "0"},
            {},
            ["disk", "scsi", None],
        ),
        ("sdc", SAS.format(3), {"vendor": "SEAGATE", "type": "0"}, {}, ["disk", "sas", None]),
        ("sdd", SAS.format(4), {"vendor": "ATA", "type": "0"}, {}, ["disk", "sata", None]),
        ("sde", USB, {"vendor": "Kingston", "type": "0"}, {"removable": "1"}, ["disk", "usb", None]),
        ("sr0", "pci0000:00/ata3/host3/target3:0:0/3:0:0:0", {"type": "5"}, {}, ["rom", "sata", None]),
        (
            "sdf",
            "platform/host7/session2/target7:0:0/7:0:0:1",
            {"vendor": "LIO-ORG", "type": "0"},
            {},
            ["disk", "iscsi", None],
        ),
        (
            "sdg",
            "pci0000:00/host9/rport-9:0-1/target9:0:0/9:0:0:0",
            {"vendor": "NETAPP", "type": "0"},
            {},
            ["disk", "fc", None],
        ),
        ("mmcblk0", "platform/mmc0/mmc0:0001", {"serial": "0x1a2b3c4d"}, {}, ["disk", "mmc", "0x1a2b3c4d"]),
        ("xvda", "vbd-768", {}, {}, ["disk", "xen", None]),
        ("loop3", "virtual", None, {"loop/backing_file": "/srv/disk.img"}, ["loop", "loop", "/srv/disk.img"]),
        ("zram0", "virtual", None, {}, ["ram", "ram", None]),
        ("md127", "virtual", None, {"md/level": "raid1"}, ["raid", None, None]),
        ("fd0", "platform/floppy.0", {}, {}, ["floppy", None, None]),
        ("nbd0", "virtual", None, {}, ["disk", "nbd", None]),
        ("dm-0", "virtual", None, {"dm/name": "vg-lv", "dm/uuid": "LVM-aBc"}, ["lvm", None, None]),
        ("dm-1", "virtual", None, {"dm/name": "secret", "dm/uuid": "CRYPT-LUKS2-1"}, ["crypt", None, None]),
        ("dm-2", "virtual", None, {"dm/name": "old", "dm/uuid": ""}, ["mapper", None, None]),
    ],
)
def test_kinds_and_transports(
    tree: BlockTree,
    name: str,
    bus: str,
    device: dict[str, str] | None,
    attributes: dict[str, str],
    wanted: list[str | None],
) -> None:
    tree.disk(name, GIB, bus, device, attributes)
    found = identity(tree.view, name)
    assert some(found, "kind", "transport", "serial") == wanted
    assert found["transport"] is None or found["transport"] in TRANSPORTS


def test_a_multipath_device_is_the_disk_behind_its_paths(tree: BlockTree) -> None:
    for name, port in (("sda", 1), ("sdb", 2)):
        device: dict[str, str | bytes] = {"vendor": "NETAPP", "model": "LUN C-Mode", "type": "0"}
        device |= {"vpd_pg80": b"\x00\x80\x00\x0480a1", "wwid": "naa.600a098038303053"}
        tree.disk(name, GIB, f"pci0000:00/host{port}/rport-{port}:0-1/target{port}:0:0/{port}:0:0:0", device)
    tree.mapper("dm-0", "mpatha", "mpath-3600a098038303053", "sda", "sdb")
    found = identity(tree.view, "dm-0")
    assert some(found, "kind", "transport", "model", "serial", "wwn") == [
        "multipath",
        "fc",
        "LUN C-Mode",
        "80a1",
        "0x600a098038303053",
    ]


def test_what_is_not_there_is_unknown(tree: BlockTree) -> None:
    found = identity(tree.view, "sdz")
    assert some(found, "number", "size_bytes", "model", "serial", "rotational") == [None, 0, None, None, None]


@pytest.mark.parametrize(
    ("disk", "number", "name"),
    [
        ("sda", 1, "sda1"),
        ("nvme0n1", 12, "nvme0n1p12"),
        ("mmcblk0", 1, "mmcblk0p1"),
        ("loop7", 3, "loop7p3"),
        ("vda", 10, "vda10"),
        ("md127", 1, "md127p1"),
    ],
)
def test_names_of_partitions(disk: str, number: int, name: str) -> None:
    assert partition_name(disk, number) == name
    assert partition_name(f"/dev/{disk}", number) == f"/dev/{name}"
    assert split_partition(name) == (disk, number)


@pytest.mark.parametrize("name", ["sda", "nvme0n1", "mmcblk0", "dm-0", "", "sda0"])
def test_names_that_are_no_partition_s(name: str) -> None:
    assert split_partition(name) is None


@given(
    st.from_regex(r"\A(sd[a-z]{1,2}|vd[a-z]|nvme\d{1,2}n\d{1,2}|mmcblk\d|loop\d{1,3})\Z"),
    st.integers(min_value=1, max_value=256),
)
def test_names_of_partitions_go_back_and_forth(disk: str, number: int) -> None:
    assert split_partition(partition_name(disk, number)) == (disk, number)
