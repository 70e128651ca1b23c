# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas: what of the kernel's answers is told, and what is asked for."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TypeVar

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _data_root_quota as quotas
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_quota import Quota
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Mount, parse_mountinfo
from ansible_collections.matryoshka.host.plugins.module_utils._quotactl import Limits, QuotaState, Usage
from hypothesis import given
from hypothesis import strategies as st
from support.sysfs_tree import Tree

UUID = "7f5b8d0e-1111-4222-8333-444455556666"
Answer = TypeVar("Answer")
SIZES = st.integers(min_value=0, max_value=1 << 60)


def mount(filesystem: str = "xfs", options: str = "rw,prjquota") -> Mount:
    return parse_mountinfo(f"1 0 8:1 / /data rw - {filesystem} /dev/sda1 {options}\n")[0]


ON, UNENFORCED, OFF = QuotaState(True, True), QuotaState(True, False), QuotaState(False, False)


class Kernel:
    """Answers of project 42; a number is the errno of a call that fails."""

    def __init__(
        self,
        state: QuotaState | int = ON,
        usage: Usage | int | None = errno.EIO,
        project: tuple[int, bool] | int = (42, True),
    ) -> None:
        self.state, self.usage, self.project = state, usage, project

    def project_of(self, file: str | int) -> tuple[int, bool]:
        assert file == "/data"
        return answer(self.project)

    def read_quota_state(self, device: str | None, mount_point: str) -> QuotaState:
        assert (device, mount_point) == ("/dev/sda1", "/data")
        return answer(self.state)

    def find_project_quota(
        self, device: str | None, project: int, mount_point: str | None = None
    ) -> Usage | None:
        assert (device, project, mount_point) == ("/dev/sda1", 42, "/data")
        return answer(self.usage)


def answer(given: Answer | int) -> Answer:
    if isinstance(given, int):
        raise OSError(given, os.strerror(given))
    return given


def read(kernel: Kernel, found_on: Mount | None = None) -> Quota:
    return quotas.read_quota(View(), "/data", found_on or mount(), kernel)


@pytest.mark.parametrize(
    ("filesystem", "options", "state", "wanted"),
    [
        ("xfs", "rw,prjquota", ON, (True, True, True, True)),
        ("xfs", "rw,pqnoenforce", UNENFORCED, (True, False, True, False)),
        ("xfs", "rw,usrquota", OFF, (False, False, False, False)),
        ("ext4", "rw,prjquota", ON, (True, True, True, False)),
        ("ext4", "rw", UNENFORCED, (True, False, False, False)),
        ("f2fs", "rw,prjquota", ON, (True, True, True, False)),
    ],
)
def test_state(filesystem: str, options: str, state: QuotaState, wanted: tuple[bool, ...]) -> None:
    found = read(Kernel(state, project=(0, False)), mount(filesystem, options))
    assert (found.accounted, found.enforced, found.requested, found.overlay2_size) == wanted
    assert (found.kind, found.project, found.error, found.used) == ("project", 0, None, None)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ESRCH, errno.EPERM])
def test_a_kernel_that_gives_no_state(number: int) -> None:
    found = read(Kernel(number))
    assert (found.error, found.accounted, found.requested) == (errno.errorcode[number], False, True)
    assert (found.project, found.inherited) == (42, True)


def test_projects_that_nobody_counts() -> None:
    """The kernel isn't asked for figures."""
    assert read(Kernel(OFF)) == Quota(kind="project", requested=True, project=42, inherited=True)


@pytest.mark.parametrize("number", [errno.ENOTTY, errno.ENOENT])
def test_a_directory_without_a_project(number: int) -> None:
    found = read(Kernel(project=number))
    assert (found.project, found.inherited, found.enforced, found.used) == (None, None, True, None)


def test_used_and_limits() -> None:
    usage = Usage(42, 10 << 20, 7, Limits(20 << 20, 100, 15 << 20))
    found = read(Kernel(usage=usage))
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


@pytest.mark.parametrize(("usage", "error"), [(None, None), (errno.EPERM, "EPERM")])
def test_a_project_without_figures(usage: int | None, error: str | None) -> None:
    found = read(Kernel(usage=usage))
    assert (found.error, found.used, found.limit, found.enforced) == (error, None, None, True)


@given(SIZES, SIZES, SIZES, SIZES, SIZES, SIZES)
def test_figures_are_what_the_kernel_says(
    used: int, inodes: int, hard: int, soft: int, inodes_hard: int, inodes_soft: int
) -> None:
    found = read(Kernel(usage=Usage(42, used, inodes, Limits(hard, inodes_hard, soft, inodes_soft))))
    assert (found.used, found.inodes_used) == (used, inodes)
    assert (found.limit, found.soft_limit) == (hard or None, soft or None)
    assert (found.inodes_limit, found.inodes_soft_limit) == (inodes_hard or None, inodes_soft or None)


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
        ("rsv_data", "4096"),
        ("rsv_meta_pertrans", "512"),
        ("rsv_meta_prealloc", "64"),
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
        used=12599296 + 4096 + 512 + 64,
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
    assert (found.accounted, found.enforced, found.requested, found.inconsistent) == (
        False,
        False,
        False,
        True,
    )


@pytest.mark.parametrize(("mode", "counted"), [("qgroup", True), ("squota", True), ("disabled", False)])
def test_modes_of_quota_groups(btrfs: Tree, mode: str, counted: bool) -> None:
    btrfs.write(f"/sys/fs/btrfs/{UUID}/qgroups/mode", f"{mode}\n")
    found = btrfs_quota(btrfs)
    assert (found.accounted, found.enforced, found.limit) == (counted, counted, 20971520)


@pytest.mark.parametrize("subvolume", ["subvolid=300", "subvolid=x", "subvol=/data"])
def test_a_subvolume_without_a_group(btrfs: Tree, subvolume: str) -> None:
    found = btrfs_quota(btrfs, f"rw,{subvolume}")
    assert (found.enforced, found.qgroup, found.used) == (True, None, None)


def test_a_btrfs_that_is_not_known(btrfs: Tree) -> None:
    line = "1 0 0:47 / /data rw - btrfs /dev/sdz rw\n"
    assert quotas.read_quota(btrfs.view, "/data", parse_mountinfo(line)[0]) == Quota(kind="qgroup")
