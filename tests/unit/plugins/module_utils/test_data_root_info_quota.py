# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas: what the kernel's structures say, and what is asked for."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _data_root_quota as quotas
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_quota import Quota
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Mount, parse_mountinfo
from hypothesis import given
from hypothesis import strategies as st
from support.sysfs_tree import Tree

UUID = "7f5b8d0e-1111-4222-8333-444455556666"
SIZES = st.integers(min_value=0, max_value=1 << 50)


def mount(filesystem: str = "xfs", options: str = "rw,prjquota") -> Mount:
    return parse_mountinfo(f"1 0 8:1 / /data rw - {filesystem} /dev/sda1 {options}\n")[0]


def state(flags: int) -> bytes:
    """A ``struct fs_quota_statv``, as ``linux/dqblk_xfs.h`` has it."""
    head = struct.pack("=bBHI", 1, 0, flags, 3)
    files = b"".join(struct.pack("=QQII", inode, 8, 1, 0) for inode in (131, 132, 133))
    return (head + files + struct.pack("=iiiHHiHHI", 604800, 604800, 604800, 0, 0, 0, 0, 0, 0)).ljust(
        512, b"\0"
    )


def charged(blocks: int, inodes: int, hard: int = 0, soft: int = 0, inodes_hard: int = 0) -> bytes:
    """A ``struct fs_disk_quota``; blocks are of 512 bytes."""
    head = struct.pack("=bBHI", 1, 2, 0, 42)
    return (head + struct.pack("=QQQQQQ", hard, soft, inodes_hard, 0, blocks, inodes)).ljust(512, b"\0")


def kernel(state_answer: bytes | int, quota_answer: bytes | int = errno.EIO) -> quotas.Ask:
    def ask(command: int, project: int, room: int) -> bytes | int:
        if command == 0x5808:
            return state_answer
        assert (command, project) == (0x5803, 42)
        return quota_answer

    return ask


ON, UNENFORCED, USERS_ONLY = 0x30, 0x10, 0x03


@pytest.mark.parametrize(
    ("filesystem", "options", "flags", "wanted"),
    [
        ("xfs", "rw,prjquota", ON, (True, True, True, True)),
        ("xfs", "rw,pqnoenforce", UNENFORCED, (True, False, True, False)),
        ("xfs", "rw,usrquota", USERS_ONLY, (False, False, False, False)),
        ("ext4", "rw,prjquota", ON, (True, True, True, False)),
        ("ext4", "rw", UNENFORCED, (True, False, False, False)),
    ],
)
def test_state(filesystem: str, options: str, flags: int, wanted: tuple[bool, ...]) -> None:
    found = quotas.project_quota(mount(filesystem, options), (0, False), kernel(state(flags)))
    assert (found.accounted, found.enforced, found.requested, found.overlay2_size) == wanted
    assert (found.kind, found.project, found.error, found.used) == ("project", 0, None, None)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ESRCH, errno.EPERM])
def test_a_kernel_that_gives_no_state(number: int) -> None:
    found = quotas.project_quota(mount(), (42, True), kernel(number))
    assert (found.error, found.accounted, found.requested) == (errno.errorcode[number], False, True)


def test_used_and_limits() -> None:
    answer = charged(20480, 7, hard=40960, soft=30720, inodes_hard=100)
    found = quotas.project_quota(mount(), (42, True), kernel(state(ON), answer))
    assert found == Quota(
        kind="project",
        accounted=True,
        enforced=True,
        requested=True,
        project=42,
        inherited=True,
        used=10 << 20,
        limit=20 << 20,
        soft_limit=15 << 20,
        inodes_used=7,
        inodes_limit=100,
        overlay2_size=True,
    )


@pytest.mark.parametrize(("number", "error"), [(errno.ENOENT, None), (errno.EPERM, "EPERM")])
def test_a_project_without_figures(number: int, error: str | None) -> None:
    found = quotas.project_quota(mount(), (42, True), kernel(state(ON), number))
    assert (found.error, found.used, found.limit, found.enforced) == (error, None, None, True)


@given(SIZES, SIZES, SIZES, SIZES)
def test_figures_are_what_the_kernel_says(blocks: int, inodes: int, hard: int, soft: int) -> None:
    found = quotas.project_quota(
        mount(), (42, True), kernel(state(ON), charged(blocks, inodes, hard, soft, inodes_hard=soft))
    )
    assert (found.used, found.inodes_used) == (blocks * 512, inodes)
    assert (found.limit or 0, found.soft_limit or 0, found.inodes_limit or 0) == (
        hard * 512,
        soft * 512,
        soft,
    )


def test_the_structures_have_the_kernel_s_size() -> None:
    assert quotas._STATE.size == 8 + 3 * 24 + 32
    assert quotas._QUOTA.size == 112
    assert quotas._XATTR.size == 28


@pytest.mark.parametrize("filesystem", ["tmpfs", "overlay", "zfs", "nfs4"])
def test_file_systems_without(tmp_path: Path, filesystem: str) -> None:
    assert quotas.read_quota(View(), str(tmp_path), mount(filesystem)) == Quota()


def test_no_mount() -> None:
    assert quotas.read_quota(View(), "/data", None) == Quota()


def test_a_real_directory_is_asked(tmp_path: Path) -> None:
    """Whatever this machine's file system says, it is said without an error."""
    found = quotas.read_quota(View(), str(tmp_path), mount("ext4", "rw"))
    assert found.kind == "project"
    assert found.accounted or found.error


def test_a_directory_that_is_not_there() -> None:
    found = quotas.read_quota(View(), "/nonexistent/data", mount("ext4", "rw"))
    assert (found.error, found.project) == ("ENOENT", None)


@pytest.fixture
def btrfs(tmp_path: Path) -> Tree:
    """A btrfs with quota groups, whose subvolume 257 is mounted."""
    tree = Tree(tmp_path)
    tree.block("virtual/block/loop3", "7:3", sectors=1)
    tree.link(f"/sys/fs/btrfs/{UUID}/devices/loop3", "/sys/class/block/loop3")
    groups = f"/sys/fs/btrfs/{UUID}/qgroups"
    for name, text in (("enabled", "1"), ("inconsistent", "0"), ("drop_subtree_threshold", "3")):
        tree.write(f"{groups}/{name}", text)
    for name, text in (
        ("referenced", "12599296"),
        ("exclusive", "12582912"),
        ("max_referenced", "20971520"),
        ("max_exclusive", "0"),
        ("limit_flags", "1"),
    ):
        tree.write(f"{groups}/0_257/{name}", text + "\n")
    return tree


SUBVOLUME = "rw,space_cache=v2,subvolid=257,subvol=/data"


def btrfs_quota(tree: Tree, options: str = SUBVOLUME) -> Quota:
    line = f"1 0 0:47 /data /data rw - btrfs /dev/loop3 {options}\n"
    return quotas.read_quota(tree.view, "/data", parse_mountinfo(line)[0])


def test_a_quota_group(btrfs: Tree) -> None:
    assert btrfs_quota(btrfs) == Quota(
        kind="qgroup",
        accounted=True,
        enforced=True,
        requested=True,
        inconsistent=False,
        qgroup="0/257",
        used=12599296,
        limit=20971520,
        exclusive_used=12582912,
    )


@pytest.mark.parametrize(
    ("flags", "limits"),
    [("0", (None, None)), ("1", (20971520, None)), ("2", (None, 0)), ("3", (20971520, 0))],
)
def test_limits_of_a_quota_group_count_if_flagged(
    btrfs: Tree, flags: str, limits: tuple[int | None, int | None]
) -> None:
    btrfs.write(f"/sys/fs/btrfs/{UUID}/qgroups/0_257/limit_flags", flags)
    found = btrfs_quota(btrfs)
    assert (found.limit, found.exclusive_limit) == limits


def test_quota_groups_that_are_off_or_wrong(btrfs: Tree) -> None:
    btrfs.write(f"/sys/fs/btrfs/{UUID}/qgroups/enabled", "0")
    btrfs.write(f"/sys/fs/btrfs/{UUID}/qgroups/inconsistent", "1")
    found = btrfs_quota(btrfs)
    assert (found.enforced, found.inconsistent) == (False, True)


def test_a_subvolume_without_a_group(btrfs: Tree) -> None:
    found = btrfs_quota(btrfs, SUBVOLUME.replace("257", "300"))
    assert (found.enforced, found.qgroup, found.used) == (True, None, None)


def test_a_btrfs_that_is_not_known(btrfs: Tree) -> None:
    line = "1 0 0:47 / /data rw - btrfs /dev/sdz rw\n"
    assert quotas.read_quota(btrfs.view, "/data", parse_mountinfo(line)[0]) == Quota(kind="qgroup")
