#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: project_quotas
short_description: Limit how much directories can hold
version_added: 0.1.0
author: The matryoshka.host authors (@matryoshka-host)
description:
  - Gives directories hard limits of bytes and inodes, all in one call, and changes them in place while they are in use.
  - On XFS and ext4 by project quotas. The directory and all that is in it get a project id, new files inherit it.
  - On btrfs by the quota group of the directory's subvolume.
  - Talks to the kernel itself by C(quotactl) and C(ioctl). The programs C(xfs_quota) and C(setquota) print for people
    and aren't on every host. Only for btrfs is a program run, C(btrfs).
  - All that is asked for is checked before the first change. A limit below what is used is refused, and one larger
    than the disk. A limit that is there already and is asked for again stays, whatever is used.
options:
  quotas:
    description: The directories that have a quota.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - The directory. One that is missing is made, on btrfs as a subvolume.
          - An empty directory on btrfs is replaced by a subvolume with the same owner and mode. One with content is
            refused, because only a subvolume has a quota there.
          - On XFS and ext4 a tree with content is walked once, at the first time. Directories in it that have a
            project of their own are left out; so are those on other file systems.
          - On XFS and ext4 it has to lie on a file system that is mounted with C(prjquota). ext4 needs the features
            C(project) and C(quota) too. A remount with C(prjquota) succeeds and changes nothing on both.
        type: path
        required: true
      size:
        description:
          - Most bytes that it can hold, such as V(20G). Units are powers of 1024. Rounded up to blocks of the file
            system.
          - Without it there is no limit, and what is used is counted only.
        type: str
      soft:
        description: Bytes that can be exceeded for the file system's grace time, a week by default. Not on btrfs.
        type: str
      inodes:
        description: Most files and directories that it can hold, itself included. Not on btrfs.
        type: int
  owner:
    description:
      - Whose quotas these are. Names of its projects in C(/etc/projid) begin with this and a hyphen.
      - Lines with other names in C(/etc/projid) and C(/etc/projects) stay, and a directory that has one is refused.
    type: str
    default: matryoshka
  orphans:
    description:
      - Lift the quotas of O(owner) on directories that aren't in O(quotas). Their files stay and lose the project id.
      - One on a file system that isn't mounted, or has no quotas now, is kept with a warning.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: Says what would change and changes nothing. Refuses what would be refused.
  diff_mode:
    support: full
    description: Shows the limits, and both files in C(/etc).
  platform:
    support: full
    platforms: Debian, Ubuntu
    description: Where the module runs.
notes:
  - On ext4 a process with C(CAP_SYS_RESOURCE) on the host isn't held to a quota, so neither are root, an engine that
    unpacks an image, and a privileged container that writes to a volume. What a container writes to its own layers is
    held, because overlayfs gives the capability up. On XFS and btrfs everybody is held. RV(quotas[].holds_root) says
    which it is.
  - On XFS a full quota is C(ENOSPC), on ext4 and btrfs C(EDQUOT).
  - A project id is a multiple of 65536, derived from owner and path, so that it is the same on each host. The 65535
    after it are left free for containers, which Docker and Podman number upwards from the id of their data root.
  - A container with a size limit of its own (C(overlay2.size), C(--storage-opt size)) doesn't count for the data root.
  - Projects don't nest. What is in a directory with a quota of its own doesn't count for the one around it, and a
    subvolume doesn't count for the one it lies in.
  - Counting is switched on for a btrfs that doesn't count yet. Where the kernel can (6.7) and all directories asked for
    are empty, by simple quotas, which cost less. A kernel that doesn't know them then can't mount the file system.
  - Before Linux 6.17 links, sockets, pipes and devices in a tree with content keep no project.
  - Sources of facts are C(linux/dqblk_xfs.h), C(fs/quota/dquot.c), C(fs/overlayfs/super.c), C(xfs(5)), C(ext4(5)),
    C(btrfs-quota(8)).
"""

EXAMPLES = r"""
- name: Images can take 100 GiB, each runner 20 GiB
  matryoshka.host.project_quotas:
    quotas:
      - path: /var/lib/docker
        size: 100G
      - path: /var/lib/matryoshka/runners/ci-1
        size: 20G
        inodes: 2000000
      - path: /var/lib/matryoshka/runners/ci-2
        size: 20G
        inodes: 2000000

- name: Lift all of them
  matryoshka.host.project_quotas:
    quotas: []
"""

RETURN = r"""
quotas:
  description: The directories, in the order of O(quotas). In check mode as they are before.
  type: list
  elements: dict
  returned: success
  contains:
    path:
      description: The directory.
      type: str
    exists:
      description: It is there.
      type: bool
    changed:
      description: It lacked something.
      type: bool
    filesystem:
      description: Type of the file system.
      type: str
    mount_point:
      description: Where that is mounted.
      type: str
    device:
      description: Its block device.
      type: str
    id:
      description: Project id. Null on btrfs.
      type: int
    name:
      description: Name of the project.
      type: str
      sample: matryoshka-var-lib-docker
    group:
      description: Quota group on btrfs.
      type: str
      sample: 0/257
    size:
      description: Hard limit in bytes as the kernel has it. Null for none.
      type: int
    soft:
      description: Soft limit in bytes.
      type: int
    inodes:
      description: Hard limit of inodes.
      type: int
    used_bytes:
      description: What is used, in bytes. Null if it isn't counted.
      type: int
    used_inodes:
      description: The same in inodes. Null on btrfs.
      type: int
    enforced:
      description: The kernel holds the directory to a limit. False where none is set.
      type: bool
    holds_root:
      description: It holds processes with C(CAP_SYS_RESOURCE) too.
      type: bool
    why:
      description: Why it isn't enforced. Empty if it is.
      type: str
lifted:
  description: Directories whose quota was lifted.
  type: list
  elements: str
  returned: success
marked:
  description: How many files and directories got another project id.
  type: int
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._command import run
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._project_quota_apply import ARGUMENTS, answer


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    try:
        result = answer(module.params, module.check_mode, run)
    except HostError as error:
        module.fail_json(msg=str(error))
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
