# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine says of its storage: the model, and parsers of ``docker info`` and ``podman info``.

Pure. Source of facts: ``docker info --format '{{json .}}'`` and ``podman info --format json``.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError

ENGINES = ("docker", "rootless_docker", "podman")
SNAPSHOTTER = "io.containerd.snapshotter.v1"
DEFAULT_CONTAINERD_ROOT = "/var/lib/containerd"


@dataclass(frozen=True)
class Location:
    """Where data really lies. Sizes are bytes; what couldn't be found out is None.

    ``role`` is ``data_root`` or ``containerd``; ``beneath`` is the file system that an overlay's
    upper layer is on, where the host can see it.
    """

    role: str
    path: str
    exists: bool
    filesystem: str | None = None
    mount_point: str | None = None
    source: str | None = None
    options: tuple[str, ...] = ()
    read_only: bool = False
    device: str | None = None
    device_number: str | None = None
    on_root_disk: bool = False
    on_root_filesystem: bool = False
    bytes_total: int | None = None
    bytes_free: int | None = None
    inodes_total: int | None = None
    inodes_free: int | None = None
    beneath: str | None = None


@dataclass(frozen=True)
class EngineStorage:
    """An engine's storage. ``live`` is whether it answered; ``error`` says why it didn't.

    ``absent`` is ``program`` or ``container`` if that isn't there at all. ``snapshotter`` is set
    if images are in containerd's store; ``configured_*`` come from the daemon's own file.
    """

    engine: str
    container: str | None = None
    user: str | None = None
    live: bool = False
    absent: str | None = None
    error: str | None = None
    version: str | None = None
    kernel: str | None = None
    rootless: bool = False
    driver: str | None = None
    backing_filesystem: str | None = None
    d_type: bool | None = None
    native_diff: bool | None = None
    metacopy: bool | None = None
    userxattr: bool | None = None
    data_root: str | None = None
    containerd_store: bool = False
    snapshotter: str | None = None
    containerd_address: str | None = None
    containerd_root: str | None = None
    mount_program: str | None = None
    status: Mapping[str, str] = field(default_factory=dict)
    configured_driver: str | None = None
    configured_data_root: str | None = None
    configuration_file: str | None = None
    locations: tuple[Location, ...] = ()

    @property
    def nested(self) -> bool:
        return self.container is not None

    @property
    def location(self) -> Location | None:
        """Where images and layers are: containerd's root if it keeps them, else the data root."""
        role = "containerd" if self.containerd_store else "data_root"
        found = [place for place in self.locations if place.role == role] or list(self.locations)
        return found[0] if found else None

    def as_dict(self) -> dict[str, Any]:
        """For a module's return value."""
        value = asdict(self)
        value["status"] = dict(self.status)
        value["locations"] = [_plain(place) for place in self.locations]
        value["location"] = _plain(self.location) if self.location else None
        return value


def parse_docker_info(text: str, engine: str = "docker", container: str | None = None) -> EngineStorage:
    """The output of ``docker info --format '{{json .}}'``. A daemon that is down gives ``live`` False.

    :raises HostError: if it isn't JSON.
    """
    info = _object(text, "docker info")
    errors = info.get("ServerErrors") or []
    if errors or not info.get("ServerVersion"):
        detail = "; ".join(str(error) for error in errors) or "the daemon gave no version"
        return EngineStorage(engine, container, live=False, error=detail)
    status = _pairs(info.get("DriverStatus"))
    store = status.get("driver-type") == SNAPSHOTTER
    data_root = info.get("DockerRootDir") or None
    address = (info.get("Containerd") or {}).get("Address")
    driver = str(info.get("Driver") or "")
    return EngineStorage(
        engine=engine,
        container=container,
        live=True,
        version=info["ServerVersion"],
        kernel=info.get("KernelVersion") or None,
        rootless="name=rootless" in (info.get("SecurityOptions") or []),
        driver=driver or None,
        backing_filesystem=_filesystem(status.get("Backing Filesystem")),
        d_type=_flag(status.get("Supports d_type")),
        native_diff=_flag(status.get("Native Overlay Diff")),
        metacopy=_flag(status.get("Using metacopy")),
        userxattr=_flag(status.get("userxattr")),
        data_root=data_root,
        containerd_store=store,
        snapshotter=driver if store else None,
        containerd_address=address,
        containerd_root=containerd_root(address, data_root) if store else None,
        status=status,
    )


def parse_podman_info(text: str, container: str | None = None) -> EngineStorage:
    """The output of ``podman info --format json``.

    :raises HostError: if it isn't JSON.
    """
    info = _object(text, "podman info")
    store = info.get("store") or {}
    host = info.get("host") or {}
    status = {str(key): str(value) for key, value in (store.get("graphStatus") or {}).items()}
    options = store.get("graphOptions") or {}
    program = options.get("overlay.mount_program")
    if isinstance(program, Mapping):
        program = program.get("Executable")
    return EngineStorage(
        engine="podman",
        container=container,
        live=True,
        version=(info.get("version") or {}).get("Version"),
        kernel=host.get("kernel"),
        rootless=bool((host.get("security") or {}).get("rootless")),
        driver=store.get("graphDriverName"),
        backing_filesystem=_filesystem(status.get("Backing Filesystem")),
        d_type=_flag(status.get("Supports d_type")),
        native_diff=_flag(status.get("Native Overlay Diff")),
        metacopy=_flag(status.get("Using metacopy")),
        userxattr=_flag(status.get("userxattr")),
        data_root=store.get("graphRoot"),
        mount_program=str(program) if program else None,
        status=status,
        configuration_file=store.get("configFile"),
    )


def containerd_root(address: str | None, data_root: str | None, config: str | None = None) -> str | None:
    """Where the containerd at ``address`` keeps its data.

    dockerd's own child is told ``<data root>/containerd/daemon``; a containerd of the system
    reads ``root`` from its configuration (``config``: the file's text).
    """
    if address and "/docker/containerd/" in address:
        return posixpath.join(data_root, "containerd/daemon") if data_root else None
    found = re.search(r"^root\s*=\s*[\"']([^\"']+)[\"']", config or "", re.MULTILINE)
    return found[1] if found else DEFAULT_CONTAINERD_ROOT


def with_daemon_json(storage: EngineStorage, path: str, text: str | None) -> EngineStorage:
    """``storage`` with what daemon.json (``text``; None: there is no file) sets of driver and data root."""
    if text is None:
        return storage
    try:
        config = json.loads(text)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        return replace(storage, configuration_file=path)
    return replace(
        storage,
        configuration_file=path,
        configured_driver=_text(config.get("storage-driver")),
        configured_data_root=_text(config.get("data-root")),
    )


def with_storage_conf(storage: EngineStorage, text: str | None) -> EngineStorage:
    """``storage`` with ``driver`` and ``graphroot`` of Podman's storage.conf (section ``[storage]``)."""
    section = re.split(r"^\[(?!storage\])", text or "", maxsplit=1, flags=re.MULTILINE)[0]
    values = dict(re.findall(r"^\s*(driver|graphroot)\s*=\s*[\"']([^\"']*)[\"']", section, re.MULTILINE))
    return replace(
        storage,
        configured_driver=values.get("driver") or None,
        configured_data_root=values.get("graphroot") or None,
    )


def _object(text: str, what: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise HostError(
            f"{what} printed something that isn't JSON: {text.strip()[:200] or 'nothing'}"
        ) from error
    if not isinstance(value, dict):
        raise HostError(f"{what} printed something that isn't a JSON object: {text.strip()[:200]}")
    return value


def _pairs(status: Any) -> dict[str, str]:
    return {str(pair[0]): str(pair[1]) for pair in status or [] if len(pair) == 2}


def _flag(text: str | None) -> bool | None:
    return {"true": True, "false": False}.get((text or "").lower())


def _filesystem(name: str | None) -> str | None:
    if not name or name.startswith("<"):
        return None
    return {"extfs": "ext4", "overlayfs": "overlay"}.get(name, name)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _plain(place: Location) -> dict[str, Any]:
    return {**asdict(place), "options": list(place.options)}
