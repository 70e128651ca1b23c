# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a configuration into daemon.json on a host: read, plan, check, then write or stop."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _daemon_config as daemon
from ansible_collections.matryoshka.host.plugins.module_utils import _files
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result, Runner
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_config_clashes import Surroundings
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_config_unit import (
    CommandLine,
    read_command_line,
)
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_config_values import Path, dotted
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_options import Version
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError

TLS_FILES = ("tlscacert", "tlscert", "tlskey")


ARGUMENTS: dict[str, Any] = {
    "path": {"type": "path", "default": "/etc/docker/daemon.json"},
    "config": {"type": "dict", "default": {}},
    "absent": {"type": "list", "elements": "str", "default": []},
    "unit": {"type": "str", "default": "docker.service"},
    "privileged_containers": {"type": "bool", "default": True},
    "backup": {"type": "bool", "default": True},
    "validate": {"type": "bool", "default": True},
    "mode": {"type": "str"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
}


@dataclass(frozen=True)
class Request:
    """The module's parameters, as documented there."""

    path: str
    config: Mapping[str, Any]
    absent: Sequence[str] = ()
    unit: str = "docker.service"
    privileged: bool = True
    backup: bool = True
    validate: bool = True
    mode: str | None = None
    owner: str | None = None
    group: str | None = None


def answer(params: Mapping[str, Any], check: bool, run: Runner) -> dict[str, Any]:
    """The result of module ``daemon_config`` for its parameters (:data:`ARGUMENTS`), with ``warnings``."""
    parameters = dict(params)
    return apply(Request(privileged=parameters.pop("privileged_containers"), **parameters), run, check)


def apply(request: Request, runner: Runner, check_mode: bool = False) -> dict[str, Any]:
    """Do it, or in check mode only say what would be done. Returns the module's result.

    :raises HostError: something is wrong; the file is untouched then.
    """
    path = _files.real_path("path", request.path)
    wanted = _attributes(request, check_mode)
    data = _files.read_bytes(path)
    before = None if data is None else daemon.parse(_decoded(data, request.path), request.path)
    plan = daemon.plan(before, request.config, request.absent)
    line = read_command_line(request.unit, runner) if request.unit else CommandLine("")
    _same_file(request, path, line)
    version = _version(runner) if plan.changed else None
    _check(request, plan, line, version)
    if not check_mode:
        _tls_files(plan.after, request)
    wanted = _guarded(wanted, plan.after)

    present = _files.attributes_of(path)
    moved = _files.differing(present, wanted) if present else _files.Attributes()
    attributes_changed = moved != _files.Attributes()
    text = daemon.render(plan.after)
    result: dict[str, Any] = {
        "changed": plan.changed or attributes_changed,
        "path": request.path,
        "config": daemon.masked(plan.after),
        "changed_keys": plan.restart_keys + plan.reload_keys,
        "restart_keys": plan.restart_keys,
        "reload_keys": plan.reload_keys,
        "restart_required": bool(plan.restart_keys),
        "live_reload": bool(plan.reload_keys) and not plan.restart_keys,
        "foreign_keys": [key for key in plan.after if key not in request.config],
        "warnings": [f"{request.path}: {warning}" for warning in plan.warnings],
        "diff": [_difference(request, plan)] if plan.changed else [],
    }
    if attributes_changed and present:
        before_and_after = _files.describe(present), _files.describe(present, wanted)
        result["diff"].append(_files.difference(f"{request.path} (attributes)", *before_and_after))
    if plan.changed and request.validate:
        _validate(text, request, runner)
    if check_mode or not result["changed"]:
        return result
    if plan.changed:
        if data is not None and request.backup:
            result["backup_file"] = _files.backup(path)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        _files.write_atomic(path, text.encode(), wanted)
    else:
        _files.set_attributes(path, moved)
    return result


def engine_version(text: str) -> Version | None:
    """The release out of ``dockerd --version``: ``(26, 1)``; None if it says something else."""
    found = re.search(r"\b(\d+)\.(\d+)\.\d+", text)
    return (int(found[1]), int(found[2])) if found else None


def _version(runner: Runner) -> Version | None:
    answer = runner(["dockerd", "--version"], check=False, timeout=20.0)
    return engine_version(answer.out) if answer.ok else None


def _check(request: Request, plan: daemon.Plan, line: CommandLine, version: Version | None) -> None:
    foreign = {key for key in plan.after if key not in request.config}

    def name(place: Path) -> str:
        inside: Any = request.config
        for part in place:
            if not isinstance(inside, Mapping):
                break
            if part not in inside:
                return f"{request.path}: {dotted(place)}"
            inside = inside[part]
        return f"config.{dotted(place)}"

    daemon.require(plan.after, name, Surroundings(request.privileged, version), foreign, line)


def _same_file(request: Request, path: str, line: CommandLine) -> None:
    given = line.flags.get("config-file")
    if given and os.path.realpath(given[-1]) != os.path.realpath(path):
        raise InputError("path", request.path, f"{given[-1]}, the file that {line.unit} starts dockerd with")


def _tls_files(config: Mapping[str, Any], request: Request) -> None:
    for key in TLS_FILES:
        if key in config and not os.path.isfile(config[key]):
            place = f"config.{key}" if key in request.config else f"{request.path}: {key}"
            raise InputError(place, config[key], "a file that is there")


def _attributes(request: Request, lenient: bool) -> _files.Attributes:
    mode = None if request.mode is None else _files.parse_mode("mode", request.mode)
    return _files.Attributes(
        mode,
        _files.user_id("owner", request.owner, lenient),
        _files.group_id("group", request.group, lenient),
    )


def _guarded(wanted: _files.Attributes, config: Mapping[str, Any]) -> _files.Attributes:
    """A file with passwords or tokens is readable by its owner only, unless a mode was given."""
    if wanted.mode is None and not daemon.same(daemon.masked(config), config):
        return _files.Attributes(0o600, wanted.uid, wanted.gid)
    return wanted


def _difference(request: Request, plan: daemon.Plan) -> dict[str, Any]:
    before = None if plan.before is None else daemon.render(daemon.masked(plan.before))
    return _files.difference(request.path, before, daemon.render(daemon.masked(plan.after)))


def _validate(text: str, request: Request, runner: Runner) -> None:
    """Let dockerd read the file too, where there is one that can; Debian 12's can't."""
    with tempfile.TemporaryDirectory(prefix="daemon-config-") as directory:
        path = os.path.join(directory, "daemon.json")
        _files.write_atomic(path, text.encode(), new_mode=0o600)
        answer = runner(["dockerd", "--validate", "--config-file", path], check=False, timeout=60.0)
    if answer.ok or answer.code == 127 or "unknown flag: --validate" in answer.err:
        return
    raise HostError(f"dockerd refuses the configuration for {request.path}: {_last_line(answer)}")


def _last_line(answer: Result) -> str:
    lines = [line.strip() for line in (answer.err or answer.out).splitlines() if line.strip()]
    text = lines[-1] if lines else f"it ended with {answer.code}"
    return str(daemon.masked(re.sub(r"^.*?with file \S+: ", "", text)))


def _decoded(data: bytes, path: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise HostError(f"{path} byte {error.start + 1}: not UTF-8; fix the file by hand") from None
