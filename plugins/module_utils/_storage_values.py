# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of single values of a volume, as a person wrote them. Pure."""

from __future__ import annotations

import posixpath
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._block_selector import Selector
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._sizes import parse_size

_LVM_NAME = re.compile(r"^[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,100}$")
_SHARE = re.compile(r"^(100|[1-9][0-9]?)%(FREE|VG|PVS)$")
_UNIT = re.compile(r"^[A-Za-z0-9:_.\\@-]+\.(?:service|socket|target)$")
_OPTION = re.compile(r"^[A-Za-z0-9_.:=-]+$")
_OWN_OPTIONS = {
    "ro": "containers can't be written to",
    "noexec": "containers can't run anything",
    "nosuid": "sudo and ping don't work in containers",
    "nodev": "images with device nodes can't be unpacked",
    "bind": "set directory",
    "rbind": "set directory",
    "loop": "set device",
    "fail": "a missing disk would stop the boot",
    "nofail": "it is set anyway",
    "auto": "the mount unit says when it is mounted",
    "noauto": "the mount unit says when it is mounted",
    "noatime": "it is set anyway",
    "discard": "set discard to continuous",
    "nodiscard": "set discard",
    "pquota": "set quota",
    "prjquota": "set quota",
    "noquota": "set quota",
    "nouuid": "two file systems with one UUID can't be told apart",
    "remount": "the mount unit does it",
}


def check_path(value: Any, variable: str) -> str:
    text = str(value) if value is not None else ""
    if not posixpath.isabs(text) or posixpath.normpath(text) != text or re.search(r"[\s\\%\"'$\x00]", text):
        raise InputError(variable, value, "an absolute path without '..', '//', blanks, quotes, %, $ and \\")
    return text


def check_selector(value: Any, variable: str) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not value:
        raise InputError(
            variable, value, "a mapping with at least one of the keys of block_device_info, such as serial"
        )
    refused = sorted({"name", "own", "required", "allow_used", "partitions"} & set(value))
    if refused:
        raise InputError(f"{variable}.{refused[0]}", value[refused[0]], "nothing here; the role sets it")
    Selector.parse({**value, "name": variable})
    return {**value, "name": variable}


def check_uuid(value: Any, variable: str) -> str | None:
    if value is None:
        return None
    try:
        return str(uuid.UUID(str(value)))
    except ValueError:
        raise InputError(
            variable, value, "the UUID of a file system that is there already, as blkid shows it"
        ) from None


def check_lvm(value: Any, variable: str) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) - {"vg", "lv", "size"} or not {"vg", "lv"} <= set(value):
        raise InputError(variable, value, "a mapping with vg, lv and size")
    for key in ("vg", "lv"):
        if not isinstance(value[key], str) or not _LVM_NAME.match(value[key]):
            raise InputError(f"{variable}.{key}", value[key], "a name of letters, digits and +_.-")
    size = str(value.get("size") or "100%FREE")
    if not _SHARE.match(size):
        # lvol counts in MiB.
        size = f"{parse_size(size, f'{variable}.size', 4 << 20) >> 20}m"
    return {"vg": value["vg"], "lv": value["lv"], "size": size}


def check_encrypt(value: Any, variable: str) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) - {"key_file", "key"} or "key_file" not in value:
        raise InputError(variable, "(not shown)", "a mapping with key_file, and key unless the file is there")
    if "key" in value and (not isinstance(value["key"], str) or len(value["key"]) < 8):
        raise InputError(f"{variable}.key", "(not shown)", "a text of at least 8 characters")
    return {
        "key_file": check_path(value["key_file"], f"{variable}.key_file"),
        "key_given": bool(value.get("key")),
    }


def mount_options(kind: str, filesystem: str, quota: bool, discard: str, given: Any, where: str) -> list[str]:
    extra = given.split(",") if isinstance(given, str) else given
    if not isinstance(extra, (list, tuple)):
        raise InputError(f"{where}.mount_options", given, "a list of mount options")
    for option in extra:
        key = str(option).partition("=")[0]
        if not _OPTION.match(str(option)) or key in _OWN_OPTIONS or key.startswith("x-systemd"):
            why = _OWN_OPTIONS.get(key, "only plain options of the file system are")
            raise InputError(
                f"{where}.mount_options", option, f"an option of the file system; this one isn't: {why}"
            )
    if kind == "directory":
        return ["bind", "nofail", *map(str, extra)]
    own = ["noatime", "nofail"]
    if quota and filesystem in ("xfs", "ext4"):
        own.append("prjquota")
    if discard == "continuous":
        own.append("discard=async" if filesystem == "btrfs" else "discard")
    elif filesystem == "btrfs":
        own.append("nodiscard")
    return [*own, *map(str, extra)]


def check_units(value: Any, variable: str) -> list[str]:
    if not isinstance(value, (list, tuple)):
        raise InputError(variable, value, "a list of names of units")
    for unit in value:
        if not isinstance(unit, str) or not _UNIT.match(unit):
            raise InputError(
                variable, unit, "the name of a service, socket or target, such as docker.service"
            )
    return list(dict.fromkeys(value))


def check_choice(value: Any, allowed: Sequence[str], variable: str) -> str:
    if value not in allowed:
        raise InputError(variable, value, "one of " + ", ".join(allowed))
    return str(value)


def check_bool(value: Any, variable: str) -> bool:
    if str(value).lower() not in ("true", "false", "yes", "no"):
        raise InputError(variable, value, "true or false")
    return str(value).lower() in ("true", "yes")


def check_whole(value: Any, variable: str, least: int, most: int) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or not least <= int(text) <= most:
        raise InputError(variable, value, f"a whole number from {least} to {most}")
    return int(text)
