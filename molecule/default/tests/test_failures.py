# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever dies in the middle of a job: the job is reported once, and the runner comes back without a hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from live import DATA, QUEUE, Site, wait_for


def kill_inner_engine(site: Site) -> None:
    site.inside("ci", "pkill -KILL -x dockerd")


def kill_inner_containerd(site: Site) -> None:
    site.inside("ci", "pkill -KILL -x containerd")


def kill_environment(site: Site) -> None:
    site.sh(f"kill -KILL {site.first_process(site.state('ci')['environment']['container'])}")


def kill_outer_engine(site: Site) -> None:
    site.sh(f"kill -KILL {site.main_pid('docker.service')}")


def kill_runner_program(site: Site) -> None:
    site.sh(f"kill -KILL {site.main_pid('matryoshka-runner@ci.service')}")


def restart_outer_engine(site: Site) -> None:
    site.sh("systemctl restart docker.service")


def restart_runner(site: Site) -> None:
    site.sh("systemctl restart matryoshka-runner@ci.service")


def remove_environment(site: Site) -> None:
    site.sh(f"docker rm -f {site.state('ci')['environment']['container']}")


@pytest.mark.parametrize(
    ("breakage", "reasons"),
    [
        (kill_inner_engine, ["the environment ended during the job", "the inner engine stopped answering"]),
        (kill_inner_containerd, ["the inner engine's containerd stopped answering during the job"]),
        (kill_environment, ["the environment ended during the job"]),
        (remove_environment, ["the environment ended during the job"]),
        (kill_outer_engine, ["the engine on the host stopped answering", "the runner was stopped"]),
        (kill_runner_program, ["the runner ended while the job ran"]),
        (restart_outer_engine, ["the runner was stopped", "the engine on the host stopped answering"]),
        (restart_runner, ["the runner was stopped"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_job_in_the_middle_is_cut_off_once_and_the_next_one_runs(
    defaults: Site, breakage: Callable[[Site], None], reasons: list[str]
) -> None:
    site = defaults
    job = site.held("ci")
    environment = site.state("ci")["environment"]["id"]

    breakage(site)
    # Handed in while all is broken: nobody lends a hand after this.
    after = site.submit("docker info --format '{{.Driver}}'", name="after").succeeds(120)

    ended = job.wait(10)
    assert (ended.status, ended.exit_code) == ("cut off", None), ended
    assert any(ended.reason.startswith(reason) for reason in reasons), ended.reason
    assert ended.environment == environment != after.environment
    assert ended.log.count("holding") == 1 and "released" not in ended.log, ended.log
    assert job.starts() == 1, "the job was run again"
    assert site.lines(f"find {QUEUE} -name '{job.id}*' -printf '%P\\n'") == [f"done/{job.id}"]
    assert after.log.split() == ["overlay2"], "the cache came back on another storage driver"
    only_one_environment_runs(site)


@pytest.mark.parametrize(
    "breakage", [kill_inner_engine, kill_environment], ids=lambda breakage: breakage.__name__
)
def test_an_idle_environment_that_dies_is_replaced(defaults: Site, breakage: Callable[[Site], None]) -> None:
    before = defaults.ready("ci")
    breakage(defaults)
    state = defaults.ready("ci", after=before["environment"]["id"])
    assert state["pid"] == before["pid"], "the runner itself was started anew"
    defaults.submit("docker info > /dev/null").succeeds()


def test_an_environment_that_the_engine_forgot_is_ended(defaults: Site) -> None:
    """As after a containerd that died while the engine started it. The engine forgets what has no folder any more."""
    site = defaults
    environment = site.state("ci")["environment"]
    form = "{{.Id}} {{.GraphDriver.Data.MergedDir}}"
    identity, merged = site.sh(f"docker inspect -f '{form}' {environment['container']}").split()
    first, start = site.first_process(environment["container"]), site.now()
    # systemd refuses the fourth start of docker.service within a minute; other tests have had theirs.
    site.sh("systemctl reset-failed docker.service docker.socket")
    # A runner that is asked to leave ends its environment without an engine, too.
    pids = f"{site.state('ci')['pid']} {site.main_pid('docker.service')}"
    site.sh(f"kill -KILL {pids}; rm -r /var/lib/docker/containers/{identity}")
    site.ready("ci", 120, after=environment["id"])
    unit = "matryoshka-runner@ci.service"
    said = f"container {identity[:12]} ran in matryoshka-ci.slice and the engine didn't know it; it was ended"
    wait_for("it is said", 10, lambda: said in site.journal(unit, start), site.explain)
    assert not site.host.file(f"/proc/{first}").exists
    assert site.lines(f"pgrep -a containerd-shim | grep {identity}; true") == []
    site.submit("docker info > /dev/null").succeeds()
    # The engine doesn't know its root file system either.
    site.sh(f"! mountpoint -q {merged} || umount {merged}")


def test_an_engine_that_was_stopped_takes_the_runner_along_and_brings_it_back(defaults: Site) -> None:
    site = defaults
    site.sh("systemctl stop docker.socket docker.service")
    try:
        wait_for(
            "the runner has stopped",
            30,
            lambda: not site.main_pid("matryoshka-runner@ci.service"),
            site.explain,
        )
    finally:
        site.sh("systemctl start docker.service")
    site.submit("docker info > /dev/null").succeeds()


def only_one_environment_runs(site: Site, runner: str = "ci") -> None:
    """Two seconds would be enough for a second one to show: a spare that is made isn't started."""
    state = site.ready(runner)
    running = site.lines(
        f"docker ps --no-trunc --filter label=matryoshka.runner={runner} --format '{{{{.Names}}}}'"
    )
    assert running == [state["environment"]["container"]]


# --- one data root, one daemon

WATCHER = """\
import os, sys, time
root = sys.argv[1]
daemons, shared, samples = set(), set(), 0
print("watching", flush=True)
while not os.path.exists("/run/watcher-stop"):
    holders = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, parent = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[:2]
            if state in "ZX" or open(f"/proc/{pid}/comm").read() != "dockerd\\n":
                continue
            for line in open(f"/proc/{pid}/mountinfo"):
                fields = line.split()
                if fields[4] == "/var/lib/docker" and fields[3].endswith(root):
                    holders[pid] = parent
        except OSError:
            continue
    # A daemon's child is called so too until it becomes the program it is to run.
    own = {pid for pid, parent in holders.items() if parent not in holders}
    daemons |= own
    shared |= {" ".join(sorted(own))} if len(own) > 1 else set()
    samples += 1
    time.sleep(0.005)
print(samples)
print(len(daemons))
print("; ".join(shared) or "never")
"""
"""Notes, again and again, the daemons whose /var/lib/docker is the given folder, in whatever container."""


def test_overlapping_starts_never_share_a_data_root(defaults: Site) -> None:
    site = defaults
    unit = "matryoshka-runner@ci.service"
    root = f"{DATA}/ci/data".removeprefix("/var/lib/matryoshka")
    site.write("/root/watcher.py", WATCHER)
    site.sh(
        "rm -f /run/watcher-stop; setsid python3 /root/watcher.py " + root + " > /root/watcher.out 2>&1 &"
    )
    wait_for("the watcher works", 10, lambda: "watching" in site.sh("cat /root/watcher.out"), site.explain)
    try:
        said = site.fails("matryoshka run ci")
        assert "runner ci can't start, another one uses its directory" in said
        assert f"{DATA}/ci/lock is held by process {site.main_pid(unit)}" in said

        job = site.held("ci")
        # By hand it may win the race for the lock, and is a runner like any other until its time is up.
        by_hand = "timeout 1 matryoshka run ci"
        site.sh(f"for i in 1 2 3 4 5; do systemctl restart {unit} & sleep 0.5; {by_hand} & done; wait")
        for _ in range(3):
            site.sh(f"kill -KILL {site.ready('ci')['pid']}; {by_hand} & systemctl restart {unit}; wait")
        assert job.wait().status == "cut off"
        site.submit("true").succeeds()
    finally:
        site.sh("touch /run/watcher-stop")
    wait_for("the watcher ends", 10, lambda: len(site.lines("cat /root/watcher.out")) == 4, site.explain)
    samples, daemons, shared = site.lines("cat /root/watcher.out")[1:]
    assert shared == "never", f"these daemons had {DATA}/ci/data at one time: {shared}"
    assert int(samples) > 100 and int(daemons) > 2, (
        f"{samples} samples saw {daemons} daemons: the test saw nothing"
    )


# --- stop


def left_of(site: Site, runner: str, container_id: str) -> dict[str, list[str]]:
    """All that a stopped runner could have left on the host."""
    return {
        "containers": site.lines(f"docker ps -aq --filter label=matryoshka.runner={runner}"),
        "mounts": site.lines(f"grep -hs 'runners/{runner}/' /proc/[0-9]*/mountinfo | sort -u"),
        "networks": site.lines("docker network ls --format '{{.Name}}' | grep -vxE 'bridge|host|none'; true"),
        "links": site.lines("ls /sys/class/net | grep -E '^(veth|br-)'; true"),
        "cgroups": site.lines(f"find /sys/fs/cgroup -type d -name '*{container_id}*'"),
        "data roots": site.lines(f"ls -d {DATA}/{runner}/data-* 2>/dev/null; true"),
        "files": site.lines(f"find /run/matryoshka/environments/{runner} 2>/dev/null; true"),
        "processes": site.lines(f"grep -ls '{container_id}' /proc/[0-9]*/cgroup; true"),
    }


@pytest.mark.parametrize("runner", ["ci", "small"])
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_stop_leaves_nothing(two_runners: Site, runner: str, busy: bool) -> None:
    site = two_runners
    others = [name for name in ("ci", "small") if name != runner]
    # The others' environments have links and mounts of their own; those would be seen as left.
    for name in others:
        site.sh(f"systemctl stop matryoshka-runner@{name}.service")
    try:
        state = site.ready(runner)
        job = site.held(runner, "docker network create left; docker volume create left") if busy else None
        container_id = site.sh(
            f"docker inspect --format '{{{{.Id}}}}' {state['environment']['container']}"
        ).strip()
        present = left_of(site, runner, container_id)
        needed = ("containers", "mounts", "links", "cgroups", "processes")
        assert all(present[kind] for kind in needed), f"the test wouldn't see it: {present}"

        site.sh(f"systemctl stop matryoshka-runner@{runner}.service")

        assert left_of(site, runner, container_id) == {kind: [] for kind in present}
        assert site.state(runner)["state"] == "stopped"
        if job:
            ended = job.wait(10)
            assert (ended.status, ended.reason) == ("cut off", "the runner was stopped")
            assert job.starts() == 1
    finally:
        site.sh("systemctl start matryoshka-runner@ci.service matryoshka-runner@small.service")
    site.submit("docker info > /dev/null", runner).succeeds()
