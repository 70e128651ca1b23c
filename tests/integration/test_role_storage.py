# SPDX-License-Identifier: GPL-3.0-or-later
"""Role storage on loop devices: made, mounted, guarded, grown, moved, refused, taken away.

LVM, LUKS, partitions' nodes, udev's rules, and quotas of XFS and ext4 need a stock kernel with
udev; the VM tier has them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hosts as container_hosts
import pytest
from container_host import ROOT, ContainerHost, Result
from machine import podman

KEEP = bool(os.environ.get("MATRYOSHKA_KEEP"))
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
DATA = "/var/lib/matryoshka"
PATH = f"{DATA}/disk"
UNIT = "var-lib-matryoshka-disk.mount"
FINDER = "matryoshka-disk-ci.service"
DOCKER = {"path": f"{PATH}/docker", "unit": "docker.service"}
GROWN = 700 << 20

PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.import_role:
        name: matryoshka.host.storage
        tasks_from: {entry}
"""


# In a process of its own: the Python API that runs modules has its own way of finding collections.
PLAN = """\
import json, sys
from ansible_collections.matryoshka.host.plugins.module_utils._storage_plan import plan_storage
print(json.dumps(plan_storage(*json.load(sys.stdin))))
"""


def plan_storage(*arguments: Any) -> Any:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "playbooks" / "collections")}
    done = subprocess.run(
        [sys.executable, "-c", PLAN],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return json.loads(done.stdout)


class StorageHost(ContainerHost):
    """A host with disks that are files, and the role run on it."""

    def disk(self, name: str, size: str) -> str:
        """Attach a new empty disk of a size; its device. Devices are the machine's, so a busy one is tried again."""
        self.run(f"rm -f {DATA}/{name}.img; truncate -s {size} {DATA}/{name}.img")
        return self.attach(name)

    def attach(self, name: str) -> str:
        line = (
            f"for i in 1 2 3 4 5; do losetup -f --show {DATA}/{name}.img && exit 0; sleep 0.2; done; exit 1"
        )
        return self.run(line).out.strip()

    def detach(self, name: str) -> None:
        self.run(f"losetup -j {DATA}/{name}.img -nO NAME | xargs -r losetup -d")

    def role(self, folder: Path, variables: dict[str, Any], entry: str = "main", *options: str) -> Result:
        """Run the role alone."""
        inventory = folder / "inventory.json"
        container_hosts.write_inventory(inventory, [self.reach])
        (folder / "play.yml").write_text(PLAY.format(entry=entry), encoding="utf-8")
        argv = ["ansible-playbook", "-i", str(inventory), *options, str(folder / "play.yml")]
        environment = {**os.environ, "ANSIBLE_PIPELINING": "true", "ANSIBLE_NOCOLOR": "true"}
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT / "playbooks" / "collections")
        done = subprocess.run(
            [*argv, "-e", json.dumps({"docker_data_root": DOCKER["path"], **variables})],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=environment,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def works(self, folder: Path, variables: dict[str, Any], *options: str) -> Result:
        """Run the role; what it said, after it has ended well."""
        done = self.role(folder, variables, "main", *options)
        assert done.ok, done.out + done.err
        return done

    def look(self, volumes: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        """What ``storage_volume_info`` says of volumes as a person writes them."""
        return self.module("storage_volume_info", {"volumes": plan_storage(volumes, [DOCKER]), **options})

    def state(self, *units: str) -> list[str]:
        return self.run(["systemctl", "is-active", *units], check=False).out.split()

    def restart(self, while_down: Callable[[], None] = lambda: None) -> None:
        """Stop the host and start it again, as at a loss of power that is noticed."""
        podman("stop", "--time", "20", self.container)
        while_down()
        podman("start", self.container)
        self.reach = container_hosts.create(self.name, self.image, "root")


@pytest.fixture(scope="module")
def host() -> Iterator[StorageHost]:
    found = StorageHost(f"test{WORKER}-storage", "debian13-docker")
    found.run("mkdir -p /mnt/aside")
    try:
        yield found
    finally:
        # A volume with a protected directory in it can't be removed.
        found.run(
            f"systemctl stop docker.socket docker.service {UNIT}; umount -l {DATA}/*; chattr -i {DATA}/*",
            check=False,
        )
        found.run(
            f"losetup -nO NAME,BACK-FILE | awk '$2 ~ \"^{DATA}/st-\" {{print $1}}' | xargs -r losetup -d"
        )
        if not KEEP:
            found.remove()


@pytest.fixture(scope="module")
def volume(host: StorageHost) -> dict[str, Any]:
    """The volume that Docker's data is on."""
    return {"name": "ci", "path": PATH, "quota": False, "device": {"path": host.disk("st-ci", "400M")}}


def wait_until(what: str, test: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def test_no_volumes_ask_the_host_nothing(host: StorageHost, tmp_path: Path) -> None:
    done = host.works(tmp_path, {"storage_volumes": []})
    assert "Compare volumes with the plan" not in done.out or "skipping" in done.out
    assert "changed=0" in done.out and "ok=1 " in done.out, done.out


def test_check_mode_on_a_fresh_disk_changes_nothing(
    host: StorageHost, volume: dict[str, Any], tmp_path: Path
) -> None:
    before = host.run(["sha256sum", f"{DATA}/st-ci.img"]).out
    done = host.works(tmp_path, {"storage_volumes": [volume]}, "--check", "--diff")
    assert "Would do ci: filesystem, mount_point; units" in done.out, done.out
    assert host.run(["sha256sum", f"{DATA}/st-ci.img"]).out == before
    assert not host.exists(PATH) and not host.exists(f"/etc/systemd/system/{UNIT}")


def test_a_disk_becomes_docker_s_data_root(host: StorageHost, volume: dict[str, Any], tmp_path: Path) -> None:
    host.works(tmp_path, {"storage_volumes": [volume]})
    mounts = host.run(["findmnt", "-rno", "FSTYPE,OPTIONS", PATH]).out
    assert mounts.startswith("xfs ") and "noatime" in mounts

    again = host.works(tmp_path, {"storage_volumes": [volume]})
    assert "changed=0" in again.out, again.out
    told = host.look([volume])
    assert (told["lacking"], told["refusals"]) == ([], [])

    host.write("/etc/docker/daemon.json", json.dumps({"data-root": DOCKER["path"]}))
    host.run("systemctl restart docker.service")
    info = host.run("docker info -f '{{.Driver}} {{.DockerRootDir}} {{json .DriverStatus}}'").out
    assert info.startswith(f"overlay2 {DOCKER['path']} ") and '["Backing Filesystem","xfs"]' in info, info
    assert '["Supports d_type","true"]' in info


def test_the_engine_goes_with_its_mount_and_never_starts_without(host: StorageHost) -> None:
    host.run("systemctl start docker.service")
    # What is open keeps the file system, as it does when a disk is pulled.
    host.run(["umount", "--lazy", PATH])
    wait_until("docker has stopped", lambda: host.state("docker.service") == ["inactive"])
    host.detach("st-ci")
    refused = host.run("systemctl start docker.service", check=False)
    assert not refused.ok and "dependency" in refused.err.lower(), refused
    assert host.state("docker.service", UNIT, FINDER) == ["inactive", "inactive", "failed"]
    host.write("/root/none.json", "{}")
    for line in (
        f"touch {PATH}/file",
        f"mkdir {PATH}/docker",
        f"dockerd --config-file /root/none.json --data-root {DOCKER['path']}",
    ):
        done = host.run(f"timeout 20 {line}", check=False)
        assert not done.ok and "not permitted" in done.err, (line, done)
    assert host.run(["ls", "-A", PATH]).out == ""


def test_a_pulled_disk_lets_the_host_boot_and_comes_back_with_the_engine(host: StorageHost) -> None:
    host.restart()
    wait_until(
        "the host has booted",
        lambda: host.run("systemctl is-system-running", check=False).out.strip() == "degraded",
        60,
    )
    failed = host.run("systemctl list-units --failed --plain --no-legend").out
    assert [line.split()[0] for line in failed.splitlines()] == [FINDER], failed
    assert host.state("multi-user.target", "docker.service", UNIT) == ["active", "inactive", "inactive"]
    assert host.run(["ls", "-A", PATH]).out == ""

    host.attach("st-ci")
    host.run(["systemctl", "start", UNIT])
    wait_until("docker is back", lambda: host.state("docker.service") == ["active"])
    assert host.run("docker info -f '{{.Driver}}'").out.strip() == "overlay2"


def test_a_grown_disk_is_filled_in_place(host: StorageHost, volume: dict[str, Any], tmp_path: Path) -> None:
    device = host.run(["findmnt", "-rno", "SOURCE", PATH]).out.strip()
    volume["device"] = {"path": device}
    host.run(f"truncate -s {GROWN} {DATA}/st-ci.img && losetup -c {device}")
    assert host.look([volume])["lacking"] == ["ci: grow"]
    before = host.run(["systemctl", "show", "-p", "ActiveEnterTimestamp", "docker.service"]).out
    host.works(tmp_path, {"storage_volumes": [volume]})
    told = host.look([volume])
    assert told["lacking"] == [] and GROWN - told["volumes"][0]["bytes"] < 16 << 20
    assert host.run(["systemctl", "show", "-p", "ActiveEnterTimestamp", "docker.service"]).out == before


def test_what_was_changed_by_hand_is_seen(host: StorageHost, volume: dict[str, Any]) -> None:
    host.run(["mount", "-o", "remount,strictatime", PATH])
    assert host.look([volume])["lacking"] == ["ci: remount"]
    host.run(["mount", "-o", "remount,noatime", PATH])
    host.module("mount_points", {"paths": [PATH], "protected": False})
    assert host.look([volume])["lacking"] == ["ci: mount_point"]
    assert host.module("mount_points", {"paths": [PATH]})["changed_paths"] == [PATH]
    host.run("mv /etc/systemd/system/docker.service.d/50-storage.conf /root/ && systemctl daemon-reload")
    assert host.look([volume])["lacking"] == ["units"]
    host.run("mv /root/50-storage.conf /etc/systemd/system/docker.service.d/ && systemctl daemon-reload")
    assert host.look([volume])["lacking"] == []


def test_quotas_hold_on_a_volume_and_never_below_what_is_used(
    host: StorageHost, volume: dict[str, Any], tmp_path: Path
) -> None:
    """On btrfs, whose quotas every kernel has; those of XFS and ext4 are for the VM tier."""
    path = f"{DATA}/limited"
    limited: dict[str, Any] = {
        "name": "limited",
        "path": path,
        "filesystem": "btrfs",
        "device": {"path": host.disk("st-limited", "200M")},
    }
    quotas = [{"path": f"{path}/jobs", "size": "20M"}]
    host.works(tmp_path, {"storage_volumes": [volume, limited], "storage_quotas": quotas})
    told = host.look([volume, limited], quotas=[{"path": f"{path}/jobs", "size": "20M"}])
    assert (told["lacking"], told["refusals"]) == ([], [])
    full = host.run(f"dd if=/dev/urandom of={path}/jobs/file bs=1M count=40 conv=fsync", check=False)
    assert not full.ok and "quota" in full.err.lower(), full
    host.run(f"dd if=/dev/urandom of={path}/beside bs=1M count=30 conv=fsync; rm {path}/beside; sync {path}")
    refused = host.look([volume, limited], quotas=[{"path": f"{path}/jobs", "size": "1M"}])["refusals"]
    assert len(refused) == 1 and refused[0].startswith("storage_quotas: ") and f"{path}/jobs" in refused[0], (
        refused
    )
    assert host.look([volume, limited], quotas=[{"path": f"{path}/jobs", "size": "50M"}])["lacking"] == [
        "quotas"
    ]
    host.run("systemctl stop var-lib-matryoshka-limited.mount")
    host.detach("st-limited")


def test_a_data_root_is_moved_only_when_told_and_whole(
    host: StorageHost, volume: dict[str, Any], tmp_path: Path
) -> None:
    path = f"{DATA}/moved"
    host.run(
        f"mkdir -p {path}/deep && echo one > {path}/deep/file && ln {path}/deep/file {path}/second "
        f"&& ln -s nowhere {path}/link && truncate -s 5M {path}/holes && chown 1234:4321 {path}/second && chmod 711 {path}"
    )
    moved: dict[str, Any] = {"name": "moved", "path": path, "quota": False, "filesystem": "ext4"}
    moved["device"] = {"path": host.disk("st-moved", "100M")}
    moved["units"] = ["st-user.service", "st-absent.service"]
    host.write(
        "/etc/systemd/system/st-user.service", f"[Service]\nExecStart=sleep inf\nWorkingDirectory={path}\n"
    )
    host.run("systemctl daemon-reload && systemctl start st-user.service")
    process = host.run("systemctl show -P MainPID st-user.service").out
    volumes = [volume, moved]
    refused = host.look(volumes)["refusals"]
    assert len(refused) == 1 and refused[0].startswith(
        f"storage_volumes[moved].path: '{path}' is refused; allowed: "
    )
    assert "it holds deep, holes, link, second" in refused[0] and "storage_migrate" in refused[0]
    tree = f"stat -c '%a %U' {path}; cd {path} && find . -mindepth 1 -name lost+found -prune -o -mindepth 1 -printf '%p %y %m %U:%G %n %l\\n' | sort; md5sum second"
    before = host.run(tree).out

    # An earlier move that broke off while it copied.
    host.run(
        f"mkfs.ext4 -q -F {host.look(volumes, migrate=True)['volumes'][1]['mkfs']} {moved['device']['path']} "
        f"&& mount {moved['device']['path']} /mnt/aside && touch /mnt/aside/.matryoshka-migration /mnt/aside/half && umount /mnt/aside"
    )
    host.works(tmp_path, {"storage_volumes": volumes, "storage_migrate": True})
    assert host.run(tree).out == before
    assert not host.exists(f"{path}/half") and not host.exists(f"{path}/.matryoshka-migration")
    assert host.state("st-user.service", "st-absent.service") == ["active", "inactive"]
    assert host.run("systemctl show -P MainPID st-user.service").out != process, (
        "it went on while its data moved"
    )
    kept = host.run(f"ls -d {path}.before-*").out.split()
    assert len(kept) == 1 and host.run(f"cat {kept[0]}/deep/file").out == "one\n"
    assert host.look(volumes)["lacking"] == []
    assert host.look(volumes, remove_old=True)["old"] == kept
    host.run(f"rm -r {kept[0]}")


def test_two_places_with_data_are_never_merged(
    host: StorageHost, volume: dict[str, Any], tmp_path: Path
) -> None:
    path = f"{DATA}/copied"
    host.run(f"mkdir -p {path} && echo old > {path}/file")
    copied: dict[str, Any] = {"name": "copied", "path": path, "quota": False, "filesystem": "ext4"}
    copied["device"] = {"path": host.disk("st-copied", "100M")}
    copied["units"] = ["st-user.service"]
    moved: dict[str, Any] = {
        "name": "moved",
        "path": f"{DATA}/moved",
        "quota": False,
        "filesystem": "ext4",
        "device": {"id": "gone"},
    }
    mkfs = host.look([volume, moved, copied], migrate=True)["volumes"][-1]["mkfs"]
    host.run(
        f"mkfs.ext4 -q -F {mkfs} {copied['device']['path']} && mount {copied['device']['path']} /mnt/aside "
        "&& echo new > /mnt/aside/file && umount /mnt/aside"
    )
    done = host.role(tmp_path, {"storage_volumes": [volume, moved, copied], "storage_migrate": True})
    assert not done.ok and "storage_migrate: true is refused" in done.out, done.out
    assert host.run(f"cat {path}/file").out == "old\n" and host.run(f"ls -d {path}*").out.split() == [path]
    assert host.state("st-user.service") == ["active"], "what was stopped for the move stayed down"
    host.run(f"mkdir {path}/inside && mount -t tmpfs none {path}/inside")
    done = host.role(tmp_path, {"storage_volumes": [volume, moved, copied], "storage_migrate": True})
    assert not done.ok and f"nothing is mounted in {path}, but there is {path}/inside" in done.out, done.out
    assert host.state("st-user.service") == ["active"]
    host.run(f"umount {path}/inside && rm -r {path}")
    host.detach("st-copied")


def refusals(host: StorageHost, volume: dict[str, Any], **options: Any) -> str:
    told = host.look([{"name": "bad", "path": f"{DATA}/bad", "quota": False, **volume}], **options)
    if told.get("failed"):
        return str(told["msg"])
    # The volumes of other tests are mounted and not in this list.
    return "\n".join(text for text in told["refusals"] if "isn't in the list any more" not in text)


def test_bad_input_is_refused_by_name_and_leaves_everything(host: StorageHost) -> None:
    small, first, second = (
        host.disk(f"st-{name}", size) for name, size in (("small", "64M"), ("one", "330M"), ("two", "330M"))
    )
    host.run(f"mkfs.ext4 -q -F -L photos {second}")
    mounted = host.run(["findmnt", "-rno", "SOURCE", PATH]).out.strip()
    files = (
        f"sha256sum {DATA}/st-small.img {DATA}/st-one.img {DATA}/st-two.img; ls -A {DATA}; findmnt -rn | sort"
    )
    before = host.run(files).out
    place = "storage_volumes[bad].device"
    for device, words in {
        "/dev/nvme7n1": ("'path: /dev/nvme7n1' is refused; allowed: a device that", "at /dev/nvme7n1"),
        mounted: ("is refused; allowed: a device that is free", f"it is mounted on {PATH}"),
        second: ("a device that is free", "it holds ext4 'photos'", "only a wipe list"),
        small: ("a device of at least 300 MiB for xfs; it has 64 MiB",),
    }.items():
        said = refusals(host, {"device": {"path": device}})
        assert said.startswith(f"{place}: ") and all(word in said for word in words), said
    said = refusals(host, {"device": {"path": first, "size_min": "400M"}})
    assert said.startswith(f"{place}: ") and "less than 400 MiB" in said, said
    said = refusals(host, {"device": {"serial": f"{DATA}/st-[ot][nw][eo].img", "size_min": "100M"}})
    assert said.startswith(f"{place}: ") and "2 fit" in said and first in said and second in said, said
    host.run(f"losetup -f --show {first} > /root/upon")
    try:
        said = refusals(host, {"device": {"path": first}})
        assert "it is a part of /dev/loop" in said, said
    finally:
        host.run("losetup -d $(cat /root/upon)")
    said = refusals(host, {"path": PATH, "device": {"path": first}})
    assert (
        said.startswith(f"storage_volumes[bad].path: '{PATH}' is refused") and "is mounted there" in said
    ), said
    said = refusals(host, {"directory": "/opt/data", "quota": None})
    assert said == (
        "storage_volumes[bad].directory: '/opt/data' is refused; allowed: a directory on ext4, xfs, btrfs, zfs, ext3, "
        "f2fs or bcachefs; /opt is on overlay"
    )
    assert host.run(files).out == before


def test_a_wipe_list_gives_up_exactly_what_it_names(host: StorageHost, tmp_path: Path) -> None:
    device = host.run(f"losetup -j {DATA}/st-two.img -nO NAME").out.strip()
    volume = {"device": {"path": device}, "filesystem": "btrfs"}
    serial = f"{DATA}/st-two.img"
    said = refusals(host, volume, wipe=[{"serial": serial, "signature": "xfs"}])
    assert "names its serial with xfs, but not with ext4" in said, said
    said = refusals(host, volume, wipe=[{"serial": f"{DATA}/st-one.img", "signature": "ext4"}])
    assert "only a wipe list with" in said, said
    said = refusals(host, volume, wipe=[{"serial": "*", "signature": "ext4"}])
    assert said.startswith("storage_wipe[0].serial: '*' is refused; allowed: one device's exact serial"), said
    assert refusals(host, volume, wipe=[{"serial": serial, "signature": "ext4"}]) == ""


def test_everything_is_taken_away_and_data_stays(
    host: StorageHost, volume: dict[str, Any], tmp_path: Path
) -> None:
    moved: dict[str, Any] = {
        "name": "moved",
        "path": f"{DATA}/moved",
        "quota": False,
        "filesystem": "ext4",
        "device": {"id": "gone"},
    }
    left = host.look([volume])
    assert any(
        f"{DATA}/moved isn't in the list any more, but is mounted" in text for text in left["refusals"]
    ), left
    host.run("systemctl stop docker.socket docker.service")
    done = host.role(tmp_path, {"storage_volumes": [volume, moved]}, "remove")
    assert done.ok, done.out + done.err
    assert not host.exists(PATH) and not host.exists(f"/etc/systemd/system/{UNIT}")
    assert not host.exists("/etc/systemd/system/docker.service.d/50-storage.conf")
    device = host.run(f"losetup -j {DATA}/st-ci.img -nO NAME").out.strip()
    host.run(f"mount {device} /mnt/aside")
    assert "overlay2" in host.run("ls /mnt/aside/docker").out
    host.run("umount /mnt/aside")
