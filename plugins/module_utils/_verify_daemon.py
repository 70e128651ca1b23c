# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a running Docker daemon, outer or inner, have the configuration that it should have?

Its answers to ``/info`` and ``/networks`` decide; the file is compared as well, because what
is written there comes into effect at the next restart.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._daemon_options import OPTIONS
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    SITE,
    EngineView,
    Expect,
    Observed,
    Report,
)

BRIDGE_MTU = "com.docker.network.driver.mtu"
#: Keys that decide where data lies, which addresses are used, or who may do what. A value that
#: isn't ours is reported even before it is in effect; other foreign keys belong to others.
SENSITIVE = frozenset(
    [
        "authorization-plugins",
        "bip",
        "bridge",
        "cgroup-parent",
        "containerd",
        "data-root",
        "default-address-pools",
        "default-runtime",
        "exec-opts",
        "exec-root",
        "features",
        "firewall-backend",
        "fixed-cidr",
        "hosts",
        "icc",
        "insecure-registries",
        "ip-forward",
        "ip-masq",
        "iptables",
        "live-restore",
        "mtu",
        "no-new-privileges",
        "rootless",
        "seccomp-profile",
        "selinux-enabled",
        "storage-driver",
        "storage-opts",
        "userns-remap",
    ]
)
#: Flags of dockerd's usual command line, from Debian's and Docker's units.
USUAL_FLAGS = frozenset({"host", "containerd"})


def _pools(value: Any) -> list[str]:
    pools = []
    for pool in value or []:
        lower = {str(key).lower(): one for key, one in pool.items()}
        pools.append(f"{lower.get('base')} size {lower.get('size')}")
    return sorted(pools)


def _option(network: Mapping[str, Any], name: str, default: str) -> str:
    return str((network.get("Options") or {}).get(name, default))


def _bridge_address(engine: EngineView) -> str | None:
    """The default bridge's address with its prefix length, from the engine's own network record."""
    for config in (engine.network("bridge").get("IPAM") or {}).get("Config") or []:
        subnet, gateway = config.get("Subnet"), config.get("Gateway")
        if subnet and gateway and ":" not in subnet:
            return f"{gateway}/{ipaddress.ip_network(subnet, strict=False).prefixlen}"
    return None


def _security(info: Mapping[str, Any], name: str) -> bool:
    return any(option.split(",")[0] == f"name={name}" for option in info.get("SecurityOptions") or [])


def _cgroup_driver(options: Sequence[str]) -> str | None:
    for option in options or []:
        if option.startswith("native.cgroupdriver="):
            return option.partition("=")[2]
    return None


#: For each key that a daemon answers for: (what it says, what is wanted), in comparable form.
#: ``None`` as the first means that this daemon doesn't say.
_Answer = Callable[[EngineView, Any], tuple[Any, Any]]
ANSWERS: dict[str, _Answer] = {
    "storage-driver": lambda engine, want: (engine.info.get("Driver"), want),
    "data-root": lambda engine, want: (engine.info.get("DockerRootDir"), str(want).rstrip("/")),
    "log-driver": lambda engine, want: (engine.info.get("LoggingDriver"), want),
    "live-restore": lambda engine, want: (engine.info.get("LiveRestoreEnabled"), want),
    "bip": lambda engine, want: (_bridge_address(engine), want),
    "default-address-pools": lambda engine, want: (
        _pools(engine.info.get("DefaultAddressPools")),
        _pools(want),
    ),
    "mtu": lambda engine, want: (_option(engine.network("bridge"), BRIDGE_MTU, "1500"), str(want or 1500)),
    "icc": lambda engine, want: (
        _option(engine.network("bridge"), "com.docker.network.bridge.enable_icc", "true"),
        str(want).lower(),
    ),
    "ip-masq": lambda engine, want: (
        _option(engine.network("bridge"), "com.docker.network.bridge.enable_ip_masquerade", "true"),
        str(want).lower(),
    ),
    "debug": lambda engine, want: (engine.info.get("Debug"), want),
    "experimental": lambda engine, want: (engine.info.get("ExperimentalBuild"), want),
    "default-runtime": lambda engine, want: (engine.info.get("DefaultRuntime"), want),
    "exec-opts": lambda engine, want: (
        engine.info.get("CgroupDriver") if _cgroup_driver(want) else None,
        _cgroup_driver(want),
    ),
    "no-new-privileges": lambda engine, want: (_security(engine.info, "no-new-privileges"), want),
    "userns-remap": lambda engine, want: (_security(engine.info, "userns"), bool(want)),
    "selinux-enabled": lambda engine, want: (_security(engine.info, "selinux"), want),
    "labels": lambda engine, want: (sorted(engine.info.get("Labels") or []), sorted(want or [])),
    "registry-mirrors": lambda engine, want: (
        [one.rstrip("/") for one in (engine.info.get("RegistryConfig") or {}).get("Mirrors") or []],
        [one.rstrip("/") for one in want or []],
    ),
    "runtimes": lambda engine, want: (
        sorted(set(engine.info.get("Runtimes") or {}) & set(want or {})),
        sorted(want or {}),
    ),
}


def differences(engine: EngineView, wanted: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(key, what the daemon says, what is wanted) for each key that the daemon answers for differently."""
    for key, want in wanted.items():
        if key in ANSWERS:
            live, want = ANSWERS[key](engine, want)
            if live is not None and live != want:
                yield key, live, want


def load_unique(text: str) -> dict[str, Any]:
    """A JSON object without a key that is there twice.

    :raises ValueError: with the reason in words.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ignored in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"the key {twice[0]} is there twice")
        return dict(pairs)

    value = json.loads(text or "{}", object_pairs_hook=unique)
    if not isinstance(value, dict):
        raise ValueError("it isn't a mapping")
    return value


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def check_daemon(
    report: Report, engine: EngineView, wanted: Mapping[str, Any], subject: str, remedy: str
) -> None:
    """The running daemon against the wanted configuration."""
    found = {key: (live, want) for key, live, want in differences(engine, wanted)}
    for key in wanted:
        live, want = found.get(key, (None, None))
        report.check(
            key not in found,
            "daemon_setting",
            subject,
            f"the running daemon has {key} {_show(live)} and should have {_show(want)}",
            remedy,
        )


def check_daemon_file(report: Report, expect: Expect, seen: Observed) -> None:
    """``daemon.json`` against the wanted configuration: lost, changed and foreign keys."""
    subject, path = f"engine {expect.engine_name}", expect.config_path
    wanted = expect.engine_config
    if not report.check(
        seen.daemon_json is not None or not wanted,
        "daemon_file",
        subject,
        f"{path} isn't there: the next restart of the engine falls back to its own defaults",
        f"{SITE}: it writes the file",
    ):
        return
    try:
        present = load_unique(seen.daemon_json or "{}")
    except ValueError as error:
        report.check(
            False,
            "daemon_file",
            subject,
            f"{path} can't be read ({error}): the engine won't start with it",
            f"mv {path} {path}.broken, then {SITE}",
        )
        return
    for key, want in wanted.items():
        there = present.get(key, "not set")
        report.check(
            there == want,
            "daemon_file",
            subject,
            f"{path} has {key} {_show(there)} and should have {_show(want)}; it counts from the next restart on",
            f"{SITE}: it puts {key} back",
        )
    running = (
        {key: live for key, live, _ignored in differences(seen.engine, present)}
        if not seen.engine.error
        else {}
    )
    for key in sorted(set(present) - set(wanted)):
        known = key in OPTIONS
        when = (
            "the running daemon doesn't have it yet"
            if key in running
            else "it is in effect or can't be asked for"
        )
        report.check(
            known and key not in SENSITIVE,
            "daemon_foreign_key",
            subject,
            f"{path} has {key} {_show(present[key])}, which the inventory doesn't know"
            + (f" ({when})" if known else " and no dockerd either"),
            f"take it over into docker_daemon, or list {key} in docker_daemon_absent, and {SITE}",
        )


def check_daemon_flags(report: Report, expect: Expect, seen: Observed) -> None:
    """The running daemon's command line: a flag would overrule the file, or stop the engine from starting."""
    names = {option.flag or key: key for key, option in OPTIONS.items()}
    shorts = {option.short: option.flag or key for key, option in OPTIONS.items() if option.short}
    for word in seen.engine_command[1:]:
        if not word.startswith("-"):
            continue
        flag, _ignored, _value = word.lstrip("-").partition("=")
        flag = flag if word.startswith("--") else shorts.get(flag[:1], flag)
        key = names.get(flag)
        report.check(
            key is None or flag in USUAL_FLAGS,
            "daemon_flag",
            f"engine {expect.engine_name}",
            f"dockerd runs with {word} on its command line, which overrules {key} in {expect.config_path}",
            f"systemctl cat {expect.engine_unit}, remove the flag (a drop-in or /etc/default/docker), "
            f"systemctl daemon-reload, systemctl restart {expect.engine_unit}",
        )
