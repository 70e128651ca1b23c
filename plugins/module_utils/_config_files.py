# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many files and directories at once: check all, plan all, then write only what differs."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _files
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._files import Attributes

FILE_MODE = "0644"
DIRECTORY_MODE = "0755"
PARENT = Attributes(mode=0o755)


OWNER = {"owner": {"type": "str"}, "group": {"type": "str"}}
ARGUMENTS: dict[str, Any] = {
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "content": {"type": "str", "required": True, "no_log": True},
            "mode": {"type": "str", "default": "0644"},
            "secret": {"type": "bool", "default": False, "no_log": False},
            **OWNER,
        },
    },
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "mode": {"type": "str", "default": "0755"},
            **OWNER,
        },
    },
    "absent": {"type": "list", "elements": "str", "default": []},
    "orphans": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "directory": {"type": "str", "required": True},
            "pattern": {"type": "str", "required": True},
        },
    },
}


@dataclass(frozen=True)
class Item:
    """A wanted file (``content`` is bytes) or directory (None), and the ``variable`` it came from."""

    variable: str
    path: str
    attributes: Attributes
    content: bytes | None = None
    secret: bool = False


@dataclass(frozen=True)
class Orphans:
    """Files in ``directory`` whose names match ``pattern`` go if they aren't wanted."""

    directory: str
    pattern: str


@dataclass(frozen=True)
class Request:
    """All that is wanted, checked by itself but not yet against the host."""

    files: list[Item] = field(default_factory=list)
    directories: list[Item] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    orphans: list[Orphans] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """What differs, in the order of doing: directories, files, files to remove, directories to remove."""

    directories: list[Item] = field(default_factory=list)
    files: list[Item] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    diff: list[dict[str, Any]] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.directories or self.files or self.removed)

    def result(self) -> dict[str, Any]:
        """The module's result."""
        return {
            "changed": self.changed,
            "changed_paths": [item.path for item in (*self.directories, *self.files)],
            "removed_paths": self.removed,
            "diff": self.diff,
        }


def secrets(parameters: Mapping[str, Any]) -> set[str]:
    """The contents that must not be shown anywhere."""
    return {item["content"] for item in parameters["files"] if item.get("secret") and item.get("content")}


def answer(parameters: Mapping[str, Any], check: bool, lenient: bool) -> dict[str, Any]:
    """The result of module ``config_files`` for its parameters (:data:`ARGUMENTS`).

    :param check: change nothing.
    :param lenient: owners needn't be on the host yet.
    """
    wanted = plan(parse(parameters, lenient=lenient))
    if not check:
        apply(wanted)
    return wanted.result()


def parse(parameters: Mapping[str, Any], lenient: bool = False) -> Request:
    """The module's parameters as a :class:`Request`.

    :param lenient: owners needn't be on the host yet (check mode).
    :raises InputError: a path that isn't absolute and plain, or is there twice; a mode
        that isn't octal; an unknown owner; a pattern with a slash.
    """
    seen: dict[str, str] = {}

    def path_of(variable: str, value: str) -> str:
        if (
            not os.path.isabs(value)
            or os.path.normpath(value) != value
            or value in ("/", "//")
            or "\0" in value
        ):
            raise InputError(variable, value, "an absolute path without '..', '//' and a slash at its end")
        if value in seen:
            raise InputError(variable, value, f"each path once; {seen[value]} is the same")
        seen[value] = variable
        return value

    def item(variable: str, entry: Mapping[str, Any], default_mode: str, content: bytes | None) -> Item:
        attributes = Attributes(
            _files.parse_mode(f"{variable}.mode", entry.get("mode") or default_mode),
            _files.user_id(f"{variable}.owner", entry.get("owner"), lenient),
            _files.group_id(f"{variable}.group", entry.get("group"), lenient),
        )
        path = path_of(f"{variable}.path", entry["path"])
        return Item(variable, path, attributes, content, bool(entry.get("secret")))

    directories = [
        item(f"directories[{index}]", entry, DIRECTORY_MODE, None)
        for index, entry in enumerate(parameters.get("directories") or ())
    ]
    files = [
        item(f"files[{index}]", entry, FILE_MODE, entry["content"].encode())
        for index, entry in enumerate(parameters.get("files") or ())
    ]
    absent = [path_of(f"absent[{index}]", path) for index, path in enumerate(parameters.get("absent") or ())]
    orphans = []
    for index, entry in enumerate(parameters.get("orphans") or ()):
        directory, pattern = entry["directory"], entry["pattern"]
        if not os.path.isabs(directory) or os.path.normpath(directory) != directory:
            raise InputError(
                f"orphans[{index}].directory", directory, "an absolute path without '..' and '//'"
            )
        if not pattern or "/" in pattern or pattern in (".", ".."):
            raise InputError(
                f"orphans[{index}].pattern", pattern, "a file name's pattern, such as '*.json', without '/'"
            )
        orphans.append(Orphans(directory, pattern))
    return Request(files, directories, absent, orphans)


def plan(request: Request) -> Plan:
    """Compare with the host; everything is checked here, so nothing is written if anything is wrong.

    :raises InputError: a directory, link or special file where a file should be, or the
        like; a directory to remove that holds anything else.
    """
    for item in request.files:
        _is(f"{item.variable}.path", item.path, ("file", "nothing"), "a file, or nothing yet")
        _parents(f"{item.variable}.path", item.path, request)
    for item in request.directories:
        _is(f"{item.variable}.path", item.path, ("directory", "nothing"), "a directory, or nothing yet")
        _parents(f"{item.variable}.path", item.path, request)
    removed = _removed(request)
    diff: list[dict[str, Any]] = []
    directories = [item for item in _with_parents(request) if _differs(item, diff)]
    files = [item for item in request.files if _differs(item, diff)]
    diff += [_files.difference(path, f"{_files.kind_of(path)}\n", None) for path in removed]
    return Plan(directories, files, removed, diff)


def apply(wanted: Plan) -> None:
    """Do it.

    :raises HostError: what couldn't be done; what came before it is done.
    """
    for item in wanted.directories:
        try:
            if _files.kind_of(item.path) == "nothing":
                os.mkdir(item.path, 0o700)
            _files.set_attributes(item.path, item.attributes)
        except OSError as error:
            raise HostError(f"{item.path} can't be made: {error.strerror}") from error
    for item in wanted.files:
        if item.content is None:
            raise AssertionError("item.content is set by now")
        _files.write_atomic(item.path, item.content, item.attributes)
    for path in wanted.removed:
        try:
            (os.rmdir if _files.kind_of(path) == "directory" else os.unlink)(path)
        except OSError as error:
            raise HostError(f"{path} can't be removed: {error.strerror}") from error


def _is(variable: str, path: str, kinds: Sequence[str], allowed: str) -> None:
    kind = _files.kind_of(path)
    if kind not in kinds:
        raise InputError(variable, path, f"{allowed}; a {kind} is there")


def _parents(variable: str, path: str, request: Request) -> None:
    files = {item.path for item in request.files}
    for parent in _ancestors(path):
        if parent in files:
            raise InputError(variable, path, f"a path that isn't inside of the file {parent}")
        if os.path.lexists(parent) and not os.path.isdir(parent):
            raise InputError(variable, path, f"a path in a directory; {parent} is a {_files.kind_of(parent)}")


def _ancestors(path: str) -> list[str]:
    """The directories above ``path`` without the root, outermost first."""
    found = []
    while (path := os.path.dirname(path)) != "/":
        found.append(path)
    return found[::-1]


def _with_parents(request: Request) -> list[Item]:
    """The wanted directories and those that are needed for them and for files, outer ones first."""
    wanted = {item.path: item for item in request.directories}
    for item in (*request.directories, *request.files):
        for parent in _ancestors(item.path):
            if parent not in wanted and _files.kind_of(parent) == "nothing":
                wanted[parent] = Item(item.variable, parent, PARENT)
    return sorted(wanted.values(), key=lambda item: item.path.count("/"))


def _removed(request: Request) -> list[str]:
    keep = {item.path for item in (*request.files, *request.directories)}
    keep |= {parent for path in keep for parent in _ancestors(path)}
    going = [path for path in request.absent if os.path.lexists(path)]
    for entry in request.orphans:
        going += [path for path in _matching(entry) if path not in keep and path not in going]
    for index, path in enumerate(request.absent):
        if _files.kind_of(path) == "directory":
            left = [inner for inner in _inside(path) if inner not in going]
            if left or path in keep:
                what = ", ".join((left or ["something wanted"])[:3])
                raise InputError(
                    f"absent[{index}]", path, f"a file, or a directory with nothing else in it; it has {what}"
                )
    return sorted(going, key=lambda path: (_files.kind_of(path) == "directory", -path.count("/"), path))


def _matching(entry: Orphans) -> list[str]:
    try:
        names = sorted(os.listdir(entry.directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = [
        os.path.join(entry.directory, name) for name in names if fnmatch.fnmatchcase(name, entry.pattern)
    ]
    return [path for path in paths if _files.kind_of(path) in ("file", "link")]


def _inside(path: str) -> Iterable[str]:
    return [os.path.join(path, name) for name in sorted(os.listdir(path))]


def _differs(item: Item, diff: list[dict[str, Any]]) -> bool:
    present = _files.attributes_of(item.path)
    changed = present is None
    if item.content is not None:
        before = _files.read_bytes(item.path)
        if before != item.content:
            changed = True
            diff.append(_files.difference(item.path, _shown(before), _shown(item.content), item.secret))
    elif present is None:
        diff.append(_files.difference(item.path, None, "directory\n"))
    if present is not None and _files.differing(present, item.attributes) != Attributes():
        changed = True
        before_and_after = _files.describe(present), _files.describe(present, item.attributes)
        diff.append(_files.difference(f"{item.path} (attributes)", *before_and_after))
    return changed


def _shown(content: bytes | None) -> str | None:
    return None if content is None else content.decode(errors="replace")
