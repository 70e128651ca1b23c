# SPDX-License-Identifier: GPL-3.0-or-later
"""Recorded answers for the tests of bridges."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._bridge_engines import docker_engine
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_read import (
    Namespace,
    fill,
    split_parts,
)
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import NoAnswer

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "bridge"


def text(name: str) -> str:
    return (FOLDER / name).read_text()


def loaded(name: str) -> Any:
    return json.loads(text(name))


def parts(name: str) -> dict[str, tuple[int, str]]:
    return split_parts(text(name), "MARK")


def namespace(name: str, file: str, networks: str | None = None) -> Namespace:
    """A namespace as it was recorded, with Docker's networks."""
    seen = Namespace(name)
    fill(seen, parts(file))
    if networks:
        seen.engines = [docker_engine({}, loaded(networks))]
    return seen


def host() -> Namespace:
    return namespace("host", "debian13-host.txt", "docker-26.1-networks.json")


def container() -> Namespace:
    return namespace("ci-1", "debian13-container.txt", "docker-26.1-inner-networks.json")


def virtual_machines() -> Namespace:
    return namespace("host", "debian12-virtual-machines.txt")


class Programs:
    """Answers by the first words of a command, and remembers what was started."""

    def __init__(self, answers: Mapping[str, Result]) -> None:
        self.answers = answers
        self.started: list[list[str]] = []

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        self.started.append(list(argv))
        line = " ".join(argv)
        return next(
            (one for start, one in self.answers.items() if line.startswith(start)),
            Result(127, "", "not found"),
        )


class Daemon:
    """Answers of daemons by (root, url)."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, path: str, url: str, *, root: str = "/", timeout: float = 5.0) -> Any:
        self.asked.append(f"{root}{path} {url}")
        if url not in self.answers:
            raise NoAnswer(f"{url} answers 404", 404)
        found = self.answers[url]
        if isinstance(found, Exception):
            raise found
        return found
