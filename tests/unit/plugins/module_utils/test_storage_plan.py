# SPDX-License-Identifier: GPL-3.0-or-later
"""From a list of volumes and quotas to a plan; what can't be one is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import within
from ansible_collections.matryoshka.host.plugins.module_utils._storage_plan import (
    holding,
    plan_quotas,
    plan_storage,
    volume_uuid,
)
from hypothesis import given
from hypothesis import strategies as st

NVME = {"transport": "nvme", "empty": True}
DOCKER = {"path": "/var/lib/docker", "unit": "docker.service"}


def volume(**options: Any) -> dict[str, Any]:
    return {"name": "ci", "path": "/srv/ci", "device": NVME, **options}


def test_a_device_gets_xfs_with_quotas_by_default() -> None:
    (plan,) = plan_storage([volume()])
    assert plan["filesystem"] == "xfs" and plan["quota"] is True and plan["kind"] == "device"
    assert plan["options"] == ["noatime", "nofail", "prjquota"]
    assert plan["device"] == {**NVME, "name": "storage_volumes[ci].device"}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"filesystem": "ext4"}, ["noatime", "nofail", "prjquota"]),
        ({"filesystem": "ext4", "quota": False}, ["noatime", "nofail"]),
        ({"filesystem": "btrfs"}, ["noatime", "nofail", "nodiscard"]),
        ({"filesystem": "btrfs", "discard": "continuous"}, ["noatime", "nofail", "discard=async"]),
        ({"discard": "continuous"}, ["noatime", "nofail", "prjquota", "discard"]),
        ({"mount_options": ["logbsize=256k"]}, ["noatime", "nofail", "prjquota", "logbsize=256k"]),
        ({"mount_options": "inode64,swalloc"}, ["noatime", "nofail", "prjquota", "inode64", "swalloc"]),
        ({"device": None, "directory": "/data/ci"}, ["bind", "nofail"]),
    ],
)
def test_mount_options(options: dict[str, Any], wanted: list[str]) -> None:
    assert plan_storage([volume(**options)])[0]["options"] == wanted


def test_units_are_guarded_by_the_innermost_volume_of_their_path() -> None:
    volumes: list[dict[str, Any]] = [
        {"name": "inner", "path": "/var/lib/docker", "device": NVME},
        {
            "name": "outer",
            "path": "/var/lib",
            "uuid": "0d2c9b3a-1111-4222-8333-444455556666",
            "units": ["x.service"],
        },
    ]
    runner = {"name": "ci", "directory": "/var/lib/matryoshka/runners/ci"}
    outer, inner = plan_storage(volumes, [DOCKER], [runner])
    assert (outer["name"], outer["units"]) == ("outer", ["matryoshka-runner@ci.service", "x.service"])
    assert (inner["name"], inner["units"]) == ("inner", ["docker.service"])


BAD = {
    "no list": ("x", "storage_volumes: 'x' is refused; allowed: a list of volumes"),
    "no mapping": (["x"], "storage_volumes[0]: 'x' is refused; allowed: a mapping"),
    "bad name": (
        [volume(name="CI")],
        "storage_volumes[0].name: 'CI' is refused; allowed: 1 to 32 lower-case",
    ),
    "twin": (
        [volume(), volume(path="/b")],
        "storage_volumes[1].name: 'ci' is refused; allowed: a name that no other",
    ),
    "one path twice": (
        [volume(), volume(name="b")],
        "storage_volumes[b].path: '/srv/ci' is refused; allowed: a path of its own; volume ci has it",
    ),
    "misspelt": (
        [volume(filesytem="xfs")],
        "storage_volumes[ci].filesytem: 'xfs' is refused; allowed: one of ",
    ),
    "relative": (
        [volume(path="srv")],
        "storage_volumes[ci].path: 'srv' is refused; allowed: an absolute path",
    ),
    "root": (
        [volume(path="/")],
        "storage_volumes[ci].path: '/' is refused; allowed: a folder that the system",
    ),
    "usr": (
        [volume(path="/usr")],
        "storage_volumes[ci].path: '/usr' is refused; allowed: a folder that the system",
    ),
    "blank in path": ([volume(path="/srv/a b")], "storage_volumes[ci].path: '/srv/a b' is refused"),
    "nothing to be on": ([volume(device=None)], "allowed: exactly one of device, uuid, directory and lvm"),
    "two places": ([volume(directory="/data")], "allowed: exactly one of device, uuid, directory and lvm"),
    "unknown file system": (
        [volume(filesystem="zfs")],
        "storage_volumes[ci].filesystem: 'zfs' is refused; allowed: one of xfs, ext4, btrfs",
    ),
    "selector that says nothing": ([volume(device={})], "storage_volumes[ci].device: {} is refused"),
    "selector with a typo": (
        [volume(device={"seriall": "X"})],
        "storage_volumes[ci].device.seriall: 'X' is refused; allowed: one of ",
    ),
    "selector that takes used ones": (
        [volume(device={"path": "/dev/sda", "allow_used": True})],
        "storage_volumes[ci].device.allow_used: True is refused; allowed: nothing here",
    ),
    "selector with a size that is none": (
        [volume(device={"transport": "nvme", "size_min": "big"})],
        "storage_volumes[ci].device.size_min: 'big' is refused; allowed: a size",
    ),
    "uuid that is none": (
        [volume(device=None, uuid="x")],
        "storage_volumes[ci].uuid: 'x' is refused; allowed: the UUID of a file system",
    ),
    "read-only": ([volume(mount_options=["ro"])], "storage_volumes[ci].mount_options: 'ro' is refused"),
    "noexec": ([volume(mount_options="noexec")], "this one isn't: containers can't run anything"),
    "smuggled option": ([volume(mount_options=["a\nWhat=/dev/sda"])], "storage_volumes[ci].mount_options"),
    "read-ahead that is none": (
        [volume(read_ahead_kb=-1)],
        "storage_volumes[ci].read_ahead_kb: -1 is refused; allowed: a whole number from 0",
    ),
    "unknown scheduler": (
        [volume(scheduler="cfq")],
        "storage_volumes[ci].scheduler: 'cfq' is refused; allowed: one of none",
    ),
    "unknown discard": (
        [volume(discard="often")],
        "storage_volumes[ci].discard: 'often' is refused; allowed: one of periodic",
    ),
    "unit that is none": (
        [volume(units=["docker"])],
        "storage_volumes[ci].units: 'docker' is refused; allowed: the name of",
    ),
    "encryption without a key file": (
        [volume(encrypt={"key": "12345678"})],
        "storage_volumes[ci].encrypt: '(not shown)'",
    ),
    "short key": (
        [volume(encrypt={"key_file": "/etc/k", "key": "1234"})],
        "storage_volumes[ci].encrypt.key: '(not shown)' is refused; allowed: a text of at least 8 characters",
    ),
    "LVM without a name": ([volume(lvm={"vg": "a"})], "storage_volumes[ci].lvm: {'vg': 'a'} is refused"),
    "LVM with a slash": (
        [volume(lvm={"vg": "a/b", "lv": "c"})],
        "storage_volumes[ci].lvm.vg: 'a/b' is refused",
    ),
    "LVM size that is none": (
        [volume(lvm={"vg": "a", "lv": "c", "size": "most"})],
        "storage_volumes[ci].lvm.size: 'most' is refused; allowed: a size",
    ),
    "a directory in itself": (
        [volume(device=None, directory="/srv/ci/data")],
        "storage_volumes[ci].directory: '/srv/ci/data' is refused; allowed: a directory apart from /srv/ci",
    ),
    "encrypted directory": (
        [volume(device=None, directory="/data", encrypt={"key_file": "/etc/k"})],
        "storage_volumes[ci].encrypt: {'key_file': '/etc/k'} is refused; allowed: nothing for a directory",
    ),
    "quota that is no truth": (
        [volume(quota="perhaps")],
        "storage_volumes[ci].quota: 'perhaps' is refused; allowed: true or false",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name: str) -> None:
    volumes, message = BAD[name]
    with pytest.raises(InputError) as refused:
        plan_storage(volumes)  # type: ignore[arg-type]
    assert message in str(refused.value)


def test_keys_are_in_no_message_and_no_plan() -> None:
    (plan,) = plan_storage([volume(encrypt={"key_file": "/etc/k", "key": "correct horse"})])
    assert "correct" not in repr(plan)
    assert plan["encrypt"] == {"key_file": "/etc/k", "key_given": True}


def test_lvm_sizes_are_what_lvol_takes() -> None:
    for size, wanted in (("20G", "20480m"), ("100%FREE", "100%FREE"), (None, "100%FREE")):
        lvm = {"vg": "data", "lv": "docker", "size": size}
        (plan,) = plan_storage([volume(device=None, lvm=lvm)])
        assert (plan["kind"], plan["lvm"]["size"]) == ("lvm", wanted)


def test_a_uuid_is_the_same_for_ever_and_each_host_s_own() -> None:
    # Written down: a change would make every file system that was ever made a stranger.
    assert volume_uuid("a" * 32, "docker") == "1fea474b-71cf-5f15-aa1a-b7f200b90e22"
    assert len({volume_uuid(m * 32, n) for m in "ab" for n in ("docker", "ci")}) == 4


QUOTAS = plan_storage(
    [volume(), {"name": "d", "path": "/d", "directory": "/data/d"}, volume(name="n", path="/n", quota=False)]
)


def test_quotas_of_the_list_and_of_runners() -> None:
    runners = [
        {"name": "ci", "directory": "/srv/ci/runners/ci", "limits": {"disk_bytes": 5 << 30}},
        {"name": "free", "directory": "/srv/ci/runners/free", "limits": {"disk_bytes": None}},
        {"name": "old", "directory": "/srv/ci/runners/old", "limits": {}},
    ]
    assert plan_quotas([{"path": "/srv/ci/docker", "size": "20G", "inodes": 1000}], runners, QUOTAS) == [
        {"path": "/srv/ci/docker", "size": 20 << 30, "inodes": 1000},
        {"path": "/srv/ci/runners/ci", "size": 5 << 30},
    ]


@pytest.mark.parametrize(
    ("quota", "message"),
    [
        (
            {"path": "/opt", "size": "1G"},
            "storage_quotas[0].path: '/opt' is refused; allowed: a folder on a volume",
        ),
        (
            {"path": "/d/x", "size": "1G"},
            "a folder on a volume of storage_volumes that has a file system of its own",
        ),
        ({"path": "/n/x", "size": "1G"}, "a folder on a volume with quota: true; n has quota: false"),
        ({"path": "/srv/ci", "size": "much"}, "storage_quotas[0].size: 'much' is refused; allowed: a size"),
        ({"path": "/srv/ci", "inodes": 0}, "storage_quotas[0].inodes: 0 is refused; allowed: a whole number"),
        ({"path": "/srv/ci"}, "allowed: a mapping with path, and size or inodes"),
        ({"path": "/srv/ci", "size": "1G", "hard": 1}, "storage_quotas[0].hard: 1 is refused"),
    ],
)
def test_quotas_that_cannot_be(quota: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        plan_quotas([quota], [], QUOTAS)
    assert message in str(refused.value)


def test_a_runner_s_limit_needs_a_volume() -> None:
    runner = {"name": "ci", "directory": "/home/ci", "limits": {"disk_bytes": 1 << 30}}
    with pytest.raises(InputError, match=r"runner_runners\[ci\]\.disk: '/home/ci' is refused"):
        plan_quotas([], [runner], QUOTAS)


PARTS = st.lists(st.sampled_from(["srv", "srvx", "a", "b"]), min_size=1, max_size=4).map(
    lambda p: "/" + "/".join(p)
)


@given(st.lists(PARTS, unique=True, min_size=1, max_size=5), PARTS)
def test_what_holds_a_path_is_the_longest_prefix_by_whole_names(paths: list[str], path: str) -> None:
    plan = [{"path": one} for one in paths]
    found = holding(plan, path)
    inside = [one for one in paths if f"{path}/".startswith(f"{one}/")]
    assert (found or {"path": None})["path"] == (max(inside, key=len) if inside else None)
    assert all(within(one, path) == (one in inside) for one in paths)


@given(st.permutations(["/srv/a", "/srv/a/b", "/srv/c", "/d"]))
def test_outer_paths_are_mounted_first_whatever_the_order(paths: list[str]) -> None:
    plan = plan_storage([volume(name=f"v{i}", path=path) for i, path in enumerate(paths)])
    order = [one["path"] for one in plan]
    assert order.index("/srv/a") < order.index("/srv/a/b") and sorted(order) == sorted(paths)
