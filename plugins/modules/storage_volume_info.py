#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_volume_info
short_description: What planned volumes lack on this host
version_added: 0.1.0
author: The matryoshka.host authors (@matryoshka-host)
description:
  - Compares the plan of volumes, as filter P(matryoshka.host.plan_storage#filter) makes it, with what is mounted, with
    the devices of the host, with mount units, udev's rules and project quotas. Says which steps are lacking.
  - For volumes that are mounted it reads mounts and superblocks only. Devices are looked for only for the others.
  - Changes nothing. A device is never said to be formatted if anything is on it that O(wipe) doesn't give up.
options:
  volumes:
    description: The plan of all volumes.
    type: list
    elements: dict
    required: true
  quotas:
    description: Project quotas, each with C(path) and C(size) in bytes or C(inodes).
    type: list
    elements: dict
    default: []
  wipe:
    description: Devices that may be formatted although something is on them, each with C(serial) and C(signature).
    type: list
    elements: dict
    default: []
  migrate:
    description: Whether what lies at a volume's path is to be moved to the volume. Without it that is refused.
    type: bool
    default: false
  remove_old:
    description: Whether what an earlier move has kept is to go.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: It never changes anything.
  diff_mode:
    support: none
    description: It never changes anything.
  platform:
    support: full
    platforms: posix
    description: Linux 5.2 or newer with systemd; needs root.
seealso:
  - module: matryoshka.host.block_device_info
  - module: matryoshka.host.project_quotas
"""

EXAMPLES = r"""
- name: See what is lacking
  matryoshka.host.storage_volume_info:
    volumes: "{{ storage_volumes | matryoshka.host.plan_storage }}"
  register: storage
"""

RETURN = r"""
lacking:
  description: What is lacking, in words. Empty on a host that is as planned.
  returned: always
  type: list
  elements: str
  sample: ["docker: filesystem, mount_point", units]
refusals:
  description: Why the plan can't be carried out. Each names the variable, the value and what is allowed.
  returned: always
  type: list
  elements: str
volumes:
  description: Every volume as it is, and its C(steps).
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
    path:
      description: Where it is mounted.
      type: str
    kind:
      description: One of V(device), V(lvm), V(uuid), V(directory).
      type: str
    unit:
      description: The unit that mounts it.
      type: str
    units:
      description: Units that never start without it.
      type: list
      elements: str
    uuid:
      description: The UUID of its file system, known before that is made.
      type: str
    filesystem:
      description: The type of its file system.
      type: str
    directory:
      description: The directory that is shown at its path.
      type: str
    mounted:
      description: Whether anything is mounted at its path.
      type: bool
    bytes:
      description: The size of its file system, if it is mounted.
      type: int
    disks:
      description: The whole disks behind it, if it is mounted.
      type: list
      elements: str
    nodes:
      description: Those, and the device of the device mapper that is mounted.
      type: list
      elements: str
    running:
      description: Units that have to be stopped before what is at its path can be moved. Only with C(migrate) among the steps.
      type: list
      elements: str
    discard:
      description: Whether and how freed blocks are given back.
      type: str
    mkfs:
      description: The options that its file system is made with.
      type: str
    key_missing:
      description: Whether its key file isn't there.
      type: bool
    number:
      description: The number of the partition.
      type: int
    quota:
      description: Whether project quotas are wanted on it.
      type: bool
    steps:
      description: What it lacks, in the order of doing.
      type: list
      elements: str
    refusals:
      description: Why it can't have them.
      type: list
      elements: str
    notes:
      description: What is as it can be here, but less than was asked for.
      type: list
      elements: str
    disk:
      description: The disk that was chosen for it.
      type: str
    partition:
      description: The partition on that disk.
      type: str
    crypt:
      description: The device that is encrypted, or the name of the opened one when it grows.
      type: str
    target:
      description: The device that holds its file system, or will.
      type: str
    wipe:
      description: Devices whose signatures the wipe list gives up, partitions first.
      type: list
      elements: str
config:
  description: Arguments of M(matryoshka.host.config_files) for udev's rules.
  returned: always
  type: dict
units:
  description: Units for M(matryoshka.host.systemd_units).
  returned: always
  type: list
  elements: dict
pending:
  description: Which of V(rules), V(units), V(quotas) and V(remove_old) are lacking.
  returned: always
  type: list
  elements: str
old:
  description: Directories that an earlier move has kept and that are to go.
  returned: always
  type: list
  elements: str
missing_directories:
  description: Directories that have a quota but aren't there yet.
  returned: always
  type: list
  elements: str
packages:
  description: Packages of programs that the steps need and that aren't there.
  returned: always
  type: list
  elements: str
udev:
  description: Whether udev runs.
  returned: always
  type: bool
quotas:
  description: What M(matryoshka.host.project_quotas) says of every quota.
  returned: when all volumes are mounted
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._command import run
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._storage_volume import ARGUMENTS, answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = answer(module.params, run)
    except HostError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**{**result, "changed": False})


if __name__ == "__main__":
    main()
