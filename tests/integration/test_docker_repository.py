# SPDX-License-Identifier: GPL-3.0-or-later
"""The role docker with versions and with a repository like Docker's: key, pin, hold, upgrade and back.

The repository is made on the host itself, of doubles whose content is Debian's engine under another
name, because Debian's packages conflict with packages that are called like Docker's. The tests share one host and follow each other: first what is refused on
it while it has no engine, then one engine from its first version on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from container_host import ContainerHost

DOUBLES = {
    "docker-ce": "test-docker.io, docker-ce-cli",
    "docker-ce-cli": "test-docker-cli",
    "containerd.io": "containerd",
    "docker-buildx-plugin": "docker-ce-cli",
}
"""Double to what it depends on."""

OLD, NEW = "5:28.0.0-1~test", "5:29.0.0-1~test"
PINNED = ("docker-ce", "docker-ce-cli")
PORT = 8477
KEYRING = "/etc/apt/keyrings/matryoshka-docker.asc"
SOURCES = "/etc/apt/sources.list.d/matryoshka-docker.sources"
DROP_IN = "/etc/systemd/system/docker.service.d/test.conf"

MAKE_REPOSITORY = f"""\
set -e
export DEBIAN_FRONTEND=noninteractive GNUPGHOME=/srv/key
apt-get -qq update
apt-get -qq install --no-install-recommends apt-utils gpg gpg-agent >/dev/null
. /etc/os-release
architecture=$(dpkg --print-architecture)
mkdir -p /srv/repo/debian && cd /srv/repo/debian
index=dists/$VERSION_CODENAME/stable/binary-$architecture
mkdir -p pool $index
for package in docker.io docker-cli; do
  (cd /srv && apt-get -qq download $package && dpkg-deb -R ${{package}}_*.deb $package)
  sed -i "s/^Package: .*/Package: test-$package/; /^Conflicts:/d" /srv/$package/DEBIAN/control
  dpkg-deb -Znone --build /srv/$package pool/test-$package.deb >/dev/null
done
for control in /srv/controls/*; do
  double=$(mktemp -d) && chmod 755 $double && mkdir $double/DEBIAN && cp $control $double/DEBIAN/control
  dpkg-deb -Znone --build $double pool/$(basename $control).deb >/dev/null
done
apt-ftparchive packages pool >$index/Packages
apt-ftparchive -o APT::FTPArchive::Release::Suite=$VERSION_CODENAME \\
  -o APT::FTPArchive::Release::Codename=$VERSION_CODENAME \\
  -o APT::FTPArchive::Release::Components=stable \\
  -o APT::FTPArchive::Release::Architectures=$architecture release dists/$VERSION_CODENAME >/srv/Release
mv /srv/Release dists/$VERSION_CODENAME/Release
mkdir -m 700 $GNUPGHOME
gpg --batch --quiet --passphrase '' --quick-generate-key 'Doubles of Docker <test@localhost>'
gpg --batch --quiet --clearsign -o dists/$VERSION_CODENAME/InRelease dists/$VERSION_CODENAME/Release
gpg --batch --quiet --armor --export -o gpg
systemd-run --quiet --unit=test-repository --property=WorkingDirectory=/srv/repo \\
  python3 -m http.server --bind 127.0.0.1 {PORT}
for _ in $(seq 100); do (: </dev/tcp/127.0.0.1/{PORT}) 2>/dev/null && break; sleep 0.1; done
gpg --batch --with-colons --list-keys | awk -F: '$1 == "fpr" {{ print $10; exit }}'
"""
"""Makes the repository of /srv/controls, serves it and prints its key's fingerprint."""

SNAPSHOT = """\
find /etc /usr/local /run/systemd/system ! -type d -printf '%p %y %m %u:%g %s %T@ %l\\n' | sort
find /etc /usr/local /run/systemd/system /var/lib/docker -type d -printf '%p %m %u:%g\\n' \\
  | grep -v '^/var/lib/docker/.' | sort
dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n'
systemctl list-unit-files --no-legend | grep -v ' transient '
systemctl show -P InvocationID docker.service
"""
"""Whatever a refused play could have changed."""


@dataclass(frozen=True)
class Repository:
    """The repository that a host serves to itself."""

    url: str
    fingerprint: str

    def variables(self, version: str, **more: Any) -> dict[str, Any]:
        """Variables of the role for an engine from here."""
        return {
            "docker_repository": "docker",
            "docker_repository_url": self.url,
            "docker_repository_key_fingerprint": self.fingerprint,
            "docker_version": version,
            **more,
        }


@pytest.fixture(scope="module")
def host() -> Iterator[ContainerHost]:
    """Debian 13, as installed, for this file alone."""
    made = ContainerHost(f"test{os.environ.get('PYTEST_XDIST_WORKER', '')}-repository", "debian13")
    yield made
    made.remove()


@pytest.fixture(scope="module")
def repository(host: ContainerHost) -> Repository:
    """The repository with every double in both versions."""
    host.write("/srv/make-repository", MAKE_REPOSITORY)
    host.run("mkdir /srv/controls; useradd builder")
    controls = {
        f"{name}-{number}": f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
        f"Maintainer: Nobody <test@localhost>\nDepends: {depends}\n"
        f"Description: test double of {name}, without content\n"
        for name, depends in DOUBLES.items()
        for number, version in enumerate((OLD, NEW))
    }
    lines = (f"printf %s '{text}' >/srv/controls/{name}" for name, text in controls.items())
    host.run("\n".join(lines))
    fingerprint = host.run("bash /srv/make-repository").out.split()[-1]
    return Repository(f"http://127.0.0.1:{PORT}", fingerprint)


@pytest.fixture(scope="module")
def engine(host: ContainerHost, repository: Repository) -> str:
    """An engine pinned to the old version; what the play that installed it said."""
    return host.playbook("engines", repository.variables("5:28.*")).out


def changed(said: str) -> int:
    """How many tasks of a play changed something."""
    found = re.search(r"changed=(\d+)", said)
    assert found, said
    return int(found[1])


def refusal(host: ContainerHost, variables: Mapping[str, Any]) -> str:
    """What the play said when it failed; nothing on the host may differ afterwards."""
    before = host.run(SNAPSHOT).out.splitlines()
    done = host.playbook("engines", variables, check=False)
    after = host.run(SNAPSHOT).out.splitlines()
    assert not done.ok, done.out
    assert before == after, f"gone: {set(before) - set(after)}\nnew: {set(after) - set(before)}\n{done.out}"
    return done.out


def versions(host: ContainerHost) -> list[str]:
    return host.run(["dpkg-query", "-W", "-f", "${Version}\n", *PINNED]).out.split()


def held(host: ContainerHost) -> list[str]:
    return host.run("apt-mark showhold").out.split()


def starts(host: ContainerHost) -> int:
    """How often docker.service has been started."""
    journal = host.run("journalctl -q -u docker.service -o cat").out
    return journal.count("Started docker.service")


def test_a_version_that_the_distribution_hasnt_is_refused(host: ContainerHost) -> None:
    said = refusal(host, {"docker_repository": "distribution", "docker_version": "1.2.3"})
    offered = host.run("apt-cache madison docker.io | cut -d'|' -f2").out.split()
    assert "docker_version: '1.2.3' is refused; allowed: a version that a repository has (" in said
    assert offered
    assert all(version in said for version in offered)
    assert not host.exists("/etc/docker/daemon.json")


def test_another_key_is_refused_with_both_fingerprints(host: ContainerHost, repository: Repository) -> None:
    other = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
    said = refusal(host, repository.variables("", docker_repository_key_fingerprint=other))
    assert f"has fingerprint {repository.fingerprint}; wanted is {other}" in said
    assert not any(map(host.exists, (KEYRING, SOURCES, "/etc/docker/daemon.json")))


def test_a_version_that_the_new_repository_hasnt_is_refused(
    host: ContainerHost, repository: Repository
) -> None:
    said = refusal(host, repository.variables("5:30.*"))
    assert (
        f"docker_version: '5:30.*' is refused; allowed: a version that a repository has ({NEW}, {OLD})"
        in said
    )
    assert not any(map(host.exists, (KEYRING, SOURCES, "/etc/docker/daemon.json")))


def test_check_mode_on_a_host_without_the_repository(host: ContainerHost, repository: Repository) -> None:
    before = host.run(SNAPSHOT).out
    said = host.playbook("engines", repository.variables("5:28.*"), "--check").out
    assert changed(said)
    assert host.run(SNAPSHOT).out == before


def test_the_pinned_version_is_installed_and_held(host: ContainerHost, engine: str) -> None:
    assert changed(engine)
    assert versions(host) == [OLD, OLD]
    assert held(host) == list(PINNED)
    info = json.loads(host.run("docker info -f '{{json .}}'").out)
    assert info["LoggingDriver"] == "json-file"
    assert info["LiveRestoreEnabled"] is True
    assert info["DefaultAddressPools"] == [{"Base": "172.25.0.0/16", "Size": 24}]
    assert "inet 172.20.0.1/16" in host.run("ip address show docker0").out
    assert starts(host) == 1


@pytest.mark.usefixtures("engine")
def test_the_source_is_signed_by_the_pinned_key(host: ContainerHost, repository: Repository) -> None:
    fields = dict(line.split(": ", 1) for line in host.read(SOURCES).splitlines())
    architecture, codename = host.run(
        "dpkg --print-architecture; . /etc/os-release; echo $VERSION_CODENAME"
    ).out.split()
    assert fields == {
        "Types": "deb",
        "URIs": f"{repository.url}/debian",
        "Suites": codename,
        "Components": "stable",
        "Architectures": architecture,
        "Signed-By": KEYRING,
    }
    assert host.read(KEYRING) == host.read("/srv/repo/debian/gpg")


@pytest.mark.usefixtures("engine")
def test_the_second_run_changes_nothing(host: ContainerHost, repository: Repository) -> None:
    assert changed(host.playbook("engines", repository.variables("5:28.*")).out) == 0


@pytest.mark.usefixtures("engine")
def test_another_version_upgrades_and_downgrades(host: ContainerHost, repository: Repository) -> None:
    for pattern, version in (("5:29.*", NEW), ("5:28.*", OLD)):
        assert changed(host.playbook("engines", repository.variables(pattern)).out)
        assert versions(host) == [version, version]
        assert held(host) == list(PINNED)


@pytest.mark.usefixtures("engine")
def test_an_engine_stays_as_it_is_if_no_repository_has_the_version(
    host: ContainerHost, repository: Repository
) -> None:
    said = refusal(host, repository.variables("5:30.0.0-1~test"))
    assert (
        f"docker_version: '5:30.0.0-1~test' is refused; allowed: a version that a repository has ({NEW}, {OLD})"
        in said
    )
    assert held(host) == list(PINNED)


@pytest.mark.usefixtures("engine")
def test_users_and_drop_ins(host: ContainerHost, repository: Repository) -> None:
    drop_in = {"name": "test.conf", "content": "[Service]\nEnvironment=DOLL=matryoshka\n"}
    wanted = repository.variables("5:28.*", docker_users=["builder"], docker_drop_ins=[drop_in])
    before = starts(host)
    assert changed(host.playbook("engines", wanted).out)
    assert "docker" in host.run("id -nG builder").out.split()
    assert host.run("systemctl show -P Environment docker.service").out.strip() == "DOLL=matryoshka"
    assert "DOLL=matryoshka" in host.run("tr '\\0' '\\n' </proc/$(pidof dockerd)/environ").out.split()
    assert starts(host) == before + 1
    assert changed(host.playbook("engines", wanted).out) == 0
    assert starts(host) == before + 1
    host.playbook("engines", {**wanted, "docker_drop_ins": []})
    assert not host.exists(DROP_IN)
    assert host.run("systemctl show -P Environment docker.service").out.strip() == ""
    assert starts(host) == before + 2
