# SPDX-License-Identifier: GPL-3.0-or-later
"""What engines say of their storage, from recorded outputs, and the verdicts on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _storage as storage
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._storage import EngineStorage, Location
from ansible_collections.matryoshka.host.plugins.module_utils._storage_judge import (
    CODES,
    judge_storage,
    unmet,
)
from hypothesis import given
from hypothesis import strategies as st

FIXTURES = Path(__file__).parents[2] / "fixtures" / "storage"
GIB = 1 << 30


def recorded(name: str) -> EngineStorage:
    text = (FIXTURES / f"{name}.json").read_text()
    return storage.parse_podman_info(text) if name.startswith("podman") else storage.parse_docker_info(text)


def place(filesystem: str = "ext4", **more: Any) -> Location:
    room = {"bytes_total": 100 * GIB, "bytes_free": 50 * GIB, "inodes_total": 1000, "inodes_free": 900}
    known = {"role": "data_root", "path": "/var/lib/docker", "exists": True, "mount_point": "/var/lib/docker"}
    return Location(**{**known, **room, "filesystem": filesystem, "device_number": "8:16", **more})


def engine(
    name: str = "docker-26.1-overlay2-on-ext4", where: Location | None = None, **more: Any
) -> EngineStorage:
    return replace(recorded(name), locations=(where or place(),), **more)


def codes(found: EngineStorage, **more: Any) -> list[str]:
    return [reason.code for reason in judge_storage(found, **more).reasons]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "docker-26.1-overlay2-on-ext4",
            {"driver": "overlay2", "backing_filesystem": "ext4", "d_type": True, "native_diff": True}
            | {"metacopy": False, "userxattr": False, "version": "26.1.5+dfsg1", "rootless": False},
        ),
        ("docker-26.1-vfs-on-overlay", {"driver": "vfs", "backing_filesystem": None, "d_type": None}),
        ("docker-26.1-fuse-overlayfs-on-ext4", {"driver": "fuse-overlayfs", "status": {}}),
        (
            "docker-26.1-rootless-on-ext4",
            {"rootless": True, "userxattr": True, "native_diff": False, "driver": "overlay2"},
        ),
        (
            "podman-4.3-on-ext4",
            {"driver": "overlay", "backing_filesystem": "ext4", "version": "4.3.1", "rootless": False}
            | {"data_root": "/var/lib/containers/storage", "native_diff": True, "mount_program": None},
        ),
        (
            "podman-5.4-rootless-on-overlay",
            {"driver": "overlay", "backing_filesystem": "overlay", "rootless": True, "native_diff": False},
        ),
        (
            "derived-docker-29-containerd-store",
            {"driver": "overlayfs", "containerd_store": True, "snapshotter": "overlayfs", "d_type": None}
            | {"containerd_root": "/var/lib/containerd"},
        ),
        (
            "derived-docker-29-native-snapshotter",
            {"snapshotter": "native", "containerd_root": "/var/lib/docker/containerd/daemon"},
        ),
        (
            "derived-docker-26.1-xfs-without-ftype",
            {"d_type": False, "metacopy": True, "backing_filesystem": "xfs"},
        ),
    ],
)
def test_recorded_outputs(name: str, expected: dict[str, Any]) -> None:
    found = recorded(name)
    assert found.live
    assert {key: getattr(found, key) for key in expected} == expected


def test_a_dead_daemon() -> None:
    found = recorded("docker-26.1-dead")
    assert not found.live
    assert (found.error or "").startswith("Cannot connect to the Docker daemon")


@pytest.mark.parametrize("text", ["", "Segmentation fault", "[1]", '"x"'])
def test_what_isn_t_json_is_an_error(text: str) -> None:
    for parse in (storage.parse_docker_info, storage.parse_podman_info):
        with pytest.raises(HostError, match="printed something that isn't"):
            parse(text)


@given(st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_storage_conf_and_daemon_json_take_any_text(value: object) -> None:
    text = str(value)
    base = EngineStorage("docker", live=True)
    assert storage.with_daemon_json(base, "/x", text).live
    assert storage.with_storage_conf(base, text).live


def test_daemon_json() -> None:
    base = EngineStorage("docker")
    found = storage.with_daemon_json(base, "/x", '{"storage-driver": "vfs", "data-root": "/d", "bip": "x"}')
    assert (found.configured_driver, found.configured_data_root, found.configuration_file) == (
        "vfs",
        "/d",
        "/x",
    )
    assert storage.with_daemon_json(base, "/x", None) == base
    assert storage.with_daemon_json(base, "/x", '{"storage-driver": 7}').configured_driver is None


def test_storage_conf() -> None:
    text = (
        '# driver = "vfs"\n[storage]\ndriver = "overlay"\ngraphroot = "/g"\n[storage.options]\ndriver = "x"\n'
    )
    found = storage.with_storage_conf(EngineStorage("podman"), text)
    assert (found.configured_driver, found.configured_data_root) == ("overlay", "/g")


@pytest.mark.parametrize(
    ("address", "config", "expected"),
    [
        ("/run/containerd/containerd.sock", None, "/var/lib/containerd"),
        ("/run/containerd/containerd.sock", 'version = 2\nroot = "/data/ctd"\n', "/data/ctd"),
        ("/run/docker/containerd/containerd.sock", 'root = "/data/ctd"', "/d/containerd/daemon"),
        ("/var/run/docker/containerd/containerd.sock", None, "/d/containerd/daemon"),
        (None, None, "/var/lib/containerd"),
    ],
)
def test_the_root_of_containerd(address: str | None, config: str | None, expected: str) -> None:
    assert storage.containerd_root(address, "/d", config) == expected


HEALTHY = [
    engine(),
    engine("docker-26.1-rootless-on-ext4"),
    engine("podman-4.3-on-ext4"),
    engine("derived-docker-29-containerd-store"),
    engine(where=place("xfs")),
    engine(where=place("btrfs"), driver="btrfs"),
    engine(configured_driver="overlay2", configured_data_root="/var/lib/docker/"),
    engine(where=place(inodes_total=0, inodes_free=0)),
    engine("docker-26.1-fuse-overlayfs-on-ext4", rootless=True, kernel="5.10.0-30-amd64"),
]


@pytest.mark.parametrize("found", HEALTHY)
def test_healthy(found: EngineStorage) -> None:
    assert judge_storage(found).as_dict() == {"verdict": "ok", "reasons": []}
    assert unmet(found, {}) == []


@pytest.mark.parametrize(
    ("found", "verdict", "expected"),
    [
        (engine("docker-26.1-vfs-on-overlay"), "degraded", ["vfs"]),
        (engine("docker-26.1-vfs-on-overlay", place("overlay")), "degraded", ["vfs", "backing_overlay"]),
        (engine("derived-docker-29-native-snapshotter"), "degraded", ["vfs"]),
        (engine("docker-26.1-fuse-overlayfs-on-ext4"), "degraded", ["fuse_overlayfs"]),
        (
            engine("podman-4.3-on-ext4", mount_program="/usr/bin/fuse-overlayfs"),
            "degraded",
            ["fuse_overlayfs"],
        ),
        (
            engine("docker-26.1-fuse-overlayfs-on-ext4", place("overlay")),
            "degraded",
            ["fuse_overlayfs", "backing_overlay"],
        ),
        (engine("podman-5.4-rootless-on-overlay", place("overlay")), "degraded", ["overlay_on_overlay"]),
        (engine("derived-docker-29-containerd-store", place("overlay")), "degraded", ["overlay_on_overlay"]),
        (engine("derived-docker-20.10-devicemapper"), "broken", ["devicemapper"]),
        (engine("derived-docker-26.1-xfs-without-ftype"), "broken", ["no_d_type", "no_native_diff"]),
        (engine("docker-26.1-dead"), "broken", ["daemon_dead"]),
        (engine("docker-26.1-dead", place(bytes_free=0)), "broken", ["daemon_dead", "full"]),
        (engine(where=place("tmpfs")), "degraded", ["backing_memory"]),
        (engine(where=place("nfs4")), "degraded", ["backing_network"]),
        (engine(where=place(on_root_disk=True)), "degraded", ["root_disk"]),
        (engine(where=place(on_root_disk=True, read_only=True)), "broken", ["read_only", "root_disk"]),
        (engine(where=place(bytes_free=4 * GIB)), "degraded", ["nearly_full"]),
        (engine(where=place(bytes_free=GIB // 2)), "broken", ["full"]),
        (engine(where=place(inodes_free=49)), "degraded", ["nearly_full"]),
        (engine(where=place(inodes_free=0)), "broken", ["full"]),
        (engine(configured_driver="vfs", configuration_file="/x"), "degraded", ["driver_differs"]),
        (engine(configured_data_root="/elsewhere"), "degraded", ["data_root_differs"]),
        (EngineStorage("docker", absent="program"), "broken", ["engine_absent"]),
        (EngineStorage("docker", "c", absent="container"), "broken", ["container_absent"]),
    ],
)
def test_unhealthy(found: EngineStorage, verdict: str, expected: list[str]) -> None:
    judged = judge_storage(found)
    assert judged.verdict == verdict
    assert [reason.code for reason in judged.reasons] == expected
    for reason in judged.reasons:
        assert reason.text and reason.remedy.endswith(".")


def test_every_code_is_reached_by_a_case() -> None:
    cases = test_unhealthy.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {code for _, _, expected in cases for code in expected} == set(CODES)


def test_what_is_allowed_doesn_t_count() -> None:
    found = engine("docker-26.1-vfs-on-overlay", place("overlay"))
    assert codes(found, allow=["vfs"]) == ["backing_overlay"]
    assert judge_storage(found, allow=["vfs", "backing_overlay"]).verdict == "ok"


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(InputError, match=r"allow: 'rootdisk' is refused; allowed: one of .*root_disk"):
        judge_storage(engine(), allow=["rootdisk"])


def test_containerd_elsewhere_is_judged_too() -> None:
    own = place(
        "overlay", role="containerd", path="/var/lib/containerd", mount_point="/", device_number="0:40"
    )
    found = replace(recorded("derived-docker-29-containerd-store"), locations=(place(), own))
    judged = judge_storage(found)
    assert [reason.code for reason in judged.reasons] == ["overlay_on_overlay"]
    assert "/var/lib/containerd" in judged.reasons[0].remedy


def test_one_file_system_is_judged_once() -> None:
    both = (
        place(bytes_free=0),
        place(bytes_free=0, role="containerd", path="/var/lib/docker/containerd/daemon"),
    )
    assert codes(replace(recorded("derived-docker-29-containerd-store"), locations=both)) == ["full"]


def test_words_of_a_reason() -> None:
    found = replace(engine("docker-26.1-vfs-on-overlay", place("overlay", beneath="xfs")), container="e1")
    reasons = [str(reason) for reason in judge_storage(found).reasons]
    assert reasons == [
        "Docker copies whole layers (driver vfs), because /var/lib/docker lies on overlay (vfs). "
        "Mount a directory of the host's ext4, xfs or btrfs on /var/lib/docker in the container.",
        "/var/lib/docker lies on overlay (itself on xfs), not on a volume (backing_overlay). "
        "Mount a directory of the host's ext4, xfs or btrfs on /var/lib/docker in the container.",
    ]


@pytest.mark.parametrize(
    ("found", "expect", "sentences"),
    [
        (engine(), {"driver": "overlay2", "data_root": "/var/lib/docker/", "backing_filesystem": "ext4"}, 0),
        (engine(), {"driver": "btrfs"}, 1),
        (engine(), {"data_root": "/data"}, 1),
        (engine(), {"backing_filesystem": "xfs"}, 1),
        (engine(where=place(on_root_disk=True)), {}, 1),
        (engine(where=place(on_root_disk=True)), {"verdict": "degraded"}, 0),
        (engine(where=place(on_root_disk=True)), {"allow": ["root_disk"]}, 0),
        (engine(where=place(on_root_disk=True, read_only=True)), {"verdict": "degraded"}, 1),
        (engine("docker-26.1-dead"), {"verdict": "degraded", "driver": "overlay2"}, 1),
    ],
)
def test_expectations(found: EngineStorage, expect: dict[str, Any], sentences: int) -> None:
    assert len(unmet(found, expect)) == sentences


def test_a_return_value_is_plain() -> None:
    value = engine().as_dict()
    assert value["location"]["options"] == []
    assert value["locations"] == [value["location"]]
    assert isinstance(value["status"], dict)
