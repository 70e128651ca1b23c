# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done to units: present and wanted in, a plan out.

Pure. The plan names every unit in batches, so that its cost in processes doesn't grow
with the number of units.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._files import difference
from ansible_collections.matryoshka.host.plugins.module_utils._systemd import UnitState, WantedUnit
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_text import (
    effect,
    install,
    is_template,
    owner_of,
    template_of,
)
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_wanted import (
    Target,
    paths_of,
    resolve,
    wanted_files,
)

STRENGTH = {"none": 0, "reload": 1, "restart": 2}


@dataclass(frozen=True)
class Present:
    """What is on the host.

    ``files`` are the texts of all unit files and drop-ins in the folder that is written to,
    ``applied`` the SHA-256 of the trigger that a unit last took over, ``pending`` what a
    broken-off run still owes a unit.
    """

    states: Mapping[str, UnitState] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    applied: Mapping[str, str] = field(default_factory=dict)
    pending: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Plan:
    """What to do, in batches, and in words.

    ``save`` are paths of ``write`` that hold a file without marker, which is kept beside it;
    ``problems`` forbid acting, but not looking.
    """

    write: dict[str, str] = field(default_factory=dict)
    save: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    unmask: list[str] = field(default_factory=list)
    mask: list[str] = field(default_factory=list)
    stop: list[str] = field(default_factory=list)
    disable: list[str] = field(default_factory=list)
    enable: list[str] = field(default_factory=list)
    reenable: list[str] = field(default_factory=list)
    daemon_reload: bool = False
    reset_failed: list[str] = field(default_factory=list)
    restart: list[str] = field(default_factory=list)
    reload: list[str] = field(default_factory=list)
    start: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed_units: list[str] = field(default_factory=list)
    applied: dict[str, str] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)
    problems: list[HostError] = field(default_factory=list)
    words: dict[str, list[str]] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        lists = (
            self.write,
            self.remove,
            self.unmask,
            self.mask,
            self.stop,
            self.disable,
            self.enable,
            self.reenable,
        )
        return self.daemon_reload or any(lists) or any((self.restart, self.reload, self.start))

    def note(self, batch: list[str], name: str, word: str) -> None:
        """Put ``name`` into a batch and remember the word for it."""
        if name not in batch:
            batch.append(name)
            self.words.setdefault(name, []).append(word)

    def diff(self, present: Present) -> list[dict[str, str]]:
        """The plan as Ansible shows differences: file by file, then the states of units."""
        paths = (*self.write, *self.remove)
        found = [difference(path, present.files.get(path), self.write.get(path)) for path in paths]
        names = sorted(self.words)
        if names or self.daemon_reload:
            states = {name: present.states.get(name, UnitState(name)) for name in names}
            before = [
                f"{name}: {states[name].active_state} {states[name].unit_file_state}".rstrip()
                for name in names
            ]
            after = [f"{name}: {', '.join(self.words[name])}" for name in names]
            after += ["systemd: daemon-reload"] if self.daemon_reload else []
            text = ["\n".join([*lines, ""]) if lines else "" for lines in (before, after)]
            found.append(
                {"before_header": "units", "after_header": "units", "before": text[0], "after": text[1]}
            )
        return found


def digest(text: str) -> str:
    """SHA-256 of a trigger."""
    return hashlib.sha256(text.encode()).hexdigest()


def unit_of(path: str) -> str:
    """The unit that a unit file or drop-in belongs to."""
    folder, name = posixpath.split(path)
    return posixpath.basename(folder)[:-2] if folder.endswith(".d") else name


def is_drop_in(path: str) -> bool:
    return posixpath.dirname(path).endswith(".d")


def plan_units(
    wanted: Sequence[WantedUnit], present: Present, *, owner: str, directory: str, orphans: bool = False
) -> Plan:
    """The way from ``present`` to ``wanted``.

    :raises InputError: a file that is somebody else's would be written or removed.
    """
    plan = Plan()
    files = wanted_files(directory, wanted)
    for unit in wanted:
        _refuse_other_owners(unit, files, present, owner, directory)
    plan.write = {path: text for path, text in files.items() if present.files.get(path) != text}
    plan.save = [
        path for path in plan.write if path in present.files and owner_of(present.files[path]) is None
    ]
    ours = {path for path, text in present.files.items() if owner_of(text) == owner and path not in files}
    absent = {unit.name for unit in wanted if unit.state == "absent"}
    gone = {path for path in ours if orphans or unit_of(path) in absent}
    plan.remove = sorted(gone)
    targets = resolve(wanted)
    _plan_removed(plan, wanted, present, gone, targets, directory, orphans)
    felt, reinstalled = _felt(plan, present)
    plan.changed_units = sorted({unit_of(path) for path in (*plan.write, *plan.remove)})
    for name, target in targets.items():
        if name not in plan.removed:
            state = present.states.get(name, UnitState(name))
            _plan_target(plan, target, state, present, directory, felt, reinstalled)
    stale = any(present.states[name].stale for name in targets if name in present.states)
    plan.daemon_reload = bool(
        stale
        or plan.write
        or plan.remove
        or plan.unmask
        or plan.mask
        or plan.enable
        or plan.reenable
        or plan.disable
    )
    _plan_memory(plan, targets, present, orphans)
    return plan


def _refuse_other_owners(
    unit: WantedUnit, files: Mapping[str, str], present: Present, owner: str, directory: str
) -> None:
    paths = [path for path in files if unit_of(path) == unit.name]
    for path in paths:
        found = owner_of(present.files.get(path, ""))
        if found not in (None, owner):
            raise InputError(f"{unit.variable}.name", unit.name, f"a unit without a file of {found}: {path}")
    path = f"{directory}/{unit.name}"
    if unit.state == "absent" and path in present.files and owner_of(present.files[path]) != owner:
        raise InputError(
            f"{unit.variable}.state", "absent", f"another state, as {path} isn't marked as {owner}'s"
        )


def _plan_removed(
    plan: Plan,
    wanted: Sequence[WantedUnit],
    present: Present,
    gone: set[str],
    targets: Mapping[str, Target],
    directory: str,
    orphans: bool,
) -> None:
    templates = {unit.name: unit for unit in wanted if is_template(unit.name)}
    gone_units = {unit_of(path) for path in gone if not is_drop_in(path)}
    names = {name for name in gone_units if not is_template(name)}
    for name, state in present.states.items():
        template = template_of(name)
        if template is None or not (state.up or state.enabled or state.failed):
            continue
        unit = templates.get(template)
        kept = unit is not None and unit.content is not None and unit.instances is not None
        dropped = orphans and kept and name not in targets
        if template in gone_units or dropped or (name in targets and targets[name].state == "absent"):
            names.add(name)
    for name in sorted(names):
        state = present.states.get(name, UnitState(name))
        plan.removed.append(name)
        if state.up:
            plan.note(plan.stop, name, "stopped")
        if state.enabled:
            plan.note(plan.disable, name, "disabled")
    plan.removed.extend(sorted(gone_units - names))
    plan.removed.extend(sorted(path for path in gone if is_drop_in(path)))


def _felt(plan: Plan, present: Present) -> tuple[set[str], set[str]]:
    """The changed paths that an active unit feels, and those that change how a unit is enabled."""
    changed = [(path, present.files.get(path, ""), text) for path, text in plan.write.items()]
    changed += [(path, present.files[path], "") for path in plan.remove]
    felt = {path for path, old, new in changed if effect(old) != effect(new)}
    reinstalled = {path for path, old, new in changed if sorted(install(old)) != sorted(install(new))}
    return felt, reinstalled


def _touches(directory: str, name: str, paths: set[str]) -> bool:
    own = paths_of(directory, name)
    return any(path in own or posixpath.dirname(path) + "/" in own for path in paths)


def _plan_target(
    plan: Plan,
    target: Target,
    state: UnitState,
    present: Present,
    directory: str,
    felt: set[str],
    reinstalled: set[str],
) -> None:
    name = target.name
    if target.masked:
        if state.up:
            plan.note(plan.stop, name, "stopped")
        if not state.masked:
            plan.note(plan.mask, name, "masked")
        return
    needs = bool(target.enabled) or target.state in ("started", "restarted", "reloaded")
    masks = [path for path in state.masked_by if path not in plan.write]
    if masks and target.masked is False:
        plan.unmask.extend(masks)
        plan.words.setdefault(name, []).append("unmasked")
    elif state.masked and needs and (masks or not target.has_content):
        where = masks[0] if masks else state.fragment_path
        plan.problems.append(
            HostError(
                f"{target.variable}: {name} is masked by {where}; masked: false undoes it under /etc and /run"
            )
        )
        return
    if needs and not target.has_content and not state.known and state.load_state != "masked":
        why = (
            "isn't known to systemd"
            if state.load_state == "not-found"
            else f"can't be loaded ({state.load_state})"
        )
        plan.problems.append(
            HostError(
                f"{target.variable}: {name} {why}; is the package installed that brings it, or its name wrong?"
            )
        )
    _plan_enabled(plan, target, state, _touches(directory, name, reinstalled))
    _plan_state(plan, target, state, present, _touches(directory, name, felt))


def _plan_enabled(plan: Plan, target: Target, state: UnitState, reinstalled: bool) -> None:
    if target.enabled and not state.enabled:
        if not target.has_content and state.unit_file_state in ("static", "generated", "transient"):
            plan.problems.append(
                InputError(
                    f"{target.variable}.enabled",
                    True,
                    f"nothing, as {target.name} is {state.unit_file_state}",
                )
            )
        plan.note(plan.enable, target.name, "enabled")
    elif state.unit_file_state == "enabled" and target.enabled is False:
        plan.note(plan.disable, target.name, "disabled")
    elif state.unit_file_state == "enabled" and reinstalled:
        plan.note(plan.reenable, target.name, "enabled again")


def _plan_state(plan: Plan, target: Target, state: UnitState, present: Present, felt: bool) -> None:
    name = target.name
    if target.state == "stopped":
        if state.up:
            plan.note(plan.stop, name, "stopped")
        return
    if target.state in ("started", "restarted", "reloaded") and state.failed:
        plan.reset_failed.append(name)
    if not state.up:
        if target.state in ("started", "restarted", "reloaded"):
            plan.note(plan.start, name, "started")
        return
    if target.state in ("restarted", "reloaded"):
        action = "restart" if target.state == "restarted" else "reload"
    else:
        told = target.trigger is not None and digest(target.trigger) != present.applied.get(name)
        owed = present.pending.get(name, "none")
        action = max(
            target.on_change if felt else "none",
            target.on_trigger if told else "none",
            owed if owed in STRENGTH else "none",
            key=STRENGTH.__getitem__,
        )
    waits = state.active_state == "activating" and state.sub_state.startswith("auto-restart")
    if action == "restart":
        plan.note(plan.restart, name, "restarted")
    elif action == "reload" and not waits:
        plan.note(plan.reload, name, "reloaded")


def _plan_memory(plan: Plan, targets: Mapping[str, Target], present: Present, orphans: bool) -> None:
    keep = (
        {}
        if orphans
        else {name: value for name, value in present.applied.items() if name not in plan.removed}
    )
    plan.applied = keep
    for name, target in targets.items():
        if target.trigger is not None and name not in plan.removed:
            plan.applied[name] = digest(target.trigger)
    plan.pending = dict.fromkeys(plan.restart, "restart") | dict.fromkeys(plan.reload, "reload")
