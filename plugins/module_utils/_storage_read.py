# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks engines of their storage, on the host or inside containers, and looks where it really lies.

An engine inside a container is asked with the outer engine's ``exec``; its mounts and files
are read from outside, through ``/proc/<pid>`` of the container's first process.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._command import Result, Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._host_paths import describe_location
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import UNION, Disks, Mount, MountTable
from ansible_collections.matryoshka.host.plugins.module_utils._storage import (
    ENGINES,
    EngineStorage,
    Location,
    containerd_root,
    parse_docker_info,
    parse_podman_info,
    with_daemon_json,
    with_storage_conf,
)

STORAGE_CONF = ("/etc/containers/storage.conf", "/usr/share/containers/storage.conf")
_NOT_THERE = re.compile(
    r"executable file .*not found|^env: .*no such file|: not found in /", re.IGNORECASE | re.MULTILINE
)


@dataclass(frozen=True)
class _Account:
    name: str
    uid: int
    home: str

    @property
    def runtime(self) -> str:
        return f"/run/user/{self.uid}"


@dataclass(frozen=True)
class _Place:
    """An engine's surroundings: its files and mounts, as the host reaches them."""

    view: View
    mounts: MountTable


def read_engine_storage(
    run: Runner,
    engine: str,
    container: str | None = None,
    *,
    user: str | None = None,
    outer: str = "docker",
    timeout: float = 15.0,
    view: View | None = None,
) -> EngineStorage:
    """Storage of ``engine`` on the host, or inside the ``container`` of the ``outer`` engine.

    An engine that is down, hangs longer than ``timeout`` seconds, or isn't there is told in the result.

    :param user: whose engine it is; needed for ``rootless_docker``, optional for ``podman``.
    :raises InputError: for an engine that isn't known, or a user that doesn't exist.
    """
    return read_engine_storages(run, engine, [container], user=user, outer=outer, timeout=timeout, view=view)[
        0
    ]


def read_engine_storages(
    run: Runner,
    engine: str,
    containers: Sequence[str | None],
    *,
    user: str | None = None,
    outer: str = "docker",
    timeout: float = 15.0,
    view: View | None = None,
) -> list[EngineStorage]:
    """As :func:`read_engine_storage` for several containers (None: the host itself) side by side."""
    if engine not in ENGINES:
        raise InputError("engine", engine, "one of " + ", ".join(ENGINES))
    if engine == "rootless_docker" and not user:
        raise InputError("user", user, "the user whose rootless Docker it is")
    view = view or View()
    names = [name for name in containers if name is not None]
    pids = _container_pids(run, outer, names, timeout) if names else {}
    host = _Place(view, MountTable.parse(view.text("/proc/self/mountinfo") or ""))

    def read(container: str | None) -> EngineStorage:
        if container is not None and not pids.get(container):
            text = "is not running" if container in pids else f"is not known to {outer}"
            return EngineStorage(
                engine,
                container,
                user,
                absent=None if container in pids else "container",
                error=f"the container {container} {text}",
            )
        return _read_one(run, engine, container, user, outer, timeout, host, pids.get(container or ""))

    with ThreadPoolExecutor(max_workers=min(8, len(containers) or 1)) as pool:
        return list(pool.map(read, containers))


def _read_one(
    run: Runner,
    engine: str,
    container: str | None,
    user: str | None,
    outer: str,
    timeout: float,
    host: _Place,
    pid: int | None,
) -> EngineStorage:
    place = _process_place(host.view, pid) if pid else host
    account = _account(place.view, user, nested=container is not None) if user else None
    argv = _argv(engine, account, nested=container is not None)
    if container is not None:
        as_user = ["--user", account.name] if account else []
        argv = [outer, "exec", *as_user, container, *argv]
    result = run(argv, check=False, timeout=timeout)
    storage = replace(_parse(result, engine, container), user=user)
    if engine == "rootless_docker" and account and container is None:
        child = (host.view.text(f"{account.runtime}/dockerd-rootless/child_pid") or "").strip()
        place = _process_place(host.view, int(child)) if child.isdigit() else place
    storage = _with_configuration(storage, place.view, account)
    return _with_locations(storage, place, host)


def _process_place(view: View, pid: int) -> _Place:
    text = view.text(f"/proc/{pid}/mountinfo") or ""
    return _Place(View(view.path(f"/proc/{pid}/root")), MountTable.parse(text))


def _container_pids(run: Runner, outer: str, names: Sequence[str], timeout: float) -> dict[str, int]:
    """Process ids of the containers there are; 0 for one that isn't running."""
    template = "{{.Id}} {{.Name}} {{.State.Pid}}"
    argv = [outer, "inspect", "--type", "container", "--format", template, *names]
    found: dict[str, int] = {}
    for line in run(argv, check=False, timeout=timeout).out.splitlines():
        fields = line.split()
        if len(fields) != 3 or not fields[2].isdigit():
            continue
        for name in names:
            if name == fields[1].lstrip("/") or (len(name) >= 12 and fields[0].startswith(name)):
                found[name] = int(fields[2])
    return found


def _account(view: View, user: str, *, nested: bool) -> _Account:
    if not nested:
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise InputError("user", user, "a user of this host") from None
        return _Account(user, entry.pw_uid, entry.pw_dir)
    for line in (view.text("/etc/passwd") or "").splitlines():
        fields = line.split(":")
        if len(fields) == 7 and fields[0] == user and fields[2].isdigit():
            return _Account(user, int(fields[2]), fields[5])
    raise InputError("user", user, "a user inside the container")


def _argv(engine: str, account: _Account | None, *, nested: bool) -> list[str]:
    if engine == "docker":
        return ["docker", "info", "--format", "{{json .}}"]
    if engine == "rootless_docker":
        socket = f"unix://{account.runtime}/docker.sock" if account else ""
        return ["docker", "--host", socket, "info", "--format", "{{json .}}"]
    argv = ["podman", "info", "--format", "json"]
    if account is None:
        return argv
    variables = [f"HOME={account.home}", f"XDG_RUNTIME_DIR={account.runtime}"]
    switch = [] if nested or os.geteuid() == account.uid else ["runuser", "--user", account.name, "--"]
    return [*switch, "env", "--chdir=/", *variables, *argv]


def _parse(result: Result, engine: str, container: str | None) -> EngineStorage:
    program = "podman" if engine == "podman" else "docker"
    said = (result.err or result.out).strip()
    if result.code in (126, 127) and _NOT_THERE.search(said):
        return EngineStorage(engine, container, absent="program", error=f"{program} isn't installed")
    if result.code == 124:
        return EngineStorage(engine, container, error=f"{program} info gave no answer ({said})")
    try:
        if engine == "podman":
            if not result.ok:
                raise HostError(f"podman info ended with {result.code}")
            return parse_podman_info(result.out, container)
        storage = parse_docker_info(result.out, engine, container)
        # Docker 28 tells on standard error what earlier clients put into the JSON.
        return (
            storage
            if storage.live or not result.err.strip()
            else replace(storage, error=_last_line(result.err))
        )
    except HostError as error:
        return EngineStorage(engine, container, error=_last_line(said) or str(error))


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def _with_configuration(storage: EngineStorage, view: View, account: _Account | None) -> EngineStorage:
    if storage.engine == "podman":
        own = (f"{account.home}/.config/containers/storage.conf",) if account else ()
        file = next((path for path in (*own, *STORAGE_CONF) if view.exists(path)), None)
        return (
            replace(with_storage_conf(storage, view.text(file)), configuration_file=file) if file else storage
        )
    path, default = "/etc/docker/daemon.json", "/var/lib/docker"
    if storage.engine == "rootless_docker" and account:
        path = f"{account.home}/.config/docker/daemon.json"
        default = f"{account.home}/.local/share/docker"
    storage = with_daemon_json(storage, path, view.text(path))
    if storage.containerd_store:
        config = view.text("/etc/containerd/config.toml")
        root = containerd_root(storage.containerd_address, storage.data_root, config)
        storage = replace(storage, containerd_root=root)
    if not storage.live and not storage.absent:
        storage = replace(storage, data_root=storage.configured_data_root or default)
    return storage


def _with_locations(storage: EngineStorage, place: _Place, host: _Place) -> EngineStorage:
    roles = [("data_root", storage.data_root), ("containerd", storage.containerd_root)]
    disks = Disks(host.view.root)
    locations = tuple(_locate(role, path, place, host, disks) for role, path in roles if path)
    storage = replace(storage, locations=locations)
    if storage.backing_filesystem is None and storage.location:
        storage = replace(storage, backing_filesystem=storage.location.filesystem)
    return storage


def _locate(role: str, path: str, place: _Place, host: _Place, disks: Disks) -> Location:
    real = place.view.real(path)
    base = real
    while not place.view.exists(base) and base != "/":
        base = os.path.dirname(base)
    found: dict[str, Any] = describe_location(base, place.view, place.mounts, disks, host.mounts.of("/"))
    return Location(
        role=role,
        path=path,
        exists=place.view.exists(real),
        beneath=_beneath(place.mounts.of(base), host),
        **{**found, "options": tuple(found["options"])},
    )


def _beneath(mount: Mount | None, host: _Place) -> str | None:
    """The file system under an overlay's upper layer, if the host can see that directory."""
    if mount is None or mount.filesystem not in UNION:
        return None
    upper = mount.super_option("upperdir")
    if upper is None or not host.view.exists(upper):
        return None
    below = host.mounts.of(upper)
    return below.filesystem if below else None
