# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of modes: how a job environment gets its engine, and what that promises.

Playbooks, the runner role, the host's program, verify and the documentation all read
this table. Adding a mode is adding a record here, a role if it needs software, and a
Molecule scenario.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError


@dataclass(frozen=True)
class Mode:
    """One way to give a job its engine.

    ``promises`` are codes that verify checks on a running environment;
    ``requires`` are codes of what preflight asks of a host.
    """

    name: str
    summary: str
    engine: str
    runtime: str
    privileged: bool
    inner_engine: str
    inner_data_root: str
    gets: tuple[str, ...]
    taken_away: tuple[str, ...]
    promises: tuple[str, ...]
    requires: tuple[str, ...]

    def for_runner(self) -> dict[str, Any]:
        """What the host's program needs to know of the mode, as in a runner's configuration."""
        wanted = ("name", "engine", "runtime", "privileged", "inner_engine", "inner_data_root")
        return {key: value for key, value in asdict(self).items() if key in wanted}


MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode(
            name="dind",
            summary="A Docker daemon of its own in a privileged container",
            engine="docker",
            runtime="runc",
            privileged=True,
            inner_engine="docker",
            inner_data_root="/var/lib/docker",
            gets=(
                "a Docker daemon that no other job sees",
                "a new root file system, network and process tree for every job",
            ),
            taken_away=("the host's Docker socket", "other jobs' containers, images and files"),
            promises=(
                "own_engine",
                "own_pid_namespace",
                "own_network_namespace",
                "own_mount_namespace",
                "no_host_socket",
                "data_root_not_shared",
            ),
            requires=("systemd", "root", "overlay", "namespaces", "cgroup_limits", "docker", "capabilities"),
        ),
    )
}


def mode(name: Any, variable: str) -> Mode:
    """The record of the mode called ``name``; ``variable`` is what a person wrote it in.

    :raises InputError: if there is no such mode.
    """
    if not isinstance(name, str) or name not in MODES:
        raise InputError(variable, name, "one of " + ", ".join(sorted(MODES)))
    return MODES[name]
