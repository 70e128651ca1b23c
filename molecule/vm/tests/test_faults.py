# SPDX-License-Identifier: GPL-3.0-or-later
"""Full disks, a clock that jumps, a host out of memory, a root file system gone read-only.

Each ends in a state that says what is wrong, and the runners come back by themselves when the cause is gone.
"""

from __future__ import annotations

import pytest
from machines import Machine

FULL = {
    "data root": "/srv/fast",
    "/var": "/var/lib",
    "/run": "/run",
}
"""Where a file is made that takes all the space there is."""


def take_all(folder: str) -> str:
    """A shell line that leaves no block free in a file system, and says how much is left."""
    return (
        f"fallocate -l $(($(stat -f -c '%f * %S' {folder}) - 65536)) {folder}/all 2>/dev/null;"
        f" dd if=/dev/zero of={folder}/rest bs=4k 2>/dev/null; df --output=avail {folder} | tail -n 1"
    )


@pytest.mark.parametrize("what", list(FULL))
def test_a_full_disk_is_said_and_got_over(machine: Machine, what: str) -> None:
    folder = FULL[what]
    machine.all_ready()
    machine.sh(take_all(folder))
    try:
        job = machine.submit if what != "/var" else None
        if job is not None:
            ended = job("docker volume create heap && sync", "ci", "full").wait(300)
            assert ended.status in ("succeeded", "failed", "cut off")
            assert ended.status == "succeeded" or ended.reason, ended
        machine.sh("systemctl restart --no-block matryoshka-runner@ci")
        machine.wait(
            "the journal names the full file system",
            "journalctl -b -u matryoshka-runner@ci -o cat -n 40 | grep -i 'no space left'",
            240,
        ) if what != "data root" else None
    finally:
        machine.sh(f"rm -f {folder}/all {folder}/rest")
    machine.all_ready()
    machine.submit("docker version", "ci").succeeds(240)


def test_a_clock_that_jumps_ends_no_job_and_holds_none_back(machine: Machine) -> None:
    machine.all_ready()
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
    machine.all_ready()
    services = "systemctl show -p MainPID --value ssh docker containerd matryoshka-runner@ci matryoshka-runner@neighbour"
    before = machine.sh(services)
    job = machine.held("ci")
    machine.sh("systemd-run --quiet --collect --unit host-hog -p OOMScoreAdjust=-500 tail /dev/zero")
    ended = job.wait(300)
    assert ended.status == "cut off", ended
    assert "memory" in ended.reason, ended
    machine.wait("the hog is dead", "! systemctl is-active host-hog", 300)
    assert machine.sh(services) == before
    machine.all_ready()
    machine.submit("docker version", "ci").succeeds(240)


def test_a_root_file_system_gone_read_only_is_said_and_a_restart_mends_it(machine: Machine) -> None:
    machine.all_ready()
    machine.sh("echo 'testing' > /sys/fs/ext4/vda/trigger_fs_error || true")
    machine.wait("the root file system is read-only", "! touch /var/lib/matryoshka/probe", 60)
    machine.sh("systemctl restart --no-block matryoshka-runner@ci")
    machine.wait(
        "the runner says so",
        "journalctl -b -u matryoshka-runner@ci -o cat -n 60 | grep -i 'read-only'",
        300,
    )
    machine.vm.reboot_by_cut()
    machine.all_ready()
    machine.submit("docker version", "ci").succeeds(240)
    assert machine.unhealthy() == ""
