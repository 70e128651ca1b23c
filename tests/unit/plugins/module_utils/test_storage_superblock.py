# SPDX-License-Identifier: GPL-3.0-or-later
"""Superblocks of file systems that were really made, and of what is none."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._storage_superblock import HEAD, parse, read
from hypothesis import given
from hypothesis import strategies as st

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "volume"
RECORDED: list[dict[str, Any]] = json.loads((FIXTURES / "superblocks.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded["name"])
def test_recorded_superblocks(recorded: dict[str, Any]) -> None:
    found = parse(gzip.decompress((FIXTURES / f"{recorded['name']}.head.gz").read_bytes()))
    assert found is not None
    assert (found.filesystem, found.uuid, found.size) == (
        recorded["filesystem"],
        recorded["uuid"],
        recorded["size"],
    )
    assert (found.reflink, found.project) == (recorded["reflink"], recorded["project"])


def test_what_is_no_file_system() -> None:
    for head in (b"", b"\0" * HEAD, b"LUKS\xba\xbe" + b"\0" * HEAD, b"XFSB", b"\xff" * HEAD):
        assert parse(head) is None


def test_what_cannot_be_read(tmp_path: Path) -> None:
    assert read(str(tmp_path / "absent")) is None
    assert read(str(tmp_path)) is None


@given(st.binary(max_size=300))
def test_no_beginning_breaks_it(head: bytes) -> None:
    assert parse(head) is None or head.startswith(b"XFSB")
    parse(b"XFSB" + head)
    parse(b"\0" * (1024 + 0x38) + b"\x53\xef" + head)
