# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at the whole host once, read-only, and cheaply: one ``systemctl show``, one
``iptables-save`` per network namespace; everything else is asked over sockets or read from ``/proc``.

An engine that isn't up is not asked: a connection to its socket would start it.
"""

from __future__ import annotations

import grp
import json
import os
import posixpath
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._command import CommandError, Result, Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._host_paths import describe_location
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import (
    Disks,
    Mount,
    MountTable,
    parse_mountinfo,
)
from ansible_collections.matryoshka.host.plugins.module_utils._storage import (
    EngineStorage,
    Location,
    parse_docker_info,
)
from ansible_collections.matryoshka.host.plugins.module_utils._systemd import (
    PROPERTIES,
    parse_show,
    read_units,
)
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_text import instantiate, is_template
from ansible_collections.matryoshka.host.plugins.module_utils._verify_bridges import (
    default_backend,
    describe,
    firewall_of,
    look_around,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import Ask, NoAnswer
from ansible_collections.matryoshka.host.plugins.module_utils._verify_firewall import (
    observe_firewall,
    observe_kernel,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_kernel import (
    cgroup_directories,
    parse_locks,
    read_limits,
    read_namespaces,
    read_net,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_limits import observe_limits
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    ENGINE_COMPANIONS,
    LABEL,
    Disk,
    EngineView,
    Environment,
    Expect,
    Observed,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_roots import observe_roots
from ansible_collections.matryoshka.host.plugins.module_utils._verify_runner_files import (
    read_file,
    read_queue,
    read_runner,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_storage import (
    observe_volumes,
    with_volume_units,
)

EXTRA_PROPERTIES = (
    "MainPID",
    "ExecMainStatus",
    "NextElapseUSecRealtime",
    "NextElapseUSecMonotonic",
    "Triggers",
)
INNER_SOCKETS = {"docker": "/run/docker.sock"}
SYSCTLS = (
    "net/bridge/bridge-nf-call-iptables",
    "user/max_pid_namespaces",
    "user/max_mnt_namespaces",
    "user/max_net_namespaces",
    "user/max_ipc_namespaces",
    "user/max_uts_namespaces",
    "user/max_cgroup_namespaces",
    "user/max_user_namespaces",
)


def unit_names(expect: Expect) -> list[str]:
    """The units to ask systemd about: those promised, the engine's, and what timers start."""
    names = [expect.engine_unit, *ENGINE_COMPANIONS[expect.engine_name]] if expect.engine else []
    for item in expect.units:
        if is_template(item["name"]):
            if item.get("instances") is not None:
                names += [instantiate(item["name"], str(one)) for one in [*item["instances"], "*"]]
        else:
            names.append(item["name"])
    names += [f"{name[: -len('.timer')]}.service" for name in names if name.endswith(".timer")]
    return list(dict.fromkeys(names))


def observe(expect: Expect, run: Runner, ask: Ask) -> Observed:
    """Everything that the checks need, from the live system."""
    seen = Observed(now=time.time(), hostname=os.uname().nodename)
    seen.volumes = observe_volumes(expect, run)
    expect = with_volume_units(expect, seen.volumes)
    locks = parse_locks(View().text("/proc/locks") or "")
    with ThreadPoolExecutor(max_workers=8) as pool:
        firewall = pool.submit(observe_firewall, expect, run)
        kernel = pool.submit(observe_kernel, expect, run)
        _observe_units(expect, seen, run)
        _observe_files(expect, seen)
        for config in expect.runners:
            seen.runners[config["name"]] = read_runner(config, locks)
        for queue in {one["agent"]["queue"] for one in expect.runners if "queue" in (one.get("agent") or {})}:
            seen.queues[queue] = read_queue(queue)
        if expect.engine:
            _observe_engine(expect, seen, ask, pool)
        roots = pool.submit(observe_roots, expect, seen)
        seen.limited = observe_limits(expect, seen.environments)
        _observe_networks(expect, seen, run)
        seen.firewall, seen.kernel, seen.roots = firewall.result(), kernel.result(), roots.result()
    seen.disks = list(_disks([*_places(expect, seen)]))
    return seen


def _observe_units(expect: Expect, seen: Observed, run: Runner) -> None:
    names = unit_names(expect)
    if not names:
        return
    properties = ",".join((*PROPERTIES, *EXTRA_PROPERTIES))
    try:
        shown = run(["systemctl", "show", "--property", properties, "--", *names])
    except CommandError as error:
        raise HostError(f"systemd doesn't answer: {error}") from error

    def replay(
        argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        return shown

    seen.units = read_units(replay, names)
    seen.unit_details = {block["Id"]: block for block in parse_show(shown.out) if "Id" in block}


def _observe_files(expect: Expect, seen: Observed) -> None:
    host = View()
    seen.mountinfo = host.text("/proc/self/mountinfo") or ""
    seen.namespaces = read_namespaces("self")
    seen.sysctl = {name: host.text(f"/proc/sys/{name}") for name in SYSCTLS}
    if expect.engine:
        seen.daemon_json = host.text(expect.config_path)
    for item in expect.files:
        seen.files[item["path"]] = read_file(item["path"], digest=item.get("sha256") is not None)
    for path in _folders(expect):
        seen.files.setdefault(path, read_file(path))
    try:
        seen.group_members = list(grp.getgrnam("docker").gr_mem)
    except KeyError:
        seen.group_members = None


def _folders(expect: Expect) -> list[str]:
    """The folders whose writers could replace what root runs or what a runner believes."""
    parents = [posixpath.dirname(item["path"]) for item in expect.files]
    return list(dict.fromkeys([*parents, *(str(one["directory"]) for one in expect.runners)]))


def engine_up(expect: Expect, seen: Observed) -> bool:
    """Whether systemd says that the engine runs."""
    unit = seen.units.get(expect.engine_unit)
    return unit is not None and unit.active_state in ("active", "reloading")


def read_engine(ask: Ask, path: str, root: str = "/", timeout: float = 5.0) -> EngineView:
    """What a daemon says of itself and its networks, or why it says nothing."""
    try:
        return EngineView(
            info=ask(path, "/info", root=root, timeout=timeout),
            networks=ask(path, "/networks", root=root, timeout=timeout),
        )
    except NoAnswer as error:
        return EngineView(error=str(error))


def _observe_networks(expect: Expect, seen: Observed, run: Runner) -> None:
    """Every network namespace, each entered once."""
    places = {one.name: one for one in seen.environments if one.running and one.pid}
    engines = {"/": seen.engine, **{f"/proc/{one.pid}/root": one.engine for one in places.values()}}
    around = look_around(expect, run, engines, {name: one.pid for name, one in places.items()})
    namespaces = {one.name: one for one in around.namespaces}
    backend = default_backend()
    seen.net = read_net()
    seen.net.firewall = firewall_of(around.host, backend)
    for name, place in places.items():
        namespace = namespaces[name]
        place.net.firewall = firewall_of(namespaces.get(namespace.same_as or "", namespace), backend)
    seen.bridges = describe(expect, around)


def _observe_engine(expect: Expect, seen: Observed, ask: Ask, pool: ThreadPoolExecutor) -> None:
    if not engine_up(expect, seen):
        seen.engine = EngineView(error="not asked: it isn't running")
        return
    pid = seen.unit_details.get(expect.engine_unit, {}).get("MainPID", "0")
    seen.engine_command = (View(f"/proc/{pid}").text("/cmdline") or "").rstrip("\0").split("\0")
    path = expect.engine_socket
    engine = pool.submit(read_engine, ask, path)
    try:
        seen.containers = ask(path, "/containers/json?all=1")
    except NoAnswer as error:
        seen.engine = EngineView(error=str(error))
        return
    if expect.image.get("reference"):
        seen.image = _image(ask, path, str(expect.image["reference"]))
    modes = {str(one["name"]): one.get("mode") or {} for one in expect.runners}
    mounts = parse_mountinfo(seen.mountinfo)
    ours = [one for one in seen.containers if LABEL in (one.get("Labels") or {})]
    try:
        found = list(
            pool.map(
                lambda item: _environment(item, path, modes.get(item["Labels"][LABEL], {}), ask, mounts), ours
            )
        )
    except NoAnswer as error:
        seen.engine = EngineView(error=str(error))
        return
    seen.environments = [one for one in found if one is not None]
    seen.engine = engine.result()
    seen.storage = read_storage(seen.engine, View(), seen.mountinfo, mounts)
    seen.data_root = os.path.realpath(str(expect.engine_config.get("data-root") or "/var/lib/docker"))


def _image(ask: Ask, path: str, reference: str) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = ask(path, f"/images/{reference}/json")
    except NoAnswer as error:
        if error.status == 404:
            return {}
        return None
    return answer


def _environment(
    item: Mapping[str, Any],
    path: str,
    mode: Mapping[str, Any],
    ask: Ask,
    mounts: list[Mount],
) -> Environment | None:
    """One environment, from its engine's inspection down to its inner engine; None if it is just gone."""
    try:
        seen = Environment(inspect=ask(path, f"/containers/{item['Id']}/json"))
    except NoAnswer as error:
        if error.status == 404:
            return None
        raise
    pid = seen.pid
    if not seen.running or pid <= 0:
        return seen
    proc, root = View(f"/proc/{pid}"), f"/proc/{pid}/root"
    seen.mountinfo = proc.text("/mountinfo") or ""
    seen.namespaces = read_namespaces(pid)
    seen.limits = read_limits(cgroup_directories(proc.text("/cgroup") or "", mounts), View())
    seen.net = read_net(pid)
    socket = INNER_SOCKETS.get(str(mode.get("inner_engine") or "docker"))
    if socket and not seen.state.get("Paused"):
        seen.engine = read_engine(ask, socket, root)
        seen.storage = read_storage(seen.engine, View(root), seen.mountinfo, mounts, seen.name)
    return seen


def read_storage(
    engine: EngineView, view: View, mountinfo: str, host: list[Mount], container: str | None = None
) -> EngineStorage | None:
    """An engine's storage from what it answered, and where its data root really lies."""
    if engine.error:
        return None
    storage = parse_docker_info(json.dumps(engine.info), container=container)
    table, disks, root = MountTable.parse(mountinfo), Disks(), MountTable(host).of("/")
    places = []
    for role, path in (("data_root", storage.data_root), ("containerd", storage.containerd_root)):
        if path:
            real = view.real(path)
            found = describe_location(real, view, table, disks, root)
            options = tuple(found.pop("options"))
            places.append(Location(role=role, path=path, exists=view.exists(real), options=options, **found))
    storage = replace(storage, locations=tuple(places))
    if storage.backing_filesystem is None and storage.location:
        storage = replace(storage, backing_filesystem=storage.location.filesystem)
    return storage


def _places(expect: Expect, seen: Observed) -> Iterable[str]:
    """The paths whose room matters on the host, each file system once."""
    if expect.engine and seen.engine.error:
        yield str(expect.engine.get("data_root") or "/var/lib/docker")
    yield "/run"
    for config in expect.runners:
        yield str(config["directory"])
    yield from seen.queues


def _disks(paths: Sequence[str]) -> Iterable[Disk]:
    known: set[int] = set()
    for path in paths:
        try:
            device, room = os.stat(path).st_dev, os.statvfs(path)
        except (OSError, ValueError):
            continue
        if device not in known:
            known.add(device)
            yield Disk(
                path=path,
                bytes_total=room.f_blocks * room.f_frsize,
                bytes_free=room.f_bavail * room.f_frsize,
                inodes_total=room.f_files,
                inodes_free=room.f_favail,
            )


def state_marks(names: Iterable[str]) -> dict[str, str | None]:
    """The runners' state files as they are now: to see whether they changed while one looked."""
    host = View()
    return {name: host.text(f"/run/matryoshka/runners/{name}.json") for name in names}
