# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of disks and hosts, from small trees that stand for sysfs and proc."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _storage_volume_state as state
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Mount, MountTable

MIB = (1 << 20) // 512
MOUNT = Mount(1, 0, "259:1", "/", "/srv/ci", ("rw",), "xfs", "/dev/nvme0n1p2", ("rw",))


class Tree:
    """Files below a folder, seen as a host's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.view = View(str(root))

    def write(self, path: str, text: str = "") -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")

    def disk(self, name: str, mebibytes: int, **partitions: tuple[int, int]) -> None:
        """A disk with partitions: number in the name's end, start and size in MiB."""
        base = f"/sys/devices/pci/{name}"
        self.write(f"{base}/size", f"{mebibytes * MIB}\n")
        self.link(name, base)
        for part, (start, size) in partitions.items():
            folder = f"{base}/{part}"
            self.write(f"{folder}/partition", part[-1] + "\n")
            self.write(f"{folder}/start", f"{start * MIB}\n")
            self.write(f"{folder}/size", f"{size * MIB}\n")
            self.link(part, folder)

    def link(self, name: str, target: str) -> None:
        place = self.root / "sys/class/block" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to("../../.." + target)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def host(tree: Tree) -> state.Host:
    tree.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    return state.read_host(tree.view)


def test_a_host_without_a_machine_id_is_refused(tree: Tree) -> None:
    for text in (None, "", "uninitialized\n"):
        if text is not None:
            tree.write("/etc/machine-id", text)
        with pytest.raises(HostError, match="systemd-machine-id-setup"):
            state.read_host(tree.view)


def test_what_the_kernel_can_mount_and_load(tree: Tree) -> None:
    tree.write("/proc/filesystems", "nodev\tsysfs\n\text4\n")
    tree.write("/proc/sys/kernel/osrelease", "6.12.1\n")
    tree.write(
        "/lib/modules/6.12.1/modules.dep",
        "kernel/fs/xfs/xfs.ko.xz: kernel/lib/libcrc32c.ko.xz\nkernel/block/kyber-iosched.ko:\n",
    )
    tree.write("/lib/modules/6.12.1/modules.builtin", "kernel/fs/fuse/fuse.ko\n")
    tree.write("/lib/modules/5.0.0/modules.dep", "kernel/fs/btrfs/btrfs.ko:\n")
    has = host(tree).kernel_has
    assert {"ext4", "xfs", "fuse", "kyber-iosched", "sysfs"} <= has and "btrfs" not in has


def test_quotas_of_xfs_show_in_proc_once_xfs_is_there(tree: Tree) -> None:
    assert host(tree).xfs_quota is True
    tree.write("/proc/fs/xfs/stat")
    assert host(tree).xfs_quota is False
    tree.write("/proc/fs/xfs/xqm")
    assert host(tree).xfs_quota is True


def test_udev_and_containers_are_told_by_what_they_leave(tree: Tree) -> None:
    assert (host(tree).udev, host(tree).container) == (False, False)
    tree.write("/run/udev/control")
    tree.write("/run/systemd/container", "podman")
    assert (host(tree).udev, host(tree).container) == (True, True)


@pytest.mark.parametrize(
    ("name", "room"),
    [("nvme0n1p2", 400), ("nvme0n1p1", None), ("nvme0n1", None), ("absent", None)],
)
def test_room_is_what_is_behind_the_last_partition(tree: Tree, name: str, room: int | None) -> None:
    tree.disk("nvme0n1", 1000, nvme0n1p1=(1, 99), nvme0n1p2=(100, 500))
    found = state._room_behind(tree.view, name)
    assert found == (None if room is None else room << 20)


def test_a_partition_in_front_of_a_later_one_has_none(tree: Tree) -> None:
    # Numbers needn't follow the order on the disk.
    tree.disk("sda", 1000, sda1=(500, 100), sda2=(1, 99))
    assert state._room_behind(tree.view, "sda2") is None
    assert state._room_behind(tree.view, "sda1") == 400 << 20


def test_sizes_under_encryption(tree: Tree) -> None:
    tree.disk("dm-1", 84)
    tree.disk("dm-0", 100)
    tree.write("/sys/devices/pci/dm-1/dm/uuid", "CRYPT-LUKS2-0123-matryoshka-ci\n")
    (tree.root / "sys/devices/pci/dm-1/slaves/dm-0").mkdir(parents=True)
    sizes = state._sizes(tree.view, "dm-1", "/srv/ci", MOUNT)
    assert (sizes.device, sizes.below_crypt, sizes.room_behind) == (84 << 20, 100 << 20, None)
    assert state._sizes(tree.view, "dm-0", "/srv/ci", MOUNT).below_crypt is None


@pytest.mark.parametrize(
    ("text", "chosen", "offered"),
    [
        ("none [mq-deadline] kyber\n", "mq-deadline", "none mq-deadline kyber"),
        ("[none] \n", "none", "none"),
        ("none\n", "none", "none"),
    ],
)
def test_queues(tree: Tree, text: str, chosen: str, offered: str) -> None:
    tree.disk("sda", 10)
    tree.write("/sys/devices/pci/sda/queue/scheduler", text)
    tree.write("/sys/devices/pci/sda/queue/read_ahead_kb", "128\n")
    assert state.read_queue(tree.view, "sda") == {
        "scheduler": chosen,
        "schedulers": offered,
        "read_ahead_kb": "128",
    }


def test_discard_is_the_disk_s_also_for_a_partition(tree: Tree) -> None:
    tree.disk("sda", 10, sda1=(1, 9))
    assert state._discards(tree.view, "sda1") is False
    tree.write("/sys/devices/pci/sda/queue/discard_max_bytes", "2147450880\n")
    assert state._discards(tree.view, "sda1") is True and state._discards(tree.view, "sda") is True


def test_names_of_partitions(tree: Tree) -> None:
    tree.disk("sda", 10, sda1=(1, 4), sda2=(5, 4))
    tree.write("/sys/devices/pci/sda/sda1/uevent", "DEVTYPE=partition\nPARTN=1\nPARTNAME=matryoshka-ci\n")
    tree.write("/sys/devices/pci/sda/sda2/uevent", "DEVTYPE=partition\nPARTN=2\n")
    assert state.partition_labels(tree.view) == {"/dev/sda1": "matryoshka-ci"}


def test_only_a_mount_on_the_path_itself_counts() -> None:
    table = MountTable.parse(
        "20 1 254:0 / / rw - ext4 /dev/vda rw\n21 20 7:0 / /srv/ci rw - xfs /dev/loop0 rw\n"
    )
    found = state.mounted_at(table, "/srv/ci")
    assert found is not None and found.source == "/dev/loop0"
    assert state.mounted_at(table, "/srv") is None and state.mounted_at(table, "/srv/ci/deep") is None
