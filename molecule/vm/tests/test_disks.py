# SPDX-License-Identifier: GPL-3.0-or-later
"""NVMe devices by their serials, quotas that hold, blocks that go back to the device, a disk that is somebody's."""

from __future__ import annotations

import hashlib
import json

from live import wait_for
from machines import Machine

MIB = 1 << 20


def test_each_volume_is_on_the_device_that_was_asked_for(machine: Machine) -> None:
    found = json.loads(machine.sh("lsblk -Jpo NAME,SERIAL,TRAN,FSTYPE,MOUNTPOINT"))["blockdevices"]
    by_serial = {one["serial"]: one for one in found if one["serial"]}
    assert {one["tran"] for one in by_serial.values()} == {"nvme"}
    seen = {serial: (one["fstype"], one["mountpoint"]) for serial, one in by_serial.items()}
    assert seen == {
        "MX-FAST-1": ("xfs", "/srv/fast"),
        "MX-SLOW-1": ("ext4", "/srv/slow"),
        "MX-FAMILY-1": ("ext4", None),
    }
    info = json.loads(machine.sh("docker info --format '{{json .}}'"))
    assert (info["DockerRootDir"], info["Driver"], info["CgroupVersion"]) == (
        "/srv/fast/docker",
        "overlay2",
        "2",
    )
    assert ["Backing Filesystem", "xfs"] in info["DriverStatus"]


def unchanged(machine: Machine) -> str:
    """What a refused play must not change: units, mounts, quotas, and the disk that is somebody's."""
    files = "ls -R /etc/systemd; cat /etc/fstab /etc/projects /etc/projid; findmnt -rno TARGET,SOURCE"
    family = machine.vm.machine.disk_file("MX-FAMILY-1").read_bytes()
    return machine.sh(files) + hashlib.sha256(family).hexdigest()


def test_wrong_devices_are_refused_and_nothing_changes(machine: Machine) -> None:
    """Wrong quotas are refused in ``tests/integration/test_project_quotas.py``, on xfs and ext4."""
    wrong = [
        {"name": "family", "path": "/srv/family", "device": {"serial": "MX-FAMILY-1"}},
        {"name": "none", "path": "/srv/none", "device": {"serial": "MX-FAST-2"}},
        {"name": "two", "path": "/srv/two", "device": {"transport": "nvme", "size_min": "2G"}},
    ]
    before = unchanged(machine)
    volumes = machine.given["storage_volumes"] + wrong
    code, said = machine.playbook("site", "--tags", "storage", storage_volumes=volumes)
    assert code != 0
    for word in ("[family]", "MX-FAMILY-1", "ext4", "[none]", "MX-FAST-2", "[two]", "2 fit"):
        assert word in said, f"{word} isn't in:\n{said}"
    assert unchanged(machine) == before


def fill(runner_disk: int) -> str:
    """A job that writes into its engine's data until nothing more fits, and a byte more."""
    return (
        "docker volume create heap >/dev/null; cd $(docker volume inspect -f '{{.Mountpoint}}' heap)\n"
        f"fallocate -l {runner_disk - 256 * MIB} most && echo most fits\n"
        "fallocate -l 192M more; dd if=/dev/zero of=rest bs=1M count=1024\n"
    )


def test_a_job_that_fills_its_disk_stops_alone_and_is_told_why(machine: Machine) -> None:
    """Project quotas of xfs (``ci``) and of ext4 (``neighbour``)."""
    sizes = {"ci": 2048 * MIB, "neighbour": 1024 * MIB}
    for full, going in (("ci", "neighbour"), ("neighbour", "ci")):
        other = machine.held(going)
        ended = machine.submit(fill(sizes[full]), full).wait(300)
        assert ended.status == "failed", ended
        assert "No space left on device" in ended.log or "Disk quota exceeded" in ended.log
        assert "most fits" in ended.log
        assert "disk" in ended.reason and "full" in ended.reason, ended
        assert ended.reason in ended.log
        machine.inside(
            going,
            "dd if=/dev/zero of=/var/lib/docker/tmp/more bs=1M count=8 2>&1 && rm /var/lib/docker/tmp/more",
        )
        machine.sh("dd if=/dev/zero of=/srv/fast/more bs=1M count=8 conv=fsync 2>&1 && rm /srv/fast/more")
        other.release(going)
        other.succeeds()
        # The first one holds a job in the second round.
        machine.ready(full, 300)
    machine.submit("docker volume ls -q | wc -l", full).succeeds(300)


def test_freed_blocks_go_back_to_the_device(machine: Machine) -> None:
    serial = "MX-FAST-1"
    machine.sh("dd if=/dev/urandom of=/srv/fast/ballast bs=1M count=200 conv=fsync 2>&1")
    full = machine.vm.machine.allocated(serial)
    machine.sh("rm /srv/fast/ballast; sync -f /srv/fast; systemctl start fstrim.service")

    def smaller() -> bool:
        return machine.vm.machine.allocated(serial) < full - 150 * MIB

    wait_for(
        "the file behind the device is smaller",
        60,
        smaller,
        lambda: f"{full} bytes before, {machine.vm.machine.allocated(serial)} now",
    )
    assert machine.sh("systemctl is-enabled fstrim.timer").strip() == "enabled"
