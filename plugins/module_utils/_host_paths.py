# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies at a path: type, file system, disk, content, and whose it is.

Source of facts: lstat(2), statvfs(3), mountinfo, and the marker file ``.matryoshka``.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Disks, Mount, MountTable

MARKER = ".matryoshka"
ENTRIES_SHOWN = 256
ENGINE_MARKERS = (
    "overlay2",
    "fuse-overlayfs",
    "vfs",
    "btrfs",
    "zfs",
    "devicemapper",
    "image",
    "containers",
    "containerd",
    "volumes",
    "network",
    "buildkit",
    "engine-id",
    "overlay",
    "overlay-images",
    "overlay-layers",
    "storage.lock",
    "libpod",
)
"""Names that Docker, containerd or Podman make in their data root."""


def read_path(path: str, view: View, mounts: MountTable, disks: Disks) -> dict[str, Any]:
    """Facts about ``path``; of a path that doesn't exist, the file system's are those of ``mounted_on``.

    ``mounted_on`` is the path itself, or what exists nearest above it.

    ``type`` is ``file``, ``directory``, ``symlink`` (with ``target_type``), ``other`` or ``absent``;
    ``empty`` doesn't count ``lost+found`` and is None for what isn't a directory; sizes are bytes.
    """
    real = view.real(path)
    kind = _type(view, path)
    base = real
    while not view.exists(base) and base != "/":
        base = os.path.dirname(base)
    names = view.names(real)
    target = _type(view, real)
    return {
        "path": path,
        "real_path": real,
        "exists": view.exists(path),
        "type": kind,
        "target_type": target,
        "empty": (not [name for name in names if name != "lost+found"]) if target == "directory" else None,
        "entries": names[:ENTRIES_SHOWN],
        "engine_markers": [name for name in ENGINE_MARKERS if name in names],
        "marker": read_marker(view, real),
        **_identity(view, real),
        "mounted_on": base,
        "mounted_on_type": _type(view, base),
        **describe_location(base, view, mounts, disks),
    }


def describe_location(
    path: str, view: View, mounts: MountTable, disks: Disks, root: Mount | None = None
) -> dict[str, Any]:
    """File system, mount, disk and room of ``path``, which exists and has no symbolic links.

    :param root: the mount that counts as the root disk; None: that on ``/`` of ``mounts``.
    """
    mount = mounts.of(path)
    root = root or mounts.of("/")
    return {
        **describe_mount(mount, disks),
        "on_root_disk": bool(mount and root and disks.shared(mount, root)),
        "on_root_filesystem": bool(mount and root and mount.device == root.device),
        **_room(view.path(path)),
    }


def describe_mount(mount: Mount | None, disks: Disks) -> dict[str, Any]:
    """A mount as a return value. ``device`` is the block device behind it or None."""
    if mount is None:
        return {
            "filesystem": None,
            "mount_point": None,
            "source": None,
            "options": [],
            "read_only": False,
            "device": None,
            "device_number": None,
        }
    return {
        "filesystem": mount.filesystem,
        "mount_point": mount.mount_point,
        "source": mount.source,
        "options": list(mount.options),
        "read_only": mount.read_only,
        "device": disks.device(mount),
        "device_number": mount.device,
    }


def read_marker(view: View, directory: str) -> Mapping[str, Any] | None:
    """The content of the ownership mark in ``directory``; ``{}`` for one that isn't a JSON object."""
    text = view.text(os.path.join(directory, MARKER))
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _type(view: View, path: str) -> str:
    try:
        mode = os.lstat(view.path(path)).st_mode
    except (OSError, ValueError):
        return "absent"
    if stat.S_ISLNK(mode):
        return "symlink"
    if stat.S_ISDIR(mode):
        return "directory"
    return "file" if stat.S_ISREG(mode) else "other"


def _identity(view: View, path: str) -> dict[str, Any]:
    try:
        found = os.stat(view.path(path))
    except (OSError, ValueError):
        return {"stat_device": None, "inode": None, "mode": None, "uid": None, "gid": None}
    return {
        "stat_device": f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}",
        "inode": found.st_ino,
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
        "uid": found.st_uid,
        "gid": found.st_gid,
    }


def _room(path: str) -> dict[str, int | None]:
    try:
        found = os.statvfs(path)
    except (OSError, ValueError):
        return dict.fromkeys(("bytes_total", "bytes_free", "inodes_total", "inodes_free"))
    return {
        "bytes_total": found.f_blocks * found.f_frsize,
        "bytes_free": found.f_bavail * found.f_frsize,
        "inodes_total": found.f_files,
        "inodes_free": found.f_favail,
    }
