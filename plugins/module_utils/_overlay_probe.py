# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes overlayfs at paths: what runs on the host in a Python of its own.

Four processes stand for one another, so that nothing is left whoever is killed or hangs. This one waits for
another that makes and removes the scratch directory. The trials run below that in namespaces of their own and
die with it. A guard outlives all.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _overlay_kernel as kernel
from ansible_collections.matryoshka.host.plugins.module_utils._overlay_scratch import Guard, Scratch, sweep
from ansible_collections.matryoshka.host.plugins.module_utils._overlay_trials import (
    Bench,
    Layers,
    attempt,
    failed_with,
    fuse_overlayfs,
)
from ansible_collections.matryoshka.host.plugins.module_utils._overlay_users import as_user, idmapped


def main(request: Mapping[str, Any]) -> None:
    """Print what was found for each path of the request as a JSON object."""
    os.umask(0o022)
    guard = Guard()
    found = {path: probe(parent, request, guard) for path, parent in request["parents"].items()}
    guard.end()
    json.dump(found, sys.stdout)


def probe(parent: str, request: Mapping[str, Any], guard: Guard) -> dict[str, Any]:
    """What overlayfs does in the directory ``parent``; ``failed`` says at which step nothing more was tried."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            kernel.die_with_parent(signal.SIGKILL)
            _on_scratch(parent, request, guard, writer)
        finally:
            os._exit(1)
    os.close(writer)
    timeout = float(request["timeout"])
    told = _until(reader, timeout)
    os.kill(pid, signal.SIGKILL)
    if told is None:
        _reap(pid)
        return {"failed": "timeout", "works": False, "errno": None, "error": f"no end within {timeout:g} s"}
    os.waitpid(pid, 0)
    found: dict[str, Any] = {}
    for line in told.splitlines():
        found |= json.loads(line)
    if "failed" not in found and "users" not in found:
        return {"failed": "trials", "works": False, "errno": None, "error": "the trials broke off"}
    return found


def _until(reader: int, timeout: float) -> bytes | None:
    """What comes out of the pipe until its end; None if that isn't reached in time."""
    deadline = time.monotonic() + timeout
    told = b""
    try:
        while True:
            ready = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]
            if not ready:
                return None
            part = os.read(reader, 65536)
            if not part:
                return told
            told += part
    finally:
        os.close(reader)


def _reap(pid: int, patience: float = 1.0) -> None:
    """Wait for a killed process that may hang in the kernel."""
    deadline = time.monotonic() + patience
    while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)


def _tell(writer: int, part: Mapping[str, Any]) -> None:
    os.write(writer, json.dumps(part).encode() + b"\n")


def _on_scratch(parent: str, request: Mapping[str, Any], guard: Guard, writer: int) -> None:
    """Make a scratch directory, have the trials run there by a process in namespaces of its own, remove it."""
    _tell(writer, {"swept": sweep(parent)})
    try:
        scratch = Scratch(parent, guard)
    except OSError as error:
        _tell(writer, {"failed": "scratch", **failed_with(error)})
        return
    try:
        kernel.unshare(kernel.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            try:
                kernel.die_with_parent(signal.SIGKILL)
                _apart(scratch.path, parent, request, writer)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
    except OSError as error:
        _tell(writer, {"failed": "namespace", **failed_with(error)})
    finally:
        scratch.remove()


def _apart(path: str, parent: str, request: Mapping[str, Any], writer: int) -> None:
    try:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    except OSError as error:
        _tell(writer, {"failed": "namespace", **failed_with(error)})
        return
    try:
        os.chdir(path)
        for part in _trials(parent, request["users"], request["fuse_overlayfs"]):
            _tell(writer, part)
    except OSError as error:
        _tell(writer, {"failed": "trials", **failed_with(error)})


def _trials(parent: str, users: Sequence[Mapping[str, Any]], program: str | None) -> Iterator[dict[str, Any]]:
    yield {"native": Bench().run()}
    yield {"idmapped": idmapped()}
    if program:
        yield {"fuse_overlayfs": attempt(lambda: fuse_overlayfs(program, Layers("fuse")))}
    yield {"users": {account["name"]: as_user(account, parent, program) for account in users}}
