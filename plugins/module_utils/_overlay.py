# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``overlay_info`` tells: reads where paths lie, has overlayfs probed there, and draws the conclusions."""

from __future__ import annotations

import os
import platform
import pwd
import re
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._command import SEARCH_PATH, Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._host_paths import (
    describe_location,
    describe_mount,
)
from ansible_collections.matryoshka.host.plugins.module_utils._host_system import subordinate_ranges
from ansible_collections.matryoshka.host.plugins.module_utils._modes import MODES, mode
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Disks, MountTable
from ansible_collections.matryoshka.host.plugins.module_utils._overlay_drivers import (
    DOCKER_ORDER,
    PODMAN_ORDER,
    Ground,
    engine_choices,
    mode_drivers,
    said,
)
from ansible_collections.matryoshka.host.plugins.module_utils._overlay_reasons import (
    SYSCTLS,
    native_diff,
    reasons,
)
from ansible_collections.matryoshka.host.plugins.module_utils._overlay_start import run_probe
from ansible_collections.matryoshka.host.plugins.module_utils._storage import EngineStorage, with_storage_conf
from ansible_collections.matryoshka.host.plugins.module_utils._storage_read import STORAGE_CONF

PROGRAM = "fuse-overlayfs"
ROOM = ("bytes_total", "bytes_free", "inodes_total", "inodes_free")
PARAMETERS = "/sys/module/overlay/parameters"
_RELEASE = re.compile(r"(\d+)\.(\d+)")


def answer(params: Mapping[str, Any], run: Runner, view: View | None = None) -> dict[str, Any]:
    """``paths`` (by path) and ``kernel``, as the module returns them.

    :param params: ``paths``; optional ``users``, ``modes`` (None: all), ``docker_version`` and ``timeout``.
    :raises InputError: for a path that isn't absolute, a user or mode that isn't known, and the like.
    :raises HostError: if the probe can't be started.
    """
    view = view or View()
    paths = _paths(params["paths"])
    modes = [mode(name, "modes") for name in params.get("modes") or MODES]
    accounts = [account(user, view) for user in dict.fromkeys(params.get("users") or ())]
    docker = docker_major(params.get("docker_version"))
    timeout = float(params.get("timeout", 20))
    if timeout < 1:
        raise InputError("timeout", params["timeout"], "1 second or more")
    kernel = read_kernel(view)
    mounts, disks = MountTable.parse(view.text("/proc/self/mountinfo") or ""), Disks(view.root)
    facts = {path: read_facts(path, view, mounts, disks, timeout) for path in paths}
    found = {path: known["failed"] for path, known in facts.items() if known["failed"]}
    parents = {path: known["probed_in"] for path, known in facts.items() if path not in found}
    program = shutil.which(PROGRAM, path=SEARCH_PATH)
    for path, told in run_probe(run, parents, accounts, program, timeout).items():
        found[path] = with_accounts(told, accounts)
    podman_driver = read_podman_driver(view)
    answers: dict[str, Any] = {}
    for path, known in facts.items():
        grounds = read_grounds(known, found[path], kernel, docker)
        one = {key: value for key, value in known.items() if key != "failed"}
        one |= _conclude({**known, "kernel": kernel["release"]}, found[path], kernel)
        one["engines"] = engine_choices(grounds[None], podman_driver)
        one["users"] = {
            name: {**user, "engines": engine_choices(grounds[name], podman_driver)}
            for name, user in one["users"].items()
        }
        one["drivers"] = {each.name: mode_drivers(each, grounds) for each in modes}
        answers[path] = one
    return {"paths": answers, "kernel": kernel}


def _paths(paths: Sequence[str]) -> list[str]:
    if not paths:
        raise InputError("paths", list(paths), "at least one absolute path")
    for path in paths:
        if not path.startswith("/") or "\0" in path:
            raise InputError("paths", path, "absolute paths")
    return list(dict.fromkeys(paths))


def docker_major(version: str | None) -> int | None:
    """The first number of Docker's version.

    :raises InputError: for what isn't a version.
    """
    if version is None:
        return None
    found = re.match(r"(\d+)(\.\d+)*$", version)
    if not found:
        raise InputError("docker_version", version, "a version of Docker, such as 26.1.5")
    return int(found[1])


def account(user: str, view: View) -> dict[str, Any]:
    """A user, given by name or number, with the ids that a rootless engine maps for it.

    :raises InputError: for a user that doesn't exist, and for root.
    """
    allowed = "users of this host other than root, or their numbers"
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
        name, uid, gid = entry.pw_name, entry.pw_uid, entry.pw_gid
        groups = os.getgrouplist(name, gid)
    except (KeyError, OverflowError):
        if not user.isdigit() or int(user) > 0xFFFFFFFE:
            raise InputError("users", user, allowed) from None
        name, uid, gid = user, int(user), int(user)
        groups = [gid]
    if uid == 0:
        raise InputError("users", user, allowed)
    ranges = {
        kind: subordinate_ranges(view.text(f"/etc/{kind}") or "", name, uid) for kind in ("subuid", "subgid")
    }
    return {
        "name": user,
        "uid": uid,
        "gid": gid,
        "groups": groups,
        "subuids": sum(count for start, count in ranges["subuid"]),
        "subgids": sum(count for start, count in ranges["subgid"]),
        "uid_map": id_map(uid, ranges["subuid"]),
        "gid_map": id_map(gid, ranges["subgid"]),
    }


def id_map(own: int, ranges: Iterable[Sequence[int]]) -> list[tuple[int, int, int]]:
    """As rootless engines map: root inside is the user, from 1 on come the subordinate ids."""
    mapped = [(0, own, 1)]
    inside = 1
    for start, count in ranges:
        if count:
            mapped.append((inside, start, count))
            inside += count
    return mapped


def read_kernel(view: View) -> dict[str, Any]:
    """The kernel's release, whether overlay is loaded with which defaults, and settings on user namespaces."""
    filesystems = [line.split("\t")[-1] for line in (view.text("/proc/filesystems") or "").splitlines()]
    settings = {}
    for name in SYSCTLS:
        text = view.text("/proc/sys/" + name.replace(".", "/"))
        settings[name] = text.strip() if text is not None else None
    return {
        "release": platform.release(),
        "overlay_loaded": "overlay" in filesystems,
        "overlay_parameters": {
            name: (view.text(f"{PARAMETERS}/{name}") or "").strip() for name in view.names(PARAMETERS)
        },
        "settings": settings,
        "selinux": view.exists("/sys/fs/selinux/enforce"),
    }


def read_podman_driver(view: View) -> str | None:
    """The driver in the first of Podman's configuration files that exists."""
    file = next((path for path in STORAGE_CONF if view.exists(path)), None)
    return with_storage_conf(EngineStorage("podman"), view.text(file)).configured_driver if file else None


def read_facts(path: str, view: View, mounts: MountTable, disks: Disks, timeout: float) -> dict[str, Any]:
    """Where a path lies. ``failed`` is None, or says why nothing can be probed, as the probe would.

    A file system that doesn't answer within ``timeout`` seconds is told by the mount table alone.
    """
    told: list[dict[str, Any]] = []
    reading = threading.Thread(target=lambda: told.append(_locate(path, view, mounts, disks)), daemon=True)
    reading.start()
    reading.join(timeout)
    if told:
        return told[0]
    failed = {"failed": "timeout", "works": False, "errno": None, "error": f"no answer within {timeout:g} s"}
    return {
        "path": path,
        "real_path": path,
        "exists": None,
        "probed_in": path,
        "prior_drivers": [],
        **describe_mount(mounts.of(os.path.normpath(path)), disks),
        **dict.fromkeys(("on_root_disk", "on_root_filesystem", *ROOM)),
        "failed": failed,
    }


def _locate(path: str, view: View, mounts: MountTable, disks: Disks) -> dict[str, Any]:
    real = view.real(path)
    base = real
    while not view.exists(base) and base != "/":
        base = os.path.dirname(base)
    drivers = dict.fromkeys([*DOCKER_ORDER[:-1], *PODMAN_ORDER[:-1]])
    failed = None
    if not os.path.isdir(view.path(base)):
        failed = {"failed": "type", "works": False, "errno": "ENOTDIR", "error": f"{base} isn't a directory"}
    return {
        "path": path,
        "real_path": real,
        "exists": view.exists(real),
        "probed_in": base,
        "prior_drivers": [name for name in drivers if view.names(os.path.join(real, name))],
        **describe_location(base, view, mounts, disks),
        "failed": failed,
    }


def with_accounts(found: Mapping[str, Any], accounts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the probe found, with each user's ids."""
    known = {one["name"]: one for one in accounts}
    keys = ("uid", "gid", "subuids", "subgids")
    users = {
        name: {**{key: known[name][key] for key in keys}, **user}
        for name, user in (found.get("users") or {}).items()
    }
    return {**found, "users": users}


def _conclude(
    known: Mapping[str, Any], found: Mapping[str, Any], kernel: Mapping[str, Any]
) -> dict[str, Any]:
    why = reasons(known, found, kernel["settings"])
    if found.get("failed"):
        nothing = dict.fromkeys(("native", "native_diff", "idmapped", "fuse_overlayfs"))
        return {"probed": False, **nothing, "users": {}, "swept": found.get("swept", []), "reasons": why}
    return {
        "probed": True,
        "native": found["native"],
        "native_diff": native_diff(found["native"]),
        "idmapped": found["idmapped"],
        "fuse_overlayfs": found.get("fuse_overlayfs"),
        "users": {name: dict(user) for name, user in found["users"].items()},
        "swept": found["swept"],
        "reasons": why,
    }


def read_grounds(
    known: Mapping[str, Any],
    found: Mapping[str, Any],
    kernel: Mapping[str, Any],
    docker: int | None = None,
) -> dict[str | None, Ground]:
    """What engines stand on at a path: root's under None, each user's by name."""
    release = _RELEASE.match(kernel["release"])
    common: dict[str, Any] = {
        "filesystem": known["filesystem"],
        "selinux": kernel["selinux"],
        "kernel": (int(release[1]), int(release[2])) if release else (0, 0),
        "prior": tuple(known["prior_drivers"]),
        "docker": docker,
    }
    if found.get("failed"):
        return {None: Ground(**common, failed=f"nothing can be put there: {said(found)}")}
    native = found["native"]
    grounds: dict[str | None, Ground] = {
        None: Ground(**common, trials=native, plain=native["two_lowers"], fuse=found.get("fuse_overlayfs"))
    }
    for name, user in found["users"].items():
        if not user["user_namespace"]["works"]:
            failed = f"{name} can't make a user namespace: {said(user['user_namespace'])}"
            grounds[name] = Ground(**common, rootless=True, failed=failed)
            continue
        grounds[name] = Ground(
            **common,
            rootless=True,
            trials=user["userxattr"],
            plain=user["without_userxattr"],
            fuse=user.get("fuse_overlayfs"),
        )
    return grounds
