# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose data a directory holds: engine, age, graph drivers that left something, files that are locked.

Sources of facts: what Docker (moby daemon/), containerd (plugins/), BuildKit (cmd/buildkitd, worker/)
and Podman (containers/storage, libpod) make in their roots; statx(2) for the time of birth.
"""

from __future__ import annotations

import ctypes
import fnmatch
import os
import posixpath
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View

DOCKER = frozenset(
    {"buildkit", "containers", "engine-id", "image", "network", "plugins", "runtimes", "swarm", "volumes"}
)
PODMAN = frozenset({"libpod", "storage.lock", "db.sql", "defaultNetworkBackend"})
PODMAN_FOLDERS = ("*-images", "*-layers", "*-containers")
SNAPSHOTTER = "io.containerd.snapshotter.v1."

LOCKED = (
    "volumes/metadata.db",
    "network/files/local-kv.db",
    "buildkit/*.db",
    "buildkit/*/*.db",
    "containerd/daemon/io.containerd.metadata.v1.bolt/meta.db",
    "containerd/daemon/io.containerd.snapshotter.v1.*/metadata.db",
    "io.containerd.metadata.v1.bolt/meta.db",
    "io.containerd.snapshotter.v1.*/metadata.db",
    "buildkitd.lock",
    "*.db",
    "runc-*/*.db",
    "containerd-*/*.db",
    "libpod/bolt_state.db",
    "db.sql",
    "storage.lock",
    "*-layers/layers.lock",
    "*-images/images.lock",
    "*-containers/containers.lock",
)
"""Files that engines lock: bbolt with flock(2), SQLite and Podman's storage with fcntl(2)."""

_DRIVERS = (
    ("overlay2", "overlay2", ("l", "backingFsBlockDev")),
    ("vfs", "vfs/dir", ()),
    ("btrfs", "btrfs/subvolumes", ()),
    ("fuse-overlayfs", "fuse-overlayfs", ("l",)),
    ("zfs", "zfs/graph", ()),
    ("devicemapper", "devicemapper/metadata", ("base", "deviceset-metadata", "transaction-metadata")),
    ("aufs", "aufs/diff", ()),
    ("overlay", "overlay", ("l", "backingFsBlockDev", "staging", "tempdirs")),
)
"""Graph drivers, the folder of their layers, and what in it is no layer."""

_BIRTH = 0x800
_AT_CURRENT = -100


def read_engine(view: View, root: str) -> dict[str, Any]:
    """What the directory ``root`` (without links) says of the engine that it belongs to.

    Times are seconds since the epoch: ``created`` of the oldest thing in it, ``last_used`` of the
    newest change of a thing that an engine writes while it runs.
    """
    names = view.names(root)
    kind = engine_kind(names)
    drivers = read_drivers(view, root, kind)
    locked = locked_files(view, root)
    return {
        "engine": kind,
        "engine_id": (view.text(posixpath.join(root, "engine-id")) or "").strip() or None,
        **read_age(view, root, [*names, *locked]),
        "drivers": drivers,
        "driver": next((one["driver"] for one in drivers if one["current"]), None),
        "leftovers": [one["driver"] for one in drivers if not one["current"] and one["entries"]],
        "locked_files": locked,
    }


def engine_kind(names: Iterable[str]) -> str | None:
    """``docker``, ``podman``, ``containerd``, ``buildkit``; None for a directory that shows no engine."""
    found = set(names)
    if len(DOCKER & found) >= 2:
        return "docker"
    if PODMAN & found or _matching(found, PODMAN_FOLDERS):
        return "podman"
    if _matching(found, ("io.containerd.*",)):
        return "containerd"
    if "buildkitd.lock" in found or (_matching(found, ("runc-*", "containerd-*")) and "cache.db" in found):
        return "buildkit"
    return None


def read_age(view: View, root: str, names: Sequence[str]) -> dict[str, int | None]:
    """``created`` and ``last_used`` of what is called ``names`` in a root."""
    places = [view.path(posixpath.join(root, name)) for name in names if name != "lost+found"]
    births = [time for path in places if (time := birth(path)) is not None]
    changes = [time for path in places if (time := _changed(path)) is not None]
    return {"created": min(births, default=None), "last_used": max(changes, default=None)}


def birth(path: str) -> int | None:
    """When a file was made; when it was changed last if the file system doesn't keep that."""
    buffer = ctypes.create_string_buffer(256)
    try:
        call = ctypes.CDLL(None).statx
        failed = call(_AT_CURRENT, os.fsencode(path), 0x100, ctypes.c_uint(_BIRTH), buffer)
    except (AttributeError, ValueError):
        return _changed(path)
    if failed or not struct.unpack_from("=I", buffer)[0] & _BIRTH:
        return _changed(path)
    return int(struct.unpack_from("=q", buffer, 80)[0])


def read_drivers(view: View, root: str, kind: str | None) -> list[dict[str, Any]]:
    """The graph drivers and snapshotters that have a folder in a root.

    ``entries`` counts layers, not bytes. ``current`` is the one that was used last, of those that hold
    something; whichever an engine would choose today is for the engine to say.
    """
    found = list(_snapshotters(view, root))
    if kind in ("docker", "podman"):
        for driver, folder, not_layers in _DRIVERS:
            place = posixpath.join(root, folder)
            used = [place, f"{root}/image/{driver}", f"{root}/{driver}-layers", f"{root}/{driver}-images"]
            if view.exists(posixpath.join(root, driver)) or view.exists(used[1]):
                layers = [name for name in view.names(place) if name not in not_layers and name[0] != "."]
                found.append(_driver(view, driver, folder, len(layers), used))
    holding = [one for one in found if one["entries"]] or found
    newest = max(holding, key=lambda one: one["last_used"], default=None)
    return [{**one, "current": one is newest} for one in found]


def _snapshotters(view: View, root: str) -> Iterable[dict[str, Any]]:
    for above in ("", "containerd/daemon/"):
        for name in view.names(posixpath.join(root, above)):
            if name.startswith(SNAPSHOTTER):
                place = posixpath.join(root, above, name)
                snapshots = view.names(f"{place}/snapshots")
                if snapshots:
                    driver = name.removeprefix(SNAPSHOTTER)
                    used = [f"{place}/snapshots", f"{place}/metadata.db"]
                    yield _driver(view, driver, above + name, len(snapshots), used)


def _driver(view: View, driver: str, folder: str, entries: int, used: Iterable[str]) -> dict[str, Any]:
    last = max((time for path in used if (time := _changed(view.path(path))) is not None), default=0)
    return {"driver": driver, "path": folder, "entries": entries, "last_used": last}


def locked_files(view: View, root: str) -> list[str]:
    """The files of :data:`LOCKED` that are there, relative to ``root``."""
    found: list[str] = []
    for pattern in LOCKED:
        found += _glob(view, root, pattern)
    return list(dict.fromkeys(found))


def _glob(view: View, root: str, pattern: str) -> list[str]:
    """Paths below ``root`` that match, without following what isn't a plain name of a folder."""
    here = [""]
    for part in pattern.split("/"):
        if any(sign in part for sign in "*?["):
            here = [
                posixpath.join(above, name)
                for above in here
                for name in fnmatch.filter(view.names(posixpath.join(root, above)), part)
            ]
        else:
            here = [posixpath.join(above, part) for above in here]
            here = [path for path in here if view.exists(posixpath.join(root, path))]
    return here


def _matching(names: Iterable[str], patterns: Iterable[str]) -> bool:
    found = list(names)
    return any(fnmatch.filter(found, pattern) for pattern in patterns)


def _changed(path: str) -> int | None:
    try:
        return int(os.lstat(path).st_mtime)
    except (OSError, ValueError):
        return None
