# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All about data roots: what is in them, what they lie on, what limits them, who holds and who sees them.

One pass over ``/proc`` for all roots. Starts no process, asks no daemon, changes nothing.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._data_root_engine import read_engine
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_holders import (
    Holder,
    Root,
    Sight,
    find_holders,
    find_sights,
    layers_in_use,
    locate,
    stat_files,
)
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_judge import (
    CODES,
    DataRoot,
    judge_root,
    owner_of,
)
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_mount import (
    Planned,
    check_wanted,
    filesystem_label,
    filesystem_uuid,
    missing_plan,
    planned_mounts,
    unmounted,
)
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_processes import (
    Owner,
    Owners,
    Processes,
    read_processes,
)
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_quota import read_quota
from ansible_collections.matryoshka.host.plugins.module_utils._device_chain import (
    chain,
    discard_path,
    disk_kind,
)
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._host_paths import read_path
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Disks, Mount, MountTable
from ansible_collections.matryoshka.host.plugins.module_utils._storage_judge import VERDICTS, check_allow
from ansible_collections.matryoshka.host.plugins.module_utils._verify_kernel import parse_locks

_HOLDER = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")
_LEFT_OUT = ("entries", "engine_markers", "stat_device", "marker", "device_number")


def answer(params: Mapping[str, Any], view: View | None = None) -> dict[str, Any]:
    """What the module returns for its parameters: ``verdict``, ``roots`` in the order given, ``unreadable``.

    :param params: ``roots`` (``path``, and maybe ``holder`` and ``mount``) and ``allow``.
    :raises InputError: for a path, holder, mount or code that can't be meant.
    """
    view = view or View()
    _check(params)
    mounts = MountTable.parse(view.text("/proc/self/mountinfo") or "")
    disks = Disks(view.root)
    plans, chains = planned_mounts(view), Chains(view, mounts)
    roots = [_look(view, given, mounts, disks, plans, chains) for given in params["roots"]]
    processes = _look_around(view, roots)
    layers = {root.path: layers_in_use(mounts, str(root.facts["real_path"])) for root in roots}
    result = []
    for root in roots:
        others = [other for other in roots if other is not root]
        verdict = judge_root(root, others, allow=params.get("allow") or ())
        result.append({**_told(view, root, mounts, layers[root.path]), **verdict.as_dict()})
    return {
        "verdict": max((one["verdict"] for one in result), key=VERDICTS.index, default="ok"),
        "roots": result,
        "unreadable": processes.unreadable,
    }


def _check(params: Mapping[str, Any]) -> None:
    check_allow(params.get("allow") or (), CODES)
    taken: set[str] = set()
    for number, given in enumerate(params["roots"]):
        label, path = f"roots[{number}]", str(given["path"])
        if not posixpath.isabs(path) or "\0" in path:
            raise InputError(f"{label}.path", path, "an absolute path")
        if posixpath.normpath(path) in taken:
            raise InputError(f"{label}.path", path, "each path once")
        taken.add(posixpath.normpath(path))
        holder, mount = given.get("holder"), given.get("mount")
        if holder is not None and not _HOLDER.match(holder):
            raise InputError(f"{label}.holder", holder, "host, or a container's name or id")
        if mount is not None:
            check_wanted(f"{label}.mount", mount)


class Chains:
    """The layers below each mount, looked at once for all roots on it."""

    def __init__(self, view: View, mounts: MountTable) -> None:
        self._view = view
        self._mounts = mounts
        self._known: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def of(self, mount: Mount) -> list[dict[str, Any]]:
        key = (mount.device, mount.source)
        if key not in self._known:
            self._known[key] = chain(self._view, mount, self._mounts)
        return self._known[key]


def _look(
    view: View,
    given: Mapping[str, Any],
    mounts: MountTable,
    disks: Disks,
    plans: Sequence[Planned],
    chains: Chains,
) -> DataRoot:
    """A root as it lies there, without those who hold it."""
    path = posixpath.normpath(given["path"])
    facts = read_path(path, view, mounts, disks)
    real = str(facts["real_path"])
    mount = mounts.of(real)
    root = DataRoot(path=path, facts=facts, expected=given.get("holder"))
    if given.get("mount"):
        root.unmounted = unmounted(view, real, mount, given["mount"])
    else:
        root.unmounted = missing_plan(plans, real, mounts)
    if mount is not None:
        root.device, root.inner = mount.device, locate(real, mount)
        root.layers = chains.of(mount)
    if root.directory:
        root.engine = read_engine(view, real)
        root.quota = read_quota(view, real, mount)
    return root


def _look_around(view: View, roots: Sequence[DataRoot]) -> Processes:
    """Put into ``roots`` who holds and who sees them."""
    owners = Owners(view, [str(root.facts["real_path"]) for root in roots])
    processes = read_processes(view, owners)
    wanted = []
    for root in roots:
        root.running = [space.owner for space in processes.others if not space.owner.host]
        if root.directory and root.device:
            files = stat_files(view, str(root.facts["real_path"]), root.engine["locked_files"])
            wanted.append(Root(root.path, root.device, root.inner, files, root.engine["engine"]))
    locks = parse_locks(view.text("/proc/locks") or "")
    holders = find_holders(view, wanted, locks, processes, owners)
    seen = find_sights(view, wanted, processes)
    for root in roots:
        root.holders = holders.get(root.path, [])
        root.sights = seen.get(root.path, [])
    return processes


def _told(view: View, root: DataRoot, mounts: MountTable, layers: frozenset[str]) -> dict[str, Any]:
    facts, engine = root.facts, root.engine
    mount = mounts.of(str(facts["real_path"]))
    owner = owner_of(root)
    here = [sight for sight in root.sights if sight.owner == owner]
    running = layers.union(*(sight.layers for sight in here))
    return {
        **{key: value for key, value in facts.items() if key not in _LEFT_OUT},
        "engine": engine.get("engine"),
        "rootless": bool(engine.get("engine") and facts["uid"]),
        **{key: engine.get(key) for key in ("engine_id", "created", "last_used", "driver")},
        "drivers": engine.get("drivers", []),
        "leftovers": engine.get("leftovers", []),
        "layers_mounted": len(running),
        "uuid": filesystem_uuid(view, mount) if mount else None,
        "label": filesystem_label(view, mount) if mount else None,
        "disk": disk_kind(root.layers, facts["filesystem"]),
        "devices": root.layers,
        "discard": {
            **discard_path(root.layers),
            "mounted": bool(mount and any(one.startswith("discard") for one in mount.super_options)),
        },
        "quota": root.quota.as_dict(),
        "expected_holder": root.expected,
        "owner": _owner(owner) if owner else None,
        "holders": [_holder(holder) for holder in root.holders],
        "seen_by": [_sight(sight, owner) for sight in _distinct(root.sights) if not sight.owner.host],
        "host_namespaces": len({sight.pid for sight in root.sights if sight.owner.host}),
    }


def _owner(owner: Owner) -> dict[str, Any]:
    return {
        "name": owner.name,
        "container": owner.ids[-1] if owner.ids else None,
        "inside": list(owner.ids[:-1]),
    }


def _holder(holder: Holder) -> dict[str, Any]:
    return {
        **_owner(holder.owner),
        "processes": [
            {"pid": pid, "name": name} for pid, name in zip(holder.pids, holder.names, strict=True)
        ],
        "unit": holder.unit or None,
        "files": list(holder.files),
        "locks": holder.locks,
    }


def _sight(sight: Sight, owner: Owner | None) -> dict[str, Any]:
    return {
        **_owner(sight.owner),
        "pid": sight.pid,
        "path": sight.path,
        "mount_point": sight.mount_point,
        "part": sight.part,
        "read_only": sight.read_only,
        "engines": list(sight.engines),
        "foreign": sight.owner != owner,
    }


def _distinct(sights: Iterable[Sight]) -> list[Sight]:
    """Sights by owner and place, each once."""
    found: dict[tuple[Any, ...], Sight] = {}
    for sight in sights:
        found.setdefault((sight.owner, sight.path, sight.part, sight.read_only), sight)
    return list(found.values())
