# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from qemu import Disk, Machine, greets, kvm_boots
from vm_image import Boot

BOOT = Boot(Path("/b/vmlinuz"), Path("/b/initrd"), Path("/b/root.img"))
MACHINE = Machine("vm", "vm-debian13", "root", "/key", 2222, BOOT, (Disk("A", "1G"), Disk("B", "2G")))


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        (b"", False),
        (b"Linux version 6.12\n", False),
        (b"[ 1.0] Run /bin/false as init process\n", True),
        (b"[ 1.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n", True),
    ],
)
def test_a_kernel_that_starts_its_first_program(console: bytes, expected: bool) -> None:
    assert greets(console) is expected


def test_no_device_no_kvm(tmp_path: Path) -> None:
    assert not kvm_boots(BOOT, tmp_path / "kvm")


def test_every_disk_has_its_serial_and_slot() -> None:
    line = " ".join(MACHINE.command(["-accel", "tcg"]))
    assert "nvme,id=nvme1,serial=A,drive=drive1,bus=slot1" in line
    assert "nvme,id=nvme2,serial=B,drive=drive2,bus=slot2" in line


def test_a_pulled_disk_leaves_its_slot() -> None:
    line = " ".join(MACHINE.command(["-accel", "tcg"], without=["A"]))
    assert "serial=A" not in line
    assert "id=slot1" in line
    assert "serial=B" in line
