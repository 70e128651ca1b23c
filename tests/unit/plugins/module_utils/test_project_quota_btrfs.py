# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas on btrfs: subvolumes, how counting is switched on, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._project_quota_read import read_quotas
from support.quota_double import QuotaHost, ask, quota_host, state

GIB = 1 << 30


@pytest.fixture
def btrfs(tmp_path: Path) -> QuotaHost:
    return quota_host(tmp_path, "btrfs")


def test_btrfs_makes_a_subvolume_of_nothing_and_of_an_empty_directory(btrfs: QuotaHost) -> None:
    (btrfs.data / "a").mkdir(mode=0o750)
    made = ask(btrfs, {"path": "a", "size": "1G"}, {"path": "b/c", "size": "2G"})
    assert [one["group"] for one in made["quotas"]] == ["0/256", "0/257"]
    assert [(one["size"], one["enforced"], one["id"]) for one in made["quotas"]] == [
        (GIB, True, None),
        (2 * GIB, True, None),
    ]
    assert (btrfs.data / "a").stat().st_mode & 0o7777 == 0o750
    assert ["btrfs", "quota", "enable", "--simple", str(btrfs.data)] in btrfs.btrfs.argv
    assert not any("rescan" in argv for argv in btrfs.btrfs.argv)
    count = len(btrfs.btrfs.argv)
    again = ask(btrfs, {"path": "a", "size": "1G"}, {"path": "b/c", "size": "2G"})
    assert (again["changed"], len(btrfs.btrfs.argv)) == (False, count)


@pytest.mark.parametrize("simple", [True, False])
def test_btrfs_with_content_is_counted_in_full(tmp_path: Path, simple: bool) -> None:
    host = quota_host(tmp_path, "btrfs", simple=simple)
    path = host.data / "a"
    path.mkdir()
    host.btrfs.subvolumes[str(path)] = 300
    if simple:
        (path / "file").write_text("x")
    ask(host, {"path": "a", "size": "1G"})
    assert ["btrfs", "quota", "enable", str(host.data)] in host.btrfs.argv
    assert host.btrfs.argv[-2:] == [
        ["btrfs", "quota", "rescan", "-w", str(host.data)],
        ["btrfs", "qgroup", "limit", str(GIB), str(path)],
    ]


def test_btrfs_below_what_is_used_is_refused(btrfs: QuotaHost) -> None:
    ask(btrfs, {"path": "a", "size": "4G"})
    btrfs.btrfs.use(str(btrfs.data / "a"), 3 * GIB)
    before = state(btrfs)
    with pytest.raises(InputError, match=f"at least {3 * GIB} bytes"):
        ask(btrfs, {"path": "a", "size": "1G"})
    assert state(btrfs) == before
    found = read_quotas([str(btrfs.data / "a")], system=btrfs.system)[0]
    assert (found["size"], found["used_bytes"], found["used_inodes"]) == (4 * GIB, 3 * GIB, None)


def test_btrfs_that_stopped_counting_is_scanned_anew(btrfs: QuotaHost) -> None:
    ask(btrfs, {"path": "a", "size": "4G"})
    btrfs.btrfs.stop_counting()
    found = read_quotas([str(btrfs.data / "a")], system=btrfs.system)[0]
    assert found["enforced"] is False and "out of date, so limits needn't hold" in found["why"]
    again = ask(btrfs, {"path": "a", "size": "4G"})
    assert (again["changed"], again["quotas"][0]["enforced"]) == (True, True)
    assert btrfs.btrfs.argv[-1] == ["btrfs", "quota", "rescan", "-w", str(btrfs.data)]
    assert ask(btrfs, {"path": "a", "size": "4G"})["changed"] is False


def test_btrfs_orphans_lose_the_limit_and_stay_subvolumes(btrfs: QuotaHost) -> None:
    ask(btrfs, {"path": "a", "size": "4G"})
    assert ask(btrfs)["lifted"] == [f"{btrfs.data}/a"]
    assert btrfs.btrfs.argv[-1] == ["btrfs", "qgroup", "limit", "none", f"{btrfs.data}/a"]
    assert btrfs.text("/etc/projects") == btrfs.text("/etc/projid") == ""


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"size": "1G", "inodes": 5},
            ".inodes: 5 is refused; allowed: nothing on btrfs, which has size alone",
        ),
        (
            {"size": "1G", "soft": "1M"},
            ".soft: '1M' is refused; allowed: nothing on btrfs, which has size alone",
        ),
        ({"size": "1G"}, "on btrfs only a subvolume can have a quota, and this is a directory with content"),
    ],
)
def test_btrfs_refuses(btrfs: QuotaHost, entry: dict[str, Any], message: str) -> None:
    (btrfs.data / "a" / "in").mkdir(parents=True)
    before = state(btrfs)
    with pytest.raises(HostError) as caught:
        ask(btrfs, entry | {"path": "a"})
    assert message in str(caught.value)
    assert state(btrfs) == before
