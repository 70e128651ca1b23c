# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unit names and unit texts: what is allowed in them, whose they are, what of them matters.

Pure. Syntax after systemd.unit(5) and systemd.syntax(7).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError

MARKER = "# Managed by matryoshka.host: "
SUFFIXES = {
    "automount": "Automount",
    "mount": "Mount",
    "path": "Path",
    "scope": "Scope",
    "service": "Service",
    "slice": "Slice",
    "socket": "Socket",
    "swap": "Swap",
    "target": "Target",
    "timer": "Timer",
}
_OWNER = re.compile(r"^[a-z][a-z0-9_-]{0,63}$")
_UNIT = re.compile(rf"^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?\.({'|'.join(SUFFIXES)})$")
_INSTANCE = re.compile(r"^[A-Za-z0-9:_.\\-]+$")
_DROP_IN = re.compile(r"^[A-Za-z0-9:_][A-Za-z0-9:_.@-]*\.conf$")
_SECTION = re.compile(r"^\[([A-Za-z][A-Za-z0-9-]*)\]$")
_KEY = re.compile(r"^[A-Za-z][A-Za-z0-9-]*$")


class Setting(NamedTuple):
    """One assignment of a unit text; ``line`` counts from 1."""

    line: int
    section: str
    key: str
    value: str


class TextError(ValueError):
    """A unit text that systemd wouldn't take whole; ``args`` are the line and the reason."""


def check_owner(variable: str, owner: str) -> str:
    """Return ``owner`` or refuse it."""
    if not _OWNER.fullmatch(owner):
        raise InputError(variable, owner, "a lowercase letter, then lowercase letters, digits, - or _")
    return owner


def check_unit_name(variable: str, name: str) -> str:
    """Return ``name`` or refuse it as no name of a unit or template."""
    if len(name) > 255 or not _UNIT.fullmatch(name):
        allowed = "NAME.TYPE or NAME@.TYPE of ASCII letters, digits and :_.\\-, TYPE one of "
        raise InputError(variable, name, allowed + ", ".join(SUFFIXES))
    return name


def check_instance(variable: str, instance: str) -> str:
    """Return ``instance`` or refuse it as no name of a template's instance."""
    if len(instance) > 128 or not _INSTANCE.fullmatch(instance):
        raise InputError(variable, instance, "1 to 128 ASCII letters, digits and :_.\\-")
    return instance


def check_drop_in_name(variable: str, name: str) -> str:
    """Return ``name`` or refuse it as no file name of a drop-in."""
    if len(name) > 200 or not _DROP_IN.fullmatch(name):
        raise InputError(variable, name, "a file name that ends in .conf, no / and no leading dot")
    return name


def is_template(name: str) -> bool:
    """Whether ``name`` is a template: ``a@.service`` is, ``a@b.service`` isn't."""
    return "@." in name and name.partition("@")[2].startswith(".")


def instantiate(template: str, instance: str) -> str:
    """``a@.service`` and ``b`` give ``a@b.service``."""
    prefix, _at, suffix = template.partition("@")
    return f"{prefix}@{instance}{suffix}"


def template_of(name: str) -> str | None:
    """The template that ``name`` is an instance of, if it is one."""
    if "@" not in name or is_template(name):
        return None
    return f"{name.partition('@')[0]}@.{name.rpartition('.')[2]}"


def owner_of(text: str) -> str | None:
    """The owner that the marker on the first line names; None for a foreign text."""
    first = text.partition("\n")[0]
    return first[len(MARKER) :].strip() or None if first.startswith(MARKER) else None


def marked(owner: str, text: str) -> str:
    """``text`` with the marker of ``owner`` as its first line and one newline at its end."""
    body = text.strip("\n")
    line = MARKER + owner
    return f"{body}\n" if body.partition("\n")[0].rstrip() == line else f"{line}\n{body}\n"


def parse_unit(text: str) -> list[Setting]:
    """The assignments of a unit text in their order.

    :raises TextError: a line that is no section, assignment, comment or continuation.
    """
    found: list[Setting] = []
    section = ""
    for number, line in _logical_lines(text):
        head = _SECTION.fullmatch(line)
        if head:
            section = head.group(1)
            continue
        key, equals, value = line.partition("=")
        key = key.strip()
        if line.startswith("["):
            raise TextError(number, f"no section header: {line!r}")
        if not equals:
            raise TextError(number, f"neither [Section] nor Key=Value: {line!r}")
        if not _KEY.fullmatch(key):
            raise TextError(number, f"no name of a setting: {key!r}")
        if not section:
            raise TextError(number, f"{key!r} stands before the first [Section]")
        found.append(Setting(number, section, key, value.strip()))
    return found


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    held, begun = "", 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip() if not held else raw.rstrip()
        if line.lstrip()[:1] in ("#", ";") or (not line and not held):
            continue
        begun = begun if held else number
        if line.endswith("\\"):
            held += line[:-1] + " "
            continue
        yield begun, (held + line).strip()
        held = ""
    if held:
        raise TextError(begun, "continues after the end of the text")


def check_text(variable: str, name: str, text: str, owner: str) -> list[Setting]:
    """Refuse a text that isn't one for unit ``name``, or that is marked as somebody else's."""
    if "\0" in text or "\r" in text:
        raise InputError(variable, name, "a text without NUL and carriage return characters")
    if owner_of(text) not in (None, owner):
        raise InputError(variable, text.partition("\n")[0], f"no marker, or {MARKER + owner!r}")
    try:
        settings = parse_unit(text)
    except TextError as error:
        line, reason = error.args
        raise InputError(f"{variable} line {line}", reason, "systemd.syntax(7)") from error
    kind = SUFFIXES[name.rpartition(".")[2]]
    for setting in settings:
        if setting.section not in ("Unit", "Install", kind) and not setting.section.startswith("X-"):
            raise InputError(
                f"{variable} line {setting.line}",
                f"[{setting.section}]",
                f"[Unit], [{kind}], [Install], [X-…]",
            )
    if not settings:
        raise InputError(variable, text, "at least one setting")
    return settings


def effect(text: str) -> list[tuple[str, str, str]]:
    """What of a text an active unit can feel: every setting outside of [Install].

    A text that can't be parsed is compared as a whole.
    """
    try:
        return [(s.section, s.key, s.value) for s in parse_unit(text) if s.section != "Install"]
    except TextError:
        return [("", "", text)]


def install(text: str) -> list[tuple[str, str]]:
    """The settings in [Install], which decide how the unit is enabled."""
    try:
        return [(s.key, s.value) for s in parse_unit(text) if s.section == "Install"]
    except TextError:
        return []


def names_of_settings(text: str) -> list[str]:
    """The settings of a text as ``Section.Key``, each once, sorted."""
    try:
        return sorted({f"{s.section}.{s.key}" for s in parse_unit(text)})
    except TextError as error:
        return [f"unreadable line {error.args[0]}"]
