# SPDX-License-Identifier: GPL-3.0-or-later
"""Several modules asked at once what they would change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _pending
from ansible_collections.matryoshka.host.plugins.module_utils._command import pipe, run
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError


def file_call(path: Path, content: str = "a\n", **more: Any) -> dict[str, Any]:
    return {
        "module": "matryoshka.host.config_files",
        "arguments": {"files": [{"path": str(path), "content": content, **more}]},
    }


def ask(*calls: dict[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
    return _pending.ask(calls, run, pipe)


def test_what_is_there_is_not_pending(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a\n")
    path.chmod(0o644)
    results, pending = ask(file_call(path))
    assert pending is None
    assert results[0]["changed"] is False and results[0]["changed_paths"] == []


def test_what_would_change_is_named_and_not_done(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a\n")
    path.chmod(0o644)
    results, pending = ask(file_call(path), file_call(path, "b\n"))
    assert pending == "config_files: would change"
    assert [result["changed"] for result in results] == [False, True]
    assert path.read_text() == "a\n"


def test_what_would_fail_is_named(tmp_path: Path) -> None:
    results, pending = ask(file_call(Path("relative")))
    assert results == []
    assert pending is not None and pending.startswith("config_files: ") and "relative" in pending


def test_an_owner_that_is_missing_is_pending(tmp_path: Path) -> None:
    """A module's own check mode lets this pass; an answer for later tasks must not."""
    path = tmp_path / "file"
    path.write_text("a\n")
    assert ask(file_call(path, owner="nobody-of-that-name"))[1] is not None


def test_arguments_are_checked_like_a_tasks() -> None:
    call = {"module": "systemd_units", "arguments": {"owner": "me", "units": [{"nam": "a.service"}]}}
    assert "nam. Supported" in str(ask(call)[1])
    call = {"module": "environment_image", "arguments": {}}
    assert "recipe" in str(ask(call)[1])


def test_a_daemons_configuration_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text('{\n  "debug": true\n}\n')

    def call(value: bool) -> dict[str, Any]:
        arguments = {"path": str(path), "config": {"debug": value}, "validate": False}
        return {"module": "daemon_config", "arguments": arguments}

    assert ask(call(True))[1] is None
    assert ask(call(False))[1] == "daemon_config: would change"
    assert path.read_text() == '{\n  "debug": true\n}\n'


def test_another_module_is_refused() -> None:
    with pytest.raises(InputError, match=r"calls\[0\]\.module: 'command' is refused.*config_files"):
        _pending.ask([{"module": "command", "arguments": {}}], run, pipe)


def test_secrets_are_found(tmp_path: Path) -> None:
    calls = [file_call(tmp_path / "a", "open"), file_call(tmp_path / "b", "hidden", secret=True)]
    calls.append({"module": "systemd_units", "arguments": {}})
    assert _pending.secrets(calls) == {"hidden"}


def test_what_comes_after_a_change_is_not_asked(tmp_path: Path) -> None:
    results, pending = ask(file_call(tmp_path / "new"), file_call(Path("relative")))
    assert (len(results), pending) == (1, "config_files: would change")


def test_a_finding_of_verify_is_pending() -> None:
    finding = {"subject": "runner ci", "text": "it is down", "code": "runner_down", "remedy": "start it"}
    with pytest.raises(HostError, match=r"^runner ci: it is down$"):
        _pending.healthy({"passed": False, "findings": [finding]})
    assert _pending.healthy({"passed": True, "findings": []}) == {
        "changed": False,
        "passed": True,
        "findings": [],
    }
