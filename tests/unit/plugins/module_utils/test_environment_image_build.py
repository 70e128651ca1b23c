# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of the engine and of mmdebstrap, and what is left when they fail."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _environment_image as image
from ansible_collections.matryoshka.host.plugins.module_utils import _environment_image_build as build
from ansible_collections.matryoshka.host.plugins.module_utils._apt_sources import Source
from ansible_collections.matryoshka.host.plugins.module_utils._command import CommandError, Result
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from support.recipes import DIGEST, recipe

OLD = "matryoshka/environment-dind:0123456789ab"


@dataclass
class Engine:
    """A dummy engine: images by name, containers by the image they were made from."""

    images: dict[str, str] = field(default_factory=dict)
    containers: dict[str, str] = field(default_factory=dict)
    made: Result = field(default_factory=lambda: Result(0, "", "I: success\n"))
    taken: Result = field(default_factory=lambda: Result(0, "sha256:base\n"))
    built: Result = field(default_factory=lambda: Result(0, "Successfully built\n"))
    answers: bool = True
    there: bool = True
    label: str = ""
    calls: list[list[str]] = field(default_factory=list)
    context: dict[str, str] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        argv = list(argv)
        self.calls.append(argv)
        result = self._answer(argv)
        if check and not result.ok:
            raise CommandError(argv, result)
        return result

    def _answer(self, argv: list[str]) -> Result:
        if argv[0] == "rm":
            os.system(f"rm -rf {argv[-1]}")
            return Result(0)
        if not self.there:
            return Result(127, "", "docker: not found")
        if not self.answers:
            return Result(1, "", "Cannot connect to the Docker daemon")
        if argv[:2] == ["docker", "images"]:
            rows = [
                {"ID": i, "Repository": n.split(":")[0], "Tag": n.split(":")[1]}
                for n, i in self.images.items()
            ]
            return Result(0, "".join(json.dumps(row) + "\n" for row in rows))
        if argv[:2] == ["docker", "ps"]:
            return Result(0, "".join(f"{name}\t{c}\n" for c, name in self.containers.items()))
        if argv[:2] == ["docker", "tag"]:
            self.images[argv[3]] = argv[2]
            return Result(0)
        if argv[:3] == ["docker", "image", "rm"]:
            if argv[3] in self.containers.values():
                return Result(1, "", f"conflict: {argv[3]} is being used")
            self.images.pop(argv[3], None)
            return Result(0)
        if argv[:3] == ["docker", "image", "inspect"]:
            return Result(0, "4711" if "Size" in argv[4] else self.label)
        assert argv[2:4] == ["docker", "build"]
        root = Path(argv[-1])
        for path in root.rglob("*"):
            self.modes[str(path.relative_to(root))] = path.stat().st_mode & 0o777
            if path.is_file():
                self.context[str(path.relative_to(root))] = path.read_text()
        if self.built.ok:
            self.images[argv[5]] = "sha256:new"
        return self.built

    def pipe(
        self, source: Sequence[str], sink: Sequence[str], *, timeout: float = 600.0, log: str | None = None
    ) -> tuple[Result, Result]:
        self.calls += [list(source), list(sink)]
        if log:
            with open(log, "a", encoding="utf-8") as file:
                file.write(self.made.err)
        return self.made, self.taken

    def verbs(self) -> list[str]:
        words = ("images", "ps", "tag", "build", "import", "rm", "mmdebstrap")
        return [
            next(word for word in words if word in argv)
            for argv in self.calls
            if argv[0] != "rm" and "inspect" not in argv
        ]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(build, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(build, "DEFAULT_SOURCES", list)
    (tmp_path / "work").mkdir()
    return {
        "state": "present",
        "recipe": recipe(),
        "build_directory": str(tmp_path / "work"),
        "log": str(tmp_path / "log" / "image.log"),
        "timeout": 60,
        "archive": "",
    }


def names(**changes: Any) -> image.Reference:
    return image.reference(image.parse_recipe(recipe(**changes)))


def apply(engine: Engine, params: dict[str, Any], check: bool = False) -> dict[str, Any]:
    return build.apply(params, check, engine.run, engine.pipe)


def test_a_fresh_host(params: dict[str, Any]) -> None:
    engine = Engine(label=names().sha256)
    result = apply(engine, params)
    assert (result["changed"], result["built"], result["size"]) == (True, True, 4711)
    assert (result["reference"], result["sha256"]) == (names().reference, names().sha256)
    assert set(engine.images) == {names().reference, names().base_reference}
    assert engine.context["files/usr/local/sbin/environment-start"] == "#!/bin/sh\n"
    assert engine.modes["files/usr/local/sbin/environment-start"] == 0o755
    assert engine.context["Dockerfile"].startswith(f"FROM {names().base_reference}\n")
    assert list(Path(params["build_directory"]).iterdir()) == []
    assert Path(params["log"]).stat().st_mode & 0o777 == 0o600
    assert "I: success" in Path(params["log"]).read_text()


def test_the_second_run_asks_once(params: dict[str, Any]) -> None:
    engine = Engine({names().reference: "sha256:new", str(names().base_reference): "sha256:base"})
    result = apply(engine, params)
    assert (result["changed"], result["built"]) == (False, False)
    assert result["diff"]["before"] == result["diff"]["after"]
    assert len(engine.calls) == 1


@pytest.mark.parametrize("state", ["present", "absent"])
def test_what_a_killed_build_left_goes_though_nothing_is_built(params: dict[str, Any], state: str) -> None:
    engine = Engine({names().reference: "sha256:new", str(names().base_reference): "sha256:base"})
    folder = Path(params["build_directory"])
    (folder / "matryoshka-image-dead" / "root").mkdir(parents=True)
    (folder / "other").mkdir()
    params["state"] = state
    apply(engine, params, check=True)
    assert len(list(folder.iterdir())) == 2
    result = apply(engine, params)
    assert [path.name for path in folder.iterdir()] == ["other"]
    assert result["changed"] is (state == "absent")


def test_the_folder_of_a_build_that_is_under_way_stays(params: dict[str, Any], tmp_path: Path) -> None:
    engine = Engine({names().reference: "sha256:new", str(names().base_reference): "sha256:base"})
    under_way = Path(params["build_directory"]) / "matryoshka-image-live"
    under_way.mkdir()
    with open(tmp_path / "lock", "a", encoding="ascii") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        apply(engine, params)
    assert under_way.is_dir()
    apply(engine, params)
    assert not under_way.exists()


def test_new_files_are_put_on_the_base_that_is_there(params: dict[str, Any]) -> None:
    engine = Engine({OLD: "sha256:old", str(names().base_reference): "sha256:base"}, label=names().sha256)
    result = apply(engine, params)
    assert result["removed"] == [OLD]
    assert engine.verbs() == ["images", "ps", "images", "ps", "build", "rm"]
    assert OLD not in engine.images


def test_an_old_image_in_use_stays(params: dict[str, Any]) -> None:
    engine = Engine({names().reference: "sha256:new", OLD: "sha256:old"}, {"matryoshka-ci-1": OLD})
    result = apply(engine, params)
    assert (result["changed"], result["kept"], result["removed"]) == (False, [OLD], [])
    assert engine.verbs() == ["images", "ps"]


@pytest.mark.parametrize("engine", [Engine(there=False), Engine(answers=False), Engine()])
def test_check_mode_on_a_fresh_host(engine: Engine, params: dict[str, Any]) -> None:
    result = apply(engine, params, check=True)
    assert (result["changed"], result["built"]) == (True, True)
    assert names().reference in result["diff"]["after"]
    assert not Path(params["log"]).exists()
    assert engine.verbs() == ["images"]


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (Engine(there=False), "docker: not found"),
        (Engine(answers=False), "Cannot connect to the Docker daemon"),
    ],
)
def test_no_engine(engine: Engine, message: str, params: dict[str, Any]) -> None:
    with pytest.raises(HostError, match=message):
        apply(engine, params)


NO_RELEASE = Result(25, "", "\n".join(f"line {n}" for n in range(40)) + "\nE: no Release file\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"made": NO_RELEASE}, "mmdebstrap of trixie ended with 25"),
        (
            {"made": NO_RELEASE, "taken": Result(1, "", "unexpected EOF")},
            "mmdebstrap of trixie ended with 25",
        ),
        ({"made": Result(127, "", "mmdebstrap: not found"), "taken": Result(0)}, "mmdebstrap: not found"),
        ({"taken": Result(1, "", "no space left on device")}, "docker import ended with 1"),
        (
            {"made": Result(-13), "taken": Result(1, "", "no space left on device")},
            "docker import ended with 1",
        ),
        ({"built": Result(1, "", "COPY failed")}, "COPY failed"),
        ({"label": "another"}, "the engine has another image of that name"),
    ],
)
def test_a_failed_build_says_why_and_leaves_nothing(
    changes: dict[str, Any], message: str, params: dict[str, Any]
) -> None:
    engine = Engine(**{"label": names().sha256, **changes})
    with pytest.raises(HostError, match=message) as caught:
        apply(engine, params)
    if "another" not in message:
        assert params["log"] in str(caught.value)
        assert names().reference not in engine.images
    assert len(str(caught.value).splitlines()) <= build.LAST_LINES + 1
    assert list(Path(params["build_directory"]).iterdir()) == []


def test_an_import_of_half_a_base_is_taken_back(params: dict[str, Any]) -> None:
    engine = Engine(made=NO_RELEASE)
    with pytest.raises(HostError):
        apply(engine, params)
    assert ["docker", "image", "rm", "sha256:base"] in engine.calls
    assert names().base_reference not in engine.images


def test_what_a_killed_build_left_is_removed(params: dict[str, Any]) -> None:
    left = Path(params["build_directory"]) / "matryoshka-image-killed" / "root"
    left.mkdir(parents=True)
    apply(Engine(label=names().sha256), params)
    assert list(Path(params["build_directory"]).iterdir()) == []


def test_a_build_directory_that_is_not_there(params: dict[str, Any]) -> None:
    params["build_directory"] = "/nonexistent/folder"
    with pytest.raises(HostError, match="build_directory /nonexistent/folder"):
        apply(Engine(), params)


def test_another_build_is_waited_for(params: dict[str, Any]) -> None:
    with open(build.LOCK, "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        params["timeout"] = 0
        engine = Engine()
        with pytest.raises(HostError, match="another build holds"):
            apply(engine, params)
    assert engine.verbs() == ["images"]


def test_a_registrys_base_needs_no_mmdebstrap(params: dict[str, Any]) -> None:
    changes = {"base": f"debian@{DIGEST}", "mirror": "http://m.example/debian", "preferences": []}
    params["recipe"] = recipe(**changes)
    engine = Engine(label=names(**changes).sha256)
    apply(engine, params)
    assert engine.verbs() == ["images", "images", "build"]
    assert engine.context["policy/etc/apt/sources.list"].startswith(
        "deb http://m.example/debian trixie main\n"
    )
    assert "Install-Recommends" in engine.context["policy/etc/apt/apt.conf.d/99matryoshka"]


def test_the_command_line_of_mmdebstrap() -> None:
    parsed = image.parse_recipe(recipe(preferences=[{"package": "a", "pin": "version 1", "priority": 1}]))
    argv = build.mmdebstrap_command(parsed, [Source("http://m", "trixie", ("main",))], "/d", "/d e/p")
    together = len(build.TOGETHER)
    assert argv[:together] == list(build.TOGETHER)
    assert argv[together : together + 3] == ["env", "TMPDIR=/d", "mmdebstrap"]
    assert argv[-3:] == ["trixie", "-", "deb http://m trixie main"]
    assert "--include=curl,docker.io" in argv
    assert any(word.startswith("--setup-hook=") and "'/d e/p'" in word for word in argv)


@pytest.mark.parametrize("there", [True, False])
def test_absent(there: bool, params: dict[str, Any]) -> None:
    engine = Engine({OLD: "sha256:old", names().reference: "sha256:new"}, there=there)
    params["state"] = "absent"
    assert apply(engine, params, check=True)["changed"] is there
    result = apply(engine, params)
    assert result["changed"] is there
    assert (engine.images == {}) is there


def test_absent_with_an_image_in_use(params: dict[str, Any]) -> None:
    engine = Engine({OLD: "sha256:old"}, {"matryoshka-ci-1": OLD})
    params["state"] = "absent"
    with pytest.raises(HostError, match=f"still use {OLD}"):
        apply(engine, params)
    assert OLD in engine.images


def test_absent_with_an_engine_that_is_down(params: dict[str, Any]) -> None:
    params["state"] = "absent"
    with pytest.raises(HostError, match="Cannot connect"):
        apply(Engine(answers=False), params)


def test_left_is_never_nothing() -> None:
    engine = Engine()
    builder = build.Builder(engine.run, engine.pipe, "/", "/l", "/k", time.monotonic() - 5, "", list)
    assert builder.left() == 1.0
