# SPDX-License-Identifier: GPL-3.0-or-later
"""Data roots: who holds one, what is forgotten between two jobs, what is removed."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matryoshka_runner import dataroot, sweep
from matryoshka_runner.errors import HeldError
from matryoshka_runner.process import run


@pytest.mark.parametrize(
    "place",
    [
        "volumes/metadata.db",
        "network/files/local-kv.db",
        "containerd/daemon/io.containerd.metadata.v1.bolt/meta.db",
        "buildkit/cache.db",
    ],
)
def test_each_database_of_a_live_daemon_gives_it_away(tmp_path: Path, place: str) -> None:
    path = tmp_path / "data" / place
    path.parent.mkdir(parents=True)
    with open(path, "w", encoding="ascii") as daemon:
        assert dataroot.holders(tmp_path / "data") == []
        fcntl.flock(daemon, fcntl.LOCK_EX)
        assert dataroot.holders(tmp_path / "data") == [path]
        with pytest.raises(HeldError, match=str(path)):
            sweep.refuse_held(tmp_path / "data")
    sweep.refuse_held(tmp_path / "data")


def test_what_a_job_left_goes_and_the_cache_stays(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in (
        "volumes",
        "network",
        "swarm",
        "plugins",
        "tmp",
        "image",
        "overlay2",
        "buildkit",
        "containers",
    ):
        (data / name / "inside").mkdir(parents=True)
    aside = dataroot.forget_job(data, tmp_path, run)
    assert sorted(path.name for path in data.iterdir()) == ["buildkit", "containers", "image", "overlay2"]
    assert dataroot.left_roots(tmp_path) == aside
    assert sweep.roots(tmp_path, run) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    assert dataroot.forget_job(data, tmp_path, run) == []


def test_no_container_starts_with_the_daemon(tmp_path: Path) -> None:
    def container(name: str, content: str) -> Path:
        path = tmp_path / "containers" / name / "hostconfig.json"
        path.parent.mkdir(parents=True)
        path.write_text(content, encoding="utf-8")
        return path

    always = container(
        "a", '{"Binds": ["/x:/y"], "RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}'
    )
    never = container("b", '{"RestartPolicy": {"Name": "no"}}')
    container("c", "half a file")
    before = never.stat().st_mtime_ns
    assert dataroot.containers_in(tmp_path)
    assert dataroot.disarm(tmp_path) == 1
    assert json.loads(always.read_text(encoding="utf-8")) == {
        "Binds": ["/x:/y"],
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    }
    assert never.stat().st_mtime_ns == before
    assert dataroot.disarm(tmp_path) == 0


def test_only_roots_that_dont_outlive_an_environment_count_as_left(tmp_path: Path) -> None:
    for name in ("data", "data-0123abcd", "data-left-0123abcd", "lock"):
        (tmp_path / name).mkdir()
    (tmp_path / "data-link").symlink_to("/etc")
    assert [path.name for path in dataroot.left_roots(tmp_path)] == ["data-0123abcd", "data-left-0123abcd"]


def test_a_link_is_never_followed_by_a_removal(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    dataroot.remove_tree(tmp_path / "link", run)
    assert target.exists()


MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:30 / /var/lib/matryoshka/runners/ci/data-1 rw - tmpfs tmpfs rw
31 30 0:31 / /var/lib/matryoshka/runners/ci/data-1/overlay2/merged\\040x rw - overlay overlay rw
32 22 0:32 / /var/lib/matryoshka/runners/ci/data-10 rw - tmpfs tmpfs rw
"""


def test_mounts_are_found_deepest_first_and_only_below() -> None:
    assert list(dataroot.mounts_below(Path("/var/lib/matryoshka/runners/ci/data-1"), MOUNTINFO)) == [
        "/var/lib/matryoshka/runners/ci/data-1/overlay2/merged x",
        "/var/lib/matryoshka/runners/ci/data-1",
    ]


@given(st.text(max_size=300))
def test_no_text_of_a_mount_table_breaks_the_reader(text: str) -> None:
    for point in dataroot.mounts_below(Path("/data"), text):
        assert point == "/data" or point.startswith("/data/")


TABLE = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 259:0 / /srv/fast rw,noatime shared:9 master:2 - xfs /dev/nvme0n1 rw,prjquota
31 30 0:50 / /srv/fast/a\\040b rw - tmpfs tmpfs rw
32 22 0:51 / /srv/fast rw - btrfs /dev/over rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/srv", "ext4"),
        ("/srv/fastest", "ext4"),
        ("/srv/fast", "btrfs"),
        ("/srv/fast/ci/data", "btrfs"),
        ("/srv/fast/a b/c", "tmpfs"),
    ],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert dataroot.filesystem_of(Path(path), TABLE) == kind


def test_a_table_that_tells_nothing() -> None:
    assert dataroot.filesystem_of(Path("/srv"), "") == ""
