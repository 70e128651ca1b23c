# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop of a runner against a double of the engine, with a real queue and real locks."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from matryoshka_runner import agents, meter, runner, state, supply
from matryoshka_runner.clients import Clients
from matryoshka_runner.config import read
from matryoshka_runner.errors import EngineError, EngineUnavailable
from matryoshka_runner.events import Drain, EngineReach, Mailbox, Stop
from matryoshka_runner.files import read_json
from matryoshka_runner.jobqueue import Claim, JobQueue
from matryoshka_runner.locks import Gate, Gates
from matryoshka_runner.meter import Evidence
from matryoshka_runner.paths import Paths
from matryoshka_runner.process import Result, run
from matryoshka_runner.runner import Runner
from matryoshka_runner.state import State
from matryoshka_runner.supply import Supply
from support.engine_double import NEVER_BEGINS, EngineDouble, eventually

Write = Callable[[dict[str, Any]], Path]
LONG = "cat > /dev/null; echo begun; exec sleep 60"


class Site:
    """A runner that serves in a thread of the test."""

    def __init__(self, paths: Paths, engine: EngineDouble) -> None:
        self.paths = paths
        self.engine = engine
        self.box = Mailbox()
        self.said: list[str] = []
        self.config = read(paths, "ci")
        agent = agents.make(self.config, paths)
        self.config.directory.mkdir(parents=True, exist_ok=True)
        environments = Supply(
            self.config, paths, engine, self.box, self.said.append, run, engine.answers, engine.containerd
        )
        gates = Gates(paths.gates, "ci")
        state = State(paths.state("ci"), "ci", self.config.sha256, self.said.append)
        serve = Runner(
            self.config, agent, engine, environments, state, gates, self.box, self.said.append
        ).serve
        self.thread = threading.Thread(target=serve, daemon=True)

    def start(self) -> Site:
        self.thread.start()
        return self

    def state(self) -> dict[str, Any]:
        found = eventually(lambda: read_json(self.paths.state("ci")))
        assert isinstance(found, dict)
        return found

    def until(self, name: str) -> dict[str, Any]:
        eventually(lambda: self.state()["state"] == name)
        return self.state()

    def until_idle(self) -> dict[str, Any]:
        """Ready, with the spare made and what the last job left removed."""
        eventually(lambda: self.state()["state"] == "ready" and self.state()["next"])
        eventually(lambda: len(self.engine.made) == 2)
        return self.state()

    def job(self, name: str = "job") -> None:
        hidden = self.paths.queue / f".{name}"
        hidden.write_text("true\n", encoding="utf-8")
        hidden.chmod(0o640)
        hidden.rename(self.paths.queue / "new" / name)

    def at_work(self) -> dict[str, Any]:
        """Start it and have it run :data:`LONG`; the state of its environment."""
        self.engine.jobs.append(LONG)
        self.start()
        self.until_idle()
        self.job()
        found = self.until_begun()["environment"]
        assert isinstance(found, dict)
        return found

    def until_begun(self, name: str = "job") -> dict[str, Any]:
        """The job has got its script and runs :data:`LONG`."""
        log = self.paths.queue / "claimed" / "ci" / name / "log"
        eventually(lambda: log.exists() and log.read_text(encoding="utf-8") == "begun\n")
        return self.until("running")

    def result(self, name: str = "job") -> dict[str, Any]:
        path = self.paths.queue / "done" / name / "result.json"
        eventually(path.exists)
        found = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(found, dict)
        return found

    def left(self) -> None:
        """The runner has left and nothing is left of it."""
        self.thread.join(10)
        assert not self.thread.is_alive()
        assert self.engine.made == {}
        assert not list(self.config.directory.glob("data-*"))
        assert not self.paths.handed_in("ci").exists()
        state = self.state()
        assert (state["state"], state["environment"], state["job"]) == ("stopped", None, None)


@pytest.fixture
def site(
    paths: Paths, content: dict[str, Any], write: Write, engine: EngineDouble, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Site]]:
    """Makes a site; keywords change its configuration."""
    monkeypatch.setattr(runner, "DELAYS", (0.05, 0.1))
    monkeypatch.setattr(runner, "REASON", 0.5)
    made: list[Site] = []

    def make(**changes: Any) -> Site:
        write({**content, **changes})
        made.append(Site(paths, engine))
        return made[-1]

    yield make
    for each in made:
        engine.away = False
        each.box.put(Stop())
        if each.thread.ident is not None:
            each.thread.join(10)
    for process in engine.processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("cache", ["persistent", "none"])
def test_each_job_gets_an_environment_of_its_own(site: Callable[..., Site], cache: str) -> None:
    here = site(cache=cache).start()
    first = here.until("ready")["environment"]
    here.until_idle()
    here.job("one")
    one = here.result("one")
    eventually(lambda: here.state()["state"] == "ready" and here.state()["environment"] != first)
    second = here.until_idle()["environment"]
    here.job("two")
    two = here.result("two")
    assert (one["status"], one["exit_code"], one["environment"]) == ("succeeded", 0, first["id"])
    assert two["environment"] == second["id"] != first["id"]
    state = here.until_idle()
    assert first["container"] not in here.engine.made
    assert state["jobs_done"] == 2
    assert state["last_job"]["id"] == "two"
    assert state["timings"]["turnaround_seconds"] >= 0
    assert (first["data_root"] == second["data_root"]) is (cache == "persistent")
    assert Path(first["data_root"]).exists() is (cache == "persistent")


def test_the_jobs_output_and_exit_code_come_out(site: Callable[..., Site]) -> None:
    here = site()
    here.engine.jobs.append('echo said; echo "$1 7" >&2')
    here.start()
    here.until("ready")
    here.job()
    assert (here.result()["status"], here.result()["exit_code"]) == ("failed", 7)
    log = here.paths.queue / "done" / "job" / "log"
    assert log.read_text(encoding="utf-8") == "said\n"


def test_a_job_whose_environment_dies_is_cut_off_and_not_run_again(site: Callable[..., Site]) -> None:
    here = site()
    environment = here.at_work()
    here.engine.finish(environment["container"])
    result = here.result()
    assert (result["status"], result["exit_code"]) == ("cut off", None)
    assert result["reason"] == "the environment ended during the job: exit code 137"
    assert here.until_idle()["environment"]["id"] != environment["id"]
    assert sum(line.startswith("job in") for line in here.engine.log) == 1


def test_a_failure_next_to_a_dead_inner_engine_is_a_cut_off(site: Callable[..., Site]) -> None:
    here = site()
    here.engine.jobs.append('sleep 0.3; echo "$1 125" >&2')
    here.start()
    here.until("ready")
    here.job()
    here.until("running")
    here.engine.inner_dead = True
    assert here.result()["reason"] == "the inner engine stopped answering during the job"
    here.engine.inner_dead = False
    here.until("ready")


def test_a_failure_next_to_a_dead_inner_containerd_is_a_cut_off(site: Callable[..., Site]) -> None:
    here = site()
    here.engine.jobs.append('sleep 0.3; echo "$1 125" >&2')
    here.start()
    here.until("ready")
    here.job()
    here.until("running")
    here.engine.without.add("inner")
    result = here.result()
    here.engine.without.clear()
    reason = "the inner engine's containerd doesn't answer at the end of the job"
    assert (result["status"], result["exit_code"], result["reason"]) == ("cut off", None, reason)
    here.until_idle()


def test_a_job_that_loses_its_containerd_is_cut_off_although_it_goes_on(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "BESIDE", 0.1)
    here = site()
    environment = here.at_work()
    here.engine.without.add("inner")
    result = here.result()
    here.engine.without.clear()
    reason = "the inner engine's containerd stopped answering during the job"
    assert (result["status"], result["exit_code"], result["reason"]) == ("cut off", None, reason)
    assert here.until_idle()["environment"]["id"] != environment["id"]


def test_a_job_that_loses_its_containerd_to_its_own_memory_limit_has_failed(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on cgroup v1, where the kernel doesn't end an environment whole."""
    monkeypatch.setattr(runner, "BESIDE", 0.1)
    monkeypatch.setattr(meter.Meter, "evidence", lambda _self: Evidence(own_oom=1, exact=True))
    here = site()
    environment = here.at_work()
    here.engine.without.add("inner")
    result = here.result()
    here.engine.without.clear()
    assert (result["status"], result["exit_code"]) == ("failed", runner.KILLED)
    assert "memory" in result["reason"] and result["reason"].endswith(runner.ADRIFT)
    assert f"kill {environment['container']}" in here.engine.log, "the job would go on"


def test_a_job_whose_containerd_is_silent_for_a_moment_goes_on(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "BESIDE", 0.1)
    here = site()
    here.engine.jobs.append('cat > /dev/null; echo begun; sleep 1.5; echo "$1 0" >&2')
    here.start()
    here.until_idle()
    here.job()
    here.until_begun()
    here.engine.without.add("inner")
    time.sleep(0.3)
    here.engine.without.clear()
    assert here.result()["status"] == "succeeded"


@pytest.mark.parametrize(
    ("whose", "why"),
    [
        ("host", "containerd on the host doesn't answer; no job is taken"),
        ("inner", "the inner engine's containerd doesn't answer; no job is taken"),
    ],
)
def test_no_job_is_taken_while_a_containerd_is_away(
    site: Callable[..., Site], whose: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job itself has the runner look; a check of the idle environment would replace it in a second."""
    monkeypatch.setattr(runner, "HEALTH", 3600.0)
    here = site().start()
    before = here.until_idle()["environment"]
    here.engine.without.add(whose)
    here.job()
    assert here.until("failed")["error"] == why
    assert (here.paths.queue / "new" / "job").exists()
    here.engine.without.clear()
    result = here.result()
    assert (result["status"], result["environment"]) == ("succeeded", before["id"])


def test_an_idle_environment_without_its_containerd_is_replaced_one_without_the_hosts_waits(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "HEALTH", 0.1)
    here = site().start()
    before = here.until_idle()["environment"]
    here.engine.without.add("host")
    here.until("failed")
    threading.Event().wait(1.5)
    assert here.state()["environment"] == before
    here.engine.without.remove("host")
    here.until("ready")
    here.engine.without.add("inner")
    eventually(lambda: any("doesn't answer any more" in line for line in here.said))
    here.engine.without.clear()
    eventually(lambda: (here.state()["environment"] or before)["id"] != before["id"])


def test_a_job_that_never_began_is_run_in_the_next_environment(site: Callable[..., Site]) -> None:
    here = site()
    here.engine.jobs += [NEVER_BEGINS, NEVER_BEGINS]
    here.start()
    first = here.until_idle()["environment"]
    here.job()
    here.job("later")
    result, later = here.result(), here.result("later")
    assert (result["job"], result["status"]) == ("job", "succeeded")
    assert result["environment"] != first["id"]
    assert result["ended"] <= later["started"]
    why = "it never began, the next environment gets it: the connection to the job broke: docker exec ended with 126"
    assert [line for line in here.said if "never began" in line] == [f"job job: {why}"] * 2
    log = here.paths.queue / "done" / "job" / "log"
    assert log.read_text(encoding="utf-8") == f"matryoshka: {why}\n" * 2
    assert here.until_idle()["jobs_done"] == 2


def test_a_job_that_waits_for_its_next_environment_is_cut_off_by_a_stop(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site()
    here.engine.jobs.append(NEVER_BEGINS)
    here.start()
    here.until_idle()

    def away(_self: Supply, _old: object) -> None:
        here.engine.away = True
        raise EngineUnavailable("the engine is away")

    replace = Supply.replace
    monkeypatch.setattr(Supply, "replace", away)
    here.job()
    here.until("failed")
    monkeypatch.setattr(Supply, "replace", replace)
    here.engine.without.add("host")
    here.engine.away = False
    here.until("failed")
    here.box.put(Stop())
    here.left()
    (result,) = JobQueue(here.paths.queue, "ci").recover()
    assert (result["job"], result["status"]) == ("job", "cut off")
    assert result["reason"] == "the runner ended before the job started"


def test_a_runner_leaves_though_a_client_of_the_engine_hangs(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site()
    begun = threading.Event()

    def hangs(_name: str) -> None:
        begun.set()
        result = Clients(lambda: here.box.stop, lambda: False)(["sleep", "60"], timeout=120)
        raise EngineUnavailable(f"docker start: {result.detail}")

    monkeypatch.setattr(here.engine, "start", hangs)
    here.start()
    assert begun.wait(10)
    here.box.put(Stop())
    here.left()
    assert here.said == ["left undone: docker start: sleep 60: the engine on the host doesn't answer"]


def test_no_environment_is_ended_while_the_hosts_containerd_is_away(site: Callable[..., Site]) -> None:
    here = site()
    here.engine.jobs.append('sleep 0.3; echo "$1 0" >&2')
    here.start()
    before = here.until_idle()["environment"]
    here.job()
    here.until("running")
    here.engine.without.add("host")
    assert here.result()["status"] == "succeeded"
    threading.Event().wait(0.3)
    assert here.engine.running_now() == [before["container"]]
    here.engine.without.clear()
    eventually(lambda: (here.state()["environment"] or before)["id"] != before["id"])


def test_a_containerd_that_is_back_counts_when_the_engine_reaches_it(site: Callable[..., Site]) -> None:
    here = site().start()
    before = here.until_idle()["environment"]
    here.engine.without |= {"host", "way"}
    here.job()
    here.until("failed")
    here.engine.without.remove("host")
    threading.Event().wait(0.3)
    assert here.state()["state"] == "failed"
    assert (here.paths.queue / "new" / "job").exists()
    here.engine.without.clear()
    assert here.result()["environment"] == before["id"]


def test_a_job_that_never_begins_is_given_up(site: Callable[..., Site]) -> None:
    here = site()
    here.engine.jobs += [NEVER_BEGINS] * 4
    here.start()
    here.until_idle()
    here.job()
    result = here.result()
    assert (result["status"], result["started"] is not None) == ("cut off", True)
    assert result["reason"] == "the connection to the job broke: docker exec ended with 126"
    here.until_idle()
    assert len(here.engine.jobs) == 1


def test_a_job_that_waits_for_its_next_environment_outlives_an_engine_that_is_away(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site()
    here.engine.jobs.append(NEVER_BEGINS)
    here.start()
    here.until_idle()
    spawn = here.engine.spawn

    def last(*words: Any, **options: Any) -> Any:
        here.engine.away = True
        return spawn(*words, **options)

    monkeypatch.setattr(here.engine, "spawn", last)
    here.job()
    here.until("failed")
    assert (here.paths.queue / "claimed" / "ci" / "job").is_dir()
    assert not (here.paths.queue / "done" / "job").exists()
    monkeypatch.setattr(here.engine, "spawn", spawn)
    here.engine.away = False
    assert here.result()["status"] == "succeeded"


def test_a_success_stands_whatever_the_inner_engine_does(site: Callable[..., Site]) -> None:
    here = site()
    here.engine.jobs.append('sleep 0.3; echo "$1 0" >&2')
    here.start()
    here.until("ready")
    here.job()
    here.until("running")
    here.engine.inner_dead = True
    assert here.result()["status"] == "succeeded"
    here.engine.inner_dead = False


def test_a_broken_way_to_the_job_is_a_cut_off(site: Callable[..., Site]) -> None:
    here = site()
    here.engine.jobs.append("echo unexpected EOF >&2")
    here.start()
    here.until("ready")
    here.job()
    assert here.result()["reason"] == "the connection to the job broke: unexpected EOF"


def test_stop_in_the_middle_of_a_job_reports_it_and_leaves_nothing(site: Callable[..., Site]) -> None:
    here = site(cache="none")
    here.engine.jobs.append(LONG)
    here.start()
    here.until_idle()
    here.job()
    here.until("running")
    here.box.put(Stop())
    here.left()
    assert (here.result()["status"], here.result()["reason"]) == ("cut off", "the runner was stopped")


def test_drain_while_idle_leaves_at_once(site: Callable[..., Site]) -> None:
    here = site().start()
    here.until("ready")
    here.box.put(Drain())
    here.left()


def test_drain_lets_the_job_end(site: Callable[..., Site]) -> None:
    here = site()
    here.engine.jobs.append('sleep 0.6; echo "$1 0" >&2')
    here.start()
    here.until("ready")
    here.job()
    here.until("running")
    here.box.put(Drain())
    assert here.until("draining")["job"]["id"] == "job"
    here.job("later")
    here.left()
    assert here.result()["status"] == "succeeded"
    assert (here.paths.queue / "new" / "later").exists()


def test_drain_ends_a_job_that_takes_too_long(site: Callable[..., Site]) -> None:
    here = site(drain_timeout=0.3)
    here.engine.jobs.append(LONG)
    here.start()
    here.until("ready")
    here.job()
    here.until("running")
    here.box.put(Drain())
    here.left()
    assert here.result()["reason"] == "drain timeout: the job still ran after 0.3 s of draining"


def test_an_engine_that_is_away_is_waited_for(site: Callable[..., Site]) -> None:
    here = site()
    here.engine.away = True
    here.start()
    assert here.until("failed")["error"] == "the engine is away"
    here.engine.away = False
    assert here.until("ready")["error"] is None


def test_an_environment_that_survives_its_engine_waits_for_it(site: Callable[..., Site]) -> None:
    here = site().start()
    before = here.until_idle()["environment"]
    here.box.put(EngineReach(True))
    assert "no job is taken" in here.until("failed")["error"]
    here.job()
    here.box.put(EngineReach(False))
    assert here.result()["environment"] == before["id"]


def test_an_idle_environment_that_dies_is_replaced(site: Callable[..., Site]) -> None:
    here = site().start()
    before = here.until_idle()["environment"]
    here.engine.finish(before["container"])
    eventually(lambda: (here.state()["environment"] or before)["id"] != before["id"])
    assert here.until_idle()["state"] == "ready"
    assert any("ended while idle: exit code 137" in line for line in here.said)


def test_an_idle_inner_engine_that_hangs_is_replaced(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "HEALTH", 0.1)
    here = site().start()
    before = here.until_idle()["environment"]
    here.engine.inner_dead = True
    eventually(lambda: any("doesn't answer any more" in line for line in here.said))
    here.engine.inner_dead = False
    eventually(lambda: (here.state()["environment"] or before)["id"] != before["id"])


def test_what_another_start_left_is_removed_first(site: Callable[..., Site]) -> None:
    here = site()
    here.engine.made["matryoshka-ci-deadbeef"] = type(here.engine).half_made()
    root = here.config.directory / "data-deadbeef"
    (root / "overlay2").mkdir(parents=True)
    claimed = here.paths.queue / "claimed" / "ci" / "old"
    claimed.mkdir(parents=True)
    (claimed / "script").write_text("true\n", encoding="utf-8")
    for folder in ("new", "done", "refused"):
        (here.paths.queue / folder).mkdir()
    here.start()
    here.until("ready")
    assert here.engine.log[0] == "remove matryoshka-ci-deadbeef"
    assert not root.exists()
    assert here.result("old")["status"] == "cut off"


def test_a_data_root_that_a_daemon_holds_is_never_started_on(site: Callable[..., Site]) -> None:
    here = site()
    database = here.config.data / "network" / "files" / "local-kv.db"
    database.parent.mkdir(parents=True)
    with open(database, "w", encoding="ascii") as daemon:
        fcntl.flock(daemon, fcntl.LOCK_EX)
        here.start()
        assert f"a live daemon holds {database}" in here.until("failed")["error"]
        assert not any(line.startswith("start") for line in here.engine.log)
        assert database.exists()
    here.until("ready")
    assert not database.exists()


def test_no_job_begins_while_something_is_pruned(site: Callable[..., Site]) -> None:
    here = site().start()
    here.until_idle()
    with Gate(here.paths.gates, "engine").alone(1):
        here.job()
        here.box.put(EngineReach(False))
        threading.Event().wait(0.4)
        assert (here.paths.queue / "new" / "job").exists()
    assert here.result()["status"] == "succeeded"


def test_an_environment_that_ends_at_once_is_told_with_its_last_words(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site()
    start = here.engine.start

    def fails(name: str) -> None:
        start(name)
        here.engine.finish(name, 70)

    monkeypatch.setattr(here.engine, "start", fails)
    here.engine.inner_dead = True
    here.start()
    error = here.until("failed")["error"]
    assert "ended before it was ready: exit code 70; its last words" in error
    here.engine.inner_dead = False
    monkeypatch.setattr(here.engine, "start", start)
    here.until("ready")


def test_a_slow_engine_isnt_kept_from_getting_ready_by_questions(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "BLIND", 0.0)
    monkeypatch.setattr(supply, "ASK", 0.0)
    here = site()
    asked: list[tuple[float, float]] = []

    def slow(_name: str, _argv: Sequence[str], timeout: float = 60.0) -> Result:
        begun = time.monotonic()
        time.sleep(0.1)
        asked.append((begun, time.monotonic()))
        return Result(1, "", "no answer")

    monkeypatch.setattr(here.engine, "execute", slow)
    here.engine.inner_dead = True
    here.start()
    eventually(lambda: len(asked) >= 3)
    here.engine.inner_dead = False
    here.until("ready")
    for (begun, ended), (again, _end) in itertools.pairwise(asked):
        assert again - ended >= 0.9 * supply.REST * (ended - begun)


def test_a_refused_job_is_told_and_the_environment_stays(site: Callable[..., Site]) -> None:
    here = site().start()
    before = here.until_idle()["environment"]
    (here.paths.queue / "new" / "folder").mkdir()
    path = here.paths.queue / "refused" / "folder" / "result.json"
    eventually(path.exists)
    assert "a directory" in json.loads(path.read_text(encoding="utf-8"))["reason"]
    assert here.state()["environment"] == before


def test_a_command_that_fails_fast_is_held_back(site: Callable[..., Site]) -> None:
    here = site(agent={"name": "command", "command": ["make", "check"]})
    here.engine.jobs += ['echo "$1 2" >&2'] * 50
    here.start()
    eventually(lambda: here.state()["jobs_done"] >= 1)
    here.until("ready")
    threading.Event().wait(0.5)
    state = here.state()
    assert state["jobs_done"] == 1
    assert (state["last_job"]["status"], state["last_job"]["exit_code"]) == ("failed", 2)


def test_a_job_that_met_its_limit_is_told_so_in_result_log_and_journal(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site()
    here.engine.jobs.append('printf half; echo "$1 1" >&2; echo 700 >&2')
    evidence = Evidence(own_oom=1, kills=2, memory_limit=1 << 30)
    monkeypatch.setattr(meter.Meter, "evidence", lambda _self: evidence)
    here.start()
    here.until_idle()
    here.job()
    result = here.result()
    words = "killed by its limit: memory 1 GiB (the kernel killed 2 processes)"
    assert (result["status"], result["exit_code"], result["reason"]) == ("failed", 1, words)
    assert set(result["usage"]) == {
        "cpu_seconds", "memory_peak_bytes", "read_bytes", "written_bytes", "tasks_peak", "pressure",
    }  # fmt: skip
    log = here.paths.queue / "done" / "job" / "log"
    assert log.read_text(encoding="utf-8") == f"half\nmatryoshka: {words}\n"
    here.until_idle()
    assert f"job job: failed, exit code 1: {words}" in here.said
    assert any(line.startswith("job job: used ") for line in here.said)
    assert here.state()["last_job"]["reason"] == words


def over_its_limit(site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> Site:
    """A job is handed in of which the kernel tells that its own limit killed it."""
    here = site()
    here.engine.jobs.append(LONG)
    monkeypatch.setattr(meter.Meter, "evidence", lambda _self: Evidence(own_oom=1, exact=True))
    here.start()
    here.until_idle()
    here.job()
    return here


def test_an_environment_that_died_of_its_limit_is_told_so(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = over_its_limit(site, monkeypatch)
    environment = here.until_begun()["environment"]
    here.engine.finish(environment["container"])
    result = here.result()
    assert (result["status"], result["exit_code"]) == ("failed", 137)
    assert result["reason"] == (
        "killed by its limit: memory 1 GiB (out of memory); the environment ended during the job: exit code 137"
    )


def test_a_limit_s_victim_is_known_before_the_engine_tells_of_its_end(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = over_its_limit(site, monkeypatch)
    here.until_begun()
    here.engine.without.add("inner")
    for process in here.engine.processes:
        process.kill()
    result = here.result()
    here.engine.without.clear()
    assert (result["status"], result["exit_code"]) == ("failed", 137)
    assert result["reason"].startswith("killed by its limit: memory 1 GiB (out of memory); ")


@pytest.mark.parametrize("found", [Evidence(ci_oom=1), Evidence(host_oom=True)])
def test_one_that_died_of_others_hunger_was_cut_off(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, found: Evidence
) -> None:
    here = site()
    monkeypatch.setattr(meter.Meter, "evidence", lambda _self: found)
    environment = here.at_work()
    here.engine.finish(environment["container"])
    result = here.result()
    assert (result["status"], result["exit_code"]) == ("cut off", None)
    assert "memory" in result["reason"]


def test_a_job_that_succeeds_gets_no_words(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site()
    monkeypatch.setattr(meter.Meter, "evidence", lambda _self: Evidence(own_oom=1, forks=3))
    here.start()
    here.until_idle()
    here.job()
    assert (here.result()["status"], here.result()["reason"]) == ("succeeded", "")


def test_a_cut_log_says_so_in_its_last_line(site: Callable[..., Site]) -> None:
    here = site(limits={"log_bytes": 2048})
    here.engine.jobs.append('echo said; echo "$1 0" >&2; echo 987654 >&2')
    here.start()
    here.until("ready")
    here.job()
    here.result()
    log = here.paths.queue / "done" / "job" / "log"
    note = "the log is cut at its limit of 2 KiB; 987654 bytes more were thrown away"
    assert log.read_text(encoding="utf-8") == f"said\nmatryoshka: {note}\n"


def test_a_commands_cut_log_is_told_in_the_journal(site: Callable[..., Site]) -> None:
    here = site(agent={"name": "command", "command": ["make"]}, limits={"log_bytes": 2048})
    here.engine.jobs += ['echo "$1 0" >&2; echo 5 >&2', LONG]
    here.start()
    eventually(lambda: any("the log is cut at its limit of 2 KiB; 5 bytes" in line for line in here.said))


def test_a_result_that_cant_be_written_is_kept_until_it_can(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site()
    scarce = threading.Event()
    put_away = JobQueue._put_away

    def fails(queue: JobQueue, claim: Claim, result: dict[str, Any]) -> dict[str, Any]:
        if scarce.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(claim.folder / "result.json"))
        return put_away(queue, claim, result)

    monkeypatch.setattr(JobQueue, "_put_away", fails)
    scarce.set()
    here.start()
    here.until_idle()
    here.job()
    error = here.until("failed")["error"]
    assert "claimed/ci/job/result.json: No space left on device; make room" in error
    assert error.endswith("it is tried again")
    scarce.clear()
    assert (here.result()["status"], here.result()["exit_code"]) == ("succeeded", 0)
    here.until("ready")


def test_no_job_is_taken_while_there_is_no_room_and_the_environment_stays(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site().start()
    before = here.until_idle()["environment"]
    full = threading.Event()
    full.set()
    monkeypatch.setattr(runner, "lack_of_room", lambda folder: f"{folder}: full" if full.is_set() else "")
    assert here.until("failed")["error"] == f"{here.paths.run}: full; no job is taken until then"
    here.job()
    threading.Event().wait(0.3)
    assert (here.paths.queue / "new" / "job").exists()
    full.clear()
    assert here.result()["environment"] == before["id"]


def test_a_state_that_cant_be_written_stops_no_job(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site().start()
    here.until_idle()

    def full(*_words: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run/ci.json")

    with monkeypatch.context() as patch:
        patch.setattr(state, "write_json", full)
        here.job()
        assert here.result()["status"] == "succeeded"
    eventually(lambda: "the state can be written again" in here.said)
    assert here.until_idle()["jobs_done"] == 1


def test_a_cache_of_before_a_power_cut_is_set_aside_and_named(site: Callable[..., Site]) -> None:
    here = site()
    (here.config.data / "image").mkdir(parents=True)
    (here.config.directory / "data.mark").write_text("dirty another-boot\n", encoding="utf-8")
    here.start()
    aside = here.until_idle()["set_aside"]
    assert aside["reason"] == "the machine went down while a daemon wrote in it"
    assert not (here.config.data / "image").exists()
    assert any(f"set aside as {aside['path']}" in line for line in here.said)
    here.box.put(Drain())
    here.thread.join(10)
    assert (here.config.directory / "data.mark").read_text(encoding="utf-8") == "clean\n"


def test_a_cache_that_no_daemon_gets_ready_on_is_set_aside_once(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site()
    (here.config.data / "image").mkdir(parents=True)
    start = here.engine.start

    def fails(name: str) -> None:
        start(name)
        here.engine.finish(name, 1)

    monkeypatch.setattr(here.engine, "start", fails)
    here.engine.inner_dead = True
    here.start()
    eventually(lambda: sum(line.startswith("failed: ") for line in here.said) >= 3)
    aside = [line for line in here.said if "set aside" in line]
    assert len(aside) == 1
    assert "no daemon got ready on it 2 times in a row" in aside[0]
    here.engine.inner_dead = False
    monkeypatch.setattr(here.engine, "start", start)
    here.until("ready")


@pytest.mark.parametrize("disk_bytes", [None, 1 << 30])
def test_a_cache_that_filled_the_runners_own_disk_makes_room(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, disk_bytes: int | None
) -> None:
    here = site(limits={"disk_bytes": disk_bytes})
    (here.config.data / "image").mkdir(parents=True)
    full = (here.config.data / "image").exists
    monkeypatch.setattr(
        meter.Disk, "of", classmethod(lambda cls, path: cls(path, 1 << 30, 0 if full() else 1 << 29))
    )
    here.start()
    here.until("ready")
    assert (here.config.data / "image").exists() is (disk_bytes is None)
    assert any("it filled the runner's disk" in line for line in here.said) is (disk_bytes is not None)


def test_an_engine_that_cant_stop_an_environment_doesnt_keep_the_runner(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site()

    def hangs(_name: str, _seconds: float) -> None:
        raise EngineError("docker stop: no end within 61 s")

    monkeypatch.setattr(here.engine, "stop", hangs)
    here.start()
    here.until_idle()
    here.box.put(Stop())
    here.left()
    assert "docker stop: no end within 61 s; it is killed" in here.said
