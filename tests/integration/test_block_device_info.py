# SPDX-License-Identifier: GPL-3.0-or-later
"""block_device_info against loop devices that hold what disks hold, and that are used as disks are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

FOLDER = "/var/tmp/block-test"
DEVICES = {
    "empty": 16,
    "ext4": 16,
    "xfs": 320,
    "btrfs-a": 128,
    "btrfs-b": 128,
    "swap": 16,
    "lvm": 16,
    "luks": 32,
    "gpt": 32,
    "mbr": 16,
    "iso": 16,
    "backup": 16,
    "both": 16,
    "data": 16,
}
"""MiB of each device; its serial is the path of its backing file, ``FOLDER/NAME``."""

# Loop devices are the whole machine's: another may take the one that was free a moment ago.
ATTACH = """
attach() {
  for _ in $(seq 50); do
    device=$(losetup -f) || continue
    device=${device%% *}
    [ -e "$device" ] || mknod "$device" b 7 "${device#/dev/loop}"
    if losetup "$device" "$1" 2>/dev/null; then echo "$1 $device"; return; fi
    sleep 0.1
  done
  return 1
}
"""
BUILD = f"""
set -e
rm -rf {FOLDER}; mkdir -p {FOLDER}; cd {FOLDER}
{"; ".join(f"truncate -s {size}M {name}" for name, size in DEVICES.items())}
mkfs.ext4 -q -L data ext4
mkfs.xfs -q -L engine xfs
mkfs.btrfs -q -L pool btrfs-a btrfs-b
mkswap -q -L page swap
printf secret | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 luks -
printf 'label: gpt\\nsize=8M\\nsize=8M\\n' | sfdisk -q gpt
printf 'label: dos\\nsize=8M\\n' | sfdisk -q mbr
printf 'label: gpt\\n' | sfdisk -q backup
dd if=/dev/zero of=backup bs=1M count=2 conv=notrunc status=none
mkfs.ext4 -q both
printf 'label: dos\\nsize=8M\\n' | sfdisk -q --wipe never both
printf '\\001CD001\\001\\000%-32s%-32s' LINUX 'Debian 13' | dd of=iso bs=1 seek=32768 conv=notrunc status=none
printf '\\377CD001\\001' | dd of=iso bs=1 seek=34816 conv=notrunc status=none
printf 'a database of its own' | dd of=data bs=1 seek=4096 conv=notrunc status=none
sync
{ATTACH}
for name in {" ".join(DEVICES)}; do attach {FOLDER}/$name; done
"""
CLEAN = f"""
losetup -nO NAME,BACK-FILE | awk -v folder={FOLDER}/ 'index($2, folder) == 1 {{print $1}}' | xargs -r losetup -d
rm -rf {FOLDER}
"""


class Bench:
    """The devices, and the module asked about them."""

    def __init__(self, host: Any, paths: dict[str, str]) -> None:
        self.host = host
        self.paths = paths

    def ask(self, *select: dict[str, Any], **more: Any) -> dict[str, Any]:
        return dict(self.host.module("block_device_info", {"select": list(select), **more}))

    def state(self) -> str:
        """What asking mustn't change: the backing files, and the writes that the kernel has counted."""
        counted = [f"awk '{{print $5, $7}}' /sys/block/{path[5:]}/stat" for path in self.paths.values()]
        paths = list(self.paths.values())
        watched = f"losetup -nlO NAME,BACK-FILE,RO | grep -F {FOLDER} | sort; cat /proc/swaps"
        nodes = f"findmnt -rno SOURCE,TARGET; ls -l {' '.join(paths)}"
        lines = ["sync", f"sha256sum {FOLDER}/*", watched, nodes, *counted]
        return str(self.host.run("; ".join(lines)).out)


def by(file: str, **more: Any) -> dict[str, Any]:
    return {"name": f"volumes[{file}]", "serial": f"{FOLDER}/{file}", **more}


def codes(entry: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in entry["reasons"]]


@pytest.fixture(scope="module")
def bench(docker_host: Any) -> Iterator[Bench]:
    docker_host.run(CLEAN)
    out = docker_host.run(BUILD).out
    attached = [line.split() for line in out.splitlines() if " /dev/loop" in line]
    paths = {file.removeprefix(f"{FOLDER}/"): device for file, device in attached}
    assert set(paths) == set(DEVICES), out
    docker_host.run(
        f"pvcreate -qy {paths['lvm']} && vgcreate -q block-test-engines {paths['lvm']}", check=False
    )
    assert "block-test-engines" in docker_host.run(f"pvs --readonly -o vg_name {paths['lvm']}").out
    yield Bench(docker_host, paths)
    docker_host.run(CLEAN)


def test_what_is_on_each_device(bench: Bench) -> None:
    found = {one["path"]: one for one in bench.ask()["devices"]}
    here = {name: found[path] for name, path in bench.paths.items()}
    assert {name: one["content"] for name, one in here.items()} == {
        "empty": [],
        "ext4": ["ext4"],
        "xfs": ["xfs"],
        "btrfs-a": ["btrfs"],
        "btrfs-b": ["btrfs"],
        "swap": ["swap"],
        "lvm": ["LVM2_member"],
        "luks": ["crypto_LUKS"],
        "gpt": ["gpt"],
        "mbr": ["dos"],
        "iso": ["iso9660"],
        "backup": ["gpt"],
        "both": ["dos", "ext4"],
        "data": [],
    }
    assert [name for name, one in here.items() if one["free"]] == ["empty"]
    assert {name for name, one in here.items() if codes(one) != ["signed"]} == {"empty"}
    assert (here["data"]["blank"], here["empty"]["blank"]) == (False, True)
    assert here["lvm"]["members"][0]["name"] == "block-test-engines"
    for name in ("ext4", "xfs", "btrfs-a", "btrfs-b"):
        uuid, label = bench.host.run(f"blkid -p -s UUID -s LABEL -o value {bench.paths[name]}").out.split()[
            ::-1
        ]
        assert here[name]["filesystem"] == {"type": name.split("-")[0], "uuid": uuid, "label": label}


def test_identity_as_lsblk_has_it(bench: Bench) -> None:
    columns = "KNAME,PATH,MAJ:MIN,SIZE,RO,RM,ROTA,LOG-SEC,PHY-SEC,MODEL,SERIAL,VENDOR,TYPE"
    said = json.loads(bench.host.run(f"lsblk --json --bytes --list --output {columns}").out)["blockdevices"]
    lsblk = {one["kname"]: one for one in said}
    found = {one["name"]: one for one in bench.ask()["devices"]}
    assert {path[5:] for path in bench.paths.values()} <= set(found) & set(lsblk)
    for name in set(found) & set(lsblk):
        one, other = found[name], lsblk[name]
        assert (one["path"], one["number"], one["size_bytes"]) == (
            other["path"],
            other["maj:min"].strip(),
            int(other["size"]),
        )
        assert (one["read_only"], one["removable"], one["rotational"]) == (
            other["ro"],
            other["rm"],
            other["rota"],
        )
        assert one["logical_block_bytes"] == int(other["log-sec"])
        assert one["physical_block_bytes"] == int(other["phy-sec"])
        for key in ("model", "vendor"):
            assert one[key] == ((other[key] or "").strip() or None)
        if other["serial"]:
            assert one["serial"] == other["serial"].strip()


def test_one_selector_one_device(bench: Bench) -> None:
    found = bench.ask(by("empty", size_min="16M", size_max="16M", transport="loop", empty=True))
    picked = found["selected"]["volumes[empty]"]
    assert not found.get("failed") and found["changed"] is False
    assert (picked["path"], picked["free"], picked["own"]) == (bench.paths["empty"], True, False)


def test_several_in_one_round_trip(bench: Bench) -> None:
    wanted = [
        by("*", name="left over", empty=True),
        by("empty"),
        {"name": "volumes[xfs]", "path": bench.paths["xfs"], "own": ["engine"]},
    ]
    wipe = [{"serial": f"{FOLDER}/ext4", "signature": "ext4"}]
    found = bench.ask(*wanted, wipe=wipe)
    assert {name: one["path"] for name, one in found["selected"].items()} == {
        "left over": bench.paths["ext4"],
        "volumes[empty]": bench.paths["empty"],
        "volumes[xfs]": bench.paths["xfs"],
    }
    assert found["selected"]["left over"]["wipe"] == ["ext4"]
    assert found["selected"]["volumes[xfs]"]["own"] is True
    assert found["selected"]["volumes[xfs]"]["free"] is False


REFUSED = [
    ([by("nonesuch")], [], ["what fits a device; none does", "its serial is"]),
    (
        [{"name": "v", "path": "/dev/nonesuch"}],
        [],
        ["a device that has a size; there is none at /dev/nonesuch"],
    ),
    ([by("btrfs-?")], [], ["what fits one device; 2 fit", "btrfs-a", "btrfs-b"]),
    ([by("empty", size_min="1G")], [], ["it has 16 MiB, less than 1 GiB"]),
    ([by("both")], ["ext4"], ["names its serial with ext4, but not with dos"]),
    ([by("ext4")], ["xfs"], ["names its serial with xfs, but not with ext4"]),
    ([by("*", empty=True)], ["ext4"], ["what fits one device; 2 fit"]),
    ([by("empty"), by("empty", name="other")], [], ["a device of its own", "is that of other"]),
    ([by("[!e]*", empty=True)], [], ["those that fit aren't free"]),
    ([by("xfs", own=["pool"])], [], ["one device that carries its own mark"]),
    ([by("empty", own=["engine"])], [], ["the device that carries its own mark", "its serial is"]),
    ([{"name": "v"}], [], ["v: '' is refused; allowed: at least one of path"]),
    ([by("empty", size_min="16 MB/s")], [], ["size_min: '16 MB/s' is refused"]),
    (
        [by("empty", size_min="2G", size_max="1G")],
        [],
        ["size_max: '1G' is refused; allowed: at least size_min"],
    ),
    ([{"name": "v", "path": "nvme0n1"}], [], ["v.path: 'nvme0n1' is refused; allowed: the path of a device"]),
    ([by("empty")], ["ext4 xfs"], ["wipe[0].signature: 'ext4 xfs' is refused"]),
]


@pytest.mark.parametrize(
    ("select", "signatures", "message"), REFUSED, ids=[f"{case[2][0][:32]}" for case in REFUSED]
)
def test_refused(
    bench: Bench, select: list[dict[str, Any]], signatures: list[str], message: list[str]
) -> None:
    serials = {f"{FOLDER}/ext4" if "*" in one.get("serial", "*") else one["serial"] for one in select}
    wipe = [{"serial": serial, "signature": kind} for serial in serials for kind in signatures]
    found = bench.ask(*select, wipe=wipe)
    assert found["failed"]
    for text in message:
        assert text in found["msg"]


def test_what_is_signed_is_refused(bench: Bench) -> None:
    holds = {
        "ext4": "ext4 'data'",
        "xfs": "xfs 'engine'",
        "btrfs-a": "btrfs 'pool'",
        "btrfs-b": "btrfs 'pool'",
        "swap": "swap 'page'",
        "lvm": "LVM2_member",
        "luks": "crypto_LUKS",
        "gpt": "gpt",
        "mbr": "dos",
        "iso": "iso9660 'Debian 13'",
        "backup": "gpt",
        "both": "dos, ext4",
        "data": "data without a known signature",
    }
    lines = bench.ask(*[by(name) for name in holds])["msg"].splitlines()
    assert len(lines) == len(holds)
    for (name, text), line in zip(holds.items(), lines, strict=True):
        assert line.startswith(
            f"volumes[{name}]: 'serial: {FOLDER}/{name}' is refused; allowed: a device that is free"
        )
        assert (
            f"is not: it holds {text}; only a wipe list with {{serial: {FOLDER}/{name}, signature: " in line
        )


def test_asking_and_being_refused_changes_nothing(bench: Bench) -> None:
    before = bench.state()
    everything = [by(name) for name in DEVICES]
    wipe = [{"serial": f"{FOLDER}/{name}", "signature": "data"} for name in DEVICES]
    assert bench.ask(*everything, wipe=wipe)["failed"]
    found = bench.host.module(
        "block_device_info", {"select": everything, "wipe": wipe, "fail": False}, check=True
    )
    assert set(found["selected"]) == {"volumes[empty]", "volumes[data]"}
    assert len(found["refusals"]) == len(DEVICES) - 2
    assert bench.state() == before


def test_a_wipe_list_that_says_what_is_there(bench: Bench) -> None:
    present = {"both": ["dos", "ext4"], "backup": ["gpt"], "data": ["data"]}
    wipe = [{"serial": f"{FOLDER}/{name}", "signature": kind} for name in present for kind in present[name]]
    picked = bench.ask(*[by(name) for name in present], wipe=wipe)["selected"]
    assert {name: (one["free"], one["wipe"]) for name, one in picked.items()} == {
        f"volumes[{name}]": (True, signatures) for name, signatures in present.items()
    }


KEEP_ID = "echo $! >/run/block-test.pid; "
SLEEPS = KEEP_ID + "until grep -qx sleep /proc/$!/comm; do sleep 0.05; done"
END_IT = "kill $(cat /run/block-test.pid); rm /run/block-test.pid"
USES = [
    ("ext4", "mount {0} /mnt", "umount /mnt", "mounted", "it is mounted on /mnt"),
    (
        "ext4",
        "unshare -m --propagation private sh -c 'mount {0} /mnt && exec sleep 600' >/dev/null 2>&1 & "
        + SLEEPS,
        END_IT,
        "mounted",
        "it is mounted on /mnt in the mount namespace of sleep (",
    ),
    (
        # A mount namespace without any process in it: only the kernel knows.
        "ext4",
        "mkdir -p /run/block-test && mount -t tmpfs -o mode=700 none /run/block-test && "
        "mount --make-private /run/block-test && touch /run/block-test/mnt && "
        # A kernel that numbers namespaces by processor refuses to keep one that looks older than its keeper.
        "for _ in $(seq 50); do unshare --mount=/run/block-test/mnt mount {0} /mnt && break; sleep 0.1; done;"
        " mountpoint -q /run/block-test/mnt",
        "umount /run/block-test/mnt; umount /run/block-test",
        "busy",
        "the kernel says that it is in use",
    ),
    (
        "empty",
        "python3 -c \"import os, time; os.open('{0}', os.O_RDONLY | os.O_EXCL); time.sleep(600)\" "
        ">/dev/null 2>&1 & " + KEEP_ID + "until ls -l /proc/$!/fd | grep -q {0}; do sleep 0.05; done",
        END_IT,
        "busy",
        "the kernel says that it is in use",
    ),
    (
        "empty",
        'sh -c "exec 3<>{0}; exec sleep 600" >/dev/null 2>&1 & ' + SLEEPS,
        END_IT,
        "open",
        "it is open for writing in sleep (",
    ),
    (
        "empty",
        ATTACH + "attach {0}",
        "losetup -j {0} -nO NAME | xargs -r losetup -d",
        "held",
        "it is a part of /dev/loop",
    ),
    ("empty", "blockdev --setro {0}", "blockdev --setrw {0}", "read_only", "it is read-only"),
    (
        "empty",
        f"truncate -s 1M {FOLDER}/empty",
        f"truncate -s 16M {FOLDER}/empty",
        "error",
        "it can't be read: Input/output error",
    ),
    ("empty", "mv {0} {0}.away", "mv {0}.away {0}", "no_node", "there is no /dev/loop"),
    ("swap", "swapon {0}", "swapoff {0}", "swap", "it is used as swap"),
]


@pytest.mark.parametrize(
    ("name", "begin", "end", "code", "text"),
    USES,
    ids=[f"{case[3]}-{number}" for number, case in enumerate(USES)],
)
def test_a_device_in_use(bench: Bench, name: str, begin: str, end: str, code: str, text: str) -> None:
    path = bench.paths[name]
    wipe = [{"serial": f"{FOLDER}/{name}", "signature": kind} for kind in ("ext4", "swap")]
    bench.host.run(begin.replace("{0}", path))
    try:
        said = bench.ask({"name": "volume", "path": path}, wipe=wipe)
    finally:
        bench.host.run(end.replace("{0}", path))
    assert said["failed"] and text in said["msg"]
    assert f"volume: 'path: {path}' is refused; allowed: a device that is free" in said["msg"]
    found = next(one for one in said["devices"] if one["path"] == path)
    assert code in codes(found), found["reasons"]


def test_a_device_whose_use_has_ended_is_free(bench: Bench) -> None:
    wipe = [{"serial": f"{FOLDER}/{name}", "signature": name} for name in ("ext4", "swap")]
    found = bench.ask(by("ext4"), by("swap"), by("empty"), wipe=wipe)
    assert not found.get("failed"), found["msg"]
    assert len(found["selected"]) == 3


def test_a_btrfs_over_two_devices_that_is_mounted(bench: Bench) -> None:
    bench.host.run(f"mount -o device={bench.paths['btrfs-b']} {bench.paths['btrfs-a']} /mnt")
    try:
        every = {one["path"]: one for one in bench.ask()["devices"]}
    finally:
        bench.host.run("umount /mnt")
    found = [every[bench.paths[name]] for name in ("btrfs-a", "btrfs-b")]
    uuid = found[0]["filesystem"]["uuid"]
    for one in found:
        assert f"the mounted btrfs {uuid}" in one["holders"]
        assert "held" in codes(one)


def test_partitions(bench: Bench) -> None:
    """Without udev the kernel's partitions have no nodes; here they get some by hand."""
    host, path = bench.host, bench.paths["gpt"]
    host.run(f"losetup -d {path} && losetup -P {path} {FOLDER}/gpt && partx -u {path}")
    name = path[5:]
    made = [
        f"{{ [ -e {path}p{n} ] || mknod {path}p{n} b $(tr : ' ' </sys/block/{name}/{name}p{n}/dev); }}"
        for n in (1, 2)
    ]
    try:
        without = {one["path"]: one for one in bench.ask()["devices"]}
        host.run(" && ".join([*made, f"mkfs.xfs -q -f -L part {path}p2 || mkfs.ext4 -q -L part {path}p2"]))
        found = {one["path"]: one for one in bench.ask()["devices"]}
        disk, first, second = found[path], found[f"{path}p1"], found[f"{path}p2"]
        assert disk["partitions"] == [f"{path}p1", f"{path}p2"]
        assert (first["free"], first["disk"], first["partition"], first["serial"]) == (
            True,
            name,
            1,
            f"{FOLDER}/gpt",
        )
        kind = second["filesystem"]["type"]
        wipe = [{"serial": f"{FOLDER}/gpt", "signature": "gpt"}]
        refused = bench.ask(by("gpt"), wipe=wipe)
        assert f"its partition {path}p2 holds {kind} 'part'" in refused["msg"]
        assert f"names its serial with gpt, but not with {kind}" in refused["msg"]
        wipe.append({"serial": f"{FOLDER}/gpt", "signature": kind})
        chosen = bench.ask(by("gpt"), wipe=wipe)
        assert "volumes[gpt]" in chosen["selected"], chosen.get("msg")
        assert chosen["selected"]["volumes[gpt]"]["path"] == path
        host.run(f"mount {path}p2 /mnt")
        used = bench.ask(by("gpt"), wipe=wipe)
        own = bench.ask(by("gpt", own=["part"]))["selected"]["volumes[gpt]"]
        host.run("umount /mnt")
        assert f"its partition {path}p2: it is mounted on /mnt" in used["msg"]
        assert (own["path"], own["own"], own["free"]) == (path, True, False)
        part = bench.ask({"name": "part", "path": f"{path}p1"}, {"name": "all", "path": path}, wipe=wipe)
        assert part["failed"] and "a device of its own" in part["msg"]
        before = without[f"{path}p1"]
        assert codes(before) == ([] if before["node"] else ["no_node"])
    finally:
        host.run(
            f"umount /mnt 2>/dev/null; rm -f {path}p1 {path}p2; losetup -d {path}; losetup {path} {FOLDER}/gpt"
        )


def test_the_disk_of_the_host_is_never_free(bench: Bench) -> None:
    mounted = bench.host.run("findmnt -nro SOURCE /etc/hosts || true").out.split("[")[0].strip()
    for one in bench.ask()["devices"]:
        if one["system"] or one["path"] == mounted:
            assert one["free"] is False and set(codes(one)) & {"system", "mounted", "error"}
