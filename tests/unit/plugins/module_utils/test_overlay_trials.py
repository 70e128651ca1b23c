# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the probe needs no root: judging a trial, system calls that only read, and starting it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _overlay_kernel as kernel
from ansible_collections.matryoshka.host.plugins.module_utils import _overlay_start as start
from ansible_collections.matryoshka.host.plugins.module_utils import _overlay_trials as trials
from ansible_collections.matryoshka.host.plugins.module_utils._command import run


def failing(number: int) -> None:
    raise OSError(number, os.strerror(number))


def test_attempts() -> None:
    assert trials.attempt(lambda: None) == {"works": True, "errno": None, "error": None}
    assert trials.attempt(lambda: "it is red") == {"works": False, "errno": None, "error": "it is red"}
    refused = trials.attempt(lambda: failing(errno.EINVAL))
    assert refused == {"works": False, "errno": "EINVAL", "error": "Invalid argument"}


@pytest.mark.parametrize("number", trials.NO_ROOM)
def test_no_room_says_nothing_of_overlay(number: int) -> None:
    with pytest.raises(OSError) as raised:
        trials.attempt(lambda: failing(number))
    assert raised.value.errno == number


def test_names_of_errors() -> None:
    assert [kernel.errno_name(number) for number in (22, 18, 9999, None)] == ["EINVAL", "EXDEV", "9999", None]


def test_entry_types(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file ü").touch()
    (tmp_path / "link").symlink_to("file")
    kinds = {"directory": stat.S_IFDIR, "file ü": stat.S_IFREG, "link": stat.S_IFLNK}
    assert kernel.entry_types(str(tmp_path)) == {name: kind >> 12 for name, kind in kinds.items()}
    with pytest.raises(FileNotFoundError, match="opendir"):
        kernel.entry_types(str(tmp_path / "none"))


def test_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = trials.Layers("t1"), trials.Layers("t2")
    assert one.options() == "lowerdir=lower/l2:lower/l1,upperdir=t1/u,workdir=t1/w"
    assert two.options("volatile", lowers=("l1",)) == "lowerdir=lower/l1,upperdir=t2/u,workdir=t2/w,volatile"
    assert one.read("l1/file") == "l1/file"
    assert sorted(os.listdir()) == ["lower", "t1", "t2"]


def test_a_merged_directory_that_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an overlay the merged directory is empty, and each trial says so."""
    monkeypatch.chdir(tmp_path)
    layers = trials.Layers("t")
    assert trials.attempt(lambda: trials.copy_up(layers))["errno"] == "ENOENT"
    trials.write(layers.path("m/second"), "l2/second")
    assert trials.attempt(lambda: trials.copy_up(layers))["errno"] == "ENOENT"
    trials.write(layers.path("m/second"), "other")
    assert trials.copy_up(layers) == "the merged directory doesn't show the second lower layer"
    (tmp_path / "t/m/shadowed").mkdir()
    (tmp_path / "t/m/shadowed/x").write_text("other")
    assert trials.rename_dir(layers) == "a directory that was renamed lost what was in it"


def test_the_probe_starts_from_its_source(tmp_path: Path) -> None:
    """In a Python of its own, without the collection; where no directory can be made it says so."""
    (tmp_path / "file").touch()
    parents = {"/one": str(tmp_path / "file"), "/two": str(tmp_path / "none")}
    found = start.run_probe(run, parents, timeout=5.0)
    assert {path: (one["failed"], one["errno"]) for path, one in found.items()} == {
        "/one": ("scratch", "ENOTDIR"),
        "/two": ("scratch", "ENOENT"),
    }
    assert os.listdir(tmp_path) == ["file"]


def test_the_program_has_every_part_once() -> None:
    text = start.program({"parents": {}})
    for part in start.PARTS:
        assert text.count(f"'{part.__name__}'") == 1
    compile(text, "probe", "exec")
