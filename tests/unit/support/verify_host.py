# SPDX-License-Identifier: GPL-3.0-or-later
"""A healthy host as verify has seen one, for tests that change one thing on it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _verify
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    Disk,
    Environment,
    Expect,
    Observed,
    Report,
)

from support.recorded import build

RECORDED = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "verify" / "healthy.json").read_text(encoding="utf-8")
)


class Host:
    """A healthy host that a case may change."""

    def __init__(self) -> None:
        self.expect: dict[str, Any] = copy.deepcopy(RECORDED["expect"])
        self.seen: Observed = build(Observed, copy.deepcopy(RECORDED["seen"]))

    def report(self) -> Report:
        return _verify.check(Expect.read(self.expect), self.seen)

    @property
    def environment(self) -> Environment:
        return next(one for one in self.seen.environments if one.running)

    @property
    def runner(self) -> dict[str, Any]:
        runner: dict[str, Any] = self.expect["runners"][0]
        return runner

    @property
    def state(self) -> dict[str, Any]:
        state = self.seen.runners["ci"].state
        assert state is not None
        return state

    def unit(self, name: str, **values: Any) -> None:
        self.seen.units[name] = replace(self.seen.units[name], **values)

    def daemon_json(self, **values: Any) -> None:
        self.seen.daemon_json = json.dumps({**json.loads(self.seen.daemon_json or "{}"), **values})

    def file(self, path: str, **values: Any) -> None:
        view = self.seen.files[path]
        assert view is not None
        self.seen.files[path] = replace(view, **values)

    def disk(self, **values: int) -> None:
        full = {"bytes_total": 1000, "bytes_free": 500, "inodes_total": 1000, "inodes_free": 500, **values}
        self.seen.disks.append(Disk(path="/run", **full))

    def place(self, **values: Any) -> None:
        storage = self.environment.storage
        assert storage is not None
        self.environment.storage = replace(storage, locations=(replace(storage.locations[0], **values),))
