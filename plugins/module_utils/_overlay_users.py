# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tries user namespaces on a scratch directory: idmapped mounts, and overlayfs as an ordinary user.

Runs in mount and process namespaces of its own, as root; the current directory is the scratch directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _overlay_kernel as kernel
from ansible_collections.matryoshka.host.plugins.module_utils._overlay_trials import (
    Bench,
    Layers,
    Trial,
    attempt,
    failed_with,
    fuse_overlayfs,
    not_tried,
)

IDMAP_BASE = 100000
IDMAP_SIZE = 65536


def idmapped() -> dict[str, Trial]:
    """``mount``: an idmapped mount of the directory; ``lower``: that as a lower layer of an overlay."""
    layers = Layers("idmapped")
    os.mkdir(layers.path("mapped"))
    target = layers.path("mapped")
    try:
        with _user_namespace([(0, IDMAP_BASE, IDMAP_SIZE)]) as namespace:
            mounted = attempt(lambda: _mount_mapped(layers.path("l1"), target, namespace))
    except OSError as error:
        mounted = failed_with(error)
    if not mounted["works"]:
        return {"mount": mounted, "lower": not_tried("not tried, as the directory can't be mounted idmapped")}
    lower = attempt(lambda: _mapped_lower(layers))
    kernel.unmount(target)
    return {"mount": mounted, "lower": lower}


def _mount_mapped(source: str, target: str, namespace: int) -> str | None:
    kernel.mount_idmapped(source, target, namespace)
    owner = os.stat(f"{target}/file").st_uid
    wanted = os.stat(f"{source}/file").st_uid + IDMAP_BASE
    return None if owner == wanted else f"the mount shows the owner {owner} instead of {wanted}"


def _mapped_lower(layers: Layers) -> str | None:
    layers.mount(lowers=("mapped", "l2"), flags=kernel.MS_RDONLY)
    try:
        owner = os.stat(layers.path("m/file")).st_uid
        return None if owner >= IDMAP_BASE else f"the overlay shows the owner {owner}, not the mapped one"
    finally:
        layers.unmount()


@contextlib.contextmanager
def _user_namespace(ids: Sequence[tuple[int, int, int]]) -> Iterator[int]:
    """A descriptor of a new user namespace with these maps (inside, outside, count)."""
    with _child(_enter_user_namespace) as (outer, child):
        write_maps(outer, ids, ids)
        namespace = os.open(f"/proc/{outer}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield namespace
        finally:
            os.close(namespace)
            os.kill(child, signal.SIGKILL)


def _enter_user_namespace() -> None:
    kernel.unshare(kernel.CLONE_NEWUSER)


@contextlib.contextmanager
def _child(enter: Callable[[], None]) -> Iterator[tuple[str, int]]:
    """A process that called ``enter`` and waits: its id in /proc, and its id for this process.

    :raises OSError: that ``enter`` raised.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            enter()
            os.write(writer, b"=" + os.fsencode(os.readlink("/proc/self")))
        except OSError as error:
            os.write(writer, json.dumps([error.errno, error.strerror]).encode())
        os.close(writer)
        signal.pause()
        os._exit(0)
    os.close(writer)
    try:
        answer = _drain(reader)
        if not answer.startswith(b"="):
            raise OSError(*json.loads(answer))
        yield answer[1:].decode(), pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def write_maps(
    process: str, uids: Sequence[tuple[int, int, int]], gids: Sequence[tuple[int, int, int]]
) -> None:
    """Map the ids of a process's new user namespace."""
    for name, ids in (("uid_map", uids), ("gid_map", gids)):
        descriptor = os.open(f"/proc/{process}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, "".join(f"{a} {b} {n}\n" for a, b, n in ids).encode())
        finally:
            os.close(descriptor)


def _drain(descriptor: int) -> bytes:
    """All until the other side is closed; closes this one."""
    told = b""
    while part := os.read(descriptor, 65536):
        told += part
    os.close(descriptor)
    return told


def as_user(account: Mapping[str, Any], parent: str, program: str | None) -> dict[str, Any]:
    """All trials as one user: with a user namespace of its own, its subordinate ids mapped as engines do.

    :param account: ``name``, ``uid``, ``gid``, ``groups``, ``uid_map`` and ``gid_map`` (inside, outside, count).
    :param parent: the directory that was asked for, to see whether the user can write there.
    :param program: the path of fuse-overlayfs.
    """
    directory = f"user-{account['uid']}"
    os.mkdir(directory, 0o700)
    os.chown(directory, account["uid"], account["gid"])
    ready_reader, ready_writer = os.pipe()
    mapped_reader, mapped_writer = os.pipe()
    result_reader, result_writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        for descriptor in (ready_reader, mapped_writer, result_reader):
            os.close(descriptor)
        _be_user(account, directory, parent, program, (ready_writer, mapped_reader, result_writer))
    for descriptor in (ready_writer, mapped_reader, result_writer):
        os.close(descriptor)
    process = _drain(ready_reader).decode()
    mapping = (
        attempt(lambda: write_maps(process, account["uid_map"], account["gid_map"])) if process else None
    )
    os.write(mapped_writer, b"!" if mapping is None or mapping["works"] else b"?")
    os.close(mapped_writer)
    told = _drain(result_reader)
    os.waitpid(pid, 0)
    found: dict[str, Any] = json.loads(told) if told else {"user_namespace": not_tried("the trial broke off")}
    if mapping and not mapping["works"]:
        found["user_namespace"] = mapping
    return found


def _be_user(
    account: Mapping[str, Any],
    directory: str,
    parent: str,
    program: str | None,
    pipes: tuple[int, int, int],
) -> None:
    ready, mapped, result = pipes
    found: dict[str, Any] = {}
    try:
        os.chdir(directory)
        os.setgroups(account["groups"])
        os.setresgid(account["gid"], account["gid"], account["gid"])
        os.setresuid(account["uid"], account["uid"], account["uid"])
        kernel.stay_dumpable()
        found["writable"] = os.access(parent, os.W_OK | os.X_OK)
        entered = attempt(lambda: kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS))
        found["user_namespace"] = entered
        if entered["works"]:
            os.write(ready, os.fsencode(os.readlink("/proc/self")))
        os.close(ready)
        if entered["works"] and os.read(mapped, 1) == b"!":
            found |= _inside(program)
    except OSError as error:
        found["user_namespace"] = failed_with(error)
    os.write(result, json.dumps(found).encode())
    os._exit(0)


def _inside(program: str | None) -> dict[str, Any]:
    """As root of the user namespace."""
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    private = attempt(lambda: kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE))
    if not private["works"]:
        return {"user_namespace": private}
    plain = attempt(lambda: _plain(Layers("plain")))
    found: dict[str, Any] = {"without_userxattr": plain, "userxattr": Bench(user=True).run()}
    if program:
        found["fuse_overlayfs"] = attempt(lambda: fuse_overlayfs(program, Layers("fuse")))
    return found


def _plain(layers: Layers) -> None:
    layers.mount(flags=kernel.MS_RDONLY)
    layers.unmount()
