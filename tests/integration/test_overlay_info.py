# SPDX-License-Identifier: GPL-3.0-or-later
"""overlay_info on real file systems, held against what real engines choose there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

COLLECTIONS = Path(__file__).resolve().parents[2] / "playbooks" / "collections"
SCRIPTS = Path(__file__).parent / "overlay"
UTILS = "ansible_collections.matryoshka.host.plugins.module_utils"
PREFIX = ".matryoshka-overlay-probe-"
BASE = "/var/lib/matryoshka/ov"
OVERLAY = "/opt/ov"
"""On the container host's own root file system, which is an overlay."""
PATHS = {name: f"{BASE}/{name}" for name in ("ext4", "xfs", "btrfs", "tmpfs")} | {"overlay": OVERLAY}
USER = "admin"
EACH = pytest.mark.parametrize("kind", list(PATHS))

MAKE = f"""
set -e
mkdir -p {" ".join(PATHS.values())} {BASE}/ro
cd {BASE}
mounted() {{ # image, mount point, options
  for try in 1 2 3 4 5 6 7 8 9 10; do
    device=$(losetup -f | cut -d' ' -f1)
    [ -e "$device" ] || mknod "$device" b 7 "${{device#/dev/loop}}"
    losetup "$device" "$1" 2>/dev/null && break || sleep 0.2
  done
  mount -o "$3" "$device" "$2"
  losetup -d "$device" # goes with the mount
}}
for kind in ext4 xfs btrfs; do truncate -s 400M $kind.img; done
mkfs.ext4 -q ext4.img; mkfs.xfs -q xfs.img; mkfs.btrfs -q btrfs.img
for kind in ext4 xfs btrfs; do mounted $kind.img $kind rw; done
mount -t tmpfs tmpfs tmpfs
mount -t tmpfs -o ro tmpfs ro
"""
REMOVE = f"""
for point in {" ".join(PATHS.values())} {BASE}/ro {BASE}/old; do
  while mountpoint -q $point; do umount $point || {{ umount -l $point; break; }}; done
done
rm -rf {BASE} {OVERLAY} /run/ov-*
"""

# In network namespaces of their own: a dockerd without a bridge takes docker0 away.
DOCKERD = f"""
echo '{{}}' >/run/ov-config.json
start() {{ # name, data root, what to do first
  unshare --mount --net sh -c "$3
    exec dockerd --config-file /run/ov-config.json --data-root $2/docker-$1 --exec-root /run/ov-$1 \
    --pidfile /run/ov-$1.pid --host unix:///run/ov-$1.sock --bridge=none --iptables=false --ip6tables=false \
    --containerd-namespace ov-$1 --containerd-plugins-namespace ovp-$1" >/run/ov-$1.log 2>&1 &
  started="$started $!"
}}
kinds="{" ".join(PATHS)}"
at() {{ [ $1 = overlay ] && echo {OVERLAY} || echo {BASE}/$1; }}
for kind in $kinds; do start $kind $(at $kind) ''; done
start bare {OVERLAY} 'mount --bind /dev/null /usr/bin/fuse-overlayfs'
for name in $kinds bare; do
  for try in $(seq 400); do
    docker --host unix:///run/ov-$name.sock version >/dev/null 2>&1 && break
    sleep 0.2
  done
  printf '%s\\t%s\\n' $name "$(docker --host unix:///run/ov-$name.sock info --format '{{{{json .}}}}')"
done
kill -KILL $started
wait
"""
CONTAINERD = """
containerd --root {0}/containerd --state /run/ov-containerd --address /run/ov-containerd.sock >/run/ov-c.log 2>&1 &
for try in $(seq 100); do ctr -a /run/ov-containerd.sock version >/dev/null 2>&1 && break; sleep 0.1; done
ctr -a /run/ov-containerd.sock plugins ls | awk '$1 == "io.containerd.snapshotter.v1" {{print $2, $4}}'
kill $!
wait
"""


def asked(host: Any, *paths: str, **more: Any) -> dict[str, Any]:
    found = dict(host.module("overlay_info", {"paths": list(paths), **more}))
    assert not found.get("failed"), found
    return found


def codes(entry: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in entry["reasons"]]


def state(host: Any) -> str:
    """What a probe could leave behind."""
    places = " ".join([BASE, OVERLAY, *PATHS.values(), "/var/lib/docker", "/tmp"])
    return str(
        host.run(
            f"ls -AR {BASE} {OVERLAY} | sort; ls -A {places}; cat /proc/1/mountinfo | cut -d' ' -f5-"
        ).out
    )


@pytest.fixture(scope="module")
def host(docker_host: Any) -> Iterator[Any]:
    docker_host.run(REMOVE, check=False)
    docker_host.run(MAKE)
    yield docker_host
    docker_host.run(REMOVE)


@pytest.fixture(scope="module")
def found(host: Any) -> dict[str, Any]:
    return asked(host, *PATHS.values(), users=[USER])


@EACH
def test_what_works_as_root(found: dict[str, Any], kind: str) -> None:
    entry = found["paths"][PATHS[kind]]
    assert (entry["filesystem"], entry["probed"], entry["exists"]) == (kind, True, True)
    native = entry["native"]
    working = {name for name, trial in native.items() if trial["works"]}
    always = {"d_type", "trusted_xattr", "user_xattr"}
    if kind == "overlay":
        assert working == always
        assert native["two_lowers"]["errno"] == "EINVAL"
        assert codes(entry) == ["overlay_on_overlay", "no_idmap", "not_writable", "user_overlay_refused"]
        assert entry["idmapped"]["mount"]["errno"] == "EINVAL"
        return
    assert working == set(native) - {"rename_dir", "nested"}
    assert (native["rename_dir"]["errno"], native["nested"]["errno"]) == ("EXDEV", "EINVAL")
    assert entry["idmapped"]["mount"]["works"] and entry["idmapped"]["lower"]["works"]
    assert codes(entry) == (["in_memory"] if kind == "tmpfs" else ["not_writable"])
    assert entry["native_diff"] is True


@EACH
def test_what_works_without_root(found: dict[str, Any], kind: str) -> None:
    user = found["paths"][PATHS[kind]]["users"][USER]
    assert user["user_namespace"]["works"] and user["subuids"] >= 65536
    assert user["userxattr"]["trusted_xattr"]["errno"] == "EPERM"
    mounts = kind != "overlay"
    for name in ("mount", "two_lowers", "copy_up", "whiteout", "opaque", "volatile"):
        assert user["userxattr"][name]["works"] is mounts, name
    assert user["without_userxattr"]["works"] is mounts
    assert user["userxattr"]["redirect_dir"]["errno"] == ("EINVAL" if mounts else None)


def test_docker_takes_what_is_foretold(host: Any, found: dict[str, Any]) -> None:
    told = {}
    for line in host.run(DOCKERD).out.splitlines():
        name, text = line.split("\t")
        told[name] = json.loads(text)
    paths = found["paths"]
    assert {name: info["Driver"] for name, info in told.items()} == {
        **{kind: paths[path]["engines"]["docker"]["will_get"] for kind, path in PATHS.items()},
        "bare": paths[OVERLAY]["drivers"]["dind"]["bind"]["will_get"],
    }
    assert (told["bare"]["Driver"], told["overlay"]["Driver"]) == ("vfs", "fuse-overlayfs")
    # The container host's own root is what an environment has without a mount: an overlay on ext4 or the like.
    beneath = paths[PATHS["ext4"]]["drivers"]["dind"]["own_root"]
    assert beneath["will_get"] == told["bare"]["Driver"]
    for kind in ("ext4", "xfs", "btrfs", "tmpfs"):
        status = dict(told[kind]["DriverStatus"])
        entry = paths[PATHS[kind]]
        assert status["Supports d_type"] == str(entry["native"]["d_type"]["works"]).lower()
        assert status["Native Overlay Diff"] == str(entry["native_diff"]).lower()
        assert entry["drivers"]["dind"]["bind"]["good"] and entry["engines"]["docker"]["good"]
        assert entry["drivers"]["dind"]["own_root"]["will_get"] == "vfs"


def test_a_data_root_in_use_keeps_its_driver(host: Any, found: dict[str, Any]) -> None:
    """The container host's own Docker."""
    docker = asked(host, "/var/lib/docker")["paths"]["/var/lib/docker"]
    real = host.run("docker info -f '{{.Driver}}'").out.strip()
    assert (docker["engines"]["docker"]["will_get"], docker["prior_drivers"]) == (real, [real])


@pytest.mark.parametrize("kind", ["ext4", "overlay"])
def test_containerd_takes_what_is_foretold(host: Any, found: dict[str, Any], kind: str) -> None:
    """It doesn't try a mount, so its plugin is there even where no container can be made."""
    plugins = dict(line.split() for line in host.run(CONTAINERD.format(PATHS[kind])).out.splitlines())
    choice = found["paths"][PATHS[kind]]["engines"]["containerd"]
    assert plugins[choice["will_get"]] == "ok"
    assert choice["works"] is (kind != "overlay")


@EACH
def test_podman_takes_what_is_foretold(host: Any, found: dict[str, Any], kind: str) -> None:
    path = PATHS[kind]
    podman = f"podman --root {path}/podman --runroot /run/ov-podman-{kind} info --format json 2>/dev/null"
    store = json.loads(host.run(podman).out)["store"]
    entry = found["paths"][path]
    assert store["graphDriverName"] == entry["engines"]["podman"]["will_get"]
    assert entry["engines"]["podman"]["mount_program"] is (kind == "overlay")
    if kind != "overlay":
        status = store["graphStatus"]
        assert status["Supports volatile"] == str(entry["native"]["volatile"]["works"]).lower()
        assert status["Supports shifting"] == str(entry["idmapped"]["lower"]["works"]).lower()


@pytest.fixture(scope="module")
def own(host: Any) -> dict[str, Any]:
    """What is told of directories that belong to the user."""
    folders = {kind: f"{path}/own" for kind, path in PATHS.items()}
    host.run(["install", "-d", "-o", USER, *folders.values(), *(f"/run/ov-own-{kind}" for kind in PATHS)])
    paths = asked(host, *folders.values(), users=[USER])["paths"]
    return {kind: paths[folder]["users"][USER] for kind, folder in folders.items()}


@EACH
def test_rootless_podman_takes_what_is_foretold(host: Any, own: dict[str, Any], kind: str) -> None:
    home = f"/run/ov-own-{kind}"
    environment = f"env --chdir=/ HOME={home} XDG_RUNTIME_DIR={home}"
    roots = f"--root {PATHS[kind]}/own/podman --runroot {home}/podman"
    command = f"runuser -u {USER} -- {environment} podman {roots} info --format json"
    store = json.loads(host.run(f"{command} 2>{home}/said || cat {home}/said >&2").out)["store"]
    choice = own[kind]["engines"]["rootless_podman"]
    assert store["graphDriverName"] == choice["will_get"] == "overlay"
    assert choice["mount_program"] is (kind == "overlay")
    assert choice["good"] is (store["graphStatus"]["Native Overlay Diff"] == "true")
    assert own[kind]["writable"] is True


def test_rootless_docker_takes_what_is_foretold(host: Any, own: dict[str, Any]) -> None:
    host.write("/run/ov-rootless.sh", (SCRIPTS / "rootless_dockerd.sh").read_text(encoding="utf-8"))
    enter = "unshare --user --map-root-user --map-auto --mount --net --pid --fork --kill-child"
    calls = [
        f"env --chdir=/ runuser -u {USER} -- {enter} sh /run/ov-rootless.sh {kind} {path}/own &"
        for kind, path in PATHS.items()
    ]
    told = dict(line.split() for line in host.run("\n".join([*calls, "wait"])).out.splitlines())
    assert told == {kind: user["engines"]["rootless_docker"]["will_get"] for kind, user in own.items()}
    assert (told["ext4"], told["overlay"]) == ("overlay2", "fuse-overlayfs")


def test_a_path_that_is_not_there_is_not_made(host: Any) -> None:
    path = f"{PATHS['xfs']}/a/b"
    entry = asked(host, path)["paths"][path]
    assert (entry["exists"], entry["probed_in"], entry["filesystem"]) == (False, PATHS["xfs"], "xfs")
    assert entry["native"]["two_lowers"]["works"]
    assert not host.exists(f"{PATHS['xfs']}/a")


def test_a_link_is_followed(host: Any) -> None:
    host.run(f"ln -sfn {PATHS['xfs']} {OVERLAY}/link")
    entry = asked(host, f"{OVERLAY}/link")["paths"][f"{OVERLAY}/link"]
    host.run(f"rm {OVERLAY}/link")
    assert (entry["filesystem"], entry["real_path"]) == ("xfs", PATHS["xfs"])


def test_places_where_nothing_can_be_tried(host: Any) -> None:
    host.run(
        f"cd {PATHS['tmpfs']} && mkdir full bare && mount -t tmpfs -o size=4k tmpfs full && "
        "head -c 4k /dev/zero >full/fill && mount -t tmpfs -o nr_inodes=1 tmpfs bare"
    )
    full, bare = f"{PATHS['tmpfs']}/full", f"{PATHS['tmpfs']}/bare"
    paths = asked(host, f"{BASE}/ro", full, bare, "/etc/passwd", "/etc/passwd/x", "/proc", users=[USER])[
        "paths"
    ]
    left = host.run(f"ls -A {full} {bare}").out.split()
    host.run(f"umount {full} {bare} && rmdir {full} {bare}")
    assert {path: codes(entry) for path, entry in paths.items()} == {
        f"{BASE}/ro": ["read_only"],
        full: ["no_space"],
        bare: ["no_space"],
        "/etc/passwd": ["not_a_directory"],
        "/etc/passwd/x": ["not_a_directory"],
        "/proc": ["no_scratch"],
    }
    assert left == [f"{bare}:", f"{full}:", "fill"]
    for entry in paths.values():
        assert (entry["probed"], entry["native"], entry["users"]) == (False, None, {})
        assert entry["engines"]["docker"]["will_get"] is None
        assert entry["drivers"]["dind"]["bind"]["will_get"] is None
    assert "EROFS" in paths[f"{BASE}/ro"]["engines"]["docker"]["why"]


def test_xfs_without_ftype(host: Any) -> None:
    made = host.run(
        f"cd {BASE} && truncate -s 400M old.img && mkfs.xfs -q -m crc=0 -n ftype=0 old.img && mkdir -p old && "
        "mount -o loop old.img old",
        check=False,
    )
    if not made.ok:
        pytest.skip(f"this kernel mounts no XFS of version 4 ({made.err.strip()}); the VM tier shows it")
    entry = asked(host, f"{BASE}/old")["paths"][f"{BASE}/old"]
    host.run(f"umount {BASE}/old")
    assert not entry["native"]["d_type"]["works"]
    assert "no_d_type" in codes(entry)
    assert entry["engines"]["docker"]["will_get"] in ("fuse-overlayfs", "vfs")


def test_asking_changes_nothing(host: Any) -> None:
    before = state(host)
    for check in (False, True):
        args = {"paths": [*PATHS.values(), "/var/lib/docker", f"{BASE}/none/at/all"], "users": [USER]}
        assert host.module("overlay_info", args, check=check)["changed"] is False
    assert state(host) == before


def probe_program(request: dict[str, Any]) -> str:
    """The probe that the module starts, made apart: Ansible imports the collection by itself here."""
    code = (
        f"import json, sys; from {UTILS}._overlay_start import program; print(program(json.load(sys.stdin)))"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        input=json.dumps(request),
        env={"PYTHONPATH": str(COLLECTIONS)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_nothing_is_left_after_a_kill(host: Any) -> None:
    paths = [PATHS["ext4"], PATHS["xfs"]]
    ids = [[0, 1000, 1], [1, 100000, 65536]]
    request = {
        "parents": {path: path for path in paths},
        "users": [{"name": USER, "uid": 1000, "gid": 1000, "groups": [1000], "uid_map": ids, "gid_map": ids}],
        "fuse_overlayfs": "/usr/bin/fuse-overlayfs",
        "timeout": 20,
    }
    before = state(host)
    told = json.dumps([probe_program(request), paths, 16, PREFIX])
    host.write("/run/ov-kill.py", (SCRIPTS / "kill_probes.py").read_text(encoding="utf-8"))
    seen = json.loads(host.run("python3 /run/ov-kill.py", stdin=told).out)
    assert (seen["dirty"], seen["running"]) == ([], 0), seen
    assert min(seen["seen"].get(target, 0) for target in ("first", "one", "all but guard")) >= 2, seen
    assert seen["after_all"] == seen["stale"] and len(seen["stale"]) == 1, seen
    swept = asked(host, *paths)["paths"]
    assert [name for path in paths for name in swept[path]["swept"]] == [Path(seen["stale"][0]).name]
    assert state(host) == before


def test_what_another_call_uses_is_not_swept(host: Any) -> None:
    used, stale = f"{PATHS['ext4']}/{PREFIX}1-used", f"{PATHS['ext4']}/{PREFIX}1-stale"
    host.run(f"mkdir -p {used} {stale}/a/b; flock -n {used} sleep 20 >/dev/null 2>&1 & sleep 0.3")
    entry = asked(host, PATHS["ext4"])["paths"][PATHS["ext4"]]
    assert host.exists(used) and not host.exists(stale)
    host.run(f"fuser -k {used}; rmdir {used}", check=False)
    assert entry["swept"] == [f"{PREFIX}1-stale"]


def test_a_file_system_that_hangs_is_told(host: Any) -> None:
    """A FUSE file system whose program is stopped answers like a network file system whose server is gone."""
    root = f"{BASE}/hang"
    path = f"{root}/m"
    layers = f"lowerdir={root}/l,upperdir={root}/u,workdir={root}/w"
    host.run(f"mkdir -p {root}/l {root}/u {root}/w {path} && fuse-overlayfs -o {layers} {path}")
    pid = host.run(f"pgrep -f 'fuse-overlayfs -o {layers}'").out.split()[0]
    request: dict[str, Any] = {"parents": {path: path}, "users": [], "fuse_overlayfs": None, "timeout": 1}
    try:
        host.run(f"kill -STOP {pid}")
        paths = asked(host, path, PATHS["xfs"], timeout=1)["paths"]
        begin = time.monotonic()
        probed = json.loads(host.run("python3 -I -", stdin=probe_program(request)).out)[path]
        taken = time.monotonic() - begin
    finally:
        host.run(f"kill -CONT {pid}; umount {path}")
    assert codes(paths[path]) == ["hung"]
    assert (paths[path]["exists"], paths[path]["filesystem"]) == (None, "fuse.fuse-overlayfs")
    assert paths[path]["engines"]["docker"]["will_get"] is None
    assert paths[PATHS["xfs"]]["probed"]
    assert (probed["failed"], probed["error"]) == ("timeout", "no end within 1 s")
    assert taken < 10
    assert host.run(f"ls -A {root}/u; rm -rf {root}").out == ""


def test_without_root_it_says_so(host: Any) -> None:
    path = f"{PATHS['tmpfs']}/open"
    host.run(f"install -d -m 1777 {path}")
    request: dict[str, Any] = {"parents": {path: path}, "users": [], "fuse_overlayfs": None, "timeout": 9}
    told = host.run(f"cd / && runuser -u {USER} -- python3 -I -", stdin=probe_program(request)).out
    found = json.loads(told)[path]
    assert (found["failed"], found["errno"]) == ("namespace", "EPERM")
    assert host.run(f"ls -A {path}; rmdir {path}").out == ""


def test_several_calls_at_once(host: Any) -> None:
    path = PATHS["ext4"]
    request: dict[str, Any] = {"parents": {path: path}, "users": [], "fuse_overlayfs": None, "timeout": 20}
    host.write("/run/ov-probe.py", probe_program(request))
    one = 'python3 -I - </run/ov-probe.py | grep -c \'"two_lowers": {"works": true\' &'
    assert host.run("\n".join([one] * 6 + ["wait"])).out.split() == ["1"] * 6
    assert PREFIX not in host.run(f"ls -A {path}").out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"paths": ["data"]}, "paths: 'data' is refused; allowed: absolute paths"),
        (
            {"paths": [BASE], "users": ["nosuchuser"]},
            "users: 'nosuchuser' is refused; allowed: users of this host other than root",
        ),
    ],
)
def test_bad_input_is_refused(host: Any, args: dict[str, Any], message: str) -> None:
    before = state(host)
    found = host.module("overlay_info", args)
    assert found["failed"] and message in found["msg"], found
    assert state(host) == before


def test_five_paths_take_less_than_two_seconds(host: Any) -> None:
    def seconds(name: str, args: dict[str, Any]) -> float:
        begin = time.monotonic()
        assert not host.module(name, args).get("failed")
        return time.monotonic() - begin

    least = seconds("ansible.builtin.ping", {})
    assert min(seconds("overlay_info", {"paths": list(PATHS.values())}) for _ in range(2)) - least < 2
