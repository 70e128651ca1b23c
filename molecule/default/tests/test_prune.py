# SPDX-License-Identifier: GPL-3.0-or-later
"""Pruning takes its turn with jobs, takes what it may, leaves what it must, and says what it freed."""

from __future__ import annotations

from typing import Any

import pytest
from live import QUEUE, Site, wait_for

ENGINE = "matryoshka-prune-engine.service"
INSIDE = "matryoshka-prune@ci.service"
EAGER: dict[str, Any] = {
    "prune_engine_until": "1s",
    "prune_runners_until": "1s",
    "prune_keep_labels": ["keep"],
    # At midnight a timer of its own would come between.
    "prune_engine_schedule": "yearly",
    "prune_runners_schedule": "yearly",
}

JUNK = "printf %s junk > /tmp/junk; for i in 1 2 3; do head -c 4000000 /dev/urandom >> /tmp/junk; done; "
IMPORT = JUNK + "tar -c -C /tmp junk | docker import {changes} - {name} > /dev/null"


@pytest.fixture
def eager(site: Site) -> Site:
    """The default site, whose timers' services prune all that is older than a second."""
    site.wants(EAGER)
    site.ready("ci")
    return site


def activity(site: Site, unit: str) -> str:
    return site.sh(f"systemctl is-active {unit}; true").strip()


def start(site: Site, unit: str) -> None:
    site.sh(f"systemctl reset-failed {unit} 2>/dev/null; systemctl start --no-block {unit}")


def ends_well(site: Site, unit: str, seconds: float = 60) -> None:
    wait_for(
        f"{unit} has ended",
        seconds,
        lambda: activity(site, unit) in ("inactive", "failed"),
        lambda: site.sh(f"systemctl status -n 20 {unit}; true"),
    )
    result = site.sh(f"systemctl show --value -p Result {unit}").strip()
    assert result == "success", site.sh(f"systemctl status -n 20 {unit}; true")


def freed(journal: list[str], where: str) -> dict[str, str]:
    """What the journal says was freed: ``{"images": "1.2MB", …}``."""
    said = [line.removeprefix(f"{where}: ") for line in journal if line.startswith(f"{where}: ")]
    return dict(line.removesuffix(" freed").split(": ") for line in said if line.endswith(" freed"))


def test_the_hosts_engine_is_pruned_when_the_job_has_ended(eager: Site) -> None:
    site = eager
    site.sh(IMPORT.format(changes="", name="junk:1"))
    site.sh(IMPORT.format(changes="--change 'LABEL keep=yes'", name="junk:kept"))
    # What is pruned is older than a second.
    site.sh("sleep 1.5")
    environment_images = site.lines("docker images -q --filter label=matryoshka.role=environment")
    job, mark = site.held("ci"), site.now()
    spare = wait_for("a spare is made", 30, lambda: site.state("ci")["next"], site.explain)

    start(site, ENGINE)
    wait_for("the prune waits", 10, lambda: activity(site, ENGINE) == "activating", site.explain)
    follower = site.submit("true", name="follower")
    assert "junk:1" in images(site) and not freed(site.journal(ENGINE, mark), "engine")

    job.release().succeeds()
    ends_well(site, ENGINE)
    said = freed(site.journal(ENGINE, mark), "engine")
    assert set(said) == {"containers", "networks", "images", "build cache"}, said
    assert said["images"] not in ("", "0B"), said
    left = images(site)
    assert "junk:1" not in left and "junk:kept" in left, left
    assert site.lines("docker images -q --filter label=matryoshka.role=environment") == environment_images
    follower.succeeds()
    assert site.lines(f"docker ps -aq --filter name={spare['container']}"), "the spare environment was pruned"
    site.sh("docker rmi junk:kept > /dev/null")


def images(site: Site) -> list[str]:
    return site.lines("docker images --format '{{.Repository}}:{{.Tag}}'")


def test_the_inside_of_a_runner_is_pruned_when_its_job_has_ended(eager: Site) -> None:
    site = eager
    make = IMPORT.format(changes="", name="junk:1") + "\n"
    make += IMPORT.format(changes="--change 'LABEL keep=yes'", name="junk:kept") + "\nsleep 1.5"
    job, mark = site.held("ci", before=make), site.now()

    start(site, INSIDE)
    wait_for("the prune waits", 10, lambda: activity(site, INSIDE) == "activating", site.explain)
    job.release().succeeds()
    ends_well(site, INSIDE)

    said = freed(site.journal(INSIDE, mark), "runner ci")
    assert said.get("images") not in (None, "", "0B"), said
    ended = site.submit("docker images --format '{{.Repository}}:{{.Tag}}'").succeeds()
    assert "junk:1" not in ended.log and "junk:kept" in ended.log, ended.log
    site.submit("docker rmi junk:kept").succeeds()


@pytest.mark.parametrize("unit", [ENGINE, INSIDE], ids=["engine", "inside"])
def test_no_job_begins_while_pruning(eager: Site, unit: str) -> None:
    """The daemon is frozen in the middle of the prune; a job that is handed in then stays in the queue."""
    site = eager
    state = site.ready("ci")
    daemon = site.main_pid("docker.service")
    if unit == INSIDE:
        first = site.first_process(state["environment"]["container"])
        pid_namespace = site.sh(f"readlink /proc/{first}/ns/pid").strip()
        daemons = site.lines("pgrep -x dockerd")
        daemon = int(
            next(pid for pid in daemons if site.sh(f"readlink /proc/{pid}/ns/pid").strip() == pid_namespace)
        )
    mark = site.now()
    site.sh(f"kill -STOP {daemon}")
    try:
        start(site, unit)
        prune = wait_for("the prune has begun", 10, lambda: site.main_pid(unit), site.explain)
        has_turn = f"grep -ls docker /proc/$(pgrep -P {prune} -x docker)/comm"
        wait_for("the prune asks the engine", 10, lambda: site.lines(f"{has_turn}; true"), site.explain)
        job = site.submit("true")
        for _ in range(5):
            assert job.waits(), "a job began in the middle of a prune"
            site.sh("sleep 0.3")
        assert activity(site, unit) == "activating", site.sh(f"systemctl status {unit}; true")
    finally:
        site.sh(f"kill -CONT {daemon}")
    ends_well(site, unit)
    job.succeeds()
    assert freed(site.journal(unit, mark), "engine" if unit == ENGINE else "runner ci")
    assert not site.lines(f"ls {QUEUE}/new")


def test_a_prune_that_waited_too_long_says_so_and_prunes_nothing(site: Site) -> None:
    site.wants({**EAGER, "prune_wait": 1})
    job, mark = site.held("ci"), site.now()
    site.sh(IMPORT.format(changes="", name="junk:2"))
    start(site, ENGINE)
    wait_for("the prune gave up", 30, lambda: activity(site, ENGINE) == "failed", site.explain)
    said = site.journal(ENGINE, mark)
    assert any("still ran after 1 s; nothing was done" in line for line in said), said
    assert "junk:2" in images(site)
    job.release().succeeds()
    site.sh(f"systemctl reset-failed {ENGINE}; docker rmi junk:2 > /dev/null")
