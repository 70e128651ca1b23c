# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes are told apart by what they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import victims
from victims import Process, Victim, classify, pick

ENVIRONMENT = "6" * 64
NESTED = "3" * 64
CI = "/system.slice/system-matryoshka\\x2drunner.slice/matryoshka-runner@ci.service"
SESSION = "/user.slice/user-0.slice/session-c7.scope"
INSIDE = f"/docker/{ENVIRONMENT}"
SHIM = "/usr/bin/containerd-shim-runc-v2"
PYTHON = "/usr/bin/python3.13"
PROGRAM = ("/usr/bin/python3", "/usr/local/sbin/matryoshka")
SERVICE = "/system.slice/containerd.service"


def process(
    pid: int, parent: int, program: str, argv: tuple[str, ...], cgroup: str, level: int = 1
) -> Process:
    runner = "ci" if program.endswith("tini") else ""
    return Process(pid, parent, 100 + pid, program, argv, cgroup, level, program.endswith("tini"), runner)


HOST = {
    each.pid: each
    for each in (
        process(1, 0, "/usr/lib/systemd/systemd", ("/sbin/init",), "/init.scope"),
        process(36, 1, "/usr/lib/systemd/systemd-journald", ("journald",), "/system.slice/j.service"),
        process(95, 1, "/usr/lib/systemd/systemd-logind", ("logind",), "/system.slice/l.service"),
        process(85, 1, "/usr/bin/dbus-daemon", ("dbus-daemon",), "/system.slice/dbus.service"),
        process(112, 1, "/usr/bin/containerd", ("containerd",), SERVICE),
        process(115, 1, "/usr/sbin/sshd", ("sshd: /usr/sbin/sshd -D [listener] 0 of",), "/system.slice/s"),
        process(200, 115, "/usr/lib/openssh/sshd-session", ("sshd-session: root [priv]",), SESSION),
        process(201, 200, PYTHON, ("/usr/bin/python3",), SESSION),
        process(202, 201, "/usr/bin/perl", ("/usr/bin/perl", "/usr/bin/mmdebstrap", "trixie"), SESSION),
        process(203, 202, "/usr/bin/apt-get", ("apt-get", "install"), SESSION),
        process(204, 201, "/usr/bin/docker", ("docker", "import", "-"), SESSION),
        process(210, 115, "/usr/lib/openssh/sshd-session", ("sshd-session: root@notty",), SESSION),
        process(211, 210, PYTHON, (*PROGRAM, "job", "/run/x"), SESSION),
        process(220, 1, PYTHON, (*PROGRAM, "prune", "ci"), "/system.slice/matryoshka-prune@ci.service"),
        process(221, 220, "/usr/bin/docker", ("docker", "exec", "x", "docker", "ps"), "/system.slice/p"),
        process(393, 1, "/usr/sbin/dockerd", ("/usr/sbin/dockerd", "-H", "fd://"), "/system.slice/docker.service"),
        process(609, 1, PYTHON, (*PROGRAM, "run", "ci"), CI),
        process(611, 609, "/usr/bin/docker", ("docker", "--host", "unix:///run/docker.sock", "exec", "m"), CI),
        process(612, 609, "/usr/bin/docker", ("docker", "--host", "unix:///run/docker.sock", "logs", "m"), CI),
        process(617, 1, SHIM, (SHIM, "-namespace", "moby", "-id", ENVIRONMENT), SERVICE),
        process(623, 617, "/usr/bin/tini", ("/usr/bin/tini", "-g", "--", "/usr/local/sbin/environment-start"), INSIDE, 2),
        process(628, 623, "/usr/bin/dash", ("/bin/sh", "/usr/local/sbin/environment-start"), INSIDE, 2),
        process(630, 628, "/usr/sbin/dockerd", ("dockerd",), INSIDE, 2),
        process(631, 630, "/usr/bin/containerd", ("containerd", "--config", "x"), INSIDE, 2),
        process(704, 623, SHIM, (SHIM, "-id", NESTED), INSIDE, 2),
        process(706, 704, "/bin/busybox", ("/bin/busybox", "sleep", "8"), f"{INSIDE}/docker/{NESTED}", 3),
        process(708, 617, "/usr/bin/dash", ("sh", "-c", "token=$1", "job", "x", "9", "/job/script"), INSIDE, 2),
        process(718, 708, "/usr/bin/dash", ("/bin/sh", "/job/script"), INSIDE, 2),
        process(726, 718, "/usr/bin/docker", ("docker", "run", "--rm", "busybox"), INSIDE, 2),
        process(800, 115, "/usr/lib/openssh/sshd-session", ("sshd-session: root@notty",), SESSION),
        process(801, 800, PYTHON, ("python3", "/srv/kills/moment.py", "{}"), SESSION),
    )
}  # fmt: skip
KINDS = {
    36: "journald", 95: "logind", 85: "message bus", 112: "host containerd", 115: "sshd", 200: "sshd session",
    201: "module", 202: "mmdebstrap", 203: "mmdebstrap", 204: "module's child", 210: "sshd session",
    211: "submitter", 220: "prune", 221: "prune's docker client", 393: "host dockerd", 609: "runner program",
    611: "runner's docker exec", 612: "runner's docker client",
    617: "environment's shim", 623: "first process", 628: "environment-start", 630: "inner dockerd",
    631: "inner containerd", 704: "inner shim", 706: "job's container", 708: "job's wrapper",
    718: "job's script", 726: "job's docker client",
}  # fmt: skip


def test_every_process_has_its_kind_and_those_of_the_killer_are_spared() -> None:
    found = {each.process.pid: each.kind for each in classify(HOST, own=801)}
    assert found == KINDS


def test_processes_of_an_environment_belong_to_its_runner() -> None:
    runners = {each.process.pid: each.runner for each in classify(HOST, own=801)}
    of_ci = {609, 611, 612, 617, 623, 628, 630, 631, 704, 706, 708, 718, 726}
    assert {pid for pid, runner in runners.items() if runner == "ci"} == of_ci
    assert set(runners.values()) == {"ci", ""}


@pytest.mark.parametrize(
    ("cgroup", "depth"),
    [
        (f"/docker/{ENVIRONMENT}", 1),
        (f"/docker/{ENVIRONMENT}/docker/{NESTED}", 2),
        (f"/system.slice/docker-{ENVIRONMENT}.scope", 1),
        (f"/system.slice/docker-{ENVIRONMENT}.scope/init", 1),
        (f"/matryoshka.slice/docker-{ENVIRONMENT}.scope/system.slice/docker-{NESTED}.scope", 2),
        (f"/matryoshka.slice/matryoshka-ci.slice/docker-{ENVIRONMENT}.scope", 1),
        (f"/matryoshka.slice/matryoshka-ci.slice/{ENVIRONMENT}", 1),
        (f"/matryoshka.slice/matryoshka-ci.slice/{ENVIRONMENT}/docker/{NESTED}", 2),
        (f"/matryoshka.slice/matryoshka-ci.slice/{ENVIRONMENT}0", 0),
        ("/system.slice/docker.service", 0),
    ],
)
def test_containers_are_found_in_cgroups_of_either_driver(cgroup: str, depth: int) -> None:
    assert len(process(2, 1, "/bin/x", ("x",), cgroup).containers) == depth


def test_a_victim_is_of_the_runner_or_of_nobody() -> None:
    def victim(pid: int, runner: str) -> Victim:
        return Victim(process(pid, 1, "/bin/x", ("x",), "/"), "shim", runner)

    three = [victim(4, ""), victim(3, "ci"), victim(2, "other")]
    assert pick(three, ["shim"], "ci", 0.0) == three[1]
    assert pick(three, ["shim"], "ci", 0.99) == three[0]
    assert pick(three, ["else"], "ci", 0.5) is None


def test_the_kernels_texts_are_read() -> None:
    stat = "7 (a) b (c)) S 5 " + " ".join(str(number) for number in range(5, 40))
    assert victims.parse_stat(stat) == (5, 22)
    assert victims.parse_cgroup("9:name=systemd:/a/b:c\n8:pids:/x\n0::/u\n") == "/a/b:c"
    assert victims.parse_cgroup("0::/u\n") == "/u"
    assert victims.parse_levels("Name:\tx\nNSpid:\t7069\t222\t1\n") == (3, True)
    assert victims.parse_levels("NSpid:\t1\n") == (1, False)
    assert victims.words(b"sh\0-c\0\0") == ("sh", "-c", "")


def test_a_living_process_is_read() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={"MATRYOSHKA_RUNNER": "ci"}
    )
    try:
        table = victims.processes()
        found = table[child.pid]
        assert found.parent == os.getpid() and found.argv[1:] == ("-c", "input()")
        assert found.program == str(Path(sys.executable).resolve())
        assert table[os.getpid()] in victims.ancestors(child.pid, table)
    finally:
        child.communicate(b"\n")
    assert victims.read(Path(f"/proc/{child.pid}")) is None
