# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Debian 12 host can carry: the image, pruning, and mode dind or the reason why not."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from testinfra.host import Host

PLAYBOOKS = Path(__file__).resolve().parents[3] / "playbooks"
ONE_RUNNER = json.dumps({"runner_runners": [{"name": "ci"}]})
CAP_SYS_RESOURCE = 1 << 24


def has_all_capabilities(host: Host) -> bool:
    """Whether the host is a machine (or a container) that Docker 20.10 can start privileged containers on."""
    bounding = host.check_output("sed -n 's/^CapBnd:[[:space:]]*//p' /proc/1/status")
    return bool(int(bounding, 16) & CAP_SYS_RESOURCE)


def play(request: pytest.FixtureRequest, name: str) -> subprocess.CompletedProcess[str]:
    """``playbooks/NAME.yml`` on this host, as if it were to have the default runner."""
    inventory = request.config.getoption("--ansible-inventory")
    return subprocess.run(
        ["ansible-playbook", "-i", inventory, "-e", ONE_RUNNER, str(PLAYBOOKS / f"{name}.yml")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "false", "ANSIBLE_NOCOLOR": "1"},
        timeout=300,
        check=False,
    )


def fingerprint(host: Host) -> str:
    """Whatever a play could change: files with times and sizes, packages, units that run."""
    return host.check_output(
        "find /etc /usr/local /var/lib/matryoshka -printf '%%p %%m %%s %%T@\\n' | sort; dpkg-query -W; "
        "systemctl list-units --plain --no-legend --state=active,failed '*docker*' '*matryoshka*'"
    )


@pytest.mark.parametrize("name", ["preflight", "site"])
def test_a_runner_is_refused_with_the_reason_where_its_engine_cant_start_it(
    host: Host, request: pytest.FixtureRequest, name: str
) -> None:
    if has_all_capabilities(host):
        pytest.skip("this host has every capability; test_a_job_runs looks at its runner")
    before = fingerprint(host)
    done = play(request, name)
    assert done.returncode != 0, done.stdout
    for words in (
        "Mode dind can't be had on this host.",
        "lacks CAP_SYS_RESOURCE",
        "Docker 20.10.24 asks for every capability in a privileged container",
        "Use Docker 23.0 or newer (Debian 13, or Docker's own repository), or a host with all capabilities",
    ):
        assert words in " ".join(done.stdout.split()), done.stdout
    assert fingerprint(host) == before


def test_the_reason_is_the_engines_own(host: Host) -> None:
    """Preflight says what a try would say."""
    tried = host.run(f"docker run --rm --privileged --entrypoint /bin/true {image(host)}")
    assert (tried.rc == 0) == has_all_capabilities(host), tried
    assert tried.rc == 0 or "unable to apply caps" in tried.stderr, tried


def test_a_job_runs(host: Host) -> None:
    if not has_all_capabilities(host):
        pytest.skip("Docker 20.10 starts no privileged container where CAP_SYS_RESOURCE is missing")
    host.check_output("printf 'docker info --format {{.Driver}}' > /root/job.sh")
    assert host.check_output("matryoshka job /root/job.sh").split() == ["overlay2"]


def image(host: Host) -> str:
    """The only environment image."""
    found = host.check_output(
        "docker images --filter label=matryoshka.role=environment --format '{{.Repository}}:{{.Tag}}'"
    )
    assert found.startswith("matryoshka/environment-dind:") and len(found.split()) == 1, found
    return str(found)


def test_the_image_is_of_the_hosts_own_release_and_complete(host: Host) -> None:
    """It starts without privilege; what a nested engine needs is in it and says its version."""
    script = (
        ". /etc/os-release; echo $VERSION_CODENAME; dockerd --version; docker --version; busybox echo busybox; "
        "iptables --version; tini --version; git --version; test -x /usr/local/sbin/environment-ready && echo ready"
    )
    said = host.check_output(
        f"docker run --rm --entrypoint /bin/sh {image(host)} -ec %s", script
    ).splitlines()
    assert said[0] == "bookworm"
    assert said[1].startswith("Docker version 20.10.") and said[2].startswith("Docker version 20.10.")
    assert said[3] == "busybox" and said[-1] == "ready", said


def test_the_image_refuses_to_be_an_environment_without_privilege(host: Host) -> None:
    """Its first program says what is missing instead of starting a daemon that can't work."""
    tried = host.run(f"docker run --rm {image(host)}")
    assert tried.rc == 70, tried
    assert "is the container privileged?" in tried.stderr, tried


def test_the_hosts_engine_is_pruned(host: Host) -> None:
    assert host.check_output("systemctl is-enabled matryoshka-prune-engine.timer") == "enabled"
    assert host.check_output("systemctl is-active matryoshka-prune-engine.timer") == "active"
    since = int(time.time())
    host.check_output("systemctl start matryoshka-prune-engine.service")
    said = host.check_output(
        f"journalctl --sync; journalctl -o cat -u matryoshka-prune-engine.service -S @{since}"
    )
    assert "engine: images: 0B freed" in said and "engine: containers: 0B freed" in said, said
    assert image(host), "the environment image was pruned"
