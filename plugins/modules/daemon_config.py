#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: daemon_config
short_description: Merge options into dockerd's daemon.json
version_added: 0.1.0
author: The matryoshka.host authors (@matryoshka-host)
description:
  - Merges a mapping into C(daemon.json) key by key. Keys that others wrote stay.
  - Knows dockerd's options from Docker 20.10 to 29.7, their types and allowed values, and refuses a wrong one by
    name before anything is written. This finds far more than C(dockerd --validate), which also runs where it exists.
  - Refuses options that clash with each other or with the command line that the unit starts dockerd with.
  - Replaces the file atomically in a stable form. A file of the same meaning in another form isn't changed.
  - Does not restart or reload dockerd; it says which of the two is needed.
options:
  path:
    description:
      - The file. If it is a link, the file that it leads to is written.
      - A missing parent directory is made.
    type: path
    default: /etc/docker/daemon.json
  config:
    description:
      - Options of dockerd as they are in the file. Mappings such as C(runtimes), C(features), C(builder) or
        C(log-opts) are merged; lists and all else are replaced.
      - A null is refused; name the key in O(absent) instead.
    type: dict
    default: {}
  absent:
    description:
      - Keys to remove, before O(config) is merged. A key inside of a mapping is written with dots, such as
        C(log-opts.max-file).
      - A mapping can be replaced as a whole by naming it here and giving it in O(config).
    type: list
    elements: str
    default: []
  unit:
    description:
      - The systemd unit that starts dockerd. Options that its command line sets too are refused.
      - Environment files and drop-ins are looked at. A unit that isn't there yet is no error.
      - An empty text for none.
    type: str
    default: docker.service
  privileged_containers:
    description:
      - Containers of this engine run with C(--privileged), as nested engines do. Then C(userns-remap) is refused.
    type: bool
    default: true
  backup:
    description: Keep a copy of the previous file beside it, with the time in its name.
    type: bool
    default: true
  validate:
    description: Let dockerd check the file too before it is replaced, where there is one that can.
    type: bool
    default: true
  mode:
    description:
      - Permission bits as octal text, such as V(0644).
      - Without it those of the file are kept. A new one gets V(0644), or V(0600) if there is a password or token in it.
    type: str
  owner:
    description: The file's owner, a name or uid. Kept if not given.
    type: str
  group:
    description: The file's group, a name or gid. Kept if not given.
    type: str
attributes:
  check_mode:
    support: full
    description: Says what would change and changes nothing.
  diff_mode:
    support: full
    description: Shows what changes. Passwords in URLs and tokens aren't shown.
  platform:
    support: full
    platforms: Debian, Ubuntu
    description: Where the module runs.
notes:
  - If O(config) has a password in it, set C(no_log) on the task; the module can't know every place for one.
"""

EXAMPLES = r"""
- name: Logs of limited size, networks apart from the LAN
  matryoshka.host.daemon_config:
    config:
      log-driver: local
      log-opts:
        max-size: 10m
        max-file: "3"
      bip: 172.20.0.1/16
      default-address-pools:
        - base: 172.25.0.0/16
          size: 24
  register: daemon

- name: Take options out again
  matryoshka.host.daemon_config:
    absent:
      - registry-mirrors
      - features.cdi

- name: Restart if a reload isn't enough
  ansible.builtin.systemd_service:
    name: docker.service
    state: restarted
  when: daemon.restart_required
"""

RETURN = r"""
path:
  description: The file.
  type: str
  returned: success
config:
  description: The whole resulting configuration, without passwords and tokens.
  type: dict
  returned: success
changed_keys:
  description: The options at the top of the file that change.
  type: list
  elements: str
  returned: success
restart_keys:
  description: Those of them that take a restart of dockerd. An option that is removed is always one of them.
  type: list
  elements: str
  returned: success
reload_keys:
  description: Those of them that SIGHUP applies.
  type: list
  elements: str
  returned: success
restart_required:
  description: Something changed that takes a restart of dockerd.
  type: bool
  returned: success
live_reload:
  description: Something changed, and SIGHUP applies all of it.
  type: bool
  returned: success
foreign_keys:
  description: Options in the file that aren't in O(config).
  type: list
  elements: str
  returned: success
warnings:
  description: Options in the file that are unknown and were kept.
  type: list
  elements: str
  returned: if there are any
backup_file:
  description: The copy of the previous file.
  type: str
  returned: if one was made
  sample: /etc/docker/daemon.json.2026-11-22T101500~
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._command import run
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_config_apply import ARGUMENTS, answer
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError


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
