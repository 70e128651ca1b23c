# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds and who sees a data root, in made-up process trees."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _data_root_holders as holders
from ansible_collections.matryoshka.host.plugins.module_utils import _data_root_processes as processes
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_holders import Root
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_processes import Namespace, Owner
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import MountTable
from ansible_collections.matryoshka.host.plugins.module_utils._verify_kernel import parse_locks
from hypothesis import given
from hypothesis import strategies as st
from support.sysfs_tree import Tree

A, B, C = "a" * 64, "b" * 64, "c" * 64
DATA = "/data"
FILE = f"{DATA}/volumes/metadata.db"


@pytest.mark.parametrize(
    ("cgroup", "ids"),
    [
        ("0::/init.scope", ()),
        ("0::/system.slice/docker.service", ()),
        ("0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker.service", ()),
        (f"0::/system.slice/docker-{A}.scope", (A,)),
        (f"0::/docker/{A}", (A,)),
        (f"0::/docker/{A}/init", (A,)),
        (f"0::/docker/{A}/docker/{B}", (A, B)),
        (f"0::/system.slice/docker-{A}.scope/system.slice/docker-{B}.scope", (A, B)),
        (f"12:pids:/docker/{A}\n1:name=systemd:/docker/{A}\n0::/", (A,)),
        (f"0::/matryoshka.slice/matryoshka-ci.slice/{A}", (A,)),
        (f"0::/matryoshka.slice/matryoshka-ci.slice/{A}/docker/{B}", (A, B)),
        (f"0::/matryoshka.slice/matryoshka-ci.slice/docker-{A}.scope", (A,)),
        (f"9:cpu:/docker/{A}\n1:name=systemd:/docker/{A}/docker/{B}\n", (A, B)),
        (f"0::/machine.slice/libpod-{A}.scope/container", (A,)),
        (f"0::/machine.slice/libpod-conmon-{A}.scope", ()),
        (f"0::/libpod_parent/libpod-{A}", (A,)),
        (f"0::/kubepods/burstable/pod1/{A}", (A,)),
        (f"0::/kubepods/pod1/{A}", (A,)),
        (f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{A}.scope", (A,)),
        ("0::/machine.slice/machine-build.scope/init.scope", ("build",)),
        ("0::/lxc.payload.guest/init.scope", ("guest",)),
        ("", ()),
        ("nonsense", ()),
    ],
)
def test_containers_in_a_cgroup(cgroup: str, ids: tuple[str, ...]) -> None:
    assert processes.container_ids(cgroup) == ids


@given(st.text(alphabet="0:/docker-abf.scope\n", max_size=80))
def test_any_text_of_a_cgroup_is_read(text: str) -> None:
    assert isinstance(processes.container_ids(text), tuple)


@given(st.lists(st.text(alphabet="0123456789abcdef", min_size=64, max_size=64), unique=True, max_size=4))
def test_nested_containers_come_in_order(ids: list[str]) -> None:
    path = "".join(f"/docker/{one}" for one in ids) or "/"
    assert processes.container_ids(f"0::{path}\n") == tuple(ids)


@pytest.mark.parametrize(
    ("owner", "name", "called"),
    [
        (Owner(), "host", True),
        (Owner(), "ci", False),
        (Owner((A,), "ci"), "ci", True),
        (Owner((A,), "ci"), "host", False),
        (Owner((A,), "host"), "host", False),
        (Owner((A,), "ci"), A[:12], True),
        (Owner((A,), "ci"), A[:11], False),
        (Owner((A, B), "inner"), B[:12], True),
        (Owner((A, B), "inner"), A[:12], False),
    ],
)
def test_what_an_owner_is_called(owner: Owner, name: str, called: bool) -> None:
    assert owner.is_called(name) is called


def test_an_owner_is_who_it_is_by_its_ids() -> None:
    assert Owner((A,), "one") == Owner((A,), "two") != Owner((B,), "one")


def test_names_from_docker_s_and_podman_s_files(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.process(1, "systemd")
    tree.write(f"/var/lib/docker/containers/{A}/config.v2.json", '{"Name": "/ci-1"}')
    tree.write(f"/var/lib/docker/containers/{C}/config.v2.json", "{ broken")
    tree.write(
        "/var/lib/containers/storage/overlay-containers/volatile-containers.json",
        f'[{{"id": "{B}", "names": ["build"]}}, {{"id": "x"}}]',
    )
    owners = processes.Owners(tree.view)
    found = [owners.of(9, f"0::/docker/{identity}").name for identity in (A, B, C)]
    assert found == ["ci-1", "build", C[:12]]


def test_a_container_without_a_cgroup_of_its_own_is_told_by_its_namespace(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.process(1, "systemd")
    tree.process(70, "dockerd", mount="mnt:[7]", space="pid:[7]", cgroup="0::/system.slice/x.service")
    tree.process(71, "rootlesskit", mount="mnt:[8]", cgroup="0::/user.slice/docker.service")
    owners = processes.Owners(tree.view)
    assert owners.of(70) == Owner(("pid:[7]",))
    assert owners.of(70).label == "the container of dockerd (pid 70)"
    assert owners.of(71).host


def test_processes_by_namespace(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.process(1, "systemd")
    tree.process(5, "dockerd", cgroup="0::/system.slice/docker.service")
    tree.process(31, "sh", mount="mnt:[3]", space="pid:[3]", cgroup=f"0::/docker/{A}")
    tree.process(30, "tini", mount="mnt:[3]", space="pid:[3]", cgroup=f"0::/docker/{A}")
    tree.process(32, "dockerd", mount="mnt:[3]", space="pid:[3]", cgroup=f"0::/docker/{A}")
    tree.write("/proc/40/stat", "40 (secret) S 1 1")
    tree.write("/proc/41/stat", "41 (gone) Z 1 1")
    tree.folder("/proc/sys")
    found = processes.read_processes(tree.view, processes.Owners(tree.view))
    assert found.unreadable == 1
    assert [(one.first, one.owner.ids, one.engines) for one in found.others] == [
        (30, (A,), [(32, "dockerd")])
    ]
    assert found.namespaces[("mnt:[1]", "/")].engines == [(5, "dockerd")]


@pytest.mark.parametrize(
    ("real", "line", "inner"),
    [
        ("/data/root", "1 0 8:1 / /data rw - ext4 /dev/sda1 rw", "/root"),
        ("/data", "1 0 8:1 / /data rw - ext4 /dev/sda1 rw", "/"),
        ("/data/root", "1 0 8:1 /volumes/x /data rw - ext4 /dev/sda1 rw", "/volumes/x/root"),
        ("/srv", "1 0 8:1 / / rw - ext4 /dev/sda1 rw", "/srv"),
        ("/data/r", "1 0 0:47 /@data /data rw - btrfs /dev/sda1 rw,subvol=/@data", "/@data/r"),
    ],
)
def test_the_path_within_the_file_system(real: str, line: str, inner: str) -> None:
    assert holders.locate(real, MountTable.parse(line).mounts[0]) == inner


SPACE = Namespace(30, Owner((A,), "ci"), "", [(32, "dockerd"), (33, "dockerd")])


def seen(*lines: str, inner: str = "/data/root") -> list[tuple[str, str | None, bool]]:
    """Path, part and read-only of what is seen of a root in a namespace with these mounts."""
    table = MountTable.parse("1 0 0:9 / / rw - overlay overlay rw\n" + "".join(f"{line}\n" for line in lines))
    root = Root("/host/path", "8:1", inner, {})
    return [(one.path, one.part, one.read_only) for one in holders.sights(root, table, SPACE)]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["2 1 8:1 /data/root /var/lib/docker rw - ext4 /dev/x rw"], [("/var/lib/docker", None, False)]),
        (["2 1 8:1 / /host rw - ext4 /dev/x rw"], [("/host/data/root", None, False)]),
        (["2 1 8:1 /data /host ro - ext4 /dev/x rw"], [("/host/root", None, True)]),
        (["2 1 8:1 /data /host rw - ext4 /dev/x ro"], [("/host/root", None, True)]),
        (["2 1 8:1 /data/rootless /x rw - ext4 /dev/x rw"], []),
        (["2 1 8:1 /data/other /x rw - ext4 /dev/x rw"], []),
        (["2 1 8:2 /data/root /x rw - ext4 /dev/y rw"], []),
        (["2 1 8:1 /data/root/overlay2 /x rw - ext4 /dev/x rw"], [("/x", "overlay2", False)]),
        (["2 1 8:1 /data/root/volumes /x rw - ext4 /dev/x rw"], [("/x", "volumes", False)]),
        (["2 1 8:1 /data/root/image/overlay2 /x rw - ext4 /dev/x rw"], [("/x", "image/overlay2", False)]),
        (["2 1 8:1 /data/root/volumes/v/_data /x rw - ext4 /dev/x rw"], []),
        ([f"2 1 8:1 /data/root/containers/{A}/hosts /etc/hosts rw - ext4 /dev/x rw"], []),
        ([f"2 1 8:1 /data/root/vfs/dir/{A} /rootfs rw - ext4 /dev/x rw"], []),
        ([f"2 1 8:1 /data/root/overlay-containers/{A}/userdata/hosts /etc/hosts rw - ext4 /dev/x rw"], []),
        (["2 1 8:1 /data/root/io.containerd.runtime.v2.task/x /x rw - ext4 /dev/x rw"], []),
        (
            ["2 1 8:1 /data/root /x rw - ext4 /dev/x rw", "3 2 0:8 / /x rw - tmpfs tmpfs rw"],
            [],
        ),
        (
            ["2 1 8:1 /data /x rw - ext4 /dev/x rw", "3 2 0:8 / /x/root rw - tmpfs tmpfs rw"],
            [],
        ),
        (
            ["2 1 8:1 /data/root /x rw - ext4 /dev/x rw", "3 1 8:1 /data /y ro - ext4 /dev/x rw"],
            [("/x", None, False), ("/y/root", None, True)],
        ),
    ],
)
def test_where_a_root_is_seen(lines: list[str], found: list[tuple[str, str | None, bool]]) -> None:
    assert seen(*lines) == found


PARTS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=4)


@given(PARTS, PARTS)
def test_a_root_is_seen_whole_exactly_through_itself_and_what_is_above_it(
    shown: list[str], inner: list[str]
) -> None:
    line = f"2 1 8:1 /{'/'.join(shown)} /x rw - ext4 /dev/x rw"
    whole = [path for path, part, _ignored in seen(line, inner="/" + "/".join(inner)) if part is None]
    rest = inner[len(shown) :]
    assert whole == (["/".join(["/x", *rest])] if inner[: len(shown)] == shown else [])


def test_engines_in_sight_each_once() -> None:
    table = MountTable.parse(
        "1 0 0:9 / / rw - overlay overlay rw\n2 1 8:1 /data/root /x rw - ext4 /dev/x rw\n"
    )
    sight = holders.sights(Root("/p", "8:1", "/data/root", {}), table, SPACE)[0]
    assert (sight.engines, sight.owner.name) == (("dockerd",), "ci")


def test_layers_in_use_are_those_mounted_here() -> None:
    table = MountTable.parse(
        "1 0 0:9 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/var/lib/docker/overlay2/x/diff,workdir=/w\n"
        "2 1 8:1 / /var/lib/docker rw - ext4 /dev/x rw\n"
        "3 2 0:20 / /var/lib/docker/overlay2/a/merged rw - overlay overlay rw,upperdir=/var/lib/docker/overlay2/a/diff\n"
        "4 2 0:21 / /var/lib/docker/overlay2/b/merged rw - overlay overlay rw,upperdir=/var/lib/docker/overlay2/b/diff\n"
        "5 2 0:22 / /x rw - overlay overlay rw,upperdir=/var/lib/docker2/overlay2/b/diff\n"
    )
    assert holders.layers_in_use(table, "/var/lib/docker") == {"0:20", "0:21"}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A host whose docker.service holds a data root, with containerd as its child."""
    tree = Tree(tmp_path)
    for name in (FILE, f"{DATA}/containerd/meta.db", f"{DATA}/buildkit/cache.db"):
        tree.write(name)
    tree.process(1, "systemd")
    unit = "0::/system.slice/docker.service"
    tree.process(50, "dockerd", parent=1, cgroup=unit, opened=[FILE, "/etc/hosts"])
    tree.process(51, "containerd", parent=50, cgroup=unit, opened=[f"{DATA}/containerd/meta.db"])
    return tree


def root_of(tree: Tree, engine: str = "docker", device: str = "8:1") -> Root:
    names = ("volumes/metadata.db", "containerd/meta.db", "buildkit/cache.db", "gone.db")
    return Root(DATA, device, DATA, holders.stat_files(tree.view, DATA, names), engine)


def held(tree: Tree, locks: str, root: Root | None = None) -> list[Any]:
    owners = processes.Owners(tree.view)
    found = processes.read_processes(tree.view, owners)
    root = root or root_of(tree)
    return holders.find_holders(tree.view, [root], parse_locks(locks), found, owners)[DATA]


def test_an_engine_and_the_containerd_it_started_are_one_holder(tree: Tree) -> None:
    locks = tree.lock(FILE, 50) + tree.lock(f"{DATA}/containerd/meta.db", 51)
    found = held(tree, locks)
    assert [(one.pids, one.names, one.unit, one.locks) for one in found] == [
        ((50, 51), ("dockerd", "containerd"), "docker.service", True)
    ]
    assert found[0].files == ("containerd/meta.db", "volumes/metadata.db")
    assert found[0].label == "dockerd (pid 50), containerd (pid 51) of the host"


def test_a_second_engine_waits_in_a_container(tree: Tree) -> None:
    inside = {"mount": "mnt:[6]", "space": "pid:[6]", "cgroup": f"0::/docker/{A}"}
    tree.process(60, "sh", parent=1, **inside)  # type: ignore[arg-type]
    tree.process(61, "dockerd", parent=60, opened=[FILE], **inside)  # type: ignore[arg-type]
    found = held(tree, tree.lock(FILE, 50) + "2: -> FLOCK  ADVISORY  WRITE 61 08:01:7 0 EOF\n")
    assert [(one.owner.ids, one.locks) for one in found] == [((), True), ((A,), False)]


def test_a_second_engine_on_the_host_is_another_holder(tree: Tree) -> None:
    tree.process(70, "dockerd", parent=1, cgroup="0::/system.slice/other.service", opened=[FILE])
    assert [one.pids for one in held(tree, tree.lock(FILE, 50))] == [(50, 51), (70,)]


def test_podman_s_commands_share_their_root(tree: Tree) -> None:
    tree.process(80, "podman", parent=1, opened=[FILE])
    tree.process(81, "podman", parent=1, opened=[FILE])
    pids = [one.pids for one in held(tree, "", root_of(tree, "podman"))]
    assert pids == [(50, 51, 80, 81)]


def test_any_program_s_lock_holds(tree: Tree) -> None:
    tree.process(90, "backup", parent=1, cgroup="0::/system.slice/backup.service")
    found = held(tree, tree.lock(f"{DATA}/buildkit/cache.db", 90))
    assert [(one.names, one.unit) for one in found][1:] == [(("backup",), "backup.service")]


def test_a_lock_on_another_device_is_not_ours(tree: Tree) -> None:
    tree.process(90, "other", parent=1, opened=[FILE])
    assert [one.pids for one in held(tree, tree.lock(FILE, 90, "08:99"))] == [(50, 51)]


@pytest.mark.parametrize(("opened", "more"), [([FILE], [(90,)]), ([], [])])
def test_on_btrfs_the_process_must_have_the_very_file_open(
    tree: Tree, opened: list[str], more: list[tuple[int, ...]]
) -> None:
    """Inode numbers repeat in subvolumes, and ``/proc/locks`` has the number of the file system."""
    tree.process(90, "other", parent=1, opened=opened)
    found = held(tree, tree.lock(FILE, 90, "00:2f"), root_of(tree, device="0:47"))
    assert [one.pids for one in found] == [(50, 51), *more]


def test_a_lock_of_an_open_file_description_is_of_who_has_it_open(tree: Tree) -> None:
    found = held(tree, tree.lock(FILE, -1).replace("FLOCK ", "OFDLCK"))
    assert [(one.pids, one.locks) for one in found] == [((50, 51), True)]


def test_nobody(tree: Tree) -> None:
    for pid in (50, 51):
        for number in (0, 1):
            path = tree.root / f"proc/{pid}/fd/{number}"
            if os.path.lexists(path):
                path.unlink()
    assert held(tree, "") == []


def test_a_process_that_is_gone_is_told_without_a_name(tree: Tree) -> None:
    found = held(tree, tree.lock(FILE, 4711))
    assert found[-1].label == "a process (pid 4711) of the host"
