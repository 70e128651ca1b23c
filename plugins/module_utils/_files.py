# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files written whole or not at all: a new file beside the old one, synced, then renamed over it."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import stat
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError

SECRET = "(content not shown)\n"
#: An owner that isn't on this host; different from every present one.
UNKNOWN = -1


@dataclass(frozen=True)
class Attributes:
    """Permission bits and owner; what is None stays as it is, or is left to :func:`write_atomic`."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


def parse_mode(variable: str, value: object) -> int:
    """Octal permission bits as text, such as ``0644``.

    :raises InputError: anything else; a bare YAML number like ``420`` is nearly always
        a mode whose quotes were forgotten.
    """
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}|[0-7]{4}|0[0-7]{4}", value):
        raise InputError(variable, value, "octal permission bits as text, such as '0644'")
    return int(value, 8)


def user_id(variable: str, value: str | None, lenient: bool = False) -> int | None:
    """The uid of a user's name or number; None for None.

    :param lenient: :data:`UNKNOWN` for a user that isn't there, as in check mode before it is made.
    :raises InputError: no such user on this host.
    """
    if value is None:
        return None
    if value.isdecimal():
        return int(value)
    try:
        return pwd.getpwnam(value).pw_uid
    except KeyError:
        if lenient:
            return UNKNOWN
        raise InputError(variable, value, "a user on this host, or a uid") from None


def group_id(variable: str, value: str | None, lenient: bool = False) -> int | None:
    """The gid of a group's name or number; None for None.

    :param lenient: as for :func:`user_id`.
    :raises InputError: no such group on this host.
    """
    if value is None:
        return None
    if value.isdecimal():
        return int(value)
    try:
        return grp.getgrnam(value).gr_gid
    except KeyError:
        if lenient:
            return UNKNOWN
        raise InputError(variable, value, "a group on this host, or a gid") from None


def attributes_of(path: str) -> Attributes | None:
    """The attributes of what ``path`` names, links not followed; None if nothing is there."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Attributes(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def differing(present: Attributes, wanted: Attributes) -> Attributes:
    """The wanted attributes that ``present`` doesn't have; the others are None."""
    return Attributes(
        wanted.mode if wanted.mode != present.mode else None,
        wanted.uid if wanted.uid != present.uid else None,
        wanted.gid if wanted.gid != present.gid else None,
    )


def describe(present: Attributes | None, wanted: Attributes = Attributes()) -> str:
    """``mode 0644 uid 0 gid 0``, as ``present`` is once ``wanted`` has been applied."""
    base = present or Attributes()
    mode, uid, gid = (
        new if new is not None else old
        for new, old in ((wanted.mode, base.mode), (wanted.uid, base.uid), (wanted.gid, base.gid))
    )
    shown = ("mode", None if mode is None else f"{mode:04o}"), ("uid", uid), ("gid", gid)
    return " ".join(f"{name} {value}" for name, value in shown if value is not None) + "\n"


def set_attributes(path: str, wanted: Attributes) -> None:
    """Set owner, then mode (a change of owner clears set-user-ID bits)."""
    if wanted.uid is not None or wanted.gid is not None:
        os.chown(path, -1 if wanted.uid is None else wanted.uid, -1 if wanted.gid is None else wanted.gid)
    if wanted.mode is not None:
        os.chmod(path, wanted.mode)


def read_bytes(path: str) -> bytes | None:
    """The content of a regular file; None if nothing is there."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def real_path(variable: str, path: str) -> str:
    """Where a file's content lies: a link is followed, so that it stays a link when written.

    :raises InputError: not absolute, a directory, a device, or a link to nothing.
    """
    if not os.path.isabs(path) or os.path.basename(path) in ("", ".", ".."):
        raise InputError(variable, path, "an absolute path of a file")
    if os.path.islink(path):
        target = os.path.realpath(path)
        if not os.path.isfile(target):
            raise InputError(
                variable, path, f"a file, or a link to one; it is a link to {target}, which is no file"
            )
        return target
    if os.path.lexists(path) and not os.path.isfile(path):
        raise InputError(variable, path, f"a file; a {kind_of(path)} is there")
    return path


def kind_of(path: str) -> str:
    """``file``, ``directory``, ``link``, ``special file``, or ``nothing``; links not followed."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "nothing"
    if stat.S_ISLNK(mode):
        return "link"
    if stat.S_ISDIR(mode):
        return "directory"
    return "file" if stat.S_ISREG(mode) else "special file"


def write_atomic(path: str, data: bytes, wanted: Attributes = Attributes(), new_mode: int = 0o644) -> None:
    """Replace ``path`` by a file with ``data``; a reader sees the old file or the new one, whole.

    What ``wanted`` leaves open is kept from the present file; a new one gets ``new_mode``
    and the process's own user and group. Nothing is left behind on a failure. The parent
    directory has to exist.

    :raises HostError: it can't be written; the present file is untouched.
    """
    present = attributes_of(path)
    mode = next(
        value for value in (wanted.mode, present.mode if present else None, new_mode) if value is not None
    )
    uid = wanted.uid if wanted.uid is not None else present.uid if present else None
    gid = wanted.gid if wanted.gid is not None else present.gid if present else None
    directory, name = os.path.split(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=directory)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            set_attributes(temporary, Attributes(mode, uid, gid))
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        temporary = None
        sync_directory(directory)
    except OSError as error:
        raise HostError(f"{path} can't be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            os.unlink(temporary)


def sync_directory(path: str) -> None:
    """Make renames in a directory last through a loss of power."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def backup(path: str) -> str:
    """Copy a file beside itself with its mode, owner and the time in its name; returns the copy's path."""
    base = f"{path}.{time.strftime('%Y-%m-%dT%H%M%S', time.gmtime())}"
    copy, number = f"{base}~", 0
    while os.path.lexists(copy):
        number += 1
        copy = f"{base}.{number}~"
    shutil.copy2(path, copy)
    status = os.stat(path)
    os.chown(copy, status.st_uid, status.st_gid)
    return copy


def difference(path: str, before: str | None, after: str | None, secret: bool = False) -> dict[str, Any]:
    """One entry for Ansible's ``--diff``; None stands for no file.

    :param secret: say that the content differs without showing it.
    """
    shown_before, shown_after = before or "", after or ""
    if secret:
        same = before == after
        shown_before = SECRET if before is not None else ""
        shown_after = "" if after is None else SECRET if same or before is None else f"(other) {SECRET}"
    return {
        "before_header": path if before is not None else f"{path} (absent)",
        "after_header": path if after is not None else f"{path} (absent)",
        "before": shown_before,
        "after": shown_after,
    }
