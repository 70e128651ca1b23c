# SPDX-License-Identifier: GPL-3.0-or-later
"""A converged machine, its copies, and how they are asked."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import qemu
import yaml
from live import Site, wait_for
from vm_host import VmHost, copy_of

IMAGE = "vm-debian13"
RUNNERS = ("ci", "neighbour")
READY = 300.0
"""Seconds within which a runner has to be ready after power-on, where processors are emulated."""
FINDING = re.compile(r'"\d+\. .*\[\w+\]"')
"""A line of verify's report that names something."""
HERE = Path(__file__).resolve()
VARIABLES = HERE.parents[2] / "inventory"


class Machine(Site):
    """A machine that the site's play has made, and its power."""

    def __init__(self, host: VmHost, variables: Mapping[str, Any], runners: Sequence[str] = RUNNERS) -> None:
        super().__init__(host, str(host.inventory))
        self.vm = host
        self.given = variables
        self.runners = runners

    def all_ready(self, seconds: float = READY) -> None:
        """Wait until every runner has an environment ready."""
        for runner in self.runners:
            self.ready(runner, seconds)

    def is_well(self, seconds: float = 60) -> bool:
        """Whether it answers and its runners are ready soon; nothing is left that a test made."""
        try:
            self.all_ready(seconds)
            return self.sh("systemctl is-system-running || true").strip() == "running"
        except (AssertionError, subprocess.TimeoutExpired):
            return False

    def boot(self, without: Sequence[str] = ()) -> None:
        """Power on; returns when systemd has started all units, or where a disk lacks when SSH answers."""
        self.vm.boot(without, whole=not without)

    def playbook(self, name: str, *options: str, **variables: Any) -> tuple[int, str]:
        """A playbook with the scenario's variables and these over them: exit code and all it printed."""
        done = self.vm.playbook(name, {**self.given, **variables}, *options)
        return done.rc, done.stdout + done.stderr

    def active(self, *units: str) -> dict[str, str]:
        """What systemd says of units, by name."""
        said = self.host.run("systemctl is-active " + " ".join(units)).stdout.split()
        return dict(zip(units, said, strict=True))

    def unhealthy(self) -> str:
        """All that verify has to say; empty if it finds nothing."""
        code, said = self.playbook("verify", verify_wait=int(READY))
        findings = [line for line in said.splitlines() if FINDING.search(line)]
        return "" if code == 0 else "\n".join(findings) or said

    def wait(self, what: str, script: str, seconds: float = 120) -> None:
        """Until a shell line on the machine ends with 0."""
        wait_for(
            what, seconds, lambda: self.host.run(f"{{ {script}; }} >/dev/null 2>&1").rc == 0, self.explain
        )

    def explain(self) -> str:
        return f"{super().explain()}\n--- console\n{self.vm.machine.last_lines(15)}"


def names(inventory: str) -> list[str]:
    """The hosts of an inventory that Molecule wrote, or of ours."""
    folder = Path(inventory)
    files = sorted(folder.glob("*.y*ml")) if folder.is_dir() else [folder]
    found: list[str] = []
    for file in files:
        for group in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).values():
            found += list((group or {}).get("hosts") or {})
    return found


def machine_of(inventory: str, image: str) -> qemu.Machine:
    """The inventory's machine of ``image``."""
    for name in names(inventory):
        machine = qemu.Machine.read(name)
        if machine is not None and machine.image == image:
            return machine
    raise AssertionError(f"{inventory} has no machine of {image}")


def given(image: str) -> dict[str, Any]:
    """The variables that the scenario's play had for the machine of ``image``."""
    variables: dict[str, Any] = {}
    for file in ("group_vars/prepared.yml", f"host_vars/{image}.yml"):
        variables |= yaml.safe_load((VARIABLES / file).read_text(encoding="utf-8"))
    return variables


@contextlib.contextmanager
def copied(base: qemu.Machine, name: str) -> Iterator[Machine]:
    """A copy of a machine, off."""
    with copy_of(base, name) as host:
        yield Machine(host, given(base.image))


@contextlib.contextmanager
def booted(base: qemu.Machine, name: str) -> Iterator[Machine]:
    """A copy of a machine that is up, its runners ready."""
    with copied(base, name) as machine:
        machine.boot()
        machine.all_ready()
        yield machine


class Copies:
    """At most one machine that is on: the converged one if it is on, then copies of it.

    One that isn't well is thrown away, so whatever a test breaks, the next one doesn't begin with it. The converged
    machine is frozen first: a copy begins with what was on its disks before the first test.

    :param name: what a copy is called.
    """

    def __init__(self, base: qemu.Machine, name: str) -> None:
        self._base = base
        self._name = name
        self._stack = contextlib.ExitStack()
        self._copy: Machine | None = None
        if base.pid:
            self._stack.callback(base.cut)
            self._copy = Machine(VmHost(base), given(base.image))
            self._copy.sh("sync")
            base.freeze()

    def fit(self) -> Machine:
        """A machine with all runners ready: the one that is there, or a new one."""
        if self._copy is None or not self._copy.is_well():
            self.remove()
            self._copy = self._stack.enter_context(booted(self._base, self._name))
        return self._copy

    def remove(self) -> None:
        self._copy = None
        self._stack.close()
