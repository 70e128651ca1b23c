# SPDX-License-Identifier: GPL-3.0-or-later
"""Many files at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _config_files as config_files
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError


def go(check_mode: bool = False, **parameters: Any) -> dict[str, Any]:
    plan = config_files.plan(config_files.parse(parameters, lenient=check_mode))
    if not check_mode:
        config_files.apply(plan)
    return plan.result()


def tree(root: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(root)): (
            path.read_text() if path.is_file() else "",
            path.lstat().st_mode & 0o7777,
        )
        for path in sorted(root.rglob("*"))
    }


def wanted(root: Path) -> dict[str, Any]:
    return {
        "directories": [{"path": f"{root}/runners", "mode": "0700"}],
        "files": [
            {"path": f"{root}/runners/a.json", "content": "{}", "mode": "0600"},
            {"path": f"{root}/deep/er/b.conf", "content": "é\n"},
        ],
        "absent": [f"{root}/gone", f"{root}/old", f"{root}/old/inner", f"{root}/never"],
        "orphans": [{"directory": f"{root}/runners", "pattern": "*.json"}],
    }


def prepare(root: Path) -> None:
    (root / "runners").mkdir(mode=0o755)
    for name in ("left.json", "left.txt"):
        (root / "runners" / name).write_text("x")
    (root / "runners" / "folder.json").mkdir()
    (root / "gone").symlink_to("/etc")
    (root / "old").mkdir()
    (root / "old" / "inner").write_text("x")


def test_all_kinds_of_change_then_none(tmp_path: Path) -> None:
    prepare(tmp_path)
    before = tree(tmp_path)
    told = go(check_mode=True, **wanted(tmp_path))
    assert tree(tmp_path) == before
    done = go(**wanted(tmp_path))
    assert done == told
    assert done["changed_paths"] == [
        f"{tmp_path}/{name}" for name in ("runners", "deep", "deep/er", "runners/a.json", "deep/er/b.conf")
    ]
    assert sorted(done["removed_paths"]) == sorted(
        f"{tmp_path}/{name}" for name in ("runners/left.json", "old/inner", "gone", "old")
    )
    assert done["removed_paths"][-1] == f"{tmp_path}/old"
    assert tree(tmp_path) == {
        "deep": ("", 0o755),
        "deep/er": ("", 0o755),
        "deep/er/b.conf": ("é\n", 0o644),
        "runners": ("", 0o700),
        "runners/a.json": ("{}", 0o600),
        "runners/folder.json": ("", before["runners/folder.json"][1]),
        "runners/left.txt": ("x", before["runners/left.txt"][1]),
    }
    again = go(**wanted(tmp_path))
    assert again == {"changed": False, "changed_paths": [], "removed_paths": [], "diff": []}


def test_unchanged_file_keeps_its_inode_when_only_its_neighbour_changes(tmp_path: Path) -> None:
    files = [{"path": f"{tmp_path}/{name}", "content": name} for name in "ab"]
    go(files=files)
    inode = (tmp_path / "a").stat().st_ino
    files[1]["content"] = "c"
    result = go(files=files)
    assert result["changed_paths"] == [f"{tmp_path}/b"] and (tmp_path / "a").stat().st_ino == inode
    assert result["diff"] == [
        {"before_header": f"{tmp_path}/b", "after_header": f"{tmp_path}/b", "before": "b", "after": "c"}
    ]


def test_mode_alone_is_a_change(tmp_path: Path) -> None:
    files = [{"path": f"{tmp_path}/a", "content": "a"}]
    go(files=files)
    (tmp_path / "a").chmod(0o666)
    result = go(files=files)
    assert result["changed"] and (tmp_path / "a").stat().st_mode & 0o777 == 0o644
    assert result["diff"][0]["before"].startswith("mode 0666") and result["diff"][0]["after"].startswith(
        "mode 0644"
    )


def test_secret_content_is_not_in_the_result(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("0ld-secret")
    for name in "ab":
        files = [{"path": f"{tmp_path}/{name}", "content": "s3cret", "secret": True, "mode": "0600"}]
        result = go(files=files)
        assert result["changed"] and "s3cret" not in repr(result) and "0ld-secret" not in repr(result)
        assert (tmp_path / name).read_text() == "s3cret"


def test_check_mode_before_the_owner_exists(tmp_path: Path) -> None:
    files = [
        {"path": f"{tmp_path}/no/where/a", "content": "", "owner": "nobody-here", "group": "nobody-here"}
    ]
    assert go(check_mode=True, files=files)["changed"]
    with pytest.raises(HostError) as caught:
        go(files=files)
    assert str(caught.value) == (
        "files[0].owner: 'nobody-here' is refused; allowed: a user on this host, or a uid"
    )


PLAIN = "an absolute path without '..', '//' and a slash at its end"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"files": [{"path": "a", "content": ""}]}, f"files[1].path: 'a' is refused; allowed: {PLAIN}"),
    (
        {"files": [{"path": "{r}/x/../a", "content": ""}]},
        f"files[1].path: '{{r}}/x/../a' is refused; allowed: {PLAIN}",
    ),
    (
        {"files": [{"path": "{r}/a/", "content": ""}]},
        f"files[1].path: '{{r}}/a/' is refused; allowed: {PLAIN}",
    ),
    ({"directories": [{"path": "/"}]}, f"directories[0].path: '/' is refused; allowed: {PLAIN}"),
    ({"absent": ["x"]}, f"absent[0]: 'x' is refused; allowed: {PLAIN}"),
    (
        {"files": [{"path": "{r}/first", "content": ""}]},
        "files[1].path: '{r}/first' is refused; allowed: each path once; files[0].path is the same",
    ),
    (
        {"absent": ["{r}/first"]},
        "absent[0]: '{r}/first' is refused; allowed: each path once; files[0].path is the same",
    ),
    (
        {"files": [{"path": "{r}/a", "content": "", "mode": "rw"}]},
        "files[1].mode: 'rw' is refused; allowed: octal permission bits as text, such as '0644'",
    ),
    (
        {"directories": [{"path": "{r}/a", "mode": "493"}]},
        "directories[0].mode: '493' is refused; allowed: octal permission bits as text, such as '0644'",
    ),
    (
        {"files": [{"path": "{r}/folder", "content": ""}]},
        "files[1].path: '{r}/folder' is refused; allowed: a file, or nothing yet; a directory is there",
    ),
    (
        {"files": [{"path": "{r}/link", "content": ""}]},
        "files[1].path: '{r}/link' is refused; allowed: a file, or nothing yet; a link is there",
    ),
    (
        {"files": [{"path": "{r}/pipe", "content": ""}]},
        "files[1].path: '{r}/pipe' is refused; allowed: a file, or nothing yet; a special file is there",
    ),
    (
        {"files": [{"path": "{r}/file/a", "content": ""}]},
        "files[1].path: '{r}/file/a' is refused; allowed: a path in a directory; {r}/file is a file",
    ),
    (
        {"files": [{"path": "{r}/first/a", "content": ""}]},
        "files[1].path: '{r}/first/a' is refused; allowed: a path that isn't inside of the file {r}/first",
    ),
    (
        {"directories": [{"path": "{r}/file"}]},
        "directories[0].path: '{r}/file' is refused; allowed: a directory, or nothing yet; a file is there",
    ),
    (
        {"absent": ["{r}/folder"]},
        "absent[0]: '{r}/folder' is refused; allowed: a file, or a directory with nothing else in it; "
        "it has {r}/folder/kept",
    ),
    (
        {"absent": ["{r}/empty"], "directories": [{"path": "{r}/empty/a"}]},
        "absent[0]: '{r}/empty' is refused; allowed: a file, or a directory with nothing else in it; "
        "it has something wanted",
    ),
    (
        {"orphans": [{"directory": "x", "pattern": "*"}]},
        "orphans[0].directory: 'x' is refused; allowed: an absolute path without '..' and '//'",
    ),
    (
        {"orphans": [{"directory": "{r}", "pattern": "../*"}]},
        "orphans[0].pattern: '../*' is refused; allowed: a file name's pattern, such as '*.json', without '/'",
    ),
    (
        {"orphans": [{"directory": "{r}", "pattern": ""}]},
        "orphans[0].pattern: '' is refused; allowed: a file name's pattern, such as '*.json', without '/'",
    ),
]


def placed(value: Any, root: Path) -> Any:
    if isinstance(value, dict):
        return {key: placed(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [placed(item, root) for item in value]
    return value.replace("{r}", str(root)) if isinstance(value, str) else value


@pytest.mark.parametrize(("parameters", "message"), REFUSED)
def test_refused_before_the_first_write(parameters: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(os.listdir(tmp_path))
    more = placed(parameters, tmp_path)
    more["files"] = [{"path": f"{tmp_path}/first", "content": "x"}, *more.get("files", [])]
    with pytest.raises(HostError) as caught:
        go(**more)
    assert str(caught.value) == message.replace("{r}", str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == before


def test_missing_orphan_directory_is_no_error(tmp_path: Path) -> None:
    assert not go(orphans=[{"directory": f"{tmp_path}/no", "pattern": "*"}])["changed"]


def test_links_among_directories_above_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    go(files=[{"path": f"{tmp_path}/alias/a", "content": "x"}])
    assert (tmp_path / "real" / "a").read_text() == "x"


def test_nothing_wanted() -> None:
    assert not go()["changed"]
