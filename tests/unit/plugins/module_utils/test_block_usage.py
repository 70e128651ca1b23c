# SPDX-License-Identifier: GPL-3.0-or-later
"""Who uses a block device: mounts in all namespaces, swap, what is built on it, open files."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._block_usage import (
    Usage,
    read_usage,
    writers,
)
from hypothesis import given
from hypothesis import strategies as st
from support.block_tree import BlockTree

ROOT = "21 1 {root} / / rw - ext4 /dev/sda2 rw\n"


@pytest.fixture
def tree(tmp_path: Path) -> BlockTree:
    """sda1 is /boot/efi, sda2 is /, sdb is a file system of somebody's, sdc and sdd are spare."""
    tree = BlockTree(tmp_path)
    tree.disk("sda")
    boot, root = tree.partition("sda", "sda1", 1), tree.partition("sda", "sda2", 2)
    for name in ("sdb", "sdc", "sdd"):
        tree.disk(name)
    text = ROOT.format(root=root) + f"22 21 {boot} / /boot/efi rw - vfat /dev/sda1 rw\n"
    tree.mounts("1", text, namespace="host")
    return tree


def usage(tree: BlockTree) -> Usage:
    names = tree.view.names("/sys/class/block")
    return read_usage(
        tree.view, {(tree.view.text(f"/sys/class/block/{n}/dev") or "").strip(): n for n in names}
    )


def number(tree: BlockTree, name: str) -> str:
    return (tree.view.text(f"/sys/class/block/{name}/dev") or "").strip()


def test_the_host_s_own_mounts_and_disk(tree: BlockTree) -> None:
    found = usage(tree)
    assert {name: [one["mount_point"] for one in mounts] for name, mounts in found.mounts.items()} == {
        "sda1": ["/boot/efi"],
        "sda2": ["/"],
    }
    assert found.mounts["sda2"][0] == {
        "mount_point": "/",
        "root": "/",
        "filesystem": "ext4",
        "options": ["rw"],
        "read_only": False,
        "pid": None,
        "process": None,
    }
    assert set(found.system) == {"sda"}
    assert (set(found.swaps), dict(found.holders)) == (set(), {})


def test_a_mount_in_another_namespace_only(tree: BlockTree) -> None:
    other = (
        ROOT.format(root=number(tree, "sda2"))
        + f"40 21 {number(tree, 'sdb')} /x /data ro - xfs /dev/sdb rw\n"
    )
    tree.mounts("77", other, process="dockerd")
    tree.mounts("78", other, namespace="77", process="runc")
    found = usage(tree).mounts
    assert [(one["mount_point"], one["pid"], one["process"], one["root"]) for one in found["sdb"]] == [
        ("/data", 77, "dockerd", "/x")
    ]
    assert [one["pid"] for one in found["sda2"]] == [None]


def test_a_namespace_that_cannot_be_read_is_left_out(tree: BlockTree) -> None:
    tree.mounts("77", "no mountinfo at all\n")
    tree.write("proc/78/mountinfo", f"40 21 {number(tree, 'sdb')} / /data ro - xfs /dev/sdb rw\n")
    assert set(usage(tree).mounts) == {"sda1", "sda2"}


def test_btrfs_has_numbers_of_its_own(tree: BlockTree) -> None:
    root = ROOT.format(root=number(tree, "sda2"))
    tree.mounts("1", root + "40 21 0:55 /@ /srv rw - btrfs /dev/sdb rw,subvol=/@\n", namespace="host")
    for name in ("sdb", "sdc"):
        (tree.root / "sys/fs/btrfs/9a-b" / "devices" / name).mkdir(parents=True)
    (tree.root / "sys/fs/btrfs/features").mkdir()
    found = usage(tree)
    assert found.mounts["sdb"][0]["mount_point"] == "/srv"
    assert dict(found.holders) == {"sdb": ["the mounted btrfs 9a-b"], "sdc": ["the mounted btrfs 9a-b"]}


def test_a_mount_of_a_mapper_path_without_links(tree: BlockTree) -> None:
    tree.mapper("dm-0", "vg-lv", "LVM-x", "sdb")
    root = ROOT.format(root=number(tree, "sda2"))
    tree.mounts("1", root + "40 21 0:55 / /srv rw - btrfs /dev/mapper/vg-lv rw\n", namespace="host")
    assert usage(tree).mounts["dm-0"][0]["mount_point"] == "/srv"


def test_what_is_built_on_a_device(tree: BlockTree) -> None:
    tree.mapper("dm-0", "engines-docker", "LVM-x", "sdb")
    tree.disk("md0", attributes={"md/level": "raid1"})
    tree.stack("md0", "sdc")
    tree.disk("loop0", attributes={"loop/backing_file": "/dev/sdd"})
    tree.disk("loop1", attributes={"loop/backing_file": "/srv/image"})
    assert dict(usage(tree).holders) == {
        "sdb": ["/dev/mapper/engines-docker"],
        "sdc": ["/dev/md0"],
        "sdd": ["/dev/loop0"],
    }


def test_the_system_disk_behind_lvm_and_dm_crypt(tree: BlockTree) -> None:
    tree.mapper("dm-0", "crypt", "CRYPT-LUKS2-x", "sdb")
    root = tree.mapper("dm-1", "vg-root", "LVM-x", "dm-0")
    tree.mounts("1", f"21 1 {root} / / rw - ext4 /dev/mapper/vg-root rw\n", namespace="host")
    assert set(usage(tree).system) == {"sdb"}


def test_swap(tree: BlockTree) -> None:
    tree.mapper("dm-0", "vg-swap", "LVM-x", "sdc")
    lines = ["Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority"]
    lines += ["/dev/sdb                                partition\t16380\t\t0\t\t-2"]
    lines += ["/dev/mapper/vg-swap\t\t\tpartition\t16380\t\t0\t\t-3"]
    lines += ["/swap\\040file                         file\t16380\t\t0\t\t-3"]
    tree.write("proc/swaps", "\n".join(lines) + "\n")
    assert set(usage(tree).swaps) == {"sdb", "dm-0"}


def test_processes_that_write(tree: BlockTree) -> None:
    tree.opened("500", "10", "/dev/sdb", "0100002")
    tree.opened("500", "11", "/dev/sdb", "0100002")
    tree.opened("501", "3", "/dev/sdb", "0100001", "dd")
    tree.opened("502", "3", "/dev/sdb", "0100000", "smartd")
    tree.opened("503", "3", "/dev/sdc", "0100002")
    tree.opened("504", "3", "socket:[1]", "02")
    assert writers(tree.view, {"/dev/sdb": "sdb", "/dev/sdd": "sdd"}) == {"sdb": ["qemu (500)", "dd (501)"]}
    assert writers(tree.view, {}) == {}


@given(st.text(max_size=80))
def test_odd_swaps_harm_nothing(text: str) -> None:
    class Odd:
        root = "/nonexistent"

        def text(self, path: str) -> str | None:
            return text if path == "/proc/swaps" else None

        def names(self, path: str) -> list[str]:
            return []

        def link(self, path: str) -> str | None:
            return None

        def real(self, path: str) -> str:
            return path

    found = read_usage(Odd(), {"8:0": "sda"})  # type: ignore[arg-type]
    assert set(found.swaps) <= {"sda"}
