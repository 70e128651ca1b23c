#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_settings
short_description: Kernel modules and sysctls, now and at every boot, in one round trip
version_added: 0.1.0
author: The matryoshka.host authors (@matryoshka-host)
description:
  - Loads modules, writes settings below C(/proc/sys) whose live value differs, and keeps both in
    C(/etc/modules-load.d/OWNER.conf) and C(/etc/sysctl.d/60-OWNER.conf).
  - Compares with the live kernel, not with the files alone, so that a setting that somebody changed by hand is put right.
  - A module that is built into the kernel counts as loaded.
options:
  owner:
    description: Whose settings these are; the files' name. An owner with nothing left has no file.
    type: str
    required: true
  modules:
    description: Modules to load, such as V(br_netfilter).
    type: list
    elements: str
    default: []
  sysctls:
    description: Settings and their values, such as C(net.ipv4.ip_forward). Names are written as in sysctl.d(5).
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Says what would change and changes nothing. A setting of a module that isn't loaded yet is no error then.
  diff_mode:
    support: full
    description: Shows the files' differences, and live values before and after.
  platform:
    support: full
    platforms: posix
    description: Linux.
"""

EXAMPLES = r"""
- name: Forward packets, and let the packet filter see bridged ones
  matryoshka.host.kernel_settings:
    owner: network
    modules:
      - br_netfilter
    sysctls:
      net.ipv4.ip_forward: 1
      net.bridge.bridge-nf-call-iptables: 1
"""

RETURN = r"""
loaded_modules:
  description: Modules that were loaded.
  type: list
  elements: str
  returned: success
changed_sysctls:
  description: Settings whose live value changed.
  type: list
  elements: str
  returned: success
  sample: [net.ipv4.ip_forward]
changed_files:
  description: Files that were written or removed.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils import _kernel_settings
from ansible_collections.matryoshka.host.plugins.module_utils._command import run
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError


def main() -> None:
    module = AnsibleModule(_kernel_settings.ARGUMENTS, supports_check_mode=True)
    try:
        result = _kernel_settings.answer(module.params, module.check_mode, run)
    except HostError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
