# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of the one look: devices by selector, packages, volumes that were left out, bad arguments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _storage_volume as look
from ansible_collections.matryoshka.host.plugins.module_utils._block_select import Refusal
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import MountTable
from ansible_collections.matryoshka.host.plugins.module_utils._storage_plan import plan_storage
from ansible_collections.matryoshka.host.plugins.module_utils._storage_volume_chain import Outcome

MACHINE = "0123456789abcdef0123456789abcdef"


def never(argv: Sequence[str], **_options: Any) -> Result:
    raise AssertionError(f"{argv} was started")


def planned(**options: Any) -> dict[str, Any]:
    (plan,) = plan_storage([{"name": "ci", "path": "/srv/ci", "device": {"serial": "S1"}, **options}])
    return {**plan, "uuid": "2b2b6c1e-0000-5000-8000-000000000001"}


def write(root: Path, path: str, text: str = "") -> None:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")


def params(**given: Any) -> dict[str, Any]:
    return {"volumes": [], "quotas": [], "wipe": [], "migrate": False, "remove_old": False, **given}


def test_no_volumes_need_no_look(tmp_path: Path) -> None:
    found = look.answer(params(), never, View(str(tmp_path)))
    assert (found["changed"], found["lacking"], found["refusals"]) == (False, [], [])


def test_volumes_that_were_not_planned_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "/etc/machine-id", MACHINE)
    with pytest.raises(HostError, match="give it what the filter plan_storage makes"):
        look.answer(params(volumes=[{"name": "ci", "path": "/srv/ci"}]), never, View(str(tmp_path)))


def test_a_wipe_list_is_checked_before_any_device_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"storage_wipe\[0\]\.serial: '\*' is refused"):
        look._find_devices([planned()], [{"serial": "*", "signature": "xfs"}], never, View(str(tmp_path)))


def test_nothing_is_looked_for_if_all_is_mounted(tmp_path: Path) -> None:
    assert look._find_devices([], [], never, View(str(tmp_path))) == {}
    directory = planned(device=None, directory="/data")
    assert look._find_devices([directory], [], never, View(str(tmp_path))) == {}


@pytest.mark.parametrize(
    ("options", "marks"),
    [
        ({}, []),
        ({"encrypt": {"key_file": "/etc/k"}}, ["matryoshka-ci"]),
        ({"lvm": {"vg": "data", "lv": "x"}}, ["data"]),
    ],
)
def test_a_disk_is_known_again_by_what_a_run_has_left_on_it(
    options: dict[str, Any], marks: list[str]
) -> None:
    plan = planned(**options)
    assert look._marks(plan) == [plan["uuid"], *marks]


def test_a_partition_that_a_broken_off_run_has_made_is_gone_on_with() -> None:
    disk = {"path": "/dev/sda", "partitions": ["/dev/sda1"]}
    refusal = Refusal("storage_volumes[ci].device", "not_free", "it holds gpt", ("/dev/sda",))
    labels = {"/dev/sda1": "matryoshka-ci"}
    assert look._begun(planned(partition=True), refusal, [disk], labels) == {**disk, "wipe": []}
    assert look._begun(planned(), refusal, [disk], labels) is None
    assert look._begun(planned(partition=True), refusal, [disk], {"/dev/sda1": "photos"}) is None
    more = {"path": "/dev/sda", "partitions": ["/dev/sda1", "/dev/sda2"]}
    assert look._begun(planned(partition=True), refusal, [more], labels) is None


@pytest.mark.parametrize(
    ("steps", "options", "wanted"),
    [
        (["filesystem"], {}, ["xfsprogs"]),
        (["filesystem"], {"filesystem": "btrfs"}, ["btrfs-progs"]),
        (["partition", "lvm"], {}, ["lvm2", "parted"]),
        (["encrypt"], {}, ["cryptsetup-bin", "systemd-cryptsetup"]),
        (["migrate", "mount_point"], {}, ["rsync"]),
        (["grow"], {"filesystem": "ext4"}, ["e2fsprogs"]),
        ([], {}, []),
    ],
)
def test_packages_of_steps(
    tmp_path: Path, steps: list[str], options: dict[str, Any], wanted: list[str]
) -> None:
    outcomes = {"ci": Outcome(steps=steps)}
    assert look._packages([planned(**options)], outcomes, View(str(tmp_path))) == wanted
    for path in (
        "/usr/sbin/mkfs.xfs",
        "/usr/bin/rsync",
        "/usr/sbin/parted",
        "/usr/sbin/vgs",
        "/usr/sbin/resize2fs",
    ):
        write(tmp_path, path)
    for path in (
        "/sbin/cryptsetup",
        "/lib/systemd/system-generators/systemd-cryptsetup-generator",
        "/sbin/mkfs.btrfs",
    ):
        write(tmp_path, path)
    assert look._packages([planned(**options)], outcomes, View(str(tmp_path))) == []


MOUNTED = MountTable.parse(
    "20 1 254:0 / / rw - ext4 /dev/vda rw\n21 20 7:0 / /srv/old rw - xfs /dev/loop0 rw\n"
)
OURS = "# Managed by matryoshka.host: storage\n[Mount]\nWhat=/dev/x\nWhere=/srv/old\n"


@pytest.mark.parametrize(
    ("text", "units", "refused"),
    [
        (OURS, [], True),
        (OURS, [{"name": "srv-old.mount"}], False),
        (OURS.replace("/srv/old", "/srv/gone"), [], False),
        (OURS.replace("storage", "other", 1), [], False),
        ("[Mount]\nWhere=/srv/old\n", [], False),
    ],
)
def test_a_volume_left_out_of_the_list_is_not_torn_away(
    tmp_path: Path, text: str, units: list[dict[str, Any]], refused: bool
) -> None:
    write(tmp_path, "/etc/systemd/system/srv-old.mount", text)
    found = look._left_over(units, MOUNTED, View(str(tmp_path)))
    assert bool(found) is refused
    if refused:
        assert found[0].startswith("storage_volumes: /srv/old isn't in the list any more, but is mounted")
        assert "systemctl stop 'srv-old.mount'" in found[0]


def mounts(tmp_path: Path, filesystem: str) -> MountTable:
    write(tmp_path, "/data/file")
    return MountTable.parse(f"20 1 254:0 / / rw - {filesystem} /dev/vda rw\n")


@pytest.mark.parametrize(
    ("directory", "filesystem", "message"),
    [
        ("/data/new", "ext4", ""),
        ("/data", "xfs", ""),
        ("/data/file", "ext4", "this is no directory"),
        ("/data", "overlay", "/data is on overlay"),
        ("/data/new", "tmpfs", "/data is on tmpfs"),
    ],
)
def test_directories(tmp_path: Path, directory: str, filesystem: str, message: str) -> None:
    volume = planned(device=None, directory=directory)
    found = look._directory_refusals(volume, mounts(tmp_path, filesystem), View(str(tmp_path)))
    assert bool(found) is bool(message)
    if message:
        assert found[0].startswith(
            f"storage_volumes[ci].directory: '{directory}' is refused; allowed: a directory on "
        )
        assert message in found[0]
