# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _runner_files as files
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._networks import daemon_ranges
from ansible_collections.matryoshka.host.plugins.module_utils._runner_plan import plan_runners

DEFAULTS: dict[str, Any] = {
    "mode": "dind",
    "cache": "persistent",
    "agent": "local",
    "cpus": "",
    "memory": "",
    "pids": 8192,
    "bip": "172.22.0.1/16",
    "address_pools": [{"base": "172.28.0.0/14", "size": 24}],
    "mtu": "",
    "daemon": {},
    "environment": {},
    "mounts": [],
    "root": "/var/lib/matryoshka/runners",
    "queue": "/var/lib/matryoshka/queue",
    "ready_timeout": 120,
    "drain_timeout": 3600,
    "stop_timeout": 10,
}
IMAGES = {"dind": "matryoshka/environment-dind:abc"}
OUTER = daemon_ranges(
    {"bip": "172.20.0.1/16", "default-address-pools": [{"base": "172.25.0.0/16", "size": 24}]}, "engine"
)


def plan(*runners: Any) -> list[dict[str, Any]]:
    return plan_runners(list(runners), DEFAULTS, IMAGES, OUTER)


def test_a_name_is_enough() -> None:
    (runner,) = plan({"name": "ci"})
    assert runner["directory"] == "/var/lib/matryoshka/runners/ci"
    assert runner["agent"] == {"name": "local", "queue": "/var/lib/matryoshka/queue"}
    assert runner["limits"] == {
        "cpus": None,
        "memory_bytes": None,
        "pids": 8192,
        "disk_bytes": None,
        "log_bytes": None,
    }
    assert runner["slice"] is None
    assert runner["inner_daemon"]["bip"] == "172.22.0.1/16"
    assert runner["mode"]["privileged"] is True


def test_a_runner_wins_over_the_role() -> None:
    (runner,) = plan(
        {
            "name": "big",
            "cache": "none",
            "cpus": 1.5,
            "memory": "4G",
            "pids": "",
            "disk": "20G",
            "log_limit": "100M",
            "mtu": 1400,
            "daemon": {"debug": True},
        }
    )
    assert runner["cache"] == "none"
    assert runner["limits"] == {
        "cpus": 1.5,
        "memory_bytes": 4 << 30,
        "pids": None,
        "disk_bytes": 20 << 30,
        "log_bytes": 100 << 20,
    }
    assert runner["inner_daemon"]["mtu"] == 1400
    assert runner["inner_daemon"]["debug"] is True


def test_with_slices_a_runner_has_one_of_its_name() -> None:
    (runner,) = plan_runners([{"name": "big-ci", "io_weight": 50}], {**DEFAULTS, "slices": True}, IMAGES)
    assert runner["slice"] == "matryoshka-big_ci.slice"
    assert "io_weight" not in runner["limits"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Big CI"}, "runner_runners[0].name: 'Big CI' is refused; allowed: 1 to 32 lower-case"),
        ({"name": ""}, "runner_runners[0].name"),
        ({"name": "-a"}, "runner_runners[0].name"),
        ({"name": "a" * 33}, "runner_runners[0].name"),
        ({"mode": "dinb"}, "runner_runners[ci].mode: 'dinb' is refused; allowed: one of dind"),
        (
            {"cache": "forever"},
            "runner_runners[ci].cache: 'forever' is refused; allowed: one of none, persistent",
        ),
        ({"memory": "lots"}, "runner_runners[ci].memory: 'lots' is refused; allowed: a size such as 512M"),
        ({"memory": "1M"}, "at least 134217728 bytes"),
        ({"cpus": "many"}, "runner_runners[ci].cpus: 'many'"),
        ({"cpus": 0}, "runner_runners[ci].cpus: 0"),
        ({"cpus": True}, "runner_runners[ci].cpus: True"),
        ({"pids": 1}, "a whole number from 64 to 4194304"),
        ({"pids": "1.5"}, "runner_runners[ci].pids"),
        ({"disk": "much"}, "runner_runners[ci].disk: 'much' is refused"),
        ({"disk": "10M"}, "runner_runners[ci].disk"),
        ({"log_limit": "long"}, "runner_runners[ci].log_limit: 'long' is refused; allowed: a size"),
        ({"log_limit": 5}, "at least 1024 bytes"),
        (
            {"io_weight": 50},
            "runner_runners[ci].io_weight: 50 is refused; allowed: nothing, as role limits has no part in this play",
        ),
        ({"memroy": "1G"}, "did you mean memory?"),
        ({"directory": "data"}, "runner_runners[ci].directory: 'data' is refused; allowed: an absolute path"),
        ({"directory": "/"}, "an absolute path below /"),
        ({"directory": "/a:b"}, "colon"),
        (
            {"agent": "jenkins"},
            "runner_runners[ci].agent: 'jenkins' is refused; allowed: one of command, local",
        ),
        ({"agent": {"name": "command"}}, "runner_runners[ci].agent.command"),
        ({"agent": {"name": "command", "command": "run.sh"}}, "a list: the program and its arguments"),
        ({"agent": {"name": "command", "command": ["a", 1]}}, "a list of strings"),
        ({"agent": {"name": "local", "que": "/q"}}, "runner_runners[ci].agent.que"),
        ({"environment": {"A B": 1}}, "runner_runners[ci].environment: 'A B'"),
        ({"mounts": ["/a"]}, "SOURCE:TARGET"),
        ({"mounts": ["/run/docker.sock:/run/docker.sock"]}, "no engine's socket"),
        ({"bip": "not-an-ip"}, "not-an-ip"),
        ({"bip": "172.20.9.1/24"}, "172.20.0.0/16"),
        ({"address_pools": [{"base": "172.25.4.0/22", "size": 24}]}, "172.25.0.0/16"),
        ({"address_pools": [{"base": "10.9.0.0/24", "size": 16}]}, "size"),
        ({"address_pools": [{"base": "172.22.0.0/16", "size": 24}]}, "172.22.0.0/16"),
        ({"mtu": 100}, "a whole number from 576 to 65535"),
        ({"daemon": {"storge-driver": "overlay2"}}, "storge-driver"),
        ({"daemon": {"data-root": "/x"}}, "runner_runners[ci].daemon.data-root"),
        ({"ready_timeout": 0}, "a whole number from 1 to 3600"),
    ],
)
def test_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(HostError) as refused:
        plan({"name": "ci", **change})
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("runners", "words"),
    [
        (
            [{"name": "a"}, {"name": "a"}],
            "runner_runners[1].name: 'a' is refused; allowed: a name that no other",
        ),
        (
            [{"name": "a", "directory": "/d"}, {"name": "b", "directory": "/d"}],
            "runner_runners[b].directory: '/d'",
        ),
        ([{"name": "a", "directory": "/d"}, {"name": "b", "directory": "/d/x"}], "apart from /d of runner a"),
        (["a"], "a mapping with at least a name"),
    ],
)
def test_runners_that_cannot_be_together(runners: list[Any], words: str) -> None:
    with pytest.raises(HostError) as refused:
        plan(*runners)
    assert words in str(refused.value)


def test_a_new_runner_changes_nothing_for_the_others() -> None:
    names = [f"r{number}" for number in range(20)]
    before = plan(*({"name": name} for name in names[:-1]))
    after = plan(*({"name": name} for name in names))
    assert after[:-1] == before
    program = [{"path": "/p", "content": "x"}]
    triggers = files.runner_triggers(after, program)
    assert {**files.runner_triggers(before, program), "r19": triggers["r19"]} == triggers


def test_only_the_changed_runner_is_triggered() -> None:
    before = plan({"name": "a"}, {"name": "b"})
    after = copy.deepcopy(before)
    after[0]["limits"]["pids"] = 100
    old, new = (files.runner_triggers(one, []) for one in (before, after))
    assert old["a"] != new["a"]
    assert old["b"] == new["b"]


def test_folders_come_parents_first_and_once() -> None:
    folders = files.runner_directories(
        plan({"name": "a"}, {"name": "b"}), "/etc/m/runners", "/usr/lib/m/lib", "/var/lib/m", "ci"
    )
    paths = [folder["path"] for folder in folders]
    assert len(paths) == len(set(paths))
    assert paths.index("/etc/m") < paths.index("/etc/m/runners")
    assert {folder["path"]: folder["group"] for folder in folders}["/var/lib/matryoshka/queue/new"] == "ci"
