# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Selectors: what a person knows of a device, checked, and how well a device fits. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._block_identity import TRANSPORTS
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._options import check_options
from ansible_collections.matryoshka.host.plugins.module_utils._sizes import parse_size, show_size

BY_ID = "/dev/disk/by-id/"
REQUIRED = ("one", "any")
PATTERNS = ("id", "model", "vendor", "serial", "wwn")
"""Keys whose values are shell patterns; all but serial and wwn are compared without regard to case."""

NAMES = frozenset({"id", "serial", "wwn"})
"""Keys that name one device. With one of them any kind of device can be meant."""

PLAIN_KINDS = frozenset({"disk", "multipath"})
_KEYS = frozenset(
    {*PATTERNS, "name", "path", "transport", "rotational", "size_min", "size_max"}
    | {"empty", "partitions", "own", "required", "allow_used"}
)
_IDENTIFYING = ("path", *PATTERNS, "transport", "rotational", "size_min", "size_max", "empty")


@dataclass(frozen=True)
class Selector:
    """What one wanted device is known by. ``name`` is what its owner calls it."""

    name: str
    path: str | None = None
    patterns: Mapping[str, str] = field(default_factory=dict)
    transport: str | None = None
    rotational: bool | None = None
    size_min: int | None = None
    size_max: int | None = None
    empty: bool = False
    partitions: bool = False
    own: frozenset[str] = frozenset()
    required: str = "one"
    allow_used: bool = False
    given: str = ""

    @classmethod
    def parse(cls, value: Mapping[str, Any], place: str = "select") -> Selector:
        """A selector from a dictionary; keys whose value is None count as not given.

        :param place: what a message calls a selector that has no name.
        :raises InputError: for what can't be a selector.
        """
        given = {key: item for key, item in value.items() if item is not None}
        name = str(given.get("name") or "").strip()
        if not name:
            raise InputError(f"{place}.name", value.get("name"), "what its owner calls the device")
        check_options(given, sorted(_KEYS), name)
        if not any(key in given and (key, given[key]) != ("empty", False) for key in _IDENTIFYING):
            allowed = "at least one of " + ", ".join(_IDENTIFYING)
            raise InputError(name, _shown(given), allowed)
        path, patterns = _path_and_patterns(given, name)
        sizes = {
            key: parse_size(given[key], f"{name}.{key}") if key in given else None
            for key in ("size_min", "size_max")
        }
        low, high = sizes["size_min"], sizes["size_max"]
        if low is not None and high is not None and low > high:
            raise InputError(f"{name}.size_max", given["size_max"], f"at least size_min, {given['size_min']}")
        return cls(
            name=name,
            path=path,
            patterns=patterns,
            transport=_choice(given, "transport", TRANSPORTS, name),
            rotational=_boolean(given, "rotational", name),
            size_min=low,
            size_max=high,
            empty=bool(_boolean(given, "empty", name)),
            partitions=bool(_boolean(given, "partitions", name)),
            own=_own(given, name),
            required=_choice(given, "required", REQUIRED, name) or "one",
            allow_used=bool(_boolean(given, "allow_used", name)),
            given=_shown(given),
        )

    @property
    def named(self) -> bool:
        """Whether a name that only one device can have is given, if only by a pattern."""
        return self.path is not None or bool(NAMES & set(self.patterns))

    @property
    def exact(self) -> bool:
        """Whether no other device can be meant."""
        names = [self.patterns[key] for key in NAMES & set(self.patterns)]
        return self.path is not None or any(not set(name) & set("*?[") for name in names)


def _path_and_patterns(given: Mapping[str, Any], name: str) -> tuple[str | None, dict[str, str]]:
    patterns = {}
    for key in PATTERNS:
        if key in given:
            text = str(given[key]).strip()
            if not text or isinstance(given[key], (bool, dict, list)):
                raise InputError(f"{name}.{key}", given[key], "a name or a shell pattern such as *SSD*")
            patterns[key] = text.removeprefix(BY_ID) if key == "id" else text
    if "/" in patterns.get("id", ""):
        raise InputError(f"{name}.id", given["id"], f"a name in {BY_ID}, or a pattern for one")
    if "path" not in given:
        return None, patterns
    path = str(given["path"]).strip()
    if not path.startswith("/dev/") or posixpath.normpath(path) != path:
        raise InputError(f"{name}.path", given["path"], "the path of a device, such as /dev/nvme0n1")
    return path, patterns


def _choice(given: Mapping[str, Any], key: str, allowed: Iterable[str], name: str) -> str | None:
    if key in given and given[key] not in allowed:
        raise InputError(f"{name}.{key}", given[key], "one of " + ", ".join(allowed))
    return given.get(key)


def _boolean(given: Mapping[str, Any], key: str, name: str) -> bool | None:
    if key in given and not isinstance(given[key], bool):
        raise InputError(f"{name}.{key}", given[key], "true or false")
    return given.get(key)


def _own(given: Mapping[str, Any], name: str) -> frozenset[str]:
    own = given.get("own", [])
    if not isinstance(own, (list, tuple)) or not all(isinstance(mark, str) and mark for mark in own):
        raise InputError(
            f"{name}.own", own, "a list of UUIDs, labels and names of volume groups or partitions"
        )
    return frozenset(own)


def _shown(given: Mapping[str, Any]) -> str:
    """The keys by which a device is meant, for a message: ``transport: nvme, empty: true``."""
    hidden = {"name", "own", "required", "allow_used"}
    texts = [
        f"{key}: {str(item).lower() if isinstance(item, bool) else item}"
        for key, item in given.items()
        if key not in hidden and (item is not False or key == "rotational")
    ]
    return ", ".join(texts)


def mismatches(selector: Selector, device: Mapping[str, Any]) -> list[str]:
    """Sentences on how a device isn't what the selector says; whether it is empty isn't looked at."""
    found = []
    if selector.path is not None and not _at(selector.path, device):
        found.append(f"its path isn't {selector.path}")
    for key, pattern in selector.patterns.items():
        values = device["ids"] if key == "id" else [device[key]] if device[key] else []
        fold: Callable[[str], str] = str.lower if key in ("id", "model", "vendor", "wwn") else str
        if not any(fnmatchcase(fold(value), fold(pattern)) for value in values):
            shown = ", ".join(values) or "unknown"
            found.append(f"its {key} is {shown}")
    if selector.transport is not None and device["transport"] != selector.transport:
        found.append(f"its transport is {device['transport'] or 'unknown'}")
    if selector.rotational is not None and device["rotational"] is not selector.rotational:
        found.append("it rotates" if device["rotational"] else "it doesn't rotate")
    size = device["size_bytes"]
    if selector.size_min is not None and size < selector.size_min:
        found.append(f"it has {show_size(size)}, less than {show_size(selector.size_min)}")
    if selector.size_max is not None and size > selector.size_max:
        found.append(f"it has {show_size(size)}, more than {show_size(selector.size_max)}")
    return found


def eligible(selector: Selector, device: Mapping[str, Any]) -> bool:
    """Whether a device is of a kind that the selector can mean.

    What has no size is no device. A path to a multipath device isn't one by itself. Partitions and
    devices that are made of others are meant only if they are named.
    """
    if not device["size_bytes"] or device["multipath_leg"]:
        return False
    if selector.path is not None:
        return _at(selector.path, device)
    if device["partition"] is not None:
        # A partition has its disk's model, serial and WWN; only its by-id name is its own.
        return selector.partitions or _means_partition(selector, device)
    named = selector.named or (selector.transport is not None and selector.transport == device["transport"])
    return device["kind"] in PLAIN_KINDS or (named and device["kind"] not in ("rom", "floppy"))


def _at(path: str, device: Mapping[str, Any]) -> bool:
    by_id = path.removeprefix(BY_ID) if path.startswith(BY_ID) else None
    return path == device["path"] or path in device["links"] or by_id in device["ids"]


def _means_partition(selector: Selector, device: Mapping[str, Any]) -> bool:
    pattern = selector.patterns.get("id", "")
    return pattern.lower().endswith(f"-part{device['partition']}")
