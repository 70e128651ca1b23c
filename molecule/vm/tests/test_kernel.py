# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stock kernel adds to mode dind's promises: cgroup v2 handed down two dolls, AppArmor on.

The promises themselves were checked by verify, with which the scenario's converge ends.
"""

from __future__ import annotations

import json

from machines import Machine


def test_the_kernel_is_debian_s_own_with_cgroup_v2_and_apparmor(machine: Machine) -> None:
    assert machine.sh("uname -v").split()[-1] and "Debian" in machine.sh("cat /proc/version")
    assert machine.sh("stat -fc %T /sys/fs/cgroup").strip() == "cgroup2fs"
    assert machine.sh("cat /sys/module/apparmor/parameters/enabled").strip() == "Y"
    assert machine.host.run("apparmor_status --enabled").rc == 0


def test_controllers_are_delegated_into_the_environment(machine: Machine) -> None:
    """A limit that a job sets on its own container is held by the kernel, and only inside its own tree."""
    inside = machine.inside(
        "ci", "cat /sys/fs/cgroup/cgroup.controllers; cat /sys/fs/cgroup/cgroup.subtree_control"
    )
    for line in inside.splitlines():
        assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(line.split()), inside
    info = json.loads(machine.inside("ci", "docker info --format '{{json .}}'"))
    assert info["CgroupVersion"] == "2" and info["MemoryLimit"] and info["PidsLimit"]
    ended = machine.submit(
        "docker import - limited < /dev/null >/dev/null 2>&1 || true\n"
        "cd $(mktemp -d) && cp /bin/busybox . && tar c busybox | docker import - box >/dev/null\n"
        "docker run --rm --memory 64m --pids-limit 32 --cgroupns private box "
        "/busybox sh -c '/busybox cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max'\n",
        "ci",
    ).succeeds(240)
    assert ended.log.split()[-2:] == [str(64 << 20), "32"]


def test_an_environment_sees_no_cgroup_but_its_own(machine: Machine) -> None:
    assert machine.inside("ci", "cat /proc/1/cgroup").startswith("0::/")
    assert "/.." not in machine.inside("ci", "cat /proc/self/cgroup")
    assert machine.inside("ci", "ls -d /sys/fs/cgroup/system.slice 2>/dev/null || true") == ""
