# SPDX-License-Identifier: GPL-3.0-or-later
"""Data roots that are taken and refused, from facts read of real directories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._data_root import judge_apart, judge_data_root
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._host_paths import read_path
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Disks, MountTable

VARIABLE = "runner_list[0].directory"


def facts(path: Path, filesystem: str = "ext4", options: str = "rw") -> dict[str, Any]:
    """Facts of a real path, as if ``/`` were of ``filesystem``."""
    mounts = MountTable.parse(f"1 0 8:1 / / {options} - {filesystem} /dev/sda1 {options}\n")
    return read_path(str(path), View(), mounts, Disks())


def mark(directory: Path, owner: str = "runner", name: str = "ci") -> None:
    (directory / ".matryoshka").write_text(json.dumps({"owner": owner, "name": name}))


def test_taken_absent(tmp_path: Path) -> None:
    judge_data_root(facts(tmp_path / "a/b/c"), VARIABLE)


def test_taken_empty(tmp_path: Path) -> None:
    judge_data_root(facts(tmp_path), VARIABLE, owner="runner", name="ci")
    (tmp_path / "lost+found").mkdir()
    judge_data_root(facts(tmp_path), VARIABLE)


def test_taken_ours(tmp_path: Path) -> None:
    mark(tmp_path)
    (tmp_path / "overlay2").mkdir()
    judge_data_root(facts(tmp_path), VARIABLE, owner="runner", name="ci")
    judge_data_root(facts(tmp_path), VARIABLE)


def test_taken_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    judge_data_root(facts(tmp_path / "link"), VARIABLE)


def test_taken_the_engine_s_own(tmp_path: Path) -> None:
    (tmp_path / "overlay2").mkdir()
    (tmp_path / "image").mkdir()
    judge_data_root(facts(tmp_path), "docker_data_root", engine_content=True)


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs", "zfs"])
def test_taken_file_systems(tmp_path: Path, filesystem: str) -> None:
    judge_data_root(facts(tmp_path, filesystem), VARIABLE)


@pytest.mark.parametrize(
    ("filesystem", "why"),
    [
        ("overlay", "can't stack layers on an overlay"),
        ("fuse.fuse-overlayfs", "can't stack layers on an overlay"),
        ("tmpfs", "keeps images in memory"),
        ("ramfs", "keeps images in memory"),
        ("nfs4", "network and FUSE file systems"),
        ("virtiofs", "network and FUSE file systems"),
        ("fuse.sshfs", "network and FUSE file systems"),
        ("vfat", "no engine is known"),
    ],
)
@pytest.mark.parametrize("absent", [True, False])
def test_refused_file_systems(tmp_path: Path, filesystem: str, why: str, absent: bool) -> None:
    path = tmp_path / "x" if absent else tmp_path
    with pytest.raises(InputError) as error:
        judge_data_root(facts(path, filesystem), VARIABLE)
    message = str(error.value)
    assert message.startswith(f"{VARIABLE}: {str(path)!r} is refused; allowed: a directory on ext4")
    assert f"{tmp_path} is on {filesystem} (mounted on /)" in message
    assert why in message


def test_refused_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("precious")
    with pytest.raises(InputError, match="this is a file"):
        judge_data_root(facts(tmp_path / "f"), VARIABLE)
    assert (tmp_path / "f").read_text() == "precious"


def test_refused_what_lies_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    found = facts(tmp_path / "f/data")
    assert found["mounted_on"] == str(tmp_path / "f")
    with pytest.raises(InputError, match="f is a file, so nothing can be in it"):
        judge_data_root(found, VARIABLE)


def test_refused_links(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    (tmp_path / "to-file").symlink_to("f")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(InputError, match="this is a file"):
        judge_data_root(facts(tmp_path / "to-file"), VARIABLE)
    with pytest.raises(InputError, match=r"symbolic link to .*/nowhere, which isn't there"):
        judge_data_root(facts(tmp_path / "dangling"), VARIABLE)


def test_refused_a_device() -> None:
    with pytest.raises(InputError, match="this is neither a directory nor a file"):
        judge_data_root(facts(Path("/dev/null")), VARIABLE)


def test_refused_not_ours(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=r"isn't empty and nothing marks it as ours \(photos\)"):
        judge_data_root(facts(tmp_path), VARIABLE, owner="runner", engine_content=True)


def test_refused_another_engine_s(tmp_path: Path) -> None:
    (tmp_path / "overlay2").mkdir()
    with pytest.raises(InputError, match="another engine's data"):
        judge_data_root(facts(tmp_path), VARIABLE, owner="runner", name="ci")


@pytest.mark.parametrize(("owner", "name"), [("runner", "other"), ("docker", "ci")])
def test_refused_marked_by_another(tmp_path: Path, owner: str, name: str) -> None:
    mark(tmp_path, owner, name)
    with pytest.raises(InputError, match=f"belongs to {owner} {name}"):
        judge_data_root(facts(tmp_path), VARIABLE, owner="runner", name="ci")


def test_refused_a_broken_mark(tmp_path: Path) -> None:
    (tmp_path / ".matryoshka").write_text("not json")
    with pytest.raises(InputError, match="belongs to an unknown owner"):
        judge_data_root(facts(tmp_path), VARIABLE, owner="runner", name="ci")


def test_refused_read_only(tmp_path: Path) -> None:
    with pytest.raises(
        HostError, match=r"mounted read-only; remount it read-write \(mount -o remount,rw /\)"
    ):
        judge_data_root(facts(tmp_path, options="ro"), VARIABLE)


def test_refused_relative() -> None:
    with pytest.raises(InputError, match="an absolute path"):
        judge_data_root({"path": "data"}, VARIABLE)


def test_two_roots_apart(tmp_path: Path) -> None:
    for name in ("a", "ab"):
        (tmp_path / name).mkdir()
    judge_apart({"one": facts(tmp_path / "a"), "two": facts(tmp_path / "ab"), "three": facts(tmp_path / "c")})


@pytest.mark.parametrize("second", ["a", "a/b", "link", "link/new"])
def test_two_roots_that_are_one(tmp_path: Path, second: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    for pair in ((tmp_path / "a", tmp_path / second), (tmp_path / second, tmp_path / "a")):
        with pytest.raises(InputError, match=r"two: .* one has .* two engines on one data root destroy it"):
            judge_apart({"one": facts(pair[0]), "two": facts(pair[1])})


def test_a_view_resolves_links_inside(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "abs").symlink_to("/real")
    (tmp_path / "up").symlink_to("../../real")
    (tmp_path / "loop").symlink_to("loop")
    view = View(str(tmp_path))
    assert view.real("/abs/x") == "/real/x"
    assert view.real("/up/./y/../x") == "/real/x"
    assert view.real("/loop/x").endswith("/x")
