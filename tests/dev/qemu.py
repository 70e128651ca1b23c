# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole machines under QEMU: started, pulled apart, cut off from power, started again.

A machine is a folder in ``.dev/vm/hosts``: ``machine.json`` says what it is made of, ``console.log`` holds what it
printed, ``pid`` is there while it runs. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from emulator import BINARY, Emulator, emulator
from machine import CHECKOUT, STATE, Failure, run
from vm_image import Boot

HOSTS = STATE / "vm" / "hosts"
COMMAND_LINE = "root=LABEL=root ro console=ttyS0 systemd.hostname={name} panic=10 loglevel=5 TERM=dumb systemd.log_color=0"
"""Read-only first, as a boot loader has it: the file system is checked, then mounted to be written to."""


@dataclass(frozen=True)
class Disk:
    """An NVMe device.

    :param serial: what the machine is told as its serial number.
    :param size: as truncate(1) reads it, such as ``4G``.
    :param filesystem: ``ext4`` for a disk with somebody's data on it; empty for an empty disk.
    """

    serial: str
    size: str
    filesystem: str = ""


@dataclass(frozen=True)
class Machine:
    """What a machine is made of.

    :param memory: MiB.
    :param below: layers under this machine's own disks, by serial; ``root`` is the root disk's.
    """

    name: str
    image: str
    user: str
    identity_file: str
    port: int
    boot: Boot
    disks: Sequence[Disk] = ()
    memory: int = 2048
    cpus: int = 2
    below: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return HOSTS / self.name

    @property
    def console(self) -> Path:
        """All that the machine has ever printed, one start after another."""
        return self.folder / "console.log"

    @property
    def monitor(self) -> Path:
        """QEMU's control socket. Not in ``.dev``: a socket's path has at most 108 bytes."""
        return Path(f"/tmp/matryoshka-{CHECKOUT}-{os.getuid()}-{self.name}.qmp")

    def layer_of(self, serial: str) -> Path:
        """The file that copies of the machine begin with."""
        return self.folder / f"{serial}.qcow2"

    def disk_file(self, serial: str) -> Path:
        """The file that the machine writes into: :meth:`layer_of`, after :meth:`freeze` the layer above it."""
        above = self.folder / f"{serial}.above.qcow2"
        return above if above.exists() else self.layer_of(serial)

    @property
    def given(self) -> Path:
        """The variables that every play about the machine needs, as JSON; most machines have none."""
        return self.folder / "given.json"

    @property
    def variables(self) -> dict[str, Any]:
        """What :attr:`given` holds."""
        if not self.given.exists():
            return {}
        found: dict[str, Any] = json.loads(self.given.read_text(encoding="utf-8"))
        return found

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=2, default=str)
        (self.folder / "machine.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, name: str) -> Machine | None:
        """The machine called ``name``; None if there is none."""
        try:
            given = json.loads((HOSTS / name / "machine.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        given["boot"] = Boot(**{key: Path(value) for key, value in given["boot"].items()})
        given["disks"] = tuple(Disk(**disk) for disk in given["disks"])
        return cls(**given)

    # --- power ------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """QEMU's process; 0 if it doesn't run."""
        try:
            number = int((self.folder / "pid").read_text(encoding="utf-8"))
            running = BINARY.encode() in Path(f"/proc/{number}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return 0
        return number if running else 0

    def start(self, without: Sequence[str] = ()) -> None:
        """Power on. Returns when QEMU runs, long before the machine is up.

        :param without: serials of disks that aren't plugged in.
        """
        if self.pid:
            return
        with self.console.open("a", encoding="utf-8") as console:
            console.write(f"\n--- power on, {time.strftime('%H:%M:%S')} ---\n")
        self.monitor.unlink(missing_ok=True)
        run(self.command(emulator(self.boot), without), timeout=60)

    def command(self, on: Emulator, without: Sequence[str] = ()) -> list[str]:
        """QEMU's command line."""
        argv = [
            *on.program, *on.processor, "-machine", "q35", "-smp", str(self.cpus), "-m", str(self.memory),
            "-nodefaults", "-no-user-config", "-display", "none", "-daemonize", "-pidfile", str(self.folder / "pid"),
            "-kernel", str(self.boot.kernel), "-initrd", str(self.boot.initrd),
            "-append", f"{COMMAND_LINE.format(name=self.name)} {on.kernel}".strip(),
            "-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console",
            "-qmp", f"unix:{self.monitor},server=on,wait=off",
            "-netdev", f"user,id=uplink,hostfwd=tcp:127.0.0.1:{self.port}-:22",
            "-device", "virtio-net-pci,netdev=uplink", "-device", "virtio-rng-pci",
            "-drive", f"if=none,id=root,file={self.disk_file('root')},discard=unmap",
            "-device", "virtio-blk-pci,drive=root",
        ]  # fmt: skip
        for number, disk in enumerate(self.disks, 1):
            argv += ["-device", f"pcie-root-port,id=slot{number},chassis={number},slot={number}"]
            if disk.serial not in without:
                drive = f"if=none,id=drive{number},file={self.disk_file(disk.serial)},discard=unmap"
                argv += ["-drive", drive, "-device", f"{nvme(number, disk.serial)},bus=slot{number}"]
        return argv

    def cut(self) -> None:
        """Cut the power: QEMU is killed where it stands."""
        number = self.pid
        if number:
            os.kill(number, signal.SIGKILL)
            wait_until(lambda: not self.pid, 30, f"QEMU of {self.name} is dead")

    def shut_down(self, seconds: float = 180) -> None:
        """Press the power button and wait until the machine has turned itself off."""
        if self.pid:
            self.ask("system_powerdown")
            wait_until(lambda: not self.pid, seconds, f"{self.name} has turned itself off", self)

    def remove(self) -> None:
        """Cut the power and forget the machine."""
        self.cut()
        self.monitor.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def freeze(self) -> None:
        """Have copies begin with what the disks hold now, as after a power cut; the machine goes on, in layers of its own.

        All disks at the same moment (QEMU's QMP reference, transaction and blockdev-snapshot-sync).
        """
        if not self.pid or self.frozen:
            return
        drives = {"root": "root"} | {f"drive{self.slot(disk.serial)}": disk.serial for disk in self.disks}
        actions = [
            {
                "type": "blockdev-snapshot-sync",
                "data": {
                    "device": drive,
                    "snapshot-file": str(self.folder / f"{serial}.above.qcow2"),
                    "format": "qcow2",
                },
            }
            for drive, serial in drives.items()
        ]
        self.ask("transaction", actions=actions)

    @property
    def frozen(self) -> bool:
        """Whether what copies begin with doesn't change any more, though the machine may run."""
        return self.disk_file("root") != self.layer_of("root")

    # --- parts ------------------------------------------------------------------------------------

    def make_disks(self) -> None:
        """Every disk that isn't there yet, as a layer above what lies below, or new."""
        self.folder.mkdir(parents=True, exist_ok=True)
        layer(Path(self.below.get("root", self.boot.root)), self.layer_of("root"))
        for disk in self.disks:
            if disk.serial in self.below:
                layer(Path(self.below[disk.serial]), self.layer_of(disk.serial))
            elif not self.layer_of(disk.serial).exists():
                self._new_disk(disk)

    def _new_disk(self, disk: Disk) -> None:
        target = self.layer_of(disk.serial)
        run(["qemu-img", "create", "-q", "-f", "qcow2", str(target), disk.size])
        if disk.filesystem:
            raw, data = self.folder / f"{disk.serial}.raw", self.folder / f"{disk.serial}.data"
            data.mkdir()
            (data / "letter.txt").write_text("Nobody has a copy of this.\n", encoding="utf-8")
            run(["truncate", "--size", disk.size, str(raw)])
            run([f"mkfs.{disk.filesystem}", "-q", "-F", "-L", "family", "-d", str(data), str(raw)])
            run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(target)])
            raw.unlink()
            shutil.rmtree(data)

    def slot(self, serial: str) -> int:
        """The number of the slot that the disk with ``serial`` belongs in."""
        for number, disk in enumerate(self.disks, 1):
            if disk.serial == serial:
                return number
        raise Failure(f"{self.name} has no disk {serial}")

    def pull(self, serial: str, seconds: float = 60) -> None:
        """Pull a disk out of the running machine."""
        number = self.slot(serial)
        self.ask("device_del", id=f"nvme{number}")
        wait_until(lambda: not self._plugged(number), seconds, f"{self.name} has let go of {serial}", self)

    def plug(self, serial: str) -> None:
        """Put a disk back into its slot."""
        number = self.slot(serial)
        if not self._has_drive(number):
            file = {"driver": "file", "filename": str(self.disk_file(serial))}
            self.ask(
                "blockdev-add",
                **{"node-name": f"drive{number}", "driver": "qcow2", "discard": "unmap", "file": file},
            )
        self.ask(
            "device_add",
            driver="nvme",
            id=f"nvme{number}",
            serial=serial,
            drive=f"drive{number}",
            bus=f"slot{number}",
        )

    def _plugged(self, number: int) -> bool:
        found = self.ask("qom-list", path="/machine/peripheral")
        return any(part["name"] == f"nvme{number}" for part in found)

    def _has_drive(self, number: int) -> bool:
        return any(one["device"] == f"drive{number}" for one in self.ask("query-block")) or any(
            one["node-name"] == f"drive{number}" for one in self.ask("query-named-block-nodes")
        )

    def allocated(self, serial: str) -> int:
        """Bytes that the file behind a disk takes up on this machine."""
        return self.disk_file(serial).stat().st_blocks * 512

    def ask(self, command: str, **arguments: Any) -> Any:
        """What QEMU's monitor returns for ``command`` (QEMU's QMP reference)."""
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as monitor:
            monitor.settimeout(30)
            monitor.connect(str(self.monitor))
            stream = monitor.makefile("rw", encoding="utf-8")
            stream.readline()
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                answer: dict[str, Any] = {}
                while "return" not in answer and "error" not in answer:
                    answer = json.loads(stream.readline())
            if "error" in answer:
                raise Failure(f"QEMU of {self.name}: {command}: {answer['error'].get('desc')}")
            return answer["return"]

    def last_lines(self, lines: int = 40) -> str:
        """The end of the console's log."""
        text = self.console.read_text(encoding="utf-8", errors="replace") if self.console.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def nvme(number: int, serial: str) -> str:
    return f"nvme,id=nvme{number},serial={serial},drive=drive{number}"


def layer(below: Path, target: Path) -> None:
    """A disk that begins as a copy of ``below``, which must not change any more."""
    if not target.exists():
        kind = "raw" if below.suffix == ".img" else "qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", str(below), str(target)])


def clone(machine: Machine, name: str) -> Machine:
    """A new machine that begins with the disks of ``machine``, which is off and stays off, or is frozen."""
    if machine.pid and not machine.frozen:
        raise Failure(f"{machine.name} runs: its disks can't be copied")
    below = {"root": str(machine.layer_of("root"))}
    below |= {disk.serial: str(machine.layer_of(disk.serial)) for disk in machine.disks}
    copy = replace(machine, name=name, port=free_port(), below=below)
    copy.remove()
    copy.make_disks()
    copy.write()
    return copy


def machines() -> list[Machine]:
    """All machines of this checkout."""
    found = [Machine.read(path.parent.name) for path in sorted(HOSTS.glob("*/machine.json"))]
    return [one for one in found if one is not None]


def free_port() -> int:
    """A port on the loopback address that nobody listens on and no machine of this checkout is to have."""
    taken = {one.port for one in machines()}
    while True:
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def wait_until(true: Any, seconds: float, what: str, machine: Machine | None = None) -> None:
    """Until ``true()``; raises :class:`Failure` with the console's end after ``seconds``."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            console = f"\nThe console's end:\n{machine.last_lines()}" if machine else ""
            raise Failure(f"waited {seconds:g} s for this: {what}{console}")
        time.sleep(0.2)
