# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory is asked, and nothing else is."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._directory_ioctl import ask_directory


@pytest.mark.parametrize("size", [17, 4096])
def test_the_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int) -> None:
    asked = []

    def ioctl(descriptor: int, request: int, argument: bytearray) -> int:
        asked.append((os.readlink(f"/proc/self/fd/{descriptor}"), request, bytes(argument)))
        argument[0] = 16
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    assert ask_directory(str(tmp_path), 7, bytes(size)) == b"\x10" + bytes(size - 1)
    assert asked == [(str(tmp_path.resolve()), 7, bytes(size))]


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, number in (("file", errno.ENOTDIR), ("pipe", errno.ENOTDIR), ("none", errno.ENOENT)):
        with pytest.raises(OSError, match=name) as caught:
            ask_directory(str(tmp_path / name), 7, b"")
        assert caught.value.errno == number


def test_a_request_that_the_file_system_does_not_know(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="ioctl") as caught:
        ask_directory(str(tmp_path), 0xDEAD, bytes(8))
    assert caught.value.errno == errno.ENOTTY
    assert os.listdir("/proc/self/fd") == before
