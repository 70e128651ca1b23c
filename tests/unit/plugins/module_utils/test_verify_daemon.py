# SPDX-License-Identifier: GPL-3.0-or-later
"""What a daemon answers against what it should have."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_options import OPTIONS
from ansible_collections.matryoshka.host.plugins.module_utils._verify_daemon import (
    ANSWERS,
    SENSITIVE,
    differences,
    load_unique,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import EngineView

ENGINE = EngineView(
    info={
        "Driver": "overlay2",
        "DockerRootDir": "/var/lib/docker",
        "LoggingDriver": "json-file",
        "LiveRestoreEnabled": True,
        "DefaultAddressPools": [{"Base": "172.25.0.0/16", "Size": 24}, {"Base": "10.8.0.0/16", "Size": 24}],
        "Debug": False,
        "DefaultRuntime": "runc",
        "CgroupDriver": "systemd",
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=no-new-privileges"],
        "Labels": ["a=b"],
        "RegistryConfig": {"Mirrors": ["https://mirror.example/"]},
        "Runtimes": {"runc": {}, "crun": {}},
    },
    networks=[
        {
            "Name": "bridge",
            "IPAM": {
                "Config": [{"Subnet": "fd00::/64"}, {"Subnet": "172.20.0.0/16", "Gateway": "172.20.0.1"}]
            },
            "Options": {
                "com.docker.network.driver.mtu": "1450",
                "com.docker.network.bridge.enable_icc": "false",
            },
        }
    ],
)


@pytest.mark.parametrize(
    ("key", "same", "other"),
    [
        ("storage-driver", "overlay2", "vfs"),
        ("data-root", "/var/lib/docker/", "/srv/docker"),
        ("log-driver", "json-file", "journald"),
        ("live-restore", True, False),
        ("bip", "172.20.0.1/16", "172.20.0.1/24"),
        (
            "default-address-pools",
            [{"base": "10.8.0.0/16", "size": 24}, {"base": "172.25.0.0/16", "size": 24}],
            [{"base": "172.25.0.0/16", "size": 24}],
        ),
        ("mtu", 1450, 1500),
        ("icc", False, True),
        ("ip-masq", True, False),
        ("debug", False, True),
        ("default-runtime", "runc", "runsc"),
        ("exec-opts", ["native.cgroupdriver=systemd"], ["native.cgroupdriver=cgroupfs"]),
        ("no-new-privileges", True, False),
        ("userns-remap", "", "default"),
        ("labels", ["a=b"], []),
        ("registry-mirrors", ["https://mirror.example"], []),
        ("runtimes", {"crun": {"path": "/usr/bin/crun"}}, {"runsc": {"path": "/usr/bin/runsc"}}),
    ],
)
def test_an_answer_is_compared_in_its_own_form(key: str, same: Any, other: Any) -> None:
    assert list(differences(ENGINE, {key: same})) == []
    assert [found for found, _, _ in differences(ENGINE, {key: other})] == [key]


def test_what_a_daemon_does_not_tell_is_not_compared() -> None:
    assert list(differences(ENGINE, {"experimental": True, "builder": {"gc": {}}})) == []


def test_every_key_is_one_of_dockerd() -> None:
    assert set(ANSWERS) | SENSITIVE <= set(OPTIONS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [('{"a": 1, "a": 2}', "the key a is there twice"), ("[]", "isn't a mapping"), ("{", "Expecting")],
)
def test_a_file_that_cannot_be_read(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        load_unique(text)


def test_an_empty_file_is_no_configuration() -> None:
    assert load_unique("") == {}
