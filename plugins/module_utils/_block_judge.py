# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a block device is free, and if not, why. Pure.

A device is free if nobody uses it and nothing is on it. What is on it, but never a use, is lifted
by a wipe list that names the device's exact serial and every signature that is really there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._block_content import is_type
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._sizes import show_size

DATA = "data"
"""Stands in a wipe list for content without a signature that is known."""

TABLE = "partition-table"
NOT_DISKS = frozenset({"rom", "floppy"})


@dataclass(frozen=True)
class Reason:
    """Why a device isn't free. ``code`` is one of :data:`IN_USE` or :data:`CONTENT`."""

    code: str
    text: str


IN_USE = (
    "not_a_disk",
    "no_size",
    "read_only",
    "no_node",
    "error",
    "system",
    "mounted",
    "swap",
    "held",
    "open",
    "busy",
)
CONTENT = ("signed", "partitioned")


@dataclass(frozen=True)
class Verdict:
    """``wipe``: kinds of signatures that are on it and that a wipe list gives up."""

    free: bool
    reasons: tuple[Reason, ...] = ()
    wipe: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        reasons = [asdict(reason) for reason in self.reasons]
        return {"free": self.free, "reasons": reasons, "wipe": list(self.wipe)}


def check_wipe(wipe: Iterable[Any], variable: str = "wipe") -> list[dict[str, str]]:
    """The entries of a wipe list.

    :raises InputError: for an entry without an exact serial or without a signature.
    """
    checked = []
    for number, entry in enumerate(wipe):
        place = f"{variable}[{number}]"
        if not isinstance(entry, Mapping) or set(entry) != {"serial", "signature"}:
            raise InputError(place, entry, "a dictionary of serial and signature")
        serial, signature = str(entry["serial"] or "").strip(), str(entry["signature"] or "").strip()
        if not serial or set(serial) & set("*?"):
            raise InputError(f"{place}.serial", entry["serial"], "one device's exact serial, not a pattern")
        if not is_type(signature):
            allowed = f"a signature as wipefs names it, such as ext4 or gpt, or {DATA} for what has none"
            raise InputError(f"{place}.signature", entry["signature"], allowed)
        checked.append({"serial": serial, "signature": signature})
    return checked


def overlap(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two devices have blocks in common: they are one, or one is a partition of the other."""
    if first["number"] == second["number"] and first["number"] is not None:
        return True
    if first["disk"] != second["disk"]:
        return False
    return first["name"] == second["name"] or None in (first["partition"], second["partition"])


def judge_device(
    device: Mapping[str, Any],
    wipe: Iterable[Mapping[str, str]] = (),
    devices: Sequence[Mapping[str, Any]] = (),
) -> Verdict:
    """Whether ``device`` may be formatted.

    :param wipe: ``serial`` and ``signature`` of what may be given up, as :func:`check_wipe` returns it.
    :param devices: all devices, for the partitions and the disk of this one.
    """
    related = [one for one in devices if one["name"] != device["name"] and overlap(device, one)]
    uses = [*_uses(device), *(reason for one in related for reason in _related_uses(device, one))]
    content = _content(device, related)
    given_up = _given_up(device, content, wipe, devices) if content else None
    if content and given_up is not None:
        hint = "" if uses else f"; {given_up}"
        uses.append(Reason("signed", _holds(device, related) + hint))
    elif not content and device["partition"] is None and related:
        text = "the kernel knows partitions on it although there is no partition table"
        uses.append(Reason("partitioned", f"{text}; blockdev --rereadpt lets it look again"))
    return Verdict(not uses, tuple(uses), tuple(content) if not uses else ())


def _content(device: Mapping[str, Any], related: Iterable[Mapping[str, Any]]) -> list[str]:
    """Kinds of signatures on a device and what overlaps it, ``data`` for what has none."""
    found: set[str] = set()
    for one in [device, *related]:
        found |= set(_kinds(device, one))
        if not one["content"] and one["blank"] is False and _within(device, one):
            found.add(DATA)
    return sorted(found)


def _kinds(device: Mapping[str, Any], one: Mapping[str, Any]) -> list[str]:
    """The kinds on ``one`` that are the device's too: of a partition's disk, all but its table."""
    if _within(device, one):
        return list(one["content"])
    tables = {signature["type"] for signature in one["signatures"] if signature["usage"] == TABLE}
    return [kind for kind in one["content"] if kind not in tables]


def _within(device: Mapping[str, Any], one: Mapping[str, Any]) -> bool:
    return device["name"] == one["name"] or device["partition"] is None


def _holds(device: Mapping[str, Any], related: Iterable[Mapping[str, Any]]) -> str:
    parts = [f"it holds {_shown(device)}"] if _shown(device) else []
    for one in related:
        if _within(device, one) and _shown(one):
            parts.append(f"its partition {one['path']} holds {_shown(one)}")
        elif _kinds(device, one):
            parts.append(f"its disk {one['path']} holds {', '.join(_kinds(device, one))}")
    return " and ".join(parts)


def _shown(device: Mapping[str, Any]) -> str:
    if device["content"]:
        return str(device["shown"])
    return "data without a known signature" if device["blank"] is False else ""


def _uses(device: Mapping[str, Any]) -> list[Reason]:
    found = []
    if device["kind"] in NOT_DISKS:
        found.append(Reason("not_a_disk", f"it is a {device['kind']} drive"))
    elif not device["size_bytes"]:
        found.append(Reason("no_size", "it has no size: nothing is attached or put in"))
    elif not device["node"]:
        found.append(Reason("no_node", f"there is no {device['path']}"))
    if device["read_only"]:
        found.append(Reason("read_only", "it is read-only"))
    if device["error"]:
        found.append(Reason("error", device["error"]))
    if device["system"] and device["partition"] is None:
        found.append(Reason("system", "the host itself runs from it"))
    if device["mounts"]:
        found.append(Reason("mounted", f"it is mounted on {_places(device['mounts'])}"))
    if device["swap"]:
        found.append(Reason("swap", "it is used as swap"))
    if device["holders"]:
        found.append(Reason("held", f"it is a part of {', '.join(device['holders'])}"))
    if device["writers"]:
        found.append(Reason("open", f"it is open for writing in {', '.join(device['writers'])}"))
    if device["busy"]:
        found.append(Reason("busy", "the kernel says that it is in use, perhaps in another container"))
    return found


def _related_uses(device: Mapping[str, Any], other: Mapping[str, Any]) -> list[Reason]:
    """Uses of a device's partition, or of the disk that a partition is on, that are uses of itself too."""
    codes = ("mounted", "swap", "held", "open") if other["partition"] is None else IN_USE[3:]
    kind = "disk" if other["partition"] is None else "partition"
    return [
        Reason(reason.code, f"its {kind} {other['path']}: {reason.text}")
        for reason in _uses(other)
        if reason.code in codes and not (device["partition"] is None and reason.code == "no_node")
    ]


def _places(mounts: Sequence[Mapping[str, Any]]) -> str:
    texts = []
    for mount in mounts[:3]:
        where = f" in the mount namespace of {mount['process']} ({mount['pid']})" if mount["pid"] else ""
        texts.append(mount["mount_point"] + where)
    more = len(mounts) - len(texts)
    return ", ".join(texts) + (f" and {more} more" if more > 0 else "")


def _given_up(
    device: Mapping[str, Any],
    content: Sequence[str],
    wipe: Iterable[Mapping[str, str]],
    devices: Sequence[Mapping[str, Any]],
) -> str | None:
    """Why the wipe list doesn't give up all that is on the device; None if it does."""
    serial = device["serial"]
    if not serial:
        return "it has no serial by which a wipe list could name it"
    listed = {entry["signature"] for entry in wipe if entry["serial"] == serial}
    wanted = ", ".join(f"{{serial: {serial}, signature: {kind}}}" for kind in content)
    if not listed:
        return f"only a wipe list with {wanted} gives that up"
    twins = [
        one["path"]
        for one in devices
        if one["serial"] == serial and one["partition"] is None and one["disk"] != device["disk"]
        if not one["multipath_leg"]
    ]
    if twins:
        return f"the wipe list names its serial, but {', '.join(twins)} has the same one"
    missing = [kind for kind in content if kind not in listed]
    if missing:
        named = ", ".join(sorted(listed))
        return f"the wipe list names its serial with {named}, but not with {', '.join(missing)}"
    return None


def describe(device: Mapping[str, Any]) -> str:
    """A device for a person: ``/dev/nvme0n1 (nvme, 400.0 GiB, model X, serial Y, ext4 'data')``."""
    words = [
        device["transport"] or device["kind"],
        show_size(device["size_bytes"]),
        f"model {device['model']}" if device["model"] else "",
        f"serial {device['serial']}" if device["serial"] else "",
        _shown(device) or ("empty" if device["blank"] else ""),
        f"mounted on {_places(device['mounts'])}" if device["mounts"] else "",
    ]
    return f"{device['path']} ({', '.join(word for word in words if word)})"
