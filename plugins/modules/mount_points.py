#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mount_points
short_description: Directories that nobody can write to while nothing is mounted on them
version_added: 0.1.0
author: The matryoshka.host authors (@matryoshka-host)
description:
  - Makes the directories beneath mounts and gives them the immutable flag of chattr(1), so that nothing, not even an
    engine that runs as root, can put data there while the disk is away.
  - Works on the directory beneath a mount too, without unmounting.
  - Where the file system beneath knows no such flag, the directory is made and left as it is.
options:
  paths:
    description: Absolute paths of the mount points.
    type: list
    elements: path
    required: true
  protected:
    description: Whether they are protected. V(false) lets go of them, and makes none.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: Says what would change and changes nothing.
  diff_mode:
    support: none
    description: Each path that changes is returned.
  platform:
    support: full
    platforms: posix
    description: Linux 5.2 or newer; needs root.
"""

EXAMPLES = r"""
- name: Keep an engine from writing beneath its disk
  matryoshka.host.mount_points:
    paths: [/srv/ci]
"""

RETURN = r"""
changed_paths:
  description: Directories that were made, protected or let go of.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._mount_point import ARGUMENTS, answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = answer(module.params, module.check_mode)
    except HostError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
