# SPDX-License-Identifier: GPL-3.0-or-later
"""data_root_info against real engines, real loop devices, and two daemons on one root."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

IMAGE = "data-root-test"
BASE = "/var/lib/matryoshka/dr"
ROOT = f"{BASE}/root"
HOST = "/var/lib/docker"
UNIT = "/etc/systemd/system/var-lib-matryoshka-dr-disk.mount"
# An image that borrows the host's /usr: an engine in a container without a second installation.
BUILD = f"""
set -e
d=$(mktemp -d)
mkdir -p "$d"/usr "$d"/etc "$d"/run "$d"/tmp "$d"/proc "$d"/sys "$d"/dev "$d"/var/lib/docker
ln -s usr/bin usr/sbin usr/lib usr/lib64 "$d"
ln -s /run "$d/var/run"
cp -a /etc/passwd /etc/group /etc/nsswitch.conf /etc/alternatives "$d/etc"
tar -c -C "$d" . | docker import - {IMAGE} >/dev/null
rm -rf "$d"
"""
# A loop device that is given back while it is mounted goes with its mount.
SHOW = """
take() {
  for attempt in $(seq 20); do losetup -f --show "$1" 2>/dev/null && return; sleep 0.1; done
  echo "no loop device for $1" >&2; return 1
}
show() {
  device=$(take "$1"); point=$2; shift 2; mkdir -p "$point"
  code=0; mount "$@" "$device" "$point" || code=$?
  losetup -d "$device"; return $code
}
"""
DISKS = f"""
set -e
mkdir -p {BASE}/fs
for n in $(seq 0 31); do test -e /dev/loop$n || mknod /dev/loop$n b 7 $n; done
{SHOW}
for kind in ext4 xfs btrfs; do
  truncate -s 400M {BASE}/$kind.img
  case $kind in
    ext4) mkfs.ext4 -q -L dr-ext4 {BASE}/$kind.img ;;
    xfs) mkfs.xfs -q -L dr-xfs {BASE}/$kind.img ;;
    btrfs) mkfs.btrfs -q -L dr-btrfs {BASE}/$kind.img ;;
  esac
  show {BASE}/$kind.img {BASE}/fs/$kind
  mkdir {BASE}/fs/$kind/root {BASE}/fs/$kind/uuid {BASE}/fs/$kind/label {BASE}/fs/$kind/device
done
truncate -s 350M {BASE}/fs/ext4/nested.img
mkfs.xfs -q {BASE}/fs/ext4/nested.img
show {BASE}/fs/ext4/nested.img {BASE}/fs/nested
"""
UNDO = f"""
docker ps -aq --filter name=^dr- | xargs -r docker rm -f -v >/dev/null
for point in nested ro ext4 xfs btrfs quota-ext4 quota-xfs; do umount {BASE}/fs/$point 2>/dev/null; done
rm -rf {BASE} {UNIT}
"""


def asked(host: Any, *roots: dict[str, Any] | str, **more: Any) -> dict[str, Any]:
    wanted = [one if isinstance(one, dict) else {"path": one} for one in roots]
    found = dict(host.module("data_root_info", {"roots": wanted, **more}))
    assert not found.get("failed"), found
    assert found["changed"] is False
    return found


def one(host: Any, path: str, **more: Any) -> dict[str, Any]:
    return dict(asked(host, {"path": path, **more})["roots"][0])


def codes(root: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in root["reasons"]]


def start(host: Any, name: str, *options: str, command: str = "exec sleep infinity") -> None:
    words = ["docker", "run", "-d", "--name", name, "--privileged", "-v", "/usr:/usr:ro", *options]
    host.run([*words, IMAGE, "/bin/sh", "-c", command])


def until(host: Any, line: str) -> None:
    for _ in range(150):
        if host.run(line, check=False).ok:
            return
        time.sleep(0.2)
    raise AssertionError(f"{line} never came true")


@pytest.fixture(scope="module")
def host(docker_host: Any) -> Iterator[Any]:
    docker_host.run(UNDO)
    docker_host.run(BUILD)
    docker_host.run(DISKS)
    start(
        docker_host,
        "dr-first",
        *("-v", f"{ROOT}:{HOST}"),
        command="dockerd >/run/dockerd.log 2>&1 & exec sleep infinity",
    )
    until(docker_host, "docker exec dr-first docker version")
    yield docker_host
    docker_host.run(UNDO)
    docker_host.run(f"docker rmi {IMAGE}")


def test_the_host_s_engine(host: Any) -> None:
    root = one(host, HOST, holder="host")
    assert (root["verdict"], root["reasons"]) == ("ok", [])
    assert (root["engine"], root["driver"]) == (
        "docker",
        host.run("docker info -f '{{.Driver}}'").out.strip(),
    )
    assert root["engine_id"] == host.run("cat /var/lib/docker/engine-id").out.strip()
    main = int(host.run("systemctl show -P MainPID docker").out)
    assert [(one["name"], one["unit"], one["locks"]) for one in root["holders"]] == [
        ("host", "docker.service", True)
    ]
    assert root["holders"][0]["processes"] == [{"pid": main, "name": "dockerd"}]
    assert {"volumes/metadata.db", "network/files/local-kv.db"} <= set(root["holders"][0]["files"])
    assert root["layers_mounted"] == len(host.run("docker ps -q").out.split())
    assert str(root["inodes_total"]) == host.run(f"stat -f -c %c {HOST}").out.strip()
    now = int(host.run("date +%s").out)
    assert 0 < root["created"] <= root["last_used"] <= now


def test_a_nested_engine_is_the_owner_of_its_root(host: Any) -> None:
    found = asked(host, HOST, {"path": ROOT, "holder": "dr-first"})
    root = found["roots"][1]
    assert (found["verdict"], codes(root)) == ("ok", []), found
    assert root["owner"]["name"] == "dr-first"
    identity = host.run("docker inspect -f '{{.Id}}' dr-first").out.strip()
    assert root["owner"]["container"] == identity
    assert [one["name"] for one in root["holders"]] == ["dr-first"]
    assert {one["name"] for one in root["holders"][0]["processes"]} == {"dockerd", "containerd"}
    assert [(one["name"], one["path"], one["foreign"]) for one in root["seen_by"]] == [
        ("dr-first", HOST, False)
    ]
    assert root["seen_by"][0]["engines"] == ["dockerd", "containerd"]


def test_a_wrong_holder_is_broken(host: Any) -> None:
    root = one(host, ROOT, holder="dr-other")
    assert root["verdict"] == "broken"
    assert codes(root) == ["foreign_holder", "foreign_mount"]
    assert "dockerd (pid" in root["reasons"][0]["text"]


def test_two_daemons_on_one_root_before_and_after_the_second_starts(host: Any) -> None:
    start(host, "dr-second", "-v", f"{ROOT}:{HOST}")
    for wanted in ({}, {"holder": "dr-first"}):
        before = one(host, ROOT, **wanted)
        assert (before["verdict"], codes(before)) == ("broken", ["foreign_mount"])
        assert before["reasons"][0]["text"].startswith("The container dr-second has ")
        assert "of the container dr-first mounted: on /var/lib/docker" in before["reasons"][0]["text"]
        assert before["owner"]["name"] == "dr-first"
    host.run("docker exec -d dr-second sh -c 'dockerd >/run/dockerd.log 2>&1'")
    until(host, f"docker exec dr-second sh -c 'ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q {HOST}.*[.]db'")
    after = one(host, ROOT, holder="dr-first")
    assert after["verdict"] == "broken"
    assert codes(after)[:2] == ["two_holders", "foreign_mount"]
    by_name = {one["name"]: one for one in after["holders"]}
    assert set(by_name) == {"dr-first", "dr-second"}
    assert by_name["dr-first"]["locks"] and not by_name["dr-second"]["locks"]
    assert "which waits for the lock" in after["reasons"][0]["text"]
    host.run("docker rm -f -v dr-second")
    assert one(host, ROOT)["verdict"] == "ok"
    assert host.run("docker exec dr-first docker info -f '{{.Driver}}'").out.strip() == "overlay2"


def test_two_containers_without_an_engine_share_a_root(host: Any) -> None:
    path = f"{BASE}/shared"
    start(host, "dr-a", "-v", f"{path}:/data")
    root = one(host, path)
    assert (root["verdict"], root["owner"]["name"]) == ("ok", "dr-a")
    start(host, "dr-b", "-v", f"{path}:/data")
    root = one(host, path)
    assert (codes(root), root["owner"]) == (["shared_mount"], None)
    assert codes(one(host, path, holder="dr-b")) == ["foreign_mount"]
    host.run("docker rm -f dr-a dr-b")


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (("-v", f"{HOST}:/outer"), "foreign_mount", "on /outer"),
        (("-v", f"{HOST}/overlay2:/layers"), "foreign_mount", "on /layers, its part overlay2"),
        (("-v", "/:/rootfs:ro"), "foreign_mount_read_only", f"on /rootfs{HOST} (read-only)"),
    ],
)
def test_a_container_that_has_the_host_s_root(
    host: Any, options: tuple[str, ...], code: str, text: str
) -> None:
    start(host, "dr-spy", *options)
    root = one(host, HOST)
    host.run("docker rm -f dr-spy")
    assert code in codes(root)
    assert text in next(one["text"] for one in root["reasons"] if one["code"] == code)
    assert root["owner"] == {"name": "host", "container": None, "inside": []}


def test_volumes_and_layers_of_the_engine_s_own_containers_are_its_business(host: Any) -> None:
    start(host, "dr-volume", "-v", "dr-volume:/data", "-v", "/anonymous")
    root = one(host, HOST)
    assert (root["verdict"], root["seen_by"]) == ("ok", [])
    host.run("docker rm -f -v dr-volume; docker volume rm dr-volume")


def test_a_container_that_lost_its_root(host: Any) -> None:
    host.run(f"mkdir -p {BASE}/lost")
    start(host, "dr-lost")
    assert codes(one(host, f"{BASE}/lost", holder="dr-lost")) == ["holder_without_root"]
    host.run("docker rm -f dr-lost")


def test_a_lock_of_any_program_holds_a_root(host: Any) -> None:
    host.run(f"mkdir -p {BASE}/locked/volumes; touch {BASE}/locked/volumes/metadata.db")
    host.run(f"systemd-run -q --unit dr-lock flock {BASE}/locked/volumes/metadata.db sleep 60")
    until(host, f"! flock -n {BASE}/locked/volumes/metadata.db true")
    root = one(host, f"{BASE}/locked")
    host.run("systemctl stop dr-lock")
    assert [(one["unit"], one["files"], one["locks"]) for one in root["holders"]] == [
        ("dr-lock.service", ["volumes/metadata.db"], True)
    ]


def test_podman_s_root(host: Any) -> None:
    path = host.run("podman info -f '{{.Store.GraphRoot}}' 2>/dev/null").out.strip()
    root = one(host, path)
    assert (root["engine"], root["owner"]["name"], root["holders"]) == ("podman", "host", [])


def test_file_systems_on_loop_devices(host: Any) -> None:
    below = [one["name"] for one in one(host, HOST)["devices"]]
    kinds = ("ext4", "xfs", "btrfs")
    sources = {kind: host.run(f"findmnt -rno SOURCE {BASE}/fs/{kind}").out.strip() for kind in kinds}
    uuids = {kind: host.run(f"blkid -p -o value -s UUID {BASE}/{kind}.img").out.strip() for kind in kinds}
    wanted = [
        {"path": f"{BASE}/fs/{kind}/{name}", "mount": mount}
        for kind in kinds
        for name, mount in (
            ("root", f"{BASE}/fs/{kind}"),
            ("uuid", f"UUID={uuids[kind]}"),
            ("label", f"LABEL=dr-{kind}"),
            ("device", sources[kind]),
        )
    ]
    found = asked(host, *wanted)
    assert found["verdict"] == "ok", found["roots"]
    for kind, root in zip(kinds, found["roots"][::4], strict=True):
        assert (root["filesystem"], root["device"]) == (kind, sources[kind])
        assert (root["uuid"], root["label"], root["disk"]) == (uuids[kind], f"dr-{kind}", "loop")
        first = root["devices"][0]
        assert (first["kind"], first["size_bytes"]) == ("loop", 400 << 20)
        assert first["backing_file"] == f"{BASE}/{kind}.img"
        assert first["below"] == below[:1]
        assert [one["name"] for one in root["devices"][1:]] == below


def test_a_loop_device_on_a_loop_device(host: Any) -> None:
    root = one(host, f"{BASE}/fs/nested")
    names = [one["name"] for one in root["devices"]]
    outer = host.run(f"findmnt -rno SOURCE {BASE}/fs/ext4").out.strip().removeprefix("/dev/")
    assert names[1] == outer
    assert [one["kind"] for one in root["devices"][:2]] == ["loop", "loop"]
    discard = host.run(f"cat /sys/block/{outer}/queue/discard_max_bytes").out.strip()
    assert (outer not in root["discard"]["stopped_by"]) == (discard != "0")


def test_quota_groups_of_btrfs(host: Any) -> None:
    point = f"{BASE}/fs/btrfs"
    assert one(host, f"{point}/root")["quota"]["enforced"] is False
    host.run(f"btrfs subvolume create {point}/sub && btrfs quota enable {point}")
    host.run(
        f"btrfs qgroup limit 20M {point}/sub && head -c 12M /dev/urandom >{point}/sub/data && sync -f {point}"
    )
    quota = one(host, f"{point}/sub")["quota"]
    assert (quota["kind"], quota["enforced"], quota["limit"]) == ("qgroup", True, 20 << 20)
    assert 12 << 20 <= quota["used"] < 13 << 20
    assert quota["qgroup"] == "0/" + host.run(f"btrfs inspect-internal rootid {point}/sub").out.strip()
    host.run(f"head -c 8M /dev/urandom >{point}/sub/more; sync -f {point}", check=False)
    assert codes(one(host, f"{point}/sub")) in (["quota_full"], ["quota_nearly_full"])
    host.run(f"btrfs qgroup limit none {point}/sub && btrfs quota disable {point}")
    assert one(host, f"{point}/sub")["quota"]["limit"] is None


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_project_quotas(host: Any, kind: str) -> None:
    """Runs where the kernel has project quotas, as in the VM tier."""
    image, point = f"{BASE}/quota-{kind}.img", f"{BASE}/fs/quota-{kind}"
    options = "-O project,quota -E quotatype=prjquota" if kind == "ext4" else ""
    host.run(f"truncate -s 400M {image} && mkfs.{kind} -q {options} {image}")
    if not host.run(f"{SHOW}\nshow {image} {point} -o prjquota", check=False).ok:
        host.run(f"{SHOW}\nshow {image} {point} -o ro && umount {point}")
        pytest.skip(f"this kernel mounts no {kind} with project quotas; the VM tier runs this test")
    host.run(f"mkdir {point}/root")
    quota = one(host, f"{point}/root")["quota"]
    if quota["error"] == "ENOSYS":
        assert codes(one(host, f"{point}/root")) == (["quota_off"] if quota["requested"] else [])
        pytest.skip(f"this kernel has no project quotas on {kind}; the VM tier runs this test")
    assert quota["accounted"] and quota["enforced"] and quota["requested"]
    assert quota["overlay2_size"] is (kind == "xfs")
    host.run(f"chattr +P -p 42 {point}/root")
    if kind == "xfs":
        host.run(f"xfs_quota -x -c 'limit -p bhard=20m ihard=100 42' {point}")
    else:
        host.run(f"setquota -P 42 0 20480 0 100 {point}")
    host.run(f"head -c 12M /dev/zero >{point}/root/data; sync -f {point}")
    quota = one(host, f"{point}/root")["quota"]
    assert (quota["project"], quota["inherited"]) == (42, True)
    assert (quota["limit"], quota["inodes_limit"]) == (20 << 20, 100)
    assert 12 << 20 <= quota["used"] < 13 << 20
    assert quota["inodes_used"] == 2
    host.run(f"head -c 20M /dev/zero >{point}/root/more", check=False)
    assert "quota_full" in codes(one(host, f"{point}/root"))
    host.run(f"rm -r {point}/root/*")


def test_a_root_on_a_read_only_mount(host: Any) -> None:
    host.run(f"mkdir -p {BASE}/fs/ro && mount --bind {BASE}/fs/xfs {BASE}/fs/ro")
    host.run(f"mount -o remount,bind,ro {BASE}/fs/ro")
    root = one(host, f"{BASE}/fs/ro/root")
    host.run(f"umount {BASE}/fs/ro")
    assert (root["verdict"], codes(root)) == ("broken", ["read_only"])


def test_roots_that_are_not_there_and_that_meet(host: Any) -> None:
    host.write(f"{BASE}/file", "")
    host.run(f"mkdir -p {BASE}/outer/inner {BASE}/real; ln -s real {BASE}/link")
    found = asked(
        host,
        f"{BASE}/none",
        f"{BASE}/file",
        f"{BASE}/outer",
        f"{BASE}/outer/inner",
        f"{BASE}/real",
        f"{BASE}/link",
    )
    assert [codes(root) for root in found["roots"]] == [
        ["absent"],
        ["not_a_directory"],
        ["inside_another"],
        ["inside_another"],
        ["same_as_another"],
        ["same_as_another"],
    ]


def test_an_engine_on_the_empty_mount_point(host: Any) -> None:
    tags = ("UUID=0d4f4e5b-7a0c-4f0e-9f9b-6a3f8f9b1c11", "LABEL=images", "/dev/disk/by-id/gone")
    wanted = dict(zip((f"{BASE}/disk-{n}" for n in range(4)), (f"{BASE}/disk-0", *tags), strict=True))
    host.run(["mkdir", "-p", *(f"{path}/{name}" for path in wanted for name in ("volumes", "image"))])
    found = asked(host, *({"path": path, "mount": mount} for path, mount in wanted.items()))
    for root, mount in zip(found["roots"], wanted.values(), strict=True):
        assert (root["verdict"], codes(root)) == ("broken", ["not_mounted"])
        assert mount in root["reasons"][0]["text"]
        assert "An engine has written beneath" in root["reasons"][0]["text"]


def test_a_mount_that_the_host_plans_and_has_not(host: Any) -> None:
    path = f"{BASE}/disk"
    host.run(f"mkdir -p {path}")
    assert one(host, path)["verdict"] == "ok"
    host.write(UNIT, f"[Mount]\nWhat=/dev/disk/by-id/gone\nWhere={path}\n")
    planned = one(host, path)
    host.run(f"rm {UNIT}")
    assert codes(planned) == ["not_mounted"]
    assert "var-lib-matryoshka-dr-disk.mount has /dev/disk/by-id/gone" in planned["reasons"][0]["text"]


def test_reasons_that_do_not_count(host: Any) -> None:
    found = asked(host, f"{BASE}/none", allow=["absent"])
    assert (found["verdict"], found["roots"][0]["reasons"]) == ("ok", [])


def test_asking_takes_no_lock_and_changes_nothing(host: Any) -> None:
    state = f"findmnt -rno TARGET | sort; find {ROOT} {HOST} -maxdepth 3 -printf '%p %m %u %T@\\n' | sort; cat /proc/locks | cut -d: -f2- | sort"
    before = host.run(state).out
    for check in (False, True):
        args = {"roots": [{"path": HOST}, {"path": ROOT}, {"path": f"{BASE}/none"}]}
        assert host.module("data_root_info", args, check=check)["changed"] is False
    assert host.run(state).out == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"roots": [{"path": "data"}]}, "roots[0].path: 'data' is refused; allowed: an absolute path"),
        (
            {"roots": [{"path": ROOT, "mount": "sdb"}]},
            "roots[0].mount: 'sdb' is refused; allowed: a mount point",
        ),
    ],
)
def test_refused(host: Any, args: dict[str, Any], message: str) -> None:
    before = host.run(f"ls -laR {ROOT}/volumes").out
    found = host.module("data_root_info", args)
    assert found["failed"] and message in found["msg"]
    assert host.run(f"ls -laR {ROOT}/volumes").out == before
