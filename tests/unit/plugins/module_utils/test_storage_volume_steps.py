# SPDX-License-Identifier: GPL-3.0-or-later
"""Which steps a volume lacks, for every state it can be found in; what must never be formatted isn't."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._mount_point import Beneath
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Mount
from ansible_collections.matryoshka.host.plugins.module_utils._storage_plan import plan_storage
from ansible_collections.matryoshka.host.plugins.module_utils._storage_superblock import Superblock
from ansible_collections.matryoshka.host.plugins.module_utils._storage_volume_chain import Devices
from ansible_collections.matryoshka.host.plugins.module_utils._storage_volume_state import (
    Host,
    Seen,
    Sizes,
)
from ansible_collections.matryoshka.host.plugins.module_utils._storage_volume_steps import (
    mkfs_options,
    on_free,
    on_mounted,
)
from hypothesis import given
from hypothesis import strategies as st

UUID = "2b2b6c1e-0000-5000-8000-000000000001"
OTHER = "99999999-0000-5000-8000-000000000001"
HOST = Host("a" * 32, udev=True, container=False, kernel_has=frozenset({"xfs", "ext4", "btrfs"}))
EMPTY = Beneath("directory", (), True)
GIB = 1 << 30


def planned(**options: Any) -> dict[str, Any]:
    given = {"name": "ci", "path": "/srv/ci", "device": {"serial": "S1"}, **options}
    (plan,) = plan_storage([given])
    return {**plan, "uuid": plan["uuid"] or UUID}


def device(path: str = "/dev/nvme0n1", **facts: Any) -> dict[str, Any]:
    found = {
        "path": path,
        "name": path[5:],
        "partitions": [],
        "size_bytes": 100 * GIB,
        "content": [],
        "shown": "",
    }
    return {**found, "filesystem": None, "members": [], "mapper_name": None, "wipe": [], **facts}


def filesystem(kind: str = "xfs", uuid: str = UUID) -> dict[str, Any]:
    return {"content": [kind], "shown": kind, "filesystem": {"type": kind, "uuid": uuid, "label": None}}


def free(plan: dict[str, Any], *devices: dict[str, Any], migrate: bool = False, **known: Any) -> Any:
    """The outcome where nothing is mounted; the first device is the one that was picked."""
    beneath = known.pop("beneath", Beneath("absent"))
    picked = known.pop("picked", devices[0] if devices else None)
    host = known.pop("host", HOST)
    return on_free(plan, Seen(beneath=beneath), host, Devices(devices, picked=picked, **known), migrate)


PART = "/dev/nvme0n1p1"
GPT: dict[str, Any] = {"content": ["gpt"], "shown": "gpt", "partitions": [PART]}
LUKS: dict[str, Any] = {
    "content": ["crypto_LUKS"],
    "shown": "crypto_LUKS",
    "members": [{"kind": "luks", "name": "matryoshka-ci"}],
}
KEY: dict[str, Any] = {"encrypt": {"key_file": "/etc/k"}}
LVM: dict[str, Any] = {"lvm": {"vg": "data", "lv": "my-lv", "size": "20G"}}
PV: dict[str, Any] = {
    "content": ["LVM2_member"],
    "shown": "LVM2_member",
    "members": [{"kind": "lvm", "name": "data"}],
}
LV: dict[str, Any] = device("/dev/dm-0", mapper_name="data-my--lv", size_bytes=20 * GIB)
OPEN: dict[str, Any] = device("/dev/dm-1", mapper_name="matryoshka-ci", size_bytes=20 * GIB)

STEPS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any], list[str], str]] = {
    "an empty disk": ({}, [device()], {}, ["filesystem", "mount_point"], "/dev/nvme0n1"),
    "a disk given up": (
        {},
        [device(**filesystem(uuid=OTHER), wipe=["xfs"])],
        {},
        ["wipe", "filesystem", "mount_point"],
        "/dev/nvme0n1",
    ),
    "its own file system": ({}, [device(**filesystem())], {}, ["mount_point"], "/dev/nvme0n1"),
    "its own, all prepared": ({}, [device(**filesystem())], {"beneath": EMPTY}, [], "/dev/nvme0n1"),
    "a partition to make": (
        {"partition": True},
        [device()],
        {},
        ["partition", "filesystem", "mount_point"],
        PART,
    ),
    "a partition that was made and then nothing": (
        {"partition": True},
        [device(**GPT), device(PART)],
        {"labels": {PART: "matryoshka-ci"}},
        ["filesystem", "mount_point"],
        PART,
    ),
    "a partition that is known by what is on it": (
        {"partition": True},
        [device(**GPT), device(PART, **filesystem())],
        {},
        ["mount_point"],
        PART,
    ),
    "an encrypted disk": (
        KEY,
        [device()],
        {},
        ["encrypt", "filesystem", "mount_point"],
        "/dev/mapper/matryoshka-ci",
    ),
    "a closed one, whose inside nobody knows": (
        KEY,
        [device(**LUKS)],
        {},
        ["encrypt", "mount_point"],
        "/dev/mapper/matryoshka-ci",
    ),
    "an open one with nothing in it": (
        KEY,
        [device(**LUKS), OPEN],
        {},
        ["filesystem", "mount_point"],
        "/dev/mapper/matryoshka-ci",
    ),
    "an open one with its file system": (
        KEY,
        [device(**LUKS), {**OPEN, **filesystem()}],
        {},
        ["mount_point"],
        "/dev/mapper/matryoshka-ci",
    ),
    "LVM on an empty disk": (LVM, [device()], {}, ["lvm", "filesystem", "mount_point"], "/dev/data/my-lv"),
    "LVM in a group that is there": (
        LVM,
        [device(**PV)],
        {},
        ["lvm", "filesystem", "mount_point"],
        "/dev/data/my-lv",
    ),
    "an LVM volume that was made": (
        LVM,
        [device(**PV), LV],
        {},
        ["filesystem", "mount_point"],
        "/dev/data/my-lv",
    ),
    "LVM without a device of its own": (
        {**LVM, "device": None},
        [device("/dev/sdb", **PV), {**LV, **filesystem()}],
        {"picked": None},
        ["mount_point"],
        "/dev/data/my-lv",
    ),
    "encryption upon LVM upon a partition": (
        {**LVM, **KEY, "partition": True},
        [device(**GPT), device(PART, **PV), {**LV, **LUKS}, OPEN],
        {"labels": {PART: "matryoshka-ci"}},
        ["filesystem", "mount_point"],
        "/dev/mapper/matryoshka-ci",
    ),
    "a file system that is named": (
        {"device": None, "uuid": OTHER, "filesystem": "ext4"},
        [device("/dev/sdb1", **filesystem("ext4", OTHER))],
        {"picked": None},
        ["mount_point"],
        "/dev/sdb1",
    ),
    "a path with data, told to move it": (
        {},
        [device()],
        {"beneath": Beneath("directory", ("overlay2",), False), "migrate": True},
        ["filesystem", "migrate", "mount_point"],
        "/dev/nvme0n1",
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps(name: str) -> None:
    options, devices, known, steps, target = STEPS[name]
    found = free(planned(**options), *devices, **known)
    assert (found.refusals, found.steps, found.target) == ([], steps, target)


REFUSED: dict[str, tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any], str]] = {
    "no device": (
        {},
        [],
        {"refusal": "storage_volumes[ci].device: none"},
        "storage_volumes[ci].device: none",
    ),
    "its own disk with somebody's partitions": (
        {"partition": True},
        [device(**GPT), device(PART, **filesystem(uuid=OTHER))],
        {},
        "storage_volumes[ci].device: '/dev/nvme0n1' is refused; allowed: a device without a signature; /dev/nvme0n1 holds gpt",
    ),
    "partition: true was taken back": (
        {},
        [device(**GPT), device(PART, **filesystem())],
        {},
        "/dev/nvme0n1 holds gpt",
    ),
    "encryption asked for over what is there": (KEY, [device(**filesystem())], {}, "/dev/nvme0n1 holds xfs"),
    "LVM asked for over what is there": (LVM, [device(**filesystem())], {}, "/dev/nvme0n1 holds xfs"),
    "LVM on a member of another group": (
        LVM,
        [device(**{**PV, "members": [{"kind": "lvm", "name": "system"}]})],
        {},
        "/dev/nvme0n1 holds LVM2_member",
    ),
    "LVM without its group": (
        {**LVM, "device": None},
        [],
        {},
        "storage_volumes[ci].lvm.vg: 'data' is refused",
    ),
    "an LVM volume with something else": (
        LVM,
        [device(**PV), {**LV, **filesystem(uuid=OTHER)}],
        {},
        "/dev/dm-0 holds xfs",
    ),
    "an open one with something else": (
        KEY,
        [device(**LUKS), {**OPEN, **filesystem(uuid=OTHER)}],
        {},
        "/dev/dm-1 holds xfs",
    ),
    "another file system than it has": (
        {"filesystem": "ext4"},
        [device(**filesystem())],
        {},
        "storage_volumes[ci].filesystem: 'ext4' is refused; allowed: xfs, as the volume has it",
    ),
    "a UUID that nobody has": (
        {"device": None, "uuid": OTHER},
        [device()],
        {},
        f"storage_volumes[ci].uuid: '{OTHER}' is refused; allowed: the UUID of one file system that is there; no device",
    ),
    "a UUID that two have": (
        {"device": None, "uuid": OTHER},
        [device("/dev/sda", **filesystem(uuid=OTHER)), device("/dev/sdb", **filesystem(uuid=OTHER))],
        {},
        "/dev/sda, /dev/sdb holds it",
    ),
    "a disk that is too small": (
        {},
        [device(size_bytes=200 << 20)],
        {},
        "allowed: a device of at least 300 MiB for xfs; it has 200 MiB",
    ),
    "a key that isn't there": (
        KEY,
        [device()],
        {"key_there": False},
        "storage_volumes[ci].encrypt.key_file: '/etc/k' is refused; allowed: a file that is there",
    ),
    "a file system that the kernel hasn't": (
        {"filesystem": "btrfs"},
        [device()],
        {"host": replace(HOST, kernel_has=frozenset({"ext4"}))},
        "storage_volumes[ci].filesystem: 'btrfs' is refused; allowed: one that this host's kernel can mount: ext4",
    ),
    "quotas that the kernel hasn't": (
        {},
        [device()],
        {"host": replace(HOST, xfs_quota=False)},
        "storage_volumes[ci].quota: True is refused; allowed: false, as this host's kernel was built without quotas",
    ),
    "a path with data": (
        {},
        [device()],
        {"beneath": Beneath("directory", ("overlay2", "image"), False)},
        "storage_volumes[ci].path: '/srv/ci' is refused; allowed: a path where nothing is, or an empty directory",
    ),
    "a scheduler that the disk can't have": (
        {"scheduler": "bfq"},
        [device()],
        {"queue": {"schedulers": "none"}},
        "storage_volumes[ci].scheduler: 'bfq' is refused; allowed: one that the disk can have: none",
    ),
    "a path that is a file": (
        {},
        [device()],
        {"beneath": Beneath("other")},
        "allowed: a directory, or a path where nothing is",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    options, devices, known, message = REFUSED[name]
    found = free(planned(**options), *devices, **known)
    assert any(message in text for text in found.refusals), found.refusals


@given(
    st.sampled_from([{}, KEY, LVM, {**KEY, **LVM}]),
    st.booleans(),
    st.sampled_from(["ext4", "gpt", "LVM2_member", "crypto_LUKS", "swap", "zfs_member"]),
    st.booleans(),
)
def test_whatever_is_on_a_disk_is_never_formatted(
    options: dict[str, Any], partition: bool, kind: str, part: bool
) -> None:
    stranger: dict[str, Any] = {
        "content": [kind],
        "shown": kind,
        "members": [{"kind": "lvm", "name": "theirs"}],
    }
    disk = device(**{**stranger, "partitions": [PART] if part else []})
    devices = [disk, *([device(PART, **stranger)] if part else [])]
    assert free(planned(**options, partition=partition), *devices).refusals


def mount(
    *options: str,
    source: str = "/dev/nvme0n1",
    kind: str = "xfs",
    supers: tuple[str, ...] = ("rw", "prjquota"),
) -> Mount:
    return Mount(1, 0, "259:0", "/", "/srv/ci", ("rw", *(options or ("noatime",))), kind, source, supers)


def seen(**facts: Any) -> Seen:
    base = {
        "beneath": EMPTY,
        "mount": mount(),
        "source": "/dev/nvme0n1",
        "superblock": Superblock("xfs", UUID, 100 * GIB),
        "sizes": Sizes(100 * GIB, 100 * GIB),
        "disks": ({"name": "nvme0n1", "path": "/dev/nvme0n1", "serial": "S1"},),
        "queues": {
            "nvme0n1": {"scheduler": "none", "schedulers": "none mq-deadline", "read_ahead_kb": "128"}
        },
    }
    return Seen(**{**base, **facts})


MOUNTED: dict[str, tuple[dict[str, Any], Seen, list[str], str]] = {
    "as planned": ({}, seen(), [], ""),
    "a few blocks less than the disk": ({}, seen(sizes=Sizes(100 * GIB, 100 * GIB - (15 << 20))), [], ""),
    "a larger disk": ({}, seen(sizes=Sizes(200 * GIB, 100 * GIB)), ["grow"], ""),
    "room behind its partition": (
        {"partition": True},
        seen(source="/dev/nvme0n1p1", sizes=Sizes(100 * GIB, 100 * GIB, None, 50 * GIB, 1)),
        ["grow_partition", "grow"],
        "",
    ),
    "room behind a partition that isn't its own": (
        {"partition": True},
        seen(sizes=Sizes(100 * GIB, 100 * GIB, None, None, 1)),
        [],
        "",
    ),
    "a larger LVM volume": (LVM, seen(sizes=Sizes(10 * GIB, 10 * GIB)), ["lvm", "grow"], ""),
    "a smaller LVM volume": (LVM, seen(sizes=Sizes(30 * GIB, 30 * GIB)), [], ""),
    "a larger LVM volume under encryption": (
        {**LVM, **KEY},
        seen(sizes=Sizes(10 * GIB - (16 << 20), 10 * GIB - (16 << 20), 10 * GIB)),
        ["lvm", "grow"],
        "",
    ),
    "encryption's own header is no room": (
        KEY,
        seen(sizes=Sizes(100 * GIB - (16 << 20), 100 * GIB - (16 << 20), 100 * GIB)),
        [],
        "",
    ),
    "options taken away by hand": ({}, seen(mount=mount("relatime")), ["remount"], ""),
    "a mount point let go of": ({}, seen(beneath=Beneath("directory", (), False)), ["mount_point"], ""),
    "a mount point that can't be protected": ({}, seen(beneath=Beneath("directory", (), None)), [], ""),
    "another read-ahead": ({"read_ahead_kb": 512}, seen(), ["queue"], ""),
    "another read-ahead of what is upon the disk": (
        {"read_ahead_kb": 128},
        seen(upper="dm-1"),
        ["queue"],
        "",
    ),
    "the same scheduler": ({"scheduler": "none"}, seen(), [], ""),
    "a move that only has to be marked as done": ({}, seen(migrating=True), ["migrated"], ""),
    "a scheduler that isn't there": (
        {"scheduler": "bfq"},
        seen(),
        [],
        "storage_volumes[ci].scheduler: 'bfq' is refused; allowed: one that the disk can have: none, mq-deadline",
    ),
    "somebody else's file system": (
        {},
        seen(superblock=Superblock("xfs", OTHER, 100 * GIB)),
        [],
        f"storage_volumes[ci].path: '/srv/ci' is refused; allowed: a path where nothing but file system {UUID} is mounted; "
        "/dev/nvme0n1 (xfs) is mounted there",
    ),
    "no file system of a device": (
        {},
        seen(superblock=None, mount=mount(kind="tmpfs", source="tmpfs")),
        [],
        "tmpfs (tmpfs) is",
    ),
    "another type": (
        {"filesystem": "ext4"},
        seen(),
        [],
        "storage_volumes[ci].filesystem: 'ext4' is refused; allowed: xfs",
    ),
    "a quota that was lifted": (
        {},
        seen(mount=mount(supers=("rw", "noquota"))),
        [],
        "is mounted without project quotas",
    ),
    "read-only after an error": ({}, seen(mount=mount("ro", "noatime")), [], "/srv/ci is mounted read-only"),
}


@pytest.mark.parametrize("name", MOUNTED)
def test_mounted(name: str) -> None:
    options, facts, steps, message = MOUNTED[name]
    found = on_mounted(planned(**options), facts, HOST)
    if message:
        assert any(message in text for text in found.refusals), found.refusals
    else:
        assert (found.refusals, found.steps) == ([], steps)


def test_a_scheduler_that_is_a_module_is_loaded_by_choosing_it() -> None:
    host = replace(HOST, kernel_has=frozenset({"xfs", "kyber-iosched"}))
    found = on_mounted(planned(scheduler="kyber"), seen(), host)
    assert (found.refusals, found.steps) == ([], ["queue"])


def test_without_udev_queues_stay_as_they_are_and_it_is_said() -> None:
    found = on_mounted(planned(read_ahead_kb=512), seen(), replace(HOST, udev=False))
    assert found.steps == [] and found.notes == [
        "udev doesn't run here, so scheduler and read-ahead stay as they are"
    ]


def test_ext4_without_the_feature_is_told_how_to_get_it() -> None:
    facts = seen(
        superblock=Superblock("ext4", UUID, 100 * GIB),
        mount=mount(kind="ext4", supers=("rw",)),
        source="/dev/sdb",
    )
    (said,) = on_mounted(planned(filesystem="ext4"), facts, HOST).refusals
    assert "tune2fs -O project,quota /dev/sdb" in said


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, f"-m crc=1,reflink=1,uuid={UUID} -n ftype=1"),
        ({"filesystem": "ext4"}, f"-U {UUID} -O extent,filetype -O project,quota -E quotatype=prjquota"),
        ({"filesystem": "ext4", "quota": False}, f"-U {UUID} -O extent,filetype"),
        ({"filesystem": "btrfs"}, f"-U {UUID}"),
        ({"device": None, "directory": "/data"}, None),
    ],
)
def test_file_systems_get_what_overlay_and_quotas_need(options: dict[str, Any], wanted: str | None) -> None:
    assert mkfs_options(planned(**options)) == wanted
