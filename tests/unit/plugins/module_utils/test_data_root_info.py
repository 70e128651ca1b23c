# SPDX-License-Identifier: GPL-3.0-or-later
"""data_root_info as a whole, on made-up hosts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_info import answer
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.modules import data_root_info
from support.sysfs_tree import Tree

CI, SPY = "a" * 64, "b" * 64
ENGINE, RUNNER = "/var/lib/docker", "/var/lib/matryoshka/ci/data"
MOUNTS = "1 0 8:1 / / rw - ext4 /dev/sda1 rw,discard\n"
OVERLAY = "1 0 0:{} / / rw - overlay overlay rw,upperdir=/var/lib/docker/overlay2/x/diff\n"


def docker(tree: Tree, path: str) -> None:
    """What a dockerd leaves in its root."""
    for name in ("image/overlay2/repositories.json", "volumes/metadata.db", "overlay2/a/link"):
        tree.write(f"{path}/{name}")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A host with its own dockerd and the environment ``ci`` with another one."""
    tree = Tree(tmp_path)
    place = "pci0000:00/0000:00:17.0/ata1/host1/target1:0:0/1:0:0:0/block/sda"
    tree.block(place, "8:0", sectors=1 << 30)
    tree.block(f"{place}/sda1", "8:1", {"partition": "1"}, sectors=1 << 29)
    for path in (ENGINE, RUNNER):
        docker(tree, path)
    tree.write(f"{ENGINE}/containers/{CI}/config.v2.json", '{"Name": "/ci"}')
    tree.write("/proc/self/mountinfo", MOUNTS)
    tree.process(1, "systemd", mountinfo=MOUNTS)
    unit = "0::/system.slice/docker.service"
    tree.process(50, "dockerd", parent=1, cgroup=unit, opened=[f"{ENGINE}/volumes/metadata.db"])
    inside = {"mount": "mnt:[6]", "space": "pid:[6]", "cgroup": f"0::/docker/{CI}"}
    mounts = OVERLAY.format(20) + f"2 1 8:1 {RUNNER} /var/lib/docker rw - ext4 /dev/sda1 rw\n"
    tree.process(60, "tini", parent=1, mountinfo=mounts, **inside)  # type: ignore[arg-type]
    opened = [f"{RUNNER}/volumes/metadata.db"]
    tree.process(61, "dockerd", parent=60, opened=opened, **inside)  # type: ignore[arg-type]
    locks = tree.lock(f"{ENGINE}/volumes/metadata.db", 50) + tree.lock(f"{RUNNER}/volumes/metadata.db", 61)
    tree.write("/proc/locks", locks)
    return tree


def asked(tree: Tree, *roots: dict[str, Any], **more: Any) -> dict[str, Any]:
    return answer({"roots": list(roots), **more}, tree.view)


def codes(root: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in root["reasons"]]


def test_two_sound_roots(tree: Tree) -> None:
    found = asked(tree, {"path": RUNNER, "holder": "ci"}, {"path": ENGINE, "holder": "host"})
    assert (found["verdict"], found["unreadable"]) == ("ok", 0)
    runner, engine = found["roots"]
    assert (runner["path"], engine["path"]) == (RUNNER, ENGINE)
    assert runner["owner"] == {"name": "ci", "container": CI, "inside": []}
    assert engine["owner"] == {"name": "host", "container": None, "inside": []}
    assert (runner["engine"], runner["driver"], runner["disk"]) == ("docker", "overlay2", "ssd")
    assert [layer["name"] for layer in runner["devices"]] == ["sda1", "sda"]
    assert runner["discard"] == {"passes": True, "stopped_by": [], "mounted": True}
    assert runner["holders"] == [
        {
            "name": "ci",
            "container": CI,
            "inside": [],
            "processes": [{"pid": 61, "name": "dockerd"}],
            "unit": None,
            "files": ["volumes/metadata.db"],
            "locks": True,
        }
    ]
    assert [(one["name"], one["path"], one["foreign"]) for one in runner["seen_by"]] == [
        ("ci", "/var/lib/docker", False)
    ]
    assert engine["seen_by"] == []
    assert engine["holders"][0]["unit"] == "docker.service"


def test_a_container_with_another_s_root(tree: Tree) -> None:
    mounts = OVERLAY.format(21) + "2 1 8:1 / /host rw - ext4 /dev/sda1 rw\n"
    tree.process(70, "sh", mount="mnt:[7]", space="pid:[7]", cgroup=f"0::/docker/{SPY}", mountinfo=mounts)
    found = asked(tree, {"path": RUNNER}, {"path": ENGINE})
    assert found["verdict"] == "broken"
    assert [codes(root) for root in found["roots"]] == [["foreign_mount"], ["foreign_mount"]]
    spy = found["roots"][0]["seen_by"][1]
    assert (spy["name"], spy["path"], spy["foreign"]) == (SPY[:12], f"/host{RUNNER}", True)


def test_a_second_daemon(tree: Tree) -> None:
    mounts = OVERLAY.format(21) + f"2 1 8:1 {RUNNER} /var/lib/docker rw - ext4 /dev/sda1 rw\n"
    inside = {"mount": "mnt:[7]", "space": "pid:[7]", "cgroup": f"0::/docker/{SPY}"}
    tree.process(70, "dockerd", mountinfo=mounts, opened=[f"{RUNNER}/volumes/metadata.db"], **inside)  # type: ignore[arg-type]
    root = asked(tree, {"path": RUNNER, "holder": "ci"})["roots"][0]
    assert (root["verdict"], codes(root)) == ("broken", ["two_holders", "foreign_mount"])
    assert [one["locks"] for one in root["holders"]] == [True, False]
    assert root["reasons"][0]["severity"] == "broken"


def test_a_service_of_the_host_in_a_mount_namespace_of_its_own_is_counted(tree: Tree) -> None:
    tree.process(80, "timesyncd", mount="mnt:[8]", cgroup="0::/system.slice/x.service", mountinfo=MOUNTS)
    root = asked(tree, {"path": RUNNER})["roots"][0]
    assert (root["verdict"], root["host_namespaces"], len(root["seen_by"])) == ("ok", 1, 1)


@pytest.mark.parametrize(
    ("mounts", "verdict"),
    [(MOUNTS, "ok"), (OVERLAY.format(21) + MOUNTS.replace("1 0 8:1 / /", "2 1 8:1 / /x"), "broken")],
)
def test_a_sandbox_on_the_host_s_files_is_no_container(tree: Tree, mounts: str, verdict: str) -> None:
    tree.process(80, "bwrap", mount="mnt:[8]", space="pid:[8]", mountinfo=mounts)
    root = asked(tree, {"path": RUNNER})["roots"][0]
    assert (root["verdict"], root["host_namespaces"]) == (verdict, int(verdict == "ok"))


def test_a_root_that_is_not_there_and_one_through_a_link(tree: Tree) -> None:
    tree.link("/srv/data", RUNNER)
    found = asked(tree, {"path": "/srv/none/data"}, {"path": "/srv/data/"})
    none, link = found["roots"]
    assert (none["exists"], none["mounted_on"], codes(none)) == (False, "/srv", ["absent"])
    assert (none["holders"], none["quota"]["kind"], none["engine"]) == ([], None, None)
    assert (link["path"], link["real_path"], link["owner"]["name"]) == ("/srv/data", RUNNER, "ci")
    assert found["verdict"] == "degraded"
    assert asked(tree, {"path": "/srv/none/data"}, allow=["absent"])["verdict"] == "ok"


def test_no_roots(tree: Tree) -> None:
    assert asked(tree) == {"verdict": "ok", "roots": [], "unreadable": 0}


def test_a_planned_mount_and_a_wanted_one(tree: Tree) -> None:
    tree.write("/etc/fstab", "UUID=1 /var/lib/matryoshka xfs nofail 0 2\n")
    root = asked(tree, {"path": RUNNER})["roots"][0]
    assert codes(root) == ["not_mounted"]
    assert "/etc/fstab has UUID=1 on /var/lib/matryoshka" in root["reasons"][0]["text"]
    wanted = asked(tree, {"path": RUNNER, "mount": "/"})["roots"][0]
    assert codes(wanted) == []


REFUSED = [
    ({"roots": [{"path": "data"}]}, "roots[0].path: 'data' is refused; allowed: an absolute path"),
    ({"roots": [{"path": ""}]}, "roots[0].path: '' is refused; allowed: an absolute path"),
    ({"roots": [{"path": "/a\0b"}]}, "roots[0].path: '/a\\x00b' is refused; allowed: an absolute path"),
    (
        {"roots": [{"path": ENGINE}, {"path": "/var/lib//docker/"}]},
        "roots[1].path: '/var/lib//docker/' is refused; allowed: each path once",
    ),
    (
        {"roots": [{"path": ENGINE, "holder": "a b"}]},
        "roots[0].holder: 'a b' is refused; allowed: host, or a container's name or id",
    ),
    ({"roots": [{"path": ENGINE, "holder": ""}]}, "roots[0].holder: '' is refused"),
    (
        {"roots": [{"path": ENGINE, "mount": "sdb"}]},
        "roots[0].mount: 'sdb' is refused; allowed: a mount point (an absolute path), UUID=..., LABEL=..., or",
    ),
    ({"roots": [], "allow": ["absnt"]}, "allow: 'absnt' is refused; allowed: one of two_holders"),
]


def everything(tree: Tree) -> list[tuple[str, int, int]]:
    return [
        (path, found.st_mtime_ns, found.st_size)
        for folder, _ignored, files in os.walk(tree.root)
        for path in [folder, *(os.path.join(folder, name) for name in files)]
        for found in [os.lstat(path)]
    ]


@pytest.mark.parametrize(("params", "message"), REFUSED)
def test_refused_before_anything_is_looked_at(tree: Tree, params: dict[str, Any], message: str) -> None:
    before = everything(tree)
    with pytest.raises(InputError) as error:
        answer(params, tree.view)
    assert message in str(error.value)
    assert everything(tree) == before


def test_looking_changes_nothing(tree: Tree) -> None:
    before = everything(tree)
    asked(tree, {"path": ENGINE}, {"path": RUNNER}, {"path": "/none"})
    assert everything(tree) == before


def test_one_pass_for_twenty_roots_and_fifty_containers(tree: Tree) -> None:
    """Processes are looked at once, however many roots there are."""
    for number in range(50):
        identity = f"{number:064x}"
        more = "".join(f"{n} 1 0:{100 + n} / /m{n} rw - tmpfs tmpfs rw\n" for n in range(3, 30))
        mounts = (
            OVERLAY.format(30 + number) + f"2 1 8:1 /roots/{number} /var/lib/docker rw - ext4 /dev/sda1 rw\n"
        )
        for pid in range(4):
            tree.process(
                1000 + 10 * number + pid,
                "dockerd" if pid == 1 else "sh",
                mount=f"mnt:[{number}c]",
                space=f"pid:[{number}c]",
                cgroup=f"0::/docker/{identity}",
                mountinfo=mounts + more,
            )
        docker(tree, f"/roots/{number}")
    roots = [{"path": f"/roots/{number}"} for number in range(20)]
    begun = time.process_time()
    found = asked(tree, *roots)
    assert time.process_time() - begun < 2
    assert found["verdict"] == "ok"
    assert [root["owner"]["container"] for root in found["roots"]] == [
        f"{number:064x}" for number in range(20)
    ]


def test_every_value_returned_is_documented(tree: Tree) -> None:
    documented = yaml.safe_load(data_root_info.RETURN)
    found = asked(tree, {"path": ENGINE})
    assert set(found) == set(documented)
    contains = documented["roots"]["contains"]
    text = data_root_info.RETURN
    for name in found["roots"][0]:
        assert name in contains or f"C({name})" in text, name
    for part in ("quota", "discard"):
        words = str(contains[part]["description"])
        assert [key for key in found["roots"][0][part] if f"C({key})" not in words] == []
    layer = str(contains["devices"]["description"])
    assert [key for key in found["roots"][0]["devices"][0] if f"C({key})" not in layer] == []
    assert set(contains) <= set(found["roots"][0])
