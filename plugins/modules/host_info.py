#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: What a host is and has, and which modes it can carry
version_added: 0.1.0
description:
  - Reads everything that the roles of this collection need to know of a host, in one round trip and without
    C(setup).
  - Asks no daemon, changes nothing.
attributes:
  check_mode:
    support: full
    description: Does the same in check mode.
  diff_mode:
    support: none
    description: Changes nothing.
  platform:
    support: full
    platforms: debian
    description: Linux; packages and apt lists are those of Debian and Ubuntu.
options:
  packages:
    description: Debian packages whose installed version and hold are wanted.
    type: list
    elements: str
    default: []
  groups:
    description: Groups whose id and members are wanted.
    type: list
    elements: str
    default: []
  users:
    description: Users whose ids, home, lingering and subordinate ids are wanted.
    type: list
    elements: str
    default: []
  paths:
    description:
      - Absolute paths whose type, content, file system, disk and room are wanted.
      - Of a path that doesn't exist, file system, disk and room are those of the nearest directory above it.
    type: list
    elements: str
    default: []
  modes:
    description: Modes to judge, such as V(dind). Gives RV(modes).
    type: list
    elements: str
    default: []
  engine_version:
    description: The version of Docker that is to be installed. Without it the installed one counts, if any.
    type: str
  platforms:
    description:
      - The operating systems that RV(modes) accepts, as C(ID) or C(NAME) of os-release mapped to versions.
      - Without it any is accepted.
    type: dict
author:
  - The matryoshka.host authors (@matryoshka-host)
"""

EXAMPLES = r"""
- name: Ask whether this host can carry nested Docker
  matryoshka.host.host_info:
    packages: [docker.io, iptables]
    paths: [/var/lib/docker]
    modes: [dind]
    platforms:
      debian: ["12", "13"]
  register: host

- name: Say why not
  ansible.builtin.debug:
    var: host.modes.dind.reasons
"""

RETURN = r"""
asked:
  description: The groups, packages and paths that were asked for, sorted, so that a play needn't ask twice.
  returned: always
  type: dict
os:
  description: C(id), C(version_id), C(major) (a number), C(codename), C(pretty), from os-release.
  returned: always
  type: dict
  sample: {id: debian, version_id: "13", major: 13, codename: trixie, pretty: Debian GNU/Linux 13 (trixie)}
architecture:
  description: The machine's architecture as C(uname -m) has it.
  returned: always
  type: str
  sample: x86_64
kernel:
  description: The kernel's release.
  returned: always
  type: str
python:
  description: The version of the Python that the module ran with.
  returned: always
  type: str
uid:
  description: The effective user id that the module ran with.
  returned: always
  type: int
memory_bytes:
  description: Memory in bytes.
  returned: always
  type: int
cpus:
  description: Processors that may be used.
  returned: always
  type: int
kernel_features:
  description:
    - C(overlay), C(nf_tables), C(ip_tables) (V(present), V(loadable) or V(absent)).
    - C(namespaces) (names), C(max_user_namespaces).
  returned: always
  type: dict
init:
  description: C(systemd) (whether it is process 1), its C(version) (a number), and the manager's C(state).
  returned: always
  type: dict
  sample: {systemd: true, version: 257, state: running}
capacity:
  description:
    - How much there can be at all. C(cpu_list), the processors that are online, such as V(0-3); C(pids) and C(threads), how many
      process ids and threads the kernel has; C(swap_bytes).
    - What can't be read is null.
  returned: always
  type: dict
  sample: {cpu_list: "0-3", pids: 4194304, threads: 127430, swap_bytes: 0}
cgroup:
  description: C(version) (V(1), V(2) or V(hybrid)), and the usable C(controllers).
  returned: always
  type: dict
capabilities:
  description: The names in the C(bounding) set, and those of the kernel's that are C(missing) in it.
  returned: always
  type: dict
packages:
  description: C(version) and C(hold) of each installed package asked for.
  returned: always
  type: dict
  sample: {docker.io: {version: 26.1.5+dfsg1-9, hold: false}}
apt:
  description: C(lists_age_seconds), the age of apt's lists; null if there are none.
  returned: always
  type: dict
engines:
  description:
    - C(docker), C(containerd), C(podman), C(runc), C(crun), C(sysbox), C(gvisor), each null if it isn't
      installed.
    - Else C(version) (upstream's), and C(package), or C(program) for one that came in no package.
  returned: always
  type: dict
groups:
  description: C(gid) and C(members) of each existing group asked for.
  returned: always
  type: dict
users:
  description:
    - C(uid), C(gid), C(home), C(shell), C(linger), C(subuids), C(subgids) of each existing user asked for.
    - C(subuid_ranges), pairs of the first id and the number of ids.
  returned: always
  type: dict
paths:
  description:
    - Of each path asked for C(exists), C(type) (V(file), V(directory), V(symlink), V(other), V(absent)),
      C(target_type), C(real_path), C(empty), the first C(entries), C(engine_markers), C(marker) (the content
      of C(.matryoshka)), C(stat_device), C(inode), C(mode), C(uid), C(gid).
    - And of the file system below it C(mounted_on) (what exists nearest), C(mounted_on_type), C(filesystem),
      C(mount_point), C(source), C(options), C(read_only), C(device), C(device_number), C(on_root_disk),
      C(on_root_filesystem), C(bytes_total), C(bytes_free), C(inodes_total), C(inodes_free).
  returned: always
  type: dict
network:
  description:
    - C(addresses) (C(interface), C(address), C(family), C(scope)).
    - C(routes) (C(destination), C(gateway), C(interface), C(family), C(metric), C(type)).
    - C(nameservers), C(default_interface), its C(mtu).
    - C(bridges) (C(name), C(addresses), C(mtu), C(managed_by), one of V(docker), V(podman), V(libvirt),
      V(other)).
    - C(engine_ranges), the C(bip) and C(default-address-pools) that Docker (C(docker)) and the inner engines of
      runners (C(runner)) are configured with now, as far as they are.
  returned: always
  type: dict
iptables:
  description: C(backend) (V(nft), V(legacy) or null) and C(version).
  returned: always
  type: dict
modes:
  description: For each mode asked for whether it is C(possible), and the C(reasons) why not, as sentences.
  returned: when O(modes) is given
  type: dict
  sample: {dind: {possible: true, reasons: []}}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._command import run
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._host import read_host
from ansible_collections.matryoshka.host.plugins.module_utils._preflight import judge_modes

_NAMES: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
ARGUMENTS: dict[str, Any] = {
    "packages": _NAMES,
    "groups": _NAMES,
    "users": _NAMES,
    "paths": _NAMES,
    "modes": _NAMES,
    "engine_version": {"type": "str"},
    "platforms": {"type": "dict"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
    )
    asked = module.params
    try:
        facts = read_host(
            run,
            packages=asked["packages"],
            groups=asked["groups"],
            users=asked["users"],
            paths=asked["paths"],
        )
        if asked["modes"]:
            facts["modes"] = judge_modes(
                facts,
                asked["modes"],
                supported=asked["platforms"],
                engine_version=asked["engine_version"] or None,
            )
    except HostError as error:
        module.fail_json(msg=str(error))
    questions = {key: sorted(asked[key] or []) for key in ("groups", "packages", "paths")}
    module.exit_json(changed=False, asked=questions, **facts)


if __name__ == "__main__":
    main()
