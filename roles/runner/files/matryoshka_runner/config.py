# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of one runner, as the role writes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matryoshka_runner import SCHEMA
from matryoshka_runner.cgroups import SLICE, SLICE_ALLOWED
from matryoshka_runner.errors import ConfigError
from matryoshka_runner.fields import Fields, load
from matryoshka_runner.paths import Paths

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
NAME_ALLOWED = "1 to 32 of a-z, 0-9 and -, with a letter or digit first and last"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MOUNT = re.compile(r"/[^:]*:/[^:]*(?::(?:ro|rw))?")


@dataclass(frozen=True)
class Mode:
    """How an environment gets its inner engine."""

    name: str
    engine: str
    runtime: str
    privileged: bool
    inner_engine: str | None
    inner_data_root: str


@dataclass(frozen=True)
class Limits:
    """What an environment may use at most; None is no limit. Swap counts as memory."""

    cpus: float | None = None
    memory_bytes: int | None = None
    pids: int | None = None
    disk_bytes: int | None = None
    """Kept by a project quota of the host's file system; the program only says when it was met."""
    log_bytes: int | None = None


@dataclass(frozen=True)
class Config:
    """One runner. Times are in seconds; ``sha256`` is that of the file's bytes."""

    name: str
    mode: Mode
    image: str
    directory: Path
    cache: str
    limits: Limits
    slice: str | None
    inner_daemon: Mapping[str, Any]
    agent: Fields
    environment_variables: Mapping[str, str] = field(repr=False)
    mounts: tuple[str, ...]
    ready_timeout: float
    drain_timeout: float
    stop_timeout: float
    restart_delay: float
    sha256: str

    @property
    def persistent(self) -> bool:
        return self.cache == "persistent"

    @property
    def data(self) -> Path:
        """The data root of ``cache: persistent``."""
        return self.directory / "data"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"


def check_name(name: str) -> str:
    """``name`` if a runner can be called so, else ConfigError."""
    if not NAME.fullmatch(name):
        raise ConfigError("runner", "name", name, NAME_ALLOWED)
    return name


def read(paths: Paths, name: str) -> Config:
    """The configuration of runner ``name``; ConfigError if there is none or it isn't right."""
    path = paths.config(check_name(name))
    if not path.exists():
        known = sorted(found.stem for found in paths.configs.glob("*.json"))
        raise ConfigError(
            path, "runner", name, "one of the host's runners: " + (", ".join(known) or "none yet")
        )
    fields, digest = load(path)
    config = parse(fields, digest)
    if config.name != name:
        raise fields.refuse("name", config.name, f"the name of the file, {name}")
    return config


def parse(top: Fields, digest: str) -> Config:
    """A configuration from a file's mapping."""
    schema = top.raw("schema", str(SCHEMA))
    if schema != SCHEMA:
        raise top.refuse("schema", schema, str(SCHEMA))
    name = top.text("name", NAME_ALLOWED)
    if not NAME.fullmatch(name):
        raise top.refuse("name", name, NAME_ALLOWED)
    config = Config(
        name=name,
        mode=_mode(top.mapping("mode")),
        image=top.text("image"),
        directory=top.folder("directory"),
        cache=top.choice("cache", ("persistent", "none")),
        limits=_limits(top.mapping("limits", default={})),
        slice=_slice(top),
        inner_daemon=dict(top.mapping("inner_daemon", default={}).values),
        agent=top.mapping("agent"),
        environment_variables=_variables(top.mapping("environment_variables", default={})),
        mounts=tuple(_mounts(top)),
        ready_timeout=top.number("ready_timeout", 1, 3600, "seconds", default=120),
        drain_timeout=top.number("drain_timeout", 0, 604800, "seconds", default=3600),
        stop_timeout=top.number("stop_timeout", 0, 120, "seconds", default=10),
        restart_delay=top.number("restart_delay", 0, 3600, "seconds", default=5),
        sha256=digest,
    )
    top.finish()
    return config


def _mode(fields: Fields) -> Mode:
    inner = fields.raw("inner_engine", "docker | null", default="docker")
    if inner not in ("docker", None):
        raise fields.refuse("inner_engine", inner, "docker | null")
    mode = Mode(
        name=fields.text("name"),
        engine=fields.choice("engine", ("docker",)),
        runtime=fields.text("runtime", default="runc"),
        privileged=fields.boolean("privileged"),
        inner_engine=inner,
        inner_data_root=str(fields.folder("inner_data_root", default="/var/lib/docker")),
    )
    fields.finish()
    return mode


def _limits(fields: Fields) -> Limits:
    def count(key: str, low: int, unit: str) -> int | None:
        number = fields.limit(key, low, unit)
        return None if number is None else int(number)

    limits = Limits(
        cpus=fields.limit("cpus", 0.01, "CPUs", whole=False),
        memory_bytes=count("memory_bytes", 6 << 20, "bytes"),
        pids=count("pids", 1, "processes"),
        disk_bytes=count("disk_bytes", 1 << 20, "bytes"),
        log_bytes=count("log_bytes", 1 << 10, "bytes"),
    )
    fields.finish()
    return limits


def _slice(top: Fields) -> str | None:
    name = top.raw("slice", SLICE_ALLOWED, default=None)
    if name is not None and (not isinstance(name, str) or not SLICE.fullmatch(name)):
        raise top.refuse("slice", name, SLICE_ALLOWED)
    return name


def _variables(fields: Fields) -> dict[str, str]:
    variables = {}
    for key, value in fields.values.items():
        if not VARIABLE.fullmatch(key):
            raise fields.refuse(key, "(its value)", "a name of letters, digits and _, not a digit first")
        if not isinstance(value, str) or "\n" in value or "\0" in value:
            raise fields.refuse(key, "(not shown)", "a text of one line")
        variables[key] = value
    return variables


def _mounts(top: Fields) -> list[str]:
    mounts = top.texts("mounts", default=[])
    for mount in mounts:
        if not MOUNT.fullmatch(mount):
            raise top.refuse("mounts", mount, "/source:/target, /source:/target:ro or /source:/target:rw")
    return mounts
