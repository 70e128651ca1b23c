# SPDX-License-Identifier: GPL-3.0-or-later
"""project_quotas on real file systems: a writer really stops at the limit, a neighbour goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

MIB = 1 << 20
OWNER = "quotatest"
IMAGES = "/var/lib/matryoshka"
MAKE = {
    "xfs": "mkfs.xfs -q -f {image}",
    "ext4": "mkfs.ext4 -q -F -O project,quota {image}",
    "btrfs": "mkfs.btrfs -q -f {image}",
}
OPTION = {"xfs": "prjquota", "ext4": "prjquota", "btrfs": "defaults"}
KERNEL = {"xfs": "CONFIG_XFS_QUOTA=y", "ext4": "CONFIG_QFMT_V2=[ym]"}
FULL = {"xfs": "No space left on device", "ext4": "Disk quota exceeded", "btrfs": "Disk quota exceeded"}
WRITE = "python3 -c 'import os, sys; os.setgid(65534); os.setuid({uid}); write = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644); [os.write(write, os.urandom(1 << 20)) for number in range({mib})]; os.fsync(write)' {path}"


@dataclass(frozen=True)
class Volume:
    """A mounted file system that can count, made for one test."""

    host: Any
    filesystem: str
    path: str

    def quotas(
        self, *entries: dict[str, Any], check: bool = False, diff: bool = False, **options: Any
    ) -> dict[str, Any]:
        """Run the module with paths below the volume."""
        quotas = [entry | {"path": f"{self.path}/{entry['path']}"} for entry in entries]
        arguments = {"quotas": quotas, "owner": OWNER} | options
        found: dict[str, Any] = self.host.module("project_quotas", arguments, check=check, diff=diff)
        return found

    def done(self, *entries: dict[str, Any], **options: Any) -> dict[str, Any]:
        """The same where it has to succeed."""
        found = self.quotas(*entries, **options)
        assert not found.get("failed"), found
        return found

    def write(self, name: str, mib: int, uid: int = 65534) -> str:
        """Append random bytes to a file; what the kernel said, empty if all was written."""
        line = WRITE.format(uid=uid, mib=mib, path=f"{self.path}/{name}")
        done = self.host.run(line, check=False)
        return "" if done.ok else str(done.err.strip().splitlines()[-1])

    def open_for_all(self, *names: str) -> None:
        self.host.run("chmod 1777 " + " ".join(f"{self.path}/{name}" for name in names))

    def used(self, name: str) -> int:
        return int(self.host.run(f"sync; du -s -B1 {self.path}/{name}").out.split()[0])

    def state(self) -> str:
        """All that a refused call must leave alone."""
        line = (
            f"cat /etc/projects /etc/projid; find {self.path} -xdev -printf '%p %y %m %U\\n' | sort;"
            f" find {self.path} -xdev -type d | sort | xargs lsattr -pd 2>/dev/null; sync -f {self.path};"
        )
        if self.filesystem == "btrfs":
            line += f" btrfs qgroup show -r --raw {self.path}; btrfs subvolume list {self.path} | cut -d' ' -f2,9;"
        else:
            line += (
                f" repquota -P -n -v {self.path};" if self.host.run("which repquota", check=False).ok else ""
            )
        return str(self.host.run(line + " true", check=False).out)


def attach(host: Any, image: str, path: str, option: str) -> None:
    """Mount an image through a loop device that goes when it is unmounted.

    Loop devices are shared with other hosts on the machine, and a container host may lack the device's node.
    """
    line = (
        "node=$(losetup -f | cut -d' ' -f1) && { [ -b $node ] || mknod $node b 7 ${node#/dev/loop}; }"
        f" && losetup $node {image} && {{ mount -o {option} $node {path}; code=$?; losetup -d $node; exit $code; }}"
    )
    for attempt in range(20):
        if host.run(line, check=attempt == 19).ok:
            return


def volume_of(host: Any, filesystem: str) -> Iterator[Volume]:
    """Make, mount, hand over, and take away again."""
    wanted = KERNEL.get(filesystem)
    if wanted:
        config = "{ zcat /proc/config.gz || cat /boot/config-$(uname -r); } 2>/dev/null"
        if host.run(f"{config} | grep -q ^CONFIG && ! {config} | grep -q '^{wanted}'", check=False).ok:
            pytest.skip(
                f"this kernel has no project quotas for {filesystem} ({wanted}); the VM tier shows them"
            )
    image, path = f"{IMAGES}/quota-{filesystem}.img", f"/mnt/quota-{filesystem}"
    host.run(
        f"umount -q {path}; rm -f {image}; mkdir -p {IMAGES} {path} && truncate -s 512M {image} && "
        + MAKE[filesystem].format(image=image)
    )
    attach(host, image, path, OPTION[filesystem])
    host.run(
        f"touch /etc/projects /etc/projid; sed -i /{OWNER}/d /etc/projid; sed -i /quota-/d /etc/projects"
    )
    yield Volume(host, filesystem, path)
    host.run(
        f"umount {path}; rmdir {path}; rm {image}; sed -i /{OWNER}/d /etc/projid; sed -i /quota-/d /etc/projects"
    )


@pytest.fixture(params=["btrfs", "xfs", "ext4"])
def volume(request: pytest.FixtureRequest, docker_host: Any) -> Iterator[Volume]:
    """Each file system that has quotas for directories."""
    yield from volume_of(docker_host, request.param)


@pytest.fixture(params=["xfs", "ext4"])
def projects(request: pytest.FixtureRequest, docker_host: Any) -> Iterator[Volume]:
    """Those with project ids."""
    yield from volume_of(docker_host, request.param)


@pytest.fixture
def btrfs(docker_host: Any) -> Iterator[Volume]:
    yield from volume_of(docker_host, "btrfs")


@pytest.fixture
def xfs_unmounted(docker_host: Any) -> Iterator[Any]:
    """An XFS mounted without quotas, on any kernel."""
    image, path = f"{IMAGES}/quota-plain.img", "/mnt/quota-plain"
    docker_host.run(f"mkdir -p {IMAGES} {path} && truncate -s 320M {image} && mkfs.xfs -q -f {image}")
    attach(docker_host, image, path, "defaults")
    yield docker_host
    docker_host.run(f"umount {path}; rmdir {path}; rm {image}")


def test_a_writer_stops_at_its_limit_and_a_neighbour_goes_on(volume: Volume) -> None:
    wanted = [{"path": "a", "size": "24M"}, {"path": "b", "size": "24M"}]
    planned = volume.done(*wanted, check=True, diff=True)
    assert planned["changed"] and not volume.host.exists(f"{volume.path}/a")
    assert f"{volume.path}/a: not there" in planned["diff"][0]["before"]
    assert f"size {24 * MIB}" in planned["diff"][0]["after"]

    first = volume.done(*wanted)
    assert [one["enforced"] for one in first["quotas"]] == [True, True]
    assert [one["size"] for one in first["quotas"]] == [24 * MIB, 24 * MIB]
    assert (
        first["quotas"][0]["name"]
        == f"{OWNER}-mnt-quota-{volume.filesystem}-a-" + first["quotas"][0]["name"][-8:]
    )
    again = volume.done(*wanted, diff=True)
    assert (again["changed"], again["diff"]) == (False, [])

    volume.open_for_all("a", "b")
    assert FULL[volume.filesystem] in volume.write("a/fill", 40)
    assert 20 * MIB <= volume.used("a") <= 24 * MIB
    assert volume.write("b/fill", 16) == ""
    held = volume.done(*wanted)
    assert held["changed"] is False
    assert 20 * MIB <= held["quotas"][0]["used_bytes"] <= 24 * MIB
    assert 16 * MIB <= held["quotas"][1]["used_bytes"] < 18 * MIB


def test_limits_grow_and_shrink_in_place(volume: Volume) -> None:
    volume.done({"path": "a", "size": "16M"})
    volume.open_for_all("a")
    assert FULL[volume.filesystem] in volume.write("a/fill", 30)
    grown = volume.done({"path": "a", "size": "64M"})
    assert (grown["changed"], grown["marked"]) == (True, 0)
    assert volume.write("a/more", 24) == ""
    volume.host.run(f"rm {volume.path}/a/fill; sync -f {volume.path}")
    assert volume.done({"path": "a", "size": "32M"})["changed"]
    assert FULL[volume.filesystem] in volume.write("a/more", 30)
    volume.done({"path": "a"})
    assert volume.write("a/more", 40) == ""


def test_root_is_held_where_it_is_said(volume: Volume) -> None:
    found = volume.done({"path": "a", "size": "16M"})["quotas"][0]
    said = volume.write("a/fill", 30, uid=0)
    assert found["holds_root"] is (volume.filesystem != "ext4")
    if volume.filesystem == "ext4" and can_exceed(volume.host):
        assert said == "" and volume.used("a") >= 30 * MIB
        assert volume.done({"path": "a", "size": "16M"})["changed"] is False
    else:
        assert FULL[volume.filesystem] in said


def can_exceed(host: Any) -> bool:
    """Whether the host's root has CAP_SYS_RESOURCE."""
    return bool(int(host.run("awk '/CapEff/ {print $2}' /proc/self/status").out, 16) & 1 << 24)


def test_what_is_written_through_overlay_is_held_for_root_too(volume: Volume) -> None:
    volume.done({"path": "a", "size": "16M"})
    host, path = volume.host, volume.path
    host.run(
        f"mkdir {path}/a/upper {path}/a/work {path}/a/lower /mnt/quota-merged && mount -t overlay overlay"
        f" -o lowerdir={path}/a/lower,upperdir={path}/a/upper,workdir={path}/a/work /mnt/quota-merged"
    )
    said = host.run(WRITE.format(uid=0, mib=30, path="/mnt/quota-merged/fill"), check=False)
    host.run("umount /mnt/quota-merged; rmdir /mnt/quota-merged")
    assert FULL[volume.filesystem] in said.err


def test_below_what_is_used_is_refused(volume: Volume) -> None:
    volume.done({"path": "a", "size": "64M"})
    volume.open_for_all("a")
    assert volume.write("a/fill", 20) == ""
    before = volume.state()
    for check in (True, False):
        found = volume.quotas({"path": "b", "size": "8M"}, {"path": "a", "size": "8M"}, check=check)
        assert found["failed"]
        assert f"quotas[{volume.path}/a].size: '8M' is refused; allowed: at least 2" in found["msg"]
        assert "bytes, which are used there now" in found["msg"]
    assert volume.state() == before


def test_larger_than_the_disk_is_refused(volume: Volume) -> None:
    before = volume.state()
    found = volume.quotas({"path": "a", "size": "16M"}, {"path": "b", "size": "513M"})
    assert (
        f"quotas[{volume.path}/b].size: '513M' is refused; allowed: at most {512 * MIB} bytes" in found["msg"]
    )
    assert volume.state() == before
    assert volume.done({"path": "b", "size": "512M"})["quotas"][0]["enforced"]


def test_quotas_survive_a_new_mount(volume: Volume) -> None:
    wanted = {"path": "a", "size": "16M"}
    volume.done(wanted)
    volume.open_for_all("a")
    image = f"{IMAGES}/quota-{volume.filesystem}.img"
    volume.host.run(f"umount {volume.path}")
    attach(volume.host, image, volume.path, OPTION[volume.filesystem])
    again = volume.done(wanted)
    assert (again["changed"], again["quotas"][0]["enforced"]) == (False, True)
    assert FULL[volume.filesystem] in volume.write("a/fill", 30)


def test_orphans_are_lifted_and_strangers_stay(volume: Volume) -> None:
    host = volume.host
    host.run("echo 'other:77' >>/etc/projid; echo '77:/mnt/quota-other' >>/etc/projects")
    volume.done({"path": "a", "size": "16M"}, {"path": "b", "size": "16M"}, {"path": "gone", "size": "16M"})
    volume.open_for_all("a", "b")
    remove = "btrfs subvolume delete" if volume.filesystem == "btrfs" else "rmdir"
    host.run(f"{remove} {volume.path}/gone")
    kept = volume.done({"path": "a", "size": "16M"}, orphans=False)
    assert (kept["changed"], kept["lifted"]) == (False, [])
    lifted = volume.done({"path": "a", "size": "16M"})
    assert lifted["lifted"] == [f"{volume.path}/b", f"{volume.path}/gone"]
    assert volume.write("b/fill", 30) == ""
    assert FULL[volume.filesystem] in volume.write("a/fill", 30)
    files = host.run("cat /etc/projects /etc/projid").out
    assert "other:77" in files and "77:/mnt/quota-other" in files
    assert f"{volume.path}/b" not in files and "gone" not in files and f":{volume.path}/a" in files
    assert volume.done({"path": "a", "size": "16M"})["changed"] is False
    host.run("sed -i '/^other:77$/d' /etc/projid; sed -i '/quota-other/d' /etc/projects")


def test_a_tree_with_content_is_counted_whole(projects: Volume) -> None:
    host, path = projects.host, f"{projects.path}/full"
    host.run(
        f"mkdir -p {path}/deep/er '{path}/sp ace' && head -c 6M /dev/urandom >{path}/deep/er/file"
        f" && ln {path}/deep/er/file {path}/hard && ln -s /etc/passwd {path}/link && mkfifo {path}/pipe"
        f" && mknod {path}/null c 1 3 && echo x >'{path}/sp ace/ü' && mkdir {projects.path}/beside"
        f" && chmod -R a+rwX {path}"
    )
    refused = projects.quotas({"path": "full", "size": "4M"})
    assert "at least 6" in refused["msg"]
    made = projects.done({"path": "full", "size": "24M", "inodes": 40})
    assert made["marked"] >= 6
    found = made["quotas"][0]
    assert abs(found["used_bytes"] - projects.used("full")) <= 16384
    special = 0 if made["marked"] >= 9 else 3
    assert found["used_inodes"] == 9 - special
    assert project_ids(host, path) == {str(found["id"])}
    host.run(f"touch {path}/moved && mv {path}/moved {projects.path}/beside/")
    assert projects.write("full/deep/er/new", 30) != ""
    assert projects.done({"path": "full", "size": "24M", "inodes": 40})["changed"] is False
    assert projects.done()["lifted"] == [path]
    assert project_ids(host, path) == {"0"}


def project_ids(host: Any, path: str) -> set[str]:
    """The project ids of all files and directories of a tree."""
    line = f"find {path} \\( -type f -o -type d \\) -print0 | xargs -0 lsattr -pd"
    return {entry.split()[0] for entry in host.run(line).out.splitlines()}


def test_inodes_are_limited(projects: Volume) -> None:
    projects.done({"path": "a", "inodes": 10})
    projects.open_for_all("a")
    line = f"cd {projects.path}/a && setpriv --reuid 65534 --clear-groups sh -c 'for n in $(seq 20); do : >f$n; done'"
    assert FULL[projects.filesystem] in projects.host.run(line, check=False).err
    found = projects.done({"path": "a", "inodes": 10})["quotas"][0]
    assert (found["used_inodes"], found["inodes"], found["enforced"]) == (10, 10, True)
    refused = projects.quotas({"path": "a", "inodes": 5})
    assert f"quotas[{projects.path}/a].inodes: 5 is refused; allowed: at least 10 inodes" in refused["msg"]


def test_a_broken_walk_is_finished_by_the_next_run(projects: Volume) -> None:
    projects.done({"path": "a", "size": "16M"})
    before = projects.host.run(f"lsattr -pd {projects.path}/a").out
    projects.host.run(
        f"mkdir -p {projects.path}/a/in && chattr -p 0 {projects.path}/a/in && touch {projects.path}/a/in/file"
        f" && chattr -p 0 {projects.path}/a/in/file; sed -i /{OWNER}/d /etc/projid;"
        " sed -i /quota-/d /etc/projects"
    )
    again = projects.done({"path": "a", "size": "16M"})
    assert (again["changed"], again["marked"]) == (True, 2)
    assert projects.host.run(f"lsattr -pd {projects.path}/a").out == before


def test_a_directory_of_somebody_else_s_project_is_refused(projects: Volume) -> None:
    projects.host.run(
        f"mkdir {projects.path}/a; echo 'quota-else:99' >>/etc/projid; echo '99:{projects.path}/a' >>/etc/projects"
    )
    before = projects.state()
    found = projects.quotas({"path": "a", "size": "16M"})
    assert (
        f"/etc/projects gives it the project 99, whose name in /etc/projid doesn't begin with {OWNER}-"
        in found["msg"]
    )
    assert projects.state() == before
    projects.host.run("sed -i /quota-else/d /etc/projid")


def test_a_directory_on_btrfs_becomes_a_subvolume(btrfs: Volume) -> None:
    btrfs.host.run(f"install -d -m 2750 -o 12 -g 34 {btrfs.path}/a")
    made = btrfs.done({"path": "a", "size": "16M"}, {"path": "b/c", "size": "16M"})
    assert [one["group"] for one in made["quotas"]] == ["0/256", "0/257"]
    assert btrfs.host.run(f"stat -c '%a %u %g %i' {btrfs.path}/a").out.split() == ["2750", "12", "34", "256"]
    assert [one["id"] for one in made["quotas"]] == [None, None]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"size": "16M", "inodes": 5}, ".inodes: 5 is refused; allowed: nothing on btrfs"),
        ({"size": "16M", "soft": "8M"}, ".soft: '8M' is refused; allowed: nothing on btrfs"),
        ({"size": "16M"}, "on btrfs only a subvolume can have a quota, and this is a directory with content"),
    ],
)
def test_what_btrfs_can_not_is_refused(btrfs: Volume, entry: dict[str, Any], message: str) -> None:
    btrfs.host.run(f"mkdir {btrfs.path}/a; touch {btrfs.path}/a/file")
    before = btrfs.state()
    found = btrfs.quotas(entry | {"path": "a"})
    assert found["failed"] and message in found["msg"]
    assert btrfs.state() == before


def test_a_btrfs_with_content_is_counted_from_the_start(btrfs: Volume) -> None:
    btrfs.host.run(f"btrfs subvolume create {btrfs.path}/a && head -c 12M /dev/urandom >{btrfs.path}/a/file")
    assert "at least 12" in btrfs.quotas({"path": "a", "size": "8M"})["msg"]
    assert btrfs.host.run(f"btrfs qgroup show {btrfs.path}", check=False).ok is False
    found = btrfs.done({"path": "a", "size": "24M"})["quotas"][0]
    assert 12 * MIB <= found["used_bytes"] < 13 * MIB
    uuid = btrfs.host.run(f"blkid -po value -s UUID {IMAGES}/quota-btrfs.img").out.strip()
    assert btrfs.host.read(f"/sys/fs/btrfs/{uuid}/qgroups/mode") == "qgroup\n"
    btrfs.host.run(
        f"cd {btrfs.path} && btrfs subvolume snapshot a b && sync -f . && btrfs qgroup create 1/0 . &&"
        " btrfs qgroup assign --no-rescan 0/256 1/0 ."
    )
    planned = btrfs.done({"path": "a", "size": "24M"}, check=True)
    assert (planned["changed"], planned["quotas"][0]["enforced"]) == (True, False)
    assert "out of date" in planned["quotas"][0]["why"]
    again = btrfs.done({"path": "a", "size": "24M"})
    assert (again["changed"], again["quotas"][0]["enforced"]) == (True, True)


def test_a_file_system_without_quotas_is_named_with_what_it_needs(xfs_unmounted: Any) -> None:
    quotas = {"quotas": [{"path": "/mnt/quota-plain/a", "size": "16M"}], "owner": OWNER}
    found = xfs_unmounted.module("project_quotas", quotas)
    assert found["failed"]
    assert "/mnt/quota-plain/a lies on xfs (mounted on /mnt/quota-plain from /dev/loop" in found["msg"]
    assert "without project quotas (not switched on); mount it with the option prjquota" in found["msg"]
    assert not xfs_unmounted.exists("/mnt/quota-plain/a")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"path": "/run/quota", "size": "16M"}, "lies on tmpfs (mounted on /run"),
        ({"path": "/", "size": "16M"}, "quotas.path: '/' is refused"),
        ({"path": "/etc/hostname", "size": "16M"}, "/etc/hostname is no directory"),
        ({"path": "/run/quota", "size": "much"}, "quotas[/run/quota].size: 'much' is refused"),
    ],
)
def test_bad_input_is_refused(docker_host: Any, entry: dict[str, Any], message: str) -> None:
    before = docker_host.run("ls -la /run /etc/projects /etc/projid", check=False).out
    found = docker_host.module("project_quotas", {"quotas": [entry], "owner": OWNER})
    assert found["failed"] and message in found["msg"]
    assert docker_host.run("ls -la /run /etc/projects /etc/projid", check=False).out == before


def test_a_bad_owner_is_refused(docker_host: Any) -> None:
    found = docker_host.module("project_quotas", {"quotas": [], "owner": "a:b"})
    assert "owner: 'a:b' is refused; allowed: a letter, then" in found["msg"]


def test_twenty_quotas_are_one_call(volume: Volume) -> None:
    wanted = [{"path": f"runner-{number}", "size": "20M"} for number in range(20)]
    volume.done(*wanted)
    warm = volume.done(*wanted)
    assert warm["changed"] is False
    assert len({json.dumps([one["id"], one["group"]]) for one in warm["quotas"]}) == 20
