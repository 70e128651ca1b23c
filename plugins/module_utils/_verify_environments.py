# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Job environments: the right ones, with what their mode promises, their limits, and a sound inner engine."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._modes import MODES
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import MountTable
from ansible_collections.matryoshka.host.plugins.module_utils._verify_daemon import check_daemon
from ansible_collections.matryoshka.host.plugins.module_utils._verify_host import check_storage
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    SITE,
    Environment,
    Expect,
    Observed,
    Report,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_network import (
    check_backends,
    check_bridge,
    check_firewall,
    check_mtu,
)

PAGE = 1 << 16
#: Seconds after which a container that doesn't run should have been removed or put to use.
LEFT_AFTER = 120.0
SOCKETS = ("docker.sock", "containerd.sock", "podman.sock")


def restart(name: str) -> str:
    """The command that replaces a runner's environment."""
    return f"systemctl restart matryoshka-runner@{name}.service"


def named_by_state(seen: Observed, name: str) -> dict[str, str]:
    """The containers that a runner's state names: ``environment`` and ``next``, by name."""
    view = seen.runners.get(name)
    state = (view.state if view else None) or {}
    return {
        str(one["container"]): key
        for key in ("environment", "next")
        if isinstance(one := state.get(key), dict) and one.get("container")
    }


def runner_state(seen: Observed, name: str) -> str:
    """The state that a runner says it is in, empty if it says nothing."""
    view = seen.runners.get(name)
    return str(((view.state if view else None) or {}).get("state", ""))


def check_environments(report: Report, expect: Expect, seen: Observed) -> None:
    """Every container of ours: one for each runner as its state says, and none of anybody else."""
    wanted = {str(one["name"]): one for one in expect.runners}
    for environment in seen.environments:
        runner = str(environment.runner)
        report.check(
            runner in wanted,
            "environment_left",
            f"environment {environment.name}",
            f"it belongs to runner {runner}, which isn't in the list of runners any more",
            f"docker rm --force --volumes {environment.name}",
        )
        settled = runner in wanted and runner_state(seen, runner) in ("ready", "running")
        if settled and environment.name not in named_by_state(seen, runner):
            report.check(
                not environment.running and seen.now - environment.touched < LEFT_AFTER,
                "environment_stray",
                f"runner {runner}",
                f"a second environment, {environment.name}, bears its label, and the runner doesn't know it",
                f"docker rm --force --volumes {environment.name}",
            )
    for name, config in wanted.items():
        _check_current(report, expect, seen, name, config)


def _check_current(
    report: Report, expect: Expect, seen: Observed, name: str, config: Mapping[str, Any]
) -> None:
    current = [one for one, key in named_by_state(seen, name).items() if key == "environment"]
    state = runner_state(seen, name)
    if not current or state not in ("ready", "running"):
        return
    found = next((one for one in seen.environments_of(name) if one.name == current[0]), None)
    subject = f"runner {name}"
    if found is None:
        report.check(
            False,
            "environment_missing",
            subject,
            f"it says that it is {state} with environment {current[0]}, but the engine has no such container",
            restart(name),
        )
        return
    _check_image(report, expect, seen, found, subject, config)
    _check_promises(report, found, subject, config)
    status = str(found.state.get("Status", "gone"))
    report.check(
        not found.state.get("Paused"),
        "environment_paused",
        subject,
        f"its environment {found.name} is paused: nothing in it moves",
        f"docker unpause {found.name}",
    )
    if found.state.get("Paused"):
        return
    if not report.check(
        found.running,
        "environment_stopped",
        subject,
        f"its environment {found.name} doesn't run ({status}, exit code {found.state.get('ExitCode')})",
        restart(name),
    ):
        return
    _check_namespaces(report, seen, found, subject, config)
    check_limits(report, found, subject, config)
    _check_data_root(report, found, subject, config)
    _check_inner_engine(report, seen, found, subject, config)


def _check_image(
    report: Report,
    expect: Expect,
    seen: Observed,
    found: Environment,
    subject: str,
    config: Mapping[str, Any],
) -> None:
    image = str((found.inspect.get("Config") or {}).get("Image", ""))
    name = str(config["name"])
    same = image == config.get("image")
    if image == expect.image.get("reference") and seen.image and seen.image.get("Id"):
        same = same and found.inspect.get("Image") == seen.image["Id"]
    report.check(
        same,
        "environment_image",
        subject,
        f"its environment {found.name} was made from {image} ({str(found.inspect.get('Image', ''))[:19]}), "
        f"not from {config.get('image')} as it is now",
        restart(name),
    )


def _check_promises(report: Report, found: Environment, subject: str, config: Mapping[str, Any]) -> None:
    """What the record of the mode promises of the way a container is made."""
    mode, name = config.get("mode") or {}, str(config["name"])
    host = found.inspect.get("HostConfig") or {}
    privileged = bool(mode.get("privileged"))
    report.check(
        bool(host.get("Privileged")) == privileged,
        "promise_privileged",
        subject,
        f"its environment is {'not ' if privileged else ''}privileged, and mode {mode.get('name')} needs the contrary",
        restart(name),
    )
    runtime = str(mode.get("runtime") or "runc")
    report.check(
        host.get("Runtime") in (runtime, "", None),
        "promise_runtime",
        subject,
        f"its environment runs with the runtime {host.get('Runtime')}, not {runtime}",
        restart(name),
    )
    record = MODES.get(str(mode.get("name")))
    promises = record.promises if record else ()
    if "no_host_socket" in promises:
        sockets = [
            str(mount.get("Source"))
            for mount in found.inspect.get("Mounts") or []
            if posixpath.basename(str(mount.get("Source", ""))) in SOCKETS
            or str(mount.get("Source", "")).rstrip("/") in ("", "/run", "/var/run")
        ]
        report.check(
            not sockets,
            "promise_socket",
            subject,
            f"its environment has {', '.join(sockets)} of the host mounted: a job is root on the host",
            f"take it out of the runner's mounts, {SITE}, or {restart(name)}",
        )


def _check_namespaces(
    report: Report, seen: Observed, found: Environment, subject: str, config: Mapping[str, Any]
) -> None:
    """What the record of the mode promises of the running processes."""
    record = MODES.get(str((config.get("mode") or {}).get("name")))
    promises, name = record.promises if record else (), str(config["name"])
    for kind, promise in (
        ("pid", "own_pid_namespace"),
        ("net", "own_network_namespace"),
        ("mnt", "own_mount_namespace"),
    ):
        if promise in promises:
            report.check(
                found.namespaces.get(kind) not in (None, seen.namespaces.get(kind)),
                "promise_namespace",
                subject,
                f"its environment shares the host's {kind} namespace",
                restart(name),
            )
    if "own_engine" in promises and not found.engine.error and not seen.engine.error:
        report.check(
            found.engine.info.get("ID") != seen.engine.info.get("ID"),
            "promise_engine",
            subject,
            "what answers in its environment is the host's own engine",
            restart(name),
        )


def _size(value: float | None) -> str:
    if value is None:
        return "none"
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if value >= factor:
            return f"{value / factor:g} {unit}"
    return f"{value:g}"


def check_limits(report: Report, found: Environment, subject: str, config: Mapping[str, Any]) -> None:
    """The limits that the kernel really enforces on the environment, where it has none by a slice."""
    if config.get("slice"):
        return
    wanted, live = config.get("limits") or {}, found.limits
    remedy = restart(str(config["name"]))
    for controller, want, has, slack, show in (
        ("memory", wanted.get("memory_bytes"), live.memory_bytes, PAGE, _size),
        (
            "cpu",
            wanted.get("cpus"),
            live.cpus,
            0.01,
            lambda value: "none" if value is None else f"{value:g} CPUs",
        ),
        (
            "pids",
            wanted.get("pids"),
            live.pids,
            0,
            lambda value: "none" if value is None else f"{value} processes",
        ),
    ):
        if want is None:
            continue
        if not report.check(
            controller not in live.unread,
            "limit_unread",
            subject,
            f"the kernel's {controller} limit of its environment can't be read: no such cgroup",
            remedy,
        ):
            continue
        report.check(
            has is not None and abs(has - want) <= slack,
            "limit",
            subject,
            f"the {controller} limit of its environment is {show(has)} in the kernel and should be {show(want)}",
            f"{remedy}; systemctl set-property and docker update change it behind the runner's back",
        )


def _check_data_root(report: Report, found: Environment, subject: str, config: Mapping[str, Any]) -> None:
    """The inner data root is a mount of the runner's own folder."""
    mode, name = config.get("mode") or {}, str(config["name"])
    target = str(mode.get("inner_data_root") or "/var/lib/docker")
    directory = str(config["directory"])
    identity = found.labels.get("matryoshka.environment", "")
    wanted = posixpath.join(directory, "data" if config.get("cache") == "persistent" else f"data-{identity}")
    source = next(
        (
            str(one.get("Source"))
            for one in found.inspect.get("Mounts") or []
            if one.get("Destination") == target
        ),
        None,
    )
    report.check(
        source == wanted,
        "data_root",
        subject,
        f"its inner data root {target} lies "
        + (f"in {source}" if source else "in the container's own overlay, on no volume")
        + f", and should be {wanted}",
        restart(name),
    )
    mount = MountTable.parse(found.mountinfo).of(target) if found.mountinfo else None
    report.check(
        mount is None or source is None or mount.mount_point == target,
        "data_root",
        subject,
        f"nothing is mounted on {target} inside its environment any more",
        restart(name),
    )


def _check_inner_engine(
    report: Report, seen: Observed, found: Environment, subject: str, config: Mapping[str, Any]
) -> None:
    if not (config.get("mode") or {}).get("inner_engine"):
        return
    again, engine = restart(str(config["name"])), found.engine
    if not report.check(
        engine.error is None,
        "inner_engine_dead",
        subject,
        f"the inner engine of {found.name} doesn't answer: {engine.error}",
        f"docker logs --tail 30 {found.name}; {again}",
    ):
        return
    wanted = {key: value for key, value in (config.get("inner_daemon") or {}).items() if value is not None}
    if (found.state.get("Health") or {}).get("Status") == "unhealthy":
        report.note(
            "environment_unhealthy",
            subject,
            f"the health check of {found.name} failed lately, although its inner engine answers now",
            f"docker inspect --format '{{{{json .State.Health}}}}' {found.name}",
        )
    check_daemon(report, engine, wanted, f"{subject}, inner engine", again)
    if found.storage:
        check_storage(report, found.storage, f"{subject}, inner engine")
    check_bridge(report, engine, found.net, f"{subject}, inner engine", again)
    check_mtu(report, engine, found.net, f"{subject}, inner engine", "runner_mtu")
    check_backends(report, found, seen, subject, again)
    if not found.net.firewall.other:
        check_firewall(report, engine, found.net, wanted, f"{subject}, inner engine", again)
    report.check(
        found.net.forwarding is not False,
        "ip_forward",
        f"{subject}, inner engine",
        "net.ipv4.ip_forward is 0 inside its environment: nested containers reach nothing",
        again,
    )
