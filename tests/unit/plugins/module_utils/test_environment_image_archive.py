# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that were made elsewhere: what an archive has to hold before the engine is asked to load it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _environment_image_archive as archive
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._environment_image import Reference
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError

WANTED = Reference("matryoshka/environment-dind:0123456789ab", "0123456789ab" + "0" * 52, None)


def saved(path: Path, names: Sequence[str] | None, mode: str = "w") -> Path:
    text = json.dumps([{"Config": "c.json", "RepoTags": names, "Layers": []}]).encode()
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    return path


class Docker:
    """A dummy engine that loads anything, or ends with what it is given."""

    def __init__(self, end: Result | None = None) -> None:
        self.end = end or Result(0, "Loaded image\n")
        self.calls: list[list[str]] = []

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        self.calls.append(list(argv))
        return self.end


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_the_names_of_an_archive(tmp_path: Path, mode: str) -> None:
    assert archive.names_in(str(saved(tmp_path / "a", ["x:1", "y:2"], mode))) == ["x:1", "y:2"]


def test_images_without_a_name(tmp_path: Path) -> None:
    assert archive.names_in(str(saved(tmp_path / "a", None))) == []


def test_the_recipe_s_image_is_loaded(tmp_path: Path) -> None:
    docker, path = Docker(), str(saved(tmp_path / "a", ["other:1", WANTED.reference]))
    assert "Loaded" in archive.load(docker, path, WANTED)
    assert docker.calls == [["docker", "load", "--input", path]]


@pytest.mark.parametrize(("names", "has"), [(["other:1"], "other:1"), ([], "no image with a name")])
def test_another_image_is_refused_and_nothing_is_loaded(tmp_path: Path, names: list[str], has: str) -> None:
    docker, path = Docker(), str(saved(tmp_path / "a", names))
    with pytest.raises(InputError) as refused:
        archive.load(docker, path, WANTED)
    for words in ("archive", path, has, WANTED.reference):
        assert words in str(refused.value)
    assert docker.calls == []


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"\x1f\x8b cut off"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="docker save"):
        archive.names_in(str(path))


def test_an_archive_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a", "w"):
        pass
    with pytest.raises(InputError, match="docker save"):
        archive.names_in(str(tmp_path / "a"))


def test_what_the_engine_says_of_a_failure_is_told(tmp_path: Path) -> None:
    path = str(saved(tmp_path / "a", [WANTED.reference]))
    with pytest.raises(HostError, match="no space left on device"):
        archive.load(Docker(Result(1, "", "no space left on device\n")), path, WANTED)
