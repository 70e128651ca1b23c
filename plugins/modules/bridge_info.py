#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bridge_info
short_description: Bridges, routes and address ranges of a host and its containers, and what is in each other's way
version_added: 0.1.0
description:
  - Looks at the network namespace of the host and at those of named containers, all side by side.
  - Names every overlap of ranges with both sides, every bridge whose packets a filter drops, and every place
    where packets don't fit through the next interface on their way out.
  - Changes nothing, and doesn't fail because of what it finds.
  - In a container only the network namespace is entered, with the host's own programs. Inner engines are
    asked over their sockets. Files of a container are read only where no link is on the way.
  - Filters are followed for an ordinary packet, of any protocol and port. A rule for something special may
    meet it or not, and the answer is then V(maybe). Hooks before routing (table raw, nat) aren't looked at.
  - Rootless engines of users aren't looked at.
attributes:
  check_mode:
    support: full
    description: Does the same in check mode.
  diff_mode:
    support: none
    description: Changes nothing.
  platform:
    support: full
    platforms: posix
    description: Linux with iproute2, run as root. iptables and nftables are used where they are installed.
options:
  containers:
    description:
      - Names of containers of the host's Docker or Podman to look into.
      - V(ci-1/build) is the container V(build) of the Docker inside V(ci-1), and so on; V(ci-1) is then looked at too.
      - One that isn't there or doesn't run is told in RV(findings).
    type: list
    elements: str
    default: []
  all_containers:
    description: Whether to look into every running container.
    type: bool
    default: false
  docker_socket:
    description: The socket of the host's Docker. It is asked only if a daemon runs, for asking could start one.
    type: path
    default: /run/docker.sock
  reserved:
    description:
      - Ranges that a site keeps for itself, so that no engine should have them.
      - Each a network such as V(172.16.0.0/16), or a dictionary of C(name) and C(range).
    type: list
    elements: raw
    default: []
author:
  - The matryoshka.host authors (@matryoshka-host)
"""

EXAMPLES = r"""
- name: Look at the host and into every container
  matryoshka.host.bridge_info:
    all_containers: true
    reserved:
      - {name: campus, range: 10.20.0.0/16}
  register: bridges

- name: Say what is in each other's way
  ansible.builtin.debug:
    msg: "{{ bridges.findings | map(attribute='text') | list }}"

- name: Look into two job environments
  matryoshka.host.bridge_info:
    containers: [ci-1, ci-2]
"""

RETURN = r"""
verdict:
  description: V(ok), V(degraded) or V(broken), the worst of RV(findings). Notes don't count.
  returned: always
  type: str
namespaces:
  description:
    - The V(host) and each container by its name.
    - C(error), why it couldn't be looked at; C(same_as), whose network namespace it shares; C(pid).
    - C(addresses) (C(interface), C(address), C(family), C(scope)).
    - C(routes) of all tables (C(destination), C(interface), C(gateway), C(family), C(table), C(type),
      C(metric), C(mtu)), without the machine's own addresses and IPv6's link-local networks.
    - C(rules), policy rules apart from the kernel's own; C(learnt_mtus), smaller MTUs that the kernel has
      learnt (C(destination), C(interface), C(mtu)); C(nameservers).
    - C(bridges) (C(name), C(addresses), C(ports), C(mtu), C(up), C(stp), C(vlan_filtering), C(managed_by),
      one of V(docker), V(podman), V(libvirt), V(other), C(network), the engine's name for it, and C(traffic)).
    - C(traffic) of a bridge is V(bridged), between its own guests, and V(routed), from them to the uplink and
      back, for each C(family); it C(passes) V(yes), V(no) or V(maybe), C(because) of a rule or policy.
    - C(engines) (C(engine), C(live), C(error), C(networks), C(pools), C(built_in_pools)). A C(network) has
      C(name), C(driver), C(interface), C(ranges), C(mtu), C(internal), C(isolated).
    - C(forwarding) (C(ipv4), C(ipv6)); C(br_netfilter) (C(loaded), C(call_iptables), C(call_ip6tables),
      C(call_arptables)).
    - C(backends), those with rules, of V(nft), V(legacy) and V(nft native); C(unread), what couldn't be read.
  returned: always
  type: dict
overlaps:
  description:
    - Each pair of ranges that share addresses, the worst first. C(a) is the side that can be moved.
    - C(a) and C(b) have C(where) (V(host) or a container), C(kind) (V(network), V(pool), V(route),
      V(nameserver), V(reserved)), C(what), C(range).
    - C(severity) is V(broken), V(degraded) (it breaks when the range is used), or V(note) (engines avoid it
      while the other side is there). C(text), C(remedy).
    - Default routes, and the two halves that VPN clients set in their place, aren't ranges.
  returned: always
  type: list
  elements: dict
  sample:
    - a: {where: host, kind: network, what: docker network app, range: 172.30.0.0/16}
      b: {where: host, kind: route, what: route on wg0 in table 51820, range: 172.30.5.0/24}
      severity: broken
      text: >-
        docker network app 172.30.0.0/16 (the host) overlaps route on wg0 in table 51820 172.30.5.0/24 (the host):
        what is behind that route can't be reached from both sides
      remedy: docker network inspect to see who uses it, remove it or give it another --subnet
cut_off:
  description:
    - Bridges whose packets are surely dropped. C(where), C(bridge), C(network), C(family), C(traffic)
      (V(bridged) or V(routed)), C(because) (the rule or policy), C(text), C(remedy).
  returned: always
  type: list
  elements: dict
mtu_paths:
  description:
    - The ways from each container's innermost bridge to the host's uplink, and from the host's own bridges.
    - C(container), C(network), C(steps), the innermost first (C(where), C(interface), C(mtu), C(interface_mtu),
      C(what)), C(minimum), C(ok) (each step's packets fit through the next one), C(complete) (the uplink was
      reached), C(text).
    - At the first bridge C(mtu) is what the engine gives its containers, at an uplink the route's own limit.
  returned: always
  type: list
  elements: dict
findings:
  description:
    - All that isn't as it should be. C(code) (V(overlap), V(overlap_possible), V(bridge_cut_off), V(mtu),
      V(both_backends), V(not_looked_at), V(partly_read)), C(subject), C(severity), C(text), C(remedy).
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_info import ARGUMENTS, answer
from ansible_collections.matryoshka.host.plugins.module_utils._command import run
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import ask


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = answer(module.params, run, ask)
    except HostError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
