# SPDX-License-Identifier: GPL-3.0-or-later
"""Packed modules bring bytecode, which their own Python takes and every other one leaves."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from ansible.executor import module_common

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "dev"))
import bytecode
from bytecode import COMPILE, Bytecode, on_host, precompile, with_bytecode
from machine import Failure


@pytest.fixture(autouse=True)
def nothing_is_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytecode, "likely", dict)


class Compiler:
    """Compiles with this Python, and counts."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, sources: Mapping[str, bytes]) -> dict[str, bytes]:
        self.asked.append(sorted(sources))
        given = json.dumps({name: base64.b64encode(text).decode() for name, text in sources.items()})
        done = subprocess.run(
            [sys.executable, "-I", "-c", COMPILE], input=given, capture_output=True, text=True, check=True
        )
        return {name: base64.b64decode(code) for name, code in json.loads(done.stdout).items()}


def archive(files: Mapping[str, str | bytes]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as target:
        for name, text in files.items():
            target.writestr(name, text)
    return whole.getvalue()


def taken(packed: bytes, folder: Path) -> str:
    """Which of a module's forms this Python takes, and what it says."""
    path = folder / "module.zip"
    path.write_bytes(packed)
    script = "import sys; sys.path.insert(0, sys.argv[1]); import one; print(one.__loader__.get_filename('one'), one.said)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip().removeprefix(f"{path}/")


def test_bytecode_lies_beside_its_source_and_is_taken(tmp_path: Path) -> None:
    plain = archive({"one.py": "said = 'yes'\n", "two/__init__.py": "", "data.txt": "text"})
    assert taken(plain, tmp_path) == "one.py yes"
    found = with_bytecode(plain, Bytecode(tmp_path, Compiler()))
    with zipfile.ZipFile(io.BytesIO(found)) as whole:
        assert whole.namelist() == ["one.py", "two/__init__.py", "data.txt", "one.pyc"]
    assert taken(found, tmp_path) == "one.pyc yes"


def test_another_python_takes_the_source(tmp_path: Path) -> None:
    def foreign(sources: Mapping[str, bytes]) -> dict[str, bytes]:
        return {name: b"\0\0" + code[2:] for name, code in Compiler()(sources).items()}

    found = with_bytecode(archive({"one.py": "said = 'yes'\n"}), Bytecode(tmp_path, foreign))
    assert taken(found, tmp_path) == "one.py yes"


def test_what_was_compiled_is_kept_and_what_changes_is_compiled(tmp_path: Path) -> None:
    compiler = Compiler()
    for said in ("yes", "yes", "no"):
        packed = archive({"one.py": f"said = {said!r}\n", "bad.py": "print 'two'\n"})
        assert taken(with_bytecode(packed, Bytecode(tmp_path, compiler)), tmp_path) == f"one.pyc {said}"
    assert compiler.asked == [["bad.py", "one.py"], ["one.py"]]


def test_without_a_host_s_image_a_module_stays_as_it_is(tmp_path: Path) -> None:
    packed = archive({"one.py": "said = 'yes'\n"})
    assert with_bytecode(packed, Bytecode(tmp_path, lambda sources: {})) == packed
    compiler = Compiler()
    assert with_bytecode(packed, Bytecode(tmp_path, compiler)) != packed
    assert compiler.asked == [["one.py"]]


@pytest.mark.parametrize("has_image", [True, False])
def test_ansible_keeps_a_module_as_soon_as_it_has_bytecode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_image: bool
) -> None:
    """One without would be what later runs find."""
    cached = module_common._CachedModule
    monkeypatch.setattr(cached, "dump", cached.dump)
    precompile(tmp_path, Compiler() if has_image else lambda sources: {})
    plain = archive({"one.py": "said = 'yes'\n"})
    module = cached(
        zip_data=base64.b64encode(plain),
        metadata=module_common.ModuleMetadataV1(serialization_profile="legacy"),
        source_mapping={},
    )
    module.dump(str(tmp_path / "kept"))
    assert (tmp_path / "kept").exists() is has_image
    assert (module.zip_data == base64.b64encode(plain)) is not has_image
    if has_image:
        kept = base64.b64decode(cached.load(str(tmp_path / "kept")).zip_data)
        assert taken(kept, tmp_path) == "one.pyc yes"


@pytest.mark.parametrize("fails", ["image_id", "run"])
def test_a_podman_that_fails_is_told_of_and_fails_no_play(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fails: str
) -> None:
    def failing(*_words: object, **_options: object) -> str:
        raise Failure("podman ended with 125")

    monkeypatch.setattr(bytecode, "image_id", lambda _reference: "0a1b2c")
    monkeypatch.setattr(bytecode, fails, failing)
    assert on_host({"one.py": b"said = 'yes'\n"}) == {}
    assert "without bytecode: podman ended with 125" in capsys.readouterr().err
