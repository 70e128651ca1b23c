# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``playbooks/site.yml`` refuses: the message for each bad input, and that nothing was changed.

All bad inputs for one host go through one run of the play: each is a name in the inventory, with
variables of its own, for the same host.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hosts as container_hosts
import images
import machine
import pytest
from container_host import ContainerHost
from machine import has_sys_resource

DATA = "/var/lib/matryoshka"


@dataclass(frozen=True)
class Bad:
    """Variables that a person might give, and what the refusal has to say.

    :param variables: for the play; none if the host itself is what is bad.
    :param says: words of the message: variable, value, what is allowed.
    :param host: which host it is given to, see :func:`hosts`.
    """

    variables: Mapping[str, Any]
    says: tuple[str, ...]
    host: str = "plain"


def runner(**options: Any) -> dict[str, Any]:
    return {"runner_runners": [{"name": "ci", **options}]}


def daemon(**options: Any) -> dict[str, Any]:
    return {"docker_daemon": {key.replace("_", "-"): value for key, value in options.items()}}


CASES = {
    "unknown mode": Bad(
        {"runner_mode": "dindd"}, ("runner_runners[ci].mode: 'dindd' is refused; allowed: one of dind",)
    ),
    "unknown mode of a runner": Bad(
        runner(mode="vm"), ("runner_runners[ci].mode: 'vm' is refused; allowed: ", "dind")
    ),
    "duplicate name": Bad(
        {"runner_runners": [{"name": "ci"}, {"name": "ci"}]},
        ("runner_runners[1].name: 'ci' is refused; allowed: a name that no other runner in the list has",),
    ),
    "name with a capital": Bad(
        {"runner_runners": [{"name": "CI"}]},
        ("runner_runners[0].name: 'CI' is refused; allowed: 1 to 32 lower-case letters, digits and hyphens",),
    ),
    "name with a path": Bad(
        {"runner_runners": [{"name": "../ci"}]},
        (
            "runner_runners[0].name: '../ci' is refused; allowed: 1 to 32 lower-case letters, digits and hyphens",
        ),
    ),
    "no name": Bad({"runner_runners": [{"cache": "none"}]}, ("runner_runners", "name")),
    "misspelt option": Bad(
        runner(memroy="4G"),
        ("runner_runners[ci].memroy: '4G' is refused; allowed: one of ", "did you mean memory?"),
    ),
    "unknown cache": Bad(
        runner(cache="always"),
        ("runner_runners[ci].cache: 'always' is refused; allowed: one of none, persistent",),
    ),
    "memory that is no size": Bad(
        runner(memory="lots"),
        ("runner_runners[ci].memory: 'lots' is refused; allowed: a size such as 512M, 4G",),
    ),
    "memory that is too small": Bad(
        runner(memory="5M"),
        ("runner_runners[ci].memory: '5M' is refused; allowed: ", "at least 134217728 bytes"),
    ),
    "memory that the host hasn't": Bad(
        runner(memory="900T"),
        (
            "runner_runners[].memory: '900 TiB (ci) = 900 TiB' is refused",
            "together: the host has ",
            "limits_reserve_memory keeps ",
        ),
    ),
    "processors that are no number": Bad(
        runner(cpus="two"),
        ("runner_runners[ci].cpus: 'two' is refused; allowed: a number of processors above 0, such as 1.5",),
    ),
    "processors that the host hasn't": Bad(
        runner(cpus=1000), ("runner_runners[ci].cpus: 1000", "allowed: at most ", "as the host has")
    ),
    "processes that are no number": Bad(
        runner(pids="4G"),
        ("runner_runners[ci].pids: '4G' is refused; allowed: a whole number from 64 to 4194304",),
    ),
    "build cache that is no size": Bad(
        {"docker_build_cache_limit": "huge"},
        ("docker_build_cache_limit: 'huge' is refused; allowed: ", "size"),
    ),
    "data root that is a file": Bad(
        runner(directory=f"{DATA}/bad/file"),
        (f"runner_runners[ci].directory: '{DATA}/bad/file' is refused", "this is a file"),
    ),
    "data root on overlay": Bad(
        runner(directory="/opt/ci"),
        ("runner_runners[ci].directory: '/opt/ci' is refused; allowed: a directory on ", "is on overlay"),
    ),
    "data root on tmpfs": Bad(
        runner(directory="/run/ci"),
        ("runner_runners[ci].directory: '/run/ci' is refused; allowed: a directory on ", "is on tmpfs"),
    ),
    "data root with foreign data": Bad(
        runner(directory=f"{DATA}/bad/full"),
        (
            f"runner_runners[ci].directory: '{DATA}/bad/full' is refused",
            "it isn't empty and nothing marks it as ours (photos)",
        ),
    ),
    "data root of another runner": Bad(
        runner(directory=f"{DATA}/bad/other"),
        (f"runner_runners[ci].directory: '{DATA}/bad/other' is refused", "belongs to runner other"),
    ),
    "data root shared by two runners": Bad(
        {"runner_runners": [{"name": name, "directory": "/srv/one"} for name in ("a", "b")]},
        ("runner_runners[b].directory: '/srv/one' is refused", "/srv/one of runner a"),
    ),
    "data root inside another runner's": Bad(
        {"runner_runners": [{"name": "a", "directory": "/srv/a"}, {"name": "b", "directory": "/srv/a/b"}]},
        ("runner_runners[b].directory: '/srv/a/b' is refused", "a folder apart from /srv/a of runner a"),
    ),
    "data root shared through a link": Bad(
        {
            "runner_runners": [
                {"name": "a", "directory": f"{DATA}/bad/real"},
                {"name": "b", "directory": f"{DATA}/bad/link"},
            ]
        },
        (
            "runner_runners[b].directory",
            f"'{DATA}/bad/link' is refused",
            f"runner_runners[a].directory has '{DATA}/bad/real'",
        ),
    ),
    "engine's data root on overlay": Bad(
        {"docker_data_root": "/opt/docker"}, ("docker_data_root: '/opt/docker' is refused", "is on overlay")
    ),
    "pools that overlap each other": Bad(
        runner(address_pools=[{"base": "10.70.0.0/16", "size": 24}, {"base": "10.70.128.0/17", "size": 24}]),
        ("default-address-pools", "10.70.0.0/16", "overlaps", "10.70.128.0/17"),
    ),
    "pool that overlaps the bridge": Bad(
        runner(bip="10.70.0.1/24", address_pools=[{"base": "10.70.0.0/16", "size": 24}]),
        ("runner_runners[ci]", "10.70.0.0/24", "overlaps", "10.70.0.0/16"),
    ),
    "pool that overlaps a route of the host": Bad(
        runner(address_pools=[{"base": "10.66.0.0/15", "size": 24}]),
        (
            "runner_runners[ci].default-address-pools[0]",
            "10.66.0.0/15",
            "10.66.7.0/24",
            "choose another range",
        ),
    ),
    "bridge that overlaps a route of the host": Bad(
        {"docker_bip": "10.66.7.1/26"}, ("docker_bip", "10.66.7.0/26", "10.66.7.0/24", "choose another range")
    ),
    "pool that overlaps the outer pool": Bad(
        runner(address_pools=[{"base": "172.25.128.0/17", "size": 24}]),
        ("runner_runners[ci]", "172.25.128.0/17", "overlaps", "172.25.0.0/16", "host engine's"),
    ),
    "bridge that overlaps the outer bridge": Bad(
        runner(bip="172.20.3.1/24"),
        ("runner_runners[ci]", "172.20.3.0/24", "overlaps", "172.20.0.0/16", "host engine's"),
    ),
    "pool smaller than its size": Bad(
        {"docker_address_pools": [{"base": "172.25.0.0/16", "size": 8}]},
        ("docker_address_pools[0].size: 8 is refused; allowed: a whole number from 16",),
    ),
    "bip that is no address": Bad(
        {"docker_bip": "not-an-ip"},
        ("docker_bip: 'not-an-ip' is refused; allowed: an IPv4 address with its prefix length",),
    ),
    "inner bip that is no address": Bad(
        runner(bip="not-an-ip"),
        (
            "runner_runners[ci]",
            "bip: 'not-an-ip' is refused; allowed: an IPv4 address with its prefix length",
        ),
    ),
    "unknown storage driver": Bad(
        daemon(storage_driver="overlay9"),
        ("docker_daemon.storage-driver: 'overlay9' is refused; allowed: ", "overlay2"),
    ),
    "unknown inner storage driver": Bad(
        runner(daemon={"storage-driver": "overlay9"}),
        ("runner_runners[ci].daemon.storage-driver: 'overlay9' is refused; allowed: ", "overlay2"),
    ),
    "misspelt daemon option": Bad(
        daemon(storge_driver="overlay2"), ("docker_daemon.storge-driver", "did you mean 'storage-driver'")
    ),
    "remapped users under privileged environments": Bad(
        daemon(userns_remap="default"),
        ("docker_daemon.userns-remap: 'default' is refused; allowed: only where no container is privileged",),
    ),
    "hosts beside those of the unit": Bad(
        daemon(hosts=["tcp://127.0.0.1:2376"]),
        ("docker_daemon.hosts: ['tcp://127.0.0.1:2376'] is refused; allowed: ", "-H fd://"),
    ),
    "mount of an engine's socket": Bad(
        runner(mounts=["/run/docker.sock:/run/docker.sock"]),
        ("runner_runners[ci].mounts: '/run/docker.sock:/run/docker.sock' is refused", "root on the host"),
    ),
    "allowed name": Bad(
        {"network_allow": ["10.0.0.5", "mirror.example.org"]},
        ("network_allow[1]: 'mirror.example.org' is refused; allowed: an address or a network",),
    ),
    "everything allowed": Bad(
        {"network_allow": ["0.0.0.0/0"]},
        ("network_allow[0]: '0.0.0.0/0' is refused", "network_isolation: false"),
    ),
    "allowed port that is none": Bad(
        {"network_allow": [{"to": "10.0.0.5", "ports": [70000]}]},
        ("network_allow[0].ports: 70000 is refused; allowed: a list of ports from 1 to 65535",),
    ),
    "user that the host hasn't": Bad(
        {"network_users": ["nobody-knows"]},
        ("network_users[0]: 'nobody-knows' is refused; allowed: a user that the host has",),
    ),
    "host bridge that is a job's": Bad(
        {"network_host_bridges": ["docker0"]},
        ("network_host_bridges[0]: 'docker0' is refused; allowed: a bridge that isn't",),
    ),
    "reserved ranges that overlap": Bad(
        {"network_reserved_ranges": ["10.1.0.0/16", "10.1.4.0/24"]},
        ("network_reserved_ranges", "10.1.4.0/24", "10.1.0.0/16"),
    ),
    "reserved ranges that leave no room": Bad(
        {"network_reserved_ranges": ["172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/16"]},
        ("network_reserved_ranges", "missing"),
    ),
    "IPv6 range that is too small": Bad(
        {"network_ipv6": "fd00::/120"}, ("networks of /64 are missing", "no room for docker bip6")
    ),
    "MTU that is none": Bad(
        {"network_mtu": "jumbo"},
        ("network_mtu: 'jumbo' is refused; allowed: auto, or a whole number from 576 to 65535",),
    ),
    "kernel setting that is no name": Bad(
        {"network_sysctls": {"net ipv4": 1}},
        ("sysctls: 'net ipv4' is refused; allowed: names of kernel settings",),
    ),
    "disk limit without a volume": Bad(
        runner(disk="20G"), ("runner_runners[ci].disk", "a folder on a volume of storage_volumes")
    ),
    "device that isn't there": Bad(
        {"storage_volumes": [{"name": "ci", "path": "/srv/ci", "device": {"serial": "no-such-disk"}}]},
        ("storage_volumes[ci].device", "no-such-disk"),
    ),
    "volume without a place": Bad(
        {"storage_volumes": [{"name": "ci", "path": "/srv/ci"}]}, ("storage_volumes[ci]", "device")
    ),
    "unknown agent": Bad(
        runner(agent="jenkins"),
        ("runner_runners[ci].agent: 'jenkins' is refused; allowed: one of command, local",),
    ),
    "command that is no list": Bad(
        runner(agent={"name": "command", "command": "make test"}),
        ("runner_runners[ci].agent.command: 'make test' is refused; allowed: a list",),
    ),
    "age that is none": Bad(
        {"prune_engine_until": "soon"},
        ("prune_engine_until", "'soon' is refused; allowed: an age such as 168h"),
    ),
    "version that no repository has": Bad(
        {"docker_version": "99.9*"},
        ("docker_version: '99.9*' is refused; allowed: a version that a repository has (", "+dfsg"),
    ),
    "unknown suite": Bad(
        {"runner_image_suite": "woody"},
        ("runner_image_suite: 'woody' is refused; allowed: ", "bookworm, trixie"),
    ),
    "duplicate key in the present daemon.json": Bad(
        {}, ("/etc/docker/daemon.json: there more than once: debug; leave one of each",), "docker"
    ),
    "unsupported distribution": Bad(
        {},
        (
            "The operating system is Fedora Linux 43; needed is one of Debian 12 or 13, Ubuntu 22.04 or 24.04.",
        ),
        "fedora",
    ),
    "no systemd": Bad({}, ("Process 1 isn't systemd", "Boot the host with systemd"), "sshd"),
}

if not has_sys_resource(Path("/proc/self/status").read_text(encoding="utf-8")):
    CASES["engine too old for a machine without all capabilities"] = Bad(
        {},
        (
            "Mode dind can't be had on this host. The bounding set lacks CAP_SYS_RESOURCE",
            "Docker 20.10.24 asks for every capability",
            "Use Docker 23.0 or newer",
        ),
        "debian12",
    )

PREPARE = {
    "plain": f"""\
        mkdir -p {DATA}/bad/full {DATA}/bad/other {DATA}/bad/real
        echo > {DATA}/bad/file; echo > {DATA}/bad/full/photos; ln -sfn real {DATA}/bad/link
        echo '{{"owner": "runner", "name": "other"}}' > {DATA}/bad/other/.matryoshka
        ip link add lan type bridge && ip address add 10.66.7.1/24 dev lan && ip link set lan up
    """,
    "docker": """mkdir -p /etc/docker && echo '{"debug": true, "debug": false}' > /etc/docker/daemon.json""",
    "fedora": """rm /etc/os-release && printf 'ID=fedora\\nVERSION_ID=43\\nPRETTY_NAME="Fedora Linux 43"\\n' > /etc/os-release""",
    "sshd": "true",
    "debian12": "true",
}
UNDO = {
    "plain": f"ip link delete lan; rm -rf {DATA}/bad",
    "docker": "rm -f /etc/docker/daemon.json",
    "fedora": "ln -sf ../usr/lib/os-release /etc/os-release",
    "sshd": "true",
    "debian12": "true",
}

FINGERPRINT = """\
find /etc /usr/local /root/.docker /var/lib/matryoshka /opt /srv /var/spool \\
  -printf '%p %y %m %u:%g %s %T@ %l\\n' 2>/dev/null | grep -v /etc/mtab | sort
dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n'
ls /etc/systemd/system /run/systemd/system /var/lib/docker
"""
"""Whatever a play could change: files with times and sizes, packages, units."""


class WithoutSystemd(ContainerHost):
    """A host whose first process is sshd."""

    def __init__(self, name: str) -> None:
        self.name, self.image = name, "debian13"
        container_hosts.remove([name])
        container = container_hosts.container_name(name)
        start = "mkdir -p /run/sshd && ssh-keygen -qA && exec /usr/sbin/sshd -D"
        labels = {"checkout": machine.CHECKOUT, "host": name, "image": self.image, "user": "root"}
        globals_, options = machine.this_machine()
        machine.podman(
            *globals_, "create", "--name", container, "--privileged", *options,
            *(f"--label=matryoshka.{key}={value}" for key, value in labels.items()),
            images.ensure_image(self.image), "/bin/sh", "-c", start,
        )  # fmt: skip
        container_hosts.authorize(container, container_hosts.identity().with_suffix(".pub").read_text())
        machine.podman("start", container)
        reach = container_hosts.describe(container)
        assert reach is not None
        container_hosts.wait_for_ssh(reach)
        self.reach = reach


def refusals(hosts: Mapping[str, ContainerHost]) -> dict[str, str]:
    """What the play failed with, by case; all in one run."""
    inventory = {name: {**hosts[case.host].reach.variables, **case.variables} for name, case in CASES.items()}
    folder = machine.STATE / "integration"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bad-input-{os.getpid()}.json"
    path.write_text(json.dumps({"all": {"hosts": inventory}}), encoding="utf-8")
    environment = {
        **os.environ,
        "ANSIBLE_PIPELINING": "true",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_COLLECTIONS_PATH": str(machine.ROOT / "playbooks" / "collections"),
    }
    play = str(machine.ROOT / "playbooks" / "site.yml")
    done = subprocess.run(
        ["ansible-playbook", "-i", str(path), "--forks", "4", play],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=environment,
    )
    path.unlink()
    assert "{" in done.stdout, f"the play didn't run: {done.stdout}{done.stderr}"
    report = json.loads(done.stdout[done.stdout.index("{") :])
    results = [
        (name, result)
        for play in report["plays"]
        for task in play["tasks"]
        for name, result in task["hosts"].items()
    ]
    return {name: str(result.get("msg")) for name, result in results if result.get("failed")}


@pytest.fixture(scope="module")
def said(
    plain_host: ContainerHost, docker_host: ContainerHost, debian12_host: ContainerHost
) -> Iterator[dict[str, str]]:
    """The refusals of :data:`CASES` by name, and under ``changed HOST`` how each host differs afterwards."""
    fedora, sshd = (
        ContainerHost(f"{plain_host.name}-fedora", "debian13"),
        WithoutSystemd(f"{plain_host.name}-sshd"),
    )
    hosts = {
        "plain": plain_host,
        "docker": docker_host,
        "fedora": fedora,
        "sshd": sshd,
        "debian12": debian12_host,
    }
    try:
        for name, host in hosts.items():
            host.run(PREPARE[name])
        before = {name: host.run(FINGERPRINT, check=False).out.splitlines() for name, host in hosts.items()}
        found = refusals(hosts)
        for name, host in hosts.items():
            after = host.run(FINGERPRINT, check=False).out.splitlines()
            gone, new = sorted(set(before[name]) - set(after)), sorted(set(after) - set(before[name]))
            found[f"changed {name}"] = "\n".join(
                [*(f"- {line}" for line in gone), *(f"+ {line}" for line in new)]
            )
        yield found
    finally:
        for name, host in hosts.items():
            host.run(UNDO[name], check=False)
        fedora.remove()
        sshd.remove()


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_by_name(said: dict[str, str], name: str) -> None:
    assert name in said, "it was accepted"
    for word in CASES[name].says:
        assert word in said[name], f"not said: {word}\nbut: {said[name]}"


@pytest.mark.parametrize("host", PREPARE)
def test_nothing_changed_on_the_host(said: dict[str, str], host: str) -> None:
    assert not said[f"changed {host}"], f"the play changed, before it refused:\n{said[f'changed {host}']}"
