#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_storage_info
short_description: What an engine's storage is, where it really lies, and whether that is good
version_added: 0.1.0
description:
  - Asks Docker, rootless Docker or Podman for its storage, on the host or inside containers, and looks from
    outside which file system and disk the data is on.
  - Judges it as V(ok), V(degraded) or V(broken), with reasons and remedies. With O(expect) it fails unless
    that is met.
  - Several containers are asked side by side in one round trip. Changes nothing. Needs root for what is in
    containers.
attributes:
  check_mode:
    support: full
    description:
      - Does the same in check mode, except that an engine or container that isn't there yet doesn't fail
        O(expect).
  diff_mode:
    support: none
    description: Changes nothing.
  platform:
    support: full
    platforms: posix
    description: Linux.
options:
  engine:
    description: The engine that is asked.
    type: str
    choices: [docker, rootless_docker, podman]
    default: docker
  user:
    description: Whose engine it is. Needed for V(rootless_docker), else for a user's own Podman.
    type: str
  containers:
    description: Names or ids of containers whose inner engine is asked, instead of the host's.
    type: list
    elements: str
    default: []
    aliases: [container]
  outer_engine:
    description: The host's engine that runs O(containers).
    type: str
    choices: [docker, podman]
    default: docker
  include_host:
    description: Ask the host's engine too when O(containers) is given.
    type: bool
    default: false
  timeout:
    description: Seconds after which an engine that doesn't answer counts as dead.
    type: int
    default: 15
  expect:
    description: What must be so. The module fails with reasons and remedies otherwise.
    type: dict
    suboptions:
      verdict:
        description: The worst verdict that passes.
        type: str
        choices: [ok, degraded]
        default: ok
      allow:
        description:
          - Codes of reasons that don't count, such as V(root_disk).
        type: list
        elements: str
        default: []
      driver:
        description: The storage driver, or the snapshotter of containerd's store.
        type: str
      data_root:
        description: The engine's data root.
        type: str
      backing_filesystem:
        description: The file system below, such as V(xfs).
        type: str
author:
  - The matryoshka.host authors (@matryoshka-host)
"""

EXAMPLES = r"""
- name: Look at the host's Docker
  matryoshka.host.engine_storage_info:
  register: storage

- name: Refuse inner engines that copy layers or lie on an overlay
  matryoshka.host.engine_storage_info:
    containers: [ci-1, ci-2]
    expect:
      verdict: ok
      allow: [root_disk]
      driver: overlay2
"""

RETURN = r"""
verdict:
  description: The worst of the verdicts, V(ok), V(degraded) or V(broken).
  returned: always
  type: str
engines:
  description: One entry for each engine asked, the host's first.
  returned: always
  type: list
  elements: dict
  contains:
    engine:
      description: The kind of engine.
      type: str
    container:
      description: The container it is in; null on the host.
      type: str
    user:
      description: Whose engine it is.
      type: str
    live:
      description: Whether it answered.
      type: bool
    absent:
      description: V(program) or V(container) if that isn't there at all, else null.
      type: str
    error:
      description: Why it didn't answer.
      type: str
    version:
      description: The engine's version.
      type: str
    kernel:
      description: The kernel's release.
      type: str
    rootless:
      description: Whether it runs without root.
      type: bool
    driver:
      description: The storage driver, or the snapshotter of containerd's store.
      type: str
    backing_filesystem:
      description:
        - The file system below, as the engine says, or as found if it doesn't. Docker's C(extfs) is V(ext4).
      type: str
    d_type:
      description: Whether the file system has d_type; null if the driver doesn't tell, as for the next three.
      type: bool
    native_diff:
      description: Whether overlay computes differences natively.
      type: bool
    metacopy:
      description: Whether overlay copies metadata only.
      type: bool
    userxattr:
      description: Whether overlay keeps its marks in user attributes.
      type: bool
    data_root:
      description: Where the engine keeps its data, as it sees it.
      type: str
    containerd_store:
      description: Whether images are in containerd's store.
      type: bool
    snapshotter:
      description: That store's snapshotter.
      type: str
    containerd_address:
      description: The socket of the containerd in use, if the engine tells.
      type: str
    containerd_root:
      description: Where that containerd keeps its data, if images are in its store.
      type: str
    mount_program:
      description: Podman's program for overlay mounts, if it isn't the kernel.
      type: str
    status:
      description: The driver's own words.
      type: dict
    configured_driver:
      description: The driver in the engine's own configuration file.
      type: str
    configured_data_root:
      description: The data root in that file.
      type: str
    configuration_file:
      description: That file.
      type: str
    locations:
      description:
        - Where data really lies, seen from the host.
        - C(role) (V(data_root) or V(containerd)), C(path), C(exists), C(filesystem), C(mount_point), C(source),
          C(options), C(read_only), C(device), C(device_number), C(on_root_disk), C(on_root_filesystem),
          C(bytes_total), C(bytes_free), C(inodes_total), C(inodes_free), and C(beneath), the file system
          under an overlay.
      type: list
      elements: dict
    location:
      description: The entry of C(locations) that holds images and layers.
      type: dict
    verdict:
      description: V(ok), V(degraded) or V(broken).
      type: str
    reasons:
      description: Why it isn't V(ok). C(code), C(severity), C(text), C(remedy).
      type: list
      elements: dict
unmet:
  description: What of O(expect) isn't so, as sentences.
  returned: when O(expect) is given
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._command import run
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._storage import ENGINES
from ansible_collections.matryoshka.host.plugins.module_utils._storage_judge import (
    VERDICTS,
    judge_storage,
    subject,
    unmet,
)
from ansible_collections.matryoshka.host.plugins.module_utils._storage_read import read_engine_storages

ARGUMENTS: dict[str, Any] = {
    "engine": {"type": "str", "choices": list(ENGINES), "default": "docker"},
    "user": {"type": "str"},
    "containers": {"type": "list", "elements": "str", "default": [], "aliases": ["container"]},
    "outer_engine": {"type": "str", "choices": ["docker", "podman"], "default": "docker"},
    "include_host": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 15},
    "expect": {
        "type": "dict",
        "options": {
            "verdict": {"type": "str", "choices": ["ok", "degraded"], "default": "ok"},
            "allow": {"type": "list", "elements": "str", "default": []},
            "driver": {"type": "str"},
            "data_root": {"type": "str"},
            "backing_filesystem": {"type": "str"},
        },
    },
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("engine", "rootless_docker", ("user",))],
        supports_check_mode=True,
    )
    asked = module.params
    host = [None] if asked["include_host"] or not asked["containers"] else []
    try:
        storages = read_engine_storages(
            run,
            asked["engine"],
            [*host, *asked["containers"]],
            user=asked["user"],
            outer=asked["outer_engine"],
            timeout=float(asked["timeout"]),
        )
        verdicts = [judge_storage(storage) for storage in storages]
        result: dict[str, Any] = {
            "changed": False,
            "verdict": max((verdict.verdict for verdict in verdicts), key=VERDICTS.index),
            "engines": [
                {**storage.as_dict(), **verdict.as_dict()}
                for storage, verdict in zip(storages, verdicts, strict=True)
            ],
        }
        if asked["expect"]:
            pending = [storage for storage in storages if storage.absent and module.check_mode]
            for storage in pending:
                module.warn(f"{subject(storage)}: {storage.error}; nothing to check yet")
            result["unmet"] = [
                f"{subject(storage)}: {sentence}"
                for storage in storages
                if storage not in pending
                for sentence in unmet(storage, asked["expect"])
            ]
    except HostError as error:
        module.fail_json(msg=str(error))
    if result.get("unmet"):
        module.fail_json(msg="\n".join(result["unmet"]), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
