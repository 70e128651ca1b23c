#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: subids
short_description: Give users subordinate uids and gids
version_added: 0.1.0
author: The matryoshka.host authors (@matryoshka-host)
description:
  - Allocates ranges in C(/etc/subuid) and C(/etc/subgid) for a list of users, for rootless engines.
  - What is in the files is kept, comments, order and lines of programs such as sysbox included.
    A user that has enough ids already gets no others. One that has some gets a range of what is missing.
  - A new range has the same start in both files where that is possible. It never meets another range,
    an id of a user or group that the host lists, nor the ids that C(/etc/login.defs) has for accounts.
  - Nothing is changed if two lines of a file overlap already, or if a listed user's range has an account's id in it.
  - Takes the locks that C(useradd) and C(usermod) take, and replaces the files atomically.
  - Without users it changes nothing and only says what everybody has.
options:
  users:
    description: The users.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - The user's name or uid. The user must exist, unless it is a uid, or with O(state=absent) or in check mode.
          - Lines that name the user by its uid are its own too.
        type: str
        required: true
      count:
        description:
          - How many ids the user has at least, in all its ranges together.
          - If not given, C(SUB_UID_COUNT) or C(SUB_GID_COUNT) of C(/etc/login.defs), but at least 65536,
            which is what rootless Docker needs.
        type: int
  state:
    description:
      - V(absent) removes all lines of exactly these users, nobody else's, and no parts of lines.
        Stop the user's containers first. Files that they own on disk keep their ids.
    type: str
    choices: [present, absent]
    default: present
  subuid_path:
    description: The file of uid ranges.
    type: path
    default: /etc/subuid
  subgid_path:
    description: The file of gid ranges.
    type: path
    default: /etc/subgid
  lowest:
    description:
      - The lowest id that a new range may have. If not given, C(SUB_UID_MIN) and C(SUB_GID_MIN)
        of C(/etc/login.defs), or 100000.
    type: int
  highest:
    description:
      - The highest id that a new range may have. If not given, C(SUB_UID_MAX) and C(SUB_GID_MAX)
        of C(/etc/login.defs), or 600100000.
    type: int
attributes:
  check_mode:
    support: full
    description: Says what would change and changes nothing.
  diff_mode:
    support: full
    description: Shows the lines that change.
  platform:
    support: full
    platforms: posix
    description: Where the module runs.
notes:
  - If C(/etc/nsswitch.conf) takes C(subid) from elsewhere than C(files), the module refuses to give ranges.
seealso:
  - name: subuid(5)
    description: The files.
    link: https://man7.org/linux/man-pages/man5/subuid.5.html
  - name: Users, Groups, UIDs and GIDs on systemd Systems
    description: Who uses which ids.
    link: https://systemd.io/UIDS-GIDS/
"""

EXAMPLES = r"""
- name: Ids for rootless engines
  matryoshka.host.subids:
    users:
      - name: ci
      - name: builder
        count: 131072

- name: What everybody has
  matryoshka.host.subids:
  register: ids
"""

RETURN = r"""
users:
  description: What the listed users have (in check mode, would have).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: As it was given.
      type: str
    uids:
      description: The user's ranges of uids, each with C(owner), C(start) and C(count).
      type: list
      elements: dict
      contains:
        owner:
          description: The name or uid in the file.
          type: str
        start:
          description: The first id.
          type: int
        count:
          description: How many ids.
          type: int
    gids:
      description: The same for gids.
      type: list
      elements: dict
subuid:
  description: All ranges of uids in the order of the file, each with C(owner), C(start) and C(count).
  returned: success
  type: list
  elements: dict
subgid:
  description: The same for gids.
  returned: success
  type: list
  elements: dict
overlaps:
  description: What overlaps, in words. With users and O(state=present), only accounts' ids in ranges of others.
  returned: success
  type: list
  elements: str
notes:
  description: What is good to know of new ranges, in words.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._subids_apply import ARGUMENTS, answer


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    try:
        result = answer(module.params, module.check_mode, lenient=module.check_mode)
    except HostError as error:
        module.fail_json(msg=str(error))
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
