# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the list of units a person wrote to checked ones, and from these to single targets.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._systemd import WantedUnit
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_text import (
    Setting,
    check_drop_in_name,
    check_instance,
    check_owner,
    check_text,
    check_unit_name,
    instantiate,
    is_template,
    marked,
    template_of,
)

STATES = ("started", "stopped", "restarted", "reloaded", "absent")
ON_CHANGE = ("restart", "reload", "none")
_INSTALLS = ("WantedBy", "RequiredBy", "UpheldBy", "Alias", "Also")


@dataclass(frozen=True)
class Target:
    """A unit that can run, with what is wanted of it after templates are spread out."""

    name: str
    variable: str
    has_content: bool = False
    state: str | None = None
    enabled: bool | None = None
    masked: bool | None = None
    on_change: str = "restart"
    on_trigger: str = "restart"
    trigger: str | None = None


def parse_wanted(owner: str, units: Sequence[Mapping[str, Any]], variable: str = "units") -> list[WantedUnit]:
    """Check a list of units as the ``systemd_units`` module takes it, and mark its texts.

    :raises InputError: names the entry, the value and what is allowed.
    """
    check_owner("owner", owner)
    wanted = [_parse_unit(owner, entry, f"{variable}[{index}]") for index, entry in enumerate(units)]
    seen: set[str] = set()
    for unit in wanted:
        if unit.name in seen:
            raise InputError(f"{unit.variable}.name", unit.name, "every unit once in the list")
        seen.add(unit.name)
    return wanted


def _parse_unit(owner: str, entry: Mapping[str, Any], variable: str) -> WantedUnit:
    name = check_unit_name(f"{variable}.name", str(entry["name"]))
    content = entry.get("content")
    state, enabled, masked = entry.get("state"), entry.get("enabled"), entry.get("masked")
    on_change, on_trigger = entry.get("on_change"), entry.get("on_trigger")
    _check_choice(f"{variable}.state", state, STATES)
    _check_choice(f"{variable}.on_change", on_change, ON_CHANGE)
    _check_choice(f"{variable}.on_trigger", on_trigger, ON_CHANGE)
    if state == "absent" and content is not None:
        raise InputError(f"{variable}.content", name, "no content for a unit whose state is absent")
    if content is not None:
        settings = check_text(f"{variable}.content", name, content, owner)
        _check_fits(variable, name, settings, state, enabled, on_change, bool(entry.get("drop_ins")))
        if masked:
            raise InputError(f"{variable}.masked", masked, "false or nothing for a unit with content")
        content, masked = marked(owner, content), False
    drop_ins: dict[str, str] = {}
    for index, drop_in in enumerate(entry.get("drop_ins") or ()):
        where = f"{variable}.drop_ins[{index}]"
        file = check_drop_in_name(f"{where}.name", str(drop_in["name"]))
        if file in drop_ins:
            raise InputError(f"{where}.name", file, "every drop-in once for a unit")
        check_text(f"{where}.content", name, str(drop_in["content"]), owner)
        drop_ins[file] = marked(owner, str(drop_in["content"]))
    instances = _instances(variable, name, entry)
    if masked and state in ("started", "restarted", "reloaded"):
        raise InputError(f"{variable}.state", state, "stopped or nothing for a masked unit")
    return WantedUnit(
        name=name,
        content=content,
        drop_ins=drop_ins,
        instances=instances,
        state=state,
        enabled=enabled,
        masked=masked,
        on_change=on_change,
        on_trigger=on_trigger,
        triggers=_triggers(variable, name, instances, entry.get("triggers")),
        variable=variable,
    )


def _check_choice(variable: str, value: object, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        raise InputError(variable, value, ", ".join(choices))


def _check_fits(
    variable: str,
    name: str,
    settings: Sequence[Setting],
    state: str | None,
    enabled: bool | None,
    on_change: str | None,
    has_drop_ins: bool,
) -> None:
    if has_drop_ins:
        return
    values = {(s.section, s.key): s.value for s in settings}
    if enabled and not any(("Install", key) in values for key in _INSTALLS):
        raise InputError(f"{variable}.enabled", enabled, f"false or nothing, as {name} has no [Install]")
    if not name.endswith(".service"):
        return
    kind = values.get(("Service", "Type"))
    if state == "started" and kind == "oneshot" and ("Service", "RemainAfterExit") not in values:
        raise InputError(
            f"{variable}.state",
            state,
            f"no state for {name}: Type=oneshot without RemainAfterExit never stays started",
        )
    if on_change == "reload" and kind != "notify-reload" and ("Service", "ExecReload") not in values:
        raise InputError(f"{variable}.on_change", on_change, f"restart or none, as {name} has no ExecReload=")


def _instances(variable: str, name: str, entry: Mapping[str, Any]) -> tuple[str, ...] | None:
    given = entry.get("instances")
    if not is_template(name):
        if given is not None:
            raise InputError(f"{variable}.instances", given, f"nothing, as {name} is no template")
        return None
    found: list[str] = []
    for index, instance in enumerate(given or ()):
        check_instance(f"{variable}.instances[{index}]", str(instance))
        if str(instance) in found:
            raise InputError(f"{variable}.instances[{index}]", instance, "every instance once")
        found.append(str(instance))
    if given is None and entry.get("state") not in (None, "absent"):
        raise InputError(
            f"{variable}.state", entry["state"], f"nothing, as {name} is a template without instances"
        )
    if given is None and entry.get("enabled") is not None:
        raise InputError(
            f"{variable}.enabled", entry["enabled"], f"nothing, as {name} is a template without instances"
        )
    return None if given is None else tuple(found)


def _triggers(variable: str, name: str, instances: tuple[str, ...] | None, given: Any) -> dict[str, str]:
    if given is None:
        return {}
    names = [name] if not is_template(name) else [instantiate(name, i) for i in instances or ()]
    if isinstance(given, Mapping):
        if not is_template(name):
            raise InputError(f"{variable}.triggers", given, f"a string or a list, as {name} is no template")
        for instance in given:
            if str(instance) not in (instances or ()):
                raise InputError(
                    f"{variable}.triggers", instance, f"one of instances: {', '.join(instances or ())}"
                )
        return {instantiate(name, str(key)): str(value) for key, value in given.items()}
    if isinstance(given, (list, tuple)):
        given = "\n".join(str(item) for item in given)
    return {target: str(given) for target in names}


def resolve(wanted: Sequence[WantedUnit]) -> dict[str, Target]:
    """The units that can run, by name; an entry of its own for an instance overrides its template's."""
    found: dict[str, Target] = {}
    for unit in sorted(wanted, key=lambda unit: not is_template(unit.name)):
        names = [unit.name]
        if is_template(unit.name):
            names = [instantiate(unit.name, instance) for instance in unit.instances or ()]
        for name in names:
            base = found.get(name, Target(name, unit.variable))
            on_change = unit.on_change or base.on_change
            found[name] = Target(
                name=name,
                variable=unit.variable,
                has_content=base.has_content or unit.content is not None,
                state=base.state if unit.state is None else unit.state,
                enabled=base.enabled if unit.enabled is None else unit.enabled,
                masked=base.masked if unit.masked is None else unit.masked,
                on_change=on_change,
                on_trigger=unit.on_trigger or (on_change if unit.on_change else base.on_trigger),
                trigger=unit.triggers.get(name, base.trigger),
            )
    return found


def paths_of(directory: str, name: str) -> tuple[str, ...]:
    """Where the texts that make up a unit lie in ``directory``: files, and folders with a / at the end."""
    template = template_of(name)
    names = (name, template) if template else (name,)
    return tuple(path for each in names for path in (f"{directory}/{each}", f"{directory}/{each}.d/"))


def wanted_files(directory: str, wanted: Sequence[WantedUnit]) -> dict[str, str]:
    """Every text that the list wants in ``directory``, by path."""
    found: dict[str, str] = {}
    for unit in wanted:
        if unit.content is not None:
            found[f"{directory}/{unit.name}"] = unit.content
        for file, text in unit.drop_ins.items():
            found[f"{directory}/{unit.name}.d/{file}"] = text
    return found
