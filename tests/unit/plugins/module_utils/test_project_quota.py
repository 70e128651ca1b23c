# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas from beginning to end on a host that isn't there: plan, apply, again, refuse."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._project_quota_files import SPAN
from ansible_collections.matryoshka.host.plugins.module_utils._project_quota_read import read_quotas
from ansible_collections.matryoshka.host.plugins.module_utils._quotactl import Limits, QuotaState
from hypothesis import given, settings
from hypothesis import strategies as st
from support.quota_double import QuotaHost, ask, quota_host, state

GIB = 1 << 30


@pytest.fixture
def xfs(tmp_path: Path) -> QuotaHost:
    return quota_host(tmp_path, "xfs")


def test_a_quota_is_planned_given_and_then_there(xfs: QuotaHost) -> None:
    (xfs.data / "docker" / "overlay2").mkdir(parents=True)
    wanted = {"path": "docker", "size": "20G", "soft": "18G", "inodes": 1000}
    before = state(xfs)
    planned = ask(xfs, wanted, check=True)
    assert planned["changed"] and state(xfs) == before
    assert (planned["quotas"][0]["changed"], planned["quotas"][0]["enforced"]) == (True, False)
    assert planned["diff"][0]["before"] == f"{xfs.data}/docker: no project\n"
    assert f"size {20 * GIB}, soft {18 * GIB}, inodes 1000\n" in planned["diff"][0]["after"]
    assert [one["before_header"] for one in planned["diff"][1:]] == ["/etc/projects", "/etc/projid"]

    given_now = ask(xfs, wanted)["quotas"][0]
    project = given_now["id"]
    assert given_now == {
        "path": f"{xfs.data}/docker",
        "exists": True,
        "filesystem": "xfs",
        "mount_point": str(xfs.data),
        "device": "/dev/259:1",
        "id": project,
        "name": given_now["name"],
        "group": None,
        "size": 20 * GIB,
        "soft": 18 * GIB,
        "inodes": 1000,
        "used_bytes": 0,
        "used_inodes": 1,
        "enforced": True,
        "holds_root": True,
        "why": "",
        "changed": True,
    }
    assert xfs.kernel.limits == {project: Limits(20 * GIB, 1000, 18 * GIB)}
    assert xfs.kernel.of(xfs.data / "docker" / "overlay2") == project
    assert xfs.text("/etc/projects") == f"{project}:{xfs.data}/docker\n"
    assert xfs.text("/etc/projid") == f"{given_now['name']}:{project}\n"

    again = ask(xfs, wanted)
    assert (again["changed"], again["diff"], again["marked"]) == (False, [], 0)
    assert len(xfs.kernel.calls) == 1


def test_a_missing_directory_is_made(xfs: QuotaHost) -> None:
    found = ask(xfs, {"path": "runners/ci", "size": "1G"})["quotas"][0]
    assert found["enforced"]
    assert (xfs.data / "runners" / "ci").is_dir()


def test_sizes_are_rounded_to_blocks_and_then_the_same(xfs: QuotaHost) -> None:
    block = os.statvfs(xfs.data).f_frsize
    found = ask(xfs, {"path": "a", "size": str(10 * block + 1)})["quotas"][0]
    assert found["size"] == 11 * block
    assert ask(xfs, {"path": "a", "size": str(10 * block + 1)})["changed"] is False


def test_growing_walks_nothing(xfs: QuotaHost) -> None:
    ask(xfs, {"path": "a", "size": "1G"})
    grown = ask(xfs, {"path": "a", "size": "2G"})
    assert (grown["changed"], grown["marked"], grown["quotas"][0]["size"]) == (True, 0, 2 * GIB)
    assert [entry["before_header"] for entry in grown["diff"]] == ["quotas"]
    lifted = ask(xfs, {"path": "a"})
    assert (lifted["quotas"][0]["size"], lifted["quotas"][0]["why"]) == (None, "no limits are set")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("size", "1G", f"at least {3 * GIB} bytes, which are used there now"),
        ("inodes", 6, "at least 7 inodes, which are used there now"),
    ],
)
def test_below_what_is_used_is_refused(xfs: QuotaHost, option: str, value: Any, message: str) -> None:
    project = ask(xfs, {"path": "a", "size": "4G"})["quotas"][0]["id"]
    xfs.kernel.used[project] = (3 * GIB, 7)
    before = state(xfs)
    for check in (True, False):
        with pytest.raises(InputError) as caught:
            ask(xfs, {"path": "b", "size": "1G"}, {"path": "a", option: value}, check=check)
        assert str(caught.value).startswith(f"quotas[{xfs.data}/a].{option}: {value!r} is refused")
        assert message in str(caught.value)
    assert state(xfs) == before


def test_a_limit_that_is_there_stays_though_more_is_used(xfs: QuotaHost) -> None:
    project = ask(xfs, {"path": "a", "size": "4G"})["quotas"][0]["id"]
    xfs.kernel.used[project] = (5 * GIB, 7)
    assert ask(xfs, {"path": "a", "size": "4G"})["changed"] is False
    assert ask(xfs, {"path": "a", "size": "6G"})["changed"] is True


def test_what_lies_in_a_directory_counts_before_it_has_a_project(xfs: QuotaHost) -> None:
    (xfs.data / "a").mkdir()
    (xfs.data / "a" / "file").write_bytes(b"x" * 300_000)
    with pytest.raises(InputError, match=r"allowed: at least 30\d{4} bytes"):
        ask(xfs, {"path": "a", "size": "100k"})
    assert xfs.kernel.ids == {}


def test_larger_than_the_disk_is_refused(xfs: QuotaHost) -> None:
    before = state(xfs)
    with pytest.raises(InputError, match=r"at most [0-9]+ bytes, the size of /dev/259:1"):
        ask(xfs, {"path": "a", "size": "90000T"})
    assert state(xfs) == before


@pytest.mark.parametrize(
    ("filesystem", "quota_state", "message"),
    [
        (
            "xfs",
            QuotaState(False, False, "not switched on"),
            "(not switched on); mount it with the option prjquota",
        ),
        (
            "xfs",
            QuotaState(True, False, "limits are not enforced"),
            "(limits are not enforced); mount it with",
        ),
        (
            "ext4",
            QuotaState(False, False, "the kernel has no quotas"),
            "tune2fs -O project,quota -Q prjquota /dev/",
        ),
        ("tmpfs", QuotaState(False, False), "which has no quotas for directories; xfs, ext4 and btrfs have"),
    ],
)
def test_no_quotas_there_is_refused_with_what_is_needed(
    tmp_path: Path, filesystem: str, quota_state: QuotaState, message: str
) -> None:
    host = quota_host(tmp_path, filesystem, quota_state)
    before = state(host)
    with pytest.raises(HostError) as caught:
        ask(host, {"path": "a", "size": "1G"})
    assert f"{host.data}/a lies on {filesystem} (mounted on {host.data} from " in str(caught.value)
    assert message in str(caught.value)
    assert state(host) == before


def test_ext4_doesn_t_hold_root(tmp_path: Path) -> None:
    host = quota_host(tmp_path, "ext4")
    found = ask(host, {"path": "a", "size": "1G"})["quotas"][0]
    assert (found["enforced"], found["holds_root"]) == (True, False)


def test_orphans_are_lifted(xfs: QuotaHost) -> None:
    xfs.write("/etc/projid", "other:7\n")
    xfs.write("/etc/projects", "7:/home\n")
    made = ask(xfs, {"path": "a", "size": "1G"}, {"path": "b", "size": "1G"})
    first, second = (one["id"] for one in made["quotas"])
    kept = ask(xfs, {"path": "a", "size": "1G"}, orphans=False)
    assert (kept["changed"], kept["lifted"]) == (False, [])
    planned = ask(xfs, {"path": "a", "size": "1G"}, check=True)
    assert planned["lifted"] == [f"{xfs.data}/b"] and xfs.kernel.limits[second] == Limits(GIB)
    lifted = ask(xfs, {"path": "a", "size": "1G"})
    assert lifted["lifted"] == [f"{xfs.data}/b"]
    assert xfs.kernel.limits[second] == Limits() and xfs.kernel.of(xfs.data / "b") == 0
    assert xfs.text("/etc/projects") == f"7:/home\n{first}:{xfs.data}/a\n"
    assert ask(xfs, {"path": "a", "size": "1G"})["changed"] is False


def test_an_orphan_on_a_disk_that_is_gone_is_kept_and_said(xfs: QuotaHost) -> None:
    ask(xfs, {"path": "a", "size": "1G"})
    xfs.write("/proc/self/mountinfo", "1 0 8:1 / / rw - overlay overlay rw\n")
    before = state(xfs)
    found = ask(xfs)
    assert (found["changed"], found["lifted"]) == (False, [])
    assert found["warnings"] == [
        f"{xfs.data}/a: its quota can't be lifted now and stays in /etc/projects"
        " (it lies on overlay: overlay has no quotas for directories)"
    ]
    assert state(xfs) == before


def test_a_walk_that_broke_off_is_done_again_with_the_same_id(xfs: QuotaHost) -> None:
    (xfs.data / "a" / "in").mkdir(parents=True)
    project = ask(xfs, {"path": "a", "size": "1G"})["quotas"][0]["id"]
    xfs.write("/etc/projects", "")
    xfs.write("/etc/projid", "")
    del xfs.kernel.ids[(xfs.data / "a" / "in").stat().st_ino]
    again = ask(xfs, {"path": "a", "size": "1G"})
    assert (again["quotas"][0]["id"], again["marked"]) == (project, 1)


def test_a_directory_that_was_made_anew_gets_its_project_again(xfs: QuotaHost) -> None:
    ask(xfs, {"path": "a", "size": "1G"})
    (xfs.data / "a").rename(xfs.data / "old")
    (xfs.data / "a").mkdir()
    assert read_quotas([str(xfs.data / "a")], system=xfs.system)[0]["why"] == "it has no project of its own"
    again = ask(xfs, {"path": "a", "size": "1G"})
    assert (again["changed"], again["marked"], again["quotas"][0]["enforced"]) == (True, 1, True)


def test_a_directory_within_another_project_gets_its_own(xfs: QuotaHost) -> None:
    (xfs.data / "a" / "in").mkdir(parents=True)
    outer = ask(xfs, {"path": "a", "size": "1G"})["quotas"][0]["id"]
    assert xfs.kernel.of(xfs.data / "a" / "in") == outer
    both = ask(xfs, {"path": "a", "size": "1G"}, {"path": "a/in", "size": "1G"})
    assert xfs.kernel.of(xfs.data / "a" / "in") == both["quotas"][1]["id"] != outer
    assert both["warnings"] == [
        f"{xfs.data}/a/in: what is in it does not count for {xfs.data}/a, which has a quota of its own"
    ]


def test_the_ids_that_an_engine_numbers_from_its_root_are_left_free(xfs: QuotaHost) -> None:
    first = ask(xfs, {"path": "a", "size": "1G"})["quotas"][0]["id"]
    xfs.write("/etc/projects", "")
    xfs.write("/etc/projid", "")
    xfs.kernel.ids.clear()
    xfs.kernel.limits = {first + 3: Limits(GIB)}
    assert ask(xfs, {"path": "a", "size": "1G"})["quotas"][0]["id"] not in range(first, first + SPAN)


def test_somebody_else_s_project_is_refused(xfs: QuotaHost) -> None:
    xfs.write("/etc/projid", "else:9\n")
    xfs.write("/etc/projects", f"9:{xfs.data}/a\n")
    with pytest.raises(
        HostError, match="gives it the project 9, whose name in /etc/projid doesn't begin with matry"
    ):
        ask(xfs, {"path": "a", "size": "1G"})


def test_a_link_is_followed_once(xfs: QuotaHost) -> None:
    (xfs.data / "a").mkdir()
    (xfs.data / "link").symlink_to("a")
    found = ask(xfs, {"path": "link", "size": "1G"})["quotas"][0]
    assert (found["path"], found["enforced"]) == (f"{xfs.data}/link", True)
    assert xfs.text("/etc/projects").endswith(f":{xfs.data}/a\n")
    with pytest.raises(InputError, match="each directory once; it is a link to"):
        ask(xfs, {"path": "a", "size": "1G"}, {"path": "link", "size": "1G"})


def test_a_link_to_what_no_line_can_hold_is_refused(xfs: QuotaHost) -> None:
    (xfs.data / "a\n7:").mkdir()
    (xfs.data / "link").symlink_to("a\n7:")
    with pytest.raises(InputError, match=r"quotas\.path: .*/link' is refused; allowed: the absolute path"):
        ask(xfs, {"path": "link", "size": "1G"})
    assert xfs.text("/etc/projects") == ""


def test_a_file_is_refused(xfs: QuotaHost) -> None:
    (xfs.data / "a").write_text("")
    with pytest.raises(HostError, match="is no directory; only a directory can have a quota"):
        ask(xfs, {"path": "a", "size": "1G"})


def test_a_file_that_can_not_be_written_is_refused_first(xfs: QuotaHost) -> None:
    (xfs.root / "etc/projects").symlink_to("nowhere")
    before = state(xfs)
    with pytest.raises(InputError, match=r"^/etc/projects: .* is refused; allowed: a file, or a link to one"):
        ask(xfs, {"path": "a", "size": "1G"})
    assert state(xfs) == before


def test_an_error_of_the_kernel_names_the_file(xfs: QuotaHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(1, "Operation not permitted", "/data")

    monkeypatch.setattr(xfs.kernel, "set_project_limits", refuse)
    with pytest.raises(HostError, match="quotas: /data: Operation not permitted"):
        ask(xfs, {"path": "a", "size": "1G"})


def test_reading_says_what_is_odd(xfs: QuotaHost) -> None:
    (xfs.data / "file").write_text("")
    found = read_quotas([str(xfs.data / "none"), str(xfs.data / "file"), "/"], system=xfs.system)
    assert [one["why"] for one in found] == [
        "the directory is not there",
        f"{xfs.data}/file is no directory; only a directory can have a quota",
        "overlay has no quotas for directories",
    ]
    assert not any(one["enforced"] or one["holds_root"] for one in found)


@settings(max_examples=25)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 1 << 34), max_size=6),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 1 << 34), max_size=6),
)
def test_any_list_is_reached_in_one_call(
    tmp_path_factory: pytest.TempPathFactory, first: dict[str, int], second: dict[str, int]
) -> None:
    host = quota_host(tmp_path_factory.mktemp("quota"), "xfs")
    for wanted in (first, second):
        entries = [{"path": name, "size": str(size)} for name, size in wanted.items()]
        done = ask(host, *entries)
        assert ask(host, *entries)["changed"] is False
        limits = {one["id"]: one["size"] for one in done["quotas"]}
        assert len(limits) == len(wanted)
        assert {key: value.bytes for key, value in host.kernel.limits.items() if value.bytes} == limits
        assert len(host.text("/etc/projects").splitlines()) == len(wanted)
