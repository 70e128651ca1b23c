# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a cache is used again after the machine went down."""

from __future__ import annotations

from pathlib import Path

import pytest
from matryoshka_runner import dataroot
from matryoshka_runner.files import write_whole
from matryoshka_runner.meter import Disk
from matryoshka_runner.trust import Trust, set_aside_roots, sync_all


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with something in it, on a disk with room."""
    monkeypatch.setattr(Disk, "of", classmethod(lambda cls, path: cls(path, 100, 90)))
    root = tmp_path / "runner" / "data"
    (root / "image").mkdir(parents=True)
    return root


def start(data: Path, boot: str, said: list[str] | None = None) -> Trust:
    return Trust(data, (said if said is not None else []).append, lambda: boot)


def mark(data: Path) -> str:
    return data.with_name("data.mark").read_text(encoding="utf-8")


def test_a_root_without_a_mark_is_trusted_and_gets_one(data: Path) -> None:
    assert start(data, "a").begin() == []
    assert (data / "image").is_dir()
    assert mark(data) == "dirty a\n"


def test_what_a_killed_daemon_left_is_trusted_while_the_machine_runs(data: Path) -> None:
    start(data, "a").begin()
    assert start(data, "a").begin() == []
    assert (data / "image").is_dir()


def test_after_a_clean_end_the_root_is_trusted_in_any_boot(data: Path) -> None:
    first = start(data, "a")
    first.begin()
    first.end()
    assert mark(data) == "clean\n"
    assert start(data, "b").begin() == []
    assert (data / "image").is_dir()
    assert mark(data) == "dirty b\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("dirty a\n", "the machine went down while a daemon wrote in it"),
        ("", "can't be read: ''"),
        ("\0\0\0\0", "can't be read"),
        ("dirty", "can't be read: 'dirty'"),
    ],
)
def test_a_root_that_was_written_to_in_a_power_cut_is_set_aside_and_named(
    data: Path, text: str, reason: str
) -> None:
    data.with_name("data.mark").write_text(text, encoding="utf-8")
    said: list[str] = []
    here = start(data, "b", said)
    assert here.begin() == []
    (aside,) = set_aside_roots(data.parent)
    assert (aside / "image").is_dir()
    assert not data.exists()
    assert mark(data) == "dirty b\n"
    assert reason in said[0]
    assert str(aside) in said[0]
    found = here.found(None)
    assert found is not None
    assert (found["path"], reason in found["reason"]) == (str(aside), True)
    assert start(data, "b").found(found) == found
    unknown = start(data, "c").found({"path": "/gone"})
    assert unknown is not None
    assert unknown["path"] == str(aside)


def test_only_the_newest_is_kept_and_a_crash_leaves_it(data: Path) -> None:
    here = start(data, "a")
    assert here.set_aside("one") == []
    data.mkdir()
    (data / "image").mkdir()
    (first,) = set_aside_roots(data.parent)
    assert here.set_aside("two") == [first]
    assert dataroot.left_roots(data.parent) == []


def test_where_room_is_scarce_it_isnt_kept(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Disk, "of", classmethod(lambda cls, path: cls(path, 100, 10)))
    said: list[str] = []
    (gone,) = start(data, "a", said).set_aside("it is full")
    assert gone.name.startswith("data-untrusted-")
    assert "it is removed, as room is scarce" in said[0]


def test_an_empty_root_has_nothing_to_be_set_aside(data: Path) -> None:
    (data / "image").rmdir()
    data.with_name("data.mark").write_text("dirty a\n", encoding="utf-8")
    here = start(data, "b")
    assert here.begin() == []
    assert here.found(None) is None


def test_a_root_that_no_daemon_began_on_isnt_called_clean(data: Path) -> None:
    data.with_name("data.mark").write_text("dirty a\n", encoding="utf-8")
    start(data, "b").end()
    assert mark(data) == "dirty a\n"


def test_the_mark_is_durable_before_a_daemon_writes_and_costs_nothing_after(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def recorded(path: Path, text: str, mode: int) -> None:
        written.append(text)
        write_whole(path, text, mode)

    monkeypatch.setattr("matryoshka_runner.trust.write_whole", recorded)
    here = start(data, "a")
    here.begin()
    here.begin()
    assert written == ["dirty a\n"]


def test_all_of_a_file_system_is_brought_to_disk(tmp_path: Path) -> None:
    sync_all(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_all(tmp_path / "gone")
