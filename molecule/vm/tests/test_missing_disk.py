# SPDX-License-Identifier: GPL-3.0-or-later
"""A data disk that isn't there at boot, one that is pulled out of the running machine, and both when they come back.

That verify has nothing to say afterwards is seen at the end of the power cuts, which the same machine goes through.
"""

from __future__ import annotations

from machines import Machine

FAST, SLOW = "MX-FAST-1", "MX-SLOW-1"
CI, NEIGHBOUR = "matryoshka-runner@ci.service", "matryoshka-runner@neighbour.service"


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


def test_the_disk_comes_back_and_so_does_everything(off: Machine) -> None:
    off.vm.machine.plug(FAST)
    off.wait("the volume is mounted", "findmnt /srv/fast")
    off.all_ready()
    off.submit("docker version", "ci").succeeds(200)
    off.wait("systemd has nothing to complain of", 'test "$(systemctl is-system-running)" = running', 60)


def test_a_pulled_disk_stops_one_runner_and_not_its_neighbour(off: Machine) -> None:
    """It comes back while what ran on it still ends, and under another name."""
    job = off.held("ci")
    off.vm.machine.pull(SLOW)
    off.wait("the runner of the pulled disk is down", f"! systemctl is-active {NEIGHBOUR}")
    assert off.active("docker.service", CI) == {"docker.service": "active", CI: "active"}
    job.release("ci").succeeds(200)
    off.vm.machine.plug(SLOW)
    off.all_ready()
    off.submit("docker version", "neighbour").succeeds(200)
