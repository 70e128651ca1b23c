# SPDX-License-Identifier: GPL-3.0-or-later
"""engine_storage_info and host_info against real engines, one inside the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from nested_engine import BUILD, IMAGE, start, until_live


def asked(host: Any, *containers: str, **more: Any) -> dict[str, Any]:
    return dict(host.module("engine_storage_info", {"containers": list(containers), **more}))


def codes(entry: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in entry["reasons"]]


def stop_all(host: Any) -> None:
    host.run("docker ps -aq --filter name=^st- | xargs -r docker rm -f -v; rm -rf /var/lib/matryoshka/st")


@pytest.fixture(scope="module")
def host(docker_host: Any) -> Iterator[Any]:
    docker_host.run(BUILD)
    start(docker_host, "st-volume", "-v", "/var/lib/matryoshka/st/volume:/var/lib/docker")
    start(docker_host, "st-overlay")
    start(docker_host, "st-memory", "--tmpfs", "/var/lib/docker:size=200m")
    start(docker_host, "st-none", command="exec sleep infinity")
    until_live(docker_host, "st-volume", "st-overlay", "st-memory")
    yield docker_host
    stop_all(docker_host)
    docker_host.run(f"docker rmi {IMAGE}")


def test_the_host_s_engine(host: Any) -> None:
    found = asked(host)
    engine = found["engines"][0]
    assert (found["verdict"], engine["verdict"], found["changed"]) == ("ok", "ok", False), engine["reasons"]
    assert engine["driver"] == host.run("docker info -f '{{.Driver}}'").out.strip()
    assert engine["data_root"] == host.run("docker info -f '{{.DockerRootDir}}'").out.strip()
    mount = host.run(f"stat -f -c %T {engine['data_root']}").out.strip()
    assert engine["location"]["filesystem"].removesuffix("4") in mount


def test_a_data_root_on_a_volume(host: Any) -> None:
    engine = asked(host, "st-volume")["engines"][0]
    assert (engine["verdict"], engine["driver"], engine["live"]) == ("ok", "overlay2", True), engine[
        "reasons"
    ]
    assert engine["location"]["mount_point"] == "/var/lib/docker"
    outside = host.run("stat -f -c '%c' /var/lib/matryoshka").out.strip()
    assert str(engine["location"]["inodes_total"]) == outside


def test_a_data_root_on_an_overlay(host: Any) -> None:
    engine = asked(host, "st-overlay")["engines"][0]
    assert (engine["verdict"], engine["driver"]) == ("degraded", "vfs")
    assert codes(engine) == ["vfs", "backing_overlay"]
    assert engine["location"]["beneath"] == asked(host)["engines"][0]["location"]["filesystem"]
    assert "because /var/lib/docker lies on overlay" in engine["reasons"][0]["text"]


def test_a_data_root_in_memory_and_full(host: Any) -> None:
    assert codes(asked(host, "st-memory")["engines"][0]) == ["backing_memory"]
    fill = "docker exec st-memory sh -c 'head -c {}m /dev/zero >/var/lib/docker/fill-{}'"
    host.run(fill.format(194, 1))
    assert codes(asked(host, "st-memory")["engines"][0]) == ["backing_memory", "nearly_full"]
    host.run(fill.format(100, 2), check=False)
    full = asked(host, "st-memory")["engines"][0]
    assert (full["verdict"], codes(full)) == ("broken", ["full", "backing_memory"])
    host.run("docker exec st-memory sh -c 'rm /var/lib/docker/fill-*'")


def test_several_at_once_and_those_that_are_not(host: Any) -> None:
    start(host, "st-over", command="true")
    host.run("docker wait st-over")
    found = asked(host, "st-volume", "st-none", "st-over", "st-absent", "st-overlay", include_host=True)
    assert [entry["container"] for entry in found["engines"]] == [
        None,
        "st-volume",
        "st-none",
        "st-over",
        "st-absent",
        "st-overlay",
    ]
    assert [codes(entry)[:1] for entry in found["engines"]] == [
        [],
        [],
        ["daemon_dead"],
        ["daemon_dead"],
        ["container_absent"],
        ["vfs"],
    ]
    assert found["verdict"] == "broken"
    assert "is not running" in found["engines"][3]["error"]


def test_expect_passes(host: Any) -> None:
    wanted = {"driver": "overlay2", "data_root": "/var/lib/docker", "allow": ["root_disk"]}
    found = asked(host, "st-volume", include_host=True, expect=wanted)
    assert not found.get("failed"), found
    assert found["unmet"] == []


@pytest.mark.parametrize("check", [False, True])
def test_expect_fails_with_reasons_and_remedies(host: Any, check: bool) -> None:
    wanted = {"expect": {"driver": "overlay2"}, "containers": ["st-volume", "st-overlay"]}
    found = host.module("engine_storage_info", wanted, check=check)
    assert found["failed"]
    assert found["msg"].splitlines() == found["unmet"]
    assert len(found["unmet"]) == 3
    assert found["unmet"][0].startswith("Docker in the container st-overlay: Docker copies whole layers")
    assert "Mount a directory of the host's ext4, xfs or btrfs" in found["unmet"][0]
    assert found["unmet"][2].endswith("driver is vfs, expected overlay2.")


def test_an_unknown_code_is_refused(host: Any) -> None:
    found = asked(host, expect={"allow": ["rootdisk"]})
    assert found["failed"] and "allow: 'rootdisk' is refused; allowed: one of" in found["msg"]


def test_a_daemon_that_died_and_one_that_hangs(host: Any) -> None:
    start(host, "st-dies", "-v", "/var/lib/matryoshka/st/dies:/var/lib/docker")
    until_live(host, "st-dies")
    host.run("docker exec st-dies sh -c 'kill -STOP $(cat /run/docker.pid)'")
    begun = time.monotonic()
    hung = asked(host, "st-dies", timeout=2)["engines"][0]
    assert time.monotonic() - begun < 15
    assert (codes(hung), hung["live"]) == (["daemon_dead"], False)
    assert "no answer" in hung["error"]
    host.run("docker exec st-dies sh -c 'kill -KILL $(cat /run/docker.pid)'")
    dead = asked(host, "st-dies")["engines"][0]
    assert codes(dead) == ["daemon_dead"]
    assert "Cannot connect to the Docker daemon" in dead["error"]
    assert dead["location"]["mount_point"] == "/var/lib/docker"


def test_a_configuration_that_came_later(host: Any) -> None:
    write = (
        """docker exec st-volume sh -c 'echo "{\\"storage-driver\\": \\"vfs\\"}" >/etc/docker/daemon.json'"""
    )
    host.run(write)
    engine = asked(host, "st-volume")["engines"][0]
    host.run("docker exec st-volume rm /etc/docker/daemon.json")
    assert codes(engine) == ["driver_differs"]
    assert (engine["driver"], engine["configured_driver"]) == ("overlay2", "vfs")
    assert "/etc/docker/daemon.json says vfs" in engine["reasons"][0]["text"]


def test_asking_changes_nothing(host: Any) -> None:
    state = (
        "docker ps -aq --no-trunc; docker images -q; findmnt -rno TARGET | sort; ls -A /var/lib/matryoshka"
    )
    before = host.run(state).out
    for check in (False, True):
        args = {"containers": ["st-volume", "st-overlay"], "include_host": True}
        assert host.module("engine_storage_info", args, check=check)["changed"] is False
    assert host.run(state).out == before


def test_no_engine_yet(plain_host: Any) -> None:
    found = asked(plain_host)
    assert not found.get("failed")
    assert codes(found["engines"][0]) == ["engine_absent"]
    assert asked(plain_host, expect={})["failed"]
    wanted = {"containers": ["ci"], "include_host": True, "expect": {"driver": "overlay2"}}
    planned = plain_host.module("engine_storage_info", wanted, check=True)
    assert not planned.get("failed"), planned
    assert planned["unmet"] == []


def test_host_info_on_a_fresh_host(plain_host: Any) -> None:
    found = plain_host.module(
        "host_info",
        {"packages": ["docker.io", "python3"], "groups": ["docker", "root"], "modes": ["dind"]}
        | {"paths": ["/var/lib/matryoshka/a/b", "/etc/hostname"], "platforms": {"Debian": ["12", "13"]}},
    )
    assert found["changed"] is False
    assert found["os"]["codename"] == plain_host.run(". /etc/os-release; echo $VERSION_CODENAME").out.strip()
    version = plain_host.run("dpkg-query -Wf '${Version}' python3").out
    assert found["packages"] == {"python3": {"version": version, "hold": False}}
    assert found["groups"] == {"root": {"gid": 0, "members": []}}
    assert found["engines"]["docker"] is None
    assert found["init"]["systemd"] and found["init"]["version"] >= 252
    assert found["paths"]["/etc/hostname"]["type"] == "file"
    assert found["paths"]["/var/lib/matryoshka/a/b"]["exists"] is False
    kernel = int(plain_host.run("awk '/MemTotal/ {print $2}' /proc/meminfo").out)
    assert found["memory_bytes"] == kernel * 1024
    gateway = plain_host.run("awk '$2 == \"00000000\" {print $1}' /proc/net/route").out.split()
    assert found["network"]["default_interface"] in gateway
    assert found["modes"]["dind"] == {"possible": True, "reasons": []}


def test_host_info_refuses_debian_12_s_docker_where_a_capability_is_missing(plain_host: Any) -> None:
    found = plain_host.module("host_info", {"modes": ["dind"], "engine_version": "20.10.24"})
    verdict = found["modes"]["dind"]
    assert verdict["possible"] is not bool(found["capabilities"]["missing"])
    if found["capabilities"]["missing"]:
        assert "unable to apply caps" in verdict["reasons"][0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"modes": ["dnd"]}, "modes: 'dnd' is refused; allowed: one of dind"),
        ({"packages": ["docker.io --purge"]}, "packages: 'docker.io --purge' is refused"),
        ({"paths": ["data"]}, "paths: 'data' is refused; allowed: absolute paths"),
        ({"modes": ["dind"], "engine_version": "newest"}, "engine_version: 'newest' is refused"),
    ],
)
def test_host_info_refuses(plain_host: Any, args: dict[str, Any], message: str) -> None:
    found = plain_host.module("host_info", args)
    assert found["failed"] and message in found["msg"]


def test_host_info_holds_and_marks(docker_host: Any) -> None:
    docker_host.run("apt-mark hold docker.io")
    docker_host.write("/var/lib/matryoshka/st-mark/.matryoshka", '{"owner": "runner", "name": "ci"}')
    args = {"packages": ["docker.io"], "paths": ["/var/lib/matryoshka/st-mark", "/var/lib/docker"]}
    found = docker_host.module("host_info", args)
    docker_host.run("apt-mark unhold docker.io; rm -r /var/lib/matryoshka/st-mark")
    assert found["packages"]["docker.io"]["hold"] is True
    assert found["paths"]["/var/lib/matryoshka/st-mark"]["marker"] == {"owner": "runner", "name": "ci"}
    assert "image" in found["paths"]["/var/lib/docker"]["engine_markers"]
    assert "docker0" in [bridge["name"] for bridge in found["network"]["bridges"]]
    running = docker_host.run("docker version -f '{{.Server.Version}}'").out
    assert running.startswith(found["engines"]["docker"]["version"])
