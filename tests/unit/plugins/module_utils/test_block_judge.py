# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a device is free: uses that nothing lifts, content that an exact wipe list gives up."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._block_judge import (
    CONTENT,
    IN_USE,
    check_wipe,
    describe,
    judge_device,
    overlap,
)
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from hypothesis import given
from hypothesis import strategies as st
from support.block_devices import device, partition, signature

MOUNT = {"mount_point": "/srv", "pid": None, "process": None}
FAR = {"mount_point": "/data", "pid": 77, "process": "dockerd"}


def wipe(*kinds: str, serial: str = "S-sda") -> list[dict[str, str]]:
    return [{"serial": serial, "signature": kind} for kind in kinds]


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"kind": "rom"}, "not_a_disk", "it is a rom drive"),
        ({"size_bytes": 0}, "no_size", "it has no size"),
        ({"node": False}, "no_node", "there is no /dev/sda"),
        ({"read_only": True}, "read_only", "it is read-only"),
        ({"error": "it can't be read: Input/output error"}, "error", "it can't be read: Input/output error"),
        ({"system": True}, "system", "the host itself runs from it"),
        ({"mounts": [MOUNT]}, "mounted", "it is mounted on /srv"),
        ({"mounts": [FAR]}, "mounted", "it is mounted on /data in the mount namespace of dockerd (77)"),
        ({"mounts": [MOUNT] * 5}, "mounted", "it is mounted on /srv, /srv, /srv and 2 more"),
        ({"swap": True}, "swap", "it is used as swap"),
        ({"holders": ["/dev/md0"]}, "held", "it is a part of /dev/md0"),
        ({"writers": ["qemu (5)"]}, "open", "it is open for writing in qemu (5)"),
        ({"busy": True}, "busy", "the kernel says that it is in use, perhaps in another container"),
    ],
)
def test_a_use_is_never_lifted(changes: dict[str, Any], code: str, text: str) -> None:
    used = device("sda", signatures=[signature("ext4")], **changes)
    verdict = judge_device(used, wipe("ext4"), [used])
    assert not verdict.free and verdict.wipe == ()
    assert [reason.code for reason in verdict.reasons] == [code]
    assert text in verdict.reasons[0].text
    assert code in IN_USE


def test_an_empty_device_is_free() -> None:
    assert judge_device(device("sda")).free
    assert judge_device(device("sda"), wipe("ext4")).wipe == ()


@pytest.mark.parametrize(
    ("listed", "text"),
    [
        ([], "only a wipe list with {serial: S-sda, signature: dos}, {serial: S-sda, signature: ext4} gives"),
        (wipe("ext4", "dos", serial="S-SDA"), "only a wipe list with"),
        (wipe("ext4", "dos", serial="S-sd"), "only a wipe list with"),
        (wipe("ext4"), "the wipe list names its serial with ext4, but not with dos"),
        (wipe("xfs"), "the wipe list names its serial with xfs, but not with dos, ext4"),
    ],
)
def test_a_signature_that_no_list_gives_up(listed: list[dict[str, str]], text: str) -> None:
    signed = device("sda", signatures=[signature("dos"), signature("ext4", label="data")])
    verdict = judge_device(signed, listed, [signed])
    assert [reason.code for reason in verdict.reasons] == ["signed"] and "signed" in CONTENT
    assert verdict.reasons[0].text.startswith("it holds dos, ext4 'data'; ")
    assert text in verdict.reasons[0].text


def test_a_list_that_says_what_is_there() -> None:
    signed = device("sda", signatures=[signature("dos"), signature("ext4")])
    verdict = judge_device(signed, wipe("ext4", "dos", "xfs"), [signed])
    assert (verdict.free, verdict.wipe) == (True, ("dos", "ext4"))


def test_without_a_serial_nothing_is_given_up() -> None:
    signed = device("sda", serial=None, signatures=[signature("ext4")])
    verdict = judge_device(signed, [{"serial": "None", "signature": "ext4"}], [signed])
    assert "it has no serial by which a wipe list could name it" in verdict.reasons[0].text


def test_two_disks_with_one_serial() -> None:
    signed = device("sda", serial="0001", signatures=[signature("ext4")])
    twin = device("sdb", serial="0001")
    verdict = judge_device(signed, wipe("ext4", serial="0001"), [signed, twin])
    assert "names its serial, but /dev/sdb has the same one" in verdict.reasons[0].text
    part = partition(signed, 1)
    assert judge_device(signed, wipe("ext4", serial="0001"), [signed, part]).free


def test_data_without_a_signature() -> None:
    odd = device("sda", blank=False)
    assert "it holds data without a known signature" in judge_device(odd).reasons[0].text
    assert judge_device(odd, wipe("data")).wipe == ("data",)


def test_a_disk_with_partitions() -> None:
    disk = device("sda", signatures=[signature("gpt", usage="partition-table")])
    inner = partition(disk, 2, signatures=[signature("xfs", label="old")])
    empty = partition(disk, 1)
    every = [disk, empty, inner]
    text = judge_device(disk, wipe("gpt"), every).reasons[0].text
    assert text.startswith("it holds gpt and its partition /dev/sda2 holds xfs 'old'; ")
    assert text.endswith("names its serial with gpt, but not with xfs")
    assert judge_device(disk, wipe("gpt", "xfs"), every).wipe == ("gpt", "xfs")
    assert judge_device(empty, [], every).free
    used = partition(disk, 2, mounts=[MOUNT])
    verdict = judge_device(disk, wipe("gpt"), [disk, used])
    assert [reason.text for reason in verdict.reasons] == ["its partition /dev/sda2: it is mounted on /srv"]


def test_partitions_that_only_the_kernel_knows() -> None:
    disk = device("sda")
    verdict = judge_device(disk, [], [disk, partition(disk, 1)])
    assert [reason.code for reason in verdict.reasons] == ["partitioned"] and "partitioned" in CONTENT


@pytest.mark.parametrize(
    ("changes", "free", "text"),
    [
        ({"signatures": [signature("gpt", usage="partition-table")]}, True, ""),
        (
            {"signatures": [signature("linux_raid_member")]},
            False,
            "its disk /dev/sda holds linux_raid_member",
        ),
        ({"holders": ["/dev/md0"]}, False, "its disk /dev/sda: it is a part of /dev/md0"),
        ({"mounts": [MOUNT]}, False, "its disk /dev/sda: it is mounted on /srv"),
        ({"system": True}, True, ""),
    ],
)
def test_a_partition_and_its_disk(changes: dict[str, Any], free: bool, text: str) -> None:
    disk = device("sda", **changes)
    part = partition(disk, 3)
    verdict = judge_device(part, [], [disk, part])
    assert verdict.free is free
    assert any(text in reason.text for reason in verdict.reasons) or free


def test_overlap() -> None:
    first, second = device("sda"), device("sdb")
    one, two = partition(first, 1), partition(first, 2)
    assert overlap(first, first) and overlap(first, one) and overlap(two, first) and overlap(one, one)
    assert not overlap(one, two) and not overlap(first, second) and not overlap(one, second)
    assert overlap({**first, "name": "other", "disk": "other"}, first)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("S1", r"storage_wipe\[1\]: 'S1' is refused; allowed: a dictionary of serial and signature"),
        ({"serial": "S1"}, r"storage_wipe\[1\]: \{'serial': 'S1'\} is refused; allowed: a dictionary"),
        (
            {"serial": "S1", "signature": "ext4", "force": True},
            "allowed: a dictionary of serial and signature",
        ),
        (
            {"serial": "", "signature": "ext4"},
            r"storage_wipe\[1\].serial: '' is refused; allowed: one device's",
        ),
        ({"serial": "S*", "signature": "ext4"}, r"serial: 'S\*' is refused; allowed: .* not a pattern"),
        (
            {"serial": "S1", "signature": ""},
            r"storage_wipe\[1\].signature: '' is refused; allowed: a signature",
        ),
        (
            {"serial": "S1", "signature": "*"},
            r"signature: '\*' is refused; allowed: a signature as wipefs names",
        ),
    ],
)
def test_wipe_lists_that_are_refused(entry: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_wipe([{"serial": "S0", "signature": "LVM2_member"}, entry], "storage_wipe")


def test_a_serial_of_digits() -> None:
    assert check_wipe([{"serial": 123, "signature": "ext4"}]) == [{"serial": "123", "signature": "ext4"}]


def test_describe() -> None:
    found = device(
        "sda", model="SSD X", transport="nvme", signatures=[signature("xfs", label="e")], mounts=[MOUNT]
    )
    assert describe(found) == "/dev/sda (nvme, 100 GiB, model SSD X, serial S-sda, xfs 'e', mounted on /srv)"
    assert describe(device("sda", serial=None)) == "/dev/sda (sata, 100 GiB, empty)"


KINDS = st.sampled_from(["ext4", "xfs", "gpt", "dos", "LVM2_member", "data"])


@given(
    st.sets(KINDS.filter(lambda kind: kind != "data"), min_size=1),
    st.sets(KINDS),
    st.sampled_from(["S-sda", "S"]),
)
def test_free_only_if_all_that_is_there_is_named(present: set[str], listed: set[str], serial: str) -> None:
    signed = device("sda", signatures=[signature(kind) for kind in present])
    verdict = judge_device(signed, wipe(*listed, serial=serial), [signed])
    assert verdict.free is (serial == "S-sda" and present <= listed)
    assert set(verdict.wipe) == (present if verdict.free else set())
