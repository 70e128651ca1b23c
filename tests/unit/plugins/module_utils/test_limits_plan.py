# SPDX-License-Identifier: GPL-3.0-or-later
"""Slices that are planned for a host, and plans that it can't keep."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _limits_plan as limits
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError

GIB = 1 << 30
OPTIONS: dict[str, Any] = {
    "cpu_weight": 50,
    "memory": "auto",
    "pids": "auto",
    "reserve_cpus": 0,
    "reserve_memory": "auto",
    "reserve_pids": 1024,
    "overcommit": False,
}


def path(where: str, **values: Any) -> dict[str, Any]:
    return {
        "path": where,
        "exists": True,
        "type": "directory",
        "target_type": "directory",
        "filesystem": "ext4",
        "device_number": "8:1",
        "mount_point": "/",
        **values,
    }


def facts(**values: Any) -> dict[str, Any]:
    return {
        "cpus": 4,
        "memory_bytes": 8 * GIB,
        "capacity": {"cpu_list": "0-3", "pids": 4194304, "threads": 60000, "swap_bytes": 0},
        "cgroup": {"version": 2, "controllers": ["cpu", "cpuset", "io", "memory", "pids"]},
        "paths": {
            "/var/lib/docker": path("/var/lib/docker"),
            "/srv/ci/a": path("/srv/ci/a", device_number="253:0", mount_point="/srv"),
        },
        **values,
    }


def runner(name: str = "a", **limits_of: Any) -> dict[str, Any]:
    """A runner as ``plan_runners`` makes it."""
    found = {"cpus": None, "memory_bytes": None, "pids": 8192, "disk_bytes": None, "log_bytes": None}
    return {"name": name, "directory": f"/srv/ci/{name}", "limits": {**found, **limits_of}}


def plan(
    runners: list[tuple[dict[str, Any], dict[str, Any]]] | None = None,
    host: dict[str, Any] | None = None,
    volumes: tuple[str, ...] = (),
    **options: Any,
) -> list[dict[str, Any]]:
    """``runners``: pairs of what a person wrote and the plan of it."""
    pairs = runners if runners is not None else [({}, runner())]
    return limits.plan_limits(
        [given for given, _planned in pairs],
        {},
        {**OPTIONS, **options},
        [planned for _given, planned in pairs],
        host or facts(),
        data_root="/var/lib/docker",
        volumes=volumes,
    )


def refused(*arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        plan(*arguments, **options)
    return str(caught.value)


def test_all_of_ci_leaves_the_host_its_reserve() -> None:
    everything, one = plan()
    assert (everything["name"], everything["runner"]) == ("matryoshka.slice", None)
    assert 0 <= 8 * GIB - 8 * GIB // 20 - everything["memory"] < 16 << 20
    assert 0 <= 60000 - 1024 - everything["pids"] < 256
    assert (everything["cpu_weight"], everything["cpus"]) == (50, None)
    assert (one["name"], one["runner"], one["pids"]) == ("matryoshka-a.slice", "a", 8192)
    assert everything["io_paths"] == one["io_paths"] == []


def test_a_page_less_after_a_boot_changes_nothing() -> None:
    first, second = (plan(host=facts(memory_bytes=2989 * (1 << 20) - less))[0] for less in (0, 4096))
    assert first == second


def test_a_small_host_keeps_256_mib() -> None:
    assert plan(host=facts(memory_bytes=GIB))[0]["memory"] == GIB - (256 << 20)


def test_reserved_processors_are_a_quota() -> None:
    assert plan(reserve_cpus=1)[0]["cpus"] == 3
    assert plan(reserve_cpus=1, cpus=2)[0]["cpus"] == 2


def test_memory_without_a_word_on_swap_is_memory_without_swap() -> None:
    assert plan([({}, runner(memory_bytes=GIB))])[1]["swap"] == 0
    assert plan([({"swap": "1G"}, runner(memory_bytes=GIB))])[1]["swap"] == GIB
    assert plan()[1]["swap"] is None


def test_input_and_output_are_limited_where_the_data_is() -> None:
    everything, one = plan([({"io_read_iops": 100}, runner())], io_write_bandwidth="10M")
    assert everything["io_paths"] == one["io_paths"] == ["/", "/srv"]


def test_a_volume_that_isnt_mounted_yet_is_where_data_will_be() -> None:
    host = facts()
    host["paths"]["/srv/ci/a"] = path("/srv/ci/a", filesystem="overlay", device_number="0:40")
    assert plan([({"io_read_iops": 9}, runner())], host, ("/srv",))[1]["io_paths"] == ["/", "/srv"]


def test_a_device_by_name() -> None:
    host = facts()
    host["paths"]["/dev/vdb"] = path("/dev/vdb", type="other", target_type="other", filesystem="devtmpfs")
    found = plan([({"io_read_iops": 9}, runner())], host, io_device="/dev/vdb")
    assert found[1]["io_paths"] == ["/dev/vdb"]


TWO: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, runner("a", memory_bytes=4 * GIB)),
    ({}, runner("b", memory_bytes=4 * GIB)),
]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"cpus": 5},
            "limits_cpus: 5 is refused; allowed: at most 4: the host has 4, limits_reserve_cpus is 0",
        ),
        (
            {"cpus": 3, "reserve_cpus": 2},
            "limits_cpus: 3 is refused; allowed: at most 2: the host has 4, limits_reserve_cpus is 2",
        ),
        (
            {"reserve_cpus": 4},
            "limits_reserve_cpus: 4 is refused; allowed: less than the host's 4 processors",
        ),
        (
            {"reserve_cpus": "some"},
            "limits_reserve_cpus: 'some' is refused; allowed: a number of processors, 0 or more",
        ),
        ({"reserve_cpus": -1}, "limits_reserve_cpus: -1 is refused"),
        (
            {"reserve_memory": "8G"},
            "limits_reserve_memory: '8G' is refused; allowed: at most 7.9 GiB: the host has 8 GiB",
        ),
        ({"reserve_memory": "much"}, "limits_reserve_memory: 'much' is refused; allowed: a size"),
        ({"reserve_pids": 60000}, "limits_reserve_pids: 60000 is refused; allowed: at most 59936"),
        (
            {"memory": "8G"},
            "limits_memory: '8G' is refused; allowed: at most 7.6 GiB: the host has 8 GiB, of which "
            "limits_reserve_memory keeps 409.6 MiB; or limits_overcommit: true",
        ),
        ({"pids": 60000}, "limits_pids: 60000 is refused; allowed: at most 58880"),
        (
            {"memory": "2G", "memory_high": "3G"},
            "limits_memory_high: '3 GiB' is refused; allowed: at most limits_memory, 2 GiB",
        ),
        (
            {"allowed_cpus": "2-5"},
            "limits_allowed_cpus: '2-5' is refused; allowed: processors that the host has: 0-3",
        ),
        (
            {"io_device": "vdb", "io_read_iops": 9},
            "limits_io_device: 'vdb' is refused; allowed: a block device or a path",
        ),
    ],
)
def test_what_the_host_hasnt_is_refused(options: dict[str, Any], message: str) -> None:
    assert message in refused(**options)


def test_a_sum_over_what_the_host_has_is_shown() -> None:
    assert refused(TWO) == (
        "runner_runners[].memory: '4 GiB (a) + 4 GiB (b) = 8 GiB' is refused; allowed: at most 7.6 GiB together: the host "
        "has 8 GiB, of which limits_reserve_memory keeps 409.6 MiB; or limits_overcommit: true"
    )
    assert "at most 6 GiB together: limits_memory is 6 GiB" in refused(TWO, memory="6G")
    assert len(plan(TWO, overcommit=True)) == 3


def test_a_sum_of_processes_is_refused_by_the_numbers_there_are() -> None:
    few = facts(capacity={"cpu_list": "0-3", "pids": 32768, "threads": 60000, "swap_bytes": 0})
    many: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, runner(name, pids=16384)) for name in ("a", "b")
    ]
    assert (
        "runner_runners[].pids: '16384 (a) + 16384 (b) = 32768' is refused; allowed: at most 31744"
        in refused(many, few)
    )
    # Threads that the memory is enough for are shared, as processors are.
    assert plan(many, facts(capacity={"cpu_list": None, "pids": 4194304, "threads": 8000, "swap_bytes": 0}))


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (
            {"cpu_weight": 0},
            {},
            "runner_runners[a].cpu_weight: 0 is refused; allowed: a whole number from 1 to 10000",
        ),
        (
            {"memory_high": "3G"},
            {},
            "runner_runners[a].memory_high: '3 GiB' is refused; allowed: at most runner_runners[a].memory, 2 GiB",
        ),
        (
            {"allowed_cpus": "0-2"},
            {"allowed_cpus": "2-3"},
            "runner_runners[a].allowed_cpus: '0-2' is refused; allowed: processors of limits_allowed_cpus: 2-3",
        ),
        (
            {"allowed_cpus": "7"},
            {},
            "runner_runners[a].allowed_cpus: '7' is refused; allowed: processors that the host has: 0-3",
        ),
    ],
)
def test_what_a_runner_cant_have_is_refused(
    given: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    assert message in refused([(given, runner(memory_bytes=2 * GIB))], **options)


@pytest.mark.parametrize(
    ("version", "controllers", "options", "message"),
    [
        (
            2,
            ["cpu", "memory", "pids"],
            {"io_weight": 50},
            "limits_io_weight: 50 is refused; allowed: nothing, as the kernel gives this host no controller io",
        ),
        (
            2,
            ["cpu", "memory", "pids"],
            {"allowed_cpus": "0"},
            "no controller cpuset (cgroup version 2 has cpu, memory, pids)",
        ),
        (2, ["cpu", "pids"], {}, "limits_memory: "),
        ("hybrid", ["cpu", "memory", "pids"], {"io_read_bandwidth": "1M"}, "no controller blkio"),
        (
            1,
            [],
            {},
            "limits_cpu_weight: 50 is refused; allowed: nothing, as the kernel gives this host no controller cpu",
        ),
    ],
)
def test_a_controller_that_isnt_there_is_named(
    version: Any, controllers: list[str], options: dict[str, Any], message: str
) -> None:
    assert message in refused(host=facts(cgroup={"version": version, "controllers": controllers}), **options)


def test_what_v1_hasnt_isnt_refused_but_left_to_verify() -> None:
    host = facts(cgroup={"version": 1, "controllers": ["cpu", "memory", "pids", "blkio"]})
    assert plan(host=host, allowed_cpus="0")[0]["allowed_cpus"] == "0"


@pytest.mark.parametrize(
    ("there", "options", "message"),
    [
        (
            {"/srv/ci/a": path("/srv/ci/a", filesystem="overlay", device_number="0:40")},
            {},
            "runner_runners[a].io_read_iops: 9 is refused; allowed: nothing, as /srv/ci/a lies on overlay, which is on no "
            "block device; set limits_io_device to the disk",
        ),
        (
            {"/dev/vdz": path("/dev/vdz", exists=False, type="absent", target_type="absent")},
            {"io_device": "/dev/vdz"},
            "limits_io_device: '/dev/vdz' is refused; allowed: a device that is there: /dev/vdz isn't one",
        ),
        (
            {"/mnt/no": path("/mnt/no", exists=False, type="absent", target_type="absent")},
            {"io_device": "/mnt/no"},
            "limits_io_device: '/mnt/no' is refused; allowed: a device, or a path, that is there",
        ),
    ],
)
def test_a_device_that_isnt_there_is_refused(
    there: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    host = facts()
    host["paths"].update(there)
    assert message in refused([({"io_read_iops": 9}, runner())], host, **options)


def test_a_slice_is_a_unit_that_is_never_restarted() -> None:
    everything, one = limits.slice_units(plan([({"io_read_iops": 9}, runner(cpus=1.5))]))
    assert everything["on_change"] == one["on_change"] == "none"
    assert one["name"] == "matryoshka-a.slice"
    lines = one["content"].splitlines()
    for line in (
        "RequiresMountsFor=/srv",
        "CPUQuota=150%",
        "TasksMax=8192",
        "IOReadIOPSMax=/ 9",
        "IOReadIOPSMax=/srv 9",
        "WantedBy=multi-user.target srv.mount",
    ):
        assert line in lines
    assert "IOReadIOPSMax" not in everything["content"]


def test_a_slice_waits_for_its_device() -> None:
    host = facts()
    host["paths"]["/dev/disk-1"] = path("/dev/disk-1", type="other", target_type="other")
    found = limits.slice_units(plan([({"io_read_iops": 9}, runner())], host, io_device="/dev/disk-1"))
    assert "After=dev-disk\\x2d1.device" in found[1]["content"].splitlines()
    assert "RequiresMountsFor" not in found[1]["content"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("memory", "MemoryMax=infinity"),
        ("cpus", "CPUQuota="),
        ("cpu_weight", "CPUWeight=100"),
        ("io_weight", "IOWeight="),
    ],
)
def test_a_limit_is_taken_away(name: str, words: str) -> None:
    assert limits.no_limit(name) == words
