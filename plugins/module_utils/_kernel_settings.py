# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel modules and sysctls: written for the next boot, and so now.

Source of facts: sysctl.d(5), modules-load.d(5), proc_sys(5). Values are read and written
below ``/proc/sys``; modprobe is the only program.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _config_files
from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._host_system import module_state

ARGUMENTS: dict[str, Any] = {
    "owner": {"type": "str", "required": True},
    "modules": {"type": "list", "elements": "str", "default": []},
    "sysctls": {"type": "dict", "default": {}},
}

_OWNER = re.compile(r"^[a-z][a-z0-9-]{0,30}$")
_MODULE = re.compile(r"^[A-Za-z0-9_-]+$")
_SYSCTL = re.compile(r"^[a-z0-9_]+(?:[./][A-Za-z0-9_*-]+(?:/[0-9]+)?)+$")
_SWITCHES = {"br_netfilter": "/proc/sys/net/bridge", "overlay": "/sys/module/overlay"}
"""What tells that a module's code runs where the kernel lists none of its own modules."""


def answer(params: Mapping[str, Any], check: bool, run: Runner, view: View | None = None) -> dict[str, Any]:
    """The result of module ``kernel_settings`` for its parameters (:data:`ARGUMENTS`).

    :param check: change nothing.
    :raises InputError: a name that can't be one, or a value that isn't one line.
    :raises HostError: a module that can't be loaded, or a setting that the kernel hasn't or refuses.
    """
    view = view or View()
    owner, modules, sysctls = check_settings(params)
    files = _config_files.plan(_config_files.parse(_files(owner, modules, sysctls, view)))
    loading = [name for name in modules if not _loaded(name, view)]
    if not check:
        for name in loading:
            _load(name, run)
    differing = _differing(sysctls, view, lenient=bool(check and loading))
    diff = [*files.diff]
    if loading or differing:
        before = "".join(f"{key} = {present}\n" for key, (present, _wanted) in sorted(differing.items()))
        after = "".join(f"{key} = {wanted}\n" for key, (_present, wanted) in sorted(differing.items()))
        loaded = "".join(f"module {name} loaded\n" for name in loading)
        diff.append(
            {"before_header": "kernel", "after_header": "kernel", "before": before, "after": loaded + after}
        )
    if not check:
        for key, (_present, wanted) in differing.items():
            _write(key, wanted, view)
        _config_files.apply(files)
    return {
        "changed": files.changed or bool(loading) or bool(differing),
        "loaded_modules": loading,
        "changed_sysctls": sorted(differing),
        "changed_files": [*(item.path for item in files.files), *files.removed],
        "diff": diff,
    }


def paths(owner: str) -> tuple[str, str]:
    """The files of an owner's settings: sysctls, modules."""
    return f"/etc/sysctl.d/60-{owner}.conf", f"/etc/modules-load.d/{owner}.conf"


def check_settings(params: Mapping[str, Any]) -> tuple[str, list[str], dict[str, str]]:
    """The module's parameters as owner, modules and settings.

    :raises InputError: a name that can't be one, or a value that isn't one line.
    """
    owner = str(params["owner"])
    if not _OWNER.match(owner):
        raise InputError("owner", owner, "lowercase letters, digits and hyphens, a letter first")
    modules = list(dict.fromkeys(str(name).replace("-", "_") for name in params.get("modules") or ()))
    for index, name in enumerate(modules):
        if not _MODULE.match(name):
            raise InputError(f"modules[{index}]", name, "the name of a kernel module, such as br_netfilter")
    sysctls = {}
    for key, value in (params.get("sysctls") or {}).items():
        if not isinstance(key, str) or not _SYSCTL.match(key) or "*" in key:
            raise InputError("sysctls", key, "names of kernel settings, such as net.ipv4.ip_forward")
        if isinstance(value, (list, dict)) or value is None or "\n" in str(value) or not str(value).strip():
            raise InputError(f"sysctls.{key}", value, "a number or a text of one line")
        sysctls[key] = str(int(value)) if isinstance(value, bool) else str(value)
    return owner, modules, sysctls


def _files(owner: str, modules: Sequence[str], sysctls: Mapping[str, str], view: View) -> dict[str, Any]:
    head = f"# Managed by matryoshka.host: {owner}\n"
    settings, loaded = (view.path(path) for path in paths(owner))
    texts = {
        settings: "".join(f"{key} = {value}\n" for key, value in sorted(sysctls.items())),
        loaded: "".join(f"{name}\n" for name in modules),
    }
    return {
        "files": [
            {"path": path, "content": head + text, "mode": "0644"} for path, text in texts.items() if text
        ],
        "absent": [path for path, text in texts.items() if not text],
    }


def _loaded(name: str, view: View) -> bool:
    if name in _SWITCHES and view.exists(_SWITCHES[name]):
        return True
    return module_state(name, view, os.uname().release) == "present"


def _load(name: str, run: Runner) -> None:
    done = run(["modprobe", "--", name], check=False, timeout=30.0)
    if not done.ok:
        said = (done.err or done.out).strip() or f"modprobe ended with {done.code}"
        raise HostError(f"the kernel module {name} can't be loaded: {said}")


def _place(key: str) -> str:
    """Where a setting lies below ``/proc/sys``; which of ``.`` and ``/`` comes first separates (sysctl.d(5))."""
    first = re.search(r"[./]", key)
    swapped = str.maketrans("./", "/.")
    return "/proc/sys/" + (key if first and first[0] == "/" else key.translate(swapped))


def _differing(sysctls: Mapping[str, str], view: View, lenient: bool) -> dict[str, tuple[str, str]]:
    """The settings whose live value is another one: present and wanted.

    :param lenient: a setting that isn't there may come with a module that isn't loaded yet.
    """
    found = {}
    for key, wanted in sysctls.items():
        text = view.text(_place(key))
        if text is None and not lenient:
            raise HostError(f"sysctls.{key}: this kernel has no such setting ({_place(key)} isn't there)")
        present = "absent" if text is None else text.strip()
        if present.split() != wanted.split():
            found[key] = (present, wanted)
    return found


def _write(key: str, value: str, view: View) -> None:
    try:
        with open(view.path(_place(key)), "w", encoding="utf-8") as file:
            file.write(value)
    except OSError as error:
        raise HostError(f"sysctls.{key}: the kernel refuses {value!r}: {error.strerror}") from error
