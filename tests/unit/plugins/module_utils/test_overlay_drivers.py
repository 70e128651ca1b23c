# SPDX-License-Identifier: GPL-3.0-or-later
"""Which driver each engine takes, on grounds recorded and derived."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _overlay_drivers as drivers
from ansible_collections.matryoshka.host.plugins.module_utils._modes import MODES
from ansible_collections.matryoshka.host.plugins.module_utils._overlay_drivers import Ground
from hypothesis import given
from hypothesis import strategies as st
from overlay_recorded import FAILS, WORKS, ground

EXT4, OVERLAY = ground("ext4"), ground("overlay")
BARE_OVERLAY = replace(OVERLAY, fuse=None)
CI, CI_OVERLAY = ground("ext4", "ci"), ground("overlay", "ci")
NO_D_TYPE = replace(
    ground("xfs"), trials={**ground("xfs").trials, "d_type": {**FAILS, "errno": None}}, fuse=None
)
"""XFS made with ftype=0: overlay mounts there, and misbehaves."""
OLD = (4, 9)


def without(one: Ground, *names: str) -> Ground:
    return replace(one, trials={**one.trials, **dict.fromkeys(names, FAILS)})


@pytest.mark.parametrize(
    ("place", "will_get", "works", "why"),
    [
        (EXT4, "overlay2", True, "overlay with two lower layers mounts"),
        (ground("xfs"), "overlay2", True, "overlay with two"),
        (ground("btrfs"), "overlay2", True, "overlay with two"),
        (replace(ground("btrfs"), docker=26), "overlay2", True, "overlay with two"),
        (replace(ground("btrfs"), docker=20), "btrfs", True, "which Docker before 23 takes first"),
        (replace(EXT4, docker=20), "overlay2", True, "overlay with two"),
        (ground("tmpfs"), "overlay2", True, "overlay with two"),
        (OVERLAY, "fuse-overlayfs", True, "overlay2: a mount with two lower layers fails: EINVAL"),
        (replace(OVERLAY, fuse=FAILS), "fuse-overlayfs", False, "EINVAL"),
        (replace(OVERLAY, kernel=OLD), "vfs", True, "fuse-overlayfs: needs Linux 4.18"),
        (BARE_OVERLAY, "vfs", True, "fuse-overlayfs: isn't installed; btrfs: the file system isn't btrfs"),
        (NO_D_TYPE, "vfs", True, "overlay2: the file system has no d_type"),
        (replace(BARE_OVERLAY, filesystem="zfs"), "zfs", True, "btrfs: the file system isn't btrfs"),
        (CI, "overlay2", True, "overlay with two"),
        (CI_OVERLAY, "fuse-overlayfs", True, "EINVAL"),
        (replace(CI, selinux=True), "fuse-overlayfs", True, "SELinux"),
        (replace(EXT4, selinux=True), "overlay2", True, "overlay with two"),
        (without(CI, "mount"), None, False, "not with userxattr: EOPNOTSUPP"),
        (replace(EXT4, failed="nothing can be put there"), None, False, "nothing can be put there"),
        (replace(OVERLAY, prior=("vfs",)), "fuse-overlayfs", True, "EINVAL"),
        (replace(EXT4, prior=("fuse-overlayfs",)), "fuse-overlayfs", True, "there is data of it"),
        (replace(EXT4, prior=("overlay2",)), "overlay2", True, "there is data of it"),
        (
            replace(OVERLAY, prior=("overlay2",)),
            None,
            False,
            "data of overlay2, which can't be used (a mount",
        ),
        (
            replace(EXT4, prior=("overlay2", "fuse-overlayfs")),
            None,
            False,
            "several drivers (overlay2, fuse-",
        ),
    ],
)
def test_docker(place: Ground, will_get: str | None, works: bool, why: str) -> None:
    choice = drivers.choose_docker(place)
    assert (choice.will_get, choice.works) == (will_get, works)
    assert why in choice.why
    assert choice.engine == ("rootless_docker" if place.rootless else "docker")
    assert choice.should_get == ("zfs" if place.filesystem == "zfs" else "overlay2")
    assert choice.good is (works and will_get == choice.should_get)


@pytest.mark.parametrize(
    ("place", "will_get", "works", "why"),
    [
        (EXT4, "overlayfs", True, "overlay with two"),
        (OVERLAY, "overlayfs", False, "without a trial, but a mount fails: EINVAL"),
        (NO_D_TYPE, "native", True, "no d_type"),
        (CI, "overlayfs", True, "overlay with two"),
        (replace(EXT4, failed="full"), None, False, "full"),
    ],
)
def test_containerd(place: Ground, will_get: str | None, works: bool, why: str) -> None:
    choice = drivers.choose_snapshotter(place)
    assert (choice.will_get, choice.works, choice.should_get) == (will_get, works, "overlayfs")
    assert why in choice.why


@pytest.mark.parametrize(
    ("place", "will_get", "why"),
    [
        (EXT4, "overlayfs", "overlay with two"),
        (OVERLAY, "fuse-overlayfs", "EINVAL"),
        (BARE_OVERLAY, "native", "fuse-overlayfs: isn't installed"),
        (replace(OVERLAY, fuse=FAILS), "native", "fuse-overlayfs: EOPNOTSUPP"),
        (NO_D_TYPE, "native", "no d_type"),
        (replace(EXT4, failed="full"), None, "full"),
    ],
)
def test_buildkit(place: Ground, will_get: str | None, why: str) -> None:
    choice = drivers.choose_buildkit(place)
    assert choice.will_get == will_get
    assert why in choice.why


@pytest.mark.parametrize(
    ("place", "will_get", "mount_program", "why"),
    [
        (EXT4, "overlay", False, "overlay with two"),
        (OVERLAY, "overlay", True, "by the program fuse-overlayfs, as the kernel can't: a mount with two"),
        (BARE_OVERLAY, "vfs", False, "overlay: a mount with two lower layers fails: EINVAL"),
        (replace(BARE_OVERLAY, filesystem="btrfs"), "btrfs", False, "overlay: a mount"),
        (replace(BARE_OVERLAY, configured="overlay"), None, False, "overlay is set, but can't be used"),
        (replace(EXT4, configured="overlay2"), "overlay", False, "overlay with two"),
        (replace(EXT4, configured="vfs"), "vfs", False, "it is set"),
        (replace(EXT4, configured="aufs"), None, False, "aufs is set, but can't be used: it is not known"),
        (NO_D_TYPE, "vfs", False, "no d_type"),
        (CI, "overlay", False, "overlay with two"),
        (CI_OVERLAY, "overlay", True, "by the program"),
        (replace(CI_OVERLAY, fuse=None), None, False, "overlay is set, but can't be used: a mount"),
        (replace(CI_OVERLAY, fuse=None, kernel=(5, 10)), "vfs", False, "it is set"),
        (replace(CI, filesystem="nfs4"), "overlay", True, "a network file system can't be used without root"),
        (replace(EXT4, filesystem="nfs4"), "overlay", False, "overlay with two"),
        (without(CI, "mknod_whiteout"), "overlay", True, "a whiteout can't be made: EOPNOTSUPP"),
        (without(CI, "whiteout"), "overlay", True, "a file of a lower layer can't be removed"),
        (replace(EXT4, prior=("btrfs",)), None, False, "btrfs is set, but can't be used"),
        (replace(EXT4, failed="full"), None, False, "full"),
    ],
)
def test_podman(place: Ground, will_get: str | None, mount_program: bool, why: str) -> None:
    choice = drivers.choose_podman(place)
    assert (choice.will_get, choice.mount_program) == (will_get, mount_program)
    assert why in choice.why
    assert choice.good is (will_get == "overlay" and not mount_program)


def test_a_program_that_fails_is_taken_all_the_same() -> None:
    choice = drivers.choose_podman(replace(OVERLAY, fuse=FAILS))
    assert (choice.will_get, choice.mount_program, choice.works) == ("overlay", True, False)


@pytest.mark.parametrize(
    ("place", "host", "bind", "own_root"),
    [
        (EXT4, "overlay2", "overlay2", "vfs"),
        (ground("tmpfs"), "overlay2", "overlay2", "vfs"),
        (OVERLAY, "fuse-overlayfs", "vfs", "vfs"),
        (BARE_OVERLAY, "vfs", "vfs", "vfs"),
        (replace(ground("btrfs"), docker=20), "btrfs", "btrfs", "btrfs"),
        (replace(EXT4, failed="full"), None, None, None),
        (replace(EXT4, trials={**EXT4.trials, "nested": WORKS}), "overlay2", "overlay2", "overlay2"),
        (replace(EXT4, prior=("fuse-overlayfs",)), "fuse-overlayfs", None, "vfs"),
    ],
)
def test_dind(place: Ground, host: str | None, bind: str | None, own_root: str | None) -> None:
    found = drivers.mode_drivers(MODES["dind"], {None: place})
    assert {key: one["will_get"] for key, one in found.items()} == {
        "host": host,
        "bind": bind,
        "own_root": own_root,
    }
    assert found["host"]["containerd"]["engine"] == "containerd"
    assert found["own_root"]["should_get"] == "overlay2"


@pytest.mark.parametrize(
    ("changes", "grounds", "expected"),
    [
        ({"engine": "podman"}, {None: EXT4}, ("podman overlay", "docker overlay2", "docker vfs")),
        ({"engine": "rootless_docker"}, {None: EXT4}, (None, None, None)),
        (
            {"engine": "rootless_docker", "inner_engine": "rootless_docker"},
            {None: EXT4, "ci": CI},
            ("rootless_docker overlay2", "rootless_docker overlay2", "rootless_docker vfs"),
        ),
        (
            {"engine": "rootless_podman", "inner_engine": ""},
            {None: EXT4, "ci": CI},
            ("rootless_podman overlay", None, None),
        ),
        ({"runtime": "sysbox-runc"}, {None: EXT4}, ("docker overlay2", None, None)),
        (
            {"runtime": "sysbox-runc"},
            {None: EXT4, "sysbox": CI},
            ("docker overlay2", "docker overlay2", "docker vfs"),
        ),
        ({"runtime": "runsc"}, {None: EXT4}, ("docker overlay2", None, None)),
        (
            {"inner_engine": "buildkit"},
            {None: EXT4},
            ("docker overlay2", "buildkit overlayfs", "buildkit native"),
        ),
        (
            {"inner_engine": "containerd"},
            {None: EXT4},
            ("docker overlay2", "containerd overlayfs", "containerd overlayfs"),
        ),
    ],
)
def test_modes_to_come(
    changes: dict[str, Any], grounds: dict[str | None, Ground], expected: tuple[str | None, ...]
) -> None:
    found = drivers.mode_drivers(replace(MODES["dind"], **changes), grounds)
    told = tuple(one and f"{one['engine']} {one['will_get']}" for one in found.values())
    assert told == expected


def test_every_mode_of_the_table_is_told() -> None:
    for mode in MODES.values():
        assert set(drivers.mode_drivers(mode, {None: EXT4, "ci": CI})) == {"host", "bind", "own_root"}


def test_engine_choices_by_engine() -> None:
    assert set(drivers.engine_choices(EXT4)) == {"docker", "containerd", "podman", "buildkit"}
    assert set(drivers.engine_choices(CI)) == {"rootless_docker", "containerd", "rootless_podman", "buildkit"}
    assert drivers.engine_choices(EXT4, "vfs")["podman"]["will_get"] == "vfs"
    assert drivers.engine_choices(EXT4, "vfs")["docker"]["will_get"] == "overlay2"


TRIALS = st.sampled_from([WORKS, FAILS])
NAMES = ("d_type", "mknod_whiteout", "mount", "two_lowers", "whiteout", "nested")
GROUNDS = st.builds(
    Ground,
    filesystem=st.sampled_from(["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "nfs4", None]),
    trials=st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, TRIALS)),
    plain=TRIALS,
    fuse=st.none() | TRIALS,
    failed=st.none() | st.just("nothing can be put there"),
    rootless=st.booleans(),
    selinux=st.booleans(),
    kernel=st.tuples(st.integers(3, 7), st.integers(0, 20)),
    prior=st.lists(st.sampled_from(["overlay2", "btrfs", "overlay", "vfs"]), unique=True).map(tuple),
    configured=st.none() | st.sampled_from(["overlay", "vfs", "zfs", "unknown"]),
    docker=st.none() | st.integers(17, 30),
)


@given(GROUNDS)
def test_every_ground_has_one_answer_with_a_reason(place: Ground) -> None:
    known = {*drivers.DOCKER_ORDER, *drivers.PODMAN_ORDER, "overlayfs", "native", None}
    for engine in ("docker", "podman", "containerd", "buildkit"):
        choice = drivers.choose(engine, place)
        assert choice.will_get in known and choice.why
        assert choice.will_get is not None or not choice.good
        assert not (place.failed and choice.will_get)
        assert not choice.good or place.works("d_type") or choice.will_get == "zfs"


@given(GROUNDS)
def test_a_better_ground_is_never_worse_for_docker(place: Ground) -> None:
    """Where overlay works in every way, a fresh data root gets it, unless an old Docker prefers its own."""
    best = replace(
        place,
        trials=dict.fromkeys(NAMES, WORKS),
        plain=WORKS,
        failed=None,
        prior=(),
        selinux=False,
        docker=None,
    )
    assert drivers.choose_docker(best).will_get == "overlay2"
