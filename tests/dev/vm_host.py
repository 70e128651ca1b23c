# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole machine as tests see it: commands over SSH, its power and its plugs."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hosts
import qemu
from machine import STATE, Failure
from playbook import run_playbook

NO_SSH = 255
"""Exit code of ssh(1) where it didn't reach the machine."""


@dataclass(frozen=True)
class Said:
    """The end of a command, with the names that testinfra gives it."""

    rc: int
    stdout: str
    stderr: str


class VmHost:
    """A machine, on or off, as its user over SSH. Stands in for testinfra's host where only ``run`` is asked for."""

    def __init__(self, machine: qemu.Machine) -> None:
        self.machine = machine
        self.reach = hosts.reach(machine)

    @property
    def inventory(self) -> Path:
        """An Ansible inventory with this machine alone."""
        path = STATE / "vm" / "inventories" / f"{self.machine.name}.json"
        hosts.write_inventory(path, [self.reach])
        return path

    # --- commands

    @property
    def way(self) -> Path:
        """The socket of the connection that commands share: a login costs an emulated processor half a second."""
        return self.machine.monitor.with_suffix(".ssh")

    def run(self, line: str, *words: str, timeout: float = 400, stdin: str = "", login: bool = False) -> Said:
        """Run a shell line as root; ``%s`` in it stands for the next of ``words``, quoted.

        :param login: with a connection of its own, as somebody who comes.
        """
        command = line % tuple(shlex.quote(word) for word in words) if words else line
        if self.reach.user != "root":
            command = f"sudo /bin/sh -c {shlex.quote(command)}"
        options = ["-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=10"]
        if not login:
            options += [
                "-o",
                "ControlMaster=auto",
                "-o",
                f"ControlPath={self.way}",
                "-o",
                "ControlPersist=60",
            ]
        done = subprocess.run(
            [*self.reach.ssh[:1], *options, *self.reach.ssh[1:], command],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def sh(self, script: str, timeout: float = 400) -> str:
        """Standard output of a shell script that has to end with 0."""
        said = self.run("/bin/sh -c %s", script, timeout=timeout)
        if said.rc != 0:
            raise AssertionError(f"{script}\nended with {said.rc}:\n{said.stdout}{said.stderr}")
        return said.stdout

    def answers(self) -> bool:
        """Whether SSH answers at once."""
        try:
            return self.run("true", timeout=15, login=True).rc == 0
        except subprocess.TimeoutExpired:
            return False

    def playbook(
        self, name: str, variables: Mapping[str, Any] | None = None, *options: str, timeout: float = 1500
    ) -> Said:
        """Run ``playbooks/NAME.yml`` on this machine with extra variables."""
        done = run_playbook(self.inventory, name, variables, *options, timeout=timeout)
        return Said(done.returncode, done.stdout, done.stderr)

    # --- power

    def boot(self, without: Sequence[str] = (), whole: bool = True) -> float:
        """Power on and wait until SSH answers; seconds that it took.

        :param without: serials of disks that aren't plugged in.
        :param whole: until systemd has started all units, too.
        """
        subprocess.run(
            ["ssh", "-o", f"ControlPath={self.way}", "-O", "exit", self.machine.name],
            capture_output=True,
            check=False,
        )
        begin = time.monotonic()
        self.machine.start(without)
        try:
            hosts.wait_for_boot(self.machine, self.reach, without)
            seconds = time.monotonic() - begin
            if whole:
                hosts.wait_for_units(self.reach)
        except Failure as failure:
            raise Failure(f"{failure}\nThe console's end:\n{self.machine.last_lines()}") from None
        return seconds

    def reboot_by_cut(self) -> float:
        """Cut the power and put it back; seconds until SSH answers."""
        self.machine.cut()
        return self.boot(whole=False)


@contextlib.contextmanager
def copy_of(base: qemu.Machine, name: str, keep: bool = False) -> Iterator[VmHost]:
    """A machine of its own that begins with what is on the disks of ``base``, which is off; gone afterwards."""
    copy = VmHost(qemu.clone(base, name))
    try:
        yield copy
    finally:
        if not keep:
            copy.machine.remove()
