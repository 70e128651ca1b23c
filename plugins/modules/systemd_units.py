#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module for a list of systemd units."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: systemd_units
short_description: Apply a list of systemd units, drop-ins and instances in one round trip
version_added: 0.1.0
author:
  - The matryoshka.host authors (@matryoshka-host)
description:
  - Writes unit files and drop-ins, enables, masks, starts, stops, restarts and reloads units, and removes what an
    earlier list had and this one doesn't.
  - All units are read with one C(systemctl show) and changed with one C(systemctl) call for each verb. There is at
    most one C(systemctl daemon-reload). The number of processes doesn't grow with the number of units.
  - Every text is checked before the first change, by its syntax and, if it changed, by C(systemd-analyze verify). If
    one is refused nothing is changed.
  - Every file begins with the line C(# Managed by matryoshka.host:) and the owner. Files with another owner's line
    are never written or removed. A file without such a line that has to give way is copied beside the new one first,
    with the time and C(~) after its name.
options:
  owner:
    description:
      - Whose units these are. Lowercase letters, digits, C(-) and C(_).
    type: str
    required: true
  units:
    description:
      - The units, every one once.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - A unit, such as V(docker.service), or a template, such as V(matryoshka-runner@.service).
        type: str
        required: true
      content:
        description:
          - The text of the unit file. Left out, the unit file is somebody else's, such as a package's.
        type: str
      drop_ins:
        description:
          - Drop-ins of the unit or of the template.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description:
              - The file's name. It ends in C(.conf).
            type: str
            required: true
          content:
            description:
              - The file's text.
            type: str
            required: true
      instances:
        description:
          - The instances of a template that O(units[].state), O(units[].enabled) and O(units[].masked) are for.
          - An empty list means that there are to be none. Left out, instances are not looked after.
        type: list
        elements: str
      state:
        description:
          - V(started) and V(stopped) act only if the unit isn't so already. A unit that waits for systemd to restart
            it counts as started. A failed one is reset and started.
          - V(restarted) and V(reloaded) act every time.
          - V(absent) stops and disables a unit whose file is this owner's, and removes its file and drop-ins. Of other
            units only this owner's drop-ins are removed.
        type: str
        choices: [started, stopped, restarted, reloaded, absent]
      enabled:
        description:
          - Whether the unit is started with the host.
        type: bool
      masked:
        description:
          - Whether the unit is masked. V(false) undoes a mask, also one under C(/run).
          - For a unit with O(units[].content) it is always V(false).
        type: bool
      on_change:
        description:
          - What happens to a running unit if its file or one of its drop-ins has changed in more than comments and
            C([Install]). V(restart) if left out.
        type: str
        choices: [restart, reload, none]
      on_trigger:
        description:
          - What happens to a running unit if its trigger has changed. The same as O(units[].on_change) if left out.
        type: str
        choices: [restart, reload, none]
      triggers:
        description:
          - A string, or a list of strings, that stands for what else the unit depends on, such as a hash of a
            configuration file. If it isn't what the unit was last started, restarted or reloaded with, a running unit
            is restarted or reloaded.
          - For a template also a mapping from instance to string, so that only that instance is affected.
          - Only a SHA-256 of it is kept, in C(/var/lib/matryoshka/units).
        type: raw
  orphans:
    description:
      - Whether units and drop-ins with this owner's line that aren't in O(units) are removed, and instances that
        aren't in O(units[].instances) stopped and disabled.
    type: bool
    default: false
  directory:
    description:
      - Where unit files and drop-ins are written.
    type: str
    choices: [/etc/systemd/system, /run/systemd/system, /usr/local/lib/systemd/system]
    default: /etc/systemd/system
  wait:
    description:
      - Whether to wait until units are started, restarted or reloaded. Stops are always waited for.
    type: bool
    default: true
  timeout:
    description:
      - Seconds that one C(systemctl) call may take.
    type: int
    default: 900
  scope:
    description:
      - Whose systemd it is.
    type: str
    choices: [system]
    default: system
attributes:
  check_mode:
    description: Says what would change and changes nothing. A unit that isn't there yet is no error then.
    support: full
  diff_mode:
    description: Shows the differences of files, and what happens to units.
    support: full
  platform:
    description: Hosts with systemd as PID 1.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Two runners from one template
  matryoshka.host.systemd_units:
    owner: runner
    orphans: true
    units:
      - name: matryoshka-runner@.service
        content: |
          [Unit]
          Description=Runner %i
          After=docker.service
          Requires=docker.service

          [Service]
          Type=notify
          ExecStart=/usr/local/sbin/matryoshka run %i
          ExecReload=/bin/kill -HUP $MAINPID
          Restart=always

          [Install]
          WantedBy=multi-user.target
        instances: [ci, release]
        state: started
        enabled: true
        on_change: reload
        triggers:
          ci: 9f86d081884c7d65
          release: 60303ae22b998861

- name: A drop-in for a package's unit
  matryoshka.host.systemd_units:
    owner: docker
    units:
      - name: docker.service
        drop_ins:
          - name: 50-matryoshka.conf
            content: |
              [Service]
              LimitNOFILE=1048576
        state: started
        enabled: true
        masked: false
"""

RETURN = r"""
changed_units:
  description: Units whose unit file or drop-ins were written or removed.
  returned: success
  type: list
  elements: str
  sample: [matryoshka-runner@.service]
started:
  description: Units that were started.
  returned: success
  type: list
  elements: str
restarted:
  description: Units that were restarted.
  returned: success
  type: list
  elements: str
reloaded:
  description: Units that were reloaded.
  returned: success
  type: list
  elements: str
stopped:
  description: Units that were stopped.
  returned: success
  type: list
  elements: str
removed:
  description: Units, instances and paths of drop-ins that were removed.
  returned: success
  type: list
  elements: str
saved:
  description: Copies of files without the collection's line that had to give way. Empty in check mode.
  returned: success
  type: list
  elements: str
daemon_reloaded:
  description: Whether systemd read all unit files anew.
  returned: success
  type: bool
foreign_drop_ins:
  description: Drop-ins under C(/etc) and C(/run) without the collection's line, by unit and path, with what they set.
  returned: success
  type: dict
  sample: {"docker.service": {"/etc/systemd/system/docker.service.d/override.conf": ["Service.ExecStart"]}}
states:
  description:
    - The units' states under systemd's names of the properties C(LoadState), C(ActiveState), C(SubState),
      C(UnitFileState), C(NeedDaemonReload), C(FragmentPath), C(DropInPaths). In check mode the present ones.
  returned: success
  type: dict
  sample:
    docker.service:
      ActiveState: active
      SubState: running
      UnitFileState: enabled
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._command import run
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_apply import ARGUMENTS, answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = answer(module.params, module.check_mode, run)
    except HostError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
