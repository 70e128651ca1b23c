# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine has that nobody uses: containers that don't run, networks and images without containers.

Docker's own ``prune`` can't do it: given several ``label!=`` filters it keeps only what has
*all* of the labels, here things stay that have any of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from matryoshka_runner.errors import ProgramError
from matryoshka_runner.process import Result

Docker = Callable[[Sequence[str]], Result]
"""Runs ``docker`` with these words."""

AT_ONCE = 100
"""Ids on one command line."""
UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
DOWN = [word for state in ("created", "exited", "dead") for word in ("--filter", f"status={state}")]


@dataclass(frozen=True)
class Thing:
    """A container, a network or an image.

    :param names: what it is removed by, one after another.
    :param created: seconds since the epoch.
    """

    id: str
    names: tuple[str, ...]
    created: float
    labels: Mapping[str, str]

    def has(self, label: str) -> bool:
        """Whether it has a label, written ``name`` or ``name=value``."""
        name, equals, value = label.partition("=")
        return name in self.labels and (not equals or self.labels[name] == value)


@dataclass(frozen=True)
class Kind:
    """How things of one kind are listed, read and removed.

    :param size: their line in ``docker system df``; empty if they take no space.
    """

    list: Sequence[str]
    inspect: Sequence[str]
    remove: Sequence[str]
    size: str = ""


KINDS = {
    "containers": Kind(
        ("ps", "--all", "--quiet", "--no-trunc", *DOWN),
        ("container", "inspect", "--format", "[{{json .Id}},{{json .Created}},{{json .Config.Labels}},[]]"),
        ("rm",),
        "Containers",
    ),
    "networks": Kind(
        ("network", "ls", "--quiet", "--no-trunc", "--filter", "type=custom"),
        ("network", "inspect", "--format", "[{{json .Id}},{{json .Created}},{{json .Labels}},[]]"),
        ("network", "rm"),
    ),
    "images": Kind(
        ("image", "ls", "--quiet", "--no-trunc"),
        (
            "image",
            "inspect",
            "--format",
            "[{{json .Id}},{{json .Created}},{{json .Config.Labels}},{{json .RepoTags}}]",
        ),
        ("image", "rm"),
        "Images",
    ),
}
"""In the order in which they are removed: one keeps the next in use."""


def ask(docker: Docker, words: Sequence[str]) -> list[str]:
    """The lines of an answer that has to come; ProgramError if it doesn't."""
    result = docker(words)
    if not result.ok:
        raise ProgramError(f"docker {' '.join(words[:2])}: {result.detail}")
    return [line for line in result.out.splitlines() if line.strip()]


def moment(text: str) -> float:
    """Seconds since the epoch of a time as Docker writes it, with nanoseconds and any zone."""
    text = re.sub(r"(\.\d{1,6})\d*", lambda found: found[1].ljust(7, "0"), text.replace("Z", "+00:00"))
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def present(docker: Docker, kind: Kind) -> Iterator[Thing]:
    """All things of a kind. One that goes away meanwhile is left out."""
    ids = list(dict.fromkeys(ask(docker, kind.list)))
    for start in range(0, len(ids), AT_ONCE):
        # Exit code 1 says that one of them is gone; the others are told of all the same.
        told = docker([*kind.inspect, *ids[start : start + AT_ONCE]])
        for line in told.out.splitlines():
            if line.startswith("["):
                identity, created, labels, names = json.loads(line)
                yield Thing(identity, tuple(names or ()) or (identity,), moment(created), labels or {})


def images_in_use(docker: Docker) -> set[str]:
    """Ids of the images that containers were made from, running or not."""
    ids = ask(docker, ["ps", "--all", "--quiet", "--no-trunc"])
    found: set[str] = set()
    for start in range(0, len(ids), AT_ONCE):
        told = docker(["container", "inspect", "--format", "{{.Image}}", *ids[start : start + AT_ONCE]])
        found |= set(told.out.split())
    return found


def unused(docker: Docker, name: str, older_than: float, keep: Sequence[str]) -> list[Thing]:
    """What may be removed of a kind.

    :param older_than: made before this, in seconds since the epoch.
    :param keep: labels of which a single one is enough to stay.
    """
    things = [
        thing
        for thing in present(docker, KINDS[name])
        if thing.created < older_than and not any(thing.has(label) for label in keep)
    ]
    used = images_in_use(docker) if name == "images" and things else set()
    return [thing for thing in things if thing.id not in used]


def remove(docker: Docker, name: str, things: Sequence[Thing]) -> list[str]:
    """Remove them without force; why some stayed (used since, or needed by another image)."""
    stayed: list[str] = []
    for start in range(0, len(things), AT_ONCE):
        names = [word for thing in things[start : start + AT_ONCE] for word in thing.names]
        result = docker([*KINDS[name].remove, *names])
        if not result.ok:
            stayed.append(result.detail)
    return stayed


def size(docker: Docker, name: str) -> float:
    """Bytes that all things of a kind take, as exactly as Docker says it: to four digits."""
    for line in ask(docker, ["system", "df", "--format", "{{.Type}}\t{{.Size}}"]):
        kind, _tab, text = line.partition("\t")
        found = re.fullmatch(r"([\d.]+)([kMGT]?B)", text.strip())
        if kind == KINDS[name].size and found:
            return float(found[1]) * UNITS[found[2]]
    return 0.0


def human(amount: float) -> str:
    """Bytes as Docker writes them: ``1.5MB``."""
    unit = max((unit for unit in UNITS if amount >= UNITS[unit]), key=lambda unit: UNITS[unit], default="B")
    return f"{amount / UNITS[unit]:.4g}{unit}"
