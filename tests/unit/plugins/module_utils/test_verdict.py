# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's answers against a plan. The facts are hand-made, in the form that host_info returns."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._runner_plan import plan_runners
from ansible_collections.matryoshka.host.plugins.module_utils._verdict import preflight_verdict
from test_runner_plan import DEFAULTS, IMAGES

DAEMON = {
    "data-root": "/var/lib/docker",
    "bip": "172.20.0.1/16",
    "default-address-pools": [{"base": "172.25.0.0/16", "size": 24}],
}
SUPPORTED = {"Debian": ["12", "13"]}


def path(name: str, **change: Any) -> dict[str, Any]:
    answer = {
        "path": name,
        "real_path": name,
        "exists": True,
        "type": "directory",
        "target_type": "directory",
        "empty": True,
        "entries": [],
        "engine_markers": [],
        "marker": None,
        "inode": None,
        "stat_device": None,
        "mounted_on": "/var/lib",
        "mounted_on_type": "directory",
        "filesystem": "ext4",
        "mount_point": "/var/lib",
        "read_only": False,
    }
    return {**answer, **change}


def facts() -> dict[str, Any]:
    return {
        "os": {"id": "debian", "version_id": "13", "major": "13", "pretty": "Debian 13"},
        "kernel": "6.12",
        "uid": 0,
        "cpus": 2,
        "memory_bytes": 8 << 30,
        "init": {"systemd": True},
        "kernel_features": {
            "overlay": "built-in",
            "namespaces": ["mnt", "net", "pid", "ipc", "uts", "user"],
            "max_user_namespaces": 1000,
            "nf_tables": "built-in",
            "ip_tables": "built-in",
        },
        "cgroup": {"version": 2, "controllers": ["memory", "cpu", "pids"]},
        "capabilities": {"missing": []},
        "engines": {},
        "network": {
            "routes": [
                {"destination": "0.0.0.0/0", "interface": "eth0"},
                {"destination": "10.88.0.0/16", "interface": "eth0"},
                {"destination": "172.20.0.0/16", "interface": "docker0"},
            ],
            "nameservers": ["10.88.0.1"],
        },
        "paths": {
            "/var/lib/docker": path("/var/lib/docker"),
            "/var/lib/matryoshka/runners/ci": path("/var/lib/matryoshka/runners/ci"),
        },
    }


def refusals(answers: dict[str, Any], *, version: str = "", **runner: Any) -> str:
    plan = plan_runners([{"name": "ci", **runner}], DEFAULTS, IMAGES)
    verdict = preflight_verdict(
        answers, modes=["dind"], supported=SUPPORTED, runners=plan, daemon=DAEMON, engine_version=version
    )
    return "\n".join(verdict["refusals"])


def test_a_good_host_is_refused_nothing() -> None:
    assert refusals(facts()) == ""


def change_path(name: str, **change: Any) -> Any:
    def apply(answers: dict[str, Any]) -> None:
        answers["paths"][name] = path(name, **change)

    return apply


ROOT = "/var/lib/matryoshka/runners/ci"


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda it: it["init"].update(systemd=False), "Process 1 isn't systemd"),
        (
            lambda it: it["os"].update(id="fedora", version_id="42", major="42", pretty="Fedora 42"),
            "Fedora 42",
        ),
        (lambda it: it.update(uid=1000), "become: true"),
        (change_path(ROOT, type="file", target_type="file"), "runner_runners[ci].directory"),
        (change_path(ROOT, filesystem="overlay"), "is on overlay"),
        (change_path(ROOT, filesystem="tmpfs"), "is on tmpfs"),
        (change_path(ROOT, empty=False, entries=["photos"]), "nothing marks it as ours (photos)"),
        (
            change_path(ROOT, empty=False, marker={"owner": "runner", "name": "other"}),
            "belongs to runner other",
        ),
        (change_path("/var/lib/docker", filesystem="overlay"), "docker_data_root: '/var/lib/docker'"),
        (
            lambda it: it["network"]["routes"].append({"destination": "172.28.9.0/24", "interface": "wg0"}),
            "route to 172.28.9.0/24 on wg0",
        ),
        (
            lambda it: it["network"]["routes"].append({"destination": "172.25.0.0/24", "interface": "eth1"}),
            "docker_daemon.default-address-pools[0].base 172.25.0.0/16 overlaps",
        ),
        (lambda it: it["network"].update(nameservers=["172.22.0.53"]), "nameserver 172.22.0.53"),
    ],
)
def test_what_does_not_fit_is_named(break_it: Any, words: str) -> None:
    answers = copy.deepcopy(facts())
    break_it(answers)
    assert words in refusals(answers)


def test_our_own_data_root_is_not_refused() -> None:
    answers = facts()
    change_path(ROOT, empty=False, marker={"owner": "runner", "name": "ci"})(answers)
    assert refusals(answers) == ""


def test_more_than_the_host_has() -> None:
    found = refusals(facts(), cpus=64, memory="64G")
    assert "runner_runners[ci].cpus: 64.0 is refused; allowed: at most 2" in found
    assert "runner_runners[ci].memory" in found


def test_an_engine_that_refuses_privileged_here() -> None:
    answers = facts()
    answers["capabilities"]["missing"] = ["CAP_SYS_RESOURCE"]
    assert "unable to apply caps" in refusals(answers, version="20.10.24")
    assert refusals(answers, version="26.1.5") == ""


def test_what_lies_under_a_volume_that_is_to_be_mounted_is_no_matter() -> None:
    answer = facts()
    answer["paths"]["/var/lib/docker"] = path("/var/lib/docker", filesystem="overlay", mount_point="/")

    def refused(*volumes: str) -> list[str]:
        told = preflight_verdict(
            answer, modes=[], supported=SUPPORTED, daemon={"data-root": "/var/lib/docker"}, volumes=volumes
        )
        return list(told["refusals"])

    assert "docker_data_root" in refused()[0]
    assert refused("/var/lib/docker") == []
    assert refused("/var/lib") == []
    assert refused("/var/lib/dock") != []
    answer["paths"]["/var/lib/docker"] = path(
        "/var/lib/docker", filesystem="overlay", mount_point="/var/lib/docker"
    )
    assert refused("/var/lib/docker") != []
