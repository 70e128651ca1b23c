# SPDX-License-Identifier: GPL-3.0-or-later
"""What the program asks of the engine, and what it makes of the answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from matryoshka_runner import sweep
from matryoshka_runner.api import Answer
from matryoshka_runner.config import read
from matryoshka_runner.engine import Container, Engine
from matryoshka_runner.environment import Environment, HandedIn, container_of, iptables_backend
from matryoshka_runner.errors import EngineError, EngineUnavailable
from matryoshka_runner.paths import Paths
from matryoshka_runner.process import Result

Write = Callable[[dict[str, Any]], Path]


def answer(status: int = 200, content: Any = None, version: str = "1.45") -> Answer:
    return Answer(status, b"" if content is None else json.dumps(content).encode(), version)


def refusal(status: int, text: str) -> Answer:
    return answer(status, {"message": text})


PONG = Answer(200, b"OK", "1.45")
GONE = refusal(404, "No such container: x")
LISTED = [
    {
        "Id": "abc",
        "Names": ["/matryoshka-ci-0123abcd"],
        "Labels": {"matryoshka.environment": "0123abcd"},
        "State": "running",
    },
    {"Id": "def", "Names": None, "Labels": {}, "State": "created"},
]

Given = Answer | EngineError


class Http:
    """A dummy API: answers by the last word of the request's path, and remembers what was asked."""

    def __init__(self, **answers: Given | list[Given]) -> None:
        self.answers: dict[str, Given | list[Given]] = {"_ping": PONG, **answers}
        self.asked: list[tuple[str, str, Any]] = []

    def __call__(self, method: str, target: str, body: Any = None, timeout: float = 60.0) -> Answer:
        self.asked.append((method, target, body))
        path = target.partition("?")[0]
        given = self.answers.get("rm" if method == "DELETE" else path.rpartition("/")[2], answer(204))
        given = given.pop(0) if isinstance(given, list) else given
        if isinstance(given, EngineError):
            raise given
        return given

    @property
    def words(self) -> list[str]:
        """Everything but pings: method, and path without version and query."""
        shown = ((method, target.partition("?")[0]) for method, target, _body in self.asked)
        return [f"{method} {path.partition('1.45')[2]}" for method, path in shown if path != "/_ping"]


def engine(**answers: Given | list[Given]) -> Engine:
    return Engine(http=Http(**answers))


def test_containers_are_read_from_the_engines_list() -> None:
    http = Http(json=answer(content=LISTED))
    assert Engine(http=http).containers("ci") == [
        Container("abc", "matryoshka-ci-0123abcd", "0123abcd", "running"),
        Container("def", "", "", "created"),
    ]
    method, target, _body = http.asked[-1]
    path, _mark, query = target.partition("?")
    assert (method, path) == ("GET", "/v1.45/containers/json")
    assert parse_qs(query) == {"all": ["1"], "filters": ['{"label": ["matryoshka.runner=ci"]}']}


def test_what_is_no_list_of_containers_doesnt_count_as_none() -> None:
    with pytest.raises(EngineError, match="isn't a list of containers"):
        engine(json=answer(content={})).containers("ci")


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        (EngineUnavailable("it doesn't answer"), EngineUnavailable, "docker create: it doesn't answer"),
        (EngineError("no end within 120 s"), EngineError, "docker create: no end within 120 s"),
        (refusal(404, "No such image: x"), EngineError, "docker create: No such image: x"),
        (Answer(500, b""), EngineError, "docker create: HTTP status 500"),
        (answer(201, 7), EngineError, "'7' isn't what the engine's API answers"),
        (Answer(201, b"<html>"), EngineError, "isn't an answer in JSON"),
    ],
)
def test_an_engine_that_is_down_is_told_from_one_that_refuses(
    given: Given, kind: type[Exception], text: str
) -> None:
    with pytest.raises(EngineError, match=text) as caught:
        engine(create=given).create("x", {})
    assert caught.type is kind


def test_an_engine_that_doesnt_answer_isnt_asked_further() -> None:
    http = Http(_ping=EngineUnavailable("away"))
    with pytest.raises(EngineUnavailable, match=r"doesn't answer on /run/docker\.sock within 3 s"):
        Engine(http=http).api_version()
    assert len(http.asked) == 1
    with pytest.raises(EngineUnavailable, match="as an engine does: HTTP status 502"):
        engine(_ping=Answer(502)).expect()


def test_an_engine_that_went_away_may_be_another_when_it_is_back() -> None:
    older = Answer(200, b"OK", "1.41")
    http = Http(_ping=[PONG, older], start=[answer(204), EngineUnavailable("away"), answer(204)])
    asked = Engine(http=http)
    asked.start("x")
    with pytest.raises(EngineUnavailable, match="docker start: away"):
        asked.start("x")
    asked.start("x")
    targets = [target for _method, target, _body in http.asked if target != "/_ping"]
    assert targets == [f"/v{version}/containers/x/start" for version in ("1.45", "1.45", "1.41")]


@pytest.mark.parametrize(
    ("state", "end"),
    [
        ({"Running": False, "Pid": 0, "ExitCode": 137, "OOMKilled": True}, "exit code 137, out of memory"),
        ({"Running": False, "Pid": 0, "ExitCode": 70}, "exit code 70"),
        ({"ExitCode": 128, "Error": "no such device"}, "exit code 128, no such device"),
    ],
)
def test_the_end_of_a_container_is_told_in_words(state: dict[str, object], end: str) -> None:
    found = engine(json=answer(content={"Id": "x", "State": state})).inspect("x")
    assert found is not None
    assert not found.running
    assert found.end() == end


def test_a_container_that_isnt_there_is_no_error() -> None:
    gone = engine(json=GONE, kill=GONE, rm=GONE, wait=GONE)
    assert gone.inspect("x") is None
    gone.kill("x")
    gone.remove(["x"])
    gone.remove([])
    gone.wait("x")


def test_a_container_that_isnt_killed_is_an_error_only_if_it_runs() -> None:
    stopped, running = ({"Id": "x", "State": {"Running": state, "Pid": 7}} for state in (False, True))
    not_running = refusal(409, "container x is not running")
    engine(kill=not_running, json=answer(content=stopped)).kill("x")
    late = EngineError("no end within 60 s")
    engine(kill=late, json=answer(content=stopped)).kill("x")
    with pytest.raises(EngineError, match="docker kill: no end within 60 s"):
        engine(kill=late, json=answer(content=running)).kill("x")
    with pytest.raises(EngineError, match="docker kill: container x is not running"):
        engine(kill=not_running, json=answer(content=running)).kill("x")


def test_every_container_that_can_be_is_removed() -> None:
    busy = refusal(409, "removal of container b is already in progress")
    http = Http(rm=[answer(204), busy, answer(204)])
    with pytest.raises(EngineError, match="docker rm: removal of container b is already in progress"):
        Engine(http=http).remove(["a", "b", "c"])
    assert http.words == [f"DELETE /containers/{name}" for name in "abc"]
    assert all(target.endswith("?force=1&v=1") for _method, target, _body in http.asked[1:])


def test_whether_the_engine_reaches_its_containerd_is_asked_by_a_containers_processes() -> None:
    lost = refusal(500, "connection error: desc = connection refused: unavailable")
    ended = refusal(409, "container 0123 is not running")
    late, down = EngineError("no end within 10 s"), EngineUnavailable("down")
    http = Http(top=[answer(content={"Processes": []}), ended, lost, late, down])
    asked = Engine(http=http)
    assert [asked.reaches("x") for _each in range(5)] == [True, True, False, False, False]
    assert set(http.words) == {"GET /containers/x/top"}


def test_removal_is_over_only_when_the_engine_lists_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matryoshka_runner.sweep.time.sleep", lambda _seconds: None)
    listed, nothing = answer(content=LISTED[:1]), answer(content=[])
    busy = refusal(409, "removal of container abc is already in progress")
    http = Http(json=[listed, listed, nothing], rm=[busy, answer(204)])
    assert sweep.containers(Engine(http=http), "ci") == 1
    asked, removed = "GET /containers/json", "DELETE /containers/abc"
    assert http.words == [asked, removed, asked, removed, asked]
    with pytest.raises(
        EngineError, match=r"still lists matryoshka-ci-0123abcd after 20 removals: .*in progress"
    ):
        sweep.containers(engine(json=listed, rm=busy), "ci")


def container(
    paths: Paths, version: tuple[int, ...] = (1, 45), driver: str = ""
) -> tuple[Environment, dict[str, Any]]:
    config = read(paths, "ci")
    given = HandedIn.write(paths.handed_in("ci"), config, "nft")
    environment = Environment.fresh(config)
    return environment, container_of(config, environment, given, version, driver)


def test_an_environment_has_its_labels_limits_and_mounts(
    paths: Paths, content: dict[str, Any], write: Write
) -> None:
    write(content)
    environment, found = container(paths)
    assert environment.container == f"matryoshka-ci-{environment.id}"
    assert found == {
        "Image": "matryoshka/environment-dind:0123456789ab",
        "Hostname": "ci",
        "Labels": {
            "matryoshka.runner": "ci",
            "matryoshka.environment": environment.id,
            "matryoshka.mode": "dind",
        },
        "Env": ["HELLO=world", "MATRYOSHKA_IPTABLES=nft", "MATRYOSHKA_RUNNER=ci"],
        "HostConfig": {
            "RestartPolicy": {"Name": "no"},
            "OomScoreAdj": 500,
            "Privileged": True,
            "CgroupnsMode": "private",
            "NanoCpus": 1_500_000_000,
            "Memory": 1 << 30,
            "MemorySwap": 1 << 30,
            "Tmpfs": {"/run": "exec,mode=755"},
            "Binds": [
                f"{paths.lib}/runners/ci/data:/var/lib/docker",
                f"{paths.handed_in('ci')}/daemon.json:/etc/docker/daemon.json:ro",
                "/srv/cache:/cache:ro",
            ],
        },
    }


@pytest.mark.parametrize(
    ("driver", "parent"),
    [("systemd", "matryoshka-ci.slice"), ("cgroupfs", "/matryoshka.slice/matryoshka-ci.slice")],
)
def test_a_slice_has_the_limits_in_the_environments_place(
    paths: Paths, content: dict[str, Any], write: Write, driver: str, parent: str
) -> None:
    content["limits"] = {"cpus": 1, "memory_bytes": 1 << 30, "pids": 10}
    write({**content, "slice": "matryoshka-ci.slice"})
    host = container(paths, driver=driver)[1]["HostConfig"]
    assert host["CgroupParent"] == parent
    assert not {"NanoCpus", "Memory", "MemorySwap", "PidsLimit"} & set(host)
    write(content)
    host = container(paths, driver=driver)[1]["HostConfig"]
    assert "CgroupParent" not in host
    assert host["PidsLimit"] == 10


def test_who_makes_control_groups_is_asked() -> None:
    assert engine(info=answer(content={"CgroupDriver": "systemd"})).cgroup_driver() == "systemd"


@pytest.mark.parametrize("body", [b"", b"half a {", b"[]", b"7", b'{"State": 7}', b"{}"])
def test_a_state_that_isnt_one_is_an_error_with_words(body: bytes) -> None:
    with pytest.raises(EngineError, match=r"isn't (what the engine's API answers|an answer in JSON)"):
        engine(json=Answer(200, body)).inspect("x")


def test_removal_ends_when_patience_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matryoshka_runner.sweep.time.sleep", lambda _seconds: None)
    slow = engine(json=answer(content=LISTED[:1]), rm=EngineError("no end within 0 s"))
    with pytest.raises(EngineError, match="after 1 removals: docker rm: no end within 0 s"):
        sweep.containers(slow, "ci", patience=0)


def test_variables_reach_the_environment_and_no_file(
    paths: Paths, content: dict[str, Any], write: Write
) -> None:
    content["environment_variables"] = {"TOKEN": "hunter2"}
    write(content)
    _environment, found = container(paths)
    assert found["Env"] == ["TOKEN=hunter2", "MATRYOSHKA_IPTABLES=nft", "MATRYOSHKA_RUNNER=ci"]
    given = HandedIn.write(paths.handed_in("ci"), read(paths, "ci"), "nft")
    assert "hunter2" not in repr(given)
    assert [path.name for path in paths.handed_in("ci").iterdir()] == ["daemon.json"]
    assert given.daemon.stat().st_mode & 0o777 == 0o600


def test_each_environment_without_cache_has_a_root_of_its_own(
    paths: Paths, content: dict[str, Any], write: Write
) -> None:
    write({**content, "cache": "none"})
    config = read(paths, "ci")
    one, two = Environment.fresh(config), Environment.fresh(config)
    assert one.data_root == config.directory / f"data-{one.id}"
    assert one.data_root != two.data_root


def test_an_engine_too_old_for_cgroup_namespaces_isnt_asked_for_one(
    paths: Paths, content: dict[str, Any], write: Write
) -> None:
    write(content)
    assert "CgroupnsMode" not in container(paths, (1, 40))[1]["HostConfig"]
    assert container(paths, (1, 41))[1]["HostConfig"]["CgroupnsMode"] == "private"


@pytest.mark.parametrize(
    ("result", "backend"),
    [
        (Result(0, "iptables v1.8.11 (nf_tables)\n"), "nft"),
        (Result(0, "iptables v1.8.11 (legacy)\n"), "legacy"),
        (Result(0, "iptables v1.6.1\n"), "legacy"),
        (Result(127, "", "iptables: not found"), None),
    ],
)
def test_the_hosts_iptables_backend_is_read(result: Result, backend: str | None) -> None:
    assert iptables_backend(lambda argv, timeout=60.0, enough=None: result) == backend


@pytest.mark.parametrize(
    ("disk", "filesystem", "bound"),
    [(1 << 30, "ext4", True), (1 << 30, "xfs", False), (None, "ext4", False), (1 << 30, "", False)],
)
def test_an_environment_does_without_what_its_quota_doesn_t_hold(
    paths: Paths, content: dict[str, Any], write: Write, disk: int | None, filesystem: str, bound: bool
) -> None:
    content["limits"]["disk_bytes"] = disk
    write(content)
    config = read(paths, "ci")
    given = HandedIn.write(paths.handed_in("ci"), config, None, filesystem)
    assert given.variables.get("MATRYOSHKA_BOUND") == ("sys_resource" if bound else None)
