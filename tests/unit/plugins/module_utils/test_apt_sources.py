# SPDX-License-Identifier: GPL-3.0-or-later
"""apt's two formats, and which entries a release is made from."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._apt_sources import (
    Source,
    has_password,
    parse_deb822,
    parse_list,
    read_sources,
    select,
)
from hypothesis import given
from hypothesis import strategies as st

DEBIAN = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.pgp"

LINES = """\
# deb http://commented.example/debian trixie main
deb http://deb.debian.org/debian trixie main contrib   # ours
deb-src http://deb.debian.org/debian trixie main
deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] https://download.docker.com/linux/debian trixie stable
  deb [ trusted=yes ] file:/srv/debian trixie-security main
deb http://flat.example ./
"""

DEB822 = """\
# the archive
Types: deb deb-src
URIs: http://deb.debian.org/debian http://ftp.example.org/debian
Suites: trixie trixie-updates
# a comment in between
Components: main
 contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp

Types: deb
URIs: http://off.example
Suites: trixie
Components: main
Enabled: No

Types: deb
URIs: http://third.example
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb-src
URIs: http://source.example
Suites: trixie
Components: main
"""


def test_one_line_entries() -> None:
    assert parse_list(LINES) == [
        Source(DEBIAN, "trixie", ("main", "contrib")),
        Source(
            "https://download.docker.com/linux/debian", "trixie", ("stable",), "/etc/apt/keyrings/docker.asc"
        ),
        Source("file:/srv/debian", "trixie-security", ("main",), trusted=True),
        Source("http://flat.example", "./", ()),
    ]


def test_deb822_entries() -> None:
    components = ("main", "contrib")
    assert parse_deb822(DEB822) == [
        Source(uri, suite, components, KEYRING)
        for uri in (DEBIAN, "http://ftp.example.org/debian")
        for suite in ("trixie", "trixie-updates")
    ]


def test_files_of_a_host(tmp_path: Path) -> None:
    parts = tmp_path / "etc/apt/sources.list.d"
    parts.mkdir(parents=True)
    (tmp_path / "etc/apt/sources.list").write_text("deb http://a.example trixie main\n")
    (parts / "b.sources").write_text("Types: deb\nURIs: http://b.example\nSuites: trixie\nComponents: main\n")
    (parts / "a.list").write_text("deb http://c.example trixie main\n")
    (parts / "a.list.save").write_text("deb http://d.example trixie main\n")
    assert [s.uri for s in read_sources(tmp_path)] == [
        "http://a.example",
        "http://c.example",
        "http://b.example",
    ]


def test_a_host_without_sources(tmp_path: Path) -> None:
    assert read_sources(tmp_path) == []


HASHICORP = Source("https://apt.example.com", "trixie", ("main",), "/etc/apt/keyrings/vendor.gpg")
COMPANY = Source("https://mirror.corp/debian", "trixie", ("main", "corp"), "/etc/apt/keyrings/corp.gpg")
ARCHIVE = Source(DEBIAN, "trixie", ("main", "contrib"), KEYRING)


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ([], []),
        ([ARCHIVE], [Source(DEBIAN, "trixie", ("main",), KEYRING)]),
        # a third party that happens to use the same suite and component
        ([HASHICORP, ARCHIVE], [Source(DEBIAN, "trixie", ("main",), KEYRING)]),
        # a mirror that a site signs itself, and nothing else
        (
            [COMPANY],
            [Source("https://mirror.corp/debian", "trixie", ("main",), "/etc/apt/keyrings/corp.gpg")],
        ),
        # other components only
        ([Source("https://download.docker.com/linux/debian", "trixie", ("stable",))], []),
        # pockets without the suite itself
        ([Source(DEBIAN, "trixie-updates", ("main",))], []),
        # twice the same
        ([ARCHIVE, ARCHIVE], [Source(DEBIAN, "trixie", ("main",), KEYRING)]),
        (
            [
                ARCHIVE,
                Source("http://s.example", "trixie-security", ("main",)),
                Source(DEBIAN, "bookworm", ("main",)),
            ],
            [
                Source(DEBIAN, "trixie", ("main",), KEYRING),
                Source("http://s.example", "trixie-security", ("main",)),
            ],
        ),
    ],
)
def test_select(host: list[Source], wanted: list[Source]) -> None:
    assert select(host, "trixie", ("updates", "security"), ("main",)) == wanted


words = st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True)
entries = st.builds(
    Source,
    uri=words.map(lambda host: f"http://{host}.example/debian"),
    suite=words,
    components=st.lists(words, min_size=1, max_size=3).map(tuple),
    signed_by=st.sampled_from(["", KEYRING]),
    trusted=st.booleans(),
)


@given(st.lists(entries, max_size=5))
def test_what_is_written_is_read_again(sources: list[Source]) -> None:
    assert parse_list("\n".join(source.line() for source in sources)) == sources


@given(st.text(max_size=300))
def test_parsers_take_any_text(text: str) -> None:
    assert isinstance(parse_list(text), list)
    assert isinstance(parse_deb822(text), list)


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("http://user:secret@mirror.example/debian", True),
        ("https://token@mirror.example/debian", True),
        ("http://mirror.example/debian", False),
        ("http://mirror.example/a@b", False),
        ("file:/srv/debian", False),
        ("", False),
    ],
)
def test_passwords_in_addresses(uri: str, found: bool) -> None:
    assert has_password(uri) is found
