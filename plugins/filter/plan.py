# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters: from what a person wrote to a plan, refused before a host is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.matryoshka.host.plugins.module_utils import _packages, _runner_files
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_config import check_daemon_config
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._networks import daemon_ranges
from ansible_collections.matryoshka.host.plugins.module_utils._prune import prune_options
from ansible_collections.matryoshka.host.plugins.module_utils._runner_plan import plan_runners
from ansible_collections.matryoshka.host.plugins.module_utils._verdict import preflight_verdict

_OPTIONS = {
    "data-root": "docker_data_root",
    "bip": "docker_bip",
    "default-address-pools": "docker_address_pools",
    "log-driver": "docker_log_driver",
    "log-opts": "docker_log_options",
    "live-restore": "docker_live_restore",
    "builder.gc.defaultKeepStorage": "docker_build_cache_limit",
}


def _by_option(message: str, own: Mapping[str, Any]) -> str:
    """The message with the name of the option that a person set, where it wasn't docker_daemon."""
    for key, option in _OPTIONS.items():
        if key.partition(".")[0] not in own:
            message = message.replace(f"docker_daemon.{key}", option)
    return message


def plan_daemon(
    base: Mapping[str, Any],
    own: Mapping[str, Any],
    absent: Sequence[str] = (),
    drop_ins: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The engine's configuration: ``base`` (from options of the role) with ``own`` (docker_daemon) over it.

    :param drop_ins: those of docker.service. On a host without Docker nothing else can tell its command line.
    """
    try:
        if not isinstance(own, Mapping):
            raise InputError("docker_daemon", own, "a mapping of dockerd's options")
        for key, option in (("data-root", "docker_data_root"), ("bip", "docker_bip")):
            if key in own:
                raise InputError(f"docker_daemon.{key}", own[key], f"nothing here: set {option}")
        if "hosts" in own and not any("ExecStart=" in str(one.get("content")) for one in drop_ins):
            allowed = (
                "nothing unless docker_drop_ins replaces ExecStart: docker.service starts dockerd with -H fd://, "
                "and dockerd refuses to start with both"
            )
            raise InputError("docker_daemon.hosts", own["hosts"], allowed)
        wanted = {key: value for key, value in {**base, **own}.items() if key not in absent}
        wrong = check_daemon_config(wanted, "docker_daemon", partial=True)
        if wrong:
            raise HostError("\n".join(_by_option(message, own) for message in wrong))
    except HostError as error:
        raise AnsibleFilterError(str(error)) from error
    return wanted


def plan_runners_filter(
    runners: Sequence[Mapping[str, Any]],
    defaults: Mapping[str, Any],
    images: Mapping[str, str],
    outer: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The plan of every runner; ``outer`` is the configuration of the host's engine."""
    try:
        return plan_runners(runners, defaults, images, daemon_ranges(outer or {}, "docker_daemon"))
    except HostError as error:
        raise AnsibleFilterError(str(error)) from error


def prune_options_filter(options: Mapping[str, Any]) -> str:
    """Arguments of the host's program for pruning."""
    try:
        return prune_options(options)
    except HostError as error:
        raise AnsibleFilterError(str(error)) from error


def preflight_verdict_filter(facts: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """What a host can carry of a plan."""
    try:
        verdict = preflight_verdict(facts, **plan)
        # Only docker_bip can set it.
        verdict["refusals"] = [
            text.replace("docker_daemon.bip", "docker_bip") for text in verdict["refusals"]
        ]
        return verdict
    except HostError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters of the collection that plan and refuse."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "plan_daemon": plan_daemon,
            "plan_runners": plan_runners_filter,
            "preflight_verdict": preflight_verdict_filter,
            "prune_options": prune_options_filter,
            "packages_to_install": _packages.packages_to_install,
            "holds_to_change": _packages.holds_to_change,
            "merge_ask": _packages.merge_ask,
            "installed_files": _runner_files.installed_files,
            "runner_files": _runner_files.runner_files,
            "runner_directories": _runner_files.runner_directories,
            "runner_triggers": _runner_files.runner_triggers,
            "file_digests": _runner_files.file_digests,
        }
