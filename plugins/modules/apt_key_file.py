#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_key_file
short_description: A repository's signing key, refused unless it has the pinned fingerprint
version_added: 0.1.0
author:
  - The matryoshka.host authors (@matryoshka-host)
description:
  - Fetches an OpenPGP key, compares its fingerprint and writes it to a file for C(Signed-By).
  - Needs no gpg on the host. A key that isn't the pinned one, or a file with further keys, is refused before anything is written.
  - If the file is there with the wanted key, nothing is fetched.
options:
  url:
    description: Where the key is; C(https), C(http) or C(file).
    type: str
    required: true
  path:
    description: Where the key is written to. Its folder is made.
    type: path
    required: true
  fingerprint:
    description: The fingerprint of the primary key, 40 hexadecimal digits; blanks are ignored.
    type: str
    required: true
attributes:
  check_mode:
    description: Whether it can say what it would change.
    support: full
  diff_mode:
    description: Whether it shows the difference.
    support: none
  platform:
    description: Where it works.
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: Key of Docker's repository
  matryoshka.host.apt_key_file:
    url: https://download.docker.com/linux/debian/gpg
    path: /etc/apt/keyrings/docker.asc
    fingerprint: 9DC8 5822 9FC7 DD38 854A E2D8 8D81 803C 0EBF CD88
"""

RETURN = r"""
fingerprint:
  description: The fingerprint of the key in the file.
  type: str
  returned: success
  sample: 9DC858229FC7DD38854AE2D88D81803C0EBFCD88
"""

import os
import re

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._openpgp import fingerprints


def present(path: str) -> list[str]:
    """The fingerprints of the file that is there; none if it isn't there or isn't a key."""
    try:
        with open(path, "rb") as file:
            return fingerprints(file.read())
    except (OSError, HostError):
        return []


def fetch(url: str, wanted: str) -> bytes:
    """The key at ``url``. Raises HostError if it isn't the wanted one."""
    try:
        data: bytes = open_url(url, timeout=30).read()
    except Exception as error:
        raise HostError(f"url: {url} can't be fetched: {error}") from error
    found = fingerprints(data)
    if found != [wanted]:
        raise HostError(
            f"url: the key at {url} has fingerprint {', '.join(found)}; wanted is {wanted}. Nothing was written"
        )
    return data


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "fingerprint": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    path = module.params["path"]
    wanted = re.sub(r"\s", "", module.params["fingerprint"]).upper()
    try:
        if not re.fullmatch(r"[0-9A-F]{40}", wanted):
            raise InputError("fingerprint", module.params["fingerprint"], "40 hexadecimal digits")
        changed = present(path) != [wanted]
        if changed and not module.check_mode:
            data = fetch(module.params["url"], wanted)
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            temporary = os.path.join(module.tmpdir, os.path.basename(path))
            with open(temporary, "wb") as file:
                file.write(data)
            module.atomic_move(temporary, path)
            os.chmod(path, 0o644)
    except HostError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, fingerprint=wanted)


if __name__ == "__main__":
    main()
