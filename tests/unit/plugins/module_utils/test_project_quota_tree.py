# SPDX-License-Identifier: GPL-3.0-or-later
"""Walks: what is measured, what gets a project id, what is left alone."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _project_quota_tree as tree
from support.quota_double import FakeMarks

PROJECT = 65536


@pytest.fixture
def full(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "file").write_bytes(b"x" * 10000)
    os.link(top / "a" / "b" / "file", top / "again")
    (top / "link").symlink_to("/etc")
    os.mkfifo(top / "pipe")
    return top


def test_a_tree_is_measured_as_du_does(full: Path) -> None:
    walked = tree.measure(str(full))
    du = subprocess.run(["du", "-s", "-B1", str(full)], capture_output=True, text=True, check=True)
    assert walked.bytes == int(du.stdout.split()[0])
    assert walked.inodes == 6


def test_all_of_a_tree_is_marked_once(full: Path) -> None:
    marks = FakeMarks()
    walked = tree.mark(str(full), PROJECT, {0}, marks)
    assert {marks.of(path) for path in [full, *full.rglob("*")]} == {PROJECT}
    assert (walked.marked, walked.skipped) == (6, 0)
    assert marks.project_of(str(full / "a")) == (PROJECT, True)
    assert marks.project_of(str(full / "again")) == (PROJECT, False)
    assert marks.of(Path("/etc")) == 0


def test_an_older_kernel_leaves_links_and_pipes(full: Path) -> None:
    walked = tree.mark(str(full), PROJECT, {0}, FakeMarks(special=False))
    assert (walked.marked, walked.skipped) == (4, 2)


def test_a_project_within_is_left_alone(full: Path) -> None:
    marks = FakeMarks()
    marks.ids[(full / "a").stat().st_ino] = (7, True)
    tree.mark(str(full), PROJECT, {0}, marks)
    assert (marks.of(full / "a"), marks.of(full / "a" / "b")) == (7, 0)
    tree.mark(str(full), PROJECT, {0, 7}, marks)
    assert (marks.of(full / "a"), marks.of(full / "a" / "b")) == (PROJECT, PROJECT)


def test_a_directory_that_lost_its_inheritance_gets_it_again(full: Path) -> None:
    marks = FakeMarks()
    tree.mark(str(full), PROJECT, {0}, marks)
    marks.ids[(full / "a").stat().st_ino] = (PROJECT, False)
    marks.special = False
    assert tree.mark(str(full), PROJECT, set(), marks).marked == 1
    assert marks.project_of(str(full / "a")) == (PROJECT, True)


def test_marks_are_taken_away(full: Path) -> None:
    marks = FakeMarks()
    tree.mark(str(full), PROJECT, {0}, marks)
    tree.mark(str(full), 0, {PROJECT}, marks)
    assert set(marks.ids.values()) == {(0, False)}


def test_what_goes_during_the_walk_is_no_error(full: Path) -> None:
    class Removing(FakeMarks):
        def set_project(self, descriptor: int, project: int) -> None:
            super().set_project(descriptor, project)
            (full / "pipe").unlink(missing_ok=True)
            (full / "again").unlink(missing_ok=True)

    marks = Removing()
    tree.mark(str(full), PROJECT, {0}, marks)
    assert marks.of(full / "a" / "b" / "file") == PROJECT


def test_a_directory_replaced_by_a_link_is_not_followed(full: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("")

    class Replacing(FakeMarks):
        def set_project(self, descriptor: int, project: int) -> None:
            super().set_project(descriptor, project)
            if (full / "a" / "b").is_dir() and not (full / "a" / "b").is_symlink():
                (full / "a" / "b").rename(tmp_path / "elsewhere")
                (full / "a" / "b").symlink_to(outside)

    marks = Replacing()
    tree.mark(str(full), PROJECT, {0}, marks)
    assert (marks.of(outside), marks.of(outside / "file")) == (0, 0)


def test_an_error_of_the_file_system_comes_through_and_leaves_nothing_open(full: Path) -> None:
    class Refusing(FakeMarks):
        def set_project(self, descriptor: int, project: int) -> None:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EROFS, "read-only")
            super().set_project(descriptor, project)

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="read-only"):
        tree.mark(str(full), PROJECT, {0}, Refusing())
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_project_ids_is_none(tmp_path: Path) -> None:
    class Without(FakeMarks):
        def project_of(self, file: str | int) -> tuple[int, bool]:
            raise OSError(errno.ENOTTY, "not for this file system")

    assert tree.has_project_ids(str(tmp_path), Without()) is None
    assert tree.has_project_ids(str(tmp_path), FakeMarks()) == (0, False)
    with pytest.raises(FileNotFoundError):
        tree.has_project_ids(str(tmp_path / "none"), FakeMarks())
