# SPDX-License-Identifier: GPL-3.0-or-later
"""Slices: what is in a job stays within its runner's limits, two dolls down, and a limit changes while it runs."""

from __future__ import annotations

from typing import Any

import pytest
from live import HOLD, Site

BOX = """\
cp /bin/busybox . && printf 'FROM scratch\\nCOPY busybox /bin/busybox\\n' > Dockerfile && docker build -q -t box . > /dev/null
"""
BOMB = "i=0; while [ $i -lt {number} ]; do /bin/busybox sleep 4321 & i=$((i + 1)); done; echo went off"


def limits(**values: Any) -> dict[str, Any]:
    """Variables of the play: runner ci with these limits."""
    return {"runner_runners": [{"name": "ci", **values}]}


def slice_file(site: Site, controller: str, name: str, unit: str = "matryoshka-ci.slice") -> str:
    """What the kernel's file of a slice says, on cgroup v1 or v2."""
    folder = unit if unit == "matryoshka.slice" else f"matryoshka.slice/{unit}"
    places = f"/sys/fs/cgroup/{controller}/{folder}/{name} /sys/fs/cgroup/{folder}/{name}"
    return site.sh(f"cat {places} 2>/dev/null; true").strip()


def test_slices_are_there_from_boot_on(defaults: Site) -> None:
    for unit in ("matryoshka.slice", "matryoshka-ci.slice"):
        assert defaults.lines(f"systemctl is-enabled {unit}; systemctl is-active {unit}") == [
            "enabled",
            "active",
        ]
    assert slice_file(defaults, "pids", "pids.max") == "8192"
    environment = defaults.state("ci")["environment"]["container"]
    groups = defaults.lines(f"cat /proc/{defaults.first_process(environment)}/cgroup")
    assert any("/matryoshka.slice/matryoshka-ci.slice/" in group for group in groups), groups


def test_all_of_ci_leaves_the_host_its_reserve(defaults: Site) -> None:
    total = int(defaults.sh("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) << 10
    v1 = slice_file(defaults, "memory", "memory.limit_in_bytes", "matryoshka.slice")
    held = int(v1 or slice_file(defaults, "memory", "memory.max", "matryoshka.slice"))
    assert total - held >= min(256 << 20, total // 20)


def test_a_fork_bomb_two_dolls_down_meets_the_slice(site: Site) -> None:
    site.wants(limits(pids=300))
    site.ready("ci")
    bomb = BOMB.format(number=900)
    ended = site.submit(f"{BOX}docker run --rm box /bin/busybox sh -c '{bomb}'; true", "ci", "bomb").wait()
    assert "went off" not in ended.log, ended
    assert "fork" in ended.log, ended
    site.submit("true", "ci").succeeds()


def test_a_limit_changes_while_a_job_runs(site: Site) -> None:
    site.wants(limits(cpu_weight=50))
    site.ready("ci")
    job = site.held("ci")
    environment = site.state("ci")["environment"]
    site.wants(limits(cpu_weight=200))
    v1 = slice_file(site, "cpu", "cpu.shares")
    assert (v1 or slice_file(site, "cpu", "cpu.weight")) in ("2048", "200")
    assert site.state("ci")["environment"] == environment
    assert site.lines("ls /run/systemd/system.control/matryoshka-ci.slice.d 2>/dev/null; true") == []
    job.release().succeeds()


def test_a_runner_that_goes_takes_its_slice_along_when_its_job_is_done(two_runners: Site) -> None:
    site = two_runners
    job = site.submit(f"{HOLD.replace('[ ! -e /release ]', '[ $((n += 1)) -lt 80 ]')}\n", "small", "last")
    job.says("holding")
    site.wants({})
    job.succeeds()
    assert site.lines("systemctl list-units --all --plain --no-legend 'matryoshka-small.slice'") == []
    assert site.lines("ls /etc/systemd/system | grep small; true") == []


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"limits_io_device": "/dev/nvme9n1", "limits_io_read_iops": 9},
            "limits_io_device: '/dev/nvme9n1' is refused",
        ),
        (
            {"runner_runners": [{"name": "ci", "memory": "900G"}, {"name": "b", "memory": "900G"}]},
            "runner_runners[].memory: '900 GiB (ci) + 900 GiB (b) = 1.8 TiB' is refused; allowed: at most",
        ),
    ],
)
def test_a_plan_that_cant_be_kept_changes_nothing(
    defaults: Site, variables: dict[str, Any], message: str
) -> None:
    site = defaults
    look = "cat /etc/systemd/system/matryoshka*.slice /etc/matryoshka/runners/*; systemctl show -p ActiveEnterTimestamp 'matryoshka*.slice'"
    before, environment = site.sh(look), site.state("ci")["environment"]
    with pytest.raises(AssertionError) as caught:
        site.play(variables, "site")
    assert message in str(caught.value)
    assert site.sh(look) == before
    assert site.state("ci")["environment"] == environment


def test_the_play_changes_nothing_a_second_time(site: Site) -> None:
    variables = limits(pids=4096, memory="1G", cpus=1.5, cpu_weight=150)
    site.wants(variables)
    assert "changed=0" in site.play(variables)
