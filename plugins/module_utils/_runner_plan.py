# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the list of runners that a person wrote to what the host's program is given.

Pure: nothing here looks at a host. What has to be compared with the host (routes, data
roots, processors) is in :mod:`_preflight`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _modes
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_config import check_daemon_config
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._limits_input import (
    MEMORY_MINIMUM,
    PIDS_MAXIMUM,
    PIDS_MINIMUM,
    SLICE_ONLY,
    parse_cpus,
    slice_name,
)
from ansible_collections.matryoshka.host.plugins.module_utils._limits_input import parse_whole as _whole
from ansible_collections.matryoshka.host.plugins.module_utils._networks import (
    NamedRange,
    daemon_ranges,
    overlaps,
)
from ansible_collections.matryoshka.host.plugins.module_utils._options import check_options
from ansible_collections.matryoshka.host.plugins.module_utils._sizes import parse_size

CACHES = ("none", "persistent")
_NAME = re.compile(r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$")
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_OPTIONS = (
    "name",
    "mode",
    "agent",
    "cache",
    "cpus",
    "memory",
    "pids",
    "disk",
    "log_limit",
    *SLICE_ONLY,
    "bip",
    "address_pools",
    "mtu",
    "daemon",
    "directory",
    "image",
    "environment",
    "mounts",
    "ready_timeout",
    "drain_timeout",
    "stop_timeout",
)
_DISK_MINIMUM = 1 << 30
_LOG_MINIMUM = 1 << 10


def plan_runners(
    runners: Sequence[Mapping[str, Any]],
    defaults: Mapping[str, Any],
    images: Mapping[str, str],
    outer: Sequence[NamedRange] = (),
) -> list[dict[str, Any]]:
    """What the host's program is given for every runner, in the order of the list.

    :param runners: the list as a person wrote it (``runner_runners``).
    :param defaults: the value of every option that a runner doesn't set, and ``root``, the
        folder that runners' folders are made in, and ``slices``, whether each runner has a slice.
    :param images: for each mode the reference of its environment image.
    :param outer: ranges that no runner's inner network may meet: those of the host's engine.
    :raises InputError: naming the variable, the value and what is allowed.
    """
    plan: list[dict[str, Any]] = []
    directories: dict[str, str] = {}
    for index, given in enumerate(runners):
        where = f"runner_runners[{index}]"
        if not isinstance(given, Mapping):
            raise InputError(where, given, "a mapping with at least a name")
        name = _name(given.get("name"), f"{where}.name", [one["name"] for one in plan])
        runner = _one(name, f"runner_runners[{name}]", given, defaults, images)
        _own_directory(runner, directories)
        _apart(runner, outer)
        plan.append(runner)
    return plan


def _one(
    name: str, where: str, given: Mapping[str, Any], defaults: Mapping[str, Any], images: Mapping[str, str]
) -> dict[str, Any]:
    check_options(given, _OPTIONS, where)

    def value(key: str) -> Any:
        return given[key] if given.get(key) is not None else defaults.get(key)

    mode = _modes.mode(value("mode"), f"{where}.mode")
    if value("cache") not in CACHES:
        raise InputError(f"{where}.cache", value("cache"), "one of " + ", ".join(CACHES))
    return {
        "schema": 1,
        "name": name,
        "mode": mode.for_runner(),
        "image": value("image") or images[mode.name],
        "directory": _path(
            value("directory") or posixpath.join(defaults["root"], name), f"{where}.directory"
        ),
        "cache": value("cache"),
        "slice": _slice(name, where, value, bool(defaults.get("slices"))),
        "limits": {
            "cpus": _optional(value("cpus"), lambda cpus: parse_cpus(cpus, f"{where}.cpus")),
            "memory_bytes": _optional(
                value("memory"), lambda size: parse_size(size, f"{where}.memory", MEMORY_MINIMUM)
            ),
            "pids": _optional(
                value("pids"), lambda pids: _whole(pids, f"{where}.pids", PIDS_MINIMUM, PIDS_MAXIMUM)
            ),
            "disk_bytes": _optional(
                value("disk"), lambda size: parse_size(size, f"{where}.disk", _DISK_MINIMUM)
            ),
            "log_bytes": _optional(
                value("log_limit"), lambda size: parse_size(size, f"{where}.log_limit", _LOG_MINIMUM)
            ),
        },
        "inner_daemon": _inner_daemon(where, value),
        "agent": _agent(value("agent"), defaults, f"{where}.agent"),
        "environment_variables": _variables(value("environment") or {}, f"{where}.environment"),
        "mounts": _mounts(value("mounts") or [], f"{where}.mounts"),
        "ready_timeout": _whole(value("ready_timeout"), f"{where}.ready_timeout", 1, 3600),
        "drain_timeout": _whole(value("drain_timeout"), f"{where}.drain_timeout", 0, 604800),
        "stop_timeout": _whole(value("stop_timeout"), f"{where}.stop_timeout", 1, 600),
        "restart_delay": 5,
    }


def _slice(name: str, where: str, value: Callable[[str], Any], sliced: bool) -> str | None:
    """The runner's slice, if there are slices; without them limits that only a slice keeps are refused."""
    for key in () if sliced else SLICE_ONLY:
        if value(key) not in (None, ""):
            allowed = "nothing, as role limits has no part in this play or limits_enabled is false"
            raise InputError(f"{where}.{key}", value(key), allowed)
    return slice_name(name) if sliced else None


def _optional(value: Any, read: Callable[[Any], Any]) -> Any:
    """Nothing for "no limit" (empty or null); else what ``read`` makes of it."""
    return None if value in (None, "") else read(value)


def _name(name: Any, variable: str, taken: Sequence[str]) -> str:
    if not isinstance(name, str) or not _NAME.match(name):
        allowed = "1 to 32 lower-case letters, digits and hyphens, no hyphen at either end"
        raise InputError(variable, name, allowed)
    if name in taken:
        raise InputError(variable, name, "a name that no other runner in the list has")
    return name


def _path(value: Any, variable: str) -> str:
    if not isinstance(value, str) or not value.startswith("/") or posixpath.normpath(value) in ("/", "//"):
        raise InputError(variable, value, "an absolute path below /")
    if re.search(r"[\s:,%]", value):
        raise InputError(variable, value, "a path without white space, colon, comma and percent sign")
    return posixpath.normpath(value)


def _inner_daemon(where: str, value: Callable[[str], Any]) -> dict[str, Any]:
    daemon: dict[str, Any] = {"bip": value("bip"), "default-address-pools": value("address_pools")}
    if value("mtu"):
        daemon["mtu"] = _whole(value("mtu"), f"{where}.mtu", 576, 65535)
        daemon["default-network-opts"] = {
            "bridge": {"com.docker.network.driver.mtu": str(daemon["mtu"])},
        }
    own = value("daemon") or {}
    if not isinstance(own, Mapping):
        raise InputError(f"{where}.daemon", own, "a mapping of dockerd's options")
    for key in ("data-root", "hosts", "pidfile", "exec-root"):
        if key in own:
            raise InputError(f"{where}.daemon.{key}", own[key], "nothing: the environment itself sets this")
    daemon.update(own)
    for message in check_daemon_config(daemon, f"{where}.daemon"):
        raise HostError(message)
    return daemon


def _agent(value: Any, defaults: Mapping[str, Any], variable: str) -> dict[str, Any]:
    agent = {"name": value} if isinstance(value, str) else value
    if not isinstance(agent, Mapping) or agent.get("name") not in AGENTS:
        raise InputError(
            variable, value, "one of " + ", ".join(sorted(AGENTS)) + ", or a mapping with its name"
        )
    return AGENTS[agent["name"]](agent, defaults, variable)


def _local_agent(agent: Mapping[str, Any], defaults: Mapping[str, Any], variable: str) -> dict[str, Any]:
    check_options(agent, ("name", "queue"), variable)
    queue = _path(agent.get("queue") or defaults["queue"], f"{variable}.queue")
    return {"name": "local", "queue": queue}


def _command_agent(agent: Mapping[str, Any], defaults: Mapping[str, Any], variable: str) -> dict[str, Any]:
    check_options(agent, ("name", "command"), variable)
    command = agent.get("command")
    if not isinstance(command, Sequence) or isinstance(command, str) or not command:
        raise InputError(f"{variable}.command", command, "a list: the program and its arguments")
    if not all(isinstance(word, str) and word for word in command):
        raise InputError(f"{variable}.command", command, "a list of strings that aren't empty")
    return {"name": "command", "command": list(command)}


#: What an agent's options mean. The program has a class of the same name for each
#: (``matryoshka_runner/agents.py``).
AGENTS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], str], dict[str, Any]]] = {
    "local": _local_agent,
    "command": _command_agent,
}


def _variables(value: Any, variable: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InputError(variable, value, "a mapping of environment variables")
    for key in value:
        if not isinstance(key, str) or not _VARIABLE.match(key):
            raise InputError(variable, key, "names of letters, digits and underscores")
    return {key: str(text) for key, text in value.items()}


def _mounts(value: Any, variable: str) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(variable, value, "a list of SOURCE:TARGET or SOURCE:TARGET:ro")
    for mount in value:
        parts = str(mount).split(":")
        well_formed = len(parts) in (2, 3) and all(part.startswith("/") for part in parts[:2])
        if not well_formed or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
            raise InputError(variable, mount, "SOURCE:TARGET or SOURCE:TARGET:ro, both absolute")
        if posixpath.basename(parts[0]) in ("docker.sock", "containerd.sock", "podman.sock"):
            raise InputError(variable, mount, "no engine's socket: a job would be root on the host")
    return [str(mount) for mount in value]


def _own_directory(runner: Mapping[str, Any], taken: dict[str, str]) -> None:
    """No two runners share a folder, and none lies inside another's."""
    variable, mine = f"runner_runners[{runner['name']}].directory", runner["directory"]
    for other, owner in taken.items():
        if posixpath.commonpath([mine, other]) in (mine, other):
            allowed = f"a folder apart from {other} of runner {owner}: two daemons never share a data root"
            raise InputError(variable, mine, allowed)
    taken[mine] = runner["name"]


def _apart(runner: Mapping[str, Any], outer: Sequence[NamedRange]) -> None:
    """The inner ranges meet neither each other nor the ranges outside the environment."""
    variable = f"runner_runners[{runner['name']}]"
    inner = inner_ranges(runner)
    for text in overlaps(inner) + overlaps(inner, outer):
        raise InputError(variable, text, "inner ranges apart from each other and from the host engine's")


def inner_ranges(runner: Mapping[str, Any]) -> list[NamedRange]:
    """The ranges that are used inside a runner's environments."""
    return daemon_ranges(runner["inner_daemon"], f"runner_runners[{runner['name']}]")
