# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of value that daemon_config refuses, with the message that a person sees.

Two thirds of them pass ``dockerd --validate`` of Docker 26.1 (measured): it decodes the file and looks at a few values.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_config import check_daemon_config
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_config_apply import Request, apply
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from support import table

#: Unknown options of others are kept, with a warning.
TOLERATED = {"storge-driver", "quux"}

REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"storge-driver": "overlay2"},
        "config.storge-driver: 'overlay2' is refused; allowed: an option of dockerd; did you mean 'storage-driver'?",
    ),
    (
        {"storage-driver": "overlay9"},
        "config.storage-driver: 'overlay9' is refused; allowed: one of overlay2, fuse-overlayfs, btrfs, zfs, vfs, overlayfs, native, devmapper, blockfile, erofs, stargz, nydus, soci; did you mean 'overlay2'?",
    ),
    (
        {"storage-driver": ["overlay2"]},
        "config.storage-driver: ['overlay2'] is refused; allowed: one of overlay2, fuse-overlayfs, btrfs, zfs, vfs, overlayfs, native, devmapper, blockfile, erofs, stargz, nydus, soci",
    ),
    (
        {"label": ["a=b"]},
        "config.label: ['a=b'] is refused; allowed: in the file labels; label is taken there and ignored",
    ),
    (
        {"http-proxy": "http://x:1"},
        "config.http-proxy: 'http://x:1' is refused; allowed: in the file proxies.http-proxy; http-proxy is taken there and ignored",
    ),
    (
        {"containerd-plugins-namespace": "x"},
        "config.containerd-plugins-namespace: 'x' is refused; allowed: in the file nothing, but the flag --containerd-plugins-namespace; containerd-plugins-namespace is taken there and ignored",
    ),
    ({"quux": 1}, "config.quux: 1 is refused; allowed: an option of dockerd"),
    (
        {"bip": "not-an-ip"},
        "config.bip: 'not-an-ip' is refused; allowed: an IPv4 address with its prefix length, such as 172.20.0.1/16",
    ),
    (
        {"bip": "172.20.0.1"},
        "config.bip: '172.20.0.1' is refused; allowed: an IPv4 address with its prefix length, such as 172.20.0.1/16",
    ),
    (
        {"bip": "172.20.0.0/16"},
        "config.bip: '172.20.0.0/16' is refused; allowed: an address inside the network, not the network itself: 172.20.0.1/16",
    ),
    (
        {"bip": "172.20.255.255/16"},
        "config.bip: '172.20.255.255/16' is refused; allowed: an address inside the network, not its broadcast address: 172.20.0.1/16",
    ),
    (
        {"bip": "172.20.0.1/31"},
        "config.bip: '172.20.0.1/31' is refused; allowed: a prefix length of at most 30, room for a bridge and a container",
    ),
    (
        {"bip": "127.0.0.1/8"},
        "config.bip: '127.0.0.1/8' is refused; allowed: an IPv4 address with its prefix length, such as 172.20.0.1/16, not loopback, link-local, multicast or unspecified",
    ),
    (
        {"bip": "fd00::1/64"},
        "config.bip: 'fd00::1/64' is refused; allowed: an IPv4 address with its prefix length, such as 172.20.0.1/16",
    ),
    (
        {"bip": 17},
        "config.bip: 17 is refused; allowed: an IPv4 address with its prefix length, such as 172.20.0.1/16",
    ),
    (
        {"bip": ""},
        "config.bip: '' is refused; allowed: an IPv4 address with its prefix length, such as 172.20.0.1/16",
    ),
    (
        {"bip6": "10.0.0.1/8"},
        "config.bip6: '10.0.0.1/8' is refused; allowed: an IPv6 address with its prefix length, such as fd00:172:20::1/64",
    ),
    (
        {"bip6": "fd00::/64"},
        "config.bip6: 'fd00::/64' is refused; allowed: an address inside the network, not the network itself: fd00::1/64",
    ),
    (
        {"default-address-pools": "172.30.0.0/16"},
        "config.default-address-pools: '172.30.0.0/16' is refused; allowed: a list of {base: 172.25.0.0/16, size: 24}",
    ),
    (
        {"default-address-pools": [{"base": "172.30.0.0/24", "size": 16}]},
        "config.default-address-pools[0].size: 16 is refused; allowed: a whole number from 24 (the prefix length of base 172.30.0.0/24) to 30",
    ),
    (
        {"default-address-pools": [{"base": "172.30.0.0/16", "sise": 24}]},
        "config.default-address-pools[0]: {'base': '172.30.0.0/16', 'sise': 24} is refused; allowed: {base: 172.25.0.0/16, size: 24}",
    ),
    (
        {"default-address-pools": [{"base": "172.30.0.1/16", "size": 24}]},
        "config.default-address-pools[0].base: '172.30.0.1/16' is refused; allowed: a network without host bits: 172.30.0.0/16",
    ),
    (
        {"default-address-pools": [{"base": "172.30.0.0/16", "size": 32}]},
        "config.default-address-pools[0].size: 32 is refused; allowed: a whole number from 16 (the prefix length of base 172.30.0.0/16) to 30",
    ),
    (
        {"default-address-pools": [{"base": "172.30.0.0/16", "size": "24"}]},
        "config.default-address-pools[0].size: '24' is refused; allowed: a whole number from 16 (the prefix length of base 172.30.0.0/16) to 30",
    ),
    (
        {"default-address-pools": [{"base": "x", "size": 24}]},
        "config.default-address-pools[0].base: 'x' is refused; allowed: a network such as 172.25.0.0/16",
    ),
    (
        {
            "default-address-pools": [
                {"base": "172.30.0.0/16", "size": 24},
                {"base": "172.30.128.0/17", "size": 24},
            ]
        },
        "config.default-address-pools[1].base: '172.30.128.0/17' is refused; allowed: a range apart from default-address-pools[0].base 172.30.0.0/16, which it overlaps",
    ),
    (
        {"bip": "172.30.0.1/24", "default-address-pools": [{"base": "172.30.0.0/16", "size": 24}]},
        "config.default-address-pools[0].base: '172.30.0.0/16' is refused; allowed: a range apart from bip 172.30.0.0/24, which it overlaps",
    ),
    (
        {"fixed-cidr": "172.21.0.0/24", "bip": "172.20.0.1/16"},
        "config.fixed-cidr: '172.21.0.0/24' is refused; allowed: inside the network of bip, 172.20.0.0/16",
    ),
    (
        {"fixed-cidr": "172.20.0.1/24"},
        "config.fixed-cidr: '172.20.0.1/24' is refused; allowed: an IPv4 network without host bits: 172.20.0.0/24",
    ),
    (
        {"default-gateway": "10.0.0.1", "bip": "172.20.0.1/16"},
        "config.default-gateway: '10.0.0.1' is refused; allowed: inside the network of bip, 172.20.0.0/16",
    ),
    ({"default-gateway": "gw"}, "config.default-gateway: 'gw' is refused; allowed: an IPv4 address"),
    (
        {"mtu": 70000},
        "config.mtu: 70000 is refused; allowed: a whole number from 68 to 65535, or 0 (the default, 1500)",
    ),
    (
        {"mtu": "1500"},
        "config.mtu: '1500' is refused; allowed: a whole number from 68 to 65535, or 0 (the default, 1500)",
    ),
    (
        {"mtu": 67},
        "config.mtu: 67 is refused; allowed: a whole number from 68 to 65535, or 0 (the default, 1500)",
    ),
    (
        {"mtu": True},
        "config.mtu: True is refused; allowed: a whole number from 68 to 65535, or 0 (the default, 1500)",
    ),
    ({"mtu": 1000, "ipv6": True}, "config.mtu: 1000 is refused; allowed: at least 1280 with ipv6: true"),
    (
        {"log-driver": "jsonfile"},
        "config.log-driver: 'jsonfile' is refused; allowed: one of none, json-file, local, journald, syslog, gelf, fluentd, awslogs, gcplogs, splunk, or a plugin as NAME:TAG; did you mean 'json-file'?",
    ),
    (
        {"log-driver": "loki"},
        "config.log-driver: 'loki' is refused; allowed: one of none, json-file, local, journald, syslog, gelf, fluentd, awslogs, gcplogs, splunk, or a plugin as NAME:TAG",
    ),
    (
        {"log-opts": {"max-size": "lots"}},
        "config.log-opts.max-size: 'lots' is refused; allowed: one of -1, or a size such as 10m",
    ),
    (
        {"log-opts": {"max-file": 3}},
        "config.log-opts.max-file: 3 is refused; allowed: text, numbers and the like in quotes",
    ),
    (
        {"log-opts": {"max-sise": "10m"}},
        "config.log-opts.max-sise: '10m' is refused; allowed: an option of log-driver json-file: compress, env, env-regex, labels, labels-regex, max-file, max-size, tag; did you mean 'max-size'?",
    ),
    (
        {"log-opts": {"max-file": "0"}},
        "config.log-opts.max-file: '0' is refused; allowed: a whole number of at least 1, as text",
    ),
    (
        {"log-driver": "local", "log-opts": {"max-size": "-1"}},
        "config.log-opts.max-size: '-1' is refused; allowed: a size as text, such as 10m or 1g",
    ),
    (
        {"log-driver": "none", "log-opts": {"tag": "x"}},
        "config.log-opts.tag: 'x' is refused; allowed: an option of log-driver none: it has none",
    ),
    (
        {"log-opts": {"max-buffer-size": "4m"}},
        "config.log-opts.max-buffer-size: '4m' is refused; allowed: only with mode: non-blocking",
    ),
    (
        {"log-opts": {"mode": "async"}},
        "config.log-opts.mode: 'async' is refused; allowed: one of blocking, non-blocking",
    ),
    (
        {"log-opts": {"compress": "true"}},
        "config.log-opts.compress: 'true' is refused; allowed: only with max-size and a max-file of at least 2",
    ),
    (
        {"log-opts": ["max-size=10m"]},
        "config.log-opts: ['max-size=10m'] is refused; allowed: a mapping of options as text, numbers quoted",
    ),
    (
        {"log-level": "warning"},
        "config.log-level: 'warning' is refused; allowed: one of trace, debug, info, warn, error, fatal, panic",
    ),
    ({"log-format": "xml"}, "config.log-format: 'xml' is refused; allowed: one of text, json"),
    (
        {"default-runtime": "sysbox"},
        "config.default-runtime: 'sysbox' is refused; allowed: one of runc, io.containerd.runc.v2, or another name in runtimes",
    ),
    (
        {"default-runtime": "crn", "runtimes": {"crun": {"path": "/usr/bin/crun"}}},
        "config.default-runtime: 'crn' is refused; allowed: one of runc, io.containerd.runc.v2, crun, or another name in runtimes; did you mean 'crun'?",
    ),
    (
        {"runtimes": {"runc": {"path": "/x"}}},
        "config.runtimes.runc: {'path': '/x'} is refused; allowed: another name; runc is dockerd's own",
    ),
    (
        {"runtimes": {"x": {"pth": "/x"}}},
        "config.runtimes.x.pth: '/x' is refused; allowed: one of the keys path, runtimeArgs, runtimeType, options; did you mean 'path'?",
    ),
    ({"runtimes": {"x": {}}}, "config.runtimes.x: {} is refused; allowed: either path or runtimeType"),
    (
        {"runtimes": {"x": {"path": "/x", "runtimeType": "y"}}},
        "config.runtimes.x: {'path': '/x', 'runtimeType': 'y'} is refused; allowed: either path or runtimeType",
    ),
    (
        {"runtimes": {"x": {"path": "/x", "options": {"a": 1}}}},
        "config.runtimes.x.options: {'a': 1} is refused; allowed: only with runtimeType; a path has runtimeArgs",
    ),
    (
        {"runtimes": {"x": {"runtimeType": "y", "runtimeArgs": ["a"]}}},
        "config.runtimes.x.runtimeArgs: ['a'] is refused; allowed: only with path; a runtimeType has options",
    ),
    (
        {"runtimes": {"x": {"path": "/x", "Path": "/y"}}},
        "config.runtimes.x.Path: '/y' is refused; allowed: path once",
    ),
    (
        {"runtimes": ["crun"]},
        "config.runtimes: ['crun'] is refused; allowed: a mapping of runtimes such as {path: /usr/bin/crun}",
    ),
    (
        {"userns-remap": "default"},
        "config.userns-remap: 'default' is refused; allowed: only where no container is privileged (privileged_containers: false); a daemon with remapped users refuses --privileged, so nested engines don't start",
    ),
    (
        {"userns-remap": "a:b:c"},
        "config.userns-remap: 'a:b:c' is refused; allowed: default, USER or USER:GROUP",
    ),
    (
        {"live-restore": True, "swarm-default-advertise-addr": "eth0"},
        "config.live-restore: True is refused; allowed: false with swarm-default-advertise-addr; a daemon with live-restore can't join a swarm",
    ),
    (
        {"firewall-backend": "nftables", "swarm-default-advertise-addr": "eth0"},
        "config.firewall-backend: 'nftables' is refused; allowed: iptables with swarm-default-advertise-addr",
    ),
    (
        {"firewall-backend": "pf"},
        "config.firewall-backend: 'pf' is refused; allowed: one of iptables, nftables",
    ),
    (
        {"bridge": "none", "bip": "172.20.0.1/16"},
        "config.bip: '172.20.0.1/16' is refused; allowed: only without bridge ('none'), whose addresses dockerd doesn't set",
    ),
    (
        {"bridge": "none", "fixed-cidr": "172.20.0.0/16"},
        "config.fixed-cidr: '172.20.0.0/16' is refused; allowed: only without bridge ('none'), whose addresses dockerd doesn't set",
    ),
    (
        {"iptables": False, "icc": False},
        "config.icc: False is refused; allowed: true with iptables: false; dockerd separates containers with its rules",
    ),
    (
        {"iptables": False, "ip-masq": True},
        "config.ip-masq: True is refused; allowed: false with iptables: false; dockerd masks addresses with its rules",
    ),
    ({"iptables": "false"}, "config.iptables: 'false' is refused; allowed: true or false"),
    (
        {"icc": False, "ipv6": True, "ip6tables": False},
        "config.icc: False is refused; allowed: true with ipv6: true and ip6tables: false; dockerd separates containers with its rules",
    ),
    (
        {"tlsverify": True},
        "config.tlsverify: True is refused; allowed: only with tlscacert, tlscert, tlskey; missing: tlscacert, tlscert, tlskey",
    ),
    (
        {"tls": True, "tlscert": "/c"},
        "config.tls: True is refused; allowed: only with tlscert, tlskey; missing: tlskey",
    ),
    (
        {"tlscert": "/c"},
        "config.tlscert: '/c' is refused; allowed: only with tls: true or tlsverify: true; else it is ignored",
    ),
    (
        {"hosts": ["tcp://0.0.0.0:2375"]},
        "config.hosts[0]: 'tcp://0.0.0.0:2375' is refused; allowed: with tlsverify: true, or with tls: false to say that anyone who reaches it may be root on this host",
    ),
    (
        {"hosts": ["http://x"]},
        "config.hosts[0]: 'http://x' is refused; allowed: fd://, unix:///run/docker.sock or tcp://ADDRESS:PORT",
    ),
    (
        {"hosts": ["unix://run/x"]},
        "config.hosts[0]: 'unix://run/x' is refused; allowed: fd://, unix:///run/docker.sock or tcp://ADDRESS:PORT",
    ),
    (
        {"hosts": ["tcp://x:99999"]},
        "config.hosts[0]: 'tcp://x:99999' is refused; allowed: fd://, unix:///run/docker.sock or tcp://ADDRESS:PORT",
    ),
    (
        {"hosts": "fd://"},
        "config.hosts: 'fd://' is refused; allowed: a list of sockets such as unix:///run/docker.sock",
    ),
    ({"hosts": ["fd://", "fd://"]}, "config.hosts[1]: 'fd://' is refused; allowed: each item once"),
    (
        {"exec-opts": ["native.cgroupdriver=sysd"]},
        "config.exec-opts[0]: 'native.cgroupdriver=sysd' is refused; allowed: one of native.cgroupdriver=systemd, native.cgroupdriver=cgroupfs; did you mean 'native.cgroupdriver=systemd'?",
    ),
    (
        {"exec-opts": ["native.cgroupdriver=systemd", "native.cgroupdriver=cgroupfs"]},
        "config.exec-opts: ['native.cgroupdriver=systemd', 'native.cgroupdriver=cgroupfs'] is refused; allowed: native.cgroupdriver once",
    ),
    (
        {"exec-opts": ["native.cgroupdriver=systemd"], "cgroup-parent": "/ci"},
        "config.cgroup-parent: '/ci' is refused; allowed: a slice NAME.slice with native.cgroupdriver=systemd",
    ),
    (
        {"registry-mirrors": ["mirror.example"]},
        "config.registry-mirrors[0]: 'mirror.example' is refused; allowed: http(s)://HOST[:PORT][/PATH] without user, query and fragment",
    ),
    (
        {"registry-mirrors": ["https://user:secret@mirror.example"]},
        "config.registry-mirrors[0]: 'https://********@mirror.example' is refused; allowed: http(s)://HOST[:PORT][/PATH] without user, query and fragment",
    ),
    (
        {"registry-mirrors": ["https://mirror.example/?a"]},
        "config.registry-mirrors[0]: 'https://mirror.example/?a' is refused; allowed: http(s)://HOST[:PORT][/PATH] without user, query and fragment",
    ),
    (
        {"insecure-registries": ["http://x:5000"]},
        "config.insecure-registries[0]: 'http://x:5000' is refused; allowed: HOST[:PORT] or a network such as 10.1.0.0/16, without a scheme",
    ),
    (
        {"insecure-registries": ["10.0.0.0/99"]},
        "config.insecure-registries[0]: '10.0.0.0/99' is refused; allowed: HOST[:PORT] or a network such as 10.1.0.0/16, without a scheme",
    ),
    ({"dns": ["x"]}, "config.dns[0]: 'x' is refused; allowed: an IP address"),
    ({"dns": "10.0.0.1"}, "config.dns: '10.0.0.1' is refused; allowed: a list of IP addresses"),
    ({"dns-search": ["a b"]}, "config.dns-search[0]: 'a b' is refused; allowed: a domain name, or '.'"),
    (
        {"default-ulimits": {"nofile": {"Name": "nofile", "Hard": 1, "Soft": 2}}},
        "config.default-ulimits.nofile.Soft: 2 is refused; allowed: at most Hard, 1",
    ),
    (
        {"default-ulimits": {"nofile": {"Hard": 1, "Soft": 1}}},
        "config.default-ulimits.nofile: {'Hard': 1, 'Soft': 1} is refused; allowed: a mapping that has Name",
    ),
    (
        {"default-ulimits": {"files": {"Name": "nofile", "Hard": 1, "Soft": 1}}},
        "config.default-ulimits.files: 'files' is refused; allowed: as a name: one of core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack",
    ),
    (
        {"default-ulimits": {"nofile": {"Name": "nproc", "Hard": 1, "Soft": 1}}},
        "config.default-ulimits.nofile.Name: 'nproc' is refused; allowed: nofile",
    ),
    (
        {"features": {"buildkt": True}},
        "config.features.buildkt: True is refused; allowed: one of buildkit, cdi, containerd-migration, containerd-snapshotter, embedded-containerd, swarm-nftables, time-namespaces; did you mean 'buildkit'?",
    ),
    ({"features": {"buildkit": "yes"}}, "config.features.buildkit: 'yes' is refused; allowed: true or false"),
    (
        {"builder": {"gc": {"defaultKepStorage": "1GB"}}},
        "config.builder.gc.defaultKepStorage: '1GB' is refused; allowed: one of the keys enabled, policy, defaultKeepStorage, defaultReservedSpace, defaultMaxUsedSpace, defaultMinFreeSpace; did you mean 'defaultKeepStorage'?",
    ),
    (
        {"builder": {"gc": {"defaultKeepStorage": "lots"}}},
        "config.builder.gc.defaultKeepStorage: 'lots' is refused; allowed: a size as text, such as 512MB or 10g",
    ),
    (
        {"builder": {"gc": {"policy": [{"filter": ["all"]}]}}},
        "config.builder.gc.policy[0].filter[0]: 'all' is refused; allowed: NAME=VALUE",
    ),
    (
        {"builder": {"history": {"maxAge": "2 days"}}},
        "config.builder.history.maxAge: '2 days' is refused; allowed: a duration such as 90s, 10m or 48h",
    ),
    ({"data-root": "var/x"}, "config.data-root: 'var/x' is refused; allowed: an absolute path"),
    (
        {"storage-opts": ["overlay2.size=x"]},
        "config.storage-opts[0]: 'overlay2.size=x' is refused; allowed: overlay2.size=a size as text, such as 512MB or 10g",
    ),
    (
        {"storage-opts": ["overlay2.sise=1G"]},
        "config.storage-opts[0]: 'overlay2.sise=1G' is refused; allowed: an option of a storage driver: overlay2.size, overlay2.override_kernel_check, btrfs.min_space, zfs.fsname, size; did you mean 'overlay2.size'?",
    ),
    (
        {"storage-opts": ["zfs.fsname=a"], "storage-driver": "btrfs"},
        "config.storage-opts[0]: 'zfs.fsname=a' is refused; allowed: an option of storage-driver btrfs: btrfs.min_space",
    ),
    ({"storage-opts": ["x"]}, "config.storage-opts[0]: 'x' is refused; allowed: NAME=VALUE"),
    (
        {"storage-opts": ["overlay2.size=10G"], "features": {"containerd-snapshotter": True}},
        "config.storage-opts[0]: 'overlay2.size=10G' is refused; allowed: none with features.containerd-snapshotter; a graph driver's option has no effect on containerd's snapshotters",
    ),
    (
        {"storage-driver": "overlay2", "features": {"containerd-snapshotter": True}},
        "config.storage-driver: 'overlay2' is refused; allowed: one of overlayfs, native, btrfs, zfs, devmapper, blockfile, erofs, fuse-overlayfs, stargz, nydus, soci with features.containerd-snapshotter",
    ),
    (
        {"storage-driver": "overlayfs", "features": {"containerd-snapshotter": False}},
        "config.storage-driver: 'overlayfs' is refused; allowed: one of overlay2, fuse-overlayfs, btrfs, zfs, vfs, aufs, overlay, devicemapper without features.containerd-snapshotter",
    ),
    (
        {"shutdown-timeout": -2},
        "config.shutdown-timeout: -2 is refused; allowed: a whole number of at least 0, or -1 (no end)",
    ),
    (
        {"default-shm-size": 64},
        "config.default-shm-size: 64 is refused; allowed: a size as text, such as 512MB or 10g",
    ),
    (
        {"default-shm-size": "64X"},
        "config.default-shm-size: '64X' is refused; allowed: a size as text, such as 512MB or 10g",
    ),
    (
        {"seccomp-profile": "x"},
        "config.seccomp-profile: 'x' is refused; allowed: one of builtin, unconfined, or an absolute path",
    ),
    (
        {"default-cgroupns-mode": "shared"},
        "config.default-cgroupns-mode: 'shared' is refused; allowed: one of host, private",
    ),
    (
        {"default-ipc-mode": "host"},
        "config.default-ipc-mode: 'host' is refused; allowed: one of shareable, private",
    ),
    (
        {"max-concurrent-downloads": 0},
        "config.max-concurrent-downloads: 0 is refused; allowed: a whole number of at least 1",
    ),
    ({"metrics-addr": "9323"}, "config.metrics-addr: '9323' is refused; allowed: ADDRESS:PORT"),
    ({"labels": ["x"]}, "config.labels[0]: 'x' is refused; allowed: NAME=VALUE"),
    (
        {"labels": ["a=1", "a=2"]},
        "config.labels[1]: 'a=2' is refused; allowed: each name once, but a=1 is there too",
    ),
    (
        {"node-generic-resources": ["gpu"]},
        "config.node-generic-resources[0]: 'gpu' is refused; allowed: NAME=VALUE",
    ),
    ({"host-gateway-ip": "x"}, "config.host-gateway-ip: 'x' is refused; allowed: an IP address"),
    (
        {"host-gateway-ip": "10.0.0.1", "host-gateway-ips": ["10.0.0.1"]},
        "config.host-gateway-ip: '10.0.0.1' is refused; allowed: only without host-gateway-ips, its newer form",
    ),
    (
        {"proxies": {"http-proxy": "proxy:3128"}},
        "config.proxies.http-proxy: 'proxy:3128' is refused; allowed: a proxy's URL such as http://proxy.example.com:3128",
    ),
    (
        {"proxies": {"http_proxy": "http://proxy:3128"}},
        "config.proxies.http_proxy: 'http://proxy:3128' is refused; allowed: one of the keys http-proxy, https-proxy, no-proxy; did you mean 'http-proxy'?",
    ),
    ({"debug": "true"}, "config.debug: 'true' is refused; allowed: true or false"),
    (
        {"min-api-version": "1"},
        "config.min-api-version: '1' is refused; allowed: an API version such as 1.44",
    ),
    (
        {"bridge-accept-fwmark": "x"},
        "config.bridge-accept-fwmark: 'x' is refused; allowed: a firewall mark, or MARK/MASK",
    ),
    (
        {"nri-opts": {"enabled": True}},
        "config.nri-opts.enabled: True is refused; allowed: one of the keys enable, plugin-path, plugin-config-path, socket-path; did you mean 'enable'?",
    ),
    (
        {"default-network-opts": {"bridge": {"com.docker.network.driver.mtu": 1400}}},
        "config.default-network-opts.bridge.com.docker.network.driver.mtu: 1400 is refused; allowed: text, numbers and the like in quotes",
    ),
    (
        {"default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "70000"}}},
        "config.default-network-opts.bridge.com.docker.network.driver.mtu: '70000' is refused; allowed: 68 to 65535, as text",
    ),
    (
        {"cri-containerd": True, "features": {"embedded-containerd": True}},
        "config.cri-containerd: True is refused; allowed: false with features.embedded-containerd",
    ),
    (
        {"containerd-namespace": "plugins.moby"},
        "config.containerd-namespace: 'plugins.moby' is refused; allowed: another namespace than the plugins' own",
    ),
    ({"pidfile": "x"}, "config.pidfile: 'x' is refused; allowed: an absolute path"),
    ({"cdi-spec-dirs": ["x"]}, "config.cdi-spec-dirs[0]: 'x' is refused; allowed: an absolute path"),
    (
        {"oom-score-adjust": -2000},
        "config.oom-score-adjust: -2000 is refused; allowed: a whole number from -1000 to 1000",
    ),
]


@pytest.mark.parametrize(("config", "message"), REFUSED)
def test_message_names_option_value_and_what_is_allowed(config: dict[str, Any], message: str) -> None:
    assert check_daemon_config(config, "config") == [message]


@pytest.mark.parametrize(("config", "message"), REFUSED)
def test_refused_value_leaves_the_file_alone(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text('{"registry-mirrors":["https://mirror.example"]}')
    before = (path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns)
    wanted = {"registry-mirrors": ["https://mirror.example"], **config}
    with pytest.raises(HostError) as caught:
        apply(Request(str(path), wanted, unit=""), table({}))
    assert str(caught.value) == message
    assert (path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["daemon.json"]


@pytest.mark.parametrize(("config", "message"), REFUSED)
def test_same_value_written_by_others_is_refused_under_the_name_of_the_file(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps(config))
    if set(config) <= TOLERATED or config == {"bip": ""}:
        assert apply(Request(str(path), {"debug": True}, unit=""), table({}))["changed"]
        return
    with pytest.raises(HostError) as caught:
        apply(Request(str(path), {"experimental": True}, unit=""), table({}))
    assert str(caught.value) == message.replace("config.", f"{path}: ", 1)
    assert path.read_text() == json.dumps(config)


def test_all_wrong_values_are_named_at_once() -> None:
    messages = check_daemon_config({"bip": "x", "mtu": -1, "storge-driver": "overlay2"}, "docker_config")
    assert [message.split(":")[0] for message in messages] == [
        "docker_config.bip",
        "docker_config.mtu",
        "docker_config.storge-driver",
    ]


def test_not_a_mapping() -> None:
    assert check_daemon_config(["bip"], "docker_config") == [  # type: ignore[arg-type]
        "docker_config: ['bip'] is refused; allowed: a mapping of dockerd's options"
    ]


VERSIONS: list[tuple[dict[str, Any], tuple[int, int], str | None]] = [
    ({"log-format": "json"}, (20, 10), "Docker 25.0 or newer; here is 20.10"),
    ({"log-format": "json"}, (25, 0), None),
    ({"firewall-backend": "nftables"}, (26, 1), "Docker 29.0 or newer; here is 26.1"),
    ({"oom-score-adjust": -500}, (25, 0), None),
    ({"oom-score-adjust": -500}, (26, 1), "a Docker older than 26.0; here is 26.1"),
    ({"storage-driver": "aufs"}, (20, 10), None),
    (
        {"storage-driver": "aufs"},
        (26, 1),
        "one of overlay2, fuse-overlayfs, btrfs, zfs, vfs without features.containerd-snapshotter",
    ),
    (
        {"storage-driver": "overlayfs"},
        (26, 1),
        "one of overlay2, fuse-overlayfs, btrfs, zfs, vfs without features.containerd-snapshotter",
    ),
    ({"storage-driver": "overlayfs"}, (29, 1), None),
    ({"storage-driver": "aufs"}, (29, 1), "one of overlay2, fuse-overlayfs, btrfs, zfs, vfs"),
]


@pytest.mark.parametrize(("config", "version", "allowed"), VERSIONS)
def test_options_by_release(config: dict[str, Any], version: tuple[int, int], allowed: str | None) -> None:
    messages = check_daemon_config(config, "d", version=version)
    assert [message.split("allowed: ")[1] for message in messages] == ([allowed] if allowed else [])


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"bip": "172.20.0.1/16", "default-address-pools": [{"base": "172.25.0.0/16", "size": 24}]},
    {"bip": "10.9.0.5/30", "fixed-cidr": "10.9.0.4/30", "default-gateway": "10.9.0.6"},
    {"bip6": "fd00:1::1/64", "ipv6": True, "default-address-pools": [{"base": "fd00:2::/56", "size": 64}]},
    {"bridge": "none"},
    {"runtimes": {"sysbox-runc": {"path": "/usr/bin/sysbox-runc"}}, "default-runtime": "sysbox-runc"},
    {"runtimes": {"runsc": {"runtimeType": "io.containerd.runsc.v1", "options": {"TypeUrl": "x", "N": 1}}}},
    {"default-runtime": "io.containerd.kata.v2"},
    {
        "log-driver": "json-file",
        "log-opts": {"max-size": "1.5G", "max-file": "3", "compress": "true", "tag": "{{.ID}}"},
    },
    {"log-driver": "registry.example:5000/loki-docker-driver:2.9", "log-opts": {"loki-url": "http://x"}},
    {"log-driver": "grafana/loki-docker-driver:latest"},
    {
        "log-driver": "journald",
        "log-opts": {"mode": "non-blocking", "max-buffer-size": "4m", "cache-disabled": "true"},
    },
    {"hosts": ["fd://", "unix:///run/docker.sock", "tcp://127.0.0.1:2375", "tcp://[::1]:2375"]},
    {"hosts": ["tcp://:2375"], "tls": False},
    {
        "hosts": ["tcp://0.0.0.0:2376"],
        "tlsverify": True,
        "tlscacert": "/certs/ca.pem",
        "tlscert": "/certs/cert.pem",
        "tlskey": "/certs/key.pem",
    },
    {"registry-mirrors": ["http://172.20.0.1:5000", "https://mirror.example/hub/"]},
    {"insecure-registries": ["registry.example", "10.1.0.0/16", "[fd00::1]:5000", "fd00::/8"]},
    {
        "builder": {
            "gc": {
                "enabled": True,
                "defaultKeepStorage": "20GB",
                "policy": [
                    {"keepStorage": "10GB", "filter": ["unused-for=48h"]},
                    {"all": True, "maxUsedSpace": "1 GB"},
                ],
            },
            "Entitlements": {"network-host": False},
            "history": {"maxAge": "48h30m", "maxEntries": 50},
        }
    },
    {"features": {"buildkit": True, "something-from-the-future": True}},
    {"features": {"containerd-snapshotter": True}, "storage-driver": "overlayfs"},
    {"storage-driver": "overlay2", "storage-opts": ["overlay2.size=10G"]},
    {"storage-driver": "devicemapper", "storage-opts": ["dm.basesize=20G"]},
    {"default-ulimits": {"nofile": {"Name": "nofile", "Hard": 64000, "Soft": 1024}}},
    {"default-ulimits": {"memlock": {"name": "memlock", "hard": -1, "soft": -1}}},
    {"exec-opts": ["native.cgroupdriver=systemd"], "cgroup-parent": "ci-jobs.slice"},
    {"proxies": {"http-proxy": "http://user:secret@proxy:3128", "no-proxy": "localhost,10.0.0.0/8"}},
    {"default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1400"}}, "mtu": 1400},
    {"icc": False, "ip-masq": False, "live-restore": True, "shutdown-timeout": -1, "mtu": 0},
]


@pytest.mark.parametrize("config", ACCEPTED)
def test_accepted(config: dict[str, Any]) -> None:
    assert check_daemon_config(config, "d") == []


def test_remapped_users_without_privileged_containers() -> None:
    assert check_daemon_config({"userns-remap": "default"}, "d", privileged=False) == []
    config = {"userns-remap": "default", "features": {"containerd-snapshotter": True}}
    assert [text.split("allowed: ")[1] for text in check_daemon_config(config, "d", privileged=False)] == [
        "only without features.containerd-snapshotter; dockerd refuses both together"
    ]


PARTIAL: list[dict[str, Any]] = [
    {"default-runtime": "sysbox-runc"},
    {"log-opts": {"loki-url": "http://x"}},
    {"tlsverify": True},
    {"tlskey": "/certs/key.pem"},
    {"runtimes": {"x": {"runtimeArgs": ["--debug"]}}},
]


@pytest.mark.parametrize("config", PARTIAL)
def test_what_only_the_whole_file_can_tell_waits_for_it(config: dict[str, Any]) -> None:
    assert check_daemon_config(config, "d", partial=True) == []
    assert check_daemon_config(config, "d") != []
