#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: overlay_info
short_description: What overlayfs really does at a path, found by trying
version_added: 0.1.0
description:
  - For each path, mounts overlays on a scratch directory there and tries what engines do all day. Tries the same
    in a user namespace of the given users, with fuse-overlayfs if it is installed, and with mapped ids.
  - Says what works and what doesn't with the kernel's error, why, and which storage driver each engine and each
    mode gets there and should get. The rules are those of the engines' own sources.
  - All mounts are made in a mount namespace of their own. Nothing is left behind. If the module is killed, a guard
    removes the scratch directory; if that is killed too, the next call on the same directory does.
  - The trials write a few kilobytes. Where the kernel has volatile mounts, they don't flush the file system.
  - A path that doesn't exist is probed in the nearest directory above it that does, and is not made.
  - Never fails for what it finds. Needs root. Changes nothing.
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
  paths:
    description: Absolute paths of directories, such as data roots.
    type: list
    elements: str
    required: true
    aliases: [path]
  users:
    description:
      - Names or numbers of users whose rootless engines would keep data there. Root is refused.
      - Their subordinate ids in C(/etc/subuid) and C(/etc/subgid) are mapped as rootless engines map them.
    type: list
    elements: str
    default: []
    aliases: [user]
  modes:
    description: Modes of job environments to tell the drivers of. All of the table if it isn't given.
    type: list
    elements: str
  docker_version:
    description:
      - The version of Docker whose graph driver is told. Docker before 23 tries btrfs and zfs before overlay2.
      - Without it the order of 23 and later counts.
    type: str
  timeout:
    description: Seconds after which a path counts as hung. At least 1.
    type: int
    default: 20
author:
  - The matryoshka.host authors (@matryoshka-host)
"""

EXAMPLES = r"""
- name: See what overlayfs does where engines keep their data
  matryoshka.host.overlay_info:
    paths: [/var/lib/docker, /var/lib/matryoshka]
    users: [ci]
  register: overlay

- name: Stop if an inner engine would copy whole layers
  ansible.builtin.assert:
    that: overlay.paths['/var/lib/matryoshka'].drivers.dind.bind.good
    fail_msg: "{{ overlay.paths['/var/lib/matryoshka'].drivers.dind.bind.why }}"
"""

RETURN = r"""
kernel:
  description: What of the kernel bears on overlayfs.
  returned: always
  type: dict
  contains:
    release:
      description: Its release.
      type: str
    overlay_loaded:
      description: Whether overlay was there before the trials, which load it as an engine would.
      type: bool
    overlay_parameters:
      description: Its defaults, from C(/sys/module/overlay/parameters).
      type: dict
    settings:
      description: Settings that keep users from namespaces, by name; null where there is no such setting.
      type: dict
    selinux:
      description: Whether SELinux is on, with which rootless Docker doesn't use overlay2.
      type: bool
paths:
  description: What was found, by path.
  returned: always
  type: dict
  contains:
    path:
      description: The path as given.
      type: str
    real_path:
      description: Without symbolic links.
      type: str
    exists:
      description: Whether it exists; null if its file system hangs.
      type: bool
    probed_in:
      description: The directory that the trials were made in.
      type: str
    probed:
      description: Whether anything could be tried. If not, what depends on it is null and C(reasons) says why.
      type: bool
    filesystem:
      description:
        - The file system. Beside it are C(mount_point), C(source), C(options), C(read_only), C(device),
          C(device_number), C(on_root_disk), C(on_root_filesystem), C(bytes_total), C(bytes_free),
          C(inodes_total) and C(inodes_free).
      type: str
    prior_drivers:
      description: Storage drivers that have data at the path. Engines stay with such a driver.
      type: list
      elements: str
    native:
      description:
        - The trials as root. Each has C(works), C(errno) (a name, or null if the kernel reported no error) and
          C(error).
        - C(d_type), C(trusted_xattr), C(user_xattr) and C(mknod_whiteout) are of the file system itself.
        - C(mount) is an overlay with one lower layer, C(two_lowers) one with two, C(volatile) one that is never
          flushed.
        - C(copy_up), C(whiteout), C(opaque), C(opaque_kept) (the mark of an opaque directory is not copied up) and
          C(rename_dir) (V(EXDEV) is usual) are tried with the options that engines use.
        - C(redirect_dir), C(metacopy) and C(index) are tried with the mount option of that name.
        - C(nested) is an overlay with its upper layer on an overlay.
      type: dict
    native_diff:
      description: Whether engines may take a layer's changes from its upper directory.
      type: bool
    idmapped:
      description:
        - C(mount) is a mount of a directory with mapped ids, C(lower) an overlay with that as lower layer.
      type: dict
    fuse_overlayfs:
      description: The trial with fuse-overlayfs as root; null if it isn't installed.
      type: dict
    users:
      description:
        - By user, as given. C(uid), C(gid), C(subuids), C(subgids) (counts), C(writable), C(user_namespace) (a
          trial), C(without_userxattr) (two lower layers with root's options), C(userxattr) (all trials of
          C(native) with that option), C(fuse_overlayfs), and C(engines) for the user's rootless engines.
      type: dict
    swept:
      description: Names of scratch directories of killed calls that were removed.
      type: list
      elements: str
    reasons:
      description:
        - Why something isn't as an engine would want it. Each has C(code), C(text) and C(user) (null for root).
        - C(code) is one of V(not_a_directory), V(read_only), V(no_space), V(no_access), V(no_scratch),
          V(no_privilege), V(hung), V(broke_off), V(overlay_on_overlay), V(network_filesystem), V(no_overlay),
          V(upper_refused), V(single_lower), V(misbehaves), V(no_d_type), V(no_trusted_xattr), V(no_user_xattr),
          V(no_native_diff), V(in_memory), V(no_idmap), V(fuse_fails), V(no_user_namespace), V(userns_sysctl),
          V(userns_apparmor), V(no_subids), V(user_overlay_refused), V(not_writable).
      type: list
      elements: dict
    engines:
      description:
        - What each engine takes if its data is there, by engine. V(docker), V(containerd) (Docker with containerd's
          image store), V(podman) and V(buildkit).
        - C(will_get) (null if the engine doesn't start), C(should_get), C(works), C(mount_program) (Podman with
          fuse-overlayfs), C(good), C(why).
      type: dict
    drivers:
      description:
        - The same for the engines of each mode. C(host) is the mode's engine on the host; C(bind) the inner engine
          with the path mounted on its data root; C(own_root) the inner engine without such a mount, in a container
          of that engine. For a Docker C(containerd) is added.
        - Null where nothing can be said, as for a rootless engine without O(users). What an image brings along
          isn't known, so fuse-overlayfs counts as absent in it.
      type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._command import run
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._overlay import answer

ARGUMENTS: dict[str, Any] = {
    "paths": {"type": "list", "elements": "str", "required": True, "aliases": ["path"]},
    "users": {"type": "list", "elements": "str", "default": [], "aliases": ["user"]},
    "modes": {"type": "list", "elements": "str"},
    "docker_version": {"type": "str"},
    "timeout": {"type": "int", "default": 20},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        found = answer(module.params, run)
    except HostError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
