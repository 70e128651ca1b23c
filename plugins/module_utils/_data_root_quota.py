# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a directory's room is limited: project quotas of XFS and ext4, quota groups of btrfs. Read only."""

from __future__ import annotations

import errno
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ansible_collections.matryoshka.host.plugins.module_utils import _project_quota_btrfs as btrfs
from ansible_collections.matryoshka.host.plugins.module_utils import _quotactl
from ansible_collections.matryoshka.host.plugins.module_utils._device_chain import btrfs_uuid
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Mount
from ansible_collections.matryoshka.host.plugins.module_utils._quotactl import QuotaState, Usage

PROJECT_OPTIONS = frozenset({"prjquota", "pquota", "pqnoenforce"})


class Kernel(Protocol):
    """What of :mod:`_quotactl` is needed here."""

    def project_of(self, file: str | int) -> tuple[int, bool]: ...

    def read_quota_state(self, device: str | None, mount_point: str) -> QuotaState: ...

    def find_project_quota(
        self, device: str | None, project: int, mount_point: str | None = None
    ) -> Usage | None: ...


@dataclass(frozen=True)
class Quota:
    """What limits a directory. Sizes are bytes; None is "no limit" or "not known".

    ``kind`` is ``project`` or ``qgroup``; None where the file system has neither. ``error`` is why
    the kernel gave no state, as the name of an errno.
    """

    kind: str | None = None
    accounted: bool = False
    enforced: bool = False
    requested: bool = False
    error: str | None = None
    project: int | None = None
    inherited: bool | None = None
    qgroup: str | None = None
    inconsistent: bool | None = None
    used: int | None = None
    limit: int | None = None
    soft_limit: int | None = None
    exclusive_used: int | None = None
    exclusive_limit: int | None = None
    inodes_used: int | None = None
    inodes_limit: int | None = None
    inodes_soft_limit: int | None = None
    overlay2_size: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_quota(view: View, path: str, mount: Mount | None, kernel: Kernel = _quotactl) -> Quota:
    """The quota of the directory ``path`` (without links) on ``mount``."""
    if mount is None:
        return Quota()
    if mount.filesystem == "btrfs":
        return _group(view, path, mount)
    if mount.filesystem not in ("xfs", "ext4", "f2fs"):
        return Quota()
    return _project(view.path(path), mount, kernel)


def _project(path: str, mount: Mount, kernel: Kernel) -> Quota:
    try:
        project, inherited = kernel.project_of(path)
    except OSError:
        project, inherited = None, None
    known: dict[str, Any] = {
        "kind": "project",
        "requested": bool(PROJECT_OPTIONS & set(mount.super_options)),
        "project": project,
        "inherited": inherited,
    }
    try:
        state = kernel.read_quota_state(mount.source, path)
        known |= {"accounted": state.accounting, "enforced": state.enforced}
        known["overlay2_size"] = state.enforced and mount.filesystem == "xfs"
        usage = (
            kernel.find_project_quota(mount.source, project, path) if state.accounting and project else None
        )
    except OSError as error:
        return Quota(**known, error=errno.errorcode.get(error.errno or 0, str(error.errno)))
    if usage is None:
        return Quota(**known)
    return Quota(
        **known,
        used=usage.bytes,
        limit=usage.limits.bytes or None,
        soft_limit=usage.limits.soft_bytes or None,
        inodes_used=usage.inodes,
        inodes_limit=usage.limits.inodes or None,
        inodes_soft_limit=usage.limits.soft_inodes or None,
    )


def _group(view: View, path: str, mount: Mount) -> Quota:
    filesystem = btrfs_uuid(view, mount)
    if filesystem is None or not view.exists(btrfs.groups_folder(filesystem)):
        return Quota(kind="qgroup")
    accounting = btrfs.accounting(view, filesystem)
    counted = bool(accounting.mode)
    known: dict[str, Any] = {"kind": "qgroup", "inconsistent": not accounting.consistent}
    known |= dict.fromkeys(("accounted", "enforced", "requested"), counted)
    subvolume = _subvolume(view.path(path), mount)
    group = None if subvolume is None else btrfs.group(view, filesystem, subvolume)
    if group is None:
        return Quota(**known)
    return Quota(
        **known,
        qgroup=f"0/{subvolume}",
        used=group.used,
        limit=group.limit,
        exclusive_used=group.exclusive,
        exclusive_limit=group.exclusive_limit,
    )


def _subvolume(path: str, mount: Mount) -> int | None:
    """The subvolume that a directory is in; the one that is mounted if the kernel doesn't say."""
    try:
        return btrfs.subvolume_of(path)
    except OSError:
        mounted = mount.super_option("subvolid") or ""
        return int(mounted) if mounted.isdecimal() else None
