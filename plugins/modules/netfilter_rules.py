#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: netfilter_rules
short_description: Own chains, sets and hooks of iptables and ip6tables as data
version_added: 0.1.0
author: The matryoshka.host authors (@matryoshka-host)
description:
  - Keeps chains and sets whose names begin with the owner's, and the jumps to them, exactly as a list says.
    Rules of others are never touched.
  - What is wanted is first loaded into an empty network namespace by the same programs and read back.
    So the kernel has checked every rule before a live one is touched, and rules are compared by meaning,
    not by spelling. If one rule or entry is refused, nothing is changed.
  - Changes go in with one C(iptables-restore --noflush) for each family, which replaces chains and hooks
    at once (with the legacy backend, each table at once). Sets are replaced by C(ipset swap).
  - Owned chains and sets that aren't in the list are removed, and jumps to them from anywhere, in the
    other backend too.
  - The same data is saved for the program that puts the rules back at boot and after an engine's restart.
options:
  owner:
    description:
      - Whose chains and sets these are. A chain's name begins with the owner in capitals and C(-), a set's with
        the owner and C(-).
      - A small letter, then up to 15 small letters, digits and C(_).
    type: str
    default: matryoshka
  state:
    description: V(absent) removes all of the owner's chains, sets and jumps, and the file at O(path).
    type: str
    choices: [present, absent]
    default: present
  backend:
    description: Where the rules go. V(auto) is the backend of the command C(iptables), which engines call.
    type: str
    choices: [auto, nft, legacy]
    default: auto
  ipv6:
    description:
      - Whether rules for IPv6 are kept. V(auto) keeps them where the host has IPv6, and leaves out there
        what is for IPv6 where it hasn't, or where it is disabled on all interfaces.
      - With V(false), and on a host without IPv6, chains and hooks whose C(families) name V(ipv6) are refused.
    type: str
    choices: [auto, "true", "false"]
    default: auto
  path:
    description:
      - Where the data is saved for the boot program, with mode V(0600). Missing directories are made.
      - Null or an empty text saves it nowhere.
    type: path
    default: /etc/matryoshka/firewall.json
  sets:
    description: Sets of ipset. Those of family V(inet6) are left out where there is no IPv6.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: At most 31 characters.
        type: str
        required: true
      type:
        description: The set's type, see ipset(8).
        type: str
        choices: ["hash:ip", "hash:net", "hash:ip,port", "hash:net,port", "hash:net,net"]
        default: "hash:net"
      family:
        description: The addresses' family.
        type: str
        choices: [inet, inet6]
        default: inet
      entries:
        description:
          - Entries such as V(192.0.2.0/24), V(192.0.2.1-192.0.2.9) or V(192.0.2.1,tcp:443).
          - V(nomatch) after an entry makes an exception, see ipset(8).
        type: list
        elements: str
        default: []
      comment:
        description: What the set is for. It is saved with the data.
        type: str
  chains:
    description: Owned chains.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: At most 28 characters.
        type: str
        required: true
      table:
        description: The table it is in.
        type: str
        choices: [filter, mangle, nat, raw]
        default: filter
      families:
        description: Which families have it. All that the host has by default.
        type: list
        elements: str
        choices: [ipv4, ipv6]
      rules:
        description:
          - Rules in the syntax of iptables(8) without C(-A CHAIN), such as
            C(-m set --match-set matryoshka-deny4 dst -j REJECT).
          - A rule for one family only is a mapping C({rule, families}). One for IPv6 is left out where
            there is none.
        type: list
        elements: raw
        default: []
  hooks:
    description: Jumps to owned chains. They are kept as the first or last rules of their chain, in the list's order.
    type: list
    elements: dict
    default: []
    suboptions:
      chain:
        description: The chain that the jump is in, such as V(FORWARD) or V(DOCKER-USER).
        type: str
        required: true
      jump:
        description: The owned chain that it leads to.
        type: str
        required: true
      table:
        description: The table of both.
        type: str
        choices: [filter, mangle, nat, raw]
        default: filter
      families:
        description: Which families have it. Those of the chain by default.
        type: list
        elements: str
        choices: [ipv4, ipv6]
      match:
        description: What packets must match to take the jump, such as C(-i docker0).
        type: str
        default: ""
      create:
        description:
          - Make the chain if it isn't there, as for V(DOCKER-USER) before the engine's first start.
            Without it a missing chain is refused.
        type: bool
        default: false
      position:
        description:
          - V(first) keeps the jump before all rules of others, V(last) after all of them, for what is to happen
            before the chain's policy does. All jumps to one owned chain have the same.
        type: str
        choices: [first, last]
        default: first
attributes:
  check_mode:
    support: full
    description: Says what would change and changes nothing.
  diff_mode:
    support: full
    description: Shows owned chains and those with hooks as C(iptables-save) does, and sets as C(ipset save) does.
  platform:
    support: full
    platforms: posix
    description: Where the module runs. It needs iptables, util-linux and, for sets, ipset.
"""

EXAMPLES = r"""
- name: Containers reach the internet but not the local network
  matryoshka.host.netfilter_rules:
    sets:
      - name: matryoshka-deny4
        entries: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 169.254.0.0/16]
      - name: matryoshka-deny6
        family: inet6
        entries: ["fc00::/7"]
    chains:
      - name: MATRYOSHKA-FORWARD
        rules:
          - -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
          - rule: -m set --match-set matryoshka-deny4 dst -j REJECT
            families: [ipv4]
          - rule: -m set --match-set matryoshka-deny6 dst -j REJECT
            families: [ipv6]
    hooks:
      - chain: FORWARD
        match: -i docker0
        jump: MATRYOSHKA-FORWARD
      - chain: DOCKER-USER
        match: -i docker0
        jump: MATRYOSHKA-FORWARD
        create: true

- name: All of it goes
  matryoshka.host.netfilter_rules:
    state: absent
"""

RETURN = r"""
backend:
  description: Where the rules are, V(nft) or V(legacy). None in check mode if iptables isn't installed yet.
  returned: success
  type: str
both_loaded:
  description: Whether the other backend has rules of others or dropping policies. A packet has to pass both.
  returned: success
  type: bool
families:
  description: The families that rules are kept for.
  returned: success
  type: list
  elements: str
chains:
  description: Wanted chains with the number of their rules. C(state) is V(created), V(changed) or V(present).
  returned: success
  type: list
  elements: dict
  sample: [{"family": "ipv4", "table": "filter", "name": "MATRYOSHKA-FORWARD", "rules": 2, "state": "present"}]
hooks:
  description:
    - Jumps to owned chains. C(state) is V(created), V(present), V(removed), or V(moved) for one that was there
      but not at its place among the first rules.
  returned: success
  type: list
  elements: dict
  sample:
    - family: ipv4
      table: filter
      chain: FORWARD
      jump: MATRYOSHKA-FORWARD
      rule: -i docker0 -j MATRYOSHKA-FORWARD
      state: moved
sets:
  description: Wanted sets with the numbers of their entries, and of those added and removed.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "matryoshka-deny4", "entries": 4, "added": 1, "removed": 0, "state": "changed"}]
moved:
  description: Hooks that weren't at their place.
  returned: success
  type: list
  elements: str
  sample: ["ipv4 filter FORWARD -> MATRYOSHKA-FORWARD"]
removed:
  description: Owned chains and sets that aren't wanted.
  returned: success
  type: list
  elements: str
  sample: ["iptables-nft filter MATRYOSHKA-OLD", "ipset matryoshka-old"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._command import run
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._netfilter_apply import ARGUMENTS, answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = answer(module.params, module.check_mode, run)
    except HostError as error:
        module.fail_json(msg=str(error))
    for text in result.pop("warnings"):
        module.warn(text)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
