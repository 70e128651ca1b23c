# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the file system that should be mounted at a data root is: else an engine fills the mount point beneath.

Sources of facts: mountinfo, ``/dev/disk/by-*`` where udev runs, the ioctls ``FS_IOC_GETFSUUID`` (kernel 6.9)
and ``FS_IOC_GETFSLABEL``, else the superblock; ``/etc/fstab`` and systemd's mount units for what is planned.
"""

from __future__ import annotations

import posixpath
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from ansible_collections.matryoshka.host.plugins.module_utils._device_chain import BLOCK, btrfs_uuid
from ansible_collections.matryoshka.host.plugins.module_utils._directory_ioctl import ask_directory
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Mount, MountTable, within
from ansible_collections.matryoshka.host.plugins.module_utils._storage_superblock import (
    read as read_superblock,
)

ALLOWED = "a mount point (an absolute path), UUID=..., LABEL=..., or the path of a block device (/dev/...)"
UNITS = "/etc/systemd/system"
_GET_UUID = 0x80111500
_GET_LABEL = 0x81009431
_LABEL_ROOM = 256
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|([0-7]{3}))")


@dataclass(frozen=True)
class Planned:
    """A mount that the host's own configuration wants: where, what, and which file says so."""

    mount_point: str
    source: str
    told_by: str


def check_wanted(variable: str, wanted: str) -> None:
    """Refuse what can't say which file system is meant.

    :raises InputError: naming ``variable``.
    """
    tag, equals, value = wanted.partition("=")
    if equals and tag in ("UUID", "LABEL") and value:
        return
    if not wanted.startswith("/"):
        raise InputError(variable, wanted, ALLOWED)


def unmounted(view: View, real: str, mount: Mount | None, wanted: str) -> str | None:
    """What is wrong if ``real`` isn't on the ``wanted`` file system; None if it is."""
    if mount is None:
        return f"{wanted} is wanted, and nothing is mounted"
    present = f"it lies on {mount.mount_point} ({mount.source})"
    tag, equals, value = wanted.partition("=")
    if equals and tag == "UUID":
        found = filesystem_uuid(view, mount)
        return None if _same_uuid(found, value) else f"{wanted} is wanted, and {present}, UUID {found}"
    if equals and tag == "LABEL":
        label = filesystem_label(view, mount)
        return None if label == value else f"{wanted} is wanted, and {present}, label {label}"
    if wanted.startswith("/dev/"):
        return None if _same_device(view, mount, wanted) else f"{wanted} is wanted, and {present}"
    point = view.real(wanted)
    return None if mount.mount_point == point else f"a mount on {wanted} is wanted, and {present}"


def missing_plan(plans: Iterable[Planned], real: str, mounts: MountTable) -> str | None:
    """Which of ``plans`` is for ``real`` or above it and isn't mounted; None if all are."""
    mount = mounts.of(real)
    here = mount.mount_point if mount else "/"
    for plan in plans:
        point = posixpath.normpath(plan.mount_point)
        if within(point, real) and not within(point, here):
            return f"{plan.told_by} has {plan.source} on {point}, and it isn't mounted"
    return None


def planned_mounts(view: View) -> list[Planned]:
    """The mounts of ``/etc/fstab`` (but those by hand, ``noauto``) and of the host's own mount units."""
    found = list(parse_fstab(view.text("/etc/fstab") or ""))
    for name in view.names(UNITS):
        if name.endswith(".mount"):
            found += parse_unit(view.text(f"{UNITS}/{name}") or "", name)
    return found


def parse_fstab(text: str) -> Iterable[Planned]:
    """The lines of ``fstab`` (fstab(5)) that mount a file system on a directory at boot."""
    for line in text.splitlines():
        fields = line.split("#")[0].split() if not line.lstrip().startswith("#") else []
        options = fields[3].split(",") if len(fields) > 3 else []
        if len(fields) >= 3 and fields[1].startswith("/") and fields[1] != "/" and "noauto" not in options:
            yield Planned(_unescape(fields[1]), _unescape(fields[0]), "/etc/fstab")


def parse_unit(text: str, name: str) -> Iterable[Planned]:
    """What a mount unit (systemd.mount(5)) mounts."""
    values = dict(re.findall(r"^\s*(What|Where)\s*=\s*(\S.*?)\s*$", text, re.MULTILINE))
    if values.get("Where", "/") != "/" and values.get("What"):
        yield Planned(values["Where"], values["What"], name)


def filesystem_uuid(view: View, mount: Mount) -> str | None:
    """The UUID of a mounted file system, in the usual form."""
    known = btrfs_uuid(view, mount)
    if known:
        return known
    answer = _ioctl(view.path(mount.mount_point), _GET_UUID, 17)
    if answer and answer[0] == 16:
        return str(uuid.UUID(bytes=answer[1:17]))
    for name in view.names("/dev/disk/by-uuid"):
        if _same_device(view, mount, f"/dev/disk/by-uuid/{name}"):
            return name
    return _superblock_uuid(view, mount)


def filesystem_label(view: View, mount: Mount) -> str | None:
    """The label of a mounted file system; None if it has none, or can't be asked."""
    answer = _ioctl(view.path(mount.mount_point), _GET_LABEL, _LABEL_ROOM)
    if answer is not None:
        return answer.split(b"\0")[0].decode(errors="replace") or None
    for name in view.names("/dev/disk/by-label"):
        if _same_device(view, mount, f"/dev/disk/by-label/{name}"):
            return _unescape(name)
    return None


def _superblock_uuid(view: View, mount: Mount) -> str | None:
    if not mount.source.startswith("/dev/"):
        return None
    superblock = read_superblock(view.path(mount.source))
    return superblock.uuid if superblock else None


def _same_device(view: View, mount: Mount, path: str) -> bool:
    """Whether the block device at ``path`` is the one that ``mount`` shows."""
    name = view.real(path).removeprefix("/dev/")
    number = (view.text(f"{BLOCK}/{name}/dev") or "").strip()
    return bool(name) and (view.real(mount.source).removeprefix("/dev/") == name or number == mount.device)


def _same_uuid(found: str | None, wanted: str) -> bool:
    return found is not None and found.lower() == wanted.strip('"').lower()


def _ioctl(path: str, request: int, room: int) -> bytes | None:
    try:
        return ask_directory(path, request, bytes(room))
    except OSError:
        return None


def _unescape(text: str) -> str:
    """Text of fstab (octal) or of udev's links (hexadecimal) as it was meant."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16) if found[1] else int(found[2], 8)), text)
