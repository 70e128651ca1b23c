# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""apt's sources: both of its formats (sources.list(5)), and which entries carry a suite."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCES_LIST = "etc/apt/sources.list"
SOURCES_PARTS = "etc/apt/sources.list.d"
ARCHIVE_KEYRING = re.compile(r"(debian|ubuntu)-archive-[a-z-]*\.(gpg|pgp|asc)$")
NO = {"no", "false", "without", "off", "disable"}


@dataclass(frozen=True)
class Source:
    """One ``deb`` entry: one address, one suite, its components.

    ``signed_by`` is a path of a keyring, or empty for apt's trusted keys.
    """

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""
    trusted: bool = False

    @property
    def official(self) -> bool:
        """Whether it is signed with the distribution's own keys."""
        return not self.signed_by or bool(ARCHIVE_KEYRING.search(self.signed_by))

    def line(self) -> str:
        """The entry in one-line format."""
        options = [f"signed-by={self.signed_by}"] if self.signed_by else []
        options += ["trusted=yes"] if self.trusted else []
        bracket = f"[{' '.join(options)}] " if options else ""
        return f"deb {bracket}{self.uri} {self.suite} {' '.join(self.components)}".rstrip()


def parse_list(text: str) -> list[Source]:
    """The ``deb`` entries of a file in one-line format; lines that aren't such are passed over."""
    found = []
    for line in text.splitlines():
        matched = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?([^#\s]+)\s+([^#\s]+)([^#]*)", line)
        if not matched:
            continue
        options = dict(option.split("=", 1) for option in (matched[1] or "").split() if "=" in option)
        found.append(
            Source(
                matched[2],
                matched[3],
                tuple(matched[4].split()),
                options.get("signed-by", ""),
                options.get("trusted", "no") == "yes",
            )
        )
    return found


def _stanzas(text: str) -> Iterable[dict[str, str]]:
    """The stanzas of a deb822 file: lower-case field to value, continuation lines joined by newlines."""
    fields: dict[str, str] = {}
    last = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, last = {}, ""
        elif line[0] in " \t":
            if last:
                fields[last] += "\n" + line.strip()
        elif ":" in line:
            last, value = line.split(":", 1)
            last = last.strip().lower()
            fields[last] = value.strip()


def parse_deb822(text: str) -> list[Source]:
    """The enabled ``deb`` entries of a deb822 file.

    Entries whose key is written into the stanza itself are passed over: they are third parties'.
    """
    found = []
    for fields in _stanzas(text):
        key = fields.get("signed-by", "")
        if "deb" not in fields.get("types", "").split() or "BEGIN PGP" in key:
            continue
        if fields.get("enabled", "yes").lower() in NO:
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                components = tuple(fields.get("components", "").split())
                trusted = fields.get("trusted", "no").lower() == "yes"
                found.append(Source(uri, suite, components, " ".join(key.split()), trusted))
    return found


def read_sources(root: Path = Path("/")) -> list[Source]:
    """All entries of a host, in apt's order."""
    found: list[Source] = []
    main = root / SOURCES_LIST
    parts = root / SOURCES_PARTS
    files = [main] if main.is_file() else []
    files += sorted(parts.glob("*")) if parts.is_dir() else []
    for path in files:
        if path.suffix not in (".list", ".sources"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += parse_deb822(text) if path.suffix == ".sources" else parse_list(text)
    return found


def suites(suite: str, pockets: Sequence[str]) -> list[str]:
    """The suite and its pockets: ``trixie``, ``trixie-updates``, …"""
    return [suite, *(f"{suite}-{pocket}" for pocket in pockets)]


def select(
    sources: Sequence[Source], suite: str, pockets: Sequence[str], components: Sequence[str]
) -> list[Source]:
    """The entries that a system of ``suite`` is made from, or none if the suite itself isn't among them.

    Others than the distribution's own are taken only for a suite that has no entry of its own
    (a mirror that a site signs itself). Components are cut down to those asked for.
    """
    found: list[Source] = []
    for wanted in suites(suite, pockets):
        fitting = [
            Source(source.uri, wanted, kept, source.signed_by, source.trusted)
            for source in sources
            if source.suite == wanted and (kept := tuple(c for c in source.components if c in components))
        ]
        found += [source for source in fitting if source.official] or fitting
        if wanted == suite and not found:
            return []
    return list(dict.fromkeys(found))


def has_password(uri: str) -> bool:
    """Whether an address carries a user name or password."""
    return bool(re.match(r"[a-z0-9+.-]+:(//)?[^/\s]*@", uri, re.IGNORECASE))
