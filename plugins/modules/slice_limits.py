#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_limits
short_description: Limits of slices, in the kernel, while jobs run in them
version_added: 0.1.0
author: The matryoshka.host authors (@matryoshka-host)
description:
  - Compares what the kernel's cgroups hold with what was planned, and has systemd write what differs. Nothing in a slice is
    stopped for it.
  - The slices' units are made by M(matryoshka.host.systemd_units). systemd itself writes a changed limit only when something
    next starts in the slice.
  - A limit that this kernel or this version of cgroup doesn't have is left alone; M(matryoshka.host.verify) tells of it.
options:
  slices:
    description: Slices as P(matryoshka.host.plan_limits#filter) makes them.
    type: list
    elements: dict
    required: true
attributes:
  check_mode:
    support: full
    description: Says what would change and changes nothing.
  diff_mode:
    support: full
    description: Shows the kernel's files that change.
  platform:
    support: full
    platforms: posix
    description: Linux with systemd, cgroup version 1 or 2; needs root.
"""

EXAMPLES = r"""
- name: Have the kernel hold the limits
  matryoshka.host.slice_limits:
    slices: "{{ slices }}"
"""

RETURN = r"""
slices:
  description: Slices whose limits differed.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._command import run
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._limits_apply import ARGUMENTS, answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = answer(module.params, module.check_mode, run)
    except HostError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
