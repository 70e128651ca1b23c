# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``/etc/projects`` and ``/etc/projid``: which directory is which project, and what a project is called.

``projects(5)`` and ``projid(5)``. Nothing in the kernel reads them; people and ``xfs_quota`` do. A project whose
name begins with the owner's is the owner's, all other lines stay as they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError

PROJECTS = "/etc/projects"
NAMES = "/etc/projid"

SPAN = 1 << 16
"""Ids that belong to one project of ours: Docker and Podman number the layers of containers with a size limit
upwards from the id of their data root."""
SPANS = (1 << 15) - 1
"""Below 2^31, because xfsprogs reads ids as signed."""


@dataclass(frozen=True)
class Project:
    """A directory with an id and a name."""

    path: str
    id: int
    name: str


@dataclass(frozen=True)
class Registry:
    """The texts of both files."""

    projects: str = ""
    names: str = ""

    def ids(self) -> dict[str, int]:
        """Ids by name."""
        found = {}
        for line in _lines(self.names):
            name, colon, number = line.rpartition(":")
            if colon and number.strip().isdecimal():
                found[name.strip()] = int(number)
        return found

    def paths(self) -> list[tuple[int, str]]:
        """Ids with their directories; one id can have several."""
        found = []
        for line in _lines(self.projects):
            number, colon, path = line.partition(":")
            if colon and number.strip().isdecimal():
                found.append((int(number), path.strip()))
        return found

    def taken(self) -> frozenset[int]:
        """All ids that are in either file."""
        return frozenset(self.ids().values()) | {number for number, _path in self.paths()}

    def owned(self, owner: str) -> dict[str, Project]:
        """The owner's projects by directory."""
        names = {number: name for name, number in self.ids().items() if name.startswith(f"{owner}-")}
        return {
            path: Project(path, number, names[number]) for number, path in self.paths() if number in names
        }

    def stranger(self, owner: str, path: str) -> int | None:
        """The id of somebody else's project on ``path``."""
        mine = self.owned(owner)
        return next(
            (number for number, other in self.paths() if other == path and other not in mine),
            None,
        )

    def changed(self, add: Iterable[Project] = (), remove: Iterable[Project] = ()) -> Registry:
        """With lines of ``add`` at the end and those of ``remove`` gone; what is there already isn't doubled."""
        added, removed = list(add), list(remove)
        gone_paths = {(project.id, project.path) for project in removed}
        gone_names = {project.name for project in removed} | {project.name for project in added}
        present = set(self.paths()) - gone_paths
        projects = _kept(self.projects, lambda line: _path_of(line) not in gone_paths)
        projects += [f"{one.id}:{one.path}" for one in added if (one.id, one.path) not in present]
        same = {one.name: one.id for one in added}
        names = _kept(self.names, lambda line: not _renamed(line, gone_names, same))
        known = {line.rpartition(":")[0].strip() for line in names if not line.lstrip().startswith("#")}
        names += [f"{one.name}:{one.id}" for one in added if one.name not in known]
        return Registry(_text(projects, self.projects), _text(names, self.names))


def project_name(owner: str, path: str) -> str:
    """What a person reads in ``xfs_quota -c report``: ``matryoshka-var-lib-docker``.

    A path with other than plain characters gets a few digits of its hash, so that no two are alike.
    """
    plain = path.strip("/")
    slug = re.sub(r"[^A-Za-z0-9_.]+", "-", plain)
    exact = slug.replace("-", "/") == plain and len(slug) <= 60
    return f"{owner}-{slug}" if exact else f"{owner}-{slug[:60]}-{_digest(path):08x}"


def new_project(
    owner: str, path: str, registry: Registry, used: Callable[[int, int], bool] = lambda first, last: False
) -> Project:
    """The project for a directory that has none: the same id each time, unless that is taken.

    :param used: whether the file system has files or limits of an id in a range.
    """
    name = project_name(owner, path)
    left = registry.ids().get(name)
    if left is not None and left % SPAN == 0 and left not in {number for number, _path in registry.paths()}:
        return Project(path, left, name)
    taken = {number // SPAN for number in registry.taken()}
    return Project(path, _free(_digest(f"{owner}\0{path}") % SPANS, taken, used, path), name)


def _free(start: int, taken: Collection[int], used: Callable[[int, int], bool], path: str) -> int:
    for step in range(SPANS):
        span = 1 + (start + step) % SPANS
        if span not in taken and not used(span * SPAN, (span + 1) * SPAN - 1):
            return span * SPAN
    raise HostError(f"{path}: no project id is free in {PROJECTS}, {NAMES} and on the file system")


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:4], "big")


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")]


def _kept(text: str, keep: Callable[[str], bool]) -> list[str]:
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line for line in lines if not line.strip() or line.lstrip().startswith("#") or keep(line)]


def _path_of(line: str) -> tuple[int, str]:
    number, _colon, path = line.partition(":")
    return (int(number) if number.strip().isdecimal() else -1), path.strip()


def _renamed(line: str, gone: Collection[str], same: dict[str, int]) -> bool:
    name, _colon, number = line.rpartition(":")
    return name.strip() in gone and number.strip() != str(same.get(name.strip()))


def _text(lines: list[str], before: str) -> str:
    """``before`` itself if its lines are these."""
    return before if lines == _kept(before, lambda line: True) else "".join(f"{line}\n" for line in lines)
