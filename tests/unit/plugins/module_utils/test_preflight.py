# SPDX-License-Identifier: GPL-3.0-or-later
"""Which modes a host can carry: one healthy host, and every way to miss a requirement."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._modes import MODES
from ansible_collections.matryoshka.host.plugins.module_utils._preflight import (
    CHECKS,
    judge_modes,
    version_tuple,
)

SUPPORTED = ["debian-12", "debian-13", "ubuntu-24.04"]
HEALTHY: dict[str, Any] = {
    "os": {
        "id": "debian",
        "version_id": "13",
        "major": 13,
        "codename": "trixie",
        "pretty": "Debian GNU/Linux 13",
    },
    "kernel": "6.12.0",
    "uid": 0,
    "init": {"systemd": True, "version": 257, "state": "running"},
    "cgroup": {"version": 2, "controllers": ["cpu", "io", "memory", "pids"]},
    "capabilities": {"bounding": [], "missing": []},
    "kernel_features": {
        "overlay": "present",
        "namespaces": ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"],
        "max_user_namespaces": 1000,
        "nf_tables": "present",
        "ip_tables": "absent",
    },
    "engines": {"docker": {"version": "26.1.5"}},
}


def host(*path: str, value: Any = None) -> dict[str, Any]:
    """The healthy host with one fact changed."""
    facts = copy.deepcopy(HEALTHY)
    inner = facts
    for key in path[:-1]:
        inner = inner[key]
    if path:
        inner[path[-1]] = value
    return facts


def test_a_healthy_host_can() -> None:
    assert judge_modes(HEALTHY, ["dind"], supported=SUPPORTED) == {"dind": {"possible": True, "reasons": []}}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            host("os", value={**HEALTHY["os"], "id": "fedora", "pretty": "Fedora 42"}),
            ["Fedora 42", "debian-12"],
        ),
        (
            host("os", "version_id", value="11") | {"os": {**HEALTHY["os"], "version_id": "11", "major": 11}},
            ["needed"],
        ),
        (host("init", "systemd", value=False), ["Process 1 isn't systemd", "/sbin/init"]),
        (host("uid", value=1000), ["uid 1000", "become: true"]),
        (host("kernel_features", "overlay", value="absent"), ["6.12.0", "CONFIG_OVERLAY_FS"]),
        (
            host("kernel_features", "namespaces", value=["mnt", "pid"]),
            ["net, ipc, uts, user", "CONFIG_NAMESPACES"],
        ),
        (
            host("kernel_features", "max_user_namespaces", value=0),
            ["user.max_user_namespaces is 0", "sysctl -w"],
        ),
        (host("cgroup", "controllers", value=["cpu"]), ["memory, pids", "cgroup_enable=memory"]),
        (host("cgroup", value={"version": None, "controllers": []}), ["memory, cpu, pids"]),
        (host("kernel_features", "nf_tables", value="absent"), ["neither nf_tables nor ip_tables"]),
        (host("engines", "docker", value={"version": "19.03.15"}), ["19.03.15", "20.10 or newer"]),
        (host("capabilities", "missing", value=["CAP_SYS_ADMIN"]), ["CAP_SYS_ADMIN", "--privileged"]),
    ],
)
def test_what_is_missing_is_said(facts: dict[str, Any], words: list[str]) -> None:
    found = judge_modes(facts, ["dind"], supported=SUPPORTED)["dind"]
    assert found["possible"] is False
    assert len(found["reasons"]) == 1
    for word in words:
        assert word in found["reasons"][0]


@pytest.mark.parametrize(
    ("installed", "candidate", "possible"),
    [
        ("26.1.5", None, True),
        ("20.10.24", None, False),
        (None, "20.10.24+dfsg1-1+deb12u1", False),
        (None, "5:27.3.1-1~debian.12~bookworm", True),
        ("20.10.24", "26.1.5", True),
        (None, "26.*", True),
        (None, "5:29.*", True),
        (None, "20.*", False),
        (None, None, True),
    ],
)
def test_a_missing_capability_and_docker_s_version(
    installed: str | None, candidate: str | None, possible: bool
) -> None:
    facts = host("capabilities", "missing", value=["CAP_SYS_RESOURCE"])
    facts["engines"]["docker"] = installed and {"version": installed}
    found = judge_modes(facts, ["dind"], engine_version=candidate)["dind"]
    assert found["possible"] is possible
    if not possible:
        assert "CAP_SYS_RESOURCE" in found["reasons"][0]
        assert "unable to apply caps" in found["reasons"][0]
        assert "virtual machine" in found["reasons"][0]


def test_platforms_as_a_mapping() -> None:
    platforms = {"Debian": ["12"], "Ubuntu": ["24.04"]}
    assert not judge_modes(HEALTHY, ["dind"], supported=platforms)["dind"]["possible"]
    ubuntu = host(
        "os", value={"id": "ubuntu", "version_id": "24.04", "major": 24, "codename": None, "pretty": None}
    )
    assert judge_modes(ubuntu, ["dind"], supported=platforms)["dind"]["possible"]


def test_every_reason_is_told() -> None:
    facts = host("init", "systemd", value=False) | {"uid": 7}
    assert len(judge_modes(facts, ["dind"])["dind"]["reasons"]) == 2


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InputError, match=r"modes: 'dnd' is refused; allowed: one of .*dind"):
        judge_modes(HEALTHY, ["dnd"])


def test_a_version_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="engine_version: 'latest' is refused"):
        judge_modes(HEALTHY, ["dind"], engine_version="latest")


def test_every_requirement_of_every_mode_has_a_check() -> None:
    assert {code for mode in MODES.values() for code in mode.requires} <= set(CHECKS)


def test_a_pattern_that_could_be_new_enough_is_taken() -> None:
    assert judge_modes(HEALTHY, ["dind"], engine_version="20.*")["dind"]["possible"]
    assert not judge_modes(HEALTHY, ["dind"], engine_version="19.*")["dind"]["possible"]


def test_version_tuple() -> None:
    assert version_tuple("5:27.3.1-1~x") == (27, 3, 1)
    assert version_tuple("20.10") < version_tuple("20.10.1")
    assert version_tuple("none") == ()
