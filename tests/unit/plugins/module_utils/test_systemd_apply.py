# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _systemd_apply as apply
from ansible_collections.matryoshka.host.plugins.module_utils import _systemd_scan as scan
from ansible_collections.matryoshka.host.plugins.module_utils._command import CommandError, Result
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_plan import Present, plan_units
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_wanted import parse_wanted

TEXT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"


class Systemctl:
    """Records what is started; ``answers`` maps a verb to what it ends with."""

    def __init__(self, **answers: Result) -> None:
        self.calls: list[list[str]] = []
        self.answers = answers

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        self.calls.append(list(argv))
        result = self.answers.get(argv[1], Result(0))
        if check and not result.ok:
            raise CommandError(argv, result)
        return result

    @property
    def verbs(self) -> list[str]:
        return [call[1] for call in self.calls]


def carry_out(
    tmp_path: Path, run: Systemctl, units: list[dict[str, Any]], present: Present, **more: Any
) -> list[str]:
    units_here, state = str(tmp_path / "system"), str(tmp_path / "state")
    plan = plan_units(
        parse_wanted("runner", units), present, owner="runner", directory=units_here, orphans=True
    )
    return apply.apply_plan(
        run, plan, present, owner="runner", directory=units_here, state_directory=state, **more
    )


def template(count: int, **more: Any) -> dict[str, Any]:
    names = [str(number) for number in range(count)]
    return {
        "name": "r@.service",
        "content": TEXT,
        "instances": names,
        "state": "started",
        "enabled": True,
        **more,
    }


@pytest.mark.parametrize("count", [1, 50])
def test_processes_do_not_grow_with_units(tmp_path: Path, count: int) -> None:
    run = Systemctl()
    carry_out(tmp_path, run, [template(count, triggers="x")], Present())
    assert run.verbs == ["enable", "daemon-reload", "start"]
    assert run.calls[0][2:4] == ["--no-reload", "--"]
    assert len(run.calls[2]) == 3 + count
    assert (tmp_path / "system/r@.service").read_text() == "# Managed by matryoshka.host: runner\n" + TEXT
    assert (tmp_path / "system/r@.service").stat().st_mode & 0o777 == 0o644
    memory = scan.read_memory(str(tmp_path / "state"), "runner")
    assert len(memory["applied"]) == count
    assert memory["pending"] == {}
    assert (tmp_path / "state/runner.json").stat().st_mode & 0o777 == 0o600


def test_without_waiting(tmp_path: Path) -> None:
    run = Systemctl()
    carry_out(tmp_path, run, [template(1)], Present(), wait=False)
    assert run.calls[-1][:3] == ["systemctl", "start", "--no-block"]


def up(name: str) -> Any:
    from ansible_collections.matryoshka.host.plugins.module_utils._systemd import UnitState

    return UnitState(name, "loaded", "active", "running", "enabled")


def test_a_failed_restart_is_owed_to_the_next_run(tmp_path: Path) -> None:
    run = Systemctl(restart=Result(1, "", "Job for a.service failed.\n"))
    unit = {"name": "a.service", "content": TEXT, "triggers": "new"}
    present = Present(
        {"a.service": up("a.service")},
        {f"{tmp_path}/system/a.service": "# Managed by matryoshka.host: runner\n[Service]\nA=1\n"},
    )
    with pytest.raises(HostError, match=r"systemctl restart a.service: Job for a.service failed"):
        carry_out(tmp_path, run, [unit], present)
    memory = scan.read_memory(str(tmp_path / "state"), "runner")
    assert memory == {"applied": {}, "pending": {"a.service": "restart"}}


def test_a_unit_that_went_down_meanwhile_needs_no_reload(tmp_path: Path) -> None:
    run = Systemctl(reload=Result(1, "", "r@0.service is not active, cannot reload.\n"))
    carry_out(
        tmp_path,
        run,
        [template(1, on_change="none", on_trigger="reload", triggers="new")],
        Present({"r@0.service": up("r@0.service")}),
    )
    assert "r@0.service" in scan.read_memory(str(tmp_path / "state"), "runner")["applied"]


def test_a_foreign_file_is_copied_first(tmp_path: Path) -> None:
    (tmp_path / "system").mkdir()
    (tmp_path / "system/a.service").write_text("theirs")
    unit = {"name": "a.service", "content": TEXT}
    (copy,) = carry_out(
        tmp_path, Systemctl(), [unit], Present(files={f"{tmp_path}/system/a.service": "theirs"})
    )
    assert Path(copy).read_text() == "theirs"
    assert copy.endswith("~")


def test_removal_leaves_no_empty_folder(tmp_path: Path) -> None:
    folder = tmp_path / "system/a.service.d"
    folder.mkdir(parents=True)
    (folder / "x.conf").write_text("# Managed by matryoshka.host: runner\n[Service]\nA=1\n")
    (tmp_path / "state").mkdir()
    (tmp_path / "state/runner.json").write_text('{"applied": {"a.service": "x"}, "pending": {}}')
    present = Present(files=scan.scan_files(str(tmp_path / "system")), applied={"a.service": "x"})
    carry_out(tmp_path, Systemctl(), [], present)
    assert not folder.exists()
    assert (tmp_path / "system").exists()
    assert not (tmp_path / "state").exists()


def test_scan(tmp_path: Path) -> None:
    (tmp_path / "a.service").write_text("a")
    (tmp_path / "a.service.bak").write_text("no unit")
    (tmp_path / "masked.service").symlink_to("/dev/null")
    (tmp_path / "a.service.d").mkdir()
    (tmp_path / "a.service.d/x.conf").write_text("x")
    (tmp_path / "a.service.d/x.conf~").write_text("no drop-in")
    assert scan.scan_files(str(tmp_path)) == {
        f"{tmp_path}/a.service": "a",
        f"{tmp_path}/a.service.d/x.conf": "x",
    }
    assert scan.scan_files(str(tmp_path / "absent")) == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"applied": 1, "pending": {}}'])
def test_a_damaged_memory_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "runner.json").write_text(text)
    with pytest.raises(HostError, match=r"runner.json is damaged .* remove it"):
        scan.read_memory(str(tmp_path), "runner")


def test_memory_comes_back(tmp_path: Path) -> None:
    folder = str(tmp_path / "units")
    assert scan.read_memory(folder, "runner") == {"applied": {}, "pending": {}}
    apply.keep_memory(folder, "runner", {"a.service": "1"}, {"a.service": "reload"})
    assert scan.read_memory(folder, "runner") == {
        "applied": {"a.service": "1"},
        "pending": {"a.service": "reload"},
    }
    assert json.loads((tmp_path / "units/runner.json").read_text())["schema"] == 1


# What systemd-analyze 257 says, the scratch folder being /tmp/v.
VERDICTS = [
    (
        "/tmp/v/b.service:2: Unknown key 'Foo' in section [Service], ignoring.",
        "/d/b.service:2: Unknown key 'Foo'",
    ),
    ("b.service: Service has no ExecStart=, ExecStop=, or SuccessAction=. Refusing.", "no ExecStart="),
    ("t@i.service: Service has no ExecStart=, ExecStop=, or SuccessAction=. Refusing.", "no ExecStart="),
    ("/tmp/v/b.service.d/x.conf:2: Failed to parse LimitNOFILE=zork, ignoring", "/d/b.service.d/x.conf:2"),
]


@pytest.mark.parametrize(("line", "words"), VERDICTS)
def test_verdicts_on_our_texts_refuse_them(line: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        apply.raise_verdict(f"noise\n{line}\n", "/tmp/v", "/d", ["b.service", "t@.service"])
    assert words in str(error.value)


@pytest.mark.parametrize(
    "line",
    [
        "b.service: Command /usr/local/sbin/matryoshka is not executable: No such file or directory",
        "/usr/lib/systemd/system/x.service:9: Unknown key 'Foo' in section [Service], ignoring.",
        "other.service: Service has no ExecStart=, ExecStop=, or SuccessAction=. Refusing.",
        "Unit docker.service not found.",
    ],
)
def test_verdicts_on_others_do_not_count(line: str) -> None:
    apply.raise_verdict(line, "/tmp/v", "/d", ["b.service"])


def test_only_changed_texts_are_verified() -> None:
    run = Systemctl()
    apply.verify_texts(run, {}, "/d")
    assert not run.calls
    apply.verify_texts(run, {"/d/a.service.d/x.conf": "[Service]\n", "/d/b@.service": TEXT}, "/d")
    (call,) = run.calls
    assert call[0] == "env"
    assert call[2:] == ["systemd-analyze", "verify", "--man=no", "a.service", "b@.service"]
