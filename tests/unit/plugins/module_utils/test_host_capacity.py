# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

from ansible_collections.matryoshka.host.plugins.module_utils._host_capacity import read_capacity
from support.cgroup_tree import write


def test_what_there_can_be(tmp_path: Path) -> None:
    files = {
        "/sys/devices/system/cpu/online": "0-3\n",
        "/proc/sys/kernel/pid_max": "4194304\n",
        "/proc/sys/kernel/threads-max": "127430\n",
        "/proc/meminfo": "MemTotal:       16384 kB\nSwapTotal:       1024 kB\n",
    }
    assert read_capacity(write(tmp_path, files)) == {
        "cpu_list": "0-3",
        "pids": 4194304,
        "threads": 127430,
        "swap_bytes": 1 << 20,
    }


def test_what_cant_be_read_is_null(tmp_path: Path) -> None:
    found = read_capacity(write(tmp_path, {"/proc/sys/kernel/pid_max": "many\n"}))
    assert set(found.values()) == {None}
