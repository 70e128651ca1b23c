# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which ways units aren't as wanted, in words; for looking only.

Pure: what is compared comes from :func:`read_units`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.matryoshka.host.plugins.module_utils._systemd import UnitState, WantedUnit
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_text import template_of
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_wanted import Target, resolve


@dataclass(frozen=True)
class Difference:
    """One way in which a unit isn't as wanted.

    ``kind`` is one of ``missing``, ``broken``, ``masked``, ``unmasked``, ``disabled``, ``enabled``, ``inactive``,
    ``failed``, ``active``, ``content``, ``shadowed``, ``drop_in``, ``foreign_drop_in``, ``daemon_reload``.
    """

    unit: str
    kind: str
    text: str
    remedy: str


_SITE = "run the site playbook again"


def compare_units(
    wanted: Sequence[WantedUnit], present: Mapping[str, UnitState], directory: str = "/etc/systemd/system"
) -> list[Difference]:
    """Every way in which ``present`` isn't ``wanted``, in the order of the list.

    :param wanted: from :func:`parse_wanted`. What is None in it isn't compared.
    :param present: from :func:`read_units` for the names that :func:`resolve` gives.
    """
    units = {unit.name: unit for unit in wanted}
    found: list[Difference] = []
    for name, target in resolve(wanted).items():
        state = present.get(name, UnitState(name))
        own = [units[each] for each in (name, template_of(name) or "") if each in units]
        found.extend(_compare(target, state, own, directory))
    return found


def _compare(
    target: Target, state: UnitState, own: Sequence[WantedUnit], directory: str
) -> Iterator[Difference]:
    name = target.name
    if target.masked:
        if not state.masked:
            yield Difference(name, "unmasked", f"{name} should be masked and isn't", f"systemctl mask {name}")
        if state.up:
            yield Difference(name, "active", f"{name} should be masked and runs", f"systemctl stop {name}")
        return
    if state.masked:
        where = " and ".join(state.masked_by) or state.fragment_path
        yield Difference(name, "masked", f"{name} is masked by {where}", f"systemctl unmask {name}; {_SITE}")
    elif state.load_state == "not-found":
        if target.state != "absent":
            yield Difference(name, "missing", f"{name} doesn't exist", _SITE)
        return
    elif not state.known:
        text = f"{name} can't be loaded ({state.load_state})"
        yield Difference(name, "broken", text, f"systemd-analyze verify {name}")
    else:
        yield from _compare_files(name, state, own, directory)
    yield from _compare_state(target, state)


def _compare_files(
    name: str, state: UnitState, own: Sequence[WantedUnit], directory: str
) -> Iterator[Difference]:
    for unit in own:
        path = f"{directory}/{unit.name}"
        if unit.content is not None and state.fragment_path != path:
            text = f"{name} comes from {state.fragment_path or 'no file'} in place of {path}"
            yield Difference(name, "shadowed", text, f"remove {state.fragment_path}; {_SITE}")
        elif unit.content is not None and state.texts.get(path) != unit.content:
            yield Difference(name, "content", f"{path} was changed by somebody else", _SITE)
        for file, content in unit.drop_ins.items():
            path = f"{directory}/{unit.name}.d/{file}"
            if path not in state.drop_in_paths:
                same = [other for other in state.drop_in_paths if posixpath.basename(other) == file]
                why = f"is overridden by {same[0]}" if same else "isn't in effect"
                yield Difference(name, "drop_in", f"{path} {why}", _SITE)
            elif state.texts.get(path) != content:
                yield Difference(name, "drop_in", f"{path} was changed by somebody else", _SITE)
    for path, settings in state.foreign_drop_ins.items():
        what = ", ".join(settings) or "nothing"
        yield Difference(
            name,
            "foreign_drop_in",
            f"{name} is overridden by {path}, which sets {what}",
            f"remove {path} and run systemctl daemon-reload, or bring its settings into your variables",
        )
    if state.stale:
        text = f"systemd still uses older files of {name} than there are"
        yield Difference(name, "daemon_reload", text, "systemctl daemon-reload")


def _compare_state(target: Target, state: UnitState) -> Iterator[Difference]:
    name = target.name
    if target.enabled and not state.enabled and not state.masked:
        how = state.unit_file_state or "not enabled"
        text = f"{name} is {how}: it won't start with the host"
        yield Difference(name, "disabled", text, f"systemctl enable {name}")
    elif target.enabled is False and state.unit_file_state == "enabled":
        yield Difference(name, "enabled", f"{name} starts with the host", f"systemctl disable {name}")
    if target.state in ("started", "restarted", "reloaded"):
        if state.failed:
            remedy = f"journalctl -u {name}; systemctl reset-failed {name} && systemctl start {name}"
            yield Difference(name, "failed", f"{name} has failed ({state.result})", remedy)
        elif not state.up:
            text = f"{name} is {state.active_state} ({state.sub_state})"
            yield Difference(name, "inactive", text, f"systemctl start {name}")
    elif target.state in ("stopped", "absent") and state.up:
        yield Difference(name, "active", f"{name} is {state.active_state}", f"systemctl stop {name}")
