# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of dockerd that are right by themselves and wrong together. Pure functions.

Each rule takes the whole configuration, whose single values have been checked, and
yields a :class:`Problem` at the option to change. Source: dockerd's own start-up checks
(``verifyDaemonSettings``, ``setupRuntimes``, log drivers' ``ValidateLogOpt``, the image
store's choice), which ``dockerd --validate`` does not run, and Docker's documentation.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _daemon_options as options
from ansible_collections.matryoshka.host.plugins.module_utils import _networks
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_config_values import (
    Path,
    Problem,
    meant,
)

STOCK_RUNTIMES = ("runc", "io.containerd.runc.v2")
GRAPH_DRIVER_WORDS = "a graph driver's option has no effect on containerd's snapshotters"


@dataclass(frozen=True)
class Surroundings:
    """What a configuration is for.

    :param privileged: containers run with ``--privileged``.
    :param version: dockerd's release if it is known.
    :param partial: only a part of the file, the rest isn't known.
    """

    privileged: bool = True
    version: options.Version | None = None
    partial: bool = False


Config = Mapping[str, Any]
Rule = Callable[[Config, Surroundings], Iterator[Problem]]


def _refused(config: Config, key: str, allowed: str) -> Problem:
    return Problem((key,), config[key], allowed)


def user_namespaces(config: Config, around: Surroundings) -> Iterator[Problem]:
    if "userns-remap" not in config:
        return
    if around.privileged:
        yield _refused(
            config,
            "userns-remap",
            "only where no container is privileged (privileged_containers: false); "
            "a daemon with remapped users refuses --privileged, so nested engines don't start",
        )
    if _feature(config, "containerd-snapshotter"):
        yield _refused(
            config,
            "userns-remap",
            "only without features.containerd-snapshotter; dockerd refuses both together",
        )


def swarm(config: Config, around: Surroundings) -> Iterator[Problem]:
    if config.get("live-restore") and config.get("swarm-default-advertise-addr"):
        yield _refused(
            config,
            "live-restore",
            "false with swarm-default-advertise-addr; a daemon with live-restore can't join a swarm",
        )
    nftables = config.get("firewall-backend") == "nftables" and config.get("iptables", True)
    if config.get("swarm-default-advertise-addr") and nftables and not _feature(config, "swarm-nftables"):
        yield _refused(config, "firewall-backend", "iptables with swarm-default-advertise-addr")


def bridge(config: Config, around: Surroundings) -> Iterator[Problem]:
    if "bridge" not in config:
        return
    others = ["bip", "bip6"]
    if config["bridge"] == "none":
        others += ["fixed-cidr", "fixed-cidr-v6", "default-gateway", "default-gateway-v6"]
    for key in others:
        if key in config:
            yield _refused(
                config,
                key,
                f"only without bridge ({config['bridge']!r}), whose addresses dockerd doesn't set",
            )


def addresses(config: Config, around: Surroundings) -> Iterator[Problem]:
    ranges = _networks.daemon_ranges(config, "")
    for one, other in _networks.overlapping(ranges):
        yield Problem(
            _place(other.name),
            str(other.network),
            f"a range apart from {one.name[1:]} {one.network}, which it overlaps",
        )
    for key, within in (
        ("fixed-cidr", "bip"),
        ("default-gateway", "bip"),
        ("fixed-cidr-v6", "bip6"),
        ("default-gateway-v6", "bip6"),
    ):
        if key in config and within in config:
            outer = ipaddress.ip_interface(config[within]).network
            inner = ipaddress.ip_network(config[key])
            if not (inner.version == outer.version and inner.subnet_of(outer)):  # type: ignore[arg-type]
                yield _refused(config, key, f"inside the network of {within}, {outer}")
    if config.get("ipv6") and 0 < config.get("mtu", 1500) < 1280:
        yield _refused(config, "mtu", "at least 1280 with ipv6: true")


def firewall(config: Config, around: Surroundings) -> Iterator[Problem]:
    if config.get("iptables") is False:
        if config.get("icc") is False:
            yield _refused(
                config, "icc", "true with iptables: false; dockerd separates containers with its rules"
            )
        if config.get("ip-masq") is True:
            yield _refused(
                config, "ip-masq", "false with iptables: false; dockerd masks addresses with its rules"
            )
    if config.get("icc") is False and config.get("ipv6") and config.get("ip6tables") is False:
        yield _refused(
            config,
            "icc",
            "true with ipv6: true and ip6tables: false; dockerd separates containers with its rules",
        )


def tls(config: Config, around: Surroundings) -> Iterator[Problem]:
    verify, on = config.get("tlsverify"), config.get("tls") or config.get("tlsverify")
    needed = ("tlscacert", "tlscert", "tlskey") if verify else ("tlscert", "tlskey") if on else ()
    missing = [key for key in needed if key not in config]
    if missing and not around.partial:
        key = "tlsverify" if verify else "tls"
        yield _refused(config, key, f"only with {', '.join(needed)}; missing: {', '.join(missing)}")
    for key in ("tlscacert", "tlscert", "tlskey"):
        if key in config and not on and not around.partial:
            yield _refused(config, key, "only with tls: true or tlsverify: true; else it is ignored")
    for index, host in enumerate(config.get("hosts", ())):
        open_port = host.startswith("tcp://") and not host.startswith(
            ("tcp://127.", "tcp://localhost", "tcp://[::1]")
        )
        if open_port and not verify and "tls" not in config and "tlsverify" not in config:
            yield Problem(
                ("hosts", index),
                host,
                "with tlsverify: true, or with tls: false to say that anyone who reaches it "
                "may be root on this host",
            )


def storage(config: Config, around: Surroundings) -> Iterator[Problem]:
    driver, snapshotter = config.get("storage-driver"), _feature(config, "containerd-snapshotter")
    if driver is not None:
        allowed: tuple[str, ...] | None = None
        if snapshotter:
            allowed, why = options.SNAPSHOTTERS, " with features.containerd-snapshotter"
        elif snapshotter is False or (around.version is not None and around.version < (29, 0)):
            old = tuple(name for name, until in options.OLD_GRAPH_DRIVERS.items() if not _gone(until, around))
            allowed, why = options.GRAPH_DRIVERS + old, " without features.containerd-snapshotter"
        elif driver in options.OLD_GRAPH_DRIVERS and _gone(options.OLD_GRAPH_DRIVERS[driver], around):
            allowed, why = options.GRAPH_DRIVERS, ""
        if allowed is not None and driver not in allowed:
            yield _refused(config, "storage-driver", f"one of {', '.join(allowed)}{why}")
    for index, text in enumerate(config.get("storage-opts", ())):
        name, _ignored, value = text.partition("=")
        place = ("storage-opts", index)
        if snapshotter:
            yield Problem(place, text, f"none with features.containerd-snapshotter; {GRAPH_DRIVER_WORDS}")
        elif driver == "devicemapper" or (driver is None and name.startswith("dm.")):
            if not name.startswith("dm."):
                yield Problem(place, text, "an option dm.NAME of the storage-driver devicemapper")
        else:
            known = _storage_options(driver)
            if name not in known:
                of = f"storage-driver {driver}" if driver else "a storage driver"
                yield Problem(
                    place, text, f"an option of {of}: {', '.join(known) or 'it has none'}{meant(name, known)}"
                )
            else:
                yield from (Problem(place, text, f"{name}={wrong.allowed}") for wrong in known[name](value))


def logs(config: Config, around: Surroundings) -> Iterator[Problem]:
    if "log-opts" not in config or ("log-driver" not in config and around.partial):
        return
    driver, given = config.get("log-driver", "json-file"), config["log-opts"]
    known = options.LOG_OPTIONS.get(driver)
    checks = {**options.COMMON_LOG_OPTIONS, **(known or {})}
    for name, value in given.items():
        place = ("log-opts", name)
        if name in checks:
            yield from (wrong.below(*place) for wrong in checks[name](value))
        elif known is not None:
            names = ", ".join(sorted(known)) or "it has none"
            yield Problem(place, value, f"an option of log-driver {driver}: {names}{meant(name, known)}")
    if "max-buffer-size" in given and given.get("mode") != "non-blocking":
        yield Problem(
            ("log-opts", "max-buffer-size"), given["max-buffer-size"], "only with mode: non-blocking"
        )
    rotated = given.get("max-file", "1") != "1" and "max-size" in given
    if driver == "json-file" and given.get("compress") == "true" and not rotated:
        yield Problem(("log-opts", "compress"), "true", "only with max-size and a max-file of at least 2")


def runtimes(config: Config, around: Surroundings) -> Iterator[Problem]:
    records = config.get("runtimes", {})
    for name, record in records.items():
        fields = {key.lower(): value for key, value in record.items()}
        place = ("runtimes", name)
        if name == "runc":
            yield Problem(place, record, "another name; runc is dockerd's own")
        elif ("path" in fields) == ("runtimetype" in fields) and not around.partial:
            yield Problem(place, record, "either path or runtimeType")
        elif "path" in fields and fields.get("options"):
            yield Problem(
                (*place, "options"), fields["options"], "only with runtimeType; a path has runtimeArgs"
            )
        elif "runtimetype" in fields and fields.get("runtimeargs"):
            yield Problem(
                (*place, "runtimeArgs"), fields["runtimeargs"], "only with path; a runtimeType has options"
            )
    default = config.get("default-runtime")
    if default is not None and not around.partial:
        by_name = default.startswith("/") or (
            default.startswith("io.containerd.") and default.count(".") >= 3
        )
        if default not in records and default not in STOCK_RUNTIMES and not by_name:
            names = [*STOCK_RUNTIMES, *records]
            yield _refused(
                config,
                "default-runtime",
                f"one of {', '.join(names)}, or another name in runtimes{meant(default, names)}",
            )


def limits(config: Config, around: Surroundings) -> Iterator[Problem]:
    for name, record in config.get("default-ulimits", {}).items():
        fields = {key.lower(): value for key, value in record.items()}
        if fields["name"] != name:
            yield Problem(("default-ulimits", name, "Name"), fields["name"], name)
        hard, soft = fields["hard"], fields["soft"]
        if hard != -1 and (soft > hard or soft == -1):
            yield Problem(("default-ulimits", name, "Soft"), soft, f"at most Hard, {hard}")


def control_groups(config: Config, around: Surroundings) -> Iterator[Problem]:
    drivers = [text for text in config.get("exec-opts", ()) if text.startswith("native.cgroupdriver=")]
    if len(drivers) > 1:
        yield _refused(config, "exec-opts", "native.cgroupdriver once")
    parent = config.get("cgroup-parent", "")
    if (
        parent
        and "native.cgroupdriver=systemd" in drivers
        and not (parent.endswith(".slice") and len(parent) > 6)
    ):
        yield _refused(config, "cgroup-parent", "a slice NAME.slice with native.cgroupdriver=systemd")


def names(config: Config, around: Surroundings) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for index, label in enumerate(config.get("labels", ())):
        key, _ignored, value = label.partition("=")
        if seen.setdefault(key, value) != value:
            yield Problem(("labels", index), label, f"each name once, but {key}={seen[key]} is there too")
    if "host-gateway-ip" in config and "host-gateway-ips" in config:
        yield _refused(config, "host-gateway-ip", "only without host-gateway-ips, its newer form")
    for feature in config.get("features", {}):
        close = meant(feature, options.FEATURES)
        if feature not in options.FEATURES and close:
            yield Problem(
                ("features", feature),
                config["features"][feature],
                f"one of {', '.join(options.FEATURES)}{close}",
            )
    if _feature(config, "embedded-containerd") and config.get("cri-containerd"):
        yield _refused(config, "cri-containerd", "false with features.embedded-containerd")
    if config.get("containerd-namespace") == "plugins.moby":
        yield _refused(config, "containerd-namespace", "another namespace than the plugins' own")
    for driver, values in config.get("default-network-opts", {}).items():
        mtu = values.get("com.docker.network.driver.mtu")
        if mtu is not None and not (mtu.isdecimal() and 68 <= int(mtu) <= 65535):
            yield Problem(
                ("default-network-opts", driver, "com.docker.network.driver.mtu"), mtu, "68 to 65535, as text"
            )


RULES: tuple[Rule, ...] = (
    user_namespaces, swarm, bridge, addresses, firewall, tls, storage, logs, runtimes, limits, control_groups, names,
)  # fmt: skip


def _place(name: str) -> Path:
    """Where a name of :func:`_networks.daemon_ranges` is in the configuration."""
    key, _ignored, rest = name[1:].partition("[")
    return (key, int(rest.split("]")[0]), "base") if rest else (key,)


def _feature(config: Config, name: str) -> bool | None:
    value = config.get("features", {}).get(name)
    return value if isinstance(value, bool) else None


def _gone(until: options.Version, around: Surroundings) -> bool:
    return around.version is not None and around.version >= until


def _storage_options(driver: str | None) -> dict[str, Any]:
    if driver is not None:
        return dict(options.STORAGE_OPTIONS.get(driver, {}))
    return {name: check for known in options.STORAGE_OPTIONS.values() for name, check in known.items()}
