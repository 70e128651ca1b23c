# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd's units as they are: read with one ``systemctl show``, compared with what is wanted.

Facts from systemctl(1) and org.freedesktop.systemd1(5). Read-only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ansible_collections.matryoshka.host.plugins.module_utils._command import CommandError, Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_text import (
    is_template,
    names_of_settings,
    owner_of,
)

PROPERTIES = (
    "Id",
    "Names",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "CanReload",
    "FragmentPath",
    "DropInPaths",
    "Result",
)
UNIT_PATH = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)
CHANGED_BY_PEOPLE = ("/etc/", "/run/")


@dataclass(frozen=True)
class UnitState:
    """One unit as systemd sees it; the strings are systemd's own words.

    ``unit_file_state`` is corrected by the symlinks that are really there, which systemd
    looks at only on a reload; ``masked_by`` are the masks that are really there under /etc and
    /run, ``mask_is_gone`` tells that systemd remembers one that isn't. ``texts`` holds what the
    unit's files say, by path.
    """

    name: str
    load_state: str = "not-found"
    active_state: str = "inactive"
    sub_state: str = "dead"
    unit_file_state: str = ""
    need_daemon_reload: bool = False
    can_reload: bool = False
    fragment_path: str = ""
    drop_in_paths: tuple[str, ...] = ()
    result: str = ""
    names: tuple[str, ...] = ()
    masked_by: tuple[str, ...] = ()
    mask_is_gone: bool = False
    texts: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def up(self) -> bool:
        """Running, on its way to it, or waiting to be restarted by systemd."""
        return self.active_state in ("active", "activating", "reloading", "refreshing", "maintenance")

    @property
    def failed(self) -> bool:
        return self.active_state == "failed"

    @property
    def masked(self) -> bool:
        return bool(self.masked_by) or (self.load_state == "masked" and not self.mask_is_gone)

    @property
    def stale(self) -> bool:
        """Whether systemd has to read its files anew before it knows this unit as it is."""
        return self.need_daemon_reload or self.mask_is_gone

    @property
    def enabled(self) -> bool:
        return self.unit_file_state in ("enabled", "alias", "indirect")

    @property
    def known(self) -> bool:
        """Whether systemd found a file for it that it can use."""
        return self.load_state not in ("not-found", "error", "bad-setting")

    @property
    def foreign_drop_ins(self) -> dict[str, list[str]]:
        """Drop-ins from /etc and /run without the collection's marker: path to what each sets."""
        return {
            path: names_of_settings(self.texts.get(path, ""))
            for path in self.drop_in_paths
            if path.startswith(CHANGED_BY_PEOPLE) and owner_of(self.texts.get(path, "")) is None
        }

    def properties(self) -> dict[str, object]:
        """The state under systemd's names of the properties, for a module's result."""
        return {
            "LoadState": self.load_state,
            "ActiveState": self.active_state,
            "SubState": self.sub_state,
            "UnitFileState": self.unit_file_state,
            "NeedDaemonReload": self.need_daemon_reload,
            "FragmentPath": self.fragment_path,
            "DropInPaths": list(self.drop_in_paths),
        }


class Links(NamedTuple):
    """Names of units that symlinks enable: those in /etc, and those in any unit folder."""

    configured: frozenset[str] = frozenset()
    anywhere: frozenset[str] = frozenset()


@dataclass(frozen=True)
class WantedUnit:
    """One entry of a list of units. Texts bear the marker already (see :func:`parse_wanted`).

    ``instances`` is None if the template's instances aren't looked after; ``triggers`` maps
    the name of a unit (not of an instance) to an opaque string.
    """

    name: str
    content: str | None = None
    drop_ins: Mapping[str, str] = field(default_factory=dict)
    instances: tuple[str, ...] | None = None
    state: str | None = None
    enabled: bool | None = None
    masked: bool | None = None
    on_change: str | None = None
    on_trigger: str | None = None
    triggers: Mapping[str, str] = field(default_factory=dict)
    variable: str = "units"


def parse_show(text: str) -> list[dict[str, str]]:
    """The blocks of ``systemctl show``: properties of one unit after another."""
    blocks: list[dict[str, str]] = []
    current: dict[str, str] = {}
    for line in [*text.split("\n"), ""]:
        key, equals, value = line.partition("=")
        if not line:
            if current:
                blocks.append(current)
            current = {}
        elif equals:
            current[key] = value
    return blocks


def unit_state(block: Mapping[str, str]) -> UnitState:
    """One block of :func:`parse_show` as a state."""
    return UnitState(
        name=block["Id"],
        load_state=block.get("LoadState", ""),
        active_state=block.get("ActiveState", ""),
        sub_state=block.get("SubState", ""),
        unit_file_state=block.get("UnitFileState", ""),
        need_daemon_reload=block.get("NeedDaemonReload") == "yes",
        can_reload=block.get("CanReload") == "yes",
        fragment_path=block.get("FragmentPath", ""),
        drop_in_paths=tuple(block.get("DropInPaths", "").split()),
        result=block.get("Result", ""),
        names=tuple(block.get("Names", "").split()),
    )


def correct_enabled(state: UnitState, links: Links) -> UnitState:
    """Set ``enabled`` and ``disabled`` by the symlinks that exist, not by systemd's memory of them."""
    names = {state.name, *state.names}
    if state.unit_file_state == "enabled" and not names & links.anywhere:
        return replace(state, unit_file_state="disabled")
    if state.unit_file_state in ("disabled", "") and names & links.configured:
        return replace(state, unit_file_state="enabled")
    return state


def require_systemd(root: str = "/") -> None:
    """Refuse a host whose PID 1 isn't systemd (the test of sd_booted(3))."""
    if os.path.isdir(os.path.join(root, "run/systemd/system")):
        return
    try:
        with open(os.path.join(root, "proc/1/comm"), encoding="utf-8") as file:
            found = file.read().strip()
    except OSError:
        found = "unknown"
    raise HostError(f"PID 1 of this host is {found}, not systemd; its units can't be managed")


def is_mask(path: str) -> bool:
    """Whether ``path`` masks a unit: a symlink to /dev/null or an empty file."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    if stat.S_ISLNK(found.st_mode):
        return os.path.realpath(path) == "/dev/null"
    return stat.S_ISREG(found.st_mode) and found.st_size == 0


def masks_of(name: str, directories: Sequence[str] = UNIT_PATH[:2]) -> tuple[str, ...]:
    """The masks of a unit that count: one in a later folder doesn't if an earlier one has a unit file."""
    found: list[str] = []
    for directory in directories:
        path = f"{directory}/{name}"
        if is_mask(path):
            found.append(path)
        elif os.path.lexists(path):
            break
    return tuple(found)


def enabled_links(directories: Sequence[str] = UNIT_PATH) -> Links:
    """The units that a symlink in a ``.wants``, ``.requires`` or ``.upholds`` folder, or an alias, enables."""
    configured: set[str] = set()
    anywhere: set[str] = set()
    for directory in directories:
        found: set[str] = set()
        for entry in _entries(directory):
            if entry.name.endswith((".wants", ".requires", ".upholds")):
                found.update(link.name for link in _entries(entry.path) if link.is_symlink())
            elif entry.is_symlink():
                found.add(os.path.basename(os.readlink(entry.path)))
        anywhere |= found
        if directory == directories[0]:
            configured = found
    return Links(frozenset(configured), frozenset(anywhere))


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []


def read_text(path: str) -> str:
    """What a unit file says; nothing if it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def read_units(
    run: Runner,
    names: Iterable[str],
    *,
    links: Links | None = None,
    read: Callable[[str], str] = read_text,
    masks: Callable[[str], tuple[str, ...]] = masks_of,
) -> dict[str, UnitState]:
    """The states of units by name, with one process for all of them.

    :param names: units, and shell patterns (``a@*.service``) that stand for the units systemd
        has in memory. Templates have no state and are left out.
    :param links: what :func:`enabled_links` found, if that is known already.
    :param read: reads the text of a file.
    :param masks: finds the masks of a unit.
    :raises HostError: systemd doesn't answer.
    """
    asked = sorted({name for name in names if not is_template(name)})
    if not asked:
        return {}
    try:
        shown = run(["systemctl", "show", "--property", ",".join(PROPERTIES), "--", *asked])
    except CommandError as error:
        raise HostError(f"systemd doesn't answer: {error}") from error
    linked = enabled_links() if links is None else links
    texts: dict[str, str] = {}
    found: dict[str, UnitState] = {}
    for block in parse_show(shown.out):
        if "Id" not in block:
            continue
        state = correct_enabled(unit_state(block), linked)
        paths = [path for path in (state.fragment_path, *state.drop_in_paths) if path]
        for path in paths:
            if path not in texts:
                texts[path] = read(path)
        found_masks = masks(state.name)
        remembered = state.load_state == "masked" and not found_masks
        state = replace(
            state,
            texts={path: texts[path] for path in paths},
            masked_by=found_masks,
            mask_is_gone=remembered and not is_mask(state.fragment_path),
        )
        for name in {state.name, *state.names}:
            found[name] = state
    return found
