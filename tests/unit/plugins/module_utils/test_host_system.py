# SPDX-License-Identifier: GPL-3.0-or-later
"""System, kernel, accounts, packages, and the whole of ``read_host`` over a made-up host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _host_system as system
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host import read_host
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import MountTable
from hypothesis import given
from hypothesis import strategies as st
from support import table

DPKG = (
    "docker.io\tamd64\t26.1.5+dfsg1-9+deb13u1\tii \n"
    "libc6\ti386\t2.41-11\tii \n"
    "libc6\tamd64\t2.41-12\thi \n"
    "gone\tamd64\t1.0\trc \n"
    "tini\tamd64\t0.19.0-3+b8\thi \n"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nID=debian\n',
            ("debian", "12", 12, "bookworm", "Debian GNU/Linux 12 (bookworm)"),
        ),
        ("ID=ubuntu\nVERSION_ID='22.04'\n# ID=no\n", ("ubuntu", "22.04", 22, None, None)),
        ("ID=arch\n", ("arch", None, None, None, None)),
        ("", (None, None, None, None, None)),
    ],
)
def test_os_release(text: str, expected: tuple[object, ...]) -> None:
    assert tuple(system.parse_os_release(text).values()) == expected


@given(st.text())
def test_os_release_takes_any_text(text: str) -> None:
    assert set(system.parse_os_release(text)) == {"id", "version_id", "major", "codename", "pretty"}


def test_a_missing_capability_is_named() -> None:
    found = system.parse_capabilities("CapEff:\t0000000000000000\nCapBnd:\t000001fffeffffff\n", 40)
    assert found["missing"] == ["CAP_SYS_RESOURCE"]
    assert len(found["bounding"]) == 40


def test_capabilities_newer_than_the_kernel_are_not_missing() -> None:
    assert system.parse_capabilities("CapBnd:\t0000003fffffffff\n", 37)["missing"] == []


def test_packages() -> None:
    assert system.parse_packages(DPKG, "amd64") == {
        "docker.io": {"version": "26.1.5+dfsg1-9+deb13u1", "hold": False},
        "libc6": {"version": "2.41-12", "hold": True},
        "tini": {"version": "0.19.0-3+b8", "hold": True},
    }


@pytest.mark.parametrize("name", ["", "-x", "a b", "Docker", "docker.io*", "--admindir=/x", "a;b"])
def test_a_name_no_package_has_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"packages: .* is refused"):
        system.package_names([name])


@pytest.mark.parametrize(
    ("version", "upstream"),
    [
        ("26.1.5+dfsg1-9+deb13u1", "26.1.5"),
        ("5:27.3.1-1~debian.12~bookworm", "27.3.1"),
        ("20.10.24+dfsg1-1+deb12u1", "20.10.24"),
        ("Docker version 28.2.2, build e6534b4", "28.2.2"),
        ("iptables v1.8.11 (nf_tables)", "1.8.11"),
        ("nothing", None),
    ],
)
def test_upstream_version(version: str, upstream: str | None) -> None:
    assert system.upstream_version(version) == upstream


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Result(0, "iptables v1.8.11 (nf_tables)\n"), {"backend": "nft", "version": "1.8.11"}),
        (Result(0, "iptables v1.8.9 (legacy)\n"), {"backend": "legacy", "version": "1.8.9"}),
        (Result(127, "", "iptables: not found"), {"backend": None, "version": None}),
    ],
)
def test_iptables(result: Result, expected: dict[str, object]) -> None:
    assert system.parse_iptables(result) == expected


def test_subordinate_ids() -> None:
    text = "ci:100000:65536\n1000:200000:1000\nother:1:5\nci:bad\n"
    assert system.subordinate_ids(text, "ci", 1000) == 66536
    assert system.subordinate_ranges(text, "ci", 1000) == [[100000, 65536], [200000, 1000]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ci:100000:65536\n", [[100000, 65536]]),
        ("ci:1:2\n1000:3:4\nother:5:6\n", [[1, 2], [3, 4]]),
        ("ci:x:2\nci:1\n#ci:1:2\n\n", []),
    ],
)
def test_subordinate_ranges(text: str, expected: list[list[int]]) -> None:
    assert system.subordinate_ranges(text, "ci", 1000) == expected


CGROUP2 = "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:5 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
CGROUP1 = (
    "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:5 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "3 1 0:6 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "4 1 0:7 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
)
HYBRID = CGROUP1 + "5 1 0:8 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "files", "version", "controllers"),
    [
        (CGROUP2, {"sys/fs/cgroup/cgroup.controllers": "cpu memory pids\n"}, 2, ["cpu", "memory", "pids"]),
        (CGROUP1, {}, 1, ["cpu", "cpuacct", "memory"]),
        (HYBRID, {"sys/fs/cgroup/unified/cgroup.controllers": "\n"}, "hybrid", ["cpu", "cpuacct", "memory"]),
        ("", {}, None, []),
    ],
)
def test_cgroup(
    tmp_path: Path, mountinfo: str, files: dict[str, str], version: object, controllers: list[str]
) -> None:
    files["proc/cgroups"] = "#subsys\thierarchy\ncpu\t1\ncpuacct\t1\nmemory\t2\npids\t0\n"
    make(tmp_path, files)
    found = system.read_cgroup(MountTable.parse(mountinfo), View(str(tmp_path)))
    assert found == {"version": version, "controllers": controllers}


def test_the_manager(tmp_path: Path) -> None:
    view = View(str(tmp_path))
    shown = Result(0, "Version=257.13-1~deb13u1\nSystemState=degraded\n")
    assert system.parse_manager(shown, view) == {"systemd": False, "version": None, "state": "absent"}
    make(tmp_path, {"run/systemd/system/x": ""})
    assert system.parse_manager(shown, view) == {"systemd": True, "version": 257, "state": "degraded"}
    hung = system.parse_manager(Result(124), view)
    assert hung == {"systemd": True, "version": None, "state": "unknown"}


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({"sys/module/nf_tables/refcnt": "1"}, "present"),
        ({"lib/modules/6.1/modules.builtin": "kernel/net/netfilter/nf_tables.ko\n"}, "present"),
        (
            {"lib/modules/6.1/modules.dep": "kernel/net/netfilter/nf_tables.ko.xz: kernel/x.ko.xz\n"},
            "loadable",
        ),
        ({"lib/modules/6.1/modules.dep": "kernel/x.ko: kernel/net/other_nf_tables.ko\n"}, None),
        ({}, None),
    ],
)
def test_kernel_modules(tmp_path: Path, files: dict[str, str], state: str | None) -> None:
    make(tmp_path, files)
    assert system.module_state("nf_tables", View(str(tmp_path)), "6.1") == state


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Result(0, "insmod /lib/modules/6.1/kernel/fs/overlayfs/overlay.ko \n"), "loadable"),
        (Result(0, "install /bin/false \n"), "absent"),
        (Result(1, "", "modprobe: FATAL: Module overlay not found"), "absent"),
        (Result(127), "absent"),
    ],
)
def test_overlay_as_a_module(tmp_path: Path, answer: Result, state: str) -> None:
    make(tmp_path, {"proc/filesystems": "nodev\ttmpfs\n\text4\n", "sys/module/nf_tables/x": ""})
    run = table({("modprobe", "--dry-run", "--verbose", "overlay"): answer})
    assert system.read_kernel_features(View(str(tmp_path)), run, "6.1")["overlay"] == state


def test_the_age_of_apt_lists(tmp_path: Path) -> None:
    view = View(str(tmp_path))
    make(tmp_path, {"var/lib/apt/lists/lock": "", "var/lib/apt/lists/partial/x": ""})
    assert system.apt_lists_age(view) is None
    make(tmp_path, {"var/lib/apt/lists/deb.example_InRelease": ""})
    for name in ("var/lib/apt/lists", "var/lib/apt/lists/partial"):
        os.utime(tmp_path / name, (1000, 1000))
    assert system.apt_lists_age(view, now=4600) == 3600


def test_an_engine_that_came_in_no_package(tmp_path: Path) -> None:
    make(tmp_path, {"usr/local/bin/runsc": ""})
    run = table({("/usr/local/bin/runsc", "--version"): "runsc version release-20260905.0\nspec: 1.1.0\n"})
    found = system.read_engines({"docker-ce": {"version": "5:27.3.1-1~x"}}, run, View(str(tmp_path)))
    assert found["docker"] == {"version": "27.3.1", "package": "docker-ce", "program": None}
    assert found["gvisor"]["program"] == "/usr/local/bin/runsc"
    assert found["podman"] is None


def test_a_whole_host(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            "etc/os-release": "ID=debian\nVERSION_ID=13\n",
            "etc/resolv.conf": "nameserver 9.9.9.9\n",
            "proc/meminfo": "MemTotal:       2048 kB\n",
            "proc/self/mountinfo": CGROUP2,
            "proc/filesystems": "nodev\toverlay\n",
            "sys/module/nf_tables/x": "",
            "sys/fs/cgroup/cgroup.controllers": "cpu memory pids",
            "data/.matryoshka": '{"owner": "runner", "name": "ci"}',
        },
    )
    names = system.package_names(["docker.io", "absent"])
    query = ("dpkg-query", "--show", "--showformat", system.DPKG_FORMAT, *names)
    run = table({query: Result(1, DPKG, "dpkg-query: no packages found matching absent")})
    found = read_host(
        run,
        packages=["docker.io", "absent"],
        groups=["root", "nosuchgroup"],
        users=["root", "nosuchuser"],
        paths=["/data", "/none"],
        view=View(str(tmp_path)),
    )
    assert found["memory_bytes"] == 2 * 1024**2
    assert set(found["packages"]) == {"docker.io"}
    assert found["engines"]["docker"]["version"] == "26.1.5"
    assert set(found["groups"]) == {"root"} and found["groups"]["root"]["gid"] == 0
    assert set(found["users"]) == {"root"}
    assert found["paths"]["/data"]["marker"] == {"owner": "runner", "name": "ci"}
    assert found["paths"]["/none"]["type"] == "absent"
    assert found["cgroup"] == {"version": 2, "controllers": ["cpu", "memory", "pids"]}
    assert found["iptables"] == {"backend": None, "version": None}
    assert found["network"]["nameservers"] == ["9.9.9.9"]


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(InputError, match="paths: 'data' is refused; allowed: absolute paths"):
        read_host(table({}), paths=["data"])


def make(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
