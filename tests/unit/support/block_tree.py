# SPDX-License-Identifier: GPL-3.0-or-later
"""A fake host with block devices: the parts of ``/sys``, ``/proc`` and ``/dev`` that tell of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View

GIB = 1 << 30
NVME = "pci0000:00/0000:00:0e.0/0000:01:00.0/nvme/nvme{0}"
SATA = "pci0000:00/0000:00:17.0/ata{0}/host{0}/target{0}:0:0/{0}:0:0:0"
SAS = "pci0000:00/0000:3b:00.0/host0/port-0:{0}/end_device-0:{0}/target0:0:{0}/0:0:{0}:0"
USB = "pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0"
VIRTIO = "pci0000:00/0000:00:02.0/virtio{0}"
VIRTUAL = "virtual"


class BlockTree:
    """Builds the tree below ``root``. Devices have nodes; these are plain files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.view = View(str(root))
        self._minor = 0
        self.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")
        self.mounts("1", "21 1 0:20 / / rw - overlay overlay rw,upperdir=/up\n")

    def write(self, path: str, text: str | bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)

    def disk(
        self,
        name: str,
        size: int = 100 * GIB,
        bus: str = VIRTUAL,
        device: Mapping[str, str | bytes] | None = None,
        attributes: Mapping[str, str] | None = None,
        **more: str,
    ) -> str:
        """A whole device; ``device`` are the attributes of what is on the bus."""
        place = f"sys/devices/{bus}/nvme-node/{name}" if name.startswith("nvme") else ""
        place = place or f"sys/devices/{bus}/block/{name}"
        number = self._device(name, place, size)
        common = {"removable": "0", "ro": "0", "queue/rotational": "0", "queue/logical_block_size": "512"}
        for path, text in {
            **common,
            "queue/physical_block_size": "4096",
            **(attributes or {}),
            **more,
        }.items():
            self.write(f"{place}/{path}", text + "\n")
        if device is not None:
            for path, value in device.items():
                self.write(f"sys/devices/{bus}/{path}", value if isinstance(value, bytes) else value + "\n")
            link = self.root / place / "device"
            os.symlink(os.path.relpath(self.root / "sys/devices" / bus, self.root / place), link)
        return number

    def partition(self, disk: str, name: str, number: int, size: int = GIB) -> str:
        place = f"{os.path.relpath((self.root / 'sys/class/block' / disk).resolve(), self.root)}/{name}"
        found = self._device(name, place, size)
        self.write(f"{place}/partition", f"{number}\n")
        return found

    def _device(self, name: str, place: str, size: int) -> str:
        number = f"259:{self._minor}"
        self._minor += 1
        self.write(f"{place}/dev", f"{number}\n")
        self.write(f"{place}/size", f"{size // 512}\n")
        for folder in ("holders", "slaves"):
            (self.root / place / folder).mkdir(parents=True, exist_ok=True)
        for link in (f"sys/class/block/{name}", f"sys/dev/block/{number}"):
            path = self.root / link
            path.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(os.path.relpath(self.root / place, path.parent), path)
        self.write(f"dev/{name}", "")
        return number

    def stack(self, upper: str, *lower: str) -> None:
        """``upper`` is made of ``lower``."""
        for name in lower:
            for folder, other in ((f"{upper}/slaves", name), (f"{name}/holders", upper)):
                path = (self.root / "sys/class/block" / folder).resolve() / other
                os.symlink(
                    os.path.relpath((self.root / "sys/class/block" / other).resolve(), path.parent), path
                )

    def mapper(self, name: str, mapper: str, uuid: str, *lower: str, size: int = 10 * GIB) -> str:
        number = self.disk(name, size, attributes={"dm/name": mapper, "dm/uuid": uuid})
        self.stack(name, *lower)
        return number

    def mounts(self, pid: str, text: str, *, namespace: str | None = None, process: str = "systemd") -> None:
        self.write(f"proc/{pid}/mountinfo", text)
        self.write(f"proc/{pid}/comm", process + "\n")
        link = self.root / "proc" / pid / "ns" / "mnt"
        link.parent.mkdir(exist_ok=True)
        if not link.is_symlink():
            os.symlink(f"mnt:[{namespace or pid}]", link)

    def opened(self, pid: str, descriptor: str, path: str, flags: str, process: str = "qemu") -> None:
        self.write(f"proc/{pid}/comm", process + "\n")
        self.write(f"proc/{pid}/fdinfo/{descriptor}", f"pos:\t0\nflags:\t{flags}\nmnt_id:\t21\n")
        link = self.root / "proc" / pid / "fd" / descriptor
        link.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(path, link)

    def link(self, path: str, target: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(target, file)


def nvme(
    tree: BlockTree, number: int, serial: str, size: int = 400 * GIB, model: str = "Samsung SSD 980 PRO"
) -> str:
    """An NVMe disk as a usual kernel shows it."""
    device = {"model": model.ljust(40), "serial": serial.ljust(20), "transport": "pcie"}
    tree.disk(
        f"nvme{number}n1",
        size,
        NVME.format(number),
        device,
        wwid=f"eui.0025385b71b0a2c{number}",
    )
    return f"nvme{number}n1"


def sata(
    tree: BlockTree,
    name: str,
    port: int,
    serial: str,
    size: int = 4000 * GIB,
    model: str = "ST4000NM0035-1V4",
) -> str:
    """A rotating SATA disk; the kernel cuts its model after 16 characters."""
    page = b"\x00\x80\x00" + bytes([len(serial)]) + serial.encode()
    device: dict[str, str | bytes] = {
        "vendor": "ATA     ",
        "model": model,
        "type": "0",
        "vpd_pg80": page,
        "wwid": f"naa.5000c500a1b2c3d{port}",
    }
    tree.disk(name, size, SATA.format(port), device, attributes={"queue/rotational": "1"})
    return name
