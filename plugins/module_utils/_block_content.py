# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on a block device: signatures, the file system, the pool it is a member of, or nothing.

Signatures are found by ``wipefs --no-act`` (util-linux), which knows more places than ``blkid``:
several signatures on one device, and the second partition table at the end of a disk whose
beginning was overwritten.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._command import Result, Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError

WIPEFS = (
    "wipefs",
    "--no-act",
    "--json",
    "--output",
    "DEVICE,OFFSET,TYPE,USAGE,UUID,LABEL",
)
# --readonly takes no lock and writes no cache.
PVS = ("pvs", "--readonly", "--reportformat", "json", "--options", "pv_name,vg_name,pv_uuid")
MEMBERS = {
    "LVM2_member": "lvm",
    "LVM1_member": "lvm",
    "linux_raid_member": "raid",
    "isw_raid_member": "raid",
    "ddf_raid_member": "raid",
    "crypto_LUKS": "luks",
    "BitLocker": "bitlocker",
    "bcache": "bcache",
    "zfs_member": "zfs",
    "ceph_bluestore": "ceph",
    "drbd": "drbd",
    "mpath_member": "multipath",
    "stratis": "stratis",
    "VDO": "vdo",
    "vmfs_volume_member": "vmfs",
    "oracleasm": "oracleasm",
}
"""Signatures of devices that are a part of something else, or closed, and what that is."""

_PROBE_SECONDS = 30.0


@dataclass(frozen=True, order=True)
class Signature:
    """One magic number: ``usage`` is filesystem, raid, crypto, partition-table or other."""

    offset: int
    type: str
    usage: str | None = None
    uuid: str | None = None
    label: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def parse_wipefs(text: str) -> dict[str, tuple[Signature, ...]]:
    """Signatures of each device (the kernel's name), by offset. A device without any isn't among them.

    :raises HostError: for text that isn't wipefs' JSON.
    """
    found: dict[str, set[Signature]] = {}
    try:
        for entry in json.loads(text)["signatures"] if text.strip() else []:
            signature = Signature(
                int(str(entry["offset"]), 0),
                entry["type"],
                entry.get("usage"),
                entry.get("uuid") or None,
                entry.get("label") or None,
            )
            found.setdefault(posixpath.basename(entry["device"]), set()).add(signature)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HostError(f"wipefs said what can't be read: {text[:200]!r}") from error
    return {name: tuple(sorted(signatures, key=_order)) for name, signatures in found.items()}


def _order(signature: Signature) -> tuple[int, str]:
    return signature.offset, signature.type


def read_signatures(run: Runner, paths: Sequence[str]) -> dict[str, tuple[Signature, ...] | HostError]:
    """Signatures of each path; an error for one that can't be looked at.

    One process for all. If a device spoils that, each is asked by itself.
    """
    if not paths:
        return {}
    whole = _signatures(run([*WIPEFS, *paths], check=False, timeout=_PROBE_SECONDS))
    if not isinstance(whole, HostError):
        return {path: whole.get(posixpath.basename(path), ()) for path in paths}
    if len(paths) == 1:
        return {paths[0]: whole}

    def ask(path: str) -> tuple[Signature, ...] | HostError:
        return read_signatures(run, [path])[path]

    with ThreadPoolExecutor(max_workers=min(8, len(paths))) as pool:
        return dict(zip(paths, pool.map(ask, paths), strict=True))


def _signatures(result: Result) -> dict[str, tuple[Signature, ...]] | HostError:
    said = (result.err or result.out).strip()
    if not result.ok or said.startswith("wipefs: error:"):
        return HostError(said.rpartition("\n")[2] or f"wipefs ended with {result.code}")
    try:
        return parse_wipefs(result.out)
    except HostError as error:
        return error


def parse_pvs(text: str) -> dict[str, str]:
    """The volume group of each physical volume, by the UUID of the latter; those in none are left out."""
    try:
        rows = json.loads(text)["report"][0]["pv"]
        return {row["pv_uuid"]: row["vg_name"] for row in rows if row["vg_name"]}
    except (ValueError, KeyError, IndexError, TypeError):
        return {}


def read_volume_groups(run: Runner, signatures: Iterable[Signature]) -> dict[str, str]:
    """As :func:`parse_pvs`; asks LVM only if one of ``signatures`` is its own."""
    if not any(signature.type == "LVM2_member" for signature in signatures):
        return {}
    return parse_pvs(run(PVS, check=False, timeout=_PROBE_SECONDS).out)


def filesystem(signatures: Iterable[Signature]) -> dict[str, Any] | None:
    """The type, UUID and label of the one file system; None if there is none, or more than that."""
    found = {(one.usage, one.type, one.uuid, one.label) for one in signatures}
    if len(found) != 1:
        return None
    usage, kind, uuid, label = found.pop()
    return {"type": kind, "uuid": uuid, "label": label} if usage == "filesystem" else None


def members(signatures: Iterable[Signature], groups: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the device is a member of: ``kind``, ``uuid`` and ``name`` (volume group, array, pool)."""
    found = []
    for signature in signatures:
        kind = MEMBERS.get(signature.type)
        name = groups.get(signature.uuid or "") if kind == "lvm" else signature.label
        entry = {"kind": kind, "uuid": signature.uuid, "name": name}
        if kind and entry not in found:
            found.append(entry)
    return found


def types(signatures: Iterable[Signature]) -> list[str]:
    """The kinds of signatures, sorted. The protective table of a GPT is a part of it."""
    found = {signature.type for signature in signatures}
    return sorted(found - {"PMBR"} if "gpt" in found else found)


def show_signatures(signatures: Sequence[Signature]) -> str:
    """Signatures for a person: ``ext4 'data'`` or ``dos, ext4``."""
    texts = []
    for kind in types(signatures):
        labels = {signature.label for signature in signatures if signature.type == kind and signature.label}
        texts.append(" ".join([kind, *(repr(label) for label in sorted(labels))]))
    return ", ".join(texts)


def is_type(text: str) -> bool:
    """Whether ``text`` can be the kind of a signature, as wipefs writes it."""
    return bool(re.match(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", text))
