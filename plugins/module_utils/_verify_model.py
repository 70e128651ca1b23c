# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What verify wants, what it has seen, and what it has to say about the difference.

:class:`Expect` is what the roles promised, :class:`Observed` is what the live system answered
(filled by :mod:`_verify_observe`), :class:`Report` collects findings. The checks between them
are pure, so that a test is a healthy :class:`Observed` with one thing changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._limits_kernel import Limited
from ansible_collections.matryoshka.host.plugins.module_utils._storage import EngineStorage
from ansible_collections.matryoshka.host.plugins.module_utils._systemd import UnitState

#: Codes that a site accepts without being asked: they describe a choice, not a fault.
ALLOWED = ("root_disk",)
#: The way back that is always right: the play writes, removes and restarts what differs.
SITE = "run playbooks/site.yml again"
#: The unit and the socket of each engine that a host can hold.
ENGINE_UNITS = {"docker": "docker.service"}
#: What an engine's unit needs to start, and what is started with it.
ENGINE_COMPANIONS = {"docker": ("docker.socket", "containerd.service")}
#: The label by which a container is a runner's environment.
LABEL = "matryoshka.runner"
ENGINE_SOCKETS = {"docker": "/run/docker.sock"}


@dataclass(frozen=True)
class Finding:
    """One thing that isn't as promised.

    ``code`` is stable and can be given to ``allow``; ``subject`` is what it is about
    (``engine docker``, ``runner ci``, ``unit x.service``); ``text`` says what was seen and what
    was wanted; ``remedy`` is what to do, as commands wherever there are any.
    """

    code: str
    subject: str
    text: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        return {"code": self.code, "subject": self.subject, "text": self.text, "remedy": self.remedy}


@dataclass
class Report:
    """Counts the checks and keeps what they found."""

    checks: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    def check(self, healthy: bool, code: str, subject: str, text: str, remedy: str) -> bool:
        """Count one check; if it isn't ``healthy``, keep the finding. Returns ``healthy``."""
        self.checks += 1
        if not healthy:
            finding = Finding(code, subject, text, remedy)
            if finding not in self.findings:
                self.findings.append(finding)
        return healthy

    def note(self, code: str, subject: str, text: str, remedy: str) -> None:
        """Something worth telling that isn't a fault."""
        self.notes.append(Finding(code, subject, text, remedy))

    def accept(self, codes: Sequence[str]) -> None:
        """Move the findings that a site accepts to the notes."""
        self.notes += [one for one in self.findings if one.code in codes]
        self.findings = [one for one in self.findings if one.code not in codes]


@dataclass(frozen=True)
class Expect:
    """What the roles promised, in the form that role verify hands over."""

    engine: Mapping[str, Any]
    units: Sequence[Mapping[str, Any]]
    files: Sequence[Mapping[str, Any]]
    image: Mapping[str, Any]
    runners: Sequence[Mapping[str, Any]]
    prune: Mapping[str, Any]
    allow: Sequence[str]
    firewall: Mapping[str, Any] = field(default_factory=dict)
    kernel: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    storage: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Expect:
        """Check the shape of the module's ``expect`` and fill in what is left out.

        :raises InputError: if a key is unknown or has the wrong type.
        """
        kinds: dict[str, type] = {
            "engine": dict,
            "units": list,
            "files": list,
            "image": dict,
            "runners": list,
            "prune": dict,
            "allow": list,
            "firewall": dict,
            "kernel": dict,
            "network": dict,
            "storage": dict,
            "limits": dict,
        }
        for key, value in given.items():
            if key not in kinds:
                raise InputError(f"expect.{key}", value, "one of " + ", ".join(kinds))
            if value is not None and not isinstance(value, kinds[key]):
                raise InputError(f"expect.{key}", value, f"a {kinds[key].__name__}")
        for key, needed in (("units", "name"), ("files", "path"), ("runners", "name")):
            for index, item in enumerate(given.get(key) or []):
                if not isinstance(item, Mapping) or not isinstance(item.get(needed), str):
                    raise InputError(f"expect.{key}[{index}]", item, f"a mapping with {needed}")
        engine = given.get("engine") or {}
        if engine and engine.get("name", "docker") not in ENGINE_UNITS:
            raise InputError("expect.engine.name", engine.get("name"), "one of " + ", ".join(ENGINE_UNITS))
        allow = given.get("allow")
        return cls(
            engine=engine,
            units=given.get("units") or [],
            files=given.get("files") or [],
            image=given.get("image") or {},
            runners=given.get("runners") or [],
            prune=given.get("prune") or {},
            allow=list(ALLOWED) if allow is None else [str(code) for code in allow],
            firewall=given.get("firewall") or {},
            kernel=given.get("kernel") or {},
            network=given.get("network") or {},
            storage=given.get("storage") or {},
            limits=given.get("limits") or {},
        )

    @property
    def engine_name(self) -> str:
        return str(self.engine.get("name") or "docker")

    @property
    def engine_unit(self) -> str:
        return ENGINE_UNITS[self.engine_name]

    @property
    def engine_config(self) -> Mapping[str, Any]:
        return self.engine.get("config") or {}

    @property
    def config_path(self) -> str:
        return str(self.engine.get("config_path") or "/etc/docker/daemon.json")

    @property
    def engine_socket(self) -> str:
        """The Unix socket that the engine answers on: the first in ``hosts``, or the usual one."""
        for host in self.engine_config.get("hosts") or []:
            if str(host).startswith("unix://"):
                return str(host)[len("unix://") :]
        return ENGINE_SOCKETS[self.engine_name]


@dataclass(frozen=True)
class Disk:
    """Room on a file system: bytes and inodes, in total and free (for those who aren't root)."""

    path: str
    bytes_total: int
    bytes_free: int
    inodes_total: int
    inodes_free: int


@dataclass(frozen=True)
class FileView:
    """A path as ``lstat`` sees it; ``sha256`` only of regular files that were asked for.

    ``changed`` is when it got its name, its content or its mode, in seconds since the epoch.
    """

    kind: str
    mode: str
    owner: str
    group: str
    size: int = 0
    sha256: str | None = None
    changed: float = 0.0


@dataclass
class EngineView:
    """What a daemon answered: ``/info`` and ``/networks``; ``error`` is why it didn't."""

    error: str | None = None
    info: dict[str, Any] = field(default_factory=dict)
    networks: list[dict[str, Any]] = field(default_factory=list)

    def network(self, name: str) -> dict[str, Any]:
        """The network called ``name``, empty if there is none."""
        return next((one for one in self.networks if one.get("Name") == name), {})


@dataclass
class Firewall:
    """What ``iptables-save`` says: the backend (``nf_tables`` or ``legacy``), policies and rules.

    ``other`` says that Docker's chains were found with the other backend instead.
    """

    backend: str | None = None
    chains: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    other: bool = False
    error: str | None = None

    def rules(self, table: str, chain: str) -> list[str]:
        return self.chains.get(table, {}).get(chain, [])


@dataclass
class NetView:
    """A network namespace: addresses, routes (interface, CIDR), MTUs, whether IPv4 is forwarded, firewall."""

    addresses: list[str] = field(default_factory=list)
    routes: list[tuple[str, str]] = field(default_factory=list)
    mtu: dict[str, int] = field(default_factory=dict)
    nameservers: list[str] = field(default_factory=list)
    forwarding: bool | None = None
    firewall: Firewall = field(default_factory=Firewall)

    @property
    def uplink(self) -> str | None:
        """The interface of the default route."""
        return next((name for name, network in self.routes if network == "0.0.0.0/0"), None)


@dataclass
class Limits:
    """Limits that the kernel enforces on a process, the strictest on the way to the root.

    ``None`` is "no limit"; ``unread`` names controllers that couldn't be read.
    """

    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock: its id, name, systemd unit, and process namespace."""

    pid: int
    name: str
    unit: str
    namespace: str


def seconds(text: str) -> float:
    """An ISO 8601 time in UTC, as engines and runners write it, in seconds since the epoch; 0 if it isn't one."""
    try:
        whole = datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
        return max(whole.timestamp(), 0.0)
    except ValueError:
        return 0.0


@dataclass
class Environment:
    """A job environment's container as its engine and the kernel see it."""

    inspect: dict[str, Any]
    engine: EngineView = field(default_factory=EngineView)
    net: NetView = field(default_factory=NetView)
    limits: Limits = field(default_factory=Limits)
    namespaces: dict[str, str] = field(default_factory=dict)
    mountinfo: str = ""
    storage: EngineStorage | None = None

    @property
    def name(self) -> str:
        return str(self.inspect.get("Name", "")).lstrip("/")

    @property
    def labels(self) -> dict[str, str]:
        return (self.inspect.get("Config") or {}).get("Labels") or {}

    @property
    def runner(self) -> str | None:
        return self.labels.get(LABEL)

    @property
    def state(self) -> dict[str, Any]:
        return self.inspect.get("State") or {}

    @property
    def running(self) -> bool:
        return bool(self.state.get("Running"))

    @property
    def pid(self) -> int:
        """Its first process; 0 if it doesn't run."""
        return int(self.state.get("Pid") or 0)

    @property
    def touched(self) -> float:
        """When it was made or ended, whichever came later; seconds since the epoch."""
        times = (self.inspect.get("Created"), self.state.get("FinishedAt"))
        return max((seconds(str(one)) for one in times if one), default=0.0)


@dataclass
class RunnerView:
    """A runner's files on the host: state, configuration, lock."""

    state: dict[str, Any] | None = None
    state_error: str | None = None
    config: dict[str, Any] | None = None
    config_sha256: str | None = None
    pid_unit: str | None = None
    lock_exists: bool = False
    lock_holders: list[Holder] = field(default_factory=list)


@dataclass
class QueueView:
    """A directory queue: its folders, and the entries in each by name (``RUNNER/JOB`` in ``claimed``)."""

    folders: dict[str, FileView | None] = field(default_factory=dict)
    entries: dict[str, dict[str, FileView]] = field(default_factory=dict)


@dataclass
class Observed:
    """Everything that was asked of the live system, at one time (seconds since the epoch).

    ``firewall``, ``kernel`` and ``volumes`` are what the modules of these roles would change;
    ``bridges`` is from :mod:`_verify_bridges`, ``roots`` from :mod:`_verify_roots`, ``limited`` from
    :mod:`_verify_limits`.
    """

    now: float = 0.0
    hostname: str = ""
    units: dict[str, UnitState] = field(default_factory=dict)
    unit_details: dict[str, dict[str, str]] = field(default_factory=dict)
    engine: EngineView = field(default_factory=EngineView)
    engine_command: list[str] = field(default_factory=list)
    storage: EngineStorage | None = None
    data_root: str | None = None
    daemon_json: str | None = None
    files: dict[str, FileView | None] = field(default_factory=dict)
    net: NetView = field(default_factory=NetView)
    sysctl: dict[str, str | None] = field(default_factory=dict)
    mountinfo: str = ""
    namespaces: dict[str, str] = field(default_factory=dict)
    containers: list[dict[str, Any]] = field(default_factory=list)
    environments: list[Environment] = field(default_factory=list)
    image: dict[str, Any] | None = None
    runners: dict[str, RunnerView] = field(default_factory=dict)
    queues: dict[str, QueueView] = field(default_factory=dict)
    disks: list[Disk] = field(default_factory=list)
    group_members: list[str] | None = None
    firewall: dict[str, Any] = field(default_factory=dict)
    kernel: dict[str, Any] = field(default_factory=dict)
    bridges: dict[str, Any] = field(default_factory=dict)
    roots: list[dict[str, Any]] = field(default_factory=list)
    volumes: dict[str, Any] = field(default_factory=dict)
    limited: Limited | None = None

    def environments_of(self, runner: str) -> list[Environment]:
        return [one for one in self.environments if one.runner == runner]
