# SPDX-License-Identifier: GPL-3.0-or-later
"""Which QEMU runs whole machines, and on which processor: KVM where it works, TCG of a new QEMU where not.

QEMU 10 emulates a machine's way to a ready runner in two thirds of the processor time that 7.2 takes for it, so where
the machine's own is older and has to emulate, Debian 13's is unpacked into ``.dev/vm``. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from machine import STATE, lock, root_command, run, say
from vm_image import Boot

BINARY = "qemu-system-x86_64"
KVM_SECONDS = 20.0
"""How long a kernel may take until it greets on the console, where KVM works."""
KVM = ("-accel", "kvm", "-cpu", "host")
TCG = ("-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "Nehalem")
"""A processor of few features: what translates its code has the less to do. Into 256 MiB the code of a busy host
fits for half a minute, then all is translated anew."""
NO_MITIGATIONS = "mitigations=off"
"""An emulated processor has none of the flaws, and going around them takes an eighth of the time."""
NEW_ENOUGH = 10
"""Major version of QEMU from which on the machine's own is used to emulate, too."""
SUITE, PACKAGE = "trixie", "qemu-system-x86"
TREE = STATE / "vm" / "qemu"


@dataclass(frozen=True)
class Emulator:
    """How QEMU is called.

    :param program: the program and the options that it needs to find its files.
    :param processor: QEMU's options for the accelerator and the processor.
    :param kernel: options for the machine's kernel.
    """

    program: tuple[str, ...]
    processor: tuple[str, ...]
    kernel: str = ""


def emulator(boot: Boot) -> Emulator:
    """The fastest that boots ``boot.kernel`` here, found out by trying, once."""
    with lock("accel"):
        known = STATE / "vm" / "emulator.json"
        key = " ".join((os.uname().release, boot.kernel.parent.name, *TCG, NO_MITIGATIONS))
        answers: dict[str, dict[str, Any]] = {}
        if known.exists():
            answers = json.loads(known.read_text(encoding="utf-8"))
        if key not in answers:
            found = Emulator((BINARY,), KVM) if kvm_boots(boot) else emulated()
            answers[key] = asdict(found)
            known.parent.mkdir(parents=True, exist_ok=True)
            known.write_text(json.dumps(answers, indent=2) + "\n", encoding="utf-8")
        answer = answers[key]
        return Emulator(tuple(answer["program"]), tuple(answer["processor"]), answer["kernel"])


def emulated() -> Emulator:
    """The machine's own QEMU if it is new enough, or one that is."""
    own = major(run([BINARY, "--version"]))
    return Emulator((BINARY,) if own >= NEW_ENOUGH else unpacked(), TCG, NO_MITIGATIONS)


def major(version: str) -> int:
    """QEMU's major version from what ``--version`` prints; 0 if it isn't there."""
    found = re.search(r"version (\d+)\.", version)
    return int(found[1]) if found else 0


def unpacked() -> tuple[str, ...]:
    """Debian 13's QEMU with its own C library, in a folder."""
    if not TREE.exists():
        say(f"unpacking the QEMU of Debian ({SUITE}) ...")
        new = TREE.with_suffix(".new")
        run(root_command(["rm", "-rf", str(new)]))
        new.parent.mkdir(parents=True, exist_ok=True)
        mirror = os.environ.get("MATRYOSHKA_DEBIAN_MIRROR")
        run(
            root_command([
                "mmdebstrap", "--mode=root", "--variant=extract", f"--include={PACKAGE}",
                "--aptopt=APT::Install-Recommends \"false\"", SUITE, str(new), *([mirror] if mirror else []),
            ])
        )  # fmt: skip
        for folder in ("usr/share/doc", "usr/share/locale", "usr/share/man", "var"):
            run(root_command(["rm", "-rf", str(new / folder)]))
        run(root_command(["mv", str(new), str(TREE)]))
    libraries = TREE / "usr" / "lib" / "x86_64-linux-gnu"
    return (
        str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries), str(TREE / "usr" / "bin" / BINARY),
        "-L", str(TREE / "usr" / "share" / "qemu"), "-L", str(TREE / "usr" / "share" / "seabios"),
    )  # fmt: skip


def kvm_boots(boot: Boot, device: Path = Path("/dev/kvm"), seconds: float = KVM_SECONDS) -> bool:
    """Whether KVM brings the kernel to its first words within ``seconds``; a device alone promises nothing."""
    if not os.access(device, os.R_OK | os.W_OK):
        return False
    argv = [
        BINARY, *KVM, "-machine", "q35", "-m", "512", "-nodefaults", "-no-user-config",
        "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(boot.kernel), "-initrd", str(boot.initrd),
        "-append", "console=ttyS0 panic=-1 rdinit=/bin/false",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as late:
        return greets(late.stdout or b"")
    return greets(done.stdout)


def greets(console: bytes) -> bool:
    """Whether the kernel got as far as to start its first program (and to panic, because that is /bin/false)."""
    return (
        b"Kernel panic - not syncing: Attempted to kill init" in console
        or b"Run /bin/false as init" in console
    )
