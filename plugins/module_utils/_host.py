# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything ``host_info`` tells of a host, read in one go. Starts a handful of programs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _host_network as network
from ansible_collections.matryoshka.host.plugins.module_utils import _host_system as system
from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_capacity import read_capacity
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._host_paths import read_path
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Disks, MountTable

_MANAGER = ("systemctl", "show", "--property=Version", "--property=SystemState")


def read_host(
    run: Runner,
    *,
    packages: Sequence[str] = (),
    groups: Sequence[str] = (),
    users: Sequence[str] = (),
    paths: Sequence[str] = (),
    view: View | None = None,
) -> dict[str, Any]:
    """Facts about the host and the packages, groups, users and paths asked for.

    What isn't installed or doesn't exist isn't among ``packages``, ``groups`` and ``users``;
    every path asked for is among ``paths``.

    :raises InputError: for a package's name that can't be one, or a path that isn't absolute.
    """
    view = view or View()
    names = system.package_names(packages)
    for path in paths:
        if not path.startswith("/"):
            raise InputError("paths", path, "absolute paths")
    with ThreadPoolExecutor(max_workers=6) as pool:
        dpkg = pool.submit(system.query_packages, run, names)
        manager = pool.submit(run, _MANAGER, check=False, timeout=10.0)
        iptables = pool.submit(run, ("iptables", "--version"), check=False, timeout=10.0)
        ip = {name: pool.submit(network.start_ip, run, name) for name in network.IP_COMMANDS}
        facts = system.read_system(view)
        kernel = system.read_kernel_features(view, run, facts["kernel"])
        mounts = MountTable.parse(view.text("/proc/self/mountinfo") or "")
        disks = Disks(view.root)
        installed = system.parse_packages(dpkg.result().out)
        return {
            **facts,
            "kernel_features": kernel,
            "init": system.parse_manager(manager.result(), view),
            "cgroup": system.read_cgroup(mounts, view),
            "capacity": read_capacity(view),
            "packages": {name: installed[name] for name in packages if name in installed},
            "apt": {"lists_age_seconds": system.apt_lists_age(view)},
            "engines": system.read_engines(installed, run, view),
            "groups": system.read_groups(groups),
            "users": system.read_users(users, view),
            "paths": {path: read_path(path, view, mounts, disks) for path in paths},
            "network": network.read_network({name: found.result() for name, found in ip.items()}, view),
            "iptables": system.parse_iptables(iptables.result()),
        }
