# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a plan for units out, in a fixed order and with a fixed number of processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._files import Attributes, backup, write_atomic
from ansible_collections.matryoshka.host.plugins.module_utils._systemd import read_units, require_systemd
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_plan import (
    Plan,
    Present,
    is_drop_in,
    plan_units,
    unit_of,
)
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_scan import memory_path, read_present
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_text import is_template
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_wanted import (
    ON_CHANGE,
    STATES,
    parse_wanted,
    resolve,
)

_REFUSED = re.compile(r"^(\S+\.[a-z]+): (.*) Refusing\.$")
STATE_DIRECTORY = "/var/lib/matryoshka/units"
_NOT_ACTIVE = re.compile(r"^\S+ is not active, cannot reload\.$")


ARGUMENTS: dict[str, Any] = {
    "owner": {"type": "str", "required": True},
    "units": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "content": {"type": "str"},
            "drop_ins": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "content": {"type": "str", "required": True},
                },
            },
            "instances": {"type": "list", "elements": "str"},
            "state": {"type": "str", "choices": list(STATES)},
            "enabled": {"type": "bool"},
            "masked": {"type": "bool"},
            "on_change": {"type": "str", "choices": list(ON_CHANGE)},
            "on_trigger": {"type": "str", "choices": list(ON_CHANGE)},
            "triggers": {"type": "raw"},
        },
    },
    "orphans": {"type": "bool", "default": False},
    "directory": {
        "type": "str",
        "default": "/etc/systemd/system",
        "choices": ["/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system"],
    },
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 900},
    "scope": {"type": "str", "default": "system", "choices": ["system"]},
}


def answer(params: Mapping[str, Any], check: bool, run: Runner) -> dict[str, Any]:
    """The result of module ``systemd_units`` for its parameters (:data:`ARGUMENTS`)."""
    names = ("owner", "units", "orphans", "directory", "wait", "timeout")
    return apply_units(run, check=check, **{name: params[name] for name in names})


def apply_units(
    run: Runner,
    *,
    owner: str,
    units: Sequence[Mapping[str, Any]],
    orphans: bool = False,
    directory: str = "/etc/systemd/system",
    state_directory: str = STATE_DIRECTORY,
    wait: bool = True,
    timeout: float = 900.0,
    check: bool = False,
) -> dict[str, Any]:
    """Read, plan, and unless ``check`` apply a list of units; the result of the module.

    :param units: entries as the ``systemd_units`` module takes them.
    :raises HostError: bad input, no systemd, or a unit that couldn't be served.
    """
    wanted = parse_wanted(owner, units)
    require_systemd()
    present = read_present(run, wanted, owner=owner, directory=directory, state_directory=state_directory)
    plan = plan_units(wanted, present, owner=owner, directory=directory, orphans=orphans)
    verify_texts(run, plan.write, directory)
    states = present.states
    saved: list[str] = []
    targets = list(resolve(wanted))
    if not check:
        if plan.problems:
            raise plan.problems[0]
        try:
            saved = apply_plan(
                run,
                plan,
                present,
                owner=owner,
                directory=directory,
                state_directory=state_directory,
                wait=wait,
                timeout=timeout,
            )
        except OSError as error:
            raise HostError(f"{error.filename}: {error.strerror}") from error
        if plan.changed:
            states = read_units(run, targets)
    shown = {name: states[name] for name in targets if name in states}
    return {
        "changed": plan.changed or bool(plan.problems),
        "diff": plan.diff(present),
        "changed_units": plan.changed_units,
        "started": plan.start,
        "restarted": plan.restart,
        "reloaded": plan.reload,
        "stopped": plan.stop,
        "removed": plan.removed,
        "saved": saved,
        "daemon_reloaded": plan.daemon_reload,
        "foreign_drop_ins": {
            name: state.foreign_drop_ins for name, state in shown.items() if state.foreign_drop_ins
        },
        "states": {name: state.properties() for name, state in shown.items()},
    }


def verify_texts(run: Runner, texts: Mapping[str, str], directory: str) -> None:
    """Have ``systemd-analyze verify`` read changed texts before they are put in place.

    Only what it says about these texts counts: other units, and programs that aren't
    installed yet, don't.

    :raises InputError: a line that systemd would ignore or refuse.
    """
    if not texts:
        return
    with tempfile.TemporaryDirectory(prefix="matryoshka-units-") as scratch:
        for path, text in texts.items():
            copy = os.path.join(scratch, os.path.relpath(path, directory))
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            with open(copy, "w", encoding="utf-8") as file:
                file.write(text)
        units = sorted({unit_of(path) for path in texts})
        said = run(
            ["env", f"SYSTEMD_UNIT_PATH={scratch}:", "systemd-analyze", "verify", "--man=no", *units],
            check=False,
        )
        raise_verdict(said.err + said.out, scratch, directory, units)


def raise_verdict(output: str, scratch: str, directory: str, units: Sequence[str]) -> None:
    """Raise for the lines of ``systemd-analyze verify`` that are about our texts."""
    stems = {unit.partition("@")[0] for unit in units}
    found: list[str] = []
    for line in output.splitlines():
        refused = _REFUSED.match(line)
        if line.startswith(scratch + "/"):
            found.append(directory + line[len(scratch) :])
        elif refused and refused.group(1).partition("@")[0] in stems:
            found.append(line)
    if found:
        raise InputError("units", "; ".join(found), "texts that systemd-analyze verify has nothing against")


def write_text(path: str, text: str, mode: int) -> None:
    """Replace a file as a whole, owned by the process's user; folders are made as needed."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    write_atomic(path, text.encode(), Attributes(mode, os.geteuid(), os.getegid()))


def keep_memory(
    state_directory: str, owner: str, applied: Mapping[str, str], pending: Mapping[str, str]
) -> None:
    """Keep the triggers that units took over, and what is still owed to them."""
    path = memory_path(state_directory, owner)
    if not applied and not pending:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(state_directory)
        return
    memory = {"schema": 1, "applied": applied, "pending": pending}
    write_text(path, json.dumps(memory, indent=2, sort_keys=True) + "\n", 0o600)


def apply_plan(
    run: Runner,
    plan: Plan,
    present: Present,
    *,
    owner: str,
    directory: str,
    state_directory: str,
    wait: bool = True,
    timeout: float = 900.0,
) -> list[str]:
    """Carry ``plan`` out; the copies made of foreign files. What a broken-off run owes is done by the next one.

    :param wait: wait until started, restarted and reloaded units are there; stops are always waited for.
    :param timeout: seconds for one ``systemctl`` call.
    :raises HostError: a unit couldn't be stopped or enabled, or didn't come up; the others are served first.
    """

    def systemctl(verb: str, names: Sequence[str], *options: str, check: bool = True) -> str:
        if not names:
            return ""
        done = run(["systemctl", verb, *options, "--", *names], check=check, timeout=timeout)
        return "" if done.ok else done.err.strip() or f"systemctl {verb} ended with {done.code}"

    if dict(present.pending) != plan.pending:
        keep_memory(state_directory, owner, present.applied, plan.pending)
    saved: list[str] = []
    scope = ("--no-reload", "--runtime") if directory.startswith("/run/") else ("--no-reload",)
    systemctl("stop", plan.stop)
    for path in plan.unmask:
        os.unlink(path)
    for path, text in plan.write.items():
        if path in plan.save:
            saved.append(backup(path))
        write_text(path, text, 0o644)
    systemctl("disable", plan.disable, *scope)
    systemctl("enable", plan.enable, *scope)
    systemctl("reenable", plan.reenable, *scope)
    for path in plan.remove:
        os.unlink(path)
        if is_drop_in(path):
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(path))
    systemctl("mask", plan.mask, "--no-reload")
    if plan.daemon_reload:
        run(["systemctl", "daemon-reload"], timeout=timeout)
    systemctl("reset-failed", _to_reset(plan), check=False)
    block = () if wait else ("--no-block",)
    owed: dict[str, str] = {}
    failures: list[str] = []
    for verb, names in (("restart", plan.restart), ("reload", plan.reload), ("start", plan.start)):
        said = systemctl(verb, names, *block, check=False)
        lines = [line for line in said.splitlines() if not _NOT_ACTIVE.match(line)]
        if lines:
            failures.append(f"systemctl {verb} {' '.join(names)}: {' '.join(lines)}")
            owed.update({name: plan.pending[name] for name in names if name in plan.pending})
    applied = {name: value for name, value in plan.applied.items() if name not in owed}
    if (applied, owed) != (dict(present.applied), plan.pending):
        keep_memory(state_directory, owner, applied, owed)
    if failures:
        raise HostError("; ".join([*failures, _look_at(run, plan)]))
    return saved


def _to_reset(plan: Plan) -> list[str]:
    return [*plan.reset_failed, *(name for name in plan.removed if "/" not in name and not is_template(name))]


def _look_at(run: Runner, plan: Plan) -> str:
    states = read_units(run, [*plan.restart, *plan.reload, *plan.start])
    down = sorted(name for name, state in states.items() if not state.up)
    words = [f"{name} is {states[name].active_state} ({states[name].result})" for name in down]
    read = " ".join(f"-u {name}" for name in down)
    return ", ".join(words) + (f"; read: journalctl {read}" if down else "")
