# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives each selector the one device that it means, or says clearly why it gets none. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._block_judge import (
    Verdict,
    describe,
    judge_device,
    overlap,
)
from ansible_collections.matryoshka.host.plugins.module_utils._block_selector import (
    Selector,
    eligible,
    mismatches,
)
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError

Device = Mapping[str, Any]

SHOWN = 8
"""Candidates that a message names."""


@dataclass(frozen=True)
class Refusal:
    """Why a selector gets no device. ``candidates`` are paths of those that come near."""

    name: str
    code: str
    text: str
    candidates: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "code": self.code,
            "text": self.text,
            "candidates": list(self.candidates),
        }


@dataclass(frozen=True)
class Picked:
    """The device that a selector gets; ``own``: it carries its owner's mark already."""

    device: Device
    own: bool
    verdict: Verdict


class _Round:
    """One resolution of all selectors."""

    def __init__(
        self, selectors: Sequence[Selector], devices: Sequence[Device], wipe: Sequence[Mapping[str, str]]
    ) -> None:
        self.selectors = selectors
        self.devices = devices
        self.verdicts = {one["name"]: judge_device(one, wipe, devices) for one in devices}
        self.carriers = {one.name: self._carriers(one) for one in selectors}
        self.picked: dict[str, Picked] = {}
        self.refused: dict[str, Refusal] = {}

    def _carriers(self, selector: Selector) -> list[Device]:
        """The devices that carry the selector's own mark, the innermost of those that may be meant."""
        marked = [one for one in self.devices if carries(selector, one, self.devices)]
        possible = [one for one in marked if eligible(selector, one)] or [
            one for one in marked if one["partition"] is None and _is_whole(one)
        ]
        return [
            one
            for one in possible
            if not any(
                other["partition"] is not None and one["partition"] is None and overlap(one, other)
                for other in possible
            )
        ]

    def resolve(self) -> None:
        waiting = []
        for selector in self.selectors:
            if self.carriers[selector.name]:
                self._take_own(selector)
            else:
                waiting.append(selector)
        while waiting:
            # Who has one choice goes first, so that another's "the one that is left" has an answer.
            choices = {selector.name: self._choices(selector) for selector in waiting}
            settled = [one for one in waiting if len(choices[one.name]) == 1 and one.required == "one"]
            turn = settled or [one for one in waiting if one.required == "one"] or waiting[:1]
            for selector in turn:
                rivals = [one for one in turn if one is not selector]
                self._decide(selector, choices[selector.name], rivals, choices)
            waiting = [one for one in waiting if one not in turn]

    def _take_own(self, selector: Selector) -> None:
        carriers = self.carriers[selector.name]
        if len(carriers) > 1:
            self._refuse(selector, "several", "one device that carries its own mark", carriers)
            return
        device = carriers[0]
        wrong = mismatches(selector, device)
        if wrong:
            text = f"the device that carries its own mark, which is {describe(device)}: {', '.join(wrong)}"
            self._refuse(selector, "elsewhere", text, [device], listed=False)
            return
        rivals = [name for name, picked in self.picked.items() if overlap(picked.device, device)]
        if rivals:
            text = f"a device of its own; {describe(device)} is that of {', '.join(rivals)}"
            self._refuse(selector, "taken", text, [device], listed=False)
            return
        self.picked[selector.name] = Picked(device, True, self.verdicts[device["name"]])

    def _matching(self, selector: Selector) -> list[Device]:
        return [one for one in self.devices if eligible(selector, one) and not mismatches(selector, one)]

    def _choices(self, selector: Selector) -> list[Device]:
        """Devices that fit and that no one else has."""
        others = [one for name, found in self.carriers.items() if name != selector.name for one in found]
        others += [picked.device for picked in self.picked.values()]
        found = self._matching(selector)
        if not selector.exact:
            found = [one for one in found if not any(overlap(one, other) for other in others)]
        if (selector.empty or selector.required == "any") and not selector.allow_used:
            free = [one for one in found if self.verdicts[one["name"]].free]
            # One device that fits but isn't empty is worth its own message.
            found = free or (found if len(found) == 1 else [])
        return found

    def _decide(
        self,
        selector: Selector,
        choices: list[Device],
        rivals: Sequence[Selector],
        all_choices: Mapping[str, list[Device]],
    ) -> None:
        if not choices:
            self._refuse_none(selector)
            return
        if len(choices) > 1 and selector.required == "one":
            self._refuse(selector, "several", f"what fits one device; {len(choices)} fit", choices)
            return
        device = min(choices, key=lambda one: (one["size_bytes"], one["serial"] or "", one["name"]))
        taken = [name for name, picked in self.picked.items() if overlap(picked.device, device)]
        taken += [name for name, found in self.carriers.items() if any(overlap(one, device) for one in found)]
        taken += [
            one.name
            for one in rivals
            if len(all_choices[one.name]) == 1 and overlap(all_choices[one.name][0], device)
        ]
        if taken:
            text = f"a device of its own; {describe(device)} is that of {', '.join(dict.fromkeys(taken))}"
            self._refuse(selector, "taken", text, [device], listed=False)
            return
        verdict = self.verdicts[device["name"]]
        if not verdict.free and not selector.allow_used:
            reasons = "; ".join(reason.text for reason in verdict.reasons)
            text = f"a device that is free; {describe(device)} is not: {reasons}"
            self._refuse(selector, "not_free", text, [device], listed=False)
            return
        self.picked[selector.name] = Picked(device, False, verdict)

    def _refuse_none(self, selector: Selector) -> None:
        matching = self._matching(selector)
        if matching:
            said = [f"{describe(one)}: {self._why_not(one)}" for one in matching[:SHOWN]]
            text = f"what fits a free device; those that fit aren't free: {'; '.join(said)}"
            self._refuse(selector, "none_free", text, matching, listed=False)
            return
        near = sorted(
            ((mismatches(selector, one), one) for one in self.devices if eligible(selector, one)),
            key=lambda pair: len(pair[0]),
        )
        if not near and selector.path is not None:
            self._refuse(
                selector, "no_match", f"a device that has a size; there is none at {selector.path}", []
            )
            return
        if not near:
            self._refuse(selector, "no_match", "what fits a device; there is none of that kind", [])
            return
        said = [f"{describe(one)}: {', '.join(wrong)}" for wrong, one in near[:SHOWN]]
        text = f"what fits a device; none does: {'; '.join(said)}"
        self._refuse(selector, "no_match", text, [one for wrong, one in near], listed=False)

    def _why_not(self, device: Device) -> str:
        owners = [name for name, picked in self.picked.items() if overlap(picked.device, device)]
        if owners:
            return f"it is that of {owners[0]}"
        return "; ".join(reason.text for reason in self.verdicts[device["name"]].reasons) or "it is taken"

    def _refuse(
        self,
        selector: Selector,
        code: str,
        allowed: str,
        candidates: Sequence[Device],
        *,
        listed: bool = True,
    ) -> None:
        if listed and candidates:
            more = len(candidates) - SHOWN
            tail = f" and {more} more" if more > 0 else ""
            allowed += ": " + ", ".join(describe(one) for one in candidates[:SHOWN]) + tail
        text = str(InputError(selector.name, selector.given, allowed))
        paths = tuple(one["path"] for one in candidates)
        self.refused[selector.name] = Refusal(selector.name, code, text, paths)


def _is_whole(device: Device) -> bool:
    """Whether a device is a disk, not made of others nor a path to one."""
    return not device["multipath_leg"] and (device["kind"] == "multipath" or not device["slaves"])


def carries(selector: Selector, device: Device, devices: Sequence[Device]) -> bool:
    """Whether a device, a partition of it or what is built on it has a mark of the selector's owner."""
    if not selector.own:
        return False
    above = [
        device,
        *(one for one in devices if one["disk"] == device["disk"] and device["partition"] is None),
    ]
    seen: set[str] = set()
    while above:
        one = above.pop()
        if one["name"] in seen:
            continue
        seen.add(one["name"])
        if selector.own & marks(one):
            return True
        above += [other for other in devices if one["name"] in other["slaves"]]
    return False


def marks(device: Device) -> set[str]:
    """UUIDs and labels of all signatures, names of what it is a member of, a partition's own name."""
    found = {signature[key] for signature in device["signatures"] for key in ("uuid", "label")}
    found |= {member["name"] for member in device["members"]} | {device["partition_label"]}
    return {str(mark) for mark in found if mark}


def pick_devices(
    selectors: Sequence[Selector], devices: Sequence[Device], wipe: Sequence[Mapping[str, str]] = ()
) -> tuple[dict[str, Picked], list[Refusal]]:
    """What each selector gets, and a refusal for each that gets nothing.

    A device that carries a selector's own mark is that selector's, whatever else would fit. Then come
    selectors that one device fits; it is taken before others choose. The order of the list means nothing,
    but for ``required: any``.

    :raises InputError: for two selectors with one name.
    """
    names = [selector.name for selector in selectors]
    for name in names:
        if names.count(name) > 1:
            raise InputError("select.name", name, "a name of its own for each selector")
    turn = _Round(selectors, devices, wipe)
    turn.resolve()
    return turn.picked, [turn.refused[name] for name in names if name in turn.refused]
