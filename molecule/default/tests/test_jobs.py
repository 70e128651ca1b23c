# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs: what they can do, what they leave, how they end, and what they may use."""

from __future__ import annotations

import posixpath
import shlex
import time
from collections import Counter

import pytest
from live import HOLD, QUEUE, Job, Site, wait_for

BUILD = """\
mkdir -p /tmp/context && cd /tmp/context && cp /bin/busybox .
printf 'FROM scratch\\nCOPY busybox /bin/busybox\\nRUN ["/bin/busybox", "echo", "built"]\\n' > Dockerfile
docker build --progress=plain -t {tag} . 2>&1
"""
"""Builds an image without any registry: the environment's image has a static busybox."""

LEAVE = """\
docker run -d --name left --restart always -v left:/left {tag} /bin/busybox sleep 1000
docker network create left
echo secret > /tmp/left; echo secret > /root/left; echo secret > /var/lib/docker/left; echo secret > left
cp /bin/busybox /bin/left-here; setsid /bin/left-here sleep 1000 > /dev/null 2>&1 &
"""
"""Leaves one of all that a job can leave."""

LOOK = """\
echo "containers: $(docker ps -aq | wc -l)"
echo "volumes: $(docker volume ls -q | wc -l)"
echo "networks: $(docker network ls --format '{{.Name}}' | sort | tr '\\n' ' ')"
echo "files: $(ls -d /tmp/left /root/left /work/* 2> /dev/null | wc -l)"
echo "processes: $(pgrep -c left-here)"
echo "images: $(docker images -q | wc -l)"
"""
"""Looks for all of it."""


def test_a_job_builds_an_image_and_runs_it(two_runners: Site) -> None:
    ended = two_runners.submit(
        "set -e\n" + BUILD.format(tag="hello") + "docker run --rm hello /bin/busybox echo nested hello\n"
    ).succeeds()
    assert "nested hello" in ended.log.splitlines(), ended.log
    assert ended.started and ended.ended > ended.started, ended


@pytest.mark.parametrize(("runner", "keeps"), [("ci", True), ("small", False)])
def test_the_next_job_finds_nothing_but_the_cache(two_runners: Site, runner: str, keeps: bool) -> None:
    tag = f"left-{runner}"
    first = two_runners.submit("set -e\n" + BUILD.format(tag=tag) + LEAVE.format(tag=tag), runner).succeeds()
    second = two_runners.submit(LOOK + BUILD.format(tag=tag), runner).succeeds()

    assert second.environment != first.environment
    found = dict(line.split(": ", 1) for line in second.log.splitlines()[:6])
    images = int(found.pop("images"))
    assert found == {
        "containers": "0", "volumes": "0", "networks": "bridge host none ", "files": "0", "processes": "0",
    }, second.log  # fmt: skip
    cached = [line for line in second.log.splitlines() if "CACHED" in line or "Using cache" in line]
    assert (images > 0, bool(cached)) == (keeps, keeps), second.log


@pytest.mark.parametrize("code", [0, 7, 255])
def test_the_exit_code_of_a_job_is_that_of_the_command(two_runners: Site, code: int) -> None:
    site = two_runners
    site.write("/root/exit.sh", f"echo out; echo err >&2; exit {code}\n")
    # ssh itself ends with 255 when it fails, so the code comes as text.
    assert site.lines("matryoshka job /root/exit.sh --runner ci; echo $?") == ["out", "err", str(code)]


def test_the_log_is_streamed_while_the_job_runs(two_runners: Site) -> None:
    site = two_runners
    site.write("/root/stream.sh", f"{HOLD}\n")
    client = "matryoshka job /root/stream.sh --runner ci > /root/stream.log 2>&1; echo $? > /root/stream.code"
    site.sh(f"rm -f /root/stream.*[ge]; setsid sh -c {shlex.quote(client)} > /dev/null 2>&1 &")
    wait_for("the client shows the first line", 30, lambda: "holding" in _shown(site), lambda: _shown(site))
    assert "released" not in _shown(site)
    site.inside("ci", "touch /release")
    wait_for("the client ends", 30, lambda: site.host.file("/root/stream.code").exists, lambda: _shown(site))
    assert site.sh("cat /root/stream.code").strip() == "0"
    assert _shown(site).splitlines()[:2] == ["holding", "released"]


def _shown(site: Site) -> str:
    return site.sh("cat /root/stream.log 2>/dev/null; true")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        ("mkdir {path}", "the job is a directory; allowed: a regular file"),
        ("ln -s /etc/shadow {path}", "the job is a symbolic link; allowed: a regular file"),
        ("mkfifo {path}", "the job is a fifo; allowed: a regular file"),
        (
            "echo touch /root/ran > {path}; chmod 0666 {path}",
            "the job is world-writable (mode 0666); allowed: no write permission for others",
        ),
        (
            "echo id > {path}; chown nobody:nogroup {path}",
            "the job belongs to uid 65534, gid 65534; allowed: owned by root or of group root",
        ),
        ("touch {path}", "the job is empty; allowed: a script or a program"),
    ],
    ids=["directory", "symlink", "fifo", "world-writable", "stranger", "empty"],
)
def test_what_is_no_job_is_refused_with_a_reason(two_runners: Site, make: str, reason: str) -> None:
    site = two_runners
    job = Job(site, f"bad-{time.monotonic_ns()}")
    hidden = f"{QUEUE}/new/.{job.id}"
    site.sh(make.format(path=hidden) + f"; mv -T {hidden} {QUEUE}/new/{job.id}")
    ended = job.wait()
    assert (ended.status, ended.exit_code, ended.reason) == ("refused", None, reason)
    assert ended.log == "" and job.starts() == 0
    assert not job.waits()


def test_a_file_that_is_no_job_is_refused_by_the_command(two_runners: Site) -> None:
    said = two_runners.fails("matryoshka job /etc", 65)
    assert "/etc isn't a regular file; a job is a script or a program" in said


def test_twenty_jobs_at_once_are_each_run_once(two_runners: Site) -> None:
    site = two_runners
    jobs = site.submit_all(["echo ran $MATRYOSHKA_JOB"] * 20, name="many")
    ended = {job.id: job.succeeds(180) for job in jobs}
    assert {job: end.log.split() for job, end in ended.items()} == {job: ["ran", job] for job in ended}
    environments = Counter(end.environment for end in ended.values())
    assert len(environments) == 20, f"an environment had more than one job: {environments}"
    shares = Counter(end.runner for end in ended.values())
    assert set(shares) == {"ci", "small"}, f"one runner did it all: {shares}"
    said = site.sh("journalctl --sync; journalctl -o cat -u 'matryoshka-runner@*'")
    starts = Counter(line.split()[1] for line in said.splitlines() if " runs in " in line)
    assert {job: starts[job] for job in ended} == dict.fromkeys(ended, 1)
    assert not site.lines(f"ls {QUEUE}/new {QUEUE}/claimed/*/ | grep many- || true")


# --- limits: what the kernel says, and what it does


def limits_in_force(site: Site, runner: str) -> dict[str, float]:
    """``memory`` (bytes), ``pids`` and ``cpus`` that the kernel allows the slice of the runner's environment."""
    pid = site.first_process(site.state(runner)["environment"]["container"])
    groups = {
        names: posixpath.dirname(group.removesuffix("/init"))
        for names, group in (line.split(":", 2)[1:] for line in site.lines(f"cat /proc/{pid}/cgroup"))
    }
    if site.host.file("/sys/fs/cgroup/cgroup.controllers").exists:
        group = "/sys/fs/cgroup" + groups[""]
        files = [f"{group}/{name}" for name in ("memory.max", "pids.max", "cpu.max")]
    else:
        memory, pids, cpu = (
            next(
                f"/sys/fs/cgroup/{names}{group}"
                for names, group in groups.items()
                if wanted in names.split(",")
            )
            for wanted in ("memory", "pids", "cpu")
        )
        files = [f"{memory}/memory.limit_in_bytes", f"{pids}/pids.max"]
        files += [f"{cpu}/cpu.cfs_quota_us", f"{cpu}/cpu.cfs_period_us"]
    memory, pids, quota, period = (
        float(word) for word in site.sh(f"cat {' '.join(files)}").replace("max", "inf").split()
    )
    return {"memory": memory, "pids": pids, "cpus": quota / period if quota > 0 else float("inf")}


def test_limits_are_in_force_in_the_kernel(two_runners: Site) -> None:
    assert limits_in_force(two_runners, "small") == {"memory": 512 << 20, "pids": 300, "cpus": 1.0}
    by_default = limits_in_force(two_runners, "ci")
    assert (by_default["pids"], by_default["cpus"]) == (8192, float("inf"))
    assert by_default["memory"] > 1 << 50


def test_a_fork_bomb_stays_inside(two_runners: Site) -> None:
    site = two_runners
    bomb = "i=0; while [ $i -lt 2000 ]; do sleep 1234 & i=$((i + 1)); done; echo went off"
    job = site.submit(bomb, "small", "bomb")
    ended = job.wait()
    assert ended.status in ("failed", "cut off") and "went off" not in ended.log, ended
    site.submit("true", "ci").succeeds()
    site.submit("true", "small").succeeds()
    assert site.lines("pgrep -fx 'sleep 1234' || true") == []


def test_a_memory_hog_is_stopped(two_runners: Site) -> None:
    site = two_runners
    ended = site.submit("head -c 1000M /dev/zero | tail > /dev/null; echo survived $?", "small", "hog").wait()
    assert "survived 0" not in ended.log, ended
    site.submit("true", "small").succeeds()


def test_busy_loops_get_their_share_only(two_runners: Site) -> None:
    """Four endless loops for two seconds on one processor may take about two seconds of time."""
    loop = "timeout 2 sh -c 'while :; do :; done' & "
    ended = two_runners.submit(loop * 4 + "wait; times", "small", "busy").succeeds()
    user, system = ended.log.splitlines()[-1].split()
    used = sum(
        60 * int(minutes) + float(seconds)
        for minutes, seconds in (text.rstrip("s").split("m") for text in (user, system))
    )
    assert used < 3, f"one processor for 2 s gave {used:g} s\n{ended.log}"
