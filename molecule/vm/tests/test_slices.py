# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a job stays in its slice, two dolls down, and a hog stops at its limits. The times are ``./dev bench vm``'s."""

from __future__ import annotations

import pytest
from hogs import HOGS, feed, neighbour_seconds
from machines import Machine

CI = "/sys/fs/cgroup/matryoshka.slice/matryoshka-ci.slice"
NEIGHBOUR = "/sys/fs/cgroup/matryoshka.slice/matryoshka-neighbour.slice"
MIB = 1 << 20


def number(machine: Machine, path: str, file: str) -> str:
    return machine.sh(f"cat {path}/{file}").strip()


def test_the_kernel_holds_what_was_asked_for(machine: Machine) -> None:
    assert number(machine, CI, "cpu.max") == "150000 100000"
    assert number(machine, CI, "memory.max") == str(768 * MIB)
    assert number(machine, CI, "pids.max") == "600"
    assert number(machine, "/sys/fs/cgroup/matryoshka.slice", "cpu.weight") == "50"
    device = machine.sh("findmnt -no MAJ:MIN /srv/fast").strip()
    assert (
        f"{device} rbps=max wbps={40 * MIB} riops=max wiops=max" in number(machine, CI, "io.max").splitlines()
    )


def test_a_process_two_dolls_down_is_in_its_runner_s_slice(machine: Machine) -> None:
    job = machine.held(
        "ci",
        before="cd $(mktemp -d) && cp /bin/busybox . && tar c busybox | docker import - box >/dev/null\n"
        "docker run -d --privileged --pid host --cgroupns host box /busybox sleep 4711",
    )
    found = machine.sh("for pid in $(pgrep -f '[b]usybox sleep 4711'); do cat /proc/$pid/cgroup; done").split()
    assert found and all(
        line.startswith("0::/matryoshka.slice/matryoshka-ci.slice/docker-") for line in found
    )
    job.release("ci")
    job.succeeds(240)


def test_a_job_can_t_raise_its_own_limit(machine: Machine) -> None:
    """Privileged or not: the files of its slice aren't in its cgroup namespace."""
    ended = machine.submit(
        "echo max > /sys/fs/cgroup/memory.max; echo max > /sys/fs/cgroup/pids.max; cat /sys/fs/cgroup/memory.max",
        "ci",
    ).wait(240)
    assert ended.status in ("succeeded", "failed")
    assert number(machine, CI, "memory.max") == str(768 * MIB)
    assert number(machine, CI, "pids.max") == "600"


def test_a_memory_hog_dies_with_its_environment_and_is_told_why(machine: Machine) -> None:
    meal = feed(machine, "memory", neighbour_seconds(machine), 120)
    assert meal.killed == []
    assert "memory" in meal.end and "768" in meal.end, meal
    kernel = machine.sh("journalctl -k -b -o cat | grep -c 'oom-kill:constraint=CONSTRAINT_MEMCG' || true")
    assert int(kernel) >= 1
    assert "CONSTRAINT_NONE" not in machine.sh("journalctl -k -b -o cat | grep oom-kill || true")


def test_hogs_of_every_kind_at_once_leave_neighbour_and_host_at_work(machine: Machine) -> None:
    meal = feed(machine, "all but memory at once", neighbour_seconds(machine), 45)
    assert meal.killed == []
    assert int(number(machine, CI, "pids.peak")) <= 600
    events = dict(line.split() for line in number(machine, CI, "pids.events").splitlines())
    assert int(events["max"]) > 0
    machine.all_ready()


def test_a_log_flood_is_cut_and_says_so(machine: Machine) -> None:
    ended = machine.submit(HOGS["log flood"].format(20), "ci").wait(300)
    size = int(machine.sh(f"stat -c %s /var/lib/matryoshka/queue/done/{ended_id(machine)}/log"))
    assert size <= 101 * MIB
    assert "cut" in ended.log[-300:]


def ended_id(machine: Machine) -> str:
    """The job that ended last."""
    return machine.sh("ls -t /var/lib/matryoshka/queue/done | head -n 1").strip()


def test_what_a_job_used_is_in_its_result_and_in_the_journal(machine: Machine) -> None:
    place = machine.now()
    job = machine.submit("count=0; while [ $count -lt 20000 ]; do count=$((count + 1)); done", "ci")
    job.succeeds(240)
    lines = [line for line in machine.journal("matryoshka-runner@ci", place) if job.id in line]
    assert any("memory" in line and "cpu" in line.lower() for line in lines), lines


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"runner_memory": "64G"}, ["memory", "64", "limits_reserve_memory"]),
        ({"limits_cpu_weight": 20000}, ["limits_cpu_weight", "20000", "10000"]),
        ({"limits_allowed_cpus": "0-7"}, ["limits_allowed_cpus", "0-7", "0-1"]),
        (
            {"limits_io_device": "/dev/nvme9n1", "limits_io_write_bandwidth": "10M"},
            ["limits_io_device", "/dev/nvme9n1"],
        ),
        ({"limits_memory": "much"}, ["limits_memory", "much"]),
    ],
    ids=["sum", "weight", "cpuset", "device", "size"],
)
def test_a_wrong_limit_is_refused_and_nothing_changes(
    machine: Machine, variables: dict[str, object], words: list[str]
) -> None:
    before = machine.sh("systemctl cat 'matryoshka*.slice'; cat /sys/fs/cgroup/matryoshka.slice/*.max")
    code, said = machine.playbook("preflight", **variables)
    assert code != 0
    for word in words:
        assert word in said, f"{word} isn't in:\n{said}"
    assert (
        machine.sh("systemctl cat 'matryoshka*.slice'; cat /sys/fs/cgroup/matryoshka.slice/*.max") == before
    )
