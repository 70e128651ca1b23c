# SPDX-License-Identifier: GPL-3.0-or-later
"""From a mount down to the disks, through made-up sysfs trees of what this machine hasn't."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._device_chain import (
    btrfs_uuid,
    chain,
    discard_path,
    disk_kind,
    disks_of,
)
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import MountTable
from support.sysfs_tree import Tree

FIXTURES = Path(__file__).parents[2] / "fixtures" / "data_root"
NVME = "pci0000:00/0000:00:1d.0/nvme/nvme0"
SATA = "pci0000:00/0000:00:17.0/ata{n}/host{n}/target{n}:0:0/{n}:0:0:0/block/{name}"
GIB = 1 << 21
UUID = "7f5b8d0e-1111-4222-8333-444455556666"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def mount(line: str) -> Any:
    return MountTable.parse(line).mounts[0]


def names(layers: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(layer["name"], layer["kind"]) for layer in layers]


def nvme(tree: Tree, **queue: str) -> None:
    """An NVMe disk with a partition."""
    tree.write(f"/sys/devices/{NVME}/model", "Samsung SSD 980 PRO 1TB                 \n")
    tree.write(f"/sys/devices/{NVME}/serial", "S5GXNX0R123456      \n")
    disk = f"{NVME}/nvme0n1"
    tree.block(disk, "259:0", {"wwid": "eui.002538b111501234"}, sectors=1000 * GIB, queue=queue)
    tree.link(f"/sys/devices/{disk}/device", f"/sys/devices/{NVME}")
    tree.block(f"{disk}/nvme0n1p3", "259:3", {"partition": "3"}, sectors=900 * GIB)


def lvm_on_crypt(tree: Tree, discards: str) -> None:
    """An LVM volume on dm-crypt on that partition."""
    nvme(tree)
    crypt = {"dm/uuid": f"CRYPT-LUKS2-{'a' * 32}-data", "dm/name": "data"}
    queue = {"discard_max_bytes": discards, "scheduler": "none"}
    tree.block("virtual/block/dm-0", "253:0", crypt, sectors=899 * GIB, below=["nvme0n1p3"], queue=queue)
    volume = {"dm/uuid": f"LVM-{'b' * 64}", "dm/name": "vg-images"}
    tree.block("virtual/block/dm-1", "253:1", volume, sectors=500 * GIB, below=["dm-0"], queue=queue)


def test_nvme_with_lvm_on_dm_crypt(tree: Tree) -> None:
    lvm_on_crypt(tree, "2199023255040")
    layers = chain(tree.view, mount("1 0 253:1 / /data rw - xfs /dev/mapper/vg-images rw,prjquota\n"))
    assert names(layers) == [
        ("dm-1", "lvm"),
        ("dm-0", "crypt"),
        ("nvme0n1p3", "partition"),
        ("nvme0n1", "disk"),
    ]
    assert [layer["below"] for layer in layers] == [["dm-0"], ["nvme0n1p3"], ["nvme0n1"], []]
    assert [layer["size_bytes"] >> 30 for layer in layers] == [500, 899, 900, 1000]
    assert layers[0]["mapper_name"] == "vg-images"
    disk = layers[-1]
    assert (disk["model"], disk["serial"]) == ("Samsung SSD 980 PRO 1TB", "S5GXNX0R123456")
    assert (disk["transport"], disk["rotational"], disk["wwn"]) == ("nvme", False, "eui.002538b111501234")
    assert (disk["scheduler"], disk["schedulers"]) == ("none", ["none", "mq-deadline"])
    assert (disk["write_cache"], disk["zoned"], disk["read_ahead_kb"]) == ("back", "none", 128)
    assert (disk["logical_block_bytes"], disk["physical_block_bytes"]) == (512, 4096)
    assert layers[0]["model"] is None
    assert disk_kind(layers) == "nvme"
    assert discard_path(layers) == {"passes": True, "stopped_by": []}


def test_dm_crypt_without_allow_discards_stops_them(tree: Tree) -> None:
    lvm_on_crypt(tree, "0")
    layers = chain(tree.view, "253:1")
    assert discard_path(layers) == {"passes": False, "stopped_by": ["dm-0"]}
    assert layers[2]["discard"] is True


def test_a_recorded_chain(tree: Tree) -> None:
    recorded = json.loads((FIXTURES / "xfs-on-lvm-on-crypt-on-nvme.json").read_text())
    for path, text in recorded["files"].items():
        tree.write(path, text)
    for path, target in recorded["links"].items():
        tree.link(path, target)
    found = mount(recorded["mountinfo"][0])
    layers = chain(tree.view, found)
    assert names(layers) == [
        ("dm-1", "lvm"),
        ("dm-0", "crypt"),
        ("nvme2n1p1", "partition"),
        ("nvme2n1", "disk"),
    ]
    assert [layer["mapper_name"] for layer in layers] == ["drvg-data", "dr-crypt", None, None]
    disk = layers[-1]
    assert (disk["model"], disk["serial"], disk["transport"]) == ("QEMU NVMe Ctrl", "MATRYOSHKA4", "nvme")
    assert (disk["size_bytes"], disk["scheduler"], disk["write_cache"]) == (3 << 30, "none", "back")
    assert disk_kind(layers) == "nvme"
    assert discard_path(layers) == {"passes": False, "stopped_by": ["dm-0"]}


@pytest.mark.parametrize(
    ("missing", "cache"), [("0", "write through"), ("1", "write back")], ids=["whole", "degraded"]
)
def test_md_on_two_rotating_disks(tree: Tree, missing: str, cache: str) -> None:
    queue = {
        "rotational": "1",
        "scheduler": "mq-deadline [bfq] none",
        "discard_max_bytes": "0",
        "write_cache": cache,
    }
    for n, name in ((1, "sda"), (2, "sdb")):
        place = SATA.format(n=n, name=name)
        tree.block(place, f"8:{16 * n}", sectors=2000 * GIB, queue=queue)
        tree.block(f"{place}/{name}1", f"8:{16 * n + 1}", {"partition": "1"}, sectors=2000 * GIB)
    state = {"level": "raid1", "array_state": "clean", "raid_disks": "2", "degraded": missing}
    files = {f"md/{key}": text for key, text in state.items()}
    tree.block("virtual/block/md0", "9:0", files, sectors=1999 * GIB, below=["sda1", "sdb1"], queue=queue)
    layers = chain(tree.view, mount("1 0 9:0 / /data rw - ext4 /dev/md0 rw\n"))
    assert names(layers) == [
        ("md0", "raid"),
        ("sda1", "partition"),
        ("sda", "disk"),
        ("sdb1", "partition"),
        ("sdb", "disk"),
    ]
    assert layers[0]["raid"] == {
        "level": "raid1",
        "state": "clean",
        "devices": 2,
        "missing": int(missing),
        "action": None,
    }
    assert [layer["transport"] for layer in disks_of(layers)] == ["sata", "sata"]
    assert (disk_kind(layers), layers[2]["scheduler"]) == ("rotating", "bfq")
    assert layers[2]["write_cache"] == cache.removeprefix("write ")
    assert discard_path(layers)["stopped_by"] == ["sda", "sdb"]


def test_multipath_to_one_disk(tree: Tree) -> None:
    for n, name in ((1, "sda"), (2, "sdb")):
        tree.block(SATA.format(n=n, name=name), f"8:{16 * n}", sectors=GIB)
    tree.block(
        "virtual/block/dm-0",
        "253:0",
        {"dm/uuid": "mpath-3600a0b80", "dm/name": "mpatha"},
        below=["sda", "sdb"],
    )
    tree.block("virtual/block/dm-1", "253:1", {"dm/uuid": "part1-mpath-3600a0b80"}, below=["dm-0"])
    layers = chain(tree.view, "253:1")
    assert [layer["name"] for layer in layers] == ["dm-1", "dm-0", "sda", "sdb"]
    assert layers[1]["kind"] == "multipath"
    assert disk_kind(layers) == "ssd"


def test_btrfs_on_two_devices(tree: Tree) -> None:
    nvme(tree)
    tree.block(SATA.format(n=1, name="sda"), "8:16", sectors=100 * GIB, queue={"rotational": "1"})
    for name in ("nvme0n1p3", "sda"):
        tree.link(f"/sys/fs/btrfs/{UUID}/devices/{name}", f"/sys/class/block/{name}")
    tree.folder("/sys/fs/btrfs/features")
    found = mount("1 0 0:47 /images /data rw - btrfs /dev/sda rw,subvolid=257,subvol=/images\n")
    layers = chain(tree.view, found)
    assert btrfs_uuid(tree.view, found) == UUID
    assert names(layers) == [
        (UUID, "btrfs"),
        ("nvme0n1p3", "partition"),
        ("nvme0n1", "disk"),
        ("sda", "disk"),
    ]
    assert layers[0]["size_bytes"] == 1000 * GIB * 512
    assert disk_kind(layers) == "nvme+rotating"
    assert discard_path(layers)["passes"] is True


def test_btrfs_on_one_device_and_its_anonymous_number(tree: Tree) -> None:
    nvme(tree)
    found = mount("1 0 0:47 / /data rw - btrfs /dev/nvme0n1p3 rw\n")
    assert btrfs_uuid(tree.view, found) is None
    assert [layer["name"] for layer in chain(tree.view, found)] == ["nvme0n1p3", "nvme0n1"]
    tree.link(f"/sys/fs/btrfs/{UUID}/devices/nvme0n1p3", "/sys/class/block/nvme0n1p3")
    assert [layer["name"] for layer in chain(tree.view, found)] == ["nvme0n1p3", "nvme0n1"]


def test_a_loop_device_goes_on_with_its_backing_file(tree: Tree) -> None:
    nvme(tree)
    tree.write("/images/data.img")
    tree.block("virtual/block/loop3", "7:3", {"loop/backing_file": "/images/data.img"}, sectors=GIB)
    mounts = MountTable.parse(
        "1 0 259:3 / / rw - ext4 /dev/nvme0n1p3 rw\n2 1 7:3 / /data rw - xfs /dev/loop3 rw\n"
    )
    layers = chain(tree.view, mounts.mounts[1], mounts)
    assert names(layers) == [("loop3", "loop"), ("nvme0n1p3", "partition"), ("nvme0n1", "disk")]
    assert layers[0]["backing_file"] == "/images/data.img"
    assert disk_kind(layers) == "loop"
    assert disks_of(layers)[0]["transport"] == "nvme"


@pytest.mark.parametrize("backing", ["/images/data.img (deleted)", "/elsewhere/data.img"])
def test_a_loop_device_whose_backing_file_is_not_to_be_seen(tree: Tree, backing: str) -> None:
    tree.block("virtual/block/loop3", "7:3", {"loop/backing_file": backing}, sectors=GIB)
    mounts = MountTable.parse("1 0 259:3 / / rw - ext4 /dev/nvme0n1p3 rw\n")
    assert names(chain(tree.view, "7:3", mounts)) == [("loop3", "loop")]


def test_a_loop_device_on_itself_ends(tree: Tree) -> None:
    tree.write("/data/self.img")
    tree.block("virtual/block/loop3", "7:3", {"loop/backing_file": "/data/self.img"}, sectors=GIB)
    mounts = MountTable.parse("1 0 7:3 / / rw - ext4 /dev/loop3 rw\n")
    assert names(chain(tree.view, "7:3", mounts)) == [("loop3", "loop")]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("1 0 0:5 / /data rw - tmpfs tmpfs rw\n", "memory"),
        ("1 0 0:5 / /data rw - nfs4 server:/x rw\n", "network"),
        ("1 0 0:5 / /data rw - overlay overlay rw\n", "overlay"),
        ("1 0 0:5 / /data rw - fuse.something /dev/fuse rw\n", None),
        ("1 0 8:99 / /data rw - ext4 /dev/gone rw\n", None),
    ],
)
def test_file_systems_without_a_device(tree: Tree, line: str, kind: str | None) -> None:
    found = mount(line)
    layers = chain(tree.view, found)
    assert layers == []
    assert disk_kind(layers, found.filesystem) == kind
    assert discard_path(layers) == {"passes": None, "stopped_by": []}


def test_a_zfs_pool_hides_its_disks(tree: Tree) -> None:
    layers = chain(tree.view, mount("1 0 0:50 / /data rw - zfs tank/images rw\n"))
    assert names(layers) == [("tank", "zfs")]
    assert disk_kind(layers) == "zfs"
    assert discard_path(layers)["passes"] is None


def test_a_volume_by_its_mapper_link(tree: Tree) -> None:
    lvm_on_crypt(tree, "0")
    tree.write("/dev/dm-1")
    tree.link("/dev/mapper/vg-images", "../dm-1")
    found = mount("1 0 0:60 / /data rw - btrfs /dev/mapper/vg-images rw\n")
    assert [layer["name"] for layer in chain(tree.view, found)][:2] == ["dm-1", "dm-0"]


def test_an_unknown_number(tree: Tree) -> None:
    assert chain(tree.view, "1:2") == []
