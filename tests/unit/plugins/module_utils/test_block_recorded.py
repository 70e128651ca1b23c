# SPDX-License-Identifier: GPL-3.0-or-later
"""A recorded host with NVMe, LUKS, LVM and udev: what is told of it is what lsblk told there."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._block import answer
from ansible_collections.matryoshka.host.plugins.module_utils._block_content import PVS, WIPEFS
from ansible_collections.matryoshka.host.plugins.module_utils._block_probe import Touched
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View

RECORDED = json.loads(
    (Path(__file__).parents[2] / "fixtures" / "block" / "vm-debian13-host.json").read_text()
)


def write(root: Path, path: str, text: str) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode("latin-1"))


def link(root: Path, path: str, target: str) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    absolute = root / target.lstrip("/")
    os.symlink(os.path.relpath(absolute, file.parent) if target.startswith("/") else target, file)


@pytest.fixture
def view(tmp_path: Path) -> View:
    for name, found in RECORDED["devices"].items():
        place = found["directory"]
        for path, text in found["files"].items():
            write(tmp_path, f"{place}/{path}", text)
        for path, text in found.get("device_files", {}).items():
            write(tmp_path, f"{found['device']}/{path}", text)
        if "device" in found:
            link(tmp_path, f"{place}/device", found["device"])
        for folder in ("holders", "slaves"):
            for other in found[folder]:
                link(tmp_path, f"{place}/{folder}/{other}", RECORDED["devices"][other]["directory"])
        link(tmp_path, f"/sys/class/block/{name}", place)
        link(tmp_path, f"/sys/dev/block/{found['files']['dev'].strip()}", place)
        write(tmp_path, f"/dev/{name}", "")
    for path, target in RECORDED["links"].items():
        link(tmp_path, path, target)
    for number, text in RECORDED["udev"].items():
        write(tmp_path, f"/run/udev/data/b{number}", text)
    write(tmp_path, "/proc/1/mountinfo", RECORDED["mountinfo"])
    write(tmp_path, "/proc/swaps", RECORDED["swaps"])
    return View(str(tmp_path))


def programs(
    argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
) -> Result:
    if tuple(argv) == PVS:
        return Result(0, json.dumps(RECORDED["pvs"]))
    if tuple(argv[: len(WIPEFS)]) == WIPEFS:
        return Result(0, json.dumps(RECORDED["wipefs"]))
    return Result(127, "", f"{argv[0]}: not found")


def blank(path: str, size: int, number: str | None, *, claim: bool = False) -> Touched:
    return Touched(busy=False) if claim else Touched(blank=True)


def ask(view: View, *select: dict[str, Any], **more: Any) -> dict[str, Any]:
    return answer({"select": list(select), **more}, programs, view=view, probe=blank)


def test_identity_and_content_as_lsblk_had_them(view: View) -> None:
    lsblk = {
        one["kname"]: one for one in RECORDED["lsblk"]["blockdevices"] if not one["kname"].startswith("loop")
    }
    found = {one["name"]: one for one in ask(view)["devices"]}
    assert set(found) == set(lsblk)
    for name, one in found.items():
        other = lsblk[name]
        said = [other[key] for key in ("maj:min", "size", "ro", "rm", "rota", "log-sec", "phy-sec")]
        keys = ("number", "size_bytes", "read_only", "removable", "rotational")
        assert [one[key] for key in (*keys, "logical_block_bytes", "physical_block_bytes")] == said
        assert one["disk"] == (other["pkname"] if other["type"] == "part" else name)
        if one["partition"] is None:
            assert [one[key] for key in ("model", "serial", "wwn", "vendor", "transport")] == [
                (other[key] or "").strip() or None for key in ("model", "serial", "wwn", "vendor", "tran")
            ]
        kinds = {"part": "partition"}
        assert one["kind"] == kinds.get(other["type"], other["type"])
        assert [mount["mount_point"] for mount in one["mounts"]] == [
            point for point in other["mountpoints"] if point
        ]
        system = one["filesystem"] or {}
        if name != "sr0" and one["content"] != ["gpt"]:
            shown = system.get("type") or (one["content"] or [None])[0]
            assert (shown, system.get("label")) == (other["fstype"], other["label"])


def test_names_that_udev_made_are_those_that_would_be_made(view: View) -> None:
    found = {one["name"]: one["ids"] for one in ask(view)["devices"]}
    made: dict[str, list[str]] = {}
    for path, target in RECORDED["links"].items():
        if path.startswith("/dev/disk/by-id/"):
            made.setdefault(os.path.basename(target), []).append(os.path.basename(path))
    assert {name: sorted(names) for name, names in made.items()} == {
        name: ids for name, ids in found.items() if ids
    }


def test_only_disks_without_anything_are_free(view: View) -> None:
    found = ask(view)["devices"]
    assert [one["name"] for one in found if one["free"]] == ["nvme0n1", "nvme1n1", "nvme3n1"]
    reasons = {one["name"]: [reason["text"] for reason in one["reasons"]] for one in found}
    assert reasons["vda"] == [
        "the host itself runs from it",
        "it is mounted on /",
        "it holds ext4 'root'",
    ]
    assert reasons["nvme2n1"][:2] == [
        "its partition /dev/nvme2n1p1: it is a part of /dev/mapper/dr-crypt",
        "its partition /dev/nvme2n1p2: it is mounted on /mnt/dr-ext4",
    ]


@pytest.mark.parametrize("mark", ["a", "drvg", "dr-xfs", "409d2939-9f1f-4c16-b1a2-f826b9a4b290"])
def test_ours_through_luks_and_lvm(view: View, mark: str) -> None:
    found = ask(view, {"name": "v", "transport": "nvme", "empty": True, "own": [mark]})
    assert (found["selected"]["v"]["path"], found["selected"]["v"]["own"]) == ("/dev/nvme2n1", True)


def test_three_that_fit_are_named(view: View) -> None:
    found = ask(view, {"name": "v", "transport": "nvme", "empty": True})
    assert found["refusals"][0]["candidates"] == ["/dev/nvme0n1", "/dev/nvme1n1", "/dev/nvme3n1"]
    assert (
        "/dev/nvme3n1 (nvme, 3 GiB, model QEMU NVMe Ctrl, serial MATRYOSHKA3, empty)"
        in found["refusals"][0]["text"]
    )


def test_in_use_is_never_given_up(view: View) -> None:
    wipe = [{"serial": "MATRYOSHKA4", "signature": kind} for kind in ("gpt", "ext4", "crypto_LUKS")]
    found = ask(view, {"name": "v", "id": "nvme-QEMU_NVMe_Ctrl_MATRYOSHKA4"}, wipe=wipe)
    assert "it is a part of /dev/mapper/dr-crypt" in found["refusals"][0]["text"]
