# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a job stays in its slice, two dolls down, and a hog stops at its limits. The times are ``./dev bench vm``'s."""

from __future__ import annotations

import math

from hogs import feed
from machines import Machine

CI = "/sys/fs/cgroup/matryoshka.slice/matryoshka-ci.slice"
MIB = 1 << 20
TWO_DOLLS = """\
{ echo max > /sys/fs/cgroup/memory.max; echo max > /sys/fs/cgroup/pids.max; } || true
cd $(mktemp -d) && cp /bin/busybox . && tar c busybox | docker import - box >/dev/null
docker run -d --privileged --pid host --cgroupns host box /busybox sleep 4711
"""


def held(machine: Machine, file: str, below: str = CI) -> str:
    """What the kernel holds in a file of a slice."""
    return machine.sh(f"cat {below}/{file}").strip()


def test_the_kernel_holds_what_was_asked_for(machine: Machine) -> None:
    assert held(machine, "cpu.max") == "150000 100000"
    assert held(machine, "memory.max") == str(768 * MIB)
    assert held(machine, "pids.max") == "600"
    assert held(machine, "cpu.weight", "/sys/fs/cgroup/matryoshka.slice") == "50"
    device = machine.sh("findmnt -no MAJ:MIN /srv/fast").strip()
    assert f"{device} rbps=max wbps={40 * MIB} riops=max wiops=max" in held(machine, "io.max").splitlines()


def test_a_process_two_dolls_down_is_in_its_runner_s_slice_and_can_t_raise_its_limits(
    machine: Machine,
) -> None:
    """Privileged or not: the files of its slice aren't in its cgroup namespace."""
    job = machine.held("ci", before=TWO_DOLLS)
    found = machine.sh(
        "for pid in $(pgrep -f '[b]usybox sleep 4711'); do cat /proc/$pid/cgroup; done"
    ).split()
    assert found and all(
        line.startswith("0::/matryoshka.slice/matryoshka-ci.slice/docker-") for line in found
    )
    assert (held(machine, "memory.max"), held(machine, "pids.max")) == (str(768 * MIB), "600")
    job.release("ci")
    ended = job.succeeds(240)
    journal = machine.sh(f"journalctl -b -o cat -u matryoshka-runner@ci | grep 'job {job.id}: used'")
    assert "s of cpu" in journal and "memory" in journal
    assert "for memory" in journal, f"no pressure figures: {journal}"
    assert ended.reason == ""


def test_a_memory_hog_dies_with_its_environment_and_is_told_why(machine: Machine) -> None:
    meal = feed(machine, "memory", 120)
    assert meal.killed == [] and math.isfinite(meal.ssh), meal
    assert meal.end.startswith("failed: killed by its limit: memory 768 MiB"), meal
    kernel = machine.sh("journalctl -k -b -o cat | grep 'oom-kill:constraint=' || true")
    assert "CONSTRAINT_MEMCG" in kernel and "CONSTRAINT_NONE" not in kernel
