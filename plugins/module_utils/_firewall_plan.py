# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What jobs may reach: from a site's options to the chains and sets that ``netfilter_rules`` takes. Pure.

A packet of a job is known by the bridge that it comes in on (or by a source in an engine's
ranges), one of a rootless engine by the uid that it leaves with. Whatever is allowed or
closed is an entry of a set, so that the number of rules doesn't grow with the number of entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._firewall_options import FirewallOptions

OWNER = "matryoshka"
PREFIX = OWNER.upper()
FAMILIES = {4: "ipv4", 6: "ipv6"}


@dataclass
class _Chains:
    """Chains as they are put together, in order; what has no rules isn't made."""

    rules: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    hooks: list[dict[str, Any]] = field(default_factory=list)

    def add(self, chain: str, rule: str, families: Sequence[int] = (4, 6), table: str = "filter") -> None:
        entry = {"rule": rule, "families": [FAMILIES[version] for version in families]}
        self.rules.setdefault((table, f"{PREFIX}-{chain}"), []).append(entry)

    def both(self, chain: str, rule: str, table: str = "filter") -> None:
        """The same rule in both families, with ``{v}`` in the names of sets replaced by 4 and 6."""
        for version in (4, 6):
            self.add(chain, rule.format(v=version), (version,), table)

    def hook(
        self, chain: str, to: str, table: str = "filter", create: bool = False, position: str = "first"
    ) -> None:
        if (table, f"{PREFIX}-{to}") in self.rules:
            jump = {"table": table, "chain": chain, "jump": f"{PREFIX}-{to}"}
            self.hooks.append({**jump, "create": create, "position": position})


def plan_firewall(options: FirewallOptions) -> dict[str, Any]:
    """The ``sets``, ``chains`` and ``hooks`` that module ``netfilter_rules`` takes."""
    chains = _Chains()
    _forward(chains, options)
    _last(chains, options)
    if options.isolation:
        _destinations(chains)
        _guard(chains, options)
        _host(chains, options)
        _users(chains, options)
    if options.clamp_mss:
        chains.add(
            "MSS", "-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu", table="mangle"
        )
    chains.hook("FORWARD", "FORWARD")
    chains.hook("DOCKER-USER", "FORWARD", create=True)
    chains.hook("FORWARD", "LAST", position="last")
    chains.hook("INPUT", "INPUT")
    chains.hook("OUTPUT", "OUTPUT")
    chains.hook("FORWARD", "MSS", table="mangle")
    chains.hook("POSTROUTING", "GUARD", table="mangle")
    return {
        "sets": _sets(options) if options.isolation else [],
        "chains": [
            {"table": table, "name": name, "rules": rules} for (table, name), rules in chains.rules.items()
        ],
        "hooks": chains.hooks,
    }


def _forward(chains: _Chains, options: FirewallOptions) -> None:
    """What is forwarded: the host's own bridges go on, replies go back, jobs are looked at."""
    for bridge in options.host_bridges:
        chains.add("FORWARD", f"-i {bridge} -o {bridge} -m physdev --physdev-is-bridged -j ACCEPT")
    if not options.isolation:
        return
    chains.add("FORWARD", "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN")
    for interface in options.job_interfaces:
        # One network's containers talk to each other; environments all lie on the engine's own bridge.
        if interface.endswith("+") or not options.isolate_environments:
            chains.add("FORWARD", f"-i {interface} -m physdev --physdev-is-bridged -j RETURN")
    _of_jobs(chains, "FORWARD", "JOB", options)


def _of_jobs(chains: _Chains, chain: str, to: str, options: FirewallOptions) -> None:
    """Packets of jobs, by source wherever they come in, and by bridge whatever source they claim."""
    chains.both(chain, f"-m set --match-set {OWNER}-jobs{{v}} src -j {PREFIX}-{to}")
    for interface in options.exempt_interfaces:
        chains.add(chain, f"-i {interface} -j RETURN")
    for interface in options.job_interfaces:
        chains.add(chain, f"-i {interface} -j {PREFIX}-{to}")


def _last(chains: _Chains, options: FirewallOptions) -> None:
    """What everybody else's rules had nothing to say about.

    Nobody outside opens a connection to a job's unpublished port by way of the host, whatever the policy
    of FORWARD is; and the host's own bridges don't meet the policy DROP that dockerd sets.
    """
    for bridge in options.routed_bridges:
        chains.add("LAST", f"-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
    if options.isolation:
        for interface in options.exempt_interfaces:
            chains.add("LAST", f"-o {interface} -j RETURN")
        for interface in options.job_interfaces:
            # Podman's own rules may be in a table of nftables, where accepting doesn't lift another table's policy.
            verdict = "ACCEPT" if "podman" in interface else "RETURN"
            replies = "-m conntrack --ctstate RELATED,ESTABLISHED"
            chains.add("LAST", f"-o {interface} {replies} -j {verdict}")
            chains.add("LAST", f"-o {interface} -m conntrack ! --ctstate DNAT -j DROP")
            if verdict == "ACCEPT":
                chains.add("LAST", f"-o {interface} -j ACCEPT")
                chains.add("LAST", f"-i {interface} -j ACCEPT")
    for bridge in options.routed_bridges:
        chains.add("LAST", f"-i {bridge} -j ACCEPT")


def _destinations(chains: _Chains) -> None:
    """Where jobs may go: what is allowed, then nothing that is closed, then all the rest."""
    chains.both("JOB", f"-m set --match-set {OWNER}-allow{{v}} dst -j RETURN")
    chains.both("JOB", f"-m set --match-set {OWNER}-port{{v}} dst,dst -j RETURN")
    for version, reason in ((4, "icmp-admin-prohibited"), (6, "icmp6-adm-prohibited")):
        rule = f"-m set --match-set {OWNER}-closed{version} dst -j REJECT --reject-with {reason}"
        chains.add("JOB", rule, (version,))


def _guard(chains: _Chains, options: FirewallOptions) -> None:
    """The same once more, where no engine has rules: while dockerd starts, its own come first for a moment.

    In mangle's POSTROUTING a packet still has its job's address, and what JOB refuses has been told so already.
    """
    chains.add("GUARD", "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN", table="mangle")
    for interface in ("lo", *options.job_interfaces):
        chains.add("GUARD", f"-o {interface} -j RETURN", table="mangle")
    chains.both("GUARD", f"-m set ! --match-set {OWNER}-jobs{{v}} src -j RETURN", "mangle")
    chains.both("GUARD", f"-m set --match-set {OWNER}-allow{{v}} dst -j RETURN", "mangle")
    chains.both("GUARD", f"-m set --match-set {OWNER}-port{{v}} dst,dst -j RETURN", "mangle")
    chains.both("GUARD", f"-m set --match-set {OWNER}-closed{{v}} dst -j DROP", "mangle")


def _host(chains: _Chains, options: FirewallOptions) -> None:
    """What jobs reach of the host itself: nothing but a ping, what IPv6 needs, and the ports allowed."""
    chains.add("INPUT", "-i lo -j RETURN")
    chains.add("INPUT", "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN")
    _of_jobs(chains, "INPUT", "HOST", options)
    chains.add("HOST", "-p icmp -m icmp --icmp-type 8 -j RETURN", (4,))
    chains.add("HOST", "-p ipv6-icmp -j RETURN", (6,))
    for interface in options.job_interfaces:
        if interface.startswith("podman"):
            # Podman's name service for its networks listens on the bridge.
            chains.add("HOST", f"-i {interface} -p udp -m udp --dport 53 -j RETURN")
            chains.add("HOST", f"-i {interface} -p tcp -m tcp --dport 53 -j RETURN")
    _host_ports(chains, "HOST", options, "")
    chains.add("HOST", "-j REJECT --reject-with icmp-admin-prohibited", (4,))
    chains.add("HOST", "-j REJECT --reject-with icmp6-adm-prohibited", (6,))


def _host_ports(chains: _Chains, chain: str, options: FirewallOptions, match: str) -> None:
    for one in options.allow_host:
        chains.add(chain, f"-p {one.protocol} -m {one.protocol} --dport {one.port} {match}-j RETURN")


def _users(chains: _Chains, options: FirewallOptions) -> None:
    """Rootless engines: their jobs' packets are the user's own, and leave by OUTPUT."""
    if not options.uids:
        return
    chains.add("OUTPUT", "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN")
    for uid in options.uids:
        chains.add("OUTPUT", f"-m owner --uid-owner {uid} -j {PREFIX}-USER")
    chains.add("USER", "-d 127.0.0.0/8 -o lo -j RETURN", (4,))
    chains.add("USER", "-d ::1/128 -o lo -j RETURN", (6,))
    _host_ports(chains, "USER", options, "-m addrtype --dst-type LOCAL ")
    chains.add("USER", "-m addrtype --dst-type LOCAL -j REJECT --reject-with icmp-admin-prohibited", (4,))
    chains.add("USER", "-m addrtype --dst-type LOCAL -j REJECT --reject-with icmp6-adm-prohibited", (6,))
    chains.add("USER", f"-j {PREFIX}-JOB")


def _sets(options: FirewallOptions) -> list[dict[str, Any]]:
    sets = []
    for version in (4, 6):
        whole = [one for one in options.allow if not one.ports and one.network.version == version]
        ported = [one for one in options.allow if one.ports and one.network.version == version]
        for name, kind, entries in (
            ("allow", "hash:net", [entry for one in whole for entry in one.entries]),
            ("port", "hash:net,port", [entry for one in ported for entry in one.entries]),
            ("closed", "hash:net", [str(one) for one in options.closed if one.version == version]),
            ("jobs", "hash:net", [str(one) for one in options.sources if one.version == version]),
        ):
            sets.append(
                {
                    "name": f"{OWNER}-{name}{version}",
                    "type": kind,
                    "family": "inet" if version == 4 else "inet6",
                    "entries": sorted(dict.fromkeys(entries)),
                }
            )
    return sets
