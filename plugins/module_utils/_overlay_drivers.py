# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which storage driver an engine takes at a path, and which it should: the engines' own rules on what was tried.

Pure. Sources, each of 2025 or 2026: ``daemon/graphdriver`` of moby (``driver_linux.go`` for the order,
``overlay2/overlay.go``, ``overlayutils``, ``fuse-overlayfs``), ``plugins/snapshots/overlay/overlay.go`` of
containerd, ``drivers/overlay/overlay.go``, ``drivers/driver.go`` and ``types/options.go`` of containers/storage,
``cmd/buildkitd/main_oci_worker.go`` of buildkit. Docker's order before 23: moby pull request 42661.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._modes import Mode
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import NETWORK

Trial = Mapping[str, Any]

DOCKER_ORDER = ("overlay2", "fuse-overlayfs", "btrfs", "zfs", "vfs")
DOCKER_ORDER_BEFORE_23 = ("btrfs", "zfs", "overlay2", "fuse-overlayfs", "vfs")
PODMAN_ORDER = ("overlay", "btrfs", "zfs", "vfs")
_UNKNOWN: Trial = {"works": False, "errno": None, "error": "not tried"}


@dataclass(frozen=True)
class Ground:
    """What the choice of a driver depends on, for root or for one user.

    ``trials`` are those with the mount options that the engine uses, ``plain`` is a mount without
    ``userxattr``; ``failed`` says why nothing could be tried; ``prior`` are drivers with data there;
    ``configured`` is a driver that the engine's configuration names; ``docker`` is Docker's major version,
    None for one of 23 or later.
    """

    filesystem: str | None
    trials: Mapping[str, Trial] = field(default_factory=dict)
    plain: Trial = field(default_factory=lambda: _UNKNOWN)
    fuse: Trial | None = None
    failed: str | None = None
    rootless: bool = False
    selinux: bool = False
    kernel: tuple[int, int] = (0, 0)
    prior: tuple[str, ...] = ()
    configured: str | None = None
    docker: int | None = None

    @property
    def docker_order(self) -> tuple[str, ...]:
        """The order in which dockerd tries graph drivers."""
        return DOCKER_ORDER_BEFORE_23 if self.docker is not None and self.docker < 23 else DOCKER_ORDER

    def trial(self, name: str) -> Trial:
        return self.trials.get(name, _UNKNOWN)

    def works(self, *names: str) -> bool:
        return all(self.trial(name)["works"] for name in names)


@dataclass(frozen=True)
class Choice:
    """``will_get`` None: the engine doesn't start. ``good``: it works, and is what it should be."""

    engine: str
    will_get: str | None
    should_get: str
    why: str
    works: bool = True
    mount_program: bool = False

    @property
    def good(self) -> bool:
        return self.works and not self.mount_program and self.will_get == self.should_get

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "good": self.good}


def said(trial: Trial) -> str:
    """``EINVAL (…)``, for a sentence."""
    error = trial["error"] or "no reason given"
    return f"{trial['errno']} ({error})" if trial["errno"] else str(error)


def choose_docker(ground: Ground) -> Choice:
    """The graph driver that dockerd picks if none is configured; rootless if the ground is a user's."""
    engine = "rootless_docker" if ground.rootless else "docker"
    best = "zfs" if ground.filesystem == "zfs" and not ground.works("two_lowers") else "overlay2"
    if ground.failed:
        return Choice(engine, None, best, ground.failed, works=False)
    order = ground.docker_order
    prior = [name for name in order[:-1] if name in ground.prior]
    if len(prior) > 1:
        why = f"there is data of several drivers ({', '.join(prior)}), so dockerd doesn't start"
        return Choice(engine, None, best, why, works=False)
    refusals = {name: docker_refusal(name, ground) for name in order}
    if prior:
        refusal = refusals[prior[0]]
        if refusal:
            why = f"there is data of {prior[0]}, which can't be used ({refusal}), so dockerd doesn't start"
            return Choice(engine, None, best, why, works=False)
        return Choice(engine, prior[0], best, "there is data of it", **_fuse_works(prior[0], ground))
    taken = next(name for name in order if refusals[name] is None)
    if taken == "overlay2" and ground.rootless and ground.kernel >= (5, 11):
        marks = ground.trial("mount")
        if not marks["works"]:
            why = f"overlay mounts, but not with userxattr: {said(marks)}; so dockerd doesn't start"
            return Choice(engine, None, best, why, works=False)
    why = "; ".join(f"{name}: {refusals[name]}" for name in order[: order.index(taken)])
    if taken == "overlay2":
        why = "overlay with two lower layers mounts"
    elif taken == order[0]:
        why = f"the file system is {taken}, which Docker before 23 takes first"
    return Choice(engine, taken, best, why, **_fuse_works(taken, ground))


def docker_refusal(driver: str, ground: Ground) -> str | None:
    """Why dockerd doesn't take a graph driver at this place; None: it takes it."""
    if driver == "overlay2":
        if ground.rootless and ground.selinux:
            return "rootless Docker doesn't use it with SELinux"
        if not ground.plain["works"]:
            return f"a mount with two lower layers fails: {said(ground.plain)}"
        if not ground.works("d_type"):
            return "the file system has no d_type"
        return None
    if driver == "fuse-overlayfs":
        if ground.fuse is None:
            return "isn't installed"
        return None if ground.kernel >= (4, 18) else "needs Linux 4.18"
    if driver in ("btrfs", "zfs"):
        return None if ground.filesystem == driver else f"the file system isn't {driver}"
    return None


def _fuse_works(driver: str, ground: Ground) -> dict[str, bool]:
    """dockerd takes fuse-overlayfs for its being installed, without trying it."""
    return {"works": driver != "fuse-overlayfs" or bool(ground.fuse and ground.fuse["works"])}


def choose_snapshotter(ground: Ground) -> Choice:
    """The snapshotter of Docker with containerd's image store. Only d_type is looked at, not a mount."""
    engine = "containerd"
    if ground.failed:
        return Choice(engine, None, "overlayfs", ground.failed, works=False)
    if not ground.works("d_type"):
        return Choice(engine, "native", "overlayfs", "the file system has no d_type")
    if ground.works("two_lowers"):
        return Choice(engine, "overlayfs", "overlayfs", "overlay with two lower layers mounts")
    why = f"containerd takes it without a trial, but a mount fails: {said(ground.trial('two_lowers'))}"
    return Choice(engine, "overlayfs", "overlayfs", why, works=False)


def choose_buildkit(ground: Ground) -> Choice:
    """The snapshotter that buildkitd picks by itself; a mount is tried."""
    engine = "buildkit"
    if ground.failed:
        return Choice(engine, None, "overlayfs", ground.failed, works=False)
    refusal = docker_refusal("overlay2", replace(ground, selinux=False))
    if refusal is None:
        return Choice(engine, "overlayfs", "overlayfs", "overlay with two lower layers mounts")
    if ground.fuse is not None and ground.fuse["works"]:
        return Choice(engine, "fuse-overlayfs", "overlayfs", f"overlayfs: {refusal}")
    fuse = "isn't installed" if ground.fuse is None else said(ground.fuse)
    return Choice(engine, "native", "overlayfs", f"overlayfs: {refusal}; fuse-overlayfs: {fuse}")


def choose_podman(ground: Ground) -> Choice:
    """The driver of Podman. ``mount_program``: mounts are made by fuse-overlayfs, not by the kernel."""
    engine = "rootless_podman" if ground.rootless else "podman"
    if ground.failed:
        return Choice(engine, None, "overlay", ground.failed, works=False)
    wanted = _podman_name(ground)
    refusals = {name: podman_refusal(name, ground) for name in PODMAN_ORDER}
    order = (wanted,) if wanted else PODMAN_ORDER
    taken = next((name for name in order if refusals.get(name, "isn't known") is None), None)
    if taken is None:
        why = f"{wanted} is set, but can't be used: {refusals.get(str(wanted), 'it is not known')}"
        return Choice(engine, None, "overlay", why, works=False)
    if taken == "overlay":
        refusal = _podman_native_refusal(ground)
        if refusal is None:
            return Choice(engine, taken, "overlay", "overlay with two lower layers mounts")
        works = bool(ground.fuse and ground.fuse["works"])
        why = f"by the program fuse-overlayfs, as the kernel can't: {refusal}"
        return Choice(engine, taken, "overlay", why, works=works, mount_program=True)
    passed = PODMAN_ORDER[: PODMAN_ORDER.index(taken)]
    why = "it is set" if wanted else "; ".join(f"{name}: {refusals[name]}" for name in passed)
    return Choice(engine, taken, "overlay", why)


def _podman_name(ground: Ground) -> str | None:
    """The driver that is settled before any is tried."""
    if ground.configured:
        return "overlay" if ground.configured == "overlay2" else ground.configured
    prior = [name for name in PODMAN_ORDER[:-1] if name in ground.prior]
    if prior:
        return prior[0]
    if not ground.rootless:
        return None
    return "overlay" if ground.fuse is not None or ground.kernel >= (5, 13) else "vfs"


def podman_refusal(driver: str, ground: Ground) -> str | None:
    """Why Podman doesn't take a driver at this place; None: it takes it."""
    if driver == "overlay":
        refusal = _podman_native_refusal(ground)
        return None if refusal is None or ground.fuse is not None else refusal
    if driver in ("btrfs", "zfs"):
        return None if ground.filesystem == driver else f"the file system isn't {driver}"
    return None


def _podman_native_refusal(ground: Ground) -> str | None:
    if ground.rootless and ground.filesystem in NETWORK:
        return "a network file system can't be used without root"
    if not ground.works("d_type"):
        return "the file system has no d_type"
    for name, what in (
        ("mknod_whiteout", "a whiteout can't be made"),
        ("two_lowers", "a mount with two lower layers fails"),
        ("whiteout", "a file of a lower layer can't be removed"),
    ):
        if not ground.works(name):
            if name == "mknod_whiteout" and not ground.works("two_lowers"):
                continue
            return f"{what}: {said(ground.trial(name))}"
    return None


def engine_root(ground: Ground, choice: Choice) -> Ground:
    """The ground under a container's own root directory, if its engine chose so on this ground.

    What the container's image brings along isn't known: fuse-overlayfs counts as absent.
    """
    inside = replace(ground, fuse=None, prior=(), configured=None)
    if choice.will_get is None:
        return replace(inside, failed="the outer engine doesn't start")
    if choice.will_get in ("overlay2", "overlay", "overlayfs", "fuse-overlayfs"):
        union = "fuse-overlayfs" if choice.mount_program or choice.will_get == "fuse-overlayfs" else "overlay"
        nested = ground.trial("nested") if union == "overlay" else _fuse_upper(ground)
        names = ("mount", "two_lowers", "volatile", "copy_up", "whiteout", "opaque")
        trials = {**ground.trials, **dict.fromkeys(names, nested)}
        return replace(inside, filesystem=union, trials=trials, plain=nested)
    return inside


def _fuse_upper(ground: Ground) -> Trial:
    return {
        "works": False,
        "errno": "EINVAL",
        "error": "the kernel's overlay takes no upper layer on a FUSE file system",
    }


def choose(engine: str, ground: Ground) -> Choice:
    """The choice of an engine by its name in the table of modes."""
    for name, rule in (
        ("podman", choose_podman),
        ("buildah", choose_podman),
        ("buildkit", choose_buildkit),
        ("containerd", choose_snapshotter),
    ):
        if name in engine:
            return rule(ground)
    return choose_docker(ground)


def mode_drivers(mode: Mode, grounds: Mapping[str | None, Ground]) -> dict[str, Any]:
    """What a mode's engines get if their data is at this path; None where nothing can be said.

    ``host``: the engine on the host. ``bind``: the inner engine, with the path mounted on its data root.
    ``own_root``: the inner engine without such a mount, in a container of that engine on the host.
    Nothing can be said of rootless engines without a user, nor of what runs on gVisor, a kernel of its own.

    :param grounds: root's under None, and those of users by name.
    """
    ground = _ground_for(mode.engine, grounds)
    outer = choose(mode.engine, ground) if ground else None
    found: dict[str, Any] = {"host": outer and _told(outer, ground), "bind": None, "own_root": None}
    inner = _ground_for("rootless" if "sysbox" in mode.runtime else mode.engine, grounds)
    if not mode.inner_engine or inner is None or "runsc" in mode.runtime:
        return found
    inside = replace(inner, fuse=None, configured=None, rootless="rootless" in mode.inner_engine)
    found["bind"] = _told(choose(mode.inner_engine, inside), inside)
    if outer and ground:
        root = replace(engine_root(ground, outer), rootless=inside.rootless)
        found["own_root"] = _told(choose(mode.inner_engine, root), root)
    return found


def _ground_for(engine: str, grounds: Mapping[str | None, Ground]) -> Ground | None:
    if not engine.startswith("rootless"):
        return grounds.get(None)
    return next((ground for name, ground in grounds.items() if name is not None), None)


def _told(choice: Choice, ground: Ground | None) -> dict[str, Any]:
    """With the choice of containerd's image store, for a Docker."""
    store = choose_snapshotter(ground).as_dict() if ground and "docker" in choice.engine else None
    return {**choice.as_dict(), "containerd": store}


def engine_choices(ground: Ground, podman_driver: str | None = None) -> dict[str, Any]:
    """Each engine's choice at a place, by the engine's name; rootless ones on a user's ground.

    :param podman_driver: the driver that Podman's configuration names.
    """
    choices = (
        choose_docker(ground),
        choose_snapshotter(ground),
        choose_podman(replace(ground, configured=podman_driver)),
        choose_buildkit(ground),
    )
    return {choice.engine: choice.as_dict() for choice in choices}
