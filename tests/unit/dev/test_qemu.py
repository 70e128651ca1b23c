# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import qemu
from emulator import TCG, Emulator, greets, kvm_boots, major
from machine import Failure
from qemu import Disk, Machine
from vm_image import Boot

BOOT = Boot(Path("/b/vmlinuz"), Path("/b/initrd"), Path("/b/root.img"))
MACHINE = Machine("vm", "vm-debian13", "root", "/key", 2222, BOOT, (Disk("A", "1G"), Disk("B", "2G")))
EMULATOR = Emulator(("/lib/loader", "/bin/qemu-system-x86_64"), TCG, "mitigations=off")


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


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\n", 7),
        ("QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)\n", 10),
        ("something else\n", 0),
    ],
)
def test_the_version_of_a_qemu(version: str, expected: int) -> None:
    assert major(version) == expected


def test_an_emulated_machine_s_command_line() -> None:
    argv = MACHINE.command(EMULATOR)
    assert argv[:3] == ["/lib/loader", "/bin/qemu-system-x86_64", "-accel"]
    assert argv[argv.index("-append") + 1].endswith(" mitigations=off")
    plain = MACHINE.command(Emulator(("qemu",), ()))
    assert plain[plain.index("-append") + 1].endswith("systemd.log_color=0")


def test_every_disk_has_its_serial_and_slot() -> None:
    line = " ".join(MACHINE.command(EMULATOR))
    assert "nvme,id=nvme1,serial=A,drive=drive1,bus=slot1" in line
    assert "nvme,id=nvme2,serial=B,drive=drive2,bus=slot2" in line


def test_a_pulled_disk_leaves_its_slot() -> None:
    line = " ".join(MACHINE.command(EMULATOR, without=["A"]))
    assert "serial=A" not in line
    assert "id=slot1" in line
    assert "serial=B" in line


def test_copies_begin_with_what_was_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "HOSTS", tmp_path)
    monkeypatch.setattr(qemu.Machine, "pid", 4711)
    asked: list[tuple[str, list[dict[str, Any]]]] = []

    def ask(_machine: Machine, command: str, actions: list[dict[str, Any]]) -> None:
        asked.append((command, [one["data"] for one in actions]))
        for one in actions:
            Path(one["data"]["snapshot-file"]).touch()

    monkeypatch.setattr(qemu.Machine, "ask", ask)
    (tmp_path / "vm").mkdir()
    with pytest.raises(Failure, match="vm runs: its disks can't be copied"):
        qemu.clone(MACHINE, "copy")
    frozen = MACHINE.layer_of("A")
    assert MACHINE.disk_file("A") == frozen
    MACHINE.freeze()
    MACHINE.freeze()
    [(command, disks)] = asked
    assert command == "transaction"
    assert {one["device"]: one["snapshot-file"] for one in disks} == {
        "root": str(MACHINE.disk_file("root")),
        "drive1": str(MACHINE.disk_file("A")),
        "drive2": str(MACHINE.disk_file("B")),
    }
    assert MACHINE.layer_of("A") == frozen != MACHINE.disk_file("A")
