# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine of scenario ``vm`` outside of Molecule: made, converged from nothing, turned off."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
for folder in ("tests/long", "tests/dev", "molecule/default/tests", "molecule/vm/tests"):
    sys.path.insert(0, str(ROOT / folder))

import hosts
import qemu
import yaml
from machines import IMAGE, Machine, given
from vm_host import VmHost

LONG = "long"
"""The machine that all long runs and measurements begin with; the first of them converges it from nothing."""
SCENARIO = ROOT / "molecule" / "vm" / "molecule.yml"


def platform(image: str = IMAGE) -> dict[str, Any]:
    """The scenario's platform of ``image``."""
    platforms = yaml.safe_load(SCENARIO.read_text(encoding="utf-8"))["platforms"]
    found: dict[str, Any] = next(one for one in platforms if one["image"] == image)
    return found


def running(name: str, say: Callable[[str], None]) -> Machine:
    """A machine called ``name``, on, made like the scenario's."""
    say(f"booting {name} ...")
    hosts.create(**{**platform(), "name": name})
    machine = qemu.Machine.read(name)
    if machine is None:
        raise hosts.Failure(f"there is no machine {name} although it was made")
    return Machine(VmHost(machine), given(IMAGE))


def converged(name: str, say: Callable[[str], None], **variables: Any) -> qemu.Machine:
    """The site's play has run on the machine called ``name``, and it is off now.

    :param variables: over those of the scenario.
    """
    machine = running(name, say)
    say(f"converging {name} ...")
    code, said = machine.playbook("site", **variables)
    if code != 0:
        raise hosts.Failure(f"the site's play failed on {name}:\n{said[-4000:]}")
    machine.vm.machine.shut_down()
    return machine.vm.machine
