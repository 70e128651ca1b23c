# SPDX-License-Identifier: GPL-3.0-or-later
"""Full disks, a clock that jumps, a host out of memory, a root file system gone read-only, a pulled disk, all hogs at once.

Each ends in a state that says what is wrong, and the runners come back by themselves when the cause is gone. How much
slower a neighbour's job is beside a hog is told by ``./dev bench vm hogs``.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from converged import LONG, converged
from hogs import feed
from machines import Copies, Machine

WHEN_FULL = """\
docker volume create heap >/dev/null
echo waiting
until [ $(($(stat -f -c '%a * %S' /var/lib/docker))) -lt 1000000 ]; do sleep 0.2; done
dd if=/dev/zero of=/var/lib/docker/volumes/heap/_data/some bs=1M count=64
"""
QUEUE = "/var/lib/matryoshka/queue"
PIDS = "/sys/fs/cgroup/matryoshka.slice/matryoshka-ci.slice/pids"
MIB = 1 << 20
SLOW = "MX-SLOW-1"
CI, NEIGHBOUR = "matryoshka-runner@ci.service", "matryoshka-runner@neighbour.service"
SAYS = "journalctl -b -u matryoshka-runner@ci -o cat"


@pytest.fixture(scope="module")
def copies() -> Iterator[Copies]:
    found = Copies(converged(LONG, print), f"{LONG}-faults")
    yield found
    found.remove()


@pytest.fixture
def machine(copies: Copies) -> Iterator[Machine]:
    """A converged machine that is up, its runners ready."""
    found = copies.fit()
    yield found
    found.let_go()


def take_all(folder: str) -> str:
    """A shell line that leaves no block free in a file system."""
    return (
        f"fallocate -l $(($(stat -f -c '%a * %S' {folder}) - 65536)) {folder}/all;"
        f" dd if=/dev/zero of={folder}/rest bs=4k 2>/dev/null; sync {folder}"
    )


def give_back(folder: str) -> str:
    return f"rm -f {folder}/all {folder}/rest"


def test_a_full_data_root_fails_the_job_that_meets_it_and_says_so(machine: Machine) -> None:
    # Nobody can tell it to go on: that would have to be written somewhere.
    job = machine.submit(WHEN_FULL, "ci", "full").says("waiting")
    machine.sh(take_all("/srv/fast"))
    try:
        ended = job.wait(300)
        assert ended.status == "failed", ended
        assert re.match(r"the disk of (9\.\d+|10) GiB at /srv/fast is full", ended.reason), ended
        assert ended.reason in ended.log
    finally:
        machine.sh(give_back("/srv/fast"))
    machine.all_ready()
    machine.submit("docker version", "ci").succeeds(240)


def test_a_full_var_is_said_and_no_job_is_taken_until_there_is_room(machine: Machine) -> None:
    job = machine.held("ci")
    waiting = machine.submit("echo taken", "ci")
    machine.sh(take_all("/var/lib"))
    try:
        job.release("ci")
        machine.becomes("ci", "failed", 240)
        error = machine.state("ci")["error"]
        assert "No space left on device" in error and "/var/lib/matryoshka" in error and "make room" in error
        assert waiting.waits()
    finally:
        machine.sh(give_back("/var/lib"))
    assert job.wait(240).status == "succeeded"
    waiting.succeeds(300)
    machine.all_ready()


def test_a_full_run_is_said_and_got_over(machine: Machine) -> None:
    place = machine.now()
    machine.sh(take_all("/run"))
    try:
        waiting = machine.submit("echo taken", "ci")
        machine.wait(
            "the journal says so",
            f"{SAYS} --after-cursor='{place}' | grep '/run.*No space left on device'",
            120,
        )
        assert waiting.waits()
    finally:
        machine.sh(give_back("/run"))
    waiting.succeeds(300)
    machine.all_ready()


def test_hogs_of_every_kind_but_memory_at_once_leave_neighbour_and_host_at_work(machine: Machine) -> None:
    """The memory hog has a test of its own in scenario ``vm``: its environment dies."""
    # On a busy machine beneath, a fork bomb takes more than 20 s to its limit.
    meal = feed(machine, "all but memory at once", 60)
    assert meal.killed == [] and math.isfinite(meal.ssh), meal
    # A fork fails at the limit; what the engine moves in, such as its health check, isn't held (cgroup-v2.rst, PID).
    assert 600 <= int(machine.sh(f"cat {PIDS}.peak")) <= 610
    events = dict(line.split() for line in machine.lines(f"cat {PIDS}.events"))
    assert int(events["max"]) > 0
    hog = f"$(ls -td {QUEUE}/done/hog-* | head -n 1)/log"
    assert int(machine.sh(f"stat -c %s {hog}")) <= 9 * MIB
    assert "cut" in machine.sh(f"tail -n 3 {hog}")


def test_a_pulled_disk_stops_one_runner_and_not_its_neighbour(machine: Machine) -> None:
    """It comes back while what ran on it still ends, and under another name."""
    job = machine.held("ci")
    machine.vm.machine.pull(SLOW)
    machine.wait("the runner of the pulled disk is down", f"! systemctl is-active {NEIGHBOUR}")
    assert machine.active("docker.service", CI) == {"docker.service": "active", CI: "active"}
    job.release("ci").succeeds(200)
    machine.vm.machine.plug(SLOW)
    machine.all_ready()
    machine.submit("docker version", "neighbour").succeeds(200)


def test_a_clock_that_jumps_ends_no_job_and_holds_none_back(machine: Machine) -> None:
    job = machine.held("ci")
    machine.sh("date --set '+1 day'")
    later = machine.submit("echo a day later", "neighbour").succeeds(240)
    assert later.exit_code == 0
    machine.sh("date --set '-1 day'")
    machine.submit("echo back again", "neighbour").succeeds(240)
    job.release("ci")
    ended = job.succeeds(240)
    assert ended.environment
    machine.all_ready()
    assert machine.unhealthy() == ""


def test_a_host_out_of_memory_loses_environments_and_nothing_of_its_own(machine: Machine) -> None:
    services = "systemctl show -p MainPID --value ssh docker containerd matryoshka-runner@ci matryoshka-runner@neighbour"
    before = machine.sh(services)
    job = machine.held("ci")
    machine.sh("systemd-run --quiet --collect --unit host-hog -p OOMScoreAdjust=-500 tail /dev/zero")
    # Nobody is promised a new connection while there is no memory.
    machine.wait("the hog is dead", "! systemctl is-active host-hog", 300)
    ended = job.wait(300)
    assert ended.status == "cut off", ended
    assert "memory" in ended.reason, ended
    assert machine.sh(services) == before
    machine.all_ready()
    machine.submit("docker version", "ci").succeeds(240)


def test_a_root_file_system_gone_read_only_is_said_and_got_over(machine: Machine) -> None:
    """SysRq u makes every file system read-only, the root's too (kernel, Documentation/admin-guide/sysrq.rst)."""
    machine.sh("echo u > /proc/sysrq-trigger")
    machine.wait("the root file system is read-only", "! touch /var/lib/matryoshka/probe", 60)
    try:
        machine.becomes("ci", "failed", 240)
        assert "Read-only file system" in machine.state("ci")["error"]
    finally:
        machine.sh("for one in / /srv/fast /srv/slow; do mount -o remount,rw $one || exit; done")
    machine.all_ready()
    machine.submit("docker version", "ci").succeeds(240)
    assert machine.unhealthy() == ""


def test_after_an_error_of_the_root_file_system_a_restart_is_enough(machine: Machine) -> None:
    """Linux 6.12 then reads nothing any more from an ext4 file system either, so nobody can ask the machine."""
    job = machine.held("ci")
    machine.sh("echo testing > /sys/fs/ext4/vda/trigger_fs_error")
    assert machine.host.run("touch /var/lib/matryoshka/probe").rc != 0
    machine.vm.reboot_by_cut()
    machine.all_ready()
    ended = job.wait(60)
    assert ended.status == "cut off" and ended.reason, ended
    machine.submit("docker version", "ci").succeeds(240)
    assert machine.unhealthy() == ""
