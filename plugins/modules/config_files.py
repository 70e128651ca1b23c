#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: config_files
short_description: Write many files and directories in one round trip
version_added: 0.1.0
author: The matryoshka.host authors (@matryoshka-host)
description:
  - Makes directories, writes files, removes paths, and removes files that a list no longer has.
  - Everything is checked before the first change. Each file is replaced atomically, only if it differs.
options:
  files:
    description: Files to write.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The absolute path. Missing directories above it are made with mode V(0755).
        type: str
        required: true
      content:
        description: The whole content.
        type: str
        required: true
      mode:
        description: Permission bits as octal text.
        type: str
        default: "0644"
      owner:
        description: A user's name or uid. Kept if not given.
        type: str
      group:
        description: A group's name or gid. Kept if not given.
        type: str
      secret:
        description: Keep the content out of logs, results and C(--diff).
        type: bool
        default: false
  directories:
    description: Directories to make, or to give these attributes.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The absolute path.
        type: str
        required: true
      mode:
        description: Permission bits as octal text.
        type: str
        default: "0755"
      owner:
        description: A user's name or uid. Kept if not given.
        type: str
      group:
        description: A group's name or gid. Kept if not given.
        type: str
  absent:
    description:
      - Paths to remove. A link is removed, not what it leads to.
      - A directory is removed only if all that is in it is removed too.
    type: list
    elements: str
    default: []
  orphans:
    description: Removes files that match but aren't in O(files).
    type: list
    elements: dict
    default: []
    suboptions:
      directory:
        description: The directory to look in, not in those below it. It may be missing.
        type: str
        required: true
      pattern:
        description: A shell pattern for the file's name, such as V(*.json).
        type: str
        required: true
attributes:
  check_mode:
    support: full
    description: Says what would change and changes nothing.
  diff_mode:
    support: full
    description: Shows what changes, without secret contents.
  platform:
    support: full
    platforms: posix
    description: Where the module runs.
"""

EXAMPLES = r"""
- name: Configurations of all runners; those of removed ones go
  matryoshka.host.config_files:
    directories:
      - path: /etc/matryoshka/runners
        mode: "0700"
    files:
      - path: /etc/matryoshka/runners/ci.json
        content: "{{ runner | to_nice_json }}"
        mode: "0600"
        secret: true
    orphans:
      - directory: /etc/matryoshka/runners
        pattern: "*.json"
"""

RETURN = r"""
changed_paths:
  description: Directories and files that were made or changed.
  type: list
  elements: str
  returned: success
removed_paths:
  description: What was removed.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils import _config_files
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError


def main() -> None:
    module = AnsibleModule(_config_files.ARGUMENTS, supports_check_mode=True)
    # content is never logged; only what is secret stays out of the result and the diff too.
    module.no_log_values = _config_files.secrets(module.params)
    try:
        result = _config_files.answer(module.params, module.check_mode, lenient=module.check_mode)
    except HostError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
