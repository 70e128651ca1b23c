# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges an engine's storage: ``ok``, ``degraded`` or ``broken``, with reasons and remedies. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import MEMORY, NETWORK, UNION
from ansible_collections.matryoshka.host.plugins.module_utils._preflight import version_tuple
from ansible_collections.matryoshka.host.plugins.module_utils._storage import EngineStorage, Location

VERDICTS = ("ok", "degraded", "broken")
LOW_FRACTION = 0.05
FULL_FRACTION = 0.01
NATIVE_ROOTLESS_KERNEL = "5.11"
_FUSE = ("fuse-overlayfs", "fuse-overlay")

CODES: dict[str, str] = {
    "container_absent": "broken",
    "engine_absent": "broken",
    "daemon_dead": "broken",
    "devicemapper": "broken",
    "no_d_type": "broken",
    "read_only": "broken",
    "full": "broken",
    "vfs": "degraded",
    "overlay_on_overlay": "degraded",
    "fuse_overlayfs": "degraded",
    "backing_overlay": "degraded",
    "backing_memory": "degraded",
    "backing_network": "degraded",
    "root_disk": "degraded",
    "no_native_diff": "degraded",
    "driver_differs": "degraded",
    "data_root_differs": "degraded",
    "nearly_full": "degraded",
}
"""Every reason's code and how bad it is."""


@dataclass(frozen=True)
class Reason:
    """Why storage isn't ``ok``: what is, and what to do about it."""

    code: str
    text: str
    remedy: str

    @property
    def severity(self) -> str:
        return CODES[self.code]

    def __str__(self) -> str:
        return f"{self.text} ({self.code}). {self.remedy}"


@dataclass(frozen=True)
class Verdict:
    """``ok``, ``degraded`` or ``broken``, and the reasons, worst first."""

    verdict: str
    reasons: tuple[Reason, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reasons": [{**asdict(reason), "severity": reason.severity} for reason in self.reasons],
        }


def judge_storage(storage: EngineStorage, *, allow: Iterable[str] = ()) -> Verdict:
    """The verdict on ``storage``; reasons whose code is in ``allow`` don't count and aren't told.

    :raises InputError: for a code in ``allow`` that isn't one of :data:`CODES`.
    """
    return judge(_reasons(storage), check_allow(allow, CODES))


def check_allow(allow: Iterable[str], codes: Collection[str]) -> set[str]:
    """``allow`` as a set.

    :raises InputError: for a code that is none of ``codes``.
    """
    allowed = set(allow)
    for code in sorted(allowed.difference(codes)):
        raise InputError("allow", code, "one of " + ", ".join(codes))
    return allowed


def judge(reasons: Iterable[Reason], allowed: Collection[str]) -> Verdict:
    """The verdict that ``reasons`` give, without those whose code is ``allowed``."""
    counting = [reason for reason in reasons if reason.code not in allowed]
    counting.sort(key=lambda reason: -VERDICTS.index(reason.severity))
    return Verdict(counting[0].severity if counting else "ok", tuple(counting))


def unmet(storage: EngineStorage, expect: Mapping[str, Any]) -> list[str]:
    """Sentences on what of ``expect`` isn't so: verdict, allow, driver, data_root, backing_filesystem."""
    verdict = judge_storage(storage, allow=expect.get("allow") or ())
    wanted = expect.get("verdict") or "ok"
    found = []
    if VERDICTS.index(verdict.verdict) > VERDICTS.index(wanted):
        found += [str(reason) for reason in verdict.reasons if reason.severity not in _tolerated(wanted)]
    if not storage.live:
        return found
    for key in ("driver", "data_root", "backing_filesystem"):
        value = expect.get(key)
        present = getattr(storage, key)
        if value and not _same(key, value, present):
            found.append(f"{key} is {present}, expected {value}.")
    return found


def subject(storage: EngineStorage) -> str:
    """The engine and its place in words, such as ``Docker in the container e1``."""
    return f"{_name(storage)} {_where(storage)}"


def _tolerated(wanted: str) -> Sequence[str]:
    return VERDICTS[: VERDICTS.index(wanted) + 1]


def _same(key: str, wanted: str, present: str | None) -> bool:
    if key == "data_root" and present:
        return posixpath.normpath(wanted) == posixpath.normpath(present)
    return wanted == present


def _reasons(storage: EngineStorage) -> Iterable[Reason]:
    if storage.absent:
        yield _absent(storage)
        return
    if not storage.live:
        yield _dead(storage)
    else:
        yield from _driver(storage)
        yield from _configured(storage)
    judged: set[tuple[str | None, str | None]] = set()
    for place in storage.locations:
        mount = (place.device_number, place.mount_point)
        if mount not in judged:
            yield from _place(storage, place) if storage.live else ()
            yield from _room(place)
        judged.add(mount)


def _absent(storage: EngineStorage) -> Reason:
    if storage.absent == "container":
        return Reason(
            "container_absent",
            f"There is no container {storage.container}",
            "Look at what made it: its unit's journal says why it isn't there.",
        )
    program = "podman" if storage.engine == "podman" else "docker"
    return Reason(
        "engine_absent", f"There is no program {program} {_where(storage)}", f"Install {program} there."
    )


def _dead(storage: EngineStorage) -> Reason:
    if storage.engine == "podman":
        look = "Run podman info by hand."
    elif storage.container:
        look = (
            f"Look at the log of {storage.container}; a runner replaces the container once it is destroyed."
        )
    elif storage.engine == "rootless_docker":
        look = f"Look at journalctl --user-unit docker (as {storage.user}), then restart that unit."
    else:
        look = "Look at journalctl -u docker, then systemctl restart docker."
    return Reason("daemon_dead", f"{_name(storage)} doesn't answer: {storage.error}", look)


def _driver(storage: EngineStorage) -> Iterable[Reason]:
    driver = storage.driver or ""
    place = storage.location
    filesystem = place.filesystem if place else None
    if driver in ("vfs", "native"):
        cause = f", because {place.path} lies on {filesystem}" if place and filesystem in UNION else ""
        yield Reason(
            "vfs",
            f"{_name(storage)} copies whole layers (driver {driver}){cause}",
            _real_filesystem(storage),
        )
    elif driver in _FUSE or storage.mount_program:
        yield from _fuse(storage, filesystem)
    elif driver == "devicemapper":
        yield Reason(
            "devicemapper",
            f"{_name(storage)} uses devicemapper, which is not kept apart between engines and was removed",
            "Move to overlay2: save the images, set storage-driver to overlay2, restart, load them.",
        )
    elif filesystem in UNION and _stacks(storage):
        yield Reason(
            "overlay_on_overlay",
            f"{_name(storage)} stacks overlays (driver {driver}) on a data root that is an overlay itself",
            _real_filesystem(storage),
        )
    if storage.d_type is False:
        yield Reason(
            "no_d_type",
            f"The file system of {storage.data_root} has no d_type, so deleted files come back",
            "Make it anew with mkfs.xfs -n ftype=1, or use ext4.",
        )
    if storage.native_diff is False and driver == "overlay2" and not (storage.userxattr or storage.rootless):
        yield Reason(
            "no_native_diff",
            f"{_name(storage)} has no native overlay diff, so builds compare whole layers",
            "Turn off redirect_dir and metacopy: options overlay redirect_dir=off metacopy=off in /etc/modprobe.d.",
        )


def _stacks(storage: EngineStorage) -> bool:
    """Whether layers are stacked by the kernel's own overlay file system."""
    return (storage.driver or "").startswith("overlay") and not storage.mount_program


def _fuse(storage: EngineStorage, filesystem: str | None) -> Iterable[Reason]:
    old = storage.rootless and version_tuple(storage.kernel or "0") < version_tuple(NATIVE_ROOTLESS_KERNEL)
    if old:
        return
    on_overlay = filesystem in UNION
    yield Reason(
        "fuse_overlayfs",
        f"{_name(storage)} uses fuse-overlayfs"
        + (
            " because its data root is on an overlay"
            if on_overlay
            else f" although native overlay works on {filesystem}"
        ),
        _real_filesystem(storage)
        if on_overlay
        else "Take fuse-overlayfs out of the engine's configuration (storage-driver or mount_program), or uninstall it.",
    )


def _configured(storage: EngineStorage) -> Iterable[Reason]:
    restart = "Restart the engine when no job runs, or take the key out of the file."
    wanted = storage.configured_driver
    if wanted and storage.driver and wanted != storage.driver:
        yield Reason(
            "driver_differs",
            f"{_name(storage)} uses the driver {storage.driver}, but {storage.configuration_file} says {wanted}",
            restart,
        )
    root = storage.configured_data_root
    if root and storage.data_root and posixpath.normpath(root) != posixpath.normpath(storage.data_root):
        yield Reason(
            "data_root_differs",
            f"{_name(storage)} keeps its data in {storage.data_root}, "
            f"but {storage.configuration_file} says {root}",
            restart,
        )


def _place(storage: EngineStorage, place: Location) -> Iterable[Reason]:
    if place.filesystem in UNION:
        beneath = f" (itself on {place.beneath})" if place.beneath else ""
        if not _stacks(storage):
            yield Reason(
                "backing_overlay",
                f"{place.path} lies on {place.filesystem}{beneath}, not on a volume",
                _real_filesystem(storage),
            )
    elif place.filesystem in MEMORY:
        yield Reason(
            "backing_memory",
            f"{place.path} lies on {place.filesystem}: images take memory and are gone after a restart",
            _real_filesystem(storage),
        )
    elif place.filesystem in NETWORK:
        yield Reason(
            "backing_network",
            f"{place.path} lies on {place.filesystem}, which lacks the locks and attributes that layers need",
            _real_filesystem(storage),
        )
    elif place.on_root_disk:
        same = "the root file system" if place.on_root_filesystem else "the root file system's disk"
        yield Reason(
            "root_disk",
            f"{place.path} is on {same} ({place.device or place.source})",
            "Give it a disk of its own; until then keep the engine's own limits on build cache and logs.",
        )
    if place.read_only:
        yield Reason(
            "read_only",
            f"{place.path} lies on {place.mount_point}, which is mounted read-only",
            f"Look for file system errors (dmesg), then mount -o remount,rw {place.mount_point}.",
        )


def _room(place: Location) -> Iterable[Reason]:
    for what, free, total in (
        ("bytes", place.bytes_free, place.bytes_total),
        ("inodes", place.inodes_free, place.inodes_total),
    ):
        if free is None or not total or free >= total * LOW_FRACTION:
            continue
        code = "full" if free < total * FULL_FRACTION else "nearly_full"
        yield Reason(
            code,
            f"{place.path} has {100 * free / total:.1f} % of its {what} left ({free} of {total})",
            "Prune images and build cache, or enlarge the file system.",
        )


def _real_filesystem(storage: EngineStorage) -> str:
    place = storage.location
    path = place.path if place else "its data root"
    if storage.nested:
        return f"Mount a directory of the host's ext4, xfs or btrfs on {path} in the container."
    return f"Put {path} on ext4, xfs or btrfs: mount a disk there, or set another data root."


def _name(storage: EngineStorage) -> str:
    name = {"docker": "Docker", "rootless_docker": "Rootless Docker", "podman": "Podman"}[storage.engine]
    return name + (f" of {storage.user}" if storage.user else "")


def _where(storage: EngineStorage) -> str:
    return f"in the container {storage.container}" if storage.container else "on the host"
