#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: verify
short_description: Ask the live system whether a host is what it was promised to be
version_added: 0.1.0
description:
  - Looks once at the host, its engine, its runners, their environments and the engines inside them, and compares
    what systemd, the kernel and the engines answer with what the roles promised. Names every difference in words, with a
    remedy.
  - What lies under and between engines is looked at as by M(matryoshka.host.data_root_info) and
    M(matryoshka.host.bridge_info), whoever made it.
  - One round trip, read-only. An engine that is down is not asked, because a connection to its socket would start it.
    Nothing of an environment's own programs is run.
  - Needs root.
attributes:
  check_mode:
    support: full
    description: Looks all the same, but neither waits nor fails, because the host may not have been built yet.
  diff_mode:
    support: none
    description: Changes nothing.
  platform:
    support: full
    platforms: posix
    description: Linux with systemd.
options:
  expect:
    description:
      - What was promised, as the collection's roles hand it over. What is left out isn't checked.
      - C(engine) with C(name), C(config) (the wanted daemon.json), C(config_path), C(data_root), C(version) and
        C(group_members); C(units) as M(matryoshka.host.systemd_units) takes them, each with its C(owner); C(files) with
        C(path), C(sha256), C(mode), C(owner) and C(group); C(image) with C(reference) and C(sha256) of its recipe;
        C(runners), the configurations of the runners; C(prune); C(firewall), C(kernel) and C(storage), the arguments of
        M(matryoshka.host.netfilter_rules), M(matryoshka.host.kernel_settings) and
        M(matryoshka.host.storage_volume_info); C(limits), the arguments of M(matryoshka.host.slice_limits);
        C(network) with C(reserved), as M(matryoshka.host.bridge_info) takes it.
      - C(allow) lists codes of findings that the site accepts; they become notes. Without it that is V(root_disk).
    type: dict
    required: true
  wait:
    description: Seconds that runners which are on their way may take until they are ready.
    type: float
    default: 60
  fail:
    description: Whether findings make the module fail.
    type: bool
    default: true
author:
  - The matryoshka.host authors (@matryoshka-host)
"""

EXAMPLES = r"""
- name: Is Docker what it was made to be?
  matryoshka.host.verify:
    expect:
      engine:
        name: docker
        config:
          bip: 172.20.0.1/16
          live-restore: true
      units:
        - name: docker.service
          state: started
          enabled: true
          owner: docker

- name: Look, but go on
  matryoshka.host.verify:
    expect: {}
    fail: false
  register: seen
"""

RETURN = r"""
findings:
  description: What isn't as promised; empty on a healthy host.
  returned: always
  type: list
  elements: dict
  contains:
    code:
      description: A stable word for the kind of finding.
      type: str
      sample: unit_masked
    subject:
      description: What it is about.
      type: str
      sample: runner ci
    text:
      description: What was seen, and what should be.
      type: str
    remedy:
      description: What to do, as commands wherever there are any.
      type: str
notes:
  description: What the site accepts, and what is worth knowing but no fault. Like RV(findings).
  returned: always
  type: list
  elements: dict
passed:
  description: Whether there are no findings, or it is check mode.
  returned: always
  type: bool
report:
  description: All of it in lines for people.
  returned: always
  type: list
  elements: str
tree:
  description:
    - The dolls. One node for the host; each has C(level), C(name), C(storage_driver), C(backing_filesystem), C(subnet),
      C(mtu), C(state) and C(children); and what could be seen of C(disk) (the kind of disk that its data is on), C(quota)
      (C(used) and C(limit), in bytes) and C(lan) (V(closed) or V(open), whether its packets reach a LAN by the rules that
      the kernel has; V(?) if that depends on the packet).
  returned: always
  type: list
  elements: dict
runners:
  description: The state file of each runner, by name.
  returned: always
  type: dict
checks:
  description: How many checks were made.
  returned: always
  type: int
seconds:
  description: How long it took, waiting included.
  returned: always
  type: float
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._command import run
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._verify import ARGUMENTS, answer
from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import ask


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True, no_log=True)
    try:
        result = answer(module.params, module.check_mode, run, ask)
    except HostError as error:
        module.fail_json(msg=str(error))
    if module.params["fail"] and not result["passed"]:
        module.fail_json(msg="\n".join(result["report"]), **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
