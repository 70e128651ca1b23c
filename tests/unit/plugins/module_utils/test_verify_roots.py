# SPDX-License-Identifier: GPL-3.0-or-later
"""Data roots as they were looked at: strangers that hold or see them, mounts and quotas, become findings."""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _data_root_info
from ansible_collections.matryoshka.host.plugins.module_utils import _verify_roots as roots
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import EngineView, Expect
from support.verify_host import Host

Change = Callable[[Host], Any]


def root(host: Host, runner: str | None) -> dict[str, Any]:
    return next(one for one in host.seen.roots if one["runner"] == runner)


def holder(**values: Any) -> dict[str, Any]:
    """A process of the host's that holds a root."""
    return {
        "name": "host",
        "container": None,
        "inside": [],
        "processes": [{"pid": 4711, "name": "flock"}],
        "unit": "somebody.service",
        "files": ["volumes/metadata.db"],
        "locks": True,
        **values,
    }


def sight(**values: Any) -> dict[str, Any]:
    """A container that has a root mounted."""
    return {
        "name": "spy",
        "container": "5" * 64,
        "inside": [],
        "pid": 4711,
        "path": "/data",
        "mount_point": "/data",
        "part": None,
        "read_only": False,
        "engines": [],
        "foreign": True,
        **values,
    }


def reason(code: str) -> dict[str, Any]:
    return {"code": code, "severity": "broken", "text": f"what {code} says", "remedy": "what to do"}


def environment_id(host: Host) -> str:
    owner = root(host, "ci")["owner"]
    return str(owner["container"])


STOPPED = {"Id": "x", "Names": ["/spy"], "State": "created"}

# (what is changed, the codes that are found, words of the texts)
CASES: dict[str, tuple[Change, set[str], str]] = {
    "the engine's root held by a program": (
        lambda host: root(host, None)["holders"].append(holder()),
        {"data_root_held"},
        "engine docker: another process holds its data root /var/lib/docker: flock (pid 4711) of somebody.service",
    ),
    "the engine's root held by a second daemon of the host": (
        lambda host: root(host, None)["holders"].append(
            holder(processes=[{"pid": 4711, "name": "dockerd"}], unit="", locks=False)
        ),
        {"data_root_held"},
        "dockerd (pid 4711) of the host, which waits for the lock",
    ),
    "the engine's root held in a container": (
        lambda host: root(host, None)["holders"].append(holder(name="spy", container="5" * 64, unit="")),
        {"data_root_held"},
        "flock (pid 4711) in container spy",
    ),
    "the engine by its main process": (
        lambda host: root(host, None)["holders"][0].update(unit="run-u1.scope"),
        set(),
        "",
    ),
    "a runner's root held by a program": (
        lambda host: root(host, "ci")["holders"].append(holder()),
        {"data_root_held"},
        "runner ci: its data root is held by flock (pid 4711) of somebody.service, which isn't in its environment",
    ),
    "a runner's root held in its own job": (
        lambda host: root(host, "ci")["holders"].append(
            holder(name="build", container="6" * 64, inside=[environment_id(host)])
        ),
        set(),
        "",
    ),
    "a runner's root held while its environment is gone": (
        lambda host: (
            root(host, "ci").update(holder="matryoshka-ci", owner=None, seen_by=[], holders=[holder()]),
        ),
        {"data_root_held"},
        "which isn't in its environment",
    ),
    "a runner's root while the engine is silent": (
        lambda host: (
            setattr(host.seen, "engine", EngineView(error="no answer within 5 s")),
            root(host, "ci")["holders"].append(holder()),
            root(host, "ci")["seen_by"].append(sight()),
        ),
        {"engine_silent"},
        "no answer",
    ),
    "a container with the engine's root": (
        lambda host: root(host, None)["seen_by"].append(sight()),
        {"data_root_shared"},
        "engine docker: the container spy mounts /var/lib/docker, where its data is, for writing (on /data)",
    ),
    "a container with part of a runner's root": (
        lambda host: root(host, "ci")["seen_by"].append(sight(part="image")),
        {"data_root_shared"},
        "the container spy mounts /var/lib/matryoshka/runners/ci/data/image, where its data is",
    ),
    "a daemon in a container with a runner's root": (
        lambda host: root(host, "ci")["seen_by"].append(sight(engines=["dockerd", "containerd"])),
        {"data_root_shared"},
        "(on /data); dockerd and containerd runs in it",
    ),
    "twice in one container": (
        lambda host: root(host, "ci")["seen_by"].extend([sight(), sight(path="/other")]),
        {"data_root_shared"},
        "(on /data)",
    ),
    "a container that only reads": (
        lambda host: root(host, None)["seen_by"].append(sight(read_only=True)),
        set(),
        "",
    ),
    "a container of the job": (
        lambda host: root(host, "ci")["seen_by"].append(sight(inside=[environment_id(host)])),
        set(),
        "",
    ),
    "a stopped container": (
        lambda host: host.seen.containers.append(
            {**STOPPED, "Mounts": [{"Source": "/var/lib/matryoshka", "RW": True}]}
        ),
        {"data_root_shared"},
        "runner ci: the stopped container spy mounts /var/lib/matryoshka, where its data is",
    ),
    "a stopped container that would only read": (
        lambda host: host.seen.containers.append({**STOPPED, "Mounts": [{"Source": "/", "RW": False}]}),
        set(),
        "",
    ),
    "a stopped container with a volume of the engine's": (
        lambda host: host.seen.containers.append(
            {**STOPPED, "Mounts": [{"Source": "/var/lib/docker/volumes/x/_data", "RW": True}]}
        ),
        set(),
        "",
    ),
    "an environment that doesn't run is told of as such": (
        lambda host: host.seen.containers.append(
            {
                **STOPPED,
                "Labels": {"matryoshka.runner": "ci"},
                "Mounts": [{"Source": "/var/lib/matryoshka/runners/ci/data", "RW": True}],
            }
        ),
        set(),
        "",
    ),
    "a container that runs is seen in the kernel": (
        lambda host: host.seen.containers.append(
            {**STOPPED, "State": "running", "Mounts": [{"Source": "/", "RW": True}]}
        ),
        set(),
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_thing_changed_is_named(case: str) -> None:
    change, codes, words = CASES[case]
    host = Host()
    change(host)
    findings = host.report().findings
    told = "\n".join(f"{one.subject}: {one.text}" for one in findings)
    assert {one.code for one in findings} == codes, told
    assert len(findings) == len(codes)
    assert words in told
    assert all(one.remedy for one in findings)


@pytest.mark.parametrize(
    "code", ["not_mounted", "inside_another", "quota_full", "quota_off", "quota_nearly_full", "raid_degraded"]
)
def test_a_fault_of_a_root_is_named_as_it_is_told(code: str) -> None:
    host = Host()
    root(host, "ci")["reasons"].append(reason(code))
    (finding,) = host.report().findings
    assert (finding.code, finding.subject, finding.text) == (code, "runner ci", f"what {code} says")


@pytest.mark.parametrize(
    "code", ["two_holders", "foreign_mount", "nearly_full", "absent", "holder_without_root"]
)
def test_what_other_checks_tell_is_not_told_twice(code: str) -> None:
    host = Host()
    root(host, "ci")["reasons"].append(reason(code))
    report = host.report()
    assert report.findings == []
    assert code not in {one.code for one in report.notes}


@pytest.mark.parametrize("code", ["leftover_driver", "foreign_mount_read_only"])
def test_what_is_no_fault_is_a_note(code: str) -> None:
    host = Host()
    root(host, None)["reasons"].append(reason(code))
    report = host.report()
    assert report.findings == []
    assert (code, "engine docker") in {(one.code, one.subject) for one in report.notes}


def test_each_root_is_asked_for_with_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    host, asked = Host(), []

    def answer(params: dict[str, Any]) -> dict[str, Any]:
        asked.extend(params["roots"])
        return {"roots": [dict.fromkeys(("disk", "quota"), path["path"]) | KEPT for path in params["roots"]]}

    monkeypatch.setattr(_data_root_info, "answer", answer)
    found = roots.observe_roots(Expect.read(host.expect), host.seen)
    name = host.environment.name
    assert asked == [
        {"path": "/var/lib/docker", "holder": "host"},
        {"path": "/var/lib/matryoshka/runners/ci/data", "holder": name},
    ]
    assert [(one["subject"], one["runner"], one["holder"]) for one in found] == [
        ("engine docker", None, "host"),
        ("runner ci", "ci", name),
    ]


KEPT: dict[str, Any] = {"path": "", "owner": None, "holders": [], "seen_by": [], "reasons": []}


def test_a_runner_without_an_environment_has_a_root_that_nobody_should_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host()
    host.seen.environments.clear()
    host.state.update(environment=None)
    monkeypatch.setattr(
        _data_root_info, "answer", lambda params: {"roots": [{**KEPT, "disk": None, "quota": {}}] * 2}
    )
    found = roots.observe_roots(Expect.read(host.expect), host.seen)
    assert found[1]["holder"] == "matryoshka-ci"


def test_nothing_promised_is_nothing_looked_at() -> None:
    assert roots.observe_roots(Expect.read({}), Host().seen) == []
