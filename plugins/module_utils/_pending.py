# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What calls of several modules would change, found out in one process on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.matryoshka.host.plugins.module_utils import (
    _config_files,
    _daemon_config_apply,
    _environment_image_build,
    _kernel_settings,
    _limits_apply,
    _netfilter,
    _netfilter_apply,
    _storage_volume,
    _systemd_apply,
    _verify,
)
from ansible_collections.matryoshka.host.plugins.module_utils._command import Piper, Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import ask as ask_engine

COLLECTION = "matryoshka.host."


@dataclass(frozen=True)
class Kind:
    """A module that can be asked: its arguments, and what it would answer in check mode."""

    arguments: dict[str, Any]
    answer: Callable[[Mapping[str, Any]], dict[str, Any]]
    required_if: Sequence[tuple[str, str, list[str]]] = ()


def kinds(run: Runner, pipe: Piper) -> dict[str, Kind]:
    """The modules that can be asked, by name."""
    return {
        "config_files": Kind(
            _config_files.ARGUMENTS,
            lambda params: _config_files.answer(params, check=True, lenient=False),
        ),
        "daemon_config": Kind(
            _daemon_config_apply.ARGUMENTS,
            lambda params: _daemon_config_apply.answer(params, True, run),
        ),
        "environment_image": Kind(
            _environment_image_build.ARGUMENTS,
            lambda params: _environment_image_build.apply(params, True, run, pipe),
            _environment_image_build.REQUIRED_IF,
        ),
        "kernel_settings": Kind(
            _kernel_settings.ARGUMENTS,
            lambda params: _kernel_settings.answer(params, True, run),
        ),
        "netfilter_rules": Kind(
            _netfilter.ARGUMENTS,
            lambda params: _netfilter_apply.answer(params, True, run),
        ),
        "slice_limits": Kind(
            _limits_apply.ARGUMENTS,
            lambda params: _limits_apply.answer(params, True, run),
        ),
        "storage_volume_info": Kind(
            _storage_volume.ARGUMENTS,
            lambda params: as_planned(_storage_volume.answer(params, run)),
        ),
        "systemd_units": Kind(
            _systemd_apply.ARGUMENTS,
            lambda params: _systemd_apply.answer(params, True, run),
        ),
        "verify": Kind(
            _verify.ARGUMENTS,
            lambda params: healthy(_verify.answer({**params, "wait": 0.0}, False, run, ask_engine)),
        ),
    }


def secrets(calls: Sequence[Mapping[str, Any]]) -> set[str]:
    """The texts in ``calls`` that must not be shown anywhere."""
    return {
        secret
        for call in calls
        if call["module"].removeprefix(COLLECTION) == "config_files"
        for secret in _config_files.secrets({"files": [], **call["arguments"]})
    }


def as_planned(result: dict[str, Any]) -> dict[str, Any]:
    """What ``storage_volume_info`` says of a host on which nothing is lacking.

    :raises HostError: something is, or the plan is refused.
    """
    for told in (*result["refusals"], *result["lacking"]):
        raise HostError(told)
    return {"changed": False, **result}


def healthy(result: dict[str, Any]) -> dict[str, Any]:
    """What ``verify`` says of a host that it has nothing against.

    :raises HostError: it has.
    """
    if not result["passed"]:
        finding = result["findings"][0]
        raise HostError(f"{finding['subject']}: {finding['text']}")
    return {"changed": False, **result}


def ask(
    calls: Sequence[Mapping[str, Any]], run: Runner, pipe: Piper
) -> tuple[list[dict[str, Any]], str | None]:
    """What each call would answer in check mode, up to the first that would change something or fail.

    :param calls: mappings with ``module`` and ``arguments``.
    :returns: the answers, and what is pending, if anything is.
    :raises InputError: a module that can't be asked.
    """
    known = kinds(run, pipe)
    names = [call["module"].removeprefix(COLLECTION) for call in calls]
    for index, name in enumerate(names):
        if name not in known:
            raise InputError(f"calls[{index}].module", name, f"one of {', '.join(sorted(known))}")
    results = []
    for name, call in zip(names, calls, strict=True):
        try:
            results.append(_answer(known[name], call["arguments"]))
        except HostError as error:
            return results, f"{name}: {error}"
        if results[-1]["changed"]:
            return results, f"{name}: would change"
    return results, None


def _answer(kind: Kind, arguments: Mapping[str, Any]) -> dict[str, Any]:
    checked = ArgumentSpecValidator(kind.arguments, required_if=kind.required_if).validate(dict(arguments))
    if checked.error_messages:
        raise HostError("; ".join(checked.error_messages))
    return kind.answer(checked.validated_parameters)
