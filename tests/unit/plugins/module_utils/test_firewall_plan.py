# SPDX-License-Identifier: GPL-3.0-or-later
"""From a site's options to sets, chains and hooks, and every option that is refused."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._firewall_options import CLOSED, read_options
from ansible_collections.matryoshka.host.plugins.module_utils._firewall_plan import plan_firewall
from ansible_collections.matryoshka.host.plugins.module_utils._taken_ranges import taken_ranges
from hypothesis import given
from hypothesis import strategies as st

JOBS = ["docker0", "br-+", "podman+"]
FACTS: dict[str, Any] = {
    "network": {
        "addresses": [
            {"interface": "lo", "address": "127.0.0.1/8", "family": 4},
            {"interface": "eth0", "address": "192.168.1.20/24", "family": 4},
            {"interface": "docker0", "address": "172.20.0.1/16", "family": 4},
        ],
        "routes": [
            {"destination": "0.0.0.0/0", "interface": "eth0"},
            {"destination": "192.168.1.0/24", "interface": "eth0"},
            {"destination": "172.20.0.0/16", "interface": "docker0"},
            {"destination": "10.9.0.0/16", "interface": "wg0"},
            {"destination": "fe80::/64", "interface": "eth0"},
        ],
        "nameservers": ["192.168.1.1", "127.0.0.53", "fd00::53%eth0", "not an address"],
        "bridges": [
            {"name": "br0", "managed_by": "other"},
            {"name": "virbr0", "managed_by": "libvirt"},
            {"name": "docker0", "managed_by": "docker"},
            {"name": "br-lan", "managed_by": "other"},
        ],
    },
    "users": {
        "ci": {"uid": 1001, "subuid_ranges": [[100000, 65536]]},
        "root": {"uid": 0, "subuid_ranges": []},
    },
}


def plan(**options: Any) -> dict[str, Any]:
    return plan_firewall(read_options({"job_interfaces": JOBS, **options}, FACTS))


def rules(planned: dict[str, Any], chain: str, family: str = "ipv4") -> list[str]:
    return [
        one["rule"]
        for entry in planned["chains"]
        if entry["name"] == f"MATRYOSHKA-{chain}"
        for one in entry["rules"]
        if family in one["families"]
    ]


def entries(planned: dict[str, Any], name: str) -> list[str]:
    return next(one["entries"] for one in planned["sets"] if one["name"] == f"matryoshka-{name}")


def test_a_job_meets_what_is_allowed_before_what_is_closed() -> None:
    assert rules(plan(), "JOB") == [
        "-m set --match-set matryoshka-allow4 dst -j RETURN",
        "-m set --match-set matryoshka-port4 dst,dst -j RETURN",
        "-m set --match-set matryoshka-closed4 dst -j REJECT --reject-with icmp-admin-prohibited",
    ]
    assert "icmp6-adm-prohibited" in rules(plan(), "JOB", "ipv6")[-1]


@pytest.mark.parametrize(
    ("address", "closed"),
    [
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("172.31.255.255", True),
        ("172.32.0.1", False),
        ("192.168.1.1", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("100.128.0.1", False),
        ("224.0.0.251", True),
        ("255.255.255.255", True),
        ("198.51.100.7", False),
        ("1.1.1.1", False),
        ("fd00:ec2::254", True),
        ("fe80::1", True),
        ("ff02::fb", True),
        ("2606:4700::1111", False),
        ("64:ff9b::192.168.1.1", True),
        ("64:ff9b::1.1.1.1", False),
        ("::ffff:10.0.0.1", True),
    ],
)
def test_what_is_closed(address: str, closed: bool) -> None:
    planned = plan()
    ranges = [ipaddress.ip_network(one) for name in ("closed4", "closed6") for one in entries(planned, name)]
    assert any(ipaddress.ip_address(address) in one for one in ranges) == closed


def test_more_can_be_closed() -> None:
    assert "203.0.113.0/24" in entries(plan(close=["203.0.113.7/24"]), "closed4")
    # Inside of what is closed already it is no entry of its own.
    assert entries(plan(close=["10.1.0.0/16"]), "closed4") == entries(plan(), "closed4")


def test_what_is_allowed_is_an_entry_of_a_set_never_a_rule() -> None:
    few = plan(allow=["10.0.0.5"])
    many = plan(allow=[f"10.0.{n // 256}.{n % 256}" for n in range(1000)])
    assert rules(few, "JOB") == rules(many, "JOB")
    assert entries(few, "allow4") == ["10.0.0.5/32"]
    assert len(entries(many, "allow4")) == 1000


def test_ports_and_both_families() -> None:
    planned = plan(
        allow=[
            {"to": "10.0.0.5", "ports": [443, "8080"]},
            {"to": "fd00::/64", "protocol": "udp", "ports": [53]},
            {"to": "10.7.0.0/16"},
        ],
        allow_nameservers=False,
    )
    assert entries(planned, "port4") == ["10.0.0.5/32,tcp:443", "10.0.0.5/32,tcp:8080"]
    assert entries(planned, "port6") == ["fd00::/64,udp:53"]
    assert entries(planned, "allow4") == ["10.7.0.0/16"]


def test_the_hosts_nameservers_stay_within_reach() -> None:
    planned = plan()
    assert entries(planned, "port4") == ["192.168.1.1/32,tcp:53", "192.168.1.1/32,udp:53"]
    assert entries(planned, "port6") == ["fd00::53/128,tcp:53", "fd00::53/128,udp:53"]
    assert entries(plan(allow_nameservers=False), "port4") == []
    assert not any("--dport 53" in rule and "docker0" in rule for rule in rules(planned, "HOST"))


def test_a_nameserver_that_is_the_host_itself_is_a_port_of_the_host() -> None:
    facts = {"network": {**FACTS["network"], "nameservers": ["192.168.1.20"]}}
    planned = plan_firewall(read_options({"job_interfaces": ["docker0"]}, facts))
    assert "-p udp -m udp --dport 53 -j RETURN" in rules(planned, "HOST")


def test_of_the_host_itself_only_a_ping_and_the_ports_allowed() -> None:
    planned = plan(allow_host=[{"ports": [5000]}, {"protocol": "udp", "ports": [123]}])
    found = [rule for rule in rules(planned, "HOST") if "podman" not in rule]
    assert found == [
        "-p icmp -m icmp --icmp-type 8 -j RETURN",
        "-p tcp -m tcp --dport 5000 -j RETURN",
        "-p udp -m udp --dport 123 -j RETURN",
        "-j REJECT --reject-with icmp-admin-prohibited",
    ]
    assert rules(planned, "HOST", "ipv6")[0] == "-p ipv6-icmp -j RETURN"


def test_podmans_name_service_listens_on_its_bridge() -> None:
    assert "-i podman+ -p udp -m udp --dport 53 -j RETURN" in rules(plan(), "HOST")


def test_jobs_are_known_by_their_bridges_and_by_the_engines_ranges() -> None:
    planned = plan(sources=["172.20.0.0/16", "172.25.0.0/16", "fd12::/64"])
    assert entries(planned, "jobs4") == ["172.20.0.0/16", "172.25.0.0/16"]
    assert entries(planned, "jobs6") == ["fd12::/64"]
    for chain, to in (("FORWARD", "JOB"), ("INPUT", "HOST")):
        found = rules(planned, chain)
        for way in ("-i docker0", "-i br-+", "-i podman+", "-m set --match-set matryoshka-jobs4 src"):
            assert f"{way} -j MATRYOSHKA-{to}" in found


def test_replies_go_back_before_anything_is_judged() -> None:
    replies = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
    assert rules(plan(host_bridges=[]), "FORWARD")[0] == replies
    # The host speaks to itself from the address of its bridge, too.
    assert rules(plan(host_bridges=[]), "INPUT")[:2] == ["-i lo -j RETURN", replies]


def test_environments_are_apart_unless_told_otherwise() -> None:
    bridged = "-i docker0 -m physdev --physdev-is-bridged -j RETURN"
    assert bridged not in rules(plan(), "FORWARD")
    assert bridged in rules(plan(isolate_environments=False), "FORWARD")
    assert "-i br-+ -m physdev --physdev-is-bridged -j RETURN" in rules(plan(), "FORWARD")


def test_the_hosts_own_bridges_go_on() -> None:
    planned = plan()
    assert rules(planned, "FORWARD")[:3] == [
        "-i br-lan -o br-lan -m physdev --physdev-is-bridged -j ACCEPT",
        "-i br0 -o br0 -m physdev --physdev-is-bridged -j ACCEPT",
        "-i virbr0 -o virbr0 -m physdev --physdev-is-bridged -j ACCEPT",
    ]
    found = rules(planned, "LAST")
    assert found[0] == "-o virbr0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    assert found[-1] == "-i virbr0 -j ACCEPT"
    assert "-i br0 -j ACCEPT" in rules(plan(host_bridges=["br0"]), "LAST")
    alone = rules(plan(host_bridges=[], job_interfaces=["docker0"]), "LAST")
    assert not any("ACCEPT" in rule for rule in alone)


def test_a_bridge_of_the_host_that_is_named_like_dockers_locks_nobody_out() -> None:
    for chain, to in (("INPUT", "HOST"), ("FORWARD", "JOB")):
        found = rules(plan(), chain)
        assert found.index("-i br-lan -j RETURN") < found.index(f"-i br-+ -j MATRYOSHKA-{to}")
        # A network of Docker's with such a name is still known by its addresses.
        jobs = f"-m set --match-set matryoshka-jobs4 src -j MATRYOSHKA-{to}"
        assert found.index(jobs) < found.index("-i br-lan -j RETURN")
    assert "-o br-lan -j RETURN" in rules(plan(), "LAST")
    uplink = {"network": {**FACTS["network"], "bridges": [], "default_interface": "br-uplink"}}
    planned = plan_firewall(read_options({"job_interfaces": JOBS}, uplink))
    assert "-i br-uplink -j RETURN" in rules(planned, "INPUT")


def test_nobody_outside_reaches_a_port_that_is_not_published() -> None:
    found = rules(plan(host_bridges=[]), "LAST")
    assert found[:2] == [
        "-o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        "-o docker0 -m conntrack ! --ctstate DNAT -j DROP",
    ]
    # What Podman accepts elsewhere doesn't meet Docker's policy.
    assert found[-4:] == [
        "-o podman+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-o podman+ -m conntrack ! --ctstate DNAT -j DROP",
        "-o podman+ -j ACCEPT",
        "-i podman+ -j ACCEPT",
    ]
    assert rules(plan(isolation=False, host_bridges=[]), "LAST") == []


def test_hooks() -> None:
    found = [(one["table"], one["chain"], one["jump"], one["position"]) for one in plan()["hooks"]]
    assert found == [
        ("filter", "FORWARD", "MATRYOSHKA-FORWARD", "first"),
        ("filter", "DOCKER-USER", "MATRYOSHKA-FORWARD", "first"),
        ("filter", "FORWARD", "MATRYOSHKA-LAST", "last"),
        ("filter", "INPUT", "MATRYOSHKA-INPUT", "first"),
        ("mangle", "FORWARD", "MATRYOSHKA-MSS", "first"),
        ("mangle", "POSTROUTING", "MATRYOSHKA-GUARD", "first"),
    ]
    assert [one["chain"] for one in plan()["hooks"] if one["create"]] == ["DOCKER-USER"]


def test_what_is_closed_is_closed_once_more_where_no_engine_has_rules() -> None:
    found = rules(plan(), "GUARD")
    assert found[0] == "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
    assert found[-4:] == [
        "-m set ! --match-set matryoshka-jobs4 src -j RETURN",
        "-m set --match-set matryoshka-allow4 dst -j RETURN",
        "-m set --match-set matryoshka-port4 dst,dst -j RETURN",
        "-m set --match-set matryoshka-closed4 dst -j DROP",
    ]


def test_rootless_engines_by_the_uids_that_they_send_with() -> None:
    planned = plan(users=["ci"], allow_host=[{"ports": [5000]}])
    assert rules(planned, "OUTPUT")[1:] == [
        "-m owner --uid-owner 1001 -j MATRYOSHKA-USER",
        "-m owner --uid-owner 100000-165535 -j MATRYOSHKA-USER",
    ]
    assert rules(planned, "USER")[-1] == "-j MATRYOSHKA-JOB"
    assert "--dst-type LOCAL -j REJECT" in rules(planned, "USER")[-2]
    # A port of the host's is no port of everybody's.
    assert "-p tcp -m tcp --dport 5000 -m addrtype --dst-type LOCAL -j RETURN" in rules(planned, "USER")
    assert "OUTPUT" in [one["chain"] for one in planned["hooks"]]


def test_without_isolation_only_bridges_and_segments_are_looked_after() -> None:
    planned = plan(isolation=False)
    assert planned["sets"] == []
    assert {one["name"] for one in planned["chains"]} == {
        "MATRYOSHKA-FORWARD",
        "MATRYOSHKA-LAST",
        "MATRYOSHKA-MSS",
    }
    assert plan(isolation=False, clamp_mss=False, host_bridges=[]) == {"sets": [], "chains": [], "hooks": []}


def test_no_entry_is_in_another() -> None:
    for name in ("closed4", "closed6"):
        found = [ipaddress.ip_network(one) for one in entries(plan(), name)]
        assert not [1 for one in found for other in found if one is not other and one.overlaps(other)]
    assert len(CLOSED) == len(set(CLOSED))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"allow": ["mirror.example.org"]},
            "network_allow[0]: 'mirror.example.org' is refused; allowed: an address",
        ),
        ({"allow": ["10.0.0.5", "10.0.0.256"]}, "network_allow[1]: '10.0.0.256' is refused"),
        ({"allow": "10.0.0.5"}, "network_allow: '10.0.0.5' is refused; allowed: a list of"),
        ({"allow": ["0.0.0.0/0"]}, "network_isolation: false opens all"),
        ({"allow": [{"to": "10.0.0.5", "port": 443}]}, "{to: 192.0.2.10, protocol: tcp, ports: [443]}"),
        ({"allow": [{"to": "10.0.0.5", "ports": []}]}, "network_allow[0].ports: [] is refused"),
        (
            {"allow": [{"to": "10.0.0.5", "ports": [0]}]},
            "network_allow[0].ports: 0 is refused; allowed: a list of ports",
        ),
        ({"allow": [{"to": "10.0.0.5", "ports": [70000]}]}, "network_allow[0].ports: 70000 is refused"),
        (
            {"allow": [{"to": "10.0.0.5", "protocol": "icmp", "ports": [1]}]},
            "'icmp' is refused; allowed: tcp or udp",
        ),
        ({"allow": [{"to": "10.0.0.5", "protocol": "tcp"}]}, "network_allow[0].protocol: 'tcp' is refused"),
        ({"allow": [{"to": "x", "ports": [1]}]}, "network_allow[0].to: 'x' is refused"),
        (
            {"allow_host": [5000]},
            "network_allow_host[0]: 5000 is refused; allowed: {protocol: tcp, ports: [5000]}",
        ),
        ({"close": ["all"]}, "network_close[0]: 'all' is refused"),
        ({"job_interfaces": ["docker0; rm"]}, "network_job_interfaces[0]: 'docker0; rm' is refused"),
        ({"job_interfaces": ["a" * 16]}, "of at most 15 characters"),
        (
            {"host_bridges": ["docker0"]},
            "network_host_bridges[0]: 'docker0' is refused; allowed: a bridge that isn't",
        ),
        (
            {"users": ["nobody-knows"]},
            "network_users[0]: 'nobody-knows' is refused; allowed: a user that the host has",
        ),
        ({"users": ["root"]}, "a user other than root"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as refused:
        plan(**options)
    assert words in str(refused.value)


def test_taken_ranges_are_named_and_the_engines_own_left_out() -> None:
    assert taken_ranges(FACTS) == [
        {"name": "the host's route on eth0", "range": "192.168.1.0/24"},
        {"name": "the host's route on wg0", "range": "10.9.0.0/16"},
        {"name": "the host's nameserver", "range": "192.168.1.1/32"},
        {"name": "the host's nameserver", "range": "fd00::53/128"},
    ]


ADDRESSES = st.ip_addresses().map(str)


@given(st.lists(ADDRESSES, max_size=20))
def test_every_address_allowed_is_in_one_set_once(allow: list[str]) -> None:
    planned = plan(allow=allow)
    found = entries(planned, "allow4") + entries(planned, "allow6")
    assert len(found) == len(set(found))
    assert {ipaddress.ip_network(one) for one in found} == {ipaddress.ip_network(one) for one in allow}
