#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the image of job environments on the host's engine as its recipe says."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: environment_image
short_description: The image that job environments are made from
version_added: 0.1.0
author: The matryoshka.host authors (@matryoshka-host)
description:
  - Builds the image of job environments on the host, from Debian or Ubuntu packages (mmdebstrap) or from an image
    of a registry that is pinned by digest.
  - The image's name is a hash of its recipe. The image is built only if there is none of that name.
  - Images of older recipes that no container uses are removed.
requirements:
  - docker on the host
  - mmdebstrap on the host, and C(setpriv) and C(unshare) of util-linux, unless the base comes from a registry
options:
  state:
    description: Whether the image has to be there. V(absent) removes all environment images, of every recipe.
    type: str
    choices: [present, absent]
    default: present
  recipe:
    description: All that goes into the image. Required for O(state=present).
    type: dict
    suboptions:
      mode:
        description: Mode that the image is for; a part of its name.
        type: str
        default: dind
      base:
        description: V(debian) makes the base from packages on the host. Anything else is an image of a registry,
          pinned by digest as C(name@sha256:…).
        type: str
        default: debian
      suite:
        description: Code name of the release, such as V(trixie).
        type: str
        required: true
      components:
        description: Components of the archive.
        type: list
        elements: str
        default: [main]
      pockets:
        description: Suites that belong to the release, and are used too.
        type: list
        elements: str
        choices: [updates, security, backports]
        default: [updates, security]
      mirror:
        description:
          - Address that packages come from.
          - Empty takes the host's own sources of that suite, or O(recipe.default_mirror) if it has none.
        type: str
        default: ""
      security_mirror:
        description: The same for the security pocket, if O(recipe.mirror) is set. Empty takes O(recipe.default_security_mirror).
        type: str
        default: ""
      default_mirror:
        description: Address of the distribution's own archive.
        type: str
        default: http://deb.debian.org/debian
      default_security_mirror:
        description: Address of the distribution's own security archive. Empty takes O(recipe.default_mirror).
        type: str
        default: ""
      packages:
        description: Names of packages, or C(name=version).
        type: list
        elements: str
        required: true
      preferences:
        description: apt pins that are in force for O(recipe.packages) and in the image.
        type: list
        elements: dict
        default: []
        suboptions:
          package:
            description: Package, pattern or regular expression, as in apt_preferences(5).
            type: str
            required: true
          pin:
            description: What is pinned, such as V(version 26.1.*) or V(release n=trixie-backports).
            type: str
            required: true
          priority:
            description: Priority of the pin.
            type: int
            required: true
      refresh:
        description: Any text. Another text builds the image anew, with the packages of that day.
        type: str
        default: ""
      files:
        description: Files in the image, absolute path to text. C(/usr/local/sbin/environment-start) and
          C(/usr/local/sbin/environment-ready) are required.
        type: dict
        required: true
  build_directory:
    description: Existing folder on a disk, for a private temporary folder that is always removed. About 1 GB is needed.
    type: path
    default: /var/tmp
  log:
    description: File for the output of the last build.
    type: path
    default: /var/log/matryoshka/environment-image.log
  timeout:
    description: Seconds after which a build is given up.
    type: int
    default: 1800
  archive:
    description:
      - File on the host that C(docker save) has written on another host with the same recipe. The image is loaded from it
        instead of being built, so that many hosts share one build.
      - It is refused before anything is loaded if it has no image of this recipe.
    type: path
    default: ""
attributes:
  check_mode:
    description: Says whether anything would change, also on a host that has no engine yet.
    support: full
  diff_mode:
    description: Shows images before and after.
    support: full
  platform:
    description: Where it runs.
    platforms: debian
    support: full
"""

EXAMPLES = r"""
- name: Image of job environments
  matryoshka.host.environment_image:
    recipe:
      suite: trixie
      packages: [docker.io, docker-cli, iptables, ca-certificates, tini, procps, curl]
      refresh: "2026-11"
      files:
        /usr/local/sbin/environment-start: "{{ lookup('ansible.builtin.file', 'environment-start', rstrip=false) }}"
        /usr/local/sbin/environment-ready: "{{ lookup('ansible.builtin.file', 'environment-ready', rstrip=false) }}"

- name: The same image on a hundred hosts, built once
  matryoshka.host.environment_image:
    recipe: "{{ recipe }}"
    archive: /srv/images/environment.tar

- name: No environment images
  matryoshka.host.environment_image:
    state: absent
"""

RETURN = r"""
reference:
  description: Name of the image.
  returned: state is present
  type: str
  sample: matryoshka/environment-dind:0a1b2c3d4e5f
sha256:
  description: Hash of the recipe, as in the image's label C(matryoshka.recipe).
  returned: state is present
  type: str
built:
  description: Whether the image was built, or would be in check mode.
  returned: always
  type: bool
size:
  description: Bytes of the image.
  returned: an image was built
  type: int
seconds:
  description: Seconds that the build took.
  returned: an image was built
  type: float
removed:
  description: Images that were removed, or would be in check mode.
  returned: always
  type: list
  elements: str
kept:
  description: Images of older recipes that containers still use; they go in a later run.
  returned: always
  type: list
  elements: str
"""

import signal

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._command import pipe, run
from ansible_collections.matryoshka.host.plugins.module_utils._environment_image_build import (
    ARGUMENTS,
    REQUIRED_IF,
    apply,
)
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError


def interrupted(number: int, _frame: object) -> None:
    """End by an exception, so that what was begun is removed."""
    raise HostError(f"interrupted by signal {number}; what was begun is removed")


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, required_if=REQUIRED_IF)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    try:
        result = apply(module.params, module.check_mode, run, pipe)
        for refusal in result.pop("refused", []):
            module.warn(refusal)
        module.exit_json(**result)
    except HostError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
