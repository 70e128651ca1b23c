# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits that the kernel doesn't hold, and processes that are outside, become findings."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.matryoshka.host.plugins.module_utils import _verify_limits as limits
from ansible_collections.matryoshka.host.plugins.module_utils._limits_kernel import (
    Held,
    Limited,
    SliceView,
    read_tree,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import Environment, Expect
from support.cgroup_tree import RUNNER, slice_of, v1, v2, write
from support.verify_host import Host

NAME = "matryoshka-ci.slice"


def host(view: SliceView | None = None, outside: dict[int, str] | None = None) -> Host:
    """A healthy host whose runner ci has a slice with a limit of processes."""
    found = Host()
    found.expect["limits"] = {"slices": [slice_of(pids=200)]}
    look = Held("pids", "/sys/fs/cgroup/x/pids.max", "200", "200", True)
    name = found.environment.name
    found.seen.limited = Limited({NAME: view or SliceView([look])}, {name: outside or {}}, {name: 12})
    return found


def codes(found: Host) -> list[str]:
    return [one.code for one in found.report().findings]


def test_a_healthy_host_has_nothing_to_complain_about() -> None:
    assert codes(host()) == []
    assert host().report().checks > Host().report().checks


def test_another_value_in_the_kernel_is_a_finding() -> None:
    found = host(SliceView([Held("pids", "/sys/fs/cgroup/x/pids.max", "200", "max", False)]))
    (finding,) = found.report().findings
    assert finding.code == "limit_differs"
    assert finding.subject == f"slice {NAME}"
    assert finding.text == "pids should be 200, but the kernel holds max (/sys/fs/cgroup/x/pids.max)"


def test_a_limit_that_the_kernel_hasnt_is_a_finding() -> None:
    found = host(SliceView([Held("io_weight", "/x/io.weight", "50", None, False)]))
    (finding,) = found.report().findings
    assert finding.code == "limit_missing"
    assert "bfq" in finding.remedy


def test_what_v1_hasnt_is_a_note() -> None:
    found = host(SliceView(lacking=["swap", "io_read_iops"])).report()
    assert found.findings == []
    (note,) = [one for one in found.notes if one.code == "limit_not_on_v1"]
    assert "swap, io_read_iops" in note.text


def test_a_process_outside_is_a_finding() -> None:
    found = host(outside={77: "pids: /docker/abc"})
    (finding,) = found.report().findings
    assert finding.code == "limit_escaped"
    assert finding.subject == "runner ci"
    assert "1 of the 12 processes" in finding.text
    assert "77 is in pids: /docker/abc" in finding.text


def process(pid: int, parent: int, cgroup: str) -> dict[str, str]:
    return {
        f"/proc/{pid}/status": f"Name:\tx\nPPid:\t{parent}\n",
        f"/proc/{pid}/cgroup": f"0::/{cgroup}\n",
    }


def environment(pid: int, runner: str = "ci") -> Environment:
    labels = {"matryoshka.runner": runner}
    return Environment(
        {"Name": f"/env-{runner}", "Config": {"Labels": labels}, "State": {"Running": True, "Pid": pid}}
    )


def test_processes_two_dolls_down_are_looked_at(tmp_path: Path) -> None:
    view = v2(tmp_path, {"pids.max": "200\n"})
    write(
        tmp_path,
        {
            **process(10, 1, f"{RUNNER}/docker-a.scope/init"),
            **process(20, 10, f"{RUNNER}/docker-a.scope/docker/b"),
            **process(30, 20, "system.slice/docker-b.scope"),
            **process(40, 1, "system.slice/ssh.service"),
            "/proc/meminfo": "MemTotal: 1 kB\nSwapTotal: 0 kB\n",
        },
    )
    expect = Expect.read({"limits": {"slices": [slice_of(pids=200)]}})
    found = limits.observe_limits(expect, [environment(10), environment(40, "other")], view)
    assert found is not None
    assert found.processes == {"env-ci": 3}
    assert found.outside == {"env-ci": {30: "cgroup: /system.slice/docker-b.scope"}}
    assert [one.same for one in found.slices[NAME].held] == [True]


def test_on_v1_the_hierarchies_with_limits_count(tmp_path: Path) -> None:
    tree = read_tree(v1(tmp_path))
    inside = f"9:devices:/\n3:pids:/{RUNNER}/abc\n2:memory:/{RUNNER}/abc/docker/d\n0::/\n"
    assert limits.outside(inside, NAME, tree) == ""
    assert limits.outside(inside.replace(f"pids:/{RUNNER}", "pids:"), NAME, tree) == "pids: /abc"


def test_swap_that_isnt_there_neednt_be_limited(tmp_path: Path) -> None:
    view = v1(tmp_path)
    expect = Expect.read({"limits": {"slices": [slice_of(swap=0)]}})
    for kilobytes, lacking in ((0, []), (1024, ["swap"])):
        write(tmp_path, {"/proc/meminfo": f"SwapTotal:       {kilobytes} kB\n"})
        found = limits.observe_limits(expect, [], view)
        assert found is not None
        assert found.slices[NAME].lacking == lacking


def test_without_slices_nothing_is_looked_at(tmp_path: Path) -> None:
    assert limits.observe_limits(Expect.read({}), [environment(1)], v2(tmp_path)) is None


def test_a_family_with_a_loop_ends() -> None:
    assert sorted(limits.descendants(1, {1: [2], 2: [1, 3]})) == [1, 2, 3]
