# SPDX-License-Identifier: GPL-3.0-or-later
"""Scratch directories vanish: with their maker, by their guard, or by the next call."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _overlay_scratch as scratch
from hypothesis import given
from hypothesis import strategies as st

PATHS = st.sampled_from(["/a", "/b b", "/c\n", "/dü"])


@given(
    st.lists(st.tuples(st.booleans(), PATHS)), st.binary(max_size=6).filter(lambda rest: b"\0" not in rest)
)
def test_what_a_guard_was_told(messages: list[tuple[bool, str]], broken: bytes) -> None:
    """A message that was cut off says nothing."""
    told = b"".join((b"+" if made else b"-") + os.fsencode(path) + b"\0" for made, path in messages)
    expected = {path: made for made, path in messages}
    assert set(scratch.outstanding(told + broken)) == {path for path, made in expected.items() if made}


def wait_for(path: Path, gone: bool) -> None:
    end = time.monotonic() + 5
    while path.exists() is gone and time.monotonic() < end:
        time.sleep(0.005)
    assert path.exists() is not gone


def test_made_and_removed(tmp_path: Path) -> None:
    guard = scratch.Guard()
    one, two = scratch.Scratch(str(tmp_path), guard), scratch.Scratch(str(tmp_path), guard)
    assert sorted(os.listdir(tmp_path)) == sorted(os.path.basename(each.path) for each in (one, two))
    (Path(one.path) / "full/of").mkdir(parents=True)
    assert scratch.sweep(str(tmp_path)) == []
    one.remove()
    two.remove()
    guard.end()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_guard_clears_up_after_its_maker(tmp_path: Path, number: int) -> None:
    pid = os.fork()
    if pid == 0:
        one = scratch.Scratch(str(tmp_path), scratch.Guard())
        os.mkdir(os.path.join(one.path, "inner"))
        (tmp_path / "made").touch()
        time.sleep(60)
        os._exit(0)
    wait_for(tmp_path / "made", gone=False)
    left = next(each for each in tmp_path.iterdir() if each.name.startswith(scratch.PREFIX))
    os.kill(pid, number)
    os.waitpid(pid, 0)
    wait_for(left, gone=True)


def test_what_the_dead_left_is_swept(tmp_path: Path) -> None:
    left, used, other = (
        tmp_path / name for name in (f"{scratch.PREFIX}1-a", f"{scratch.PREFIX}1-b", ".other")
    )
    outside = tmp_path / "outside"
    for folder in (left, used, other, outside):
        folder.mkdir()
        (folder / "file").touch()
    (left / "link").symlink_to(outside)
    (tmp_path / f"{scratch.PREFIX}link").symlink_to(outside)
    (tmp_path / f"{scratch.PREFIX}file").touch()
    descriptor = os.open(used, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert scratch.sweep(str(tmp_path)) == [left.name]
    os.close(descriptor)
    assert (outside / "file").exists() and other.exists() and used.exists()
    assert scratch.sweep(str(tmp_path)) == [used.name]
    assert scratch.sweep(str(tmp_path / "none")) == []


def test_what_cannot_be_made_leaves_nothing_to_clear(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    guard = scratch.Guard()
    with pytest.raises(NotADirectoryError):
        scratch.Scratch(str(tmp_path / "file"), guard)
    guard.end()
    assert os.listdir(tmp_path) == ["file"]


def test_swept_away_while_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another call may see a directory before its maker has locked it."""
    mkdir, made = os.mkdir, []

    def sweeping(path: str, mode: int = 0o777) -> None:
        mkdir(path, mode)
        made.append(path)
        if len(made) < 3:
            assert scratch.sweep(str(tmp_path)) == [os.path.basename(path)]

    monkeypatch.setattr(os, "mkdir", sweeping)
    guard = scratch.Guard()
    one = scratch.Scratch(str(tmp_path), guard)
    assert len(made) == 3 and one.path == made[-1]
    one.remove()
    guard.end()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    guard = scratch.Guard()
    one = scratch.Scratch(str(tmp_path), guard)
    assert scratch.sweep(str(tmp_path)) == []
    one.remove()
    guard.end()
    assert os.listdir(tmp_path) == []
