# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which modes a host can carry, and why not. Pure: judges what ``host_info`` returned."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._modes import mode

Facts = Mapping[str, Any]
NAMESPACES = ("mnt", "net", "pid", "ipc", "uts", "user")
CONTROLLERS = ("memory", "cpu", "pids")
DOCKER_AT_LEAST = "20.10"
DOCKER_DROPS_MISSING_CAPABILITIES = "23.0"
PRIVILEGED_NEEDS = ("CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_MKNOD", "CAP_SYS_CHROOT", "CAP_SETFCAP")
"""Without these nothing of a nested daemon works, whatever the engine's version."""


def judge_modes(
    facts: Facts,
    modes: Iterable[str],
    *,
    supported: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    engine_version: str | None = None,
) -> dict[str, dict[str, Any]]:
    """``{mode: {"possible": bool, "reasons": [sentence, …]}}``.

    :param supported: operating systems as ``[debian-13]`` or ``{Debian: ["13"]}``; None: any.
    :param engine_version: the version of Docker that is to be installed; None: the one that is, if any.
    :raises InputError: for a mode that isn't in the table, or a version that isn't one.
    """
    if engine_version and not version_tuple(engine_version):
        raise InputError("engine_version", engine_version, "a version such as 26.1.5 or 26.*, or empty")
    if isinstance(supported, Mapping):
        supported = [f"{system}-{version}" for system, versions in supported.items() for version in versions]
    found: dict[str, dict[str, Any]] = {}
    for name in modes:
        reasons = list(_platform(facts, supported))
        for requirement in mode(name, "modes").requires:
            reasons += CHECKS[requirement](facts, engine_version)
        found[name] = {"possible": not reasons, "reasons": reasons}
    return found


def version_tuple(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, without a package's epoch: ``5:27.3.1-1`` is (27, 3, 1)."""
    found = re.match(r"^(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def _older(version: str, than: str) -> bool:
    """Whether ``version`` is older, as far as it says: ``20.*`` isn't older than 20.10."""
    numbers = version_tuple(version)
    return numbers < version_tuple(than)[: len(numbers)]


def _platform(facts: Facts, supported: Sequence[str] | None) -> Iterable[str]:
    system = facts["os"]
    names = {f"{system['id']}-{system['version_id']}", f"{system['id']}-{system['major']}"}
    if supported is not None and not names & {name.lower() for name in supported}:
        yield (
            f"The operating system is {system['pretty'] or system['id'] or 'unknown'}; "
            f"needed is one of {', '.join(supported)}. Use a host with one of these."
        )


def _systemd(facts: Facts, _version: str | None) -> Iterable[str]:
    if not facts["init"]["systemd"]:
        yield (
            "Process 1 isn't systemd; runners, timers and engines are systemd units. "
            "Boot the host with systemd (in a container: start /sbin/init)."
        )


def _root(facts: Facts, _version: str | None) -> Iterable[str]:
    if facts["uid"] != 0:
        yield (f"The user has uid {facts['uid']}; needed is root. Set become: true, or connect as root.")


def _overlay(facts: Facts, _version: str | None) -> Iterable[str]:
    if facts["kernel_features"]["overlay"] == "absent":
        yield (
            f"Kernel {facts['kernel']} has no overlay file system, neither built in nor as a module that may be "
            "loaded; layers would be copied one by one. Use a kernel with CONFIG_OVERLAY_FS, or remove the "
            "modprobe rule that forbids it (grep -r overlay /etc/modprobe.d)."
        )


def _namespaces(facts: Facts, _version: str | None) -> Iterable[str]:
    features = facts["kernel_features"]
    missing = [name for name in NAMESPACES if name not in features["namespaces"]]
    if missing:
        yield (
            f"Kernel {facts['kernel']} lacks these namespaces: {', '.join(missing)}; needed are "
            f"{', '.join(NAMESPACES)}. Use a kernel with CONFIG_NAMESPACES and all of its parts."
        )
    elif features["max_user_namespaces"] == 0:
        yield (
            "user.max_user_namespaces is 0; jobs need user namespaces inside their environment. "
            "Raise it: sysctl -w user.max_user_namespaces=15000, and look for what set it in /etc/sysctl.d."
        )


def _cgroup_limits(facts: Facts, _version: str | None) -> Iterable[str]:
    cgroup = facts["cgroup"]
    missing = [name for name in CONTROLLERS if name not in cgroup["controllers"]]
    if missing:
        yield (
            f"cgroup version {cgroup['version']} has no controller {', '.join(missing)} here, so limits couldn't be "
            f"kept; needed are {', '.join(CONTROLLERS)}. Boot with cgroup_enable=memory and without "
            "cgroup_disable=, or start the container that this host is with a cgroup of its own."
        )


def _docker(facts: Facts, version: str | None) -> Iterable[str]:
    version = _docker_version(facts, version)
    if version and _older(version, DOCKER_AT_LEAST):
        yield (
            f"Docker is {version}; needed is {DOCKER_AT_LEAST} or newer. "
            "Set a newer version, or take Docker's own repository."
        )
    features = facts["kernel_features"]
    if features["nf_tables"] == "absent" and features["ip_tables"] == "absent":
        yield (
            f"Kernel {facts['kernel']} has neither nf_tables nor ip_tables; Docker needs one of them for its "
            "networks. Use a kernel with CONFIG_NF_TABLES."
        )


def _capabilities(facts: Facts, version: str | None) -> Iterable[str]:
    missing = facts["capabilities"]["missing"]
    vital = [name for name in PRIVILEGED_NEEDS if name in missing]
    if vital:
        yield (
            f"The bounding set lacks {', '.join(vital)}, which a nested daemon can't do without. "
            "Start the container that this host is with --privileged, or use a virtual machine."
        )
        return
    version = _docker_version(facts, version)
    if missing and version and _older(version, DOCKER_DROPS_MISSING_CAPABILITIES):
        yield (
            f"The bounding set lacks {', '.join(missing)}, and Docker {version} asks for every capability in a "
            'privileged container: it would fail with "unable to apply caps". Use Docker '
            f"{DOCKER_DROPS_MISSING_CAPABILITIES} or newer (Debian 13, or Docker's own repository), or a host "
            "with all capabilities, such as a virtual machine."
        )


def _docker_version(facts: Facts, version: str | None) -> str | None:
    if version:
        return version
    installed = facts["engines"].get("docker")
    return installed["version"] if installed else None


CHECKS: dict[str, Callable[[Facts, str | None], Iterable[str]]] = {
    "systemd": _systemd,
    "root": _root,
    "overlay": _overlay,
    "namespaces": _namespaces,
    "cgroup_limits": _cgroup_limits,
    "docker": _docker,
    "capabilities": _capabilities,
}
"""A check for every requirement that a mode can name."""
