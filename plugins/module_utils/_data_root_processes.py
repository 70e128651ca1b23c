# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All processes by mount namespace, and which container each namespace is of. One pass, read only.

Sources of facts: ``/proc/<pid>/{comm,cgroup,root,stat}`` and ``/proc/<pid>/ns`` (proc(5), namespaces(7)),
and the cgroup names that engines give: ``/docker/<id>``, ``<slice>/<id>``, ``docker-<id>.scope``, ``libpod-<id>``.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._verify_kernel import unit_of

ENGINES = frozenset({"dockerd", "containerd", "buildkitd", "podman", "crio", "k3s", "rke2", "cri-dockerd"})
"""Names of processes that keep a data root."""

HOST_ROOTS = (
    "/var/lib/docker",
    "/var/lib/containers/storage",
    "/var/lib/containerd",
    "/var/lib/buildkit",
)
"""Where the host's own engines keep their data if nobody says otherwise."""

_CONTAINER = re.compile(
    r"(?:/docker/|\.slice/(?=[0-9a-f]{64}(?:/|$))|docker-|libpod-(?!conmon)|libpod/|cri-containerd-|crio-"
    r"|/kubepods/(?:[a-z]+/)?pod[^/]+/|buildkit/)([0-9a-z]{12,64})"
    r"(?=[./]|$)|/machine-([^/]+)\.scope|/lxc\.payload[./]([^/]+)"
)


@dataclass(frozen=True)
class Owner:
    """Whose a mount namespace or a process is: the host's, or a container's.

    ``ids`` are the containers from the outermost to the innermost, empty for the host. ``name`` is
    what a person calls it.
    """

    ids: tuple[str, ...] = ()
    name: str = field(default="host", compare=False)

    @property
    def host(self) -> bool:
        return not self.ids

    @property
    def unnamed(self) -> bool:
        """Whether nothing but a process namespace of its own tells of a container."""
        return bool(self.ids) and self.ids[-1].startswith("pid:")

    @property
    def label(self) -> str:
        return "the host" if self.host else f"the container {self.name}"

    def is_called(self, name: str) -> bool:
        """Whether ``name`` (``host``, a container's name, or 12 characters or more of its id) means this one."""
        if name == "host" or self.host:
            return self.host and name == "host"
        return name == self.name or (len(name) >= 12 and self.ids[-1].startswith(name))


@dataclass
class Namespace:
    """A mount namespace as seen from one root directory: its first process, and the engines in it."""

    first: int
    owner: Owner
    unit: str
    engines: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class Processes:
    """What one pass over ``/proc`` found. ``unreadable`` counts processes that weren't shown."""

    base: str | None
    namespaces: dict[tuple[str, str], Namespace]
    unreadable: int = 0

    @property
    def others(self) -> list[Namespace]:
        """All but the host's own."""
        return [one for (mount, root), one in self.namespaces.items() if (mount, root) != (self.base, "/")]


class Owners:
    """Tells whose a process is. Containers get the names that the engines' files give them."""

    def __init__(self, view: View, roots: Iterable[str] = ()) -> None:
        self._view = view
        self._roots = list(dict.fromkeys([*roots, *HOST_ROOTS]))
        self._names: dict[str, str] = {}
        self._podman: dict[str, str] | None = None
        self._host = view.link("/proc/1/ns/pid")

    def of(self, pid: int, cgroup: str | None = None) -> Owner:
        text = self._view.text(f"/proc/{pid}/cgroup") or "" if cgroup is None else cgroup
        ids = container_ids(text)
        if ids:
            return Owner(ids, self._name(ids[-1]))
        space = self._view.link(f"/proc/{pid}/ns/pid")
        if space is None or self._host is None or space == self._host:
            return Owner()
        comm = (self._view.text(f"/proc/{pid}/comm") or "").strip()
        return Owner((space,), f"of {comm} (pid {pid})")

    def _name(self, identity: str) -> str:
        if identity not in self._names:
            self._names[identity] = (
                self._docker_name(identity) or self._podman_name(identity) or identity[:12]
            )
        return self._names[identity]

    def _docker_name(self, identity: str) -> str | None:
        for root in self._roots:
            text = self._view.text(posixpath.join(root, "containers", identity, "config.v2.json"))
            name = _json(text).get("Name") if text else None
            if isinstance(name, str):
                return name.lstrip("/")
        return None

    def _podman_name(self, identity: str) -> str | None:
        if self._podman is None:
            self._podman = {}
            for root in self._roots:
                for path in ("overlay-containers", "vfs-containers", "btrfs-containers"):
                    for name in ("containers.json", "volatile-containers.json"):
                        self._podman |= _podman_names(self._view.text(posixpath.join(root, path, name)))
        return self._podman.get(identity)


def container_ids(cgroup: str) -> tuple[str, ...]:
    """The containers in the text of a ``/proc/<pid>/cgroup``, the outermost first.

    The longest path counts: with cgroup v1 some hierarchies may not know of a container.
    """
    found: tuple[str, ...] = ()
    for line in cgroup.splitlines():
        path = line.partition(":")[2].partition(":")[2]
        here = tuple(dict.fromkeys(next(filter(None, match.groups())) for match in _CONTAINER.finditer(path)))
        found = max(found, here, key=len)
    return found


def read_processes(view: View, owners: Owners) -> Processes:
    """Every process there is, by mount namespace and root directory."""
    found: dict[tuple[str, str], Namespace] = {}
    unreadable = 0
    for pid in sorted(int(name) for name in view.names("/proc") if name.isdecimal()):
        mount = view.link(f"/proc/{pid}/ns/mnt")
        root = view.link(f"/proc/{pid}/root")
        if mount is None or root is None:
            unreadable += _alive(view, pid)
            continue
        key = (mount, root)
        if key not in found:
            cgroup = view.text(f"/proc/{pid}/cgroup") or ""
            found[key] = Namespace(pid, owners.of(pid, cgroup), unit_of(cgroup))
        name = (view.text(f"/proc/{pid}/comm") or "").strip()
        if name in ENGINES:
            found[key].engines.append((pid, name))
    return Processes(view.link("/proc/1/ns/mnt"), found, unreadable)


def parent(view: View, pid: int) -> int:
    """The parent of a process; 0 if it has none or is gone."""
    text = view.text(f"/proc/{pid}/stat") or ""
    fields = text.rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 and fields[1].isdecimal() else 0


def _alive(view: View, pid: int) -> bool:
    """Whether a process is there and not a zombie, which has no namespaces any more."""
    state = (view.text(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()[:1]
    return bool(state) and state[0] not in "ZX"


def _podman_names(text: str | None) -> dict[str, str]:
    try:
        entries = json.loads(text) if text else []
        return {str(one["id"]): str(one["names"][0]) for one in entries if one.get("names")}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def _json(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
