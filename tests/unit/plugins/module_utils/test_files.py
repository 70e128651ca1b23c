# SPDX-License-Identifier: GPL-3.0-or-later
"""Atomic writes, attributes, backups, differences."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _files as files
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._files import Attributes


def test_new_file_gets_the_mode_for_new_ones_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        files.write_atomic(str(tmp_path / "a"), b"x", new_mode=0o644)
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o644


def test_present_mode_is_kept_unless_another_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    path.chmod(0o640)
    files.write_atomic(str(path), b"y")
    assert (path.read_text(), path.stat().st_mode & 0o7777) == ("y", 0o640)
    files.write_atomic(str(path), b"z", Attributes(mode=0o600))
    assert (path.read_text(), path.stat().st_mode & 0o7777) == ("z", 0o600)


def test_open_reader_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with path.open() as reader:
        files.write_atomic(str(path), b"new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("function", ["replace", "fsync", "chmod"])
def test_failure_leaves_the_old_file_and_nothing_else(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def fail(*_arguments: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(HostError) as caught:
        files.write_atomic(str(path), b"new")
    assert str(caught.value) == f"{path} can't be written: Input/output error"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"] and path.read_text() == "old"


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="No such file or directory"):
        files.write_atomic(str(tmp_path / "a" / "b"), b"")


def test_backups_do_not_replace_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    path.chmod(0o600)
    copies = {files.backup(str(path)) for _ in range(3)}
    assert len(copies) == 3
    for copy in copies:
        assert Path(copy).read_text() == "1" and Path(copy).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("value", "mode"), [("0644", 0o644), ("600", 0o600), ("2755", 0o2755), ("01777", 0o1777)]
)
def test_mode(value: str, mode: int) -> None:
    assert files.parse_mode("mode", value) == mode


@pytest.mark.parametrize("value", ["", "0999", "rw", "u=rw", 420, "64", "0o644", None, "01644x"])
def test_refused_mode(value: Any) -> None:
    with pytest.raises(InputError) as caught:
        files.parse_mode("mode", value)
    assert str(caught.value) == (
        f"mode: {value!r} is refused; allowed: octal permission bits as text, such as '0644'"
    )


def test_owners() -> None:
    assert files.user_id("owner", "root") == 0 and files.group_id("group", "root") == 0
    assert files.user_id("owner", "1234") == 1234 and files.group_id("group", None) is None
    assert files.user_id("owner", "nobody-here", lenient=True) == files.UNKNOWN
    assert files.group_id("group", "nobody-here", lenient=True) == files.UNKNOWN


def test_difference_hides_secrets() -> None:
    shown = files.difference("/x", "old secret", "new secret", secret=True)
    assert (
        "secret" not in shown["before"]
        and "secret" not in shown["after"]
        and shown["before"] != shown["after"]
    )
    new = files.difference("/x", None, "new secret", secret=True)
    assert (new["before_header"], new["before"], new["after"]) == ("/x (absent)", "", files.SECRET)
    assert files.difference("/x", "a", None)["after_header"] == "/x (absent)"


def test_kinds(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "special file")
    for kind in ("file", "directory", "link", "special file", "nothing"):
        assert files.kind_of(str(tmp_path / kind)) == kind
    assert files.kind_of(str(tmp_path / "file" / "below")) == "nothing"
