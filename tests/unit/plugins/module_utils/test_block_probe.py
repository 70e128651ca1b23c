# SPDX-License-Identifier: GPL-3.0-or-later
"""Touching a device: what can be shown without one. The rest is shown on loop devices."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._block_probe import (
    CLAIMS,
    Touched,
    is_filled,
    touch,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("claim", [False, True])
def test_a_file_is_no_device(tmp_path: Path, claim: bool) -> None:
    file = tmp_path / "image"
    file.write_bytes(b"\0" * 4096)
    before = file.stat()
    assert touch(str(file), 4096, "8:0", claim=claim) == Touched(error="its node isn't a block device")
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def test_what_is_not_there(tmp_path: Path) -> None:
    found = touch(str(tmp_path / "sdz"), 4096, "8:0")
    assert found == Touched(opened=False, error="it can't be opened: No such file or directory")


class Claimed:
    """Stands in for :func:`os.open` on a device that others hold for the first ``refused`` claims."""

    def __init__(self, refused: int) -> None:
        self.left = refused
        self.asked = 0

    def __call__(self, path: str, flags: int) -> int:
        assert flags & os.O_EXCL
        self.asked += 1
        if self.left:
            self.left -= 1
            raise OSError(errno.EBUSY, "Device or resource busy")
        return _open("/dev/null", os.O_RDONLY)


_open = os.open


@pytest.mark.parametrize(("refused", "busy"), [(0, False), (CLAIMS - 1, False), (CLAIMS, True)])
def test_who_claims_for_a_moment_only_looks(
    monkeypatch: pytest.MonkeyPatch, refused: int, busy: bool
) -> None:
    claimed = Claimed(refused)
    rested: list[float] = []
    monkeypatch.setattr(f"{touch.__module__}.os.open", claimed)
    monkeypatch.setattr(f"{touch.__module__}.time.sleep", rested.append)
    found = touch("/dev/sdz", 4096, None, claim=True)
    monkeypatch.undo()
    assert found.busy is (True if busy else None)
    assert claimed.asked == min(refused + 1, CLAIMS)
    assert len(rested) == claimed.asked - 1


@given(st.binary(max_size=64), st.sampled_from([b"\0", b"\xff"]))
def test_filled(data: bytes, byte: bytes) -> None:
    assert is_filled(data, byte) is all(data[index : index + 1] == byte for index in range(len(data)))
    assert is_filled(byte * 64, byte)
