#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: data_root_info
short_description: What engines' data roots are, what they lie on, and who holds them
version_added: 0.1.0
description:
  - Says of directories in which engines keep their data whose data it is, which disks are below, what limits
    them, which processes hold them, and which containers have them mounted.
  - Judges each as V(ok), V(degraded) or V(broken), with reasons and remedies. Two holders of one root, or a
    container that has another's root mounted, are V(broken).
  - One pass over C(/proc) and C(/sys) for all roots. Starts no process, asks no engine, tries no lock, changes
    nothing. Needs root to see the processes of others.
attributes:
  check_mode:
    support: full
    description: Does the same in check mode.
  diff_mode:
    support: none
    description: Changes nothing.
  platform:
    support: full
    platforms: posix
    description: Linux.
options:
  roots:
    description: The data roots. One that doesn't exist is told, not refused.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: An absolute path on the host.
        type: path
        required: true
      holder:
        description:
          - Who may hold it and have it mounted. V(host), or the name or id of a container.
          - Without it, it is who holds it now, else the host for the usual roots of the host's engines, else the
            only container that has it mounted.
        type: str
      mount:
        description:
          - The file system it has to be on. A mount point (an absolute path), V(UUID=...), V(LABEL=...), or the
            path of a block device.
          - Without it, the mounts in C(/etc/fstab) and in the mount units of C(/etc/systemd/system) count.
        type: str
  allow:
    description: Codes of reasons that don't count, such as V(leftover_driver).
    type: list
    elements: str
    default: []
author:
  - The matryoshka.host authors (@matryoshka-host)
"""

EXAMPLES = r"""
- name: Look at the roots of the host's engine and of a runner's environment
  matryoshka.host.data_root_info:
    roots:
      - path: /var/lib/docker
        holder: host
        mount: UUID=0d4f4e5b-7a0c-4f0e-9f9b-6a3f8f9b1c11
      - path: /var/lib/matryoshka/ci-1/data
        holder: ci-1
  register: data_roots

- name: Stop if two engines are on one root
  ansible.builtin.assert:
    that: data_roots.verdict != 'broken'
    fail_msg: "{{ data_roots.roots | map(attribute='reasons') | flatten | map(attribute='text') | join('; ') }}"
"""

RETURN = r"""
verdict:
  description: The worst of the verdicts, V(ok), V(degraded) or V(broken).
  returned: always
  type: str
unreadable:
  description: How many processes couldn't be looked at. Not 0 if the module doesn't run as root.
  returned: always
  type: int
roots:
  description: One entry for each root, in the order given. What isn't known is null. Sizes are bytes.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The path.
      type: str
    real_path:
      description: The path without symbolic links.
      type: str
    exists:
      description: Whether it exists.
      type: bool
    type:
      description: V(directory), V(file), V(symlink), V(other) or V(absent). C(target_type) is that of a link's end.
      type: str
    empty:
      description: Whether nothing but C(lost+found) is in it.
      type: bool
    inode:
      description: Its inode. C(mode), C(uid) and C(gid) are told too.
      type: int
    engine:
      description: Whose data it is. V(docker), V(podman), V(containerd) or V(buildkit).
      type: str
    rootless:
      description: Whether it belongs to an engine of an unprivileged user.
      type: bool
    engine_id:
      description: Docker's own id.
      type: str
    created:
      description: When the oldest thing in it was made, in seconds since the epoch.
      type: int
    last_used:
      description: When an engine last changed something in it, in seconds since the epoch.
      type: int
    driver:
      description: The graph driver or snapshotter that was used last.
      type: str
    drivers:
      description:
        - Graph drivers and snapshotters that have a folder in it. C(driver), C(path), C(entries) (layers, not
          bytes), C(last_used), C(current).
      type: list
      elements: dict
    leftovers:
      description: Drivers that left layers and aren't the one in use.
      type: list
      elements: str
    layers_mounted:
      description: How many overlay mounts have their upper layer in it, which is how many containers run on it.
      type: int
    filesystem:
      description: The file system it is on, or that it would be on.
      type: str
    mount_point:
      description: Where that is mounted. C(source) and C(options) are told too.
      type: str
    mounted_on:
      description: The path itself, or what exists nearest above it. C(mounted_on_type) is its type.
      type: str
    read_only:
      description: Whether that is mounted read-only.
      type: bool
    uuid:
      description: The file system's UUID.
      type: str
    label:
      description: The file system's label.
      type: str
    device:
      description: The block device it is on.
      type: str
    on_root_disk:
      description: Whether a disk below is one of those below C(/). C(on_root_filesystem) for the file system itself.
      type: bool
    bytes_total:
      description:
        - The room of the file system. C(bytes_free), C(inodes_total) and C(inodes_free) are told too. A project
          quota of the directory counts as its room.
      type: int
    disk:
      description:
        - In one word what the data is on. V(nvme), V(ssd), V(rotating), V(virtio), V(loop), V(ram), V(zfs),
          V(memory), V(network) or V(overlay). Several are joined with a plus sign.
      type: str
    devices:
      description:
        - The layers from the file system down to the disks. C(name), C(path), C(number), C(kind) (V(partition),
          V(lvm), V(crypt), V(raid), V(multipath), V(loop), V(btrfs), V(zfs), V(disk)), C(size_bytes),
          C(mapper_name), C(backing_file), C(read_only), C(below) (the names of the layers it is made of).
        - Of each layer's queue C(scheduler), C(schedulers), C(read_ahead_kb), C(discard), C(discard_granularity),
          C(write_cache) (V(back) or V(through)), C(zoned), C(logical_block_bytes), C(physical_block_bytes).
        - Of disks C(model), C(serial), C(wwn), C(transport), C(rotational). Of an md device C(raid) with C(level),
          C(state), C(devices), C(missing), C(action).
        - Of a ZFS pool the kernel shows no devices.
      type: list
      elements: dict
    discard:
      description:
        - Whether freed blocks reach the disks. C(passes), C(stopped_by) (the layers that swallow them), C(mounted)
          (whether the file system tells them at once).
      type: dict
    quota:
      description:
        - What limits the directory. C(kind) is V(project) on XFS and ext4, V(qgroup) on btrfs. C(accounted),
          C(enforced), C(requested) (by the mount's options), C(error) (why the kernel gave no state).
        - C(project) and whether it is C(inherited), or C(qgroup) and whether its figures are C(inconsistent).
        - C(used), C(limit), C(soft_limit), C(exclusive_used), C(exclusive_limit), C(inodes_used),
          C(inodes_limit), C(inodes_soft_limit).
        - C(overlay2_size) is whether Docker's option C(overlay2.size) can be used there.
      type: dict
    expected_holder:
      description: The O(roots[].holder) given.
      type: str
    owner:
      description:
        - Whose it is, given or found. C(name) is V(host) or the container's name, C(container) its id, C(inside)
          the ids of the containers around it.
      type: dict
    holders:
      description:
        - Who holds it. As C(owner), with C(processes), C(unit), C(files) (relative to the root), and C(locks),
          which is false for an engine that has the files open and waits for their locks.
      type: list
      elements: dict
    seen_by:
      description:
        - Containers that have it mounted. As C(owner), with the C(pid) of a process, the C(path) it is seen at, the
          C(mount_point), C(part) (what of it, null for all), C(read_only), C(engines) (names of engines that run
          there), and C(foreign), whether it isn't the owner.
        - Mounts that engines make for their own containers (volumes, layers) don't count.
      type: list
      elements: dict
    host_namespaces:
      description: How many mount namespaces of the host's own services see it.
      type: int
    verdict:
      description: V(ok), V(degraded) or V(broken).
      type: str
    reasons:
      description: Why it isn't V(ok), worst first. C(code), C(severity), C(text), C(remedy).
      type: list
      elements: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_info import answer
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError

ARGUMENTS: dict[str, Any] = {
    "roots": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "path": {"type": "path", "required": True},
            "holder": {"type": "str"},
            "mount": {"type": "str"},
        },
    },
    "allow": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = answer(module.params)
    except HostError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
