# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the probe of overlayfs in a Python of its own.

The probe forks and changes namespaces, which a process with threads and with Ansible in it shouldn't.
Its source goes in through standard input, so nothing is written to the host.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError

# Imported so that Ansible ships them with a module.
from ansible_collections.matryoshka.host.plugins.module_utils import (  # isort: skip
    _overlay_kernel,
    _overlay_probe,
    _overlay_scratch,
    _overlay_trials,
    _overlay_users,
)

PARTS = (_overlay_kernel, _overlay_scratch, _overlay_trials, _overlay_users, _overlay_probe)
"""The probe's modules, each after those that it imports."""

_START = """\
import sys, types
for name, source in {sources!r}:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
    setattr(sys.modules.setdefault({package!r}, types.ModuleType({package!r})), name.rpartition(".")[2], module)
module.main({request!r})
"""


def program(request: Mapping[str, Any]) -> str:
    """The probe with its request as one Python program."""
    sources = [(part.__name__, _source(part.__name__)) for part in PARTS]
    package = _overlay_probe.__name__.rpartition(".")[0]
    return _START.format(sources=sources, package=package, request=dict(request))


def _source(name: str) -> str:
    module = import_module(name)
    loader = module.__spec__.loader if module.__spec__ else None
    text = loader.get_source(name) if loader is not None and hasattr(loader, "get_source") else None
    if text is None:
        raise HostError(f"the source of {name} can't be read, so overlayfs can't be probed")
    return str(text)


def run_probe(
    run: Runner,
    parents: Mapping[str, str],
    users: Sequence[Mapping[str, Any]] = (),
    fuse_overlayfs: str | None = None,
    timeout: float = 20.0,
) -> dict[str, dict[str, Any]]:
    """What the probe finds for each path in the existing directory that ``parents`` names for it.

    :param users: see ``_overlay_users.as_user``.
    :param fuse_overlayfs: the path of that program.
    :param timeout: seconds for one path.
    :raises HostError: if the probe can't be started or breaks off.
    """
    if not parents:
        return {}
    request = {
        "parents": dict(parents),
        "users": [dict(user) for user in users],
        "fuse_overlayfs": fuse_overlayfs,
        "timeout": timeout,
    }
    result = run(
        [sys.executable, "-I", "-B", "-"],
        stdin=program(request),
        check=False,
        timeout=timeout * len(parents) + 30.0,
    )
    if not result.ok:
        said = result.err.strip().splitlines()
        raise HostError(
            f"the probe of overlayfs ended with {result.code}: {said[-1] if said else 'no output'}"
        )
    found: dict[str, dict[str, Any]] = json.loads(result.out)
    return found
