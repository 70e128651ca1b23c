# SPDX-License-Identifier: GPL-3.0-or-later
"""Each selector gets the one device that it means, or a refusal that names the candidates."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._block_judge import overlap
from ansible_collections.matryoshka.host.plugins.module_utils._block_select import pick_devices
from ansible_collections.matryoshka.host.plugins.module_utils._block_selector import Selector
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from hypothesis import given
from hypothesis import strategies as st
from support.block_devices import GIB, device, partition, signature

MOUNT = {"mount_point": "/srv", "pid": None, "process": None}


def nvme(number: int, **changes: Any) -> dict[str, Any]:
    return device(f"nvme{number}n1", transport="nvme", size_bytes=400 * GIB, **changes)


SYSTEM = nvme(0, signatures=[signature("gpt", usage="partition-table")], system=True)
ROOT = partition(
    SYSTEM, 1, signatures=[signature("ext4", uuid="root")], mounts=[{**MOUNT, "mount_point": "/"}]
)
BIG = device("sda", rotational=True, size_bytes=4000 * GIB, signatures=[signature("xfs", label="old")])
HOST = [SYSTEM, ROOT, nvme(1), BIG]


def want(name: str = "v", **keys: Any) -> Selector:
    return Selector.parse({"name": name, **keys})


def pick(
    selectors: list[Selector], devices: list[dict[str, Any]], wipe: list[dict[str, str]] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Paths by selector, and codes of refusals by selector."""
    picked, refusals = pick_devices(selectors, devices, wipe or [])
    return {name: one.device["path"] for name, one in picked.items()}, {
        one.name: one.code for one in refusals
    }


def text(selector: Selector, devices: list[dict[str, Any]]) -> str:
    refusals = pick_devices([selector], devices)[1]
    assert len(refusals) == 1
    return refusals[0].text


def test_the_one_empty_nvme_disk() -> None:
    assert pick([want(transport="nvme", empty=True)], HOST) == ({"v": "/dev/nvme1n1"}, {})


def test_no_match_names_what_comes_near() -> None:
    said = text(want(transport="nvme", size_min="1T", empty=True), HOST)
    assert said == (
        "v: 'transport: nvme, size_min: 1T, empty: true' is refused; allowed: what fits a device; none does: "
        "/dev/nvme0n1 (nvme, 400 GiB, serial S-nvme0n1, gpt): it has 400 GiB, less than 1 TiB; "
        "/dev/nvme1n1 (nvme, 400 GiB, serial S-nvme1n1, empty): it has 400 GiB, less than 1 TiB; "
        "/dev/sda (sata, 3.9 TiB, serial S-sda, xfs 'old'): its transport is sata"
    )


def test_two_matches_are_both_named() -> None:
    said = text(want(transport="nvme", empty=True), [nvme(1), nvme(2)])
    assert said == (
        "v: 'transport: nvme, empty: true' is refused; allowed: what fits one device; 2 fit: "
        "/dev/nvme1n1 (nvme, 400 GiB, serial S-nvme1n1, empty), "
        "/dev/nvme2n1 (nvme, 400 GiB, serial S-nvme2n1, empty)"
    )
    refusal = pick_devices([want(transport="nvme", empty=True)], [nvme(1), nvme(2)])[1][0]
    assert refusal.as_dict() == {
        "name": "v",
        "code": "several",
        "text": said,
        "candidates": ["/dev/nvme1n1", "/dev/nvme2n1"],
    }


def test_many_matches_are_counted() -> None:
    said = text(want(transport="nvme"), [nvme(number) for number in range(11)])
    assert "11 fit" in said and said.endswith("and 3 more")


@pytest.mark.parametrize(
    ("keys", "devices", "code", "message"),
    [
        (
            {"path": "/dev/sdz"},
            HOST,
            "no_match",
            "allowed: a device that has a size; there is none at /dev/sdz",
        ),
        ({"transport": "usb", "empty": True}, [], "no_match", "there is none of that kind"),
        ({"transport": "nvme"}, HOST, "several", "2 fit"),
        (
            {"serial": "S-sda"},
            HOST,
            "not_free",
            "/dev/sda (sata, 3.9 TiB, serial S-sda, xfs 'old') is not: it holds",
        ),
        ({"path": "/dev/nvme0n1"}, HOST, "not_free", "the host itself runs from it"),
        ({"path": "/dev/nvme0n1p1"}, HOST, "not_free", "it is mounted on /"),
        ({"rotational": True, "empty": True}, HOST, "not_free", "it holds xfs 'old'"),
        ({"transport": "nvme", "empty": True}, [SYSTEM, ROOT], "not_free", "the host itself runs from it"),
        (
            {"empty": True, "size_min": "1G"},
            [SYSTEM, ROOT, BIG],
            "none_free",
            "those that fit aren't free: /dev/nvme0n1",
        ),
        ({"serial": "S-sda", "size_min": "5T"}, HOST, "no_match", "it has 3.9 TiB, less than 5 TiB"),
    ],
)
def test_refusals(keys: dict[str, Any], devices: list[dict[str, Any]], code: str, message: str) -> None:
    selector = want(**keys)
    assert pick([selector], devices) == ({}, {"v": code})
    said = text(selector, devices)
    assert said.startswith(f"v: '{selector.given}' is refused; allowed: ")
    assert message in said


def test_a_wipe_list_lets_a_signed_device_be_picked() -> None:
    picked = pick_devices(
        [want(rotational=True, empty=True)], HOST, [{"serial": "S-sda", "signature": "xfs"}]
    )[0]
    assert (picked["v"].device["path"], picked["v"].verdict.wipe) == ("/dev/sda", ("xfs",))


def test_whoever_only_looks_may_pick_what_is_used() -> None:
    assert pick([want(path="/dev/nvme0n1p1", allow_used=True)], HOST) == ({"v": "/dev/nvme0n1p1"}, {})


@pytest.mark.parametrize("turn", [1, -1])
def test_who_has_one_choice_goes_first(turn: int) -> None:
    selectors = [want("rest", transport="nvme", empty=True), want("named", serial="S-nvme1n1")][::turn]
    assert pick(selectors, [nvme(1), nvme(2)]) == ({"named": "/dev/nvme1n1", "rest": "/dev/nvme2n1"}, {})


def test_three_in_a_chain() -> None:
    selectors = [
        want("c", transport="nvme", empty=True),
        want("b", transport="nvme", size_max="400G", empty=True),
        want("a", id="one"),
    ]
    devices = [nvme(1, ids=["one"]), nvme(2), device("nvme3n1", transport="nvme", size_bytes=800 * GIB)]
    assert pick(selectors, devices)[0] == {"a": "/dev/nvme1n1", "b": "/dev/nvme2n1", "c": "/dev/nvme3n1"}


def test_two_that_want_the_same() -> None:
    selectors = [want("a", serial="S-nvme1n1"), want("b", path="/dev/nvme1n1")]
    picked, refusals = pick_devices(selectors, HOST)
    assert picked == {}
    assert [one.code for one in refusals] == ["taken", "taken"]
    assert refusals[0].text.endswith(
        "a device of its own; /dev/nvme1n1 (nvme, 400 GiB, serial S-nvme1n1, empty) is that of b"
    )


def test_a_disk_and_its_partition() -> None:
    disk = nvme(1, signatures=[signature("gpt", usage="partition-table")])
    selectors = [want("disk", path="/dev/nvme1n1"), want("part", path="/dev/nvme1n1p1")]
    wipe = [{"serial": "S-nvme1n1", "signature": "gpt"}]
    assert pick(selectors, [disk, partition(disk, 1)], wipe) == ({}, {"disk": "taken", "part": "taken"})
    two = [want("one", path="/dev/nvme1n1p1"), want("two", path="/dev/nvme1n1p2")]
    every = [disk, partition(disk, 1), partition(disk, 2)]
    assert pick(two, every)[0] == {"one": "/dev/nvme1n1p1", "two": "/dev/nvme1n1p2"}


def test_any_takes_the_smallest_free_one_and_leaves_the_rest() -> None:
    devices = [nvme(1), nvme(2), device("nvme3n1", transport="nvme", size_bytes=GIB, swap=True)]
    selectors = [want("a", transport="nvme", required="any"), want("b", transport="nvme", required="any")]
    assert pick(selectors, devices) == ({"a": "/dev/nvme1n1", "b": "/dev/nvme2n1"}, {})
    third = want("c", transport="nvme", required="any")
    assert pick([*selectors, third], devices)[1] == {"c": "not_free"}


OURS = nvme(2, signatures=[signature("xfs", uuid="u-1", label="engine")], mounts=[MOUNT])


@pytest.mark.parametrize("mark", ["u-1", "engine"])
def test_what_is_ours_already_is_the_one(mark: str) -> None:
    selector = want(transport="nvme", empty=True, own=[mark, "other"])
    picked = pick_devices([selector], [*HOST, OURS])[0]["v"]
    assert (picked.device["path"], picked.own, picked.verdict.free) == ("/dev/nvme2n1", True, False)


def test_ours_is_nobody_else_s() -> None:
    selectors = [
        want("new", transport="nvme", empty=True),
        want("old", transport="nvme", empty=True, own=["u-1"]),
    ]
    assert pick(selectors, [*HOST, OURS])[0] == {"new": "/dev/nvme1n1", "old": "/dev/nvme2n1"}
    wipe = [{"serial": "S-nvme2n1", "signature": "xfs"}]
    free = {**OURS, "mounts": []}
    assert pick(selectors, [*HOST, free], wipe)[0] == {"new": "/dev/nvme1n1", "old": "/dev/nvme2n1"}
    named = [want("thief", serial="S-nvme2n1"), selectors[1]]
    assert pick(named, [*HOST, free], wipe) == ({"old": "/dev/nvme2n1"}, {"thief": "taken"})


@pytest.mark.parametrize("mark", ["u-2", "engines", "part-name", "u-3"])
def test_a_mark_on_a_partition_or_above_it(mark: str) -> None:
    disk = nvme(3, signatures=[signature("gpt", usage="partition-table")])
    member = [{"kind": "lvm", "uuid": "u-2", "name": "engines"}]
    lvm = [signature("LVM2_member", uuid="u-2")]
    inner = partition(disk, 1, signatures=lvm, members=member, partition_label="part-name")
    volume = device(
        "dm-0", kind="lvm", transport=None, slaves=[inner["name"]], signatures=[signature("xfs", uuid="u-3")]
    )
    every = [*HOST, disk, inner, volume]
    assert pick([want(transport="nvme", empty=True, own=[mark])], every) == ({"v": "/dev/nvme3n1"}, {})
    by_partition = want(transport="nvme", partitions=True, empty=True, own=[mark])
    assert pick([by_partition], every) == ({"v": "/dev/nvme3n1p1"}, {})


def test_ours_elsewhere_is_refused() -> None:
    selector = want(serial="S-nvme1n1", own=["u-1"])
    assert pick([selector], [*HOST, OURS]) == ({}, {"v": "elsewhere"})
    assert "the device that carries its own mark, which is /dev/nvme2n1" in text(selector, [*HOST, OURS])
    assert "its serial is S-nvme2n1" in text(selector, [*HOST, OURS])


def test_two_copies_of_ours_are_refused() -> None:
    copy = nvme(4, signatures=[signature("xfs", uuid="u-1")])
    selector = want(transport="nvme", empty=True, own=["u-1"])
    assert pick([selector], [*HOST, OURS, copy]) == ({}, {"v": "several"})


def test_one_mark_for_two_owners() -> None:
    selectors = [want("a", empty=True, own=["u-1"]), want("b", empty=True, own=["u-1"])]
    assert pick(selectors, [*HOST, OURS]) == ({"a": "/dev/nvme2n1"}, {"b": "taken"})


def test_two_selectors_of_one_name() -> None:
    with pytest.raises(InputError, match=r"select.name: 'v' is refused; allowed: a name of its own"):
        pick_devices([want(empty=True), want(empty=True)], HOST)


KEYS = st.fixed_dictionaries(
    {},
    optional={
        "transport": st.sampled_from(["nvme", "sata"]),
        "serial": st.sampled_from(["S-nvme1n1", "S-sd*", "S-sda", "*"]),
        "size_min": st.sampled_from(["1G", "100G", "400G"]),
        "own": st.lists(st.sampled_from(["u-1", "u-2"]), max_size=1),
        "partitions": st.booleans(),
    },
).map(lambda keys: {"empty": True, **keys})


@st.composite
def hosts(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for name in draw(st.lists(st.sampled_from(["nvme1n1", "nvme2n1", "sda", "sdb"]), unique=True)):
        marks = draw(st.sampled_from([None, "u-1", "u-2"]))
        disk = device(
            name,
            transport="nvme" if name.startswith("nvme") else "sata",
            size_bytes=draw(st.sampled_from([50, 100, 400])) * GIB,
            signatures=[signature("xfs", uuid=marks)] if marks else [],
            mounts=draw(st.sampled_from([[], [], [MOUNT]])),
        )
        found.append(disk)
        if not marks and draw(st.booleans()):
            found += [partition(disk, number) for number in (1, 2)]
    return found


@given(st.lists(KEYS, max_size=4), hosts(), st.randoms())
def test_nobody_gets_what_is_used_or_another_s(
    keys: list[dict[str, Any]], devices: list[dict[str, Any]], random: Any
) -> None:
    selectors = [want(f"v{number}", **each) for number, each in enumerate(keys)]
    picked, refusals = pick_devices(selectors, devices)
    assert sorted([*picked, *(one.name for one in refusals)]) == sorted(one.name for one in selectors)
    for one in picked.values():
        assert one.own or one.verdict.free
    chosen = [one.device for one in picked.values()]
    assert not any(overlap(one, other) for n, one in enumerate(chosen) for other in chosen[n + 1 :])
    for refusal in refusals:
        assert refusal.text.startswith(f"{refusal.name}: ")
        assert set(refusal.candidates) <= {each["path"] for each in devices}
    shuffled = random.sample(selectors, len(selectors))
    owned = [one.own for one in selectors if one.own]
    if len(owned) == len(set(owned)):
        assert {name: one.device["name"] for name, one in pick_devices(shuffled, devices)[0].items()} == {
            name: one.device["name"] for name, one in picked.items()
        }
