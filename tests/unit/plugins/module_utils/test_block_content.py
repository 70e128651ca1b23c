# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on a block device: recorded outputs of wipefs and pvs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._block_content import (
    PVS,
    WIPEFS,
    Signature,
    filesystem,
    members,
    parse_pvs,
    parse_wipefs,
    read_signatures,
    read_volume_groups,
    show_signatures,
    types,
)
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from hypothesis import given
from hypothesis import strategies as st
from support import table

FIXTURES = Path(__file__).parents[2] / "fixtures" / "block"
RECORDED = ["wipefs-2.38.1.json", "wipefs-2.41.5.json"]
EXT4 = Signature(0x438, "ext4", "filesystem", "11111111-2222-3333-4444-555555555555", "data")


def recorded(name: str) -> dict[str, tuple[Signature, ...]]:
    return parse_wipefs((FIXTURES / name).read_text())


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_signatures(name: str) -> None:
    found = recorded(name)
    assert {device: types(signatures) for device, signatures in found.items()} == {
        "ext4": ["ext4"],
        "xfs": ["xfs"],
        "btrfs-a": ["btrfs"],
        "btrfs-b": ["btrfs"],
        "swap": ["swap"],
        "lvm": ["LVM2_member"],
        "luks": ["crypto_LUKS"],
        "gpt": ["gpt"],
        "mbr": ["dos"],
        "iso": ["iso9660"],
        "gpt-backup": ["gpt"],
        "mbr-over-ext4": ["dos", "ext4"],
    }
    assert found["ext4"] == (EXT4,)
    assert [signature.offset for signature in found["gpt"]] == [0x1FE, 0x200, 0x12BFFE00]
    assert [signature.offset for signature in found["gpt-backup"]] == [0x12BFFE00]


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize(
    ("device", "kind", "label", "shown"),
    [
        ("ext4", "ext4", "data", "ext4 'data'"),
        ("xfs", "xfs", "engine", "xfs 'engine'"),
        ("btrfs-b", "btrfs", "pool", "btrfs 'pool'"),
        ("iso", "iso9660", "Debian 13 amd64", "iso9660 'Debian 13 amd64'"),
        ("mbr-over-ext4", None, None, "dos, ext4"),
        ("swap", None, None, "swap 'swap'"),
        ("gpt", None, None, "gpt"),
        ("luks", None, None, "crypto_LUKS"),
    ],
)
def test_the_file_system(name: str, device: str, kind: str | None, label: str | None, shown: str) -> None:
    signatures = recorded(name)[device]
    found = filesystem(signatures)
    assert (found["type"], found["label"]) == (kind, label) if found else kind is None
    assert show_signatures(signatures) == shown


def test_several_magic_numbers_are_one_file_system_and_leftovers_are_not() -> None:
    found = recorded("derived-wipefs-2.41-members.json")
    assert filesystem(found["sdd1"]) == {"type": "vfat", "uuid": "A1B2-C3D4", "label": "EFI"}
    assert filesystem(found["sdf3"]) is None
    assert show_signatures(found["sdf3"]) == "btrfs 'HDDPool-data', zfs_member 'bakpool4'"
    assert types(recorded("derived-wipefs-2.36.json")["nvme0n1"]) == ["gpt"]


def test_members() -> None:
    groups = parse_pvs((FIXTURES / "pvs-2.03.31.json").read_text())
    lvm = recorded("wipefs-2.41.5.json")["lvm"]
    uuid = "o4SdGj-ip19-RUQF-PVNs-Ni9V-J98E-8EWQvy"
    assert members(lvm, groups) == [{"kind": "lvm", "uuid": uuid, "name": "engines"}]
    assert members(lvm, {}) == [{"kind": "lvm", "uuid": uuid, "name": None}]
    luks = members(recorded("wipefs-2.41.5.json")["luks"], {})
    assert [member["kind"] for member in luks] == ["luks"]
    found = {name: members(said, {}) for name, said in recorded("derived-wipefs-2.41-members.json").items()}
    assert {name: [(one["kind"], one["name"]) for one in said] for name, said in found.items()} == {
        "sdf3": [("zfs", "bakpool4")],
        "sda1": [("raid", "ci:0")],
        "sdb": [("ceph", None)],
        "sdc": [("bcache", None)],
        "sdd1": [],
    }


@pytest.mark.parametrize(
    "text", ["wipefs: unknown", "[]", "{}", '{"signatures": [{"device": "sda"}]}', "null"]
)
def test_what_is_not_wipefs_json(text: str) -> None:
    with pytest.raises(HostError, match="wipefs said what can't be read"):
        parse_wipefs(text)


def test_nothing_at_all() -> None:
    assert parse_wipefs("") == {}
    assert parse_wipefs('{\n   "signatures": [\n\n   ]\n}\n') == {}


@pytest.mark.parametrize(
    "text", ["", "{}", '{"report": []}', "WARNING", '{"report": [{"pv": [{"pv_uuid": "a"}]}]}']
)
def test_pvs_without_an_answer(text: str) -> None:
    assert parse_pvs(text) == {}


def test_one_process_for_all() -> None:
    text = (FIXTURES / "derived-wipefs-2.36.json").read_text()
    paths = ["/dev/nvme0n1", "/dev/nvme1n1", "/dev/sda"]
    found = read_signatures(table({(*WIPEFS, *paths): text}), paths)
    assert found["/dev/sda"] == ()
    assert found["/dev/nvme1n1"] == (EXT4,)
    assert read_signatures(table({}), []) == {}


def test_each_by_itself_if_one_spoils_it() -> None:
    bad = Result(1, "", "wipefs: error: /dev/sdb: probing initialization failed: Input/output error\n")
    one = json.dumps({"signatures": [{"device": "sda", "offset": "0x438", "type": "ext4"}]})
    answers: dict[tuple[str, ...], Result | str] = {
        (*WIPEFS, "/dev/sda", "/dev/sdb"): bad,
        (*WIPEFS, "/dev/sda"): one,
        (*WIPEFS, "/dev/sdb"): bad,
    }
    found = read_signatures(table(answers), ["/dev/sda", "/dev/sdb"])
    assert found["/dev/sda"] == (Signature(0x438, "ext4"),)
    assert "/dev/sdb: probing initialization failed: Input/output error" in str(found["/dev/sdb"])


def test_without_wipefs_nothing_is_known() -> None:
    found = read_signatures(table({}), ["/dev/sda"])
    assert isinstance(found["/dev/sda"], HostError)
    assert "not found" in str(found["/dev/sda"])


def test_lvm_is_asked_only_about_its_own() -> None:
    asked: list[Sequence[str]] = []

    def run(
        argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        asked.append(argv)
        return Result(0, (FIXTURES / "pvs-2.03.31.json").read_text())

    assert read_volume_groups(run, [EXT4]) == {}
    assert asked == []
    assert list(read_volume_groups(run, [Signature(0x218, "LVM2_member")]).values()) == ["engines"]
    assert asked == [PVS]


SIGNATURES = st.builds(
    Signature,
    offset=st.integers(min_value=0, max_value=1 << 44),
    type=st.sampled_from(["ext4", "xfs", "gpt", "PMBR", "dos", "zfs_member", "crypto_LUKS"]),
    usage=st.sampled_from(["filesystem", "raid", "other", "partition-table", None]),
    uuid=st.none() | st.uuids().map(str),
    label=st.none() | st.text(min_size=1, max_size=8),
)


@given(st.lists(SIGNATURES, max_size=6))
def test_no_signature_is_lost(signatures: list[Signature]) -> None:
    text = json.dumps(
        {"signatures": [{**one.as_dict(), "offset": hex(one.offset), "device": "sda"} for one in signatures]}
    )
    found = parse_wipefs(text).get("sda", ())
    assert set(found) == set(signatures)
    assert bool(types(found)) is bool(signatures)
    assert filesystem(found) is None or len(types(found)) == 1
