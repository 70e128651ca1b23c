# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of the live system, and of whom: each namespace once, no daemon twice."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _verify_observe as observing
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_info import Seen
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_read import Namespace
from ansible_collections.matryoshka.host.plugins.module_utils._systemd import UnitState
from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import NoAnswer
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    EngineView,
    Environment,
    Expect,
    Firewall,
    NetView,
    Observed,
)

ACTIVE = UnitState("docker.service", load_state="loaded", active_state="active")
OUTER = Firewall(backend="nf_tables", chains={"nat": {"DOCKER": ["outer"]}})
INNER = Firewall(backend="nf_tables", chains={"nat": {"DOCKER": ["inner"]}})


def environment(name: str, pid: int, running: bool = True) -> Environment:
    inspect = {"Name": f"/{name}", "State": {"Running": running, "Pid": pid}}
    return Environment(inspect, engine=EngineView(info={"ID": name}))


def test_every_namespace_is_entered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def look_around(
        expect: Expect, run: Any, engines: Mapping[str, EngineView], processes: Mapping[str, int]
    ) -> Seen:
        asked.update(engines=dict(engines), processes=dict(processes))
        return Seen(
            [
                Namespace("host", firewalls={"ip nft": OUTER}),
                Namespace("own", 11, firewalls={"ip nft": INNER}),
                Namespace("shared", 12, same_as="host"),
                Namespace("gone", 13, error="no such process"),
            ]
        )

    monkeypatch.setattr(observing, "look_around", look_around)
    monkeypatch.setattr(observing, "read_net", NetView)
    monkeypatch.setattr(observing, "default_backend", lambda: "nft")
    monkeypatch.setattr(observing, "describe", lambda expect, around: {"lan": len(around.namespaces)})
    seen = Observed(engine=EngineView(info={"ID": "outer"}))
    seen.environments = [
        environment("own", 11),
        environment("shared", 12),
        environment("gone", 13),
        environment("stopped", 0, running=False),
    ]
    observing._observe_networks(Expect.read({}), seen, lambda *_arguments, **_named: None)  # type: ignore[arg-type]

    assert asked["processes"] == {"own": 11, "shared": 12, "gone": 13}
    assert {root: engine.info["ID"] for root, engine in asked["engines"].items()} == {
        "/": "outer",
        "/proc/11/root": "own",
        "/proc/12/root": "shared",
        "/proc/13/root": "gone",
    }
    walls = {one.name: one.net.firewall for one in seen.environments}
    assert seen.net.firewall.rules("nat", "DOCKER") == ["outer"]
    assert walls["own"].rules("nat", "DOCKER") == ["inner"]
    assert walls["shared"].rules("nat", "DOCKER") == ["outer"]
    assert walls["gone"].error == "no such process"
    assert walls["stopped"] == Firewall()
    assert seen.bridges == {"lan": 4}


def test_units_of_templates_timers_and_engines_are_asked_for() -> None:
    expect = Expect.read(
        {
            "engine": {"name": "docker"},
            "units": [
                {"name": "a@.service", "instances": ["x"]},
                {"name": "b@.service"},
                {"name": "c.timer"},
                {"name": "d.mount"},
            ],
        }
    )
    assert observing.unit_names(expect) == [
        "docker.service",
        "docker.socket",
        "containerd.service",
        "a@x.service",
        "a@*.service",
        "c.timer",
        "d.mount",
        "c.service",
    ]


class Silent:
    """A daemon that lists its containers, and fails when it is asked about one."""

    def __init__(self, status: int | None) -> None:
        self.status = status

    def __call__(self, path: str, url: str, *, root: str = "/", timeout: float = 5.0) -> Any:
        if url.startswith("/containers/json"):
            return [{"Id": "0123", "Labels": {"matryoshka.runner": "ci"}}]
        if url.startswith("/containers/"):
            raise NoAnswer(f"{url} answers {self.status}: no such file", self.status)
        return [] if url == "/networks" else {"DockerRootDir": "/nowhere"}


@pytest.mark.parametrize(("status", "error"), [(404, None), (500, "answers 500"), (None, "answers None")])
def test_an_engine_that_knows_a_container_and_cannot_tell_of_it_is_silent(
    status: int | None, error: str | None
) -> None:
    seen = Observed(units={"docker.service": ACTIVE})
    with ThreadPoolExecutor(max_workers=2) as pool:
        observing._observe_engine(Expect.read({"engine": {"name": "docker"}}), seen, Silent(status), pool)
    assert seen.environments == []
    assert (seen.engine.error is None) == (error is None)
    assert error is None or error in str(seen.engine.error)
