# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose data a directory holds, which drivers left what in it, and what should be mounted there."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _data_root_engine as engines
from ansible_collections.matryoshka.host.plugins.module_utils import _data_root_mount as mounting
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import MountTable
from hypothesis import given
from hypothesis import strategies as st
from support.sysfs_tree import Tree

ROOT = "/data"
UUID = "0d4f4e5b-7a0c-4f0e-9f9b-6a3f8f9b1c11"
NAMES = [*engines.DOCKER, *engines.PODMAN, "overlay-layers", "io.containerd.metadata.v1.bolt", "lost+found"]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("buildkit containers engine-id image network overlay2 plugins runtimes swarm tmp volumes", "docker"),
        ("builder buildkit containerd containers image network overlay2 volumes", "docker"),
        ("image volumes", "docker"),
        ("volumes", None),
        ("containers other", None),
        (
            "db.sql defaultNetworkBackend libpod overlay overlay-containers overlay-images storage.lock",
            "podman",
        ),
        ("overlay overlay-layers", "podman"),
        ("vfs vfs-images", "podman"),
        ("io.containerd.content.v1.content io.containerd.metadata.v1.bolt tmpmounts", "containerd"),
        ("buildkitd.lock cache.db history.db runc-overlayfs", "buildkit"),
        ("cache.db runc-overlayfs", "buildkit"),
        ("lost+found", None),
        ("", None),
    ],
)
def test_engines_by_their_folders(names: str, kind: str | None) -> None:
    assert engines.engine_kind(names.split()) == kind


@given(st.lists(st.sampled_from(NAMES), unique=True), st.permutations(NAMES))
def test_the_order_of_names_does_not_matter(names: list[str], order: list[str]) -> None:
    assert engines.engine_kind(names) == engines.engine_kind(sorted(names, key=order.index))


def layers(tree: Tree, *paths: str, at: int = 1000) -> None:
    for path in paths:
        tree.folder(f"{ROOT}/{path}")
        for above in Path(path).parents:
            if str(above) != ".":
                os.utime(tree.root / "data" / above, (at, at))


def drivers(tree: Tree, kind: str = "docker") -> dict[str, tuple[int, bool]]:
    found = engines.read_drivers(tree.view, ROOT, kind)
    return {one["driver"]: (one["entries"], one["current"]) for one in found}


def test_one_driver(tree: Tree) -> None:
    layers(tree, "overlay2/l", "overlay2/a", "overlay2/b", "image/overlay2/layerdb")
    assert drivers(tree) == {"overlay2": (2, True)}


def test_what_older_drivers_left(tree: Tree) -> None:
    layers(tree, "aufs/diff/x", "vfs/dir/y", "vfs/dir/z", "devicemapper/metadata/base", at=500)
    layers(tree, "overlay2/l", "overlay2/a", at=900)
    assert drivers(tree) == {
        "overlay2": (1, True),
        "vfs": (2, False),
        "devicemapper": (0, False),
        "aufs": (1, False),
    }


def test_the_driver_used_last_is_the_current_one(tree: Tree) -> None:
    layers(tree, "overlay2/a", at=500)
    layers(tree, "vfs/dir/b", at=900)
    assert drivers(tree) == {"overlay2": (1, False), "vfs": (1, True)}


@pytest.mark.parametrize("above", ["", "containerd/daemon/"])
def test_snapshotters(tree: Tree, above: str) -> None:
    store = f"{above}io.containerd.snapshotter.v1."
    layers(tree, f"{store}overlayfs/snapshots/1", f"{store}overlayfs/snapshots/2", at=900)
    layers(tree, f"{store}native/snapshots/1", at=500)
    layers(tree, f"{store}btrfs")
    assert drivers(tree, "containerd") == {"overlayfs": (2, True), "native": (1, False)}


def test_podman_beside_docker_s_names(tree: Tree) -> None:
    layers(tree, "overlay/l", "overlay/a", "overlay-layers", at=900)
    tree.write(f"{ROOT}/overlay/.has-mount-program")
    layers(tree, "vfs/dir/x", "vfs-layers/y", at=500)
    assert drivers(tree, "podman") == {"overlay": (1, True), "vfs": (1, False)}


def test_locked_files(tree: Tree) -> None:
    wanted = [
        "volumes/metadata.db",
        "network/files/local-kv.db",
        "buildkit/cache.db",
        "buildkit/snapshots.db",
        "containerd/daemon/io.containerd.metadata.v1.bolt/meta.db",
    ]
    for path in (*wanted, "volumes/x/_data/some.db", "image/overlay2/repositories.json"):
        tree.write(f"{ROOT}/{path}")
    assert engines.locked_files(tree.view, ROOT) == wanted


def test_what_a_root_says_of_its_engine(tree: Tree) -> None:
    before = int(time.time())
    for path in ("image/overlay2/repositories.json", "volumes/metadata.db", "overlay2/a/link"):
        tree.write(f"{ROOT}/{path}")
    tree.write(f"{ROOT}/engine-id", "5495969a-81b0\n")
    tree.folder(f"{ROOT}/vfs/dir/old")
    for path in ("vfs/dir", "vfs"):
        os.utime(tree.root / "data" / path, (1, 1))
    found = engines.read_engine(tree.view, ROOT)
    assert (found["engine"], found["engine_id"], found["driver"]) == ("docker", "5495969a-81b0", "overlay2")
    assert found["leftovers"] == ["vfs"]
    assert before - 1 <= found["created"] <= found["last_used"] <= int(time.time()) + 1


def test_an_empty_root(tree: Tree) -> None:
    tree.folder(f"{ROOT}/lost+found")
    assert engines.read_engine(tree.view, ROOT) == {
        "engine": None,
        "engine_id": None,
        "created": None,
        "last_used": None,
        "drivers": [],
        "driver": None,
        "leftovers": [],
        "locked_files": [],
    }


def test_the_time_of_birth_is_not_that_of_a_change(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    os.utime(file, (1000, 1000))
    assert engines.birth(str(file)) in (1000, int(os.stat(file).st_ctime), int(os.stat(file).st_ctime) - 1)
    assert engines.birth(str(tmp_path / "none")) is None


@pytest.mark.parametrize("wanted", ["/data", "UUID=1234-ABCD", "LABEL=images", "/dev/vg/images"])
def test_ways_to_name_a_file_system(wanted: str) -> None:
    mounting.check_wanted("mount", wanted)


@pytest.mark.parametrize("wanted", ["", "sdb", "data/x", "UUID=", "PARTUUID=1", "uuid=1"])
def test_ways_that_are_refused(wanted: str) -> None:
    with pytest.raises(InputError) as error:
        mounting.check_wanted("roots[1].mount", wanted)
    assert str(error.value).startswith(f"roots[1].mount: {wanted!r} is refused; allowed: a mount point")


FSTAB = """\
# /etc/fstab
UUID=1 / ext4 errors=remount-ro 0 1
UUID=2 /data\\040disk xfs noatime,nofail 0 2 # images
LABEL=x /by-hand xfs noauto 0 2
/dev/sda3 none swap sw 0 0
tmpfs /tmp
   # /dev/sdb /off xfs defaults 0 0
"""


def test_fstab() -> None:
    assert [(one.mount_point, one.source) for one in mounting.parse_fstab(FSTAB)] == [
        ("/data disk", "UUID=2")
    ]


@given(st.text(max_size=200))
def test_any_fstab_is_read(text: str) -> None:
    assert all(one.mount_point.startswith("/") for one in mounting.parse_fstab(text))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[Mount]\nWhat=/dev/sdb\nWhere=/data\nType=xfs\n", [("/data", "/dev/sdb")]),
        ("[Mount]\nWhat = /dev/sdb \nWhere = /data\n", [("/data", "/dev/sdb")]),
        ("[Mount]\n#What=/dev/sdb\nWhere=/data\n", []),
        ("[Mount]\nWhat=/dev/sdb\n", []),
        ("", []),
    ],
)
def test_mount_units(text: str, found: list[tuple[str, str]]) -> None:
    assert [(one.mount_point, one.source) for one in mounting.parse_unit(text, "data.mount")] == found


BARE = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
MOUNTED = BARE + "2 1 8:16 / /data rw - xfs /dev/sdb rw\n"


@pytest.mark.parametrize(
    ("real", "mountinfo", "missing"),
    [
        ("/data", MOUNTED, False),
        ("/data/docker", MOUNTED, False),
        ("/data", BARE, True),
        ("/data/docker", BARE, True),
        ("/database", BARE, False),
        ("/", BARE, False),
        ("/data/docker", BARE + "2 1 8:16 / /data/docker rw - xfs /dev/sdb rw\n", False),
    ],
)
@pytest.mark.parametrize("how", ["fstab", "unit"])
def test_planned_mounts_that_are_missing(
    tree: Tree, how: str, real: str, mountinfo: str, missing: bool
) -> None:
    if how == "fstab":
        tree.write("/etc/fstab", f"UUID={UUID} /data xfs nofail 0 2\n")
        wanted = f"/etc/fstab has UUID={UUID} on /data, and it isn't mounted"
    else:
        tree.write("/etc/systemd/system/data.mount", "[Mount]\nWhat=/dev/sdb\nWhere=/data\n")
        wanted = "data.mount has /dev/sdb on /data, and it isn't mounted"
    assert mounting.missing_plan(mounting.planned_mounts(tree.view), real, MountTable.parse(mountinfo)) == (
        wanted if missing else None
    )


def wanted(tree: Tree, mount: str, mountinfo: str = MOUNTED, real: str = "/data/docker") -> str | None:
    return mounting.unmounted(tree.view, real, MountTable.parse(mountinfo).of(real), mount)


@pytest.fixture
def disk(tree: Tree) -> Tree:
    """A host with the disk sdb, known to udev."""
    tree.block("pci0/ata1/host0/target0:0:0/0:0:0:0/block/sdb", "8:16", sectors=1)
    tree.write("/dev/sdb")
    for name in (f"by-uuid/{UUID}", "by-label/my\\x20images", "by-id/ata-X_1"):
        tree.link(f"/dev/disk/{name}", "/dev/sdb")
    return tree


@pytest.mark.parametrize(
    "mount",
    [
        "/data",
        f"UUID={UUID}",
        f"UUID={UUID.upper()}",
        "LABEL=my images",
        "/dev/sdb",
        "/dev/disk/by-id/ata-X_1",
    ],
)
def test_the_wanted_file_system_is_mounted(disk: Tree, mount: str) -> None:
    assert wanted(disk, mount) is None


@pytest.mark.parametrize(
    "mount", ["/data", f"UUID={UUID}", "LABEL=my images", "/dev/sdb", "/dev/disk/by-id/gone"]
)
def test_the_wanted_file_system_is_not_mounted(disk: Tree, mount: str) -> None:
    found = wanted(disk, mount, BARE) or ""
    assert mount in found and "it lies on / (/dev/sda1)" in found


def test_nothing_is_mounted_at_all(disk: Tree) -> None:
    assert mounting.unmounted(disk.view, "/data", None, "/data") == "/data is wanted, and nothing is mounted"


def superblock(magic: bytes, magic_at: int, uuid_at: int) -> bytes:
    content = bytearray(70000)
    content[magic_at : magic_at + len(magic)] = magic
    content[uuid_at : uuid_at + 16] = bytes.fromhex(UUID.replace("-", ""))
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (superblock(b"XFSB", 0, 32), UUID),
        (superblock(b"\x53\xef", 1080, 1128), UUID),
        (superblock(b"_BHRfS_M", 65600, 65568), UUID),
        (superblock(b"????", 0, 32), None),
        (b"XFSB", None),
        (b"", None),
    ],
)
def test_a_uuid_from_the_superblock(tree: Tree, content: bytes, found: str | None) -> None:
    tree.folder("/dev")
    (tree.root / "dev/sdb").write_bytes(content)
    mount: Any = MountTable.parse(MOUNTED).mounts[1]
    assert mounting.filesystem_uuid(tree.view, mount) == found


def test_a_real_file_system_is_asked(tmp_path: Path) -> None:
    table = MountTable.parse(Path("/proc/self/mountinfo").read_text())
    mount = table.of(os.path.realpath(tmp_path))
    assert mount is not None
    found = mounting.filesystem_uuid(View(), mount)
    assert found is None or str(uuid.UUID(found)) == found
    assert mounting.filesystem_label(View(), mount) != ""
