# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs in the kernel is written by systemd, at once, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _limits_apply as apply
from ansible_collections.matryoshka.host.plugins.module_utils import _limits_kernel as kernel
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from support.cgroup_tree import RUNNER, slice_of, v1, v2


class Systemd:
    """Remembers what it was told, and leaves a drop-in as ``set-property`` does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.told: list[list[str]] = []

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        self.told.append(list(argv))
        if argv[1] == "set-property":
            folder = self.root / f"run/systemd/system.control/{argv[3]}.d"
            folder.mkdir(parents=True, exist_ok=True)
            for word in argv[4:]:
                (folder / f"50-{word.partition('=')[0]}.conf").write_text("[Slice]\n", encoding="utf-8")
        return Result(0)


def answer(view: View, systemd: Systemd, check: bool = False, **limits: Any) -> dict[str, Any]:
    return apply.answer({"slices": [slice_of(**limits)]}, check, systemd, view)


def test_nothing_is_done_where_the_kernel_holds_the_plan(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path)
    view = v2(
        tmp_path, {"pids.max": "200\n", "memory.max": "max\n", "cpu.max": "max 100000\n", "cpuset.cpus": "\n"}
    )
    assert answer(view, systemd, pids=200)["changed"] is False
    assert systemd.told == []


def test_a_limit_that_differs_is_written_and_leaves_no_drop_in(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path)
    view = v2(tmp_path, {"pids.max": "max\n"})
    found = answer(view, systemd, pids=200, cpus=1.5)
    assert found["changed"] is True
    assert found["slices"] == ["matryoshka-ci.slice"]
    assert found["diff"]["before"] == f"/sys/fs/cgroup/{RUNNER}/pids.max: max\n"
    assert found["diff"]["after"] == f"/sys/fs/cgroup/{RUNNER}/pids.max: 200\n"
    (told, reload) = systemd.told
    assert told[:4] == ["systemctl", "set-property", "--runtime", "matryoshka-ci.slice"]
    assert {"TasksMax=200", "CPUQuota=150%", "MemoryMax=infinity"} <= set(told[4:])
    assert reload == ["systemctl", "daemon-reload"]
    assert not (tmp_path / "run/systemd/system.control/matryoshka-ci.slice.d").exists()


def test_somebody_elses_drop_in_stays(tmp_path: Path) -> None:
    other = tmp_path / "run/systemd/system.control/matryoshka-ci.slice.d/50-Description.conf"
    other.parent.mkdir(parents=True)
    other.write_text("[Unit]\n", encoding="utf-8")
    answer(v2(tmp_path, {"pids.max": "max\n"}), Systemd(tmp_path), pids=200)
    assert [one.name for one in other.parent.iterdir()] == ["50-Description.conf"]


def test_check_mode_tells_and_does_nothing(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path)
    assert answer(v2(tmp_path, {"pids.max": "max\n"}), systemd, check=True, pids=200)["changed"] is True
    assert systemd.told == []


def test_a_limit_that_cant_be_had_changes_nothing_again_and_again(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path)
    assert answer(v2(tmp_path), systemd, pids=200, io_weight=50)["changed"] is False
    assert systemd.told == []


@pytest.mark.parametrize(
    "files",
    [
        {"memory.max": "1073741824\n"},
        {"cpu.weight": "50\n"},
        {"cpu.max": "150000 100000\n"},
        {"cpuset.cpus": "0-1\n"},
        {"pids.max": "200\n"},
        {"io.max": "259:0 rbps=max wbps=max riops=100 wiops=max\n"},
    ],
)
def test_a_limit_that_is_planned_no_more_is_taken_away(tmp_path: Path, files: dict[str, str]) -> None:
    assert answer(v2(tmp_path, files), Systemd(tmp_path))["changed"] is True


def test_a_disk_that_is_planned_no_more_is_named_to_systemd_which_has_forgotten_it(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path)
    answer(v1(tmp_path, {"blkio/blkio.throttle.write_bps_device": "254:0 20971520\n"}), systemd)
    assert "IOWriteBandwidthMax=/dev/block/254:0 infinity" in systemd.told[0]


def test_a_disk_that_keeps_another_limit_is_named_as_in_its_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (apply, kernel):
        monkeypatch.setattr(module, "device_of", lambda _path, _view: "254:0")
    systemd = Systemd(tmp_path)
    view = v2(tmp_path, {"io.max": "254:0 rbps=max wbps=30 riops=500 wiops=max\n"})
    answer(view, systemd, io_write_bandwidth=20, io_paths=["/srv"])
    told = [word for word in systemd.told[0] if word.startswith("IO")]
    assert told == ["IOWeight=", "IOReadIOPSMax=/srv infinity", "IOWriteBandwidthMax=/srv 20"]


def test_v1_without_limits_is_left_alone(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "cpu/cpu.cfs_quota_us": "-1\n",
        "cpu/cpu.shares": "1024\n",
        "pids/pids.max": "max\n",
    }
    assert answer(v1(tmp_path, files), Systemd(tmp_path))["changed"] is False


@pytest.mark.parametrize("one", [{}, {"name": "a.service"}, {**slice_of(), "name": "x"}])
def test_what_is_no_slice_is_refused(tmp_path: Path, one: dict[str, Any]) -> None:
    systemd = Systemd(tmp_path)
    with pytest.raises(InputError, match=r"slices\[0\]: .* is refused; allowed: a slice with name, runner"):
        apply.answer({"slices": [one]}, False, systemd, v2(tmp_path))
    assert systemd.told == []
