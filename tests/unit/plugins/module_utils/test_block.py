# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole of block_device_info over a fake host: NVMe, SATA, virtio, LVM, RAID, dm-crypt, multipath."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._block import answer, read_devices, same_device
from ansible_collections.matryoshka.host.plugins.module_utils._block_content import PVS, WIPEFS
from ansible_collections.matryoshka.host.plugins.module_utils._block_probe import Touched
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from support.block_tree import GIB, VIRTIO, BlockTree, nvme, sata

TYPES = {
    "nvme0n1": ["gpt", "PMBR"],
    "nvme0n1p1": ["vfat"],
    "nvme0n1p2": ["LVM2_member"],
    "dm-0": ["ext4"],
    "sda": ["linux_raid_member"],
    "sdb": ["linux_raid_member"],
    "md127": ["crypto_LUKS"],
    "dm-1": ["xfs"],
    "vdb": ["ext4"],
}
USAGES = {
    "gpt": "partition-table",
    "PMBR": "partition-table",
    "LVM2_member": "raid",
    "linux_raid_member": "raid",
}


class Programs:
    """wipefs and pvs about the fake host; every other program isn't there."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        self.started.append(argv[0])
        if tuple(argv) == PVS:
            row = {"pv_name": "/dev/nvme0n1p2", "vg_name": "system", "pv_uuid": "U-nvme0n1p2-LVM2_member"}
            return Result(0, json.dumps({"report": [{"pv": [row]}]}))
        if tuple(argv[: len(WIPEFS)]) != WIPEFS:
            return Result(127, "", f"{argv[0]}: not found")
        found = [
            {
                "device": path[5:],
                "offset": hex(512 * number),
                "type": kind,
                "usage": USAGES.get(kind, "filesystem"),
                "uuid": f"U-{path[5:]}-{kind}",
                "label": None,
            }
            for path in argv[len(WIPEFS) :]
            for number, kind in enumerate(TYPES.get(path[5:], []))
        ]
        return Result(0, json.dumps({"signatures": found}))


class Ends:
    """Stands in for touching the devices."""

    def __init__(self, changes: Mapping[str, Touched] | None = None, busy: Sequence[str] = ()) -> None:
        self.changes = changes or {}
        self.busy = busy
        self.claimed: list[str] = []

    def __call__(self, path: str, size: int, number: str | None, *, claim: bool = False) -> Touched:
        if claim:
            self.claimed.append(path[5:])
            return Touched(busy=path[5:] in self.busy)
        return self.changes.get(path[5:], Touched(blank=True))


@pytest.fixture
def tree(tmp_path: Path) -> BlockTree:
    tree = BlockTree(tmp_path)
    nvme(tree, 0, "SYSTEM0")
    boot = tree.partition("nvme0n1", "nvme0n1p1", 1)
    tree.partition("nvme0n1", "nvme0n1p2", 2)
    root = tree.mapper("dm-0", "system-root", "LVM-abc", "nvme0n1p2")
    for number in (1, 2, 10):
        nvme(tree, number, f"ENGINE{number}", size=(400 + number) * GIB)
    for port, name in enumerate(("sda", "sdb")):
        sata(tree, name, port + 1, f"RAID{port}")
    tree.disk("md127", 4000 * GIB, attributes={"md/level": "raid1"})
    tree.stack("md127", "sda", "sdb")
    tree.mapper("dm-1", "archive", "CRYPT-LUKS2-abc", "md127")
    tree.disk("vdb", 50 * GIB, VIRTIO.format(3), {"vendor": "0x1af4"}, serial="cache")
    tree.disk("loop0", 0)
    tree.disk("sr0", 4 * GIB, "pci0000:00/ata3/host3/target3:0:0/3:0:0:0", {"type": "5"}, removable="1")
    hidden = nvme(tree, 7, "PATH")
    tree.write(f"sys/class/block/{hidden}/hidden", "1\n")
    text = f"21 1 {root} / / rw - ext4 /dev/mapper/system-root rw\n"
    tree.mounts("1", text + f"22 21 {boot} / /boot/efi rw - vfat /dev/nvme0n1p1 rw\n", namespace="host")
    tree.link("dev/disk/by-id/nvme-Engine_of_a_name_that_udev_knows", "../../nvme1n1")
    tree.link("dev/disk/by-path/pci-1", "../../nvme1n1")
    tree.link("dev/mapper/archive", "../dm-1")
    return tree


def ask(tree: BlockTree, *select: dict[str, Any], ends: Ends | None = None, **more: Any) -> dict[str, Any]:
    return answer({"select": list(select), **more}, Programs(), view=tree.view, probe=ends or Ends())


def test_all_devices(tree: BlockTree) -> None:
    programs, ends = Programs(), Ends()
    found = read_devices(programs, view=tree.view, probe=ends)
    assert [one["name"] for one in found] == [
        *("dm-0", "dm-1", "md127", "nvme0n1", "nvme0n1p1", "nvme0n1p2", "nvme1n1", "nvme2n1", "nvme10n1"),
        *("sda", "sdb", "sr0", "vdb"),
    ]
    codes = {one["name"]: [reason["code"] for reason in one["reasons"]] for one in found}
    assert codes == {
        "dm-0": ["mounted", "signed"],
        "dm-1": ["signed"],
        "md127": ["held", "signed"],
        "nvme0n1": ["system", "mounted", "held", "signed"],
        "nvme0n1p1": ["mounted", "signed"],
        "nvme0n1p2": ["held", "signed"],
        "nvme1n1": [],
        "nvme2n1": [],
        "nvme10n1": [],
        "sda": ["held", "signed"],
        "sdb": ["held", "signed"],
        "sr0": ["not_a_disk"],
        "vdb": ["signed"],
    }
    assert [one["name"] for one in found if one["free"]] == ["nvme1n1", "nvme2n1", "nvme10n1"]
    assert sorted(ends.claimed) == ["nvme10n1", "nvme1n1", "nvme2n1"]
    assert programs.started == ["wipefs", "pvs"]


def test_what_is_told_of_each(tree: BlockTree) -> None:
    found = {one["name"]: one for one in ask(tree)["devices"]}
    disk = found["nvme0n1"]
    assert disk["partitions"] == ["/dev/nvme0n1p1", "/dev/nvme0n1p2"]
    assert (disk["content"], disk["shown"], disk["system"], disk["filesystem"]) == (
        ["gpt"],
        "gpt",
        True,
        None,
    )
    assert found["nvme0n1p2"]["members"] == [
        {"kind": "lvm", "uuid": "U-nvme0n1p2-LVM2_member", "name": "system"}
    ]
    assert found["nvme0n1p2"]["holders"] == ["/dev/mapper/system-root"]
    assert found["dm-1"]["filesystem"] == {"type": "xfs", "uuid": "U-dm-1-xfs", "label": None}
    assert (found["dm-1"]["links"], found["dm-1"]["slaves"]) == (["/dev/mapper/archive"], ["md127"])
    assert "nvme-Engine_of_a_name_that_udev_knows" in found["nvme1n1"]["ids"]
    assert found["nvme1n1"]["links"][1] == "/dev/disk/by-path/pci-1"
    assert (found["vdb"]["transport"], found["vdb"]["serial"], found["vdb"]["blank"]) == (
        "virtio",
        "cache",
        None,
    )


@pytest.mark.parametrize(
    ("selector", "path"),
    [
        ({"id": "nvme-engine_of*"}, "/dev/nvme1n1"),
        ({"id": "nvme-Samsung_SSD_980_PRO_ENGINE2"}, "/dev/nvme2n1"),
        ({"path": "/dev/disk/by-id/nvme-Samsung_SSD_980_PRO_ENGINE10"}, "/dev/nvme10n1"),
        ({"path": "/dev/disk/by-path/pci-1"}, "/dev/nvme1n1"),
        ({"serial": "ENGINE2"}, "/dev/nvme2n1"),
        ({"wwn": "eui.*a2c10"}, "/dev/nvme10n1"),
        ({"model": "*980 pro", "size_min": "405G", "empty": True}, "/dev/nvme10n1"),
        ({"transport": "nvme", "size_max": "401G", "empty": True}, "/dev/nvme1n1"),
        ({"serial": "cache"}, "/dev/vdb"),
        ({"path": "/dev/mapper/archive", "own": ["U-dm-1-xfs"]}, "/dev/dm-1"),
        ({"transport": "nvme", "empty": True, "required": "any"}, "/dev/nvme1n1"),
    ],
)
def test_selected(tree: BlockTree, selector: dict[str, Any], path: str) -> None:
    wipe = [{"serial": "cache", "signature": "ext4"}]
    found = ask(tree, {"name": "v", **selector}, wipe=wipe)
    assert found["refusals"] == []
    assert found["selected"]["v"]["path"] == path


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"changes": {"nvme1n1": Touched(error="it can't be read: Input/output error")}},
            "Input/output error",
        ),
        ({"changes": {"nvme1n1": Touched(blank=False)}}, "data without a known signature"),
        ({"busy": ["nvme1n1"]}, "the kernel says that it is in use"),
    ],
)
def test_what_touching_a_device_tells(tree: BlockTree, changes: dict[str, Any], text: str) -> None:
    found = ask(tree, {"name": "v", "serial": "ENGINE1"}, ends=Ends(**changes))
    assert found["selected"] == {}
    assert [one["code"] for one in found["refusals"]] == ["not_free"]
    assert text in found["refusals"][0]["text"]


def test_wipefs_is_spared_what_cannot_be_opened(tree: BlockTree) -> None:
    programs: list[Sequence[str]] = []

    def run(
        argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        programs.append(argv)
        return Programs()(argv)

    closed = Ends({"vdb": Touched(opened=False, error="it can't be opened: Operation not permitted")})
    found = read_devices(run, view=tree.view, probe=closed)
    assert [reason["code"] for one in found if one["name"] == "vdb" for reason in one["reasons"]] == ["error"]
    assert "/dev/vdb" not in programs[0] and "/dev/nvme1n1" in programs[0]
    assert [argv[0] for argv in programs] == ["wipefs", "pvs"]


def test_a_virtual_machine_s_disk(tree: BlockTree) -> None:
    tree.opened("900", "12", "/dev/nvme1n1", "0140002", "qemu-system-x86")
    found = ask(tree, {"name": "v", "serial": "ENGINE1"})
    assert "it is open for writing in qemu-system-x86 (900)" in found["refusals"][0]["text"]


def test_a_device_without_a_node(tree: BlockTree) -> None:
    os.unlink(tree.root / "dev/nvme1n1")
    found = ask(tree, {"name": "v", "serial": "ENGINE1"})
    assert "there is no /dev/nvme1n1" in found["refusals"][0]["text"]


def test_a_path_to_a_multipath_device_is_never_meant(tree: BlockTree) -> None:
    for port, name in ((8, "sdm"), (9, "sdn")):
        sata(tree, name, port, "LUN", size=GIB)
    tree.mapper("dm-2", "mpatha", "mpath-35000c500a1b2c3d8", "sdm", "sdn", size=GIB)
    found = ask(tree, {"name": "v", "serial": "LUN", "empty": True})
    assert found["selected"]["v"]["path"] == "/dev/dm-2"
    wipe = [{"serial": "LUN", "signature": "data"}]
    data = Ends({name: Touched(blank=False) for name in ("sdm", "sdn", "dm-2")})
    found = ask(tree, {"name": "v", "serial": "LUN"}, wipe=wipe, ends=data)
    assert (found["selected"]["v"]["path"], found["selected"]["v"]["wipe"]) == ("/dev/dm-2", ["data"])
    assert ask(tree, {"name": "v", "path": "/dev/sdm"})["refusals"][0]["code"] == "no_match"


def test_without_programs_nothing_is_free(tree: BlockTree) -> None:
    def nothing(
        argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        return Result(127, "", f"{argv[0]}: not found in /usr/sbin")

    found = read_devices(nothing, view=tree.view, probe=Ends())
    assert not any(one["free"] for one in found)
    assert {one["error"] for one in found if one["kind"] != "rom"} == {
        "it can't be looked at: wipefs: not found in /usr/sbin"
    }


@pytest.mark.parametrize(
    ("params", "variable"),
    [
        ({"select": ["nvme"]}, "select[0]"),
        ({"select": [{"name": "v", "empty": True}, {"empty": True}]}, "select[1].name"),
        ({"select": [{"name": "v", "size_min": "big"}]}, "v.size_min"),
        ({"wipe": [{"serial": "S"}]}, "wipe[0]"),
    ],
)
def test_bad_input_is_refused_before_anything_is_looked_at(
    tree: BlockTree, params: dict[str, Any], variable: str
) -> None:
    programs, ends = Programs(), Ends()
    with pytest.raises(InputError) as caught:
        answer(params, programs, view=tree.view, probe=ends)
    assert caught.value.variable == variable
    assert (programs.started, ends.claimed) == ([], [])


def test_same_device(tree: BlockTree) -> None:
    assert same_device(tree.view, "/dev/disk/by-path/pci-1", "/dev/nvme1n1")
    assert not same_device(tree.view, "/dev/nvme2n1", "/dev/nvme1n1")
    assert not same_device(tree.view, "/dev/nvme2n1", "/dev/nonesuch")
