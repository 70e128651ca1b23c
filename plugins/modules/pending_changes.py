#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pending_changes
short_description: Ask what several calls of this collection's modules would change, in one round trip
version_added: 0.1.0
author: The matryoshka.host authors (@matryoshka-host)
description:
  - Runs the named modules in check mode, one after another in one process on the host, up to the first that would
    change something or fail. Changes nothing.
  - If none of the calls would change anything, or fail, tasks that make the same calls later in the same play
    take their answers from here, without going to the host. This needs the result to be registered as
    C(__preflight_pending), and a play that has the role P(matryoshka.host.preflight#role) and none but this collection's.
  - A later task whose arguments differ in anything from what was asked here goes to the host as always.
options:
  calls:
    description: The calls to ask about.
    type: list
    elements: dict
    required: true
    suboptions:
      module:
        description:
          - The module's name, with or without C(matryoshka.host.) in front. One of V(config_files), V(daemon_config),
            V(environment_image), V(kernel_settings), V(netfilter_rules),
            V(storage_volume_info), V(systemd_units), V(verify). The last is asked without waiting.
        type: str
        required: true
      arguments:
        description: Its arguments, as a task gives them.
        type: dict
        required: true
attributes:
  check_mode:
    support: full
    description: It never changes anything.
  diff_mode:
    support: none
    description: Each module's own task shows its differences.
  action:
    support: full
    description: Compares the arguments of later tasks with what was asked, on the control node.
seealso:
  - module: matryoshka.host.config_files
  - module: matryoshka.host.daemon_config
  - module: matryoshka.host.environment_image
  - module: matryoshka.host.kernel_settings
  - module: matryoshka.host.netfilter_rules
  - module: matryoshka.host.storage_volume_info
  - module: matryoshka.host.systemd_units
  - module: matryoshka.host.verify
"""

EXAMPLES = r"""
- name: Compare the host with the plan
  matryoshka.host.pending_changes:
    calls:
      - module: daemon_config
        arguments:
          config:
            log-driver: local
      - module: systemd_units
        arguments:
          owner: me
          units:
            - name: docker.service
              state: started
  register: __preflight_pending
"""

RETURN = r"""
pending:
  description: The first call that would change something or fail; none on a host that is as planned.
  returned: success
  type: str
  sample: "daemon_config: would change"
answers:
  description:
    - What each call answered, by digest of module and arguments; what later tasks look into.
    - The control node makes it of the list that the host returns.
  returned: when nothing is pending
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils import _pending
from ansible_collections.matryoshka.host.plugins.module_utils._command import pipe, run
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError

ARGUMENTS = {
    "calls": {
        "type": "list",
        "elements": "dict",
        "required": True,
        # Files' contents are among them.
        "no_log": True,
        "options": {
            "module": {"type": "str", "required": True},
            "arguments": {"type": "dict", "required": True},
        },
    }
}


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    calls = module.params["calls"]
    # The arguments are never logged; only what is secret stays out of the result too.
    module.no_log_values = _pending.secrets(calls)
    try:
        results, pending = _pending.ask(calls, run, pipe)
    except HostError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, pending=pending, **({} if pending else {"results": results}))


if __name__ == "__main__":
    main()
