# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dockerd's options in daemon.json: types, allowed values, flags, versions, reloading.

Source: Docker's daemon configuration reference and dockerd's own sources, releases
20.10.24 to 29.7 (``daemon/config``, ``daemon/command``, ``daemon/reload*.go``,
``daemon/logger``, ``daemon/graphdriver``). ``since`` and ``until`` say in which releases
an option exists; ``until`` is the first one without it.

``dockerd --validate`` knows less: it decodes the file and checks a few values. It also
takes the *flag's* name for a key of the file (``label`` for ``labels``) and then ignores it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.matryoshka.host.plugins.module_utils import _daemon_config_values as v

Version = tuple[int, int]


@dataclass(frozen=True)
class Option:
    """One key of daemon.json.

    :param check: of its value.
    :param flag: the long flag without dashes, if it isn't the key's own name.
    :param short: the flag's one-letter form.
    :param reload: SIGHUP applies a changed value, no restart is needed.
    """

    check: v.Check
    flag: str = ""
    short: str = ""
    reload: bool = False
    since: Version | None = None
    until: Version | None = None

    @property
    def is_switch(self) -> bool:
        """Its flag takes no value."""
        return self.check is v.boolean


GRAPH_DRIVERS = ("overlay2", "fuse-overlayfs", "btrfs", "zfs", "vfs")
#: Graph drivers that are gone, and the first release without them.
OLD_GRAPH_DRIVERS: dict[str, Version] = {"aufs": (24, 0), "overlay": (24, 0), "devicemapper": (25, 0)}
#: containerd's own snapshotters and those that are widely plugged into it.
SNAPSHOTTERS = (
    "overlayfs", "native", "btrfs", "zfs", "devmapper", "blockfile", "erofs",
    "fuse-overlayfs", "stargz", "nydus", "soci",
)  # fmt: skip
#: storage-opts by graph driver.
STORAGE_OPTIONS: dict[str, dict[str, v.Check]] = {
    "overlay2": {"overlay2.size": v.size, "overlay2.override_kernel_check": v.choice("true", "false")},
    "btrfs": {"btrfs.min_space": v.size},
    "zfs": {"zfs.fsname": v.some_text},
    "vfs": {"size": v.size},
    "fuse-overlayfs": {},
}
FEATURES = (
    "buildkit", "cdi", "containerd-migration", "containerd-snapshotter", "embedded-containerd",
    "swarm-nftables", "time-namespaces",
)  # fmt: skip
#: Features that SIGHUP applies; the others are read at start only.
RELOADED_FEATURES = frozenset({"buildkit", "time-namespaces"})

_flag_text = v.choice("true", "false")
_count = v.matches(r"[1-9]\d*", "a whole number of at least 1, as text")
_COMMON_LOG_OPTIONS: dict[str, v.Check] = {
    "mode": v.choice("blocking", "non-blocking"),
    "max-buffer-size": v.size,
    "cache-disabled": _flag_text,
    "cache-max-size": v.size,
    "cache-max-file": _count,
    "cache-compress": _flag_text,
}
_META = dict.fromkeys(("env", "env-regex", "labels", "labels-regex", "tag"), v.anything_text)
_FILES: dict[str, v.Check] = {"max-file": _count, "compress": _flag_text}
_LOG_SIZE = v.matches(v.SIZE, "a size as text, such as 10m or 1g")


def _texts(prefix: str, names: str) -> dict[str, v.Check]:
    return {f"{prefix}-{name}": v.anything_text for name in names.split()}


#: log-opts by log driver; the drivers that dockerd has built in on Linux.
LOG_OPTIONS: dict[str, dict[str, v.Check]] = {
    "none": {},
    "json-file": {**_META, **_FILES, "max-size": v.choice("-1", other=f"(?i:{v.SIZE.pattern})", meaning="a size such as 10m")},
    "local": {**_META, **_FILES, "max-size": _LOG_SIZE},
    "journald": _META,
    "syslog": {
        **_META,
        **_texts("syslog", "address facility tls-ca-cert tls-cert tls-key tls-skip-verify"),
        "syslog-format": v.choice("rfc3164", "rfc5424", "rfc5424micro"),
    },
    "gelf": {
        **_META,
        "gelf-address": v.matches(r"(udp|tcp)://.+", "udp://HOST:PORT or tcp://HOST:PORT"),
        "gelf-compression-type": v.choice("gzip", "zlib", "none"),
        "gelf-compression-level": v.matches(r"-1|\d", "-1 to 9, as text"),
        **_texts("gelf", "tcp-max-reconnect tcp-reconnect-delay"),
    },
    "fluentd": {
        **_META,
        **_texts(
            "fluentd",
            "address async async-connect async-reconnect-interval buffer-limit max-retries read-timeout "
            "request-ack retry-wait sub-second-precision write-timeout",
        ),
    },
    "awslogs": {
        "tag": v.anything_text,
        **_texts(
            "awslogs",
            "create-group create-stream credentials-endpoint datetime-format endpoint "
            "force-flush-interval-seconds format group max-buffered-events multiline-pattern region stream",
        ),
    },
    "gcplogs": {**_META, **_texts("gcp", "log-cmd meta-id meta-name meta-zone project")},
    "splunk": {
        **_META,
        **_texts(
            "splunk",
            "caname capath format gzip gzip-level index index-acknowledgment insecureskipverify source "
            "sourcetype token url verify-connection",
        ),
    },
}  # fmt: skip
#: Any log driver may have these.
COMMON_LOG_OPTIONS = _COMMON_LOG_OPTIONS
LOG_PLUGIN = r"[a-z0-9][a-z0-9._/-]*(:\d+/[a-z0-9._/-]+)?:[A-Za-z0-9_][A-Za-z0-9_.-]*"

_ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
_limit = v.integer(-1)
_gc_rule = v.record(
    {
        "all": v.boolean,
        "filter": v.items(v.key_value, "filters such as unused-for=48h"),
        **dict.fromkeys(("keepStorage", "reservedSpace", "maxUsedSpace", "minFreeSpace"), v.size),
    },
    fold=True,
)
_builder = v.record(
    {
        "gc": v.record(
            {
                "enabled": v.boolean,
                "policy": v.items(_gc_rule, "rules such as {keepStorage: 10GB, all: true}"),
                **dict.fromkeys(
                    (
                        "defaultKeepStorage",
                        "defaultReservedSpace",
                        "defaultMaxUsedSpace",
                        "defaultMinFreeSpace",
                    ),
                    v.size,
                ),
            },
            fold=True,
        ),
        "entitlements": v.record(
            dict.fromkeys(("network-host", "security-insecure", "device"), v.boolean), fold=True
        ),
        "history": v.record({"maxAge": v.duration, "maxEntries": v.integer(0)}, fold=True),
    },
    fold=True,
)
_runtime = v.record(
    {
        "path": v.some_text,
        "runtimeArgs": v.items(v.anything_text, "arguments"),
        "runtimeType": v.some_text,
        "options": v.mapping(lambda value: iter(()), "the shim's options"),
    },
    fold=True,
)
_ulimit = v.record(
    {"Name": v.choice(*_ULIMITS), "Hard": _limit, "Soft": _limit}, ("Name", "Hard", "Soft"), fold=True
)
_texts_list = v.items(v.some_text, "texts")
_paths = v.items(v.absolute_path, "absolute paths")
_mark = v.matches(r"(0[xX][0-9a-fA-F]+|\d+)(/(0[xX][0-9a-fA-F]+|\d+))?", "a firewall mark, or MARK/MASK")
_domain = v.matches(r"\.|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?", "a domain name, or '.'")
_api = v.matches(r"1\.\d+", "an API version such as 1.44")
_feature_names = v.matches(r"[a-z0-9][a-z0-9-]*", "lower-case letters, digits and dashes")

OPTIONS: dict[str, Option] = {
    "allow-direct-routing": Option(v.boolean, since=(28, 2)),
    "allow-nondistributable-artifacts": Option(
        _texts_list, flag="allow-nondistributable-artifacts", reload=True
    ),
    "api-cors-header": Option(v.anything_text, until=(29, 0)),
    "authorization-plugins": Option(_texts_list, flag="authorization-plugin", reload=True),
    "bip": Option(v.bip),
    "bip6": Option(v.bip6, since=(28, 0)),
    "bridge": Option(v.matches(r"[^\s/]{1,15}", "an interface's name, or none"), short="b"),
    "bridge-accept-fwmark": Option(_mark, since=(29, 0)),
    "builder": Option(_builder),
    "cdi-spec-dirs": Option(_paths, flag="cdi-spec-dir", since=(25, 0)),
    "cgroup-parent": Option(v.some_text),
    "cluster-advertise": Option(v.anything_text, until=(24, 0)),
    "cluster-store": Option(v.anything_text, until=(24, 0)),
    "cluster-store-opts": Option(
        v.mapping(v.anything_text, "texts"), flag="cluster-store-opt", until=(24, 0)
    ),
    "containerd": Option(v.absolute_path),
    "containerd-namespace": Option(v.some_text),
    "cpu-rt-period": Option(v.integer(0)),
    "cpu-rt-runtime": Option(v.integer(0)),
    "cri-containerd": Option(v.boolean),
    "data-root": Option(v.absolute_path),
    "debug": Option(v.boolean, short="D", reload=True),
    "default-address-pools": Option(v.pools, flag="default-address-pool"),
    "default-cgroupns-mode": Option(v.choice("host", "private"), reload=True),
    "default-gateway": Option(v.ipv4_address),
    "default-gateway-v6": Option(v.ipv6_address),
    "default-ipc-mode": Option(v.choice("shareable", "private"), reload=True),
    "default-network-opts": Option(
        v.mapping(v.mapping(v.anything_text, "options as text"), "options by network driver"),
        flag="default-network-opt",
        since=(24, 0),
    ),
    "default-runtime": Option(v.some_text, reload=True),
    "default-shm-size": Option(v.size, reload=True),
    "default-stop-timeout": Option(v.integer(0), reload=True, since=(29, 7)),
    "default-ulimits": Option(
        v.mapping(_ulimit, "{Name: nofile, Hard: 64000, Soft: 64000}", v.choice(*_ULIMITS)),
        flag="default-ulimit",
    ),
    "deprecated-key-path": Option(v.anything_text),
    "dns": Option(v.items(v.ip_address, "IP addresses")),
    "dns-opts": Option(_texts_list, flag="dns-opt"),
    "dns-search": Option(v.items(_domain, "domain names")),
    "exec-opts": Option(
        v.items(
            v.choice("native.cgroupdriver=systemd", "native.cgroupdriver=cgroupfs"),
            "native.cgroupdriver=systemd or native.cgroupdriver=cgroupfs",
        ),
        flag="exec-opt",
    ),
    "exec-root": Option(v.absolute_path),
    "experimental": Option(v.boolean),
    "features": Option(
        v.mapping(v.boolean, "true or false by feature", _feature_names), flag="feature", reload=True
    ),
    "firewall-backend": Option(v.choice("iptables", "nftables"), since=(29, 0)),
    "fixed-cidr": Option(v.ipv4_network),
    "fixed-cidr-v6": Option(v.ipv6_network),
    "group": Option(v.some_text, short="G"),
    "host-gateway-ip": Option(v.ip_address),
    "host-gateway-ips": Option(v.items(v.ip_address, "IP addresses"), flag="host-gateway-ip", since=(28, 0)),
    "hosts": Option(
        v.items(v.socket_address, "sockets such as unix:///run/docker.sock"), flag="host", short="H"
    ),
    "icc": Option(v.boolean),
    "init": Option(v.boolean),
    "init-path": Option(v.some_text),
    "insecure-registries": Option(
        v.items(v.insecure_registry, "HOST[:PORT] or networks"), flag="insecure-registry", reload=True
    ),
    "ip": Option(v.ip_address),
    "ip-forward": Option(v.boolean),
    "ip-forward-no-drop": Option(v.boolean, since=(28, 0)),
    "ip-masq": Option(v.boolean),
    "ip6tables": Option(v.boolean),
    "iptables": Option(v.boolean),
    "ipv6": Option(v.boolean),
    "labels": Option(v.items(v.key_value, "NAME=VALUE"), flag="label", reload=True),
    "live-restore": Option(v.boolean, reload=True),
    "log-driver": Option(v.choice(*LOG_OPTIONS, other=LOG_PLUGIN, meaning="a plugin as NAME:TAG")),
    "log-format": Option(v.choice("text", "json"), since=(25, 0)),
    "log-level": Option(v.choice("trace", "debug", "info", "warn", "error", "fatal", "panic"), short="l"),
    "log-opts": Option(v.mapping(v.anything_text, "options as text, numbers quoted"), flag="log-opt"),
    "max-concurrent-downloads": Option(v.integer(1), reload=True),
    "max-concurrent-uploads": Option(v.integer(1), reload=True),
    "max-download-attempts": Option(v.integer(1), reload=True),
    "metrics-addr": Option(v.listen_address),
    "min-api-version": Option(_api, since=(29, 0)),
    "mtu": Option(v.integer(68, 65535, {0: "the default, 1500"})),
    "network-control-plane-mtu": Option(v.integer(68, 65535)),
    "network-diagnostic-port": Option(v.integer(0, 65535), reload=True),
    "no-new-privileges": Option(v.boolean),
    "node-generic-resources": Option(v.items(v.key_value, "NAME=VALUE"), flag="node-generic-resource"),
    "nri-opts": Option(
        v.record(
            {
                "enable": v.boolean,
                **dict.fromkeys(("plugin-path", "plugin-config-path", "socket-path"), v.absolute_path),
            },
            fold=True,
        ),
        reload=True,
        since=(29, 2),
    ),
    "oom-score-adjust": Option(v.integer(-1000, 1000), until=(26, 0)),
    "pidfile": Option(v.absolute_path, short="p"),
    "proxies": Option(
        v.record({"http-proxy": v.proxy, "https-proxy": v.proxy, "no-proxy": v.anything_text}), since=(23, 0)
    ),
    "raw-logs": Option(v.boolean),
    "registry-mirrors": Option(v.items(v.mirror, "URLs"), flag="registry-mirror", reload=True),
    "rootless": Option(v.boolean),
    "runtimes": Option(
        v.mapping(_runtime, "runtimes such as {path: /usr/bin/crun}"), flag="add-runtime", reload=True
    ),
    "seccomp-profile": Option(v.choice("builtin", "unconfined", other=r"/.+", meaning="an absolute path")),
    "selinux-enabled": Option(v.boolean),
    "shutdown-timeout": Option(v.integer(0, also={-1: "no end"}), reload=True),
    "storage-driver": Option(
        v.choice(*dict.fromkeys((*GRAPH_DRIVERS, *SNAPSHOTTERS)), old=tuple(OLD_GRAPH_DRIVERS)), short="s"
    ),
    "storage-opts": Option(v.items(v.key_value, "NAME=VALUE"), flag="storage-opt"),
    "swarm-default-advertise-addr": Option(v.some_text),
    "tls": Option(v.boolean),
    "tlscacert": Option(v.absolute_path),
    "tlscert": Option(v.absolute_path),
    "tlskey": Option(v.absolute_path),
    "tlsverify": Option(v.boolean),
    "userland-proxy": Option(v.boolean),
    "userland-proxy-path": Option(v.absolute_path),
    "userns-remap": Option(v.matches(r"[^\s:]+(:[^\s:]+)?", "default, USER or USER:GROUP")),
}

PROXIES = ("http-proxy", "https-proxy", "no-proxy")
#: Names that dockerd takes at the top of the file and then ignores, and what is meant.
MISPLACED: dict[str, str] = {
    **{option.flag: key for key, option in OPTIONS.items() if option.flag and option.flag not in OPTIONS},
    **{name: f"proxies.{name}" for name in PROXIES},
    "containerd-plugins-namespace": "nothing, but the flag --containerd-plugins-namespace",
    "config-file": "nothing, but the flag --config-file",
    "validate": "nothing, but the flag --validate",
    "version": "nothing",
    "help": "nothing",
}
