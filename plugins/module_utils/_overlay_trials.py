# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tries what overlayfs does in the current directory, as root or as root of a user namespace.

Runs in a mount namespace of its own, on a scratch directory. Mounts are volatile where the kernel can do
that, so that taking them off doesn't flush the file system under test.

Sources: Documentation/filesystems/overlayfs.rst of Linux; ``daemon/graphdriver/overlay2/check.go`` and
``overlayutils`` of moby; ``drivers/overlay/check.go`` and ``overlay.go`` of containers/storage.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _overlay_kernel as kernel

Trial = dict[str, Any]
"""``works``; else ``errno`` (a name, None if the kernel reported nothing) and ``error``."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NEEDS_MOUNT = "not tried, as overlay can't be mounted here"


def attempt(action: Callable[[], str | None]) -> Trial:
    """Whether ``action`` works: it raises OSError, or says what isn't as it should be, or says nothing.

    :raises OSError: if there is no room for the trial, which says nothing about overlayfs.
    """
    try:
        wrong = action()
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        return failed_with(error)
    return {"works": wrong is None, "errno": None, "error": wrong}


def failed_with(error: OSError) -> Trial:
    text = error.strerror or str(error)
    return {"works": False, "errno": kernel.errno_name(error.errno), "error": text}


def not_tried(why: str) -> Trial:
    return {"works": False, "errno": None, "error": why}


LOWER = "lower"
"""Where the lower layers of all overlays in a directory are; no trial changes them."""


def make_lowers(root: str = LOWER) -> None:
    """Two lower layers with content, unless they are there."""
    if os.path.isdir(root):
        return
    for name in ("l1/listed", "l1/moved", "l1/shadowed", "l2/hidden"):
        os.makedirs(os.path.join(root, name), 0o755)
    for name in ("l1/file", "l1/gone", "l1/chmodded", "l1/listed/old", "l1/moved/inner", "l1/shadowed/x"):
        write(os.path.join(root, name), name)
    write(os.path.join(root, "l2/second"), "l2/second")


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


class Layers:
    """One overlay: lower layers ``l1`` and ``l2`` below ``lower``; upper, work and merged below ``base``."""

    def __init__(self, base: str, lower: str = LOWER) -> None:
        self.base = base
        self.lower = lower
        make_lowers(lower)
        for name in ("u", "w", "m"):
            os.makedirs(os.path.join(base, name), 0o755)

    def path(self, name: str) -> str:
        return os.path.join(self.lower if name.startswith("l") else self.base, name)

    def read(self, name: str) -> str:
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def options(self, *more: str, lowers: tuple[str, ...] = ("l2", "l1")) -> str:
        lower = ":".join(self.path(name) for name in lowers)
        layers = (f"lowerdir={lower}", f"upperdir={self.path('u')}", f"workdir={self.path('w')}")
        return ",".join([*layers, *more])

    def mount(self, *more: str, lowers: tuple[str, ...] = ("l2", "l1"), flags: int = 0) -> None:
        kernel.mount("overlay", self.path("m"), "overlay", flags, self.options(*more, lowers=lowers))

    def unmount(self) -> None:
        kernel.unmount(self.path("m"))


class Bench:
    """Trials in the current directory. ``user`` tries them with ``userxattr``, as without root."""

    def __init__(self, user: bool = False) -> None:
        self.base_options: tuple[str, ...] = ("userxattr",) if user else ()
        self.space = "user" if user else "trusted"
        self.user = user
        self._made = 0

    def layers(self) -> Layers:
        self._made += 1
        return Layers(f"t{self._made}")

    def _mounting(self, *more: str, lowers: tuple[str, ...] = ("l2", "l1"), flags: int = 0) -> Trial:
        """Mount and unmount with these options."""

        def action() -> None:
            layers = self.layers()
            layers.mount(*more, *self.base_options, lowers=lowers, flags=flags)
            layers.unmount()

        return attempt(action)

    def run(self) -> dict[str, Trial]:
        """All trials by name."""
        read_only = kernel.MS_RDONLY
        found = {
            "d_type": attempt(d_type),
            "trusted_xattr": attempt(lambda: xattr("trusted.overlay.probe")),
            "user_xattr": attempt(lambda: xattr("user.overlay.probe")),
            "mknod_whiteout": attempt(mknod_whiteout),
            "mount": self._mounting(lowers=("l1",), flags=read_only),
            "two_lowers": self._mounting(flags=read_only),
            "volatile": self._mounting("volatile"),
        }
        light = ("volatile",) if found["volatile"]["works"] else ()
        found |= self._on_one_mount(found["two_lowers"]["works"], light)
        for name, action in (
            ("redirect_dir", self._redirect),
            ("metacopy", self._metacopy),
            ("index", self._index),
            ("nested", self._nested),
        ):
            if found["mount"]["works"]:
                found[name] = self._mounted(action, light)
            else:
                found[name] = not_tried(NEEDS_MOUNT)
        return found

    def _mounted(
        self, action: Callable[[Layers, tuple[str, ...]], str | None], light: tuple[str, ...]
    ) -> Trial:
        return attempt(lambda: action(self.layers(), (*light, *self.base_options)))

    def _on_one_mount(self, two_lowers: bool, light: tuple[str, ...]) -> dict[str, Trial]:
        """What engines do all day, on one mount with their own options."""
        actions: dict[str, Callable[[Layers], str | None]] = {
            "copy_up": copy_up,
            "whiteout": self._whiteout,
            "opaque": self._opaque,
            "opaque_kept": self._opaque_kept,
            "rename_dir": rename_dir,
        }
        if not two_lowers:
            return {name: not_tried(NEEDS_MOUNT) for name in actions}
        layers = self.layers()
        marked = attempt(lambda: self._mark_opaque(layers.path("l2/hidden")))
        try:
            layers.mount(*light, *self.base_options)
        except OSError as error:
            text = error.strerror or str(error)
            return {name: not_tried(text) for name in actions}
        found = {name: attempt(partial(action, layers)) for name, action in actions.items()}
        if not marked["works"]:
            found["opaque_kept"] = marked
        layers.unmount()
        return found

    def _mark_opaque(self, path: str) -> None:
        os.setxattr(path, f"{self.space}.overlay.opaque", b"y")

    def _whiteout(self, layers: Layers) -> str | None:
        os.unlink(layers.path("m/gone"))
        if os.path.lexists(layers.path("m/gone")):
            return "a file of a lower layer is still there after it was removed"
        found = os.lstat(layers.path("u/gone"))
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            return None
        if self._attribute(layers.path("u/gone"), "whiteout") is not None:
            return None
        return "removing a file of a lower layer left no whiteout in the upper layer"

    def _opaque(self, layers: Layers) -> str | None:
        shutil.rmtree(layers.path("m/listed"))
        os.mkdir(layers.path("m/listed"))
        if os.listdir(layers.path("m/listed")):
            return "a directory that was removed and made again shows what the lower layer had in it"
        if self._attribute(layers.path("u/listed"), "opaque") != b"y":
            return "a directory that was removed and made again isn't marked as opaque in the upper layer"
        return None

    def _opaque_kept(self, layers: Layers) -> str | None:
        write(layers.path("m/hidden/f"), "")
        if self._attribute(layers.path("u/hidden"), "opaque") == b"y":
            return "the mark of an opaque directory is copied up with it"
        return None

    def _redirect(self, layers: Layers, options: tuple[str, ...]) -> str | None:
        layers.mount("redirect_dir=on", *options)
        try:
            os.rename(layers.path("m/moved"), layers.path("m/there"))
            if layers.read("m/there/inner") != "l1/moved/inner":
                return "a directory that was renamed lost what was in it"
            if self._attribute(layers.path("u/there"), "redirect") is None:
                return "the upper layer doesn't say where a renamed directory came from"
        finally:
            layers.unmount()
        return None

    def _metacopy(self, layers: Layers, options: tuple[str, ...]) -> str | None:
        layers.mount("redirect_dir=on", "metacopy=on", *options)
        try:
            os.chmod(layers.path("m/chmodded"), 0o600)
            if self._attribute(layers.path("u/chmodded"), "metacopy") is None:
                return "a change of mode copied the whole file"
        finally:
            layers.unmount()
        return None

    def _index(self, layers: Layers, options: tuple[str, ...]) -> str | None:
        layers.mount("index=on", *options)
        try:
            if not os.path.isdir(layers.path("w/index")):
                return "the kernel went on without an index: it needs file handles that it can decode"
        finally:
            layers.unmount()
        return None

    def _nested(self, layers: Layers, options: tuple[str, ...]) -> str | None:
        layers.mount(*options)
        try:
            inner = Layers(layers.path("m/inner"), layers.path("m/inner-lower"))
            inner.mount(*options)
            inner.unmount()
        finally:
            layers.unmount()
        return None

    def _attribute(self, path: str, name: str) -> bytes | None:
        try:
            return os.getxattr(path, f"{self.space}.overlay.{name}", follow_symlinks=False)
        except OSError:
            return None


def d_type() -> str | None:
    os.makedirs("types/directory")
    with open("types/file", "w", encoding="utf-8"):
        unknown = [name for name, kind in kernel.entry_types("types").items() if kind == 0]
    return (
        "the file system doesn't tell the type of entries: " + ", ".join(sorted(unknown)) if unknown else None
    )


def xattr(name: str) -> str | None:
    file = name.replace(".", "-")
    with open(file, "w", encoding="utf-8"):
        os.setxattr(file, name, b"y")
    return None if os.getxattr(file, name) == b"y" else "an attribute isn't as it was set"


def mknod_whiteout() -> None:
    os.mknod("whiteout", stat.S_IFCHR | 0o600, os.makedev(0, 0))


def copy_up(layers: Layers) -> str | None:
    if layers.read("m/second") != "l2/second":
        return "the merged directory doesn't show the second lower layer"
    write(layers.path("m/file"), "changed")
    if layers.read("l1/file") != "l1/file":
        return "writing into the merged directory changed the lower layer"
    return None if layers.read("u/file") == "changed" else "a changed file isn't in the upper layer"


def rename_dir(layers: Layers) -> str | None:
    os.rename(layers.path("m/shadowed"), layers.path("m/renamed"))
    if layers.read("m/renamed/x") != "l1/shadowed/x":
        return "a directory that was renamed lost what was in it"
    return None


def fuse_overlayfs(program: str, layers: Layers, patience: float = 5.0) -> str | None:
    """Mount with the program ``fuse-overlayfs``, copy up and remove a file.

    :raises OSError: if ``/dev/fuse`` can't be opened.
    """
    os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    said = layers.path("output")
    pid = os.fork()
    if pid == 0:
        out = os.open(said, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.execv(program, [program, "-o", layers.options(), layers.path("m")])
    deadline = time.monotonic() + patience
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return f"{program} didn't mount within {patience:g} s"
        time.sleep(0.005)
    if os.waitstatus_to_exitcode(status) != 0:
        lines = layers.read("output").strip().splitlines()
        return lines[-1] if lines else f"{program} ended with {os.waitstatus_to_exitcode(status)}"
    try:
        wrong = copy_up(layers)
        if wrong:
            return wrong
        os.unlink(layers.path("m/gone"))
        if os.path.lexists(layers.path("m/gone")):
            return "a file of a lower layer is still there after it was removed"
    finally:
        layers.unmount()
    return None
