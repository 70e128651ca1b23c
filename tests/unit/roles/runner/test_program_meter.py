# SPDX-License-Identifier: GPL-3.0-or-later
"""What a job used, which of its limits it met, and the words for both."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matryoshka_runner.cgroups import Group, Place
from matryoshka_runner.config import Limits
from matryoshka_runner.meter import Disk, Evidence, Meter
from matryoshka_runner.verdict import amount, in_words, met, used

ALL = ("cpu", "cpuacct", "memory", "pids", "io", "blkio")
LIMITS = Limits(memory_bytes=512 << 20, pids=400, disk_bytes=2 << 30)


def put(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="ascii")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An environment on v2 whose counters aren't zero when its job begins."""
    ci, slice_, environment = tmp_path / "m", tmp_path / "m" / "s", tmp_path / "m" / "s" / "e"
    put(ci, memory__events__local="oom 4\n", memory__max=f"{8 << 30}\n")
    put(
        slice_,
        memory__events__local="low 0\noom 5\noom_kill 9\n",
        memory__events="oom 5\noom_kill 9\noom_group_kill 2\n",
        memory__max=f"{512 << 20}\n",
        pids__events__local="max 3\n",
        pids__max="400\n",
        cpu__stat="usage_usec 1000000\nuser_usec 1\n",
        io__stat="259:0 rbytes=1000 wbytes=2000\n",
        cpu__pressure="some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n",
    )
    put(environment, memory__peak="1048576\n", pids__peak="30\n")
    return Place(*(Group(True, dict.fromkeys(ALL, folder)) for folder in (environment, slice_, ci)))


def test_counters_of_before_the_job_arent_evidence(place: Place, tmp_path: Path) -> None:
    meter = Meter(place, tmp_path)
    found = meter.evidence()
    assert (found.own_oom, found.ci_oom, found.host_oom, found.forks) == (0, 0, False, 0)
    assert met(found, LIMITS) == ""


@pytest.mark.parametrize(
    ("own", "ci", "kills", "group_kills", "words"),
    [
        (1, 0, 3, 1, "killed by its limit: memory 512 MiB (the kernel killed 3 processes)"),
        (
            0,
            1,
            1,
            1,
            "killed by the limit of all runners together: memory 8 GiB (the kernel killed 1 process)",
        ),
        (0, 0, 2, 1, "killed because the host ran out of memory (the kernel killed 2 processes)"),
        (0, 0, 1, 0, ""),
        (1, 0, 0, 0, ""),
    ],
    ids=["its own", "of all", "the host's", "of a container of the job's own", "nothing was killed"],
)
def test_memory_is_told_by_whose_limit_it_was(
    place: Place, tmp_path: Path, own: int, ci: int, kills: int, group_kills: int, words: str
) -> None:
    meter = Meter(place, tmp_path)
    assert place.slice
    assert place.ci
    put(place.ci.folders["memory"], memory__events__local=f"oom {4 + ci}\n")
    put(
        place.slice.folders["memory"],
        memory__events__local=f"oom {5 + own}\n",
        memory__events=f"oom {5 + own}\noom_kill {9 + kills}\noom_group_kill {2 + group_kills}\n",
    )
    assert met(meter.evidence(), LIMITS) == words


def test_what_was_used_is_the_difference_and_outlives_the_environment(place: Place, tmp_path: Path) -> None:
    meter = Meter(place, tmp_path)
    assert place.slice
    put(place.environment.folders["memory"], memory__peak=f"{300 << 20}\n", pids__peak="77\n")
    meter.sample(all_of_it=True)
    for path in place.environment.folders["memory"].iterdir():
        path.unlink()
    place.environment.folders["memory"].rmdir()
    put(
        place.slice.folders["cpu"],
        cpu__stat="usage_usec 3500000\n",
        io__stat="259:0 rbytes=5096 wbytes=2000\n",
        cpu__pressure="some avg10=2.50 avg60=0.00 avg300=0.00 total=1250000\n",
    )
    usage = meter.usage()
    assert usage == {
        "cpu_seconds": 2.5,
        "memory_peak_bytes": 300 << 20,
        "read_bytes": 4096,
        "written_bytes": 0,
        "tasks_peak": 77,
        "pressure": {"cpu": {"some_avg10": 2.5, "some_seconds": 0.25}, "memory": None, "io": None},
    }
    assert used(usage) == (
        "2.50 s of cpu, 300 MiB of memory at most, 77 tasks at most, 4 KiB read, 0 B written, "
        "waited 0.25 s for cpu (last 10 s: 2.5 %)"
    )


def test_where_nothing_can_be_read_nothing_is_told(tmp_path: Path) -> None:
    for place in (None, Place(Group(False, {})), Place(Group(True, {}))):
        meter = Meter(place, tmp_path / "gone")
        assert met(meter.evidence(), LIMITS) == ""
        usage = meter.usage()
        assert set(usage.values()) == {None}
        assert used(usage) == ""
        meter.close()


def test_a_disk_that_was_full_for_a_moment_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [1 << 20]

    def statvfs(_path: object) -> Any:
        return SimpleNamespace(
            f_blocks=1 << 19, f_bavail=free[0] >> 12, f_frsize=4096, f_files=100, f_favail=50
        )

    free[0] = 1 << 30
    monkeypatch.setattr(os, "statvfs", statvfs)
    meter = Meter(None, tmp_path)
    assert meter.evidence().disk is None
    free[0] = 0
    meter.sample()
    free[0] = 1 << 30
    mount = next(path for path in (tmp_path, *tmp_path.parents) if path.is_mount())
    assert met(meter.evidence(), LIMITS) == f"the disk of 2 GiB at {mount} is full"


@pytest.mark.parametrize(
    ("quota_free", "disk_free", "size", "said"),
    [
        (0, 1 << 30, 1 << 30, "its disk of 1 GiB is full"),
        (1 << 29, 0, 1 << 30, "the disk of 8 GiB at {mount} is full"),
        (0, 0, 1 << 30, "the disk of 8 GiB at {mount} is full"),
        (0, 0, 8 << 30, "the disk of 8 GiB at {mount} is full"),
        (1 << 29, 1 << 30, 1 << 30, ""),
    ],
    ids=["quota", "file system, as old kernels show it", "file system", "no quota", "neither"],
)
def test_a_full_file_system_isn_t_taken_for_a_full_quota(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quota_free: int,
    disk_free: int,
    size: int,
    said: str,
) -> None:
    def statvfs(path: object) -> Any:
        blocks, free = (size, quota_free) if path == tmp_path else (8 << 30, disk_free)
        return SimpleNamespace(
            f_blocks=blocks >> 12, f_bavail=free >> 12, f_frsize=4096, f_files=100, f_favail=50
        )

    monkeypatch.setattr(os, "statvfs", statvfs)
    mount = next(path for path in tmp_path.parents if path.is_mount())
    assert met(Meter(None, tmp_path).evidence(), LIMITS) == said.format(mount=mount)


@pytest.mark.parametrize(
    ("disk", "full"),
    [
        (Disk(Path("/d"), 2 << 30, 9 << 20), False),
        (Disk(Path("/d"), 2 << 30, 7 << 20), True),
        (Disk(Path("/d"), 100 << 20, 2 << 20), False),
        (Disk(Path("/d"), 2 << 30, 1 << 30, 0), True),
        (Disk(Path("/d"), 2 << 30, 1 << 30, 1), False),
    ],
)
def test_full_is_next_to_nothing_free(disk: Disk, full: bool) -> None:
    assert disk.full is full


@pytest.mark.parametrize(
    ("evidence", "docker", "words"),
    [
        (Evidence(), False, ""),
        (Evidence(forks=1), False, "hit its limit of 400 processes (once no new one could be started)"),
        (
            Evidence(ci_forks=2),
            False,
            "all runners together hit their limit of processes (2 times no new one could be started)",
        ),
        (Evidence(own_oom=1), False, "killed by its limit: memory 512 MiB (out of memory)"),
        (Evidence(), True, "killed by its limit: memory 512 MiB (out of memory)"),
        (Evidence(exact=True), True, ""),
        (
            Evidence(disk=Disk(Path("/d"), 2 << 30, 1 << 30, 0)),
            False,
            "its disk of 2 GiB has no room for another file",
        ),
    ],
)
def test_each_limit_has_its_words(evidence: Evidence, docker: bool, words: str) -> None:
    assert met(evidence, LIMITS, docker) == words


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (512 << 20, "512 MiB"), (1020 << 20, "1020 MiB"), (3 << 40, "3 TiB"),
    ],
)  # fmt: skip
def test_bytes_read_as_a_person_says_them(number: int, text: str) -> None:
    assert amount(number) == text


def test_an_end_is_told_with_what_is_known() -> None:
    assert in_words({"job": "a", "status": "succeeded", "exit_code": 0, "reason": ""}) == (
        "job a: succeeded, exit code 0"
    )
    assert (
        in_words({"job": "a", "status": "cut off", "exit_code": None, "reason": "x"}) == "job a: cut off: x"
    )


def old_place(tmp_path: Path) -> Place:
    """An environment in a slice on v1."""
    slice_, environment = tmp_path / "s", tmp_path / "s" / "e"
    put(
        slice_,
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
        cgroup__event_control="",
        memory__failcnt="5\n",
        memory__limit_in_bytes=f"{512 << 20}\n",
        pids__max="400\n",
        cpuacct__usage="2000000000\n",
    )
    put(
        environment,
        pids__events="max 0\n",
        memory__max_usage_in_bytes="1048576\n",
        blkio__throttle__io_service_bytes_recursive="7:0 Read 4096\n7:0 Write 0\nTotal 4096\n",
    )
    return Place(*(Group(False, dict.fromkeys(ALL, folder)) for folder in (environment, slice_)))


@pytest.mark.parametrize(
    ("failures", "words"),
    [
        (6, "killed by its limit: memory 512 MiB (out of memory)"),
        (5, "killed by the limit of all runners together: memory (out of memory)"),
    ],
)
def test_on_v1_the_kernel_tells_when_a_group_is_out_of_memory(
    tmp_path: Path, failures: int, words: str
) -> None:
    place = old_place(tmp_path)
    meter = Meter(place, tmp_path)
    folder = tmp_path / "s"
    counter, control = (folder / "cgroup.event_control").read_text(encoding="ascii").split()
    assert int(control) > 0
    put(folder, memory__failcnt=f"{failures}\n")
    os.eventfd_write(int(counter), 2)
    assert met(meter.evidence(), LIMITS) == words
    meter.close()


def test_on_v1_a_group_that_goes_away_isnt_out_of_memory(tmp_path: Path) -> None:
    meter = Meter(old_place(tmp_path), tmp_path)
    folder = tmp_path / "s"
    counter = int((folder / "cgroup.event_control").read_text(encoding="ascii").split()[0])
    os.eventfd_write(counter, 1)
    (folder / "memory.oom_control").unlink()
    assert met(meter.evidence(), LIMITS) == ""
    meter.close()


def test_on_v1_a_sum_that_falls_with_a_group_isnt_less_than_nothing(tmp_path: Path) -> None:
    place = old_place(tmp_path)
    meter = Meter(place, tmp_path)
    put(
        tmp_path / "s" / "e",
        blkio__throttle__io_service_bytes_recursive="7:0 Read 12288\n7:0 Write 0\n",
        pids__events="max 2\n",
    )
    meter.sample(all_of_it=True)
    put(tmp_path / "s" / "e", blkio__throttle__io_service_bytes_recursive="7:0 Read 0\n7:0 Write 0\n")
    put(tmp_path / "s", cpuacct__usage="2500000000\n")
    usage = meter.usage()
    assert (usage["read_bytes"], usage["cpu_seconds"], usage["pressure"]) == (8192, 0.5, None)
    assert (
        met(meter.evidence(), LIMITS)
        == "hit its limit of 400 processes (2 times no new one could be started)"
    )
    meter.close()
