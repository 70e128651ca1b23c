# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All block devices of a host with what is on them and who uses them, read in one go.

Nothing is written. udev needn't run: what it would tell is read from sysfs then.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _block_content as on_device
from ansible_collections.matryoshka.host.plugins.module_utils._block_identity import identity
from ansible_collections.matryoshka.host.plugins.module_utils._block_judge import (
    NOT_DISKS,
    check_wipe,
    judge_device,
)
from ansible_collections.matryoshka.host.plugins.module_utils._block_probe import Probe, Touched, touch
from ansible_collections.matryoshka.host.plugins.module_utils._block_select import (
    Picked,
    pick_devices,
)
from ansible_collections.matryoshka.host.plugins.module_utils._block_selector import BY_ID, Selector
from ansible_collections.matryoshka.host.plugins.module_utils._block_usage import read_usage, writers
from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View

_UNTOUCHED = Touched()


def read_devices(
    run: Runner,
    *,
    wipe: Sequence[Mapping[str, str]] = (),
    view: View | None = None,
    probe: Probe = touch,
) -> list[dict[str, Any]]:
    """Every block device that has a size, partitions behind their disks.

    :param wipe: what may be given up; it decides which devices are asked whether they can be had.
    """
    view = view or View()
    found = _identities(view)
    usage = read_usage(view, {one["number"]: one["name"] for one in found if one["number"]})
    readable = [one for one in found if one["node"] and one["kind"] not in NOT_DISKS]
    touched = _touch(probe, readable, claim=False)
    opened = [one["path"] for one in readable if touched[one["name"]].opened]
    signatures = on_device.read_signatures(run, opened)
    signed = [one for said in signatures.values() if not isinstance(said, HostError) for one in said]
    groups = on_device.read_volume_groups(run, signed)
    for one in found:
        name = one["name"]
        said = signatures.get(one["path"], ())
        ends = touched.get(name, _UNTOUCHED)
        one |= _content(() if isinstance(said, HostError) else said, groups)
        one |= {
            "blank": None if one["content"] else ends.blank,
            "error": ends.error
            or (f"it can't be looked at: {said}" if isinstance(said, HostError) else None),
            "mounts": usage.mounts.get(name, []),
            "swap": name in usage.swaps,
            "holders": usage.holders.get(name, []),
            "system": name in usage.system,
            "writers": [],
            "busy": None,
        }
    _ask_candidates(view, found, wipe, probe)
    for one in found:
        one |= judge_device(one, wipe, found).as_dict()
    return found


def _identities(view: View) -> list[dict[str, Any]]:
    links = _links(view)
    found = []
    for name in sorted(view.names("/sys/class/block"), key=_natural):
        one = identity(view, name)
        if not one["size_bytes"] or (view.text(f"/sys/class/block/{name}/hidden") or "").strip() == "1":
            continue
        mapped = [f"/dev/mapper/{one['mapper_name']}"] if one["mapper_name"] else []
        paths = sorted({*links.get(one["path"], ()), *mapped})
        by_id = {path.removeprefix(BY_ID) for path in paths if path.startswith(BY_ID)}
        holders = view.names(f"/sys/class/block/{name}/holders")
        uuids = [view.text(f"/sys/class/block/{holder}/dm/uuid") or "" for holder in holders]
        one |= {
            "ids": sorted({*one["ids"], *by_id}),
            "links": paths,
            "node": view.exists(one["path"]),
            "slaves": view.names(f"/sys/class/block/{name}/slaves"),
            "multipath_leg": any(uuid.startswith("mpath-") for uuid in uuids),
        }
        found.append(one)
    for one in found:
        inner = [part["path"] for part in found if part["disk"] == one["name"] and part is not one]
        one["partitions"] = inner if one["partition"] is None else []
    return found


def _links(view: View) -> dict[str, list[str]]:
    """The links that udev and LVM have made to each device."""
    found: dict[str, list[str]] = {}
    folders = [f"/dev/disk/{name}" for name in view.names("/dev/disk")]
    folders += ["/dev/mapper"]
    for folder in folders:
        for name in view.names(folder):
            path = f"{folder}/{name}"
            if view.link(path) is not None:
                found.setdefault(view.real(path), []).append(path)
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts ``nvme2n1`` before ``nvme10n1``."""
    return [(int(part or 0), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _content(signatures: Sequence[on_device.Signature], groups: Mapping[str, str]) -> dict[str, Any]:
    return {
        "signatures": [signature.as_dict() for signature in signatures],
        "content": on_device.types(signatures),
        "shown": on_device.show_signatures(signatures),
        "filesystem": on_device.filesystem(signatures),
        "members": on_device.members(signatures, groups),
    }


def _touch(probe: Probe, devices: Sequence[Mapping[str, Any]], *, claim: bool) -> dict[str, Touched]:
    def ask(one: Mapping[str, Any]) -> Touched:
        return probe(one["path"], one["size_bytes"], one["number"], claim=claim)

    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip([one["name"] for one in devices], pool.map(ask, devices), strict=True))


def _ask_candidates(
    view: View, found: list[dict[str, Any]], wipe: Sequence[Mapping[str, str]], probe: Probe
) -> None:
    """Ask the kernel and the processes about the devices that would be free otherwise, and only them.

    Opening a device exclusively keeps others from it for an instant, so what is of no interest is left alone.
    """
    candidates = [one for one in found if judge_device(one, wipe, found).free]
    open_in = writers(view, {one["path"]: one["name"] for one in candidates})
    inner = [
        part
        for one in candidates
        for part in found
        if part["disk"] == one["disk"] and part["partition"] is not None and one["partition"] is None
    ]
    open_in |= writers(view, {part["path"]: part["name"] for part in inner})
    claims = _touch(probe, candidates, claim=True)
    for one in [*candidates, *inner]:
        claim = claims.get(one["name"], _UNTOUCHED)
        one["writers"] = open_in.get(one["name"], [])
        one["busy"], one["error"] = claim.busy, claim.error or one["error"]


def same_device(view: View, first: str, second: str) -> bool:
    """Whether two paths lead to one block device, through links and whatever the nodes are called."""
    if view.real(first) == view.real(second):
        return True
    numbers = []
    for path in (first, second):
        try:
            found = os.stat(view.path(path)).st_rdev
        except OSError:
            return False
        numbers.append(found)
    return numbers[0] == numbers[1] != 0


def answer(
    params: Mapping[str, Any], run: Runner, *, view: View | None = None, probe: Probe = touch
) -> dict[str, Any]:
    """What the module returns: ``devices``, ``selected``, ``refusals``.

    :raises InputError: for a selector or a wipe list that can't be one; nothing was looked at then.
    """
    chosen = params.get("select") or []
    for number, value in enumerate(chosen):
        if not isinstance(value, Mapping):
            raise InputError(f"select[{number}]", value, "a dictionary")
    selectors = [Selector.parse(value, f"select[{number}]") for number, value in enumerate(chosen)]
    wipe = check_wipe(params.get("wipe") or [])
    devices = read_devices(run, wipe=wipe, view=view, probe=probe)
    picked, refusals = pick_devices(selectors, devices, wipe)
    return {
        "devices": devices,
        "selected": {name: _selected(one) for name, one in picked.items()},
        "refusals": [refusal.as_dict() for refusal in refusals],
    }


def _selected(picked: Picked) -> dict[str, Any]:
    return {**picked.device, **picked.verdict.as_dict(), "own": picked.own}
