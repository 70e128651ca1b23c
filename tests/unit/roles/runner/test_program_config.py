# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration file: every wrong value is refused by file, key, value and what is allowed."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matryoshka_runner import agents
from matryoshka_runner.cli import main
from matryoshka_runner.config import read
from matryoshka_runner.errors import ConfigError
from matryoshka_runner.files import read_json
from matryoshka_runner.locks import FileLock
from matryoshka_runner.paths import Paths

Write = Callable[[dict[str, Any]], Path]


def test_a_right_configuration_is_read_whole(paths: Paths, content: dict[str, Any], write: Write) -> None:
    path = write(content)
    config = read(paths, "ci")
    assert config.persistent
    assert config.data == paths.lib / "runners" / "ci" / "data"
    assert config.limits.cpus == 1.5
    assert config.limits.memory_bytes == 1073741824
    assert config.limits.pids is None
    assert config.mounts == ("/srv/cache:/cache:ro",)
    assert config.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "world" not in repr(config)


def test_a_configuration_of_before_slices_and_log_limits_is_read(
    paths: Paths, content: dict[str, Any], write: Write
) -> None:
    write(content)
    config = read(paths, "ci")
    assert (config.slice, config.limits.log_bytes, config.limits.disk_bytes) == (None, None, None)
    write(
        {**content, "slice": "matryoshka-ci_1.slice", "limits": {"log_bytes": 1 << 20, "disk_bytes": 1 << 30}}
    )
    config = read(paths, "ci")
    assert config.slice == "matryoshka-ci_1.slice"
    assert (config.limits.log_bytes, config.limits.disk_bytes) == (1 << 20, 1 << 30)


WRONG = [
    (("schema",), 2, "schema: 2", "1"),
    (("name",), "-ci", "name: '-ci'", "a letter or digit first and last"),
    (("name",), "other", "name: 'other'", "the name of the file, ci"),
    (("cache",), "sometimes", "cache: 'sometimes'", "persistent | none"),
    (("directory",), "data", "directory: 'data'", "an absolute path"),
    (("directory",), "/var/../etc", "directory:", "an absolute path"),
    (("image",), "", "image: ''", "a text that isn't empty"),
    (("mode", "engine"), "podman", "mode.engine: 'podman'", "docker"),
    (("mode", "privileged"), "yes", "mode.privileged: 'yes'", "true | false"),
    (("mode",), "dind", "mode: 'dind'", "a mapping"),
    (("limits", "cpus"), 0, "limits.cpus: 0", "at least 0.01 CPUs"),
    (("limits", "memory_bytes"), "2G", "limits.memory_bytes: '2G'", "whole number"),
    (("limits", "memory_bytes"), 1024, "limits.memory_bytes: 1024", "at least 6.29146e+06 bytes"),
    (("limits", "pids"), True, "limits.pids: True", "at least 1 processes"),
    (
        ("limits", "disk"),
        1,
        "limits.disk: 1",
        "one of the keys cpus, disk_bytes, log_bytes, memory_bytes, pids",
    ),
    (("limits", "log_bytes"), 10, "limits.log_bytes: 10", "at least 1024 bytes"),
    (("slice",), "ci", "slice: 'ci'", "null or a slice's name such as matryoshka-ci.slice"),
    (("slice",), "a/../b.slice", "slice: 'a/../b.slice'", "a slice's name"),
    (("slice",), 7, "slice: 7", "a slice's name"),
    (("environment_variables", "A-B"), "x", "environment_variables.A-B", "letters, digits and _"),
    (("mounts",), ["cache:/cache"], "mounts: 'cache:/cache'", "/source:/target"),
    (("mounts",), "/a:/b", "mounts: '/a:/b'", "a list of texts"),
    (("ready_timeout",), 0, "ready_timeout: 0", "1 to 3600 seconds"),
    (("drain_timeout",), "1h", "drain_timeout: '1h'", "0 to 604800 seconds"),
    (("agent", "name"), "jenkins", "agent.name: 'jenkins'", "local | command"),
    (("agent", "queue"), "here", "agent.queue: 'here'", "an absolute path"),
    (("agent", "token"), "x", "agent.token: 'x'", "one of the keys name, queue"),
    (("agent",), {"name": "command", "command": []}, "agent.command: []", "the program and its arguments"),
    (("agent",), {"name": "command", "command": "make"}, "agent.command: 'make'", "a list of texts"),
    (("colour",), "red", "colour: 'red'", "one of the keys"),
]


@pytest.mark.parametrize(("keys", "value", "names", "allowed"), WRONG)
def test_a_wrong_value_is_refused_by_name(
    paths: Paths,
    content: dict[str, Any],
    write: Write,
    keys: tuple[str, ...],
    value: object,
    names: str,
    allowed: str,
) -> None:
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path = write(content)
    with pytest.raises(ConfigError) as caught:
        agents.make(read(paths, "ci"), paths)
    message = str(caught.value)
    assert message.startswith(f"{path}: {names}")
    assert allowed in message.split("allowed:")[1]


def test_the_value_of_a_variable_is_never_shown(paths: Paths, content: dict[str, Any], write: Write) -> None:
    content["environment_variables"]["TOKEN"] = "two\nlines"
    write(content)
    with pytest.raises(ConfigError, match=r"environment_variables.TOKEN: '\(not shown\)'"):
        read(paths, "ci")


@pytest.mark.parametrize("key", ["schema", "name", "mode", "image", "directory", "cache", "agent"])
def test_a_missing_key_is_named(paths: Paths, content: dict[str, Any], write: Write, key: str) -> None:
    del content[key]
    write(content)
    with pytest.raises(ConfigError, match=rf"{key}: None is refused.*the key is missing"):
        read(paths, "ci")


def test_an_unknown_runner_is_refused_with_those_there_are(
    paths: Paths, content: dict[str, Any], write: Write
) -> None:
    write(content)
    with pytest.raises(ConfigError, match="one of the host's runners: ci"):
        read(paths, "cu")


def test_what_isnt_json_is_refused(paths: Paths) -> None:
    paths.config("ci").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="one JSON mapping"):
        read(paths, "ci")


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1, "name": "c', "[]", "null"])
def test_a_half_written_configuration_is_told_in_the_state(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("os.umask", lambda _mask: 0)
    paths.config("ci").write_text(text, encoding="utf-8")
    assert main(["run", "ci"], paths) == 65
    assert f"matryoshka run: {paths.config('ci')}: file: " in capsys.readouterr().err
    state = read_json(paths.state("ci"))
    assert state["state"] == "failed"
    assert "allowed: " in state["error"]
    assert main(["run", "nobody"], paths) == 65
    assert not paths.state("nobody").exists()


def test_a_disk_that_is_gone_is_told_in_one_line(
    paths: Paths,
    content: dict[str, Any],
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(content)
    read(paths, "ci").directory.mkdir(parents=True)

    def gone(lock: FileLock, _why: str = "") -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(lock.path))

    monkeypatch.setattr(FileLock, "acquire", gone)
    assert main(["cleanup", "ci"], paths) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].endswith(
        "lock: Input/output error; its disk doesn't do what it is told: see dmesg"
    )
