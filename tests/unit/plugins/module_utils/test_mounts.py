# SPDX-License-Identifier: GPL-3.0-or-later
"""The mount table: parsing, the mount under a path, the disks behind it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import (
    Disks,
    Mount,
    MountTable,
    parse_mountinfo,
    within,
)
from hypothesis import given
from hypothesis import strategies as st

FIXTURES = Path(__file__).parents[2] / "fixtures" / "storage"


def mount(number: int, parent: int, point: str, filesystem: str = "ext4", device: str = "8:1") -> Mount:
    return Mount(number, parent, device, "/", point, ("rw",), filesystem, "/dev/sda1", ("rw",))


def table(name: str) -> MountTable:
    return MountTable.parse((FIXTURES / f"{name}.mountinfo").read_text())


@pytest.mark.parametrize(
    ("outer", "inner", "wanted"),
    [
        ("/", "/", True),
        ("/", "/srv", True),
        ("/srv", "/srv", True),
        ("/srv", "/srv/a/b", True),
        ("/srv/", "/srv/a", True),
        ("/srv", "/srvx", False),
        ("/srv/a", "/srv", False),
    ],
)
def test_within(outer: str, inner: str, wanted: bool) -> None:
    assert within(outer, inner) is wanted


@pytest.mark.parametrize(
    ("name", "path", "filesystem", "point"),
    [
        ("host", "/", "overlay", "/"),
        ("host", "/var/lib", "overlay", "/"),
        ("host", "/var/lib/docker", "ext4", "/var/lib/docker"),
        ("host", "/var/lib/docker/image/overlay2", "ext4", "/var/lib/docker"),
        ("host", "/var/lib/dockerish", "overlay", "/"),
        ("host", "/var/lib/matryoshka/runners/ci", "ext4", "/var/lib/matryoshka"),
        ("host", "/proc/sys/fs/binfmt_misc", "binfmt_misc", "/proc/sys/fs/binfmt_misc"),
        ("host", "/run/lock/x", "tmpfs", "/run/lock"),
        ("volume", "/var/lib/docker", "ext4", "/var/lib/docker"),
        ("overlay", "/var/lib/docker", "overlay", "/"),
    ],
)
def test_recorded_tables(name: str, path: str, filesystem: str, point: str) -> None:
    found = table(name).of(path)
    assert found is not None
    assert (found.filesystem, found.mount_point) == (filesystem, point)


def test_fields_of_a_recorded_line() -> None:
    found = table("volume").of("/var/lib/docker")
    assert found is not None
    assert found.root.endswith("/_data/r1")
    assert found.device == "254:0"
    assert found.source == "/dev/vda"
    assert not found.read_only
    root = table("overlay").of("/")
    assert root is not None
    assert (root.super_option("upperdir") or "").endswith("/diff")
    assert root.super_option("nosuch") is None


def test_a_later_mount_on_a_shorter_path_covers() -> None:
    mounts = [mount(1, 0, "/"), mount(2, 1, "/a/b", "xfs"), mount(3, 1, "/a", "tmpfs")]
    found = MountTable(mounts).of("/a/b/c")
    assert found is not None and found.filesystem == "tmpfs"


def test_the_upper_of_stacked_mounts_counts() -> None:
    mounts = [
        mount(1, 0, "/"),
        mount(2, 1, "/a", "xfs"),
        mount(3, 2, "/a", "btrfs"),
        mount(4, 0, "/a", "nfs"),
    ]
    found = MountTable(mounts).of("/a")
    assert found is not None and found.filesystem == "btrfs"


def test_escapes_are_undone() -> None:
    line = r"36 1 8:1 /x\040y /mnt/a\011b\134c ro,nosuid - ext4 /dev/disk\040one ro,data=a\054b"
    found = parse_mountinfo(line)[0]
    assert (found.root, found.mount_point, found.source) == ("/x y", "/mnt/a\tb\\c", "/dev/disk one")
    assert found.read_only


@pytest.mark.parametrize("line", ["nonsense", "1 2 8:1 / / rw", "x 2 8:1 / / rw - ext4 /dev/sda rw"])
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(HostError, match="mountinfo has a line that can't be read"):
        parse_mountinfo(line)


def test_no_mounts() -> None:
    assert MountTable([]).of("/var") is None


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1)


def escape(text: str) -> str:
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in text)


@given(st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4))
def test_any_name_survives(names: list[str]) -> None:
    point = "/" + "/".join(names)
    text = f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 8:2 / {escape(point)} rw shared:1 - xfs none rw\n"
    found = MountTable.parse(text).of(point)
    assert found is not None and found.mount_point == point


@given(st.lists(st.tuples(st.sampled_from(["/", "/a", "/a/b", "/c"]), st.integers(0, 6)), max_size=7))
def test_the_mount_of_a_path_is_always_above_it(entries: list[tuple[str, int]]) -> None:
    mounts = [mount(number, parent, point) for number, (point, parent) in enumerate(entries, 1)]
    found = MountTable(mounts).of("/a/b/d")
    assert found is None or ("/a/b/d/".startswith(found.mount_point.rstrip("/") + "/"))


@pytest.fixture
def sys_tree(tmp_path: Path) -> Path:
    """sda with sda1, sda2; vg over sda2 and nvme0n1."""
    devices = tmp_path / "sys/devices"
    for name in ("sda/sda1", "sda/sda2", "nvme0n1", "dm-0/slaves"):
        (devices / name).mkdir(parents=True)
    for part in ("sda/sda1", "sda/sda2"):
        (devices / part / "partition").write_text("1\n")
    (devices / "dm-0/slaves/sda2").symlink_to(devices / "sda/sda2")
    (devices / "dm-0/slaves/nvme0n1").symlink_to(devices / "nvme0n1")
    block = tmp_path / "sys/dev/block"
    block.mkdir(parents=True)
    for number, name in (("8:1", "sda/sda1"), ("8:2", "sda/sda2"), ("259:0", "nvme0n1"), ("253:0", "dm-0")):
        (block / number).symlink_to(devices / name)
    return tmp_path


@pytest.mark.parametrize(
    ("device", "expected", "path"),
    [
        ("8:1", {"sda"}, "/dev/sda1"),
        ("259:0", {"nvme0n1"}, "/dev/nvme0n1"),
        ("253:0", {"sda", "nvme0n1"}, "/dev/dm-0"),
    ],
)
def test_disks(sys_tree: Path, device: str, expected: set[str], path: str) -> None:
    disks = Disks(str(sys_tree))
    found = mount(1, 0, "/", device=device)
    assert disks.disks(found) == expected
    assert disks.device(found) == path


def test_mounts_without_a_disk(sys_tree: Path) -> None:
    disks = Disks(str(sys_tree))
    memory = Mount(1, 0, "0:40", "/", "/", ("rw",), "tmpfs", "tmpfs", ("rw",))
    assert disks.disks(memory) == frozenset()
    assert disks.device(memory) is None


def test_shared_disks(sys_tree: Path) -> None:
    disks = Disks(str(sys_tree))
    root, other, lvm = (mount(1, 0, "/", device=number) for number in ("8:1", "259:0", "253:0"))
    assert disks.shared(root, lvm)
    assert disks.shared(other, lvm)
    assert not disks.shared(root, other)


def test_two_datasets_of_a_pool_are_one_disk(sys_tree: Path) -> None:
    disks = Disks(str(sys_tree))
    first = Mount(1, 0, "0:30", "/", "/", ("rw",), "zfs", "tank/root", ("rw",))
    second = Mount(2, 1, "0:31", "/", "/x", ("rw",), "zfs", "tank/docker", ("rw",))
    assert disks.shared(first, second)
