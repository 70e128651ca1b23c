# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking into network namespaces, engines and containers' files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_inside import Inside
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_read import (
    SCRIPT,
    Namespace,
    docker_runs,
    read_engines,
    read_namespace,
    split_parts,
    surroundings,
)
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import NoAnswer
from bridge_fixtures import Daemon, Programs, loaded, text
from hypothesis import given
from hypothesis import strategies as st


def test_one_process_for_a_namespace() -> None:
    run = Programs({"nsenter": Result(0, text("debian13-container.txt"))})
    seen = read_namespace(run, "ci-1", 4711, token=lambda: "MARK")
    assert run.started == [
        ["nsenter", "--net=/proc/4711/ns/net", "--", "/bin/sh", "-c", SCRIPT, "sh", "MARK"]
    ]
    assert [link.name for link in seen.links] == ["lo", "docker0", "eth0"]
    assert (seen.backends, seen.unread, seen.error) == (["nft"], [], None)
    assert seen.switches["call_iptables"] is True


def test_the_host_s_own_namespace_needs_no_entering() -> None:
    run = Programs({"/bin/sh": Result(0, text("debian13-host.txt"))})
    assert read_namespace(run, "host", token=lambda: "MARK").error is None
    assert run.started[0][:2] == ["/bin/sh", "-c"]


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (Result(1, "", "nsenter: cannot open /proc/1/ns/net: No such file\n"), "nsenter: cannot open"),
        (Result(124, "", "no end within 20 s"), "no end within 20 s"),
        (Result(3), "nothing could be read (code 3)"),
    ],
)
def test_a_namespace_that_is_gone(result: Result, error: str) -> None:
    seen = read_namespace(Programs({"nsenter": result}), "ci", 4)
    assert seen.error and seen.error.startswith(error)
    assert seen.links == []


def test_a_forged_answer_is_only_text() -> None:
    forged = 'MARK begin links\n[]\nguess end 0\nguess begin links\n[{"ifname":"x"}]\n\nMARK end 0\n'
    assert split_parts(forged, "MARK") == {
        "links": (0, '[]\nguess end 0\nguess begin links\n[{"ifname":"x"}]\n')
    }
    run = Programs({"nsenter": Result(0, forged)})
    first, second = (read_namespace(run, "ci", 4), run.started[-1][-1]), run.started
    read_namespace(run, "ci", 4)
    assert first[0].links == []
    assert first[1] != second[-1][-1]
    assert len(first[1]) == 32


@given(st.text(max_size=60), st.integers(0, 255))
def test_parts_keep_what_was_printed(output: str, code: int) -> None:
    printed = f"T begin a\n{output}\nT end {code}\nT begin b\n\nT end 0\n"
    if "T end" not in output:
        assert split_parts(printed, "T") == {"a": (code, output), "b": (0, "")}


def test_programs_that_are_missing_are_told() -> None:
    missing = "".join(f"M begin {name}\n\nM end 127\n" for name in ("links", "routes", "nft4", "native"))
    seen = read_namespace(Programs({"nsenter": Result(0, missing)}), "ci", 4, token=lambda: "M")
    assert seen.unread == ["iptables (nft)", "nft", "links", "routes"]


@pytest.mark.skipif(shutil.which("ip") is None, reason="no iproute2 here; container hosts have it")
def test_the_script_runs_with_the_real_shell() -> None:
    done = subprocess.run(["/bin/sh", "-c", SCRIPT, "sh", "M"], capture_output=True, text=True, check=False)
    parts = split_parts(done.stdout, "M")
    assert {"links", "routes", "routes6", "rules", "rules6", "learnt", "switches", "native"} <= set(parts)
    assert parts["links"][0] == 0
    assert any(entry["ifname"] == "lo" for entry in json.loads(parts["links"][1]))
    assert done.stderr == ""


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    root = tmp_path / "7" / "root"
    (root / "etc/docker").mkdir(parents=True)
    (root / "etc/docker/daemon.json").write_text('{"bip": "172.22.0.1/16"}')
    (tmp_path / "secret").write_text("of the host")
    (root / "etc/link").symlink_to(tmp_path / "secret")
    (root / "etc/folder").symlink_to(root / "etc/docker")
    os.mkfifo(root / "etc/pipe")
    (root / "etc/large").write_bytes(b"x" * ((1 << 20) + 5))
    return Inside(7, str(tmp_path))


def test_files_of_a_container(inside: Inside) -> None:
    assert inside.text("/etc/docker/daemon.json") == '{"bip": "172.22.0.1/16"}'
    assert inside.names("/etc/docker") == ["daemon.json"]
    assert inside.exists("/etc/docker") and inside.exists("/")
    assert len(inside.text("/etc/large") or "") == 1 << 20


@pytest.mark.parametrize(
    "path",
    [
        "/etc/link",
        "/etc/folder/daemon.json",
        "/etc/pipe",
        "/etc/none",
        "/etc",
        "/etc/docker/../link",
        "/a\0b",
    ],
)
def test_what_could_lead_elsewhere_isn_t_read(inside: Inside, path: str) -> None:
    started = time.monotonic()
    assert inside.text(path) is None
    assert time.monotonic() - started < 1


def test_links_count_as_not_there(inside: Inside) -> None:
    assert inside.names("/etc/folder") == []
    assert not inside.exists("/etc/link")
    assert inside.link("/etc/link") is None
    assert inside.real("/etc/link") == "/etc/link"


Files = Callable[[Mapping[str, str]], View]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    def write(content: Mapping[str, str]) -> View:
        for path, body in content.items():
            target = tmp_path / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(body)
        return View(str(tmp_path))

    return write


def test_all_engines_of_a_host(files: Files) -> None:
    view = files(
        {
            "/etc/containers/networks/apps.json": text("podman-5.4-apps.json"),
            "/etc/containers/networks/netavark.lock": "",
            "/etc/cni/net.d/old.conflist": text("derived-cni.conflist"),
            "/etc/containers/containers.conf": '[network]\ndefault_subnet = "10.40.0.0/16"\n',
            "/etc/libvirt/qemu/networks/default.xml": text("libvirt-9-default.xml"),
            "/etc/libvirt/qemu/networks/broken.xml": "<network>",
        }
    )
    ask = Daemon({"/info": {}, "/networks": loaded("docker-26.1-networks.json")})
    found = {engine.kind: engine for engine in read_engines(view, ask, "/run/docker.sock")}
    assert [one.name for one in found["docker"].networks] == ["bridge", "appnet", "six"]
    assert {one.name: [str(two) for two in one.ranges] for one in found["podman"].networks} == {
        "podman": ["10.40.0.0/16"],
        "apps": ["10.91.3.0/24"],
        "old": ["10.89.4.0/24"],
    }
    assert [one.interface for one in found["libvirt"].networks] == ["virbr0"]


def test_an_engine_that_isn_t_there(files: Files) -> None:
    assert read_engines(files({}), Daemon({"/info": NoAnswer("no socket")}), "/run/docker.sock") == []
    assert read_engines(files({}), Daemon({}), None) == []


def test_a_docker_that_is_down_is_known_by_its_file(files: Files) -> None:
    view = files({"/etc/docker/daemon.json": '{"bip": "172.20.0.1/16"}'})
    ask = Daemon({"/info": NoAnswer("nothing listens on /run/docker.sock")})
    (asked,) = read_engines(view, ask, "/run/docker.sock")
    assert (asked.live, asked.error) == (False, "nothing listens on /run/docker.sock")
    ask = Daemon({})
    (unasked,) = read_engines(view, ask, None)
    assert (unasked.error, ask.asked) == ("not asked: it isn't running", [])


def test_an_inner_engine_is_asked_below_its_root(files: Files) -> None:
    seen = Namespace("ci", pid=4711)
    ask = Daemon({"/info": {}, "/networks": loaded("docker-26.1-inner-networks.json")})
    view = files({"/etc/resolv.conf": "nameserver 10.9.0.2\n"})
    surroundings(seen, ask, view)
    assert ask.asked[0] == "/proc/4711/root/run/docker.sock /info"
    assert seen.nameservers == ["10.9.0.2"]
    assert [engine.live for engine in seen.engines] == [True]


@pytest.mark.parametrize(
    ("content", "runs"),
    [
        ({}, False),
        ({"/run/docker.sock": ""}, False),
        ({"/run/docker.pid": "12\n", "/proc/12/comm": "dockerd\n"}, True),
        ({"/run/docker.pid": "12\n", "/proc/12/comm": "bash\n"}, False),
        ({"/run/docker.sock": "", "/proc/40/comm": "dockerd\n"}, True),
        ({"/proc/40/comm": "dockerd\n"}, False),
    ],
)
def test_whether_a_docker_runs(files: Files, content: Mapping[str, str], runs: bool) -> None:
    assert docker_runs(files(content), "/run/docker.sock") is runs


def test_a_paused_container_isn_t_asked(files: Files) -> None:
    ask = Daemon({})
    seen = Namespace("ci", pid=4711)
    surroundings(seen, ask, files({"/etc/docker/daemon.json": "{}"}), paused=True)
    assert ask.asked == []
    assert [engine.error for engine in seen.engines] == ["not asked: the container is paused"]
