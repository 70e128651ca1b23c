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
from typing import Any

import hosts as container_hosts
import pytest
from container_host import ContainerHost

DATA = "/var/lib/matryoshka"


@dataclass(frozen=True)
class Bad:
    """Variables that a person might give, and what the refusal has to say.

    :param variables: for the play; none if the host itself is what is bad.
    :param says: words of the message: variable, value, what is allowed.
    """

    variables: Mapping[str, Any]
    says: tuple[str, ...]


def runner(**options: Any) -> dict[str, Any]:
    return {"runner_runners": [{"name": "ci", **options}]}


def daemon(**options: Any) -> dict[str, Any]:
    return {"docker_daemon": {key.replace("_", "-"): value for key, value in options.items()}}


ON_A_PLAIN_HOST = {
    "unknown mode": Bad(
        {"runner_mode": "dindd"}, ("runner_runners[ci].mode: 'dindd' is refused; allowed: ", "dind")
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
        runner(memroy="4G"), ("runner_runners[ci].memroy: '4G' is refused", "did you mean memory?")
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
        runner(memory="900T"), ("runner_runners[ci].memory: ", "allowed: at most the host's ", " bytes")
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
        daemon(storge_driver="overlay2"), ("docker_daemon.storge-driver", "did you mean storage-driver")
    ),
    "remapped users under privileged environments": Bad(
        daemon(userns_remap="default"),
        ("docker_daemon.userns-remap: 'default' is refused; allowed: only where no container is privileged",),
    ),
    "hosts beside those of the unit": Bad(
        daemon(hosts=["tcp://127.0.0.1:2376"]), ("docker_daemon.hosts", "-H")
    ),
    "mount of an engine's socket": Bad(
        runner(mounts=["/run/docker.sock:/run/docker.sock"]),
        ("runner_runners[ci].mounts: '/run/docker.sock:/run/docker.sock' is refused", "root on the host"),
    ),
    "unknown agent": Bad(
        runner(agent="jenkins"),
        ("runner_runners[ci].agent: 'jenkins' is refused; allowed: one of command, local",),
    ),
    "command that is no list": Bad(
        runner(agent={"name": "command", "command": "make test"}),
        ("runner_runners[ci].agent.command: 'make test' is refused; allowed: a list",),
    ),
    "duration that is none": Bad(
        {"prune_engine_until": "soon"}, ("prune_engine_until: 'soon' is refused; allowed: ",)
    ),
    "unknown suite": Bad(
        {"runner_image_suite": "woody"},
        ("runner_image_suite: 'woody' is refused; allowed: ", "bookworm, trixie"),
    ),
}

PREPARE = f"""\
mkdir -p {DATA}/bad/full {DATA}/bad/other {DATA}/bad/real
echo > {DATA}/bad/file; echo > {DATA}/bad/full/photos; ln -sfn real {DATA}/bad/link
echo '{{"owner": "runner", "name": "other"}}' > {DATA}/bad/other/.matryoshka
ip link add lan type bridge && ip address add 10.66.7.1/24 dev lan && ip link set lan up
"""

FINGERPRINT = """\
find /etc /usr/local /root/.docker /var/lib/matryoshka /var/lib/docker /opt /srv /run/systemd/system /var/spool \\
  -printf '%p %y %m %u:%g %s %T@ %l\\n' 2>/dev/null | grep -v '^/var/lib/docker/\\|/etc/mtab' | sort
dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n'
systemctl list-unit-files --no-legend
"""
"""Whatever a play could change: files with times and sizes, packages, units."""


def refusals(names: Mapping[str, tuple[ContainerHost | container_hosts.Host, Bad]]) -> dict[str, str]:
    """What the play failed with, by name in an inventory made of ``names``; all in one run."""
    inventory: dict[str, Any] = {}
    for name, (host, bad) in names.items():
        reach = host.reach if isinstance(host, ContainerHost) else host
        inventory[name] = {**reach.variables, **bad.variables}
    folder = container_hosts.STATE / "integration"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bad-input-{os.getpid()}.json"
    path.write_text(json.dumps({"all": {"hosts": inventory}}), encoding="utf-8")
    environment = {
        **os.environ,
        "ANSIBLE_PIPELINING": "true",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_COLLECTIONS_PATH": str(container_hosts.ROOT / "playbooks" / "collections"),
    }
    done = subprocess.run(
        [
            "ansible-playbook",
            "-i",
            str(path),
            "-f",
            "4",
            str(container_hosts.ROOT / "playbooks" / "site.yml"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=environment,
    )
    path.unlink()
    assert done.returncode != 0, "the play accepted every bad input"
    report = json.loads(done.stdout[done.stdout.index("{") :])
    failed: dict[str, str] = {}
    for play in report["plays"]:
        for task in play["tasks"]:
            for name, result in task["hosts"].items():
                if result.get("failed") or result.get("unreachable"):
                    failed[name] = str(result.get("msg"))
    for name, stats in report["stats"].items():
        assert not stats["changed"] or name in failed, f"{name} was accepted: {stats}"
    return failed


@pytest.fixture(scope="module")
def plain(plain_host: ContainerHost) -> Iterator[dict[str, str]]:
    """The refusals of :data:`ON_A_PLAIN_HOST`, and what the host looked like before and after."""
    plain_host.run(PREPARE)
    before = plain_host.run(FINGERPRINT).out
    said = refusals({name: (plain_host, bad) for name, bad in ON_A_PLAIN_HOST.items()})
    said["before"], said["after"] = before, plain_host.run(FINGERPRINT).out
    yield said
    plain_host.run(f"ip link delete lan; rm -rf {DATA}/bad")


@pytest.mark.parametrize("name", ON_A_PLAIN_HOST)
def test_bad_input_is_refused_by_name(plain: dict[str, str], name: str) -> None:
    says_all(plain.get(name), ON_A_PLAIN_HOST[name].says)


def test_the_host_is_as_it_was(plain: dict[str, str]) -> None:
    nothing_changed(plain["before"], plain["after"])


def says_all(message: str | None, words: tuple[str, ...]) -> None:
    assert message is not None, "it was accepted"
    for word in words:
        assert word in message, f"not said: {word}\nbut: {message}"


def nothing_changed(before: str, after: str) -> None:
    old, new = before.splitlines(), after.splitlines()
    assert old == new, f"gone: {sorted(set(old) - set(new))}\nnew: {sorted(set(new) - set(old))}"
