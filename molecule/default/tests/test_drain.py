# SPDX-License-Identifier: GPL-3.0-or-later
"""The play on a host at work: it changes what it has to, between jobs, and nothing else."""

from __future__ import annotations

from typing import Any

from conftest import SMALL
from live import DATA, Site, wait_for

CI: dict[str, Any] = {"name": "ci"}
BLUE: dict[str, Any] = {"name": "ci", "environment": {"COLOUR": "blue"}, "pids": 4096}
ONCE: dict[str, Any] = {
    "name": "once",
    "cache": "none",
    "bip": "172.24.0.1/16",
    "agent": {
        "name": "command",
        "command": ["sh", "-c", "echo once in $(hostname); docker version; sleep 1"],
    },
}
EXTRA: dict[str, Any] = {"name": "extra", "bip": "172.24.0.1/16"}


def runners(*wanted: dict[str, Any], **variables: Any) -> dict[str, Any]:
    return {"runner_runners": list(wanted), "runner_remove_caches": True, **variables}


def same_environment(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a runner and its environment are those of before."""
    return (before["pid"], before["environment"]["id"]) == (now["pid"], now["environment"]["id"])


def test_a_play_that_changes_nothing_touches_nothing(defaults: Site) -> None:
    before = defaults.ready("ci")
    output = defaults.play({}, "site")
    recap = output.rpartition("PLAY RECAP")[2]
    assert "changed=0" in recap and "failed=0" in recap, output
    assert same_environment(before, defaults.state("ci"))


def test_runners_are_added_changed_and_removed_beside_others_at_work(two_runners: Site) -> None:
    site = two_runners
    job = site.held("ci", after="echo colour ${COLOUR:-none}")
    ci, small = site.state("ci"), site.state("small")

    # Added: the others aren't touched.
    start = site.now()
    site.wants(runners(CI, SMALL, ONCE, EXTRA))
    site.ready("extra")
    assert same_environment(ci, site.state("ci")) and same_environment(small, site.state("small"))
    command_agent_runs_again_and_again(site, start)

    # Changed in the middle of a job: the play doesn't wait for the job, the job doesn't notice the play.
    # Removed in the same play, with the cache kept.
    site.wants(runners(BLUE, SMALL, ONCE, runner_remove_caches=False))
    draining = site.becomes("ci", "draining")
    assert same_environment(ci, draining) and draining["job"]["id"] == job.id
    assert same_environment(small, site.state("small"))
    assert left_of(site, "extra") == [] and site.host.file(f"{DATA}/extra/data").exists
    waiting = site.submit("echo colour ${COLOUR:-none}", "ci", "next")
    job.release("ci")
    ended = job.succeeds()
    assert "colour none" in ended.log, "the job got another environment than the one it began in"
    assert job.starts() == 1
    ended_after = waiting.succeeds()
    assert ended_after.log.split() == ["colour", "blue"] and ended_after.environment != ended.environment

    # Removed with its cache, as asked: again the others aren't touched.
    ci = site.ready("ci")
    site.wants(runners(BLUE, SMALL))
    assert same_environment(ci, site.state("ci")) and same_environment(small, site.state("small"))
    assert left_of(site, "once") == [] and not site.host.file(f"{DATA}/once").exists
    site.sh(f"rm -rf {DATA}/extra")


def command_agent_runs_again_and_again(site: Site, start: str) -> None:
    """The command runs once in each environment; its output and its end are in the journal."""
    unit = "matryoshka-runner@once.service"

    def ended() -> list[str]:
        return [line for line in site.journal(unit, start) if ": succeeded, exit code 0" in line]

    wait_for("the command was run three times", 90, lambda: len(ended()) >= 3, site.explain)
    jobs = {line.split()[1].rstrip(":") for line in ended()}
    assert len(jobs) == len(ended()), f"one environment had two jobs: {ended()}"
    assert "once in once" in site.journal(unit, start)


def left_of(site: Site, runner: str) -> list[str]:
    return site.lines(
        f"docker ps -aq --filter label=matryoshka.runner={runner}; "
        f"ls -d /etc/matryoshka/runners/{runner}.json /run/matryoshka/runners/{runner}.json 2>/dev/null; "
        f"systemctl list-units --all --plain --no-legend '*@{runner}.*'; "
        f"find /etc/systemd/system -name '*@{runner}.*'; true"
    )


def test_a_job_that_outlives_the_drain_timeout_is_cut_off_and_says_so(two_runners: Site) -> None:
    site = two_runners
    assert SMALL["drain_timeout"] == 2
    job = site.held("small")
    ci = site.state("ci")
    site.wants(runners(CI, {**SMALL, "pids": 301}))
    ended = job.wait(30)
    assert ended.status == "cut off"
    assert ended.reason == "drain timeout: the job still ran after 2 s of draining"
    assert job.starts() == 1
    limit = "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max"
    ended = site.submit(limit, "small", "next").succeeds()
    assert ended.log.split() in (["301"], ["max"]), ended.log
    assert same_environment(ci, site.state("ci"))
