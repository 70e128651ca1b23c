# SPDX-License-Identifier: GPL-3.0-or-later
"""What the program asks of the engine, and what it makes of the answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from matryoshka_runner import sweep
from matryoshka_runner.config import read
from matryoshka_runner.engine import Container, Engine
from matryoshka_runner.environment import Environment, HandedIn, create_arguments, iptables_backend
from matryoshka_runner.errors import EngineError, EngineUnavailable
from matryoshka_runner.paths import Paths
from matryoshka_runner.process import Enough, Result

Write = Callable[[dict[str, Any]], Path]
DOWN = "Cannot connect to the Docker daemon at unix:///run/docker.sock. Is the docker daemon running?"


class Answers:
    """A dummy runner: answers by the engine's command word, and remembers what was asked."""

    def __init__(self, **answers: Result | list[Result]) -> None:
        self.answers = answers
        self.asked: list[list[str]] = []

    def __call__(self, argv: Sequence[str], *, timeout: float = 60.0, enough: Enough | None = None) -> Result:
        assert list(argv[:3]) == ["docker", "--host", "unix:///run/docker.sock"]
        self.asked.append(list(argv[3:]))
        answer = self.answers.get(argv[3], Result(0))
        return answer.pop(0) if isinstance(answer, list) else answer


def test_containers_are_read_from_the_engines_list() -> None:
    run = Answers(ps=Result(0, "abc\tmatryoshka-ci-0123abcd\t0123abcd\trunning\ndef\tx\t\tcreated\n"))
    assert Engine(run).containers("ci") == [
        Container("abc", "matryoshka-ci-0123abcd", "0123abcd", "running"),
        Container("def", "x", "", "created"),
    ]
    assert "label=matryoshka.runner=ci" in run.asked[0]
    assert "-a" in run.asked[0]


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (Result(1, "", DOWN), EngineUnavailable),
        (Result(1, "", "error during connect: Get http://...: EOF"), EngineUnavailable),
        (Result(127, "", "docker: not found"), EngineUnavailable),
        (Result(1, "", "Error response from daemon: No such image: x"), EngineError),
        (Result(124, "", "no end within 60 s"), EngineError),
    ],
)
def test_an_engine_that_is_down_is_told_from_one_that_refuses(result: Result, kind: type[Exception]) -> None:
    with pytest.raises(EngineError) as caught:
        Engine(Answers(create=result)).create(["image"])
    assert caught.type is kind
    assert result.detail in str(caught.value)


def test_an_engine_that_doesnt_answer_isnt_asked_further() -> None:
    run = Answers()
    with pytest.raises(EngineUnavailable, match=r"doesn't answer on /run/docker\.sock within 3 s"):
        Engine(run, lambda _path, _timeout: False).api_version()
    assert run.asked == []


@pytest.mark.parametrize(
    ("state", "end"),
    [
        ({"Running": False, "Pid": 0, "ExitCode": 137, "OOMKilled": True}, "exit code 137, out of memory"),
        ({"Running": False, "Pid": 0, "ExitCode": 70}, "exit code 70"),
        ({"ExitCode": 128, "Error": "no such device"}, "exit code 128, no such device"),
    ],
)
def test_the_end_of_a_container_is_told_in_words(state: dict[str, object], end: str) -> None:
    found = Engine(Answers(inspect=Result(0, json.dumps(state)))).inspect("x")
    assert found is not None
    assert not found.running
    assert found.end() == end


def test_a_container_that_isnt_there_is_no_error() -> None:
    gone = Result(1, "", "Error response from daemon: No such container: x")
    engine = Engine(Answers(inspect=gone, kill=gone, rm=gone))
    assert engine.inspect("x") is None
    engine.kill("x")
    engine.remove(["x"])
    engine.remove([])


def test_whether_the_engine_reaches_its_containerd_is_asked_by_a_containers_processes() -> None:
    lost = Result(1, "", "Error response from daemon: connection error: connection refused: unavailable")
    ended = Result(1, "", "Error response from daemon: Container 0123 is not running")
    late = Result(124, "", "no end within 10 s")
    run = Answers(top=[Result(0, "UID PID"), ended, lost, late, Result(1, "", DOWN)])
    assert [Engine(run).reaches("x") for _each in range(5)] == [True, True, False, False, False]
    assert run.asked[0] == ["top", "x"]


def test_removal_is_over_only_when_the_engine_lists_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matryoshka_runner.sweep.time.sleep", lambda _seconds: None)
    line = Result(0, "abc\tmatryoshka-ci-0123abcd\t0123abcd\trunning\n")
    busy = Result(1, "", "removal of container abc is already in progress")
    run = Answers(ps=[line, line, Result(0)], rm=[busy, Result(0)])
    assert sweep.containers(Engine(run), "ci") == 1
    assert [words[0] for words in run.asked] == ["ps", "rm", "ps", "rm", "ps"]
    with pytest.raises(
        EngineError, match=r"still lists matryoshka-ci-0123abcd after 20 removals: .*in progress"
    ):
        sweep.containers(Engine(Answers(ps=line, rm=busy)), "ci")


def arguments(paths: Paths, api: tuple[int, ...] = (1, 45), driver: str = "") -> list[str]:
    config = read(paths, "ci")
    files = HandedIn.write(paths.handed_in("ci"), config, "nft")
    return create_arguments(config, Environment.fresh(config), files, api, driver)


def test_an_environment_has_its_labels_limits_and_mounts(
    paths: Paths, content: dict[str, Any], write: Write
) -> None:
    write(content)
    words = arguments(paths)
    name = next(word for word in words if word.startswith("--name="))
    identity = name[-8:]
    assert name == f"--name=matryoshka-ci-{identity}"
    for word in (
        "--hostname=ci",
        "--label=matryoshka.runner=ci",
        f"--label=matryoshka.environment={identity}",
        "--restart=no",
        "--pull=never",
        "--privileged",
        "--cgroupns=private",
        "--cpus=1.5",
        "--memory=1073741824",
        "--memory-swap=1073741824",
        f"--volume={paths.lib}/runners/ci/data:/var/lib/docker",
        f"--volume={paths.handed_in('ci')}/daemon.json:/etc/docker/daemon.json:ro",
        "--volume=/srv/cache:/cache:ro",
    ):
        assert word in words
    assert not any(word.startswith("--pids-limit") for word in words)
    assert words[-1] == "matryoshka/environment-dind:0123456789ab"


@pytest.mark.parametrize(
    ("driver", "parent"),
    [("systemd", "matryoshka-ci.slice"), ("cgroupfs", "/matryoshka.slice/matryoshka-ci.slice")],
)
def test_a_slice_has_the_limits_in_the_environments_place(
    paths: Paths, content: dict[str, Any], write: Write, driver: str, parent: str
) -> None:
    content["limits"] = {"cpus": 1, "memory_bytes": 1 << 30, "pids": 10}
    write({**content, "slice": "matryoshka-ci.slice"})
    words = arguments(paths, driver=driver)
    assert f"--cgroup-parent={parent}" in words
    assert not [word for word in words if word.startswith(("--cpus", "--memory", "--pids-limit"))]
    write(content)
    words = arguments(paths, driver=driver)
    assert not any(word.startswith("--cgroup-parent") for word in words)
    assert "--pids-limit=10" in words


def test_environments_go_before_what_the_host_needs(
    paths: Paths, content: dict[str, Any], write: Write
) -> None:
    write(content)
    assert "--oom-score-adj=500" in arguments(paths)


def test_who_makes_control_groups_is_asked() -> None:
    assert Engine(Answers(info=Result(0, "systemd\n"))).cgroup_driver() == "systemd"


@pytest.mark.parametrize("out", ["", "half a {", "[]", "7"])
def test_a_state_that_isnt_one_is_an_error_with_words(out: str) -> None:
    with pytest.raises(EngineError, match="isn't the state of a container"):
        Engine(Answers(inspect=Result(0, out or "null"))).inspect("x")


def test_removal_ends_when_patience_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matryoshka_runner.sweep.time.sleep", lambda _seconds: None)
    run = Answers(
        ps=Result(0, "abc\tmatryoshka-ci-0123abcd\t0123abcd\trunning\n"),
        rm=Result(124, "", "no end within 0 s"),
    )
    with pytest.raises(EngineError, match="after 1 removals: docker rm: no end within 0 s"):
        sweep.containers(Engine(run), "ci", patience=0)


def test_variables_reach_the_environment_by_a_private_file_only(
    paths: Paths, content: dict[str, Any], write: Write
) -> None:
    content["environment_variables"] = {"TOKEN": "hunter2"}
    write(content)
    words = arguments(paths)
    file = paths.handed_in("ci") / "variables"
    assert f"--env-file={file}" in words
    assert not any("hunter2" in word for word in words)
    assert file.stat().st_mode & 0o777 == 0o600
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines == ["TOKEN=hunter2", "MATRYOSHKA_IPTABLES=nft", "MATRYOSHKA_RUNNER=ci"]


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
    assert "--cgroupns=private" not in arguments(paths, (1, 40))


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
    files = HandedIn.write(paths.handed_in("ci"), config, None, filesystem)
    assert ("MATRYOSHKA_BOUND=sys_resource" in files.variables.read_text().splitlines()) is bound
