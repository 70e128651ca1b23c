# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel's files say of slices' limits, on cgroup v1 and v2."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _limits_kernel as kernel
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from hypothesis import given
from hypothesis import strategies as st
from support.cgroup_tree import RUNNER, slice_of, v1, v2, write


def only(view: View, **limits: Any) -> kernel.Held:
    (found,) = kernel.held(slice_of(**limits), kernel.read_tree(view), view)
    return found


V2 = [
    ("cpu_weight", 50, "cpu.weight", "50\n", True),
    ("cpu_weight", 50, "cpu.weight", "100\n", False),
    ("cpus", 1.5, "cpu.max", "150000 100000\n", True),
    ("cpus", 1.5, "cpu.max", "1500000 1000000\n", True),
    ("cpus", 1.5, "cpu.max", "max 100000\n", False),
    ("allowed_cpus", "0-1", "cpuset.cpus.effective", "0-1\n", True),
    ("allowed_cpus", "0-1", "cpuset.cpus.effective", "0-3\n", False),
    ("allowed_cpus", "0-1", "cpuset.cpus.effective", "\n", False),
    ("memory", 1 << 30, "memory.max", "1073741824\n", True),
    ("memory", (1 << 30) + 5, "memory.max", "1073741824\n", True),
    ("memory", 1 << 30, "memory.max", "max\n", False),
    ("memory_high", 1 << 30, "memory.high", "1073741824\n", True),
    ("swap", 0, "memory.swap.max", "0\n", True),
    ("swap", 0, "memory.swap.max", "max\n", False),
    ("pids", 200, "pids.max", "200\n", True),
    ("pids", 200, "pids.max", "max\n", False),
    ("io_weight", 200, "io.weight", "default 200\n8:0 300\n", True),
    ("io_weight", 200, "io.bfq.weight", "109\n", True),
    ("io_weight", 200, "io.weight", "default 100\n", False),
]


@pytest.mark.parametrize(("limit", "value", "file", "text", "same"), V2)
def test_a_limit_on_v2(tmp_path: Path, limit: str, value: Any, file: str, text: str, same: bool) -> None:
    found = only(v2(tmp_path, {file: text}), **{limit: value})
    assert (found.limit, found.same) == (limit, same)
    assert found.file == f"/sys/fs/cgroup/{RUNNER}/{file}"


V1 = [
    ("cpu_weight", 50, {"cpu/cpu.shares": "512\n"}, True),
    ("cpu_weight", 50, {"cpu/cpu.shares": "1024\n"}, False),
    ("cpus", 1.5, {"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, True),
    ("cpus", 1.5, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, False),
    ("memory", 1 << 30, {"memory/memory.limit_in_bytes": "1073741824\n"}, True),
    ("memory", 1 << 30, {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, False),
    ("pids", 200, {"pids/pids.max": "200\n"}, True),
    # As systemd 257 wrote them.
    ("io_weight", 50, {"blkio/blkio.bfq.weight": "113\n"}, True),
    ("io_weight", 200, {"blkio/blkio.bfq.weight": "181\n"}, True),
    ("io_weight", 50, {"blkio/blkio.weight": "250\n"}, True),
    ("io_weight", 50, {"blkio/blkio.weight": "500\n"}, False),
]


@pytest.mark.parametrize(("limit", "value", "files", "same"), V1)
def test_a_limit_on_v1(tmp_path: Path, limit: str, value: Any, files: dict[str, str], same: bool) -> None:
    found = only(v1(tmp_path, files), **{limit: value})
    assert (found.limit, found.same) == (limit, same)


def test_a_file_that_isnt_there_holds_nothing(tmp_path: Path) -> None:
    found = only(v2(tmp_path), pids=200)
    assert (found.value, found.same, found.wanted) == (None, False, "200")


def test_a_quota_is_told_in_the_kernel_s_words(tmp_path: Path) -> None:
    assert only(v2(tmp_path, {"cpu.max": "max 100000\n"}), cpus=1.5).wanted == "150000 100000"
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "50000\n"}
    assert only(v1(tmp_path / "v1", files), cpus=1.5).wanted == "75000"


def test_what_v1_hasnt_is_told_apart(tmp_path: Path) -> None:
    view = v1(tmp_path)
    tree = kernel.read_tree(view)
    one = slice_of(allowed_cpus="0", swap=0, io_read_iops=9)
    assert kernel.held(one, tree, view) == []
    assert kernel.lacking_on_v1(one, tree) == ["allowed_cpus", "swap", "io_read_iops"]
    assert kernel.lacking_on_v1(one, kernel.Tree(True, {})) == []


@pytest.mark.parametrize(
    ("value", "same"), [("rbps=1048576 wbps=max riops=max wiops=max", True), ("rbps=5 wbps=max", False)]
)
def test_a_limit_of_a_device_on_v2(
    tmp_path: Path, value: str, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "device_of", lambda _path, _view: "259:0")
    found = only(
        v2(tmp_path, {"io.max": f"8:0 rbps=max wbps=1\n259:0 {value}\n"}),
        io_read_bandwidth=1 << 20,
        io_paths=["/srv"],
    )
    assert (found.same, found.wanted) == (same, "1048576 for 259:0")


def test_a_limit_of_a_device_on_v1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "device_of", lambda _path, _view: "254:0")
    view = v1(tmp_path, {"blkio/blkio.throttle.write_bps_device": "254:0 20971520\n"})
    assert only(view, io_write_bandwidth=20 << 20, io_paths=["/"]).same
    other = only(view, io_read_bandwidth=1, io_paths=["/"])
    assert (other.same, other.value) == (False, None)


def test_a_place_on_no_disk_has_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "device_of", lambda _path, _view: None)
    found = only(v2(tmp_path, {"io.max": ""}), io_read_iops=9, io_paths=["/srv"])
    assert (found.same, found.value, found.wanted) == (False, None, "9 for /srv, which is on no disk")


def test_the_root_of_a_container_is_where_its_process_1_is(tmp_path: Path) -> None:
    view = write(
        tmp_path,
        {
            "/proc/self/mountinfo": "1 0 0:26 /guest /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "/proc/1/cgroup": "0::/guest/init.scope\n",
            "/sys/fs/cgroup/cgroup.controllers": "memory pids\n",
        },
    )
    tree = kernel.read_tree(view)
    assert tree.unified
    assert tree.folder("pids", "matryoshka-ci.slice") == f"/sys/fs/cgroup/{RUNNER}"
    assert tree.folder("cpu", "matryoshka-ci.slice") is None


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("matryoshka.slice", "matryoshka.slice"),
        ("matryoshka-ci.slice", "matryoshka.slice/matryoshka-ci.slice"),
        ("a-b-c.slice", "a.slice/a-b.slice/a-b-c.slice"),
    ],
)
def test_where_a_slice_is(name: str, path: str) -> None:
    assert kernel.slice_path(name) == path


def test_the_disk_below_a_partition_below_a_mapped_device(tmp_path: Path) -> None:
    view = write(
        tmp_path,
        {
            "/sys/devices/pci/nvme0n1/dev": "259:0\n",
            "/sys/devices/pci/nvme0n1/nvme0n1p1/dev": "259:1\n",
            "/sys/devices/pci/nvme0n1/nvme0n1p1/partition": "1\n",
            "/sys/devices/virtual/dm-0/dev": "253:0\n",
            "/sys/devices/virtual/md0/dev": "9:0\n",
            "/sys/devices/virtual/md0/slaves/sda/dev": "8:0\n",
            "/sys/devices/virtual/md0/slaves/sdb/dev": "8:16\n",
        },
    )
    numbers = tmp_path / "sys/dev/block"
    numbers.mkdir(parents=True)
    (tmp_path / "sys/devices/virtual/dm-0/slaves").mkdir()
    (tmp_path / "sys/devices/virtual/dm-0/slaves/nvme0n1p1").symlink_to("../../../pci/nvme0n1/nvme0n1p1")
    for number, place in (
        ("259:0", "pci/nvme0n1"),
        ("259:1", "pci/nvme0n1/nvme0n1p1"),
        ("253:0", "virtual/dm-0"),
        ("9:0", "virtual/md0"),
    ):
        (numbers / number).symlink_to(f"../../devices/{place}")
    assert kernel.whole_disk("259:1", view) == "259:0"
    assert kernel.whole_disk("253:0", view) == "259:0"
    # Of several disks systemd takes none; the limit is on the whole.
    assert kernel.whole_disk("9:0", view) == "9:0"
    assert kernel.whole_disk("7:0", view) == "7:0"


def test_the_device_of_what_isnt_there_is_none(tmp_path: Path) -> None:
    assert kernel.device_of("/no/such", View(str(tmp_path))) is None
    number = os.stat("/proc").st_dev
    assert os.major(number) == 0
    assert kernel.device_of("/proc", View()) is None


@given(st.text(alphabet="0123456789: rwbpsio=max\n", max_size=80))
def test_any_text_of_io_max_is_read(text: str) -> None:
    assert isinstance(kernel.parse_io(text), dict)
    assert isinstance(kernel.parse_throttle(text), dict)


@given(st.integers(1, 10000))
def test_weights_stay_in_their_ranges(weight: int) -> None:
    assert 1 <= kernel.bfq_weight(weight) <= 1000
    assert 10 <= kernel.blkio_weight(weight) <= 1000
