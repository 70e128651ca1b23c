# SPDX-License-Identifier: GPL-3.0-or-later
"""The power goes during two jobs, and a data disk with it, which comes back later.

That caches are well and verify has nothing to say is seen at the end of the other power cuts, which the same machine goes
through.
"""

from __future__ import annotations

import random
import time

import pytest
from machines import Copies, Machine
from power_cuts import MOMENTS, Cut, judge_jobs, row, strike

JOB = next(moment for moment in MOMENTS if moment.name == "job")
FAST = "MX-FAST-1"
CI, NEIGHBOUR = "matryoshka-runner@ci.service", "matryoshka-runner@neighbour.service"


class Struck:
    """A converged machine whose power went in the midst of two jobs; it is off, and the jobs weren't looked for yet."""

    def __init__(self, machine: Machine) -> None:
        seed = int(time.time())
        print(f"seed {seed}")
        self.jobs: list[str] = []
        self.cut: Cut = strike(machine, 1, JOB, random.Random(seed), self.jobs)
        self.machine = machine


@pytest.fixture(scope="module")
def struck(copies: Copies) -> Struck:
    return Struck(copies.fit())


@pytest.fixture
def off(struck: Struck) -> Machine:
    """The machine; all tests of the file go through its fate together."""
    return struck.machine


def test_without_the_engine_s_disk_the_machine_comes_up_and_verify_names_the_disk(off: Machine) -> None:
    """While systemd still waits for the disk, which it does for 90 s."""
    off.boot(without=[FAST])
    code, said = off.playbook("verify", verify_wait=1)
    assert code != 0
    assert "/srv/fast" in said and "mounted" in said


def test_the_machine_boots_and_the_engine_stays_down(off: Machine) -> None:
    off.wait("the machine is up", "systemctl is-active multi-user.target", 180)
    seen = off.active("multi-user.target", "ssh.service", "docker.service", CI, NEIGHBOUR)
    assert seen["multi-user.target"] == seen["ssh.service"] == "active"
    assert {seen["docker.service"], seen[CI], seen[NEIGHBOUR]} == {"inactive"}
    assert "dependency" in off.sh("journalctl -b -u docker.service")


def test_nothing_is_written_in_the_place_of_the_disk(off: Machine) -> None:
    assert off.sh("ls -A /srv/fast") == ""
    assert off.host.run("mkdir /srv/fast/docker").rc != 0


def test_the_disk_comes_back_and_so_does_everything(struck: Struck) -> None:
    off = struck.machine
    off.vm.machine.plug(FAST)
    off.wait("the volume is mounted", "findmnt /srv/fast")
    off.all_ready()
    assert len(struck.jobs) == 2
    judge_jobs(off, struck.cut, struck.jobs)
    assert not struck.cut.wrong, "\n".join([row(struck.cut), *struck.cut.wrong])
    off.wait("systemd has nothing to complain of", 'test "$(systemctl is-system-running)" = running', 60)
