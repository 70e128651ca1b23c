# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's system, kernel, accounts and packages: parsers, and readers over a view of its files."""

from __future__ import annotations

import grp
import os
import platform
import pwd
import re
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._command import Result, Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import MountTable

CAPABILITIES = tuple(
    "CAP_" + name
    for name in (  # noqa: SIM905
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
        "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
        "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
        "PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
"""Names by bit number, from linux/capability.h."""

ENGINES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "docker": (("docker-ce", "docker.io"), ("dockerd",)),
    "containerd": (("containerd.io", "containerd"), ("containerd",)),
    "podman": (("podman",), ("podman",)),
    "runc": (("runc",), ("runc",)),
    "crun": (("crun",), ("crun",)),
    "sysbox": (("sysbox-ce",), ("sysbox-runc",)),
    "gvisor": (("runsc",), ("runsc",)),
}
"""Engine: the packages it comes in, and its program for one that came in none."""

_PROGRAM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")
_PACKAGE = re.compile(r"^[a-z0-9][a-z0-9+.-]+$")
_VERSION = re.compile(r"(\d+(?:\.\d+)+)")
_NF_TABLES_GETGEN = (10 << 8) | 16
DPKG_FORMAT = "${Package}\t${Architecture}\t${Version}\t${db:Status-Abbrev}\n"


def parse_os_release(text: str) -> dict[str, Any]:
    """os-release(5) as id, version_id, major, codename, pretty; what isn't said is None."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            found[key] = re.sub(r"\\(.)", r"\1", value.strip().strip("\"'"))
    version = found.get("VERSION_ID")
    major = (version or "").split(".")[0]
    return {
        "id": found.get("ID"),
        "version_id": version,
        "major": int(major) if major.isdigit() else None,
        "codename": found.get("VERSION_CODENAME"),
        "pretty": found.get("PRETTY_NAME"),
    }


def parse_capabilities(status: str, last: int | None) -> dict[str, list[str]]:
    """The bounding set in ``/proc/<pid>/status``, and what is missing of the ``last`` + 1 the kernel knows."""
    found = re.search(r"^CapBnd:\s*([0-9a-fA-F]+)$", status, re.MULTILINE)
    bits = int(found[1], 16) if found else 0
    known = CAPABILITIES[: last + 1] if last is not None else CAPABILITIES
    return {
        "bounding": [name for bit, name in enumerate(known) if bits >> bit & 1],
        "missing": [name for bit, name in enumerate(known) if not bits >> bit & 1],
    }


def read_cgroup(mounts: MountTable, view: View) -> dict[str, Any]:
    """Version 1, 2 or ``hybrid``, and the controllers that can be used here, sorted."""
    unified = [mount for mount in mounts.mounts if mount.filesystem == "cgroup2"]
    legacy = [mount for mount in mounts.mounts if mount.filesystem == "cgroup"]
    controllers: set[str] = set()
    known = {line.split("\t")[0] for line in (view.text("/proc/cgroups") or "").splitlines()[1:]}
    for mount in legacy:
        controllers |= known & set(mount.super_options)
    for mount in unified:
        controllers |= set((view.text(f"{mount.mount_point}/cgroup.controllers") or "").split())
    version: int | str | None = None
    if unified and legacy:
        version = "hybrid"
    elif unified or legacy:
        version = 2 if unified else 1
    return {"version": version, "controllers": sorted(controllers)}


def parse_manager(result: Result, view: View) -> dict[str, Any]:
    """PID 1: ``systemctl show`` of Version and SystemState. Without systemd the state is ``absent``."""
    if not view.exists("/run/systemd/system"):
        return {"systemd": False, "version": None, "state": "absent"}
    values = dict(line.split("=", 1) for line in result.out.splitlines() if "=" in line)
    version = re.match(r"\d+", values.get("Version", ""))
    return {
        "systemd": True,
        "version": int(version[0]) if version else None,
        "state": values.get("SystemState") or "unknown",
    }


def package_names(asked: Sequence[str]) -> list[str]:
    """``asked`` and every package of :data:`ENGINES`.

    :raises InputError: for what can't be a package's name.
    """
    for name in asked:
        if not _PACKAGE.match(name):
            raise InputError("packages", name, "names of Debian packages (a-z, 0-9, +, -, .)")
    return list(dict.fromkeys([*asked, *(name for names, _ignored in ENGINES.values() for name in names)]))


def query_packages(run: Runner, names: Sequence[str]) -> Result:
    """One ``dpkg-query`` for all ``names``; unknown ones make its code 1."""
    return run(["dpkg-query", "--show", "--showformat", DPKG_FORMAT, *names], check=False, timeout=30.0)


def parse_packages(text: str, architecture: str | None = None) -> dict[str, dict[str, Any]]:
    """Installed packages in dpkg-query's output; of several architectures the native one is kept."""
    found: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) != 4 or fields[3][1:2] != "i":
            continue
        name, arch, version, status = fields
        if name not in found or arch in ("all", architecture):
            found[name] = {"version": version, "hold": status[0] == "h"}
    return found


def upstream_version(version: str) -> str | None:
    """The upstream part of a package's version or a program's ``--version``: ``5:27.3.1-1~x`` is ``27.3.1``."""
    found = _VERSION.search(re.sub(r"^\d+:", "", version))
    return found[1] if found else None


def read_engines(packages: Mapping[str, Mapping[str, Any]], run: Runner, view: View) -> dict[str, Any]:
    """Installed engines and runtimes, without asking a daemon; what isn't installed is None."""
    found: dict[str, Any] = {}
    for engine, (names, programs) in ENGINES.items():
        package = next((name for name in names if name in packages), None)
        if package:
            version = packages[package]["version"]
            found[engine] = {"version": upstream_version(version), "package": package, "program": None}
            continue
        places = (f"{folder}/{program}" for folder in _PROGRAM_FOLDERS for program in programs)
        program = next((place for place in places if view.exists(place)), None)
        found[engine] = program and {
            "version": upstream_version(run([program, "--version"], check=False, timeout=10.0).out),
            "package": None,
            "program": program,
        }
    return found


def apt_lists_age(view: View, now: float | None = None) -> int | None:
    """Seconds since apt last updated its lists; None if there are none."""
    folder = "/var/lib/apt/lists"
    if not [name for name in view.names(folder) if name.endswith("Release") or "_Packages" in name]:
        return None
    times = []
    for path in (folder, f"{folder}/partial", "/var/lib/apt/periodic/update-success-stamp"):
        try:
            times.append(os.stat(view.path(path)).st_mtime)
        except OSError:
            continue
    return max(0, int((time.time() if now is None else now) - max(times))) if times else None


def read_groups(names: Sequence[str]) -> dict[str, Any]:
    """gid and members (by the group file) of each group; one that doesn't exist isn't in it."""
    found: dict[str, Any] = {}
    for name in names:
        try:
            entry = grp.getgrnam(name)
        except KeyError:
            continue
        found[name] = {"gid": entry.gr_gid, "members": sorted(entry.gr_mem)}
    return found


def read_users(names: Sequence[str], view: View) -> dict[str, Any]:
    """uid, gid, home, shell, whether it lingers, and subordinate ids; one that doesn't exist isn't in it."""
    found: dict[str, Any] = {}
    for name in names:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        found[name] = {
            "uid": entry.pw_uid,
            "gid": entry.pw_gid,
            "home": entry.pw_dir,
            "shell": entry.pw_shell,
            "linger": view.exists(f"/var/lib/systemd/linger/{name}"),
            "subuids": subordinate_ids(view.text("/etc/subuid") or "", name, entry.pw_uid),
            "subgids": subordinate_ids(view.text("/etc/subgid") or "", name, entry.pw_uid),
            "subuid_ranges": subordinate_ranges(view.text("/etc/subuid") or "", name, entry.pw_uid),
        }
    return found


def subordinate_ids(text: str, name: str, uid: int) -> int:
    """How many subordinate ids subuid(5) or subgid(5) gives a user, by name or number."""
    return sum(count for _first, count in subordinate_ranges(text, name, uid))


def subordinate_ranges(text: str, name: str, uid: int) -> list[list[int]]:
    """A user's ranges in subuid(5) or subgid(5) as pairs of the first id and how many there are."""
    found = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in (name, str(uid)) and fields[1].isdigit() and fields[2].isdigit():
            found.append([int(fields[1]), int(fields[2])])
    return found


def parse_iptables(result: Result) -> dict[str, Any]:
    """``iptables --version`` as backend (``nft``, ``legacy``, None) and version."""
    version = upstream_version(result.out) if result.ok else None
    if version is None:
        return {"backend": None, "version": None}
    return {"backend": "nft" if "nf_tables" in result.out else "legacy", "version": version}


def module_state(name: str, view: View, release: str) -> str | None:
    """``present`` (loaded or built in) or ``loadable``; None if the kernel's module lists don't tell."""
    if view.exists(f"/sys/module/{name}"):
        return "present"
    pattern = re.compile(rf"/{re.escape(name)}\.ko(\.\w+)?(:|$)", re.MULTILINE)
    for file, state in (("modules.builtin", "present"), ("modules.dep", "loadable")):
        if pattern.search(view.text(f"/lib/modules/{release}/{file}") or ""):
            return state
    return None


def read_kernel_features(view: View, run: Runner, release: str) -> dict[str, Any]:
    """What containers need of the kernel: overlay, namespaces, user namespaces' limit, packet filters.

    overlay, nf_tables and ip_tables are ``present``, ``loadable`` or ``absent``.
    """
    filesystems = [line.split("\t")[-1] for line in (view.text("/proc/filesystems") or "").splitlines()]
    limit = (view.text("/proc/sys/user/max_user_namespaces") or "").strip()
    legacy = "present" if view.exists("/proc/net/ip_tables_names") else None
    return {
        "overlay": "present" if "overlay" in filesystems else _loadable(run, "overlay"),
        "namespaces": [name for name in view.names("/proc/self/ns") if "_for_" not in name],
        "max_user_namespaces": int(limit) if limit.isdigit() else None,
        "nf_tables": module_state("nf_tables", view, release)
        or ("present" if _nf_tables_answers() else "absent"),
        "ip_tables": legacy or module_state("ip_tables", view, release) or "absent",
    }


def _loadable(run: Runner, module: str) -> str:
    """Whether modprobe would load ``module``; an ``install … /bin/false`` rule counts as no."""
    result = run(["modprobe", "--dry-run", "--verbose", module], check=False, timeout=10.0)
    return "loadable" if result.ok and "insmod" in result.out else "absent"


def _nf_tables_answers() -> bool:
    """Ask nf_tables for its generation number by netlink, as a kernel without module lists can't be read."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as sock:
            sock.settimeout(1.0)
            sock.bind((0, 0))
            sock.send(struct.pack("=IHHIIBBH", 20, _NF_TABLES_GETGEN, 1, 1, 0, 0, 0, 0))
            answer = sock.recv(4096)
    except OSError:
        return False
    kind = struct.unpack_from("=H", answer, 4)[0] if len(answer) >= 16 else 2
    return kind != 2


def read_system(view: View) -> dict[str, Any]:
    """Operating system, architecture, kernel release, python, memory, processors, capabilities, effective uid."""
    memory = re.search(r"^MemTotal:\s*(\d+) kB", view.text("/proc/meminfo") or "", re.MULTILINE)
    last = (view.text("/proc/sys/kernel/cap_last_cap") or "").strip()
    return {
        "os": parse_os_release(view.text("/etc/os-release") or view.text("/usr/lib/os-release") or ""),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "uid": os.geteuid(),
        "memory_bytes": int(memory[1]) * 1024 if memory else None,
        "cpus": len(os.sched_getaffinity(0)),
        "capabilities": parse_capabilities(
            view.text("/proc/self/status") or "", int(last) if last.isdigit() else None
        ),
    }
