# SPDX-License-Identifier: GPL-3.0-or-later
"""Packet filters of iptables and nftables, and what becomes of a packet in them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_rules import (
    ACCEPT,
    DROP,
    GOTO,
    JUMP,
    NEXT,
    RETURN,
    UNKNOWN,
    BaseChain,
    Condition,
    Rule,
    iptables_chains,
    iptables_rule,
    nft_chains,
    nft_rule,
    parse_policies,
    parse_sets,
)
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_verdict import Packet, accepts, meets
from ansible_collections.matryoshka.host.plugins.module_utils._networks import Network
from ansible_collections.matryoshka.host.plugins.module_utils._verify_kernel import parse_firewall
from bridge_fixtures import container, host, text, virtual_machines
from hypothesis import given
from hypothesis import strategies as st


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(one) for one in texts)


BRIDGED = Packet("br0", "br0", bridged=True, ports=("p1", "p2"))
GUESTS = networks("192.168.50.0/24")
KNOWN = Packet("br0", "br0", bridged=True, ports=("p1", "p2"), sources=GUESTS, destinations=GUESTS)


def ruled(*rules: str, policy: str = "DROP", chains: str = "") -> list[BaseChain]:
    """A table filter with rules of FORWARD; ``chains``: declarations and rules of others."""
    lines = "\n".join(f"-A FORWARD {rule}" for rule in rules)
    return saved(f"*filter\n:FORWARD {policy} [0:0]\n{chains}\n{lines}\nCOMMIT\n")


def saved(text: str) -> list[BaseChain]:
    return iptables_chains(parse_firewall(text), parse_policies(text), "ip", "nft")


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ("-i br0 -o br0 -j ACCEPT", "yes"),
        ("-i br+ -j ACCEPT", "yes"),
        ("-i br1 -o br0 -j ACCEPT", "no"),
        ("! -i br0 -j ACCEPT", "no"),
        ("! -i br1 -j ACCEPT", "yes"),
        ("-m physdev --physdev-is-bridged -j ACCEPT", "yes"),
        ("-m physdev ! --physdev-is-bridged -j ACCEPT", "no"),
        ("-m physdev --physdev-in p1 -j ACCEPT", "maybe"),
        ("-m physdev --physdev-in p+ -j ACCEPT", "yes"),
        ("-m physdev --physdev-in vnet9 -j ACCEPT", "no"),
        ("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "no"),
        ("-m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT", "yes"),
        ("-m state --state NEW -j ACCEPT", "yes"),
        ("-p tcp -m tcp --dport 22 -j ACCEPT", "maybe"),
        ("-m set --match-set allowed dst -j ACCEPT", "maybe"),
        ("-m addrtype --dst-type LOCAL -j ACCEPT", "no"),
        ("-s 192.168.0.0/16 -j ACCEPT", "yes"),
        ("-s 192.168.50.128/25 -j ACCEPT", "maybe"),
        ("-s 10.0.0.0/8 -j ACCEPT", "no"),
        ("! -d 10.0.0.0/8 -j ACCEPT", "yes"),
        ('-i br0 -m comment --comment "it\'s -j DROP" -j ACCEPT', "yes"),
        ("-i br0 -j LOG --log-prefix x", "no"),
        ("-i br0 -j NFQUEUE --queue-num 3", "maybe"),
        ("-i br0 -j NOSUCHCHAIN", "maybe"),
        ('-i br0 -m comment --comment "broken', "maybe"),
    ],
)
def test_one_rule_before_the_policy_drop(rule: str, answer: str) -> None:
    assert accepts(ruled(rule), KNOWN).answer == answer


def test_without_known_addresses_a_rule_about_them_may_be_met() -> None:
    assert accepts(ruled("-s 192.168.50.0/24 -j ACCEPT"), BRIDGED).answer == "maybe"
    assert accepts(ruled("-s 0.0.0.0/0 -j ACCEPT"), BRIDGED).answer == "yes"


@pytest.mark.parametrize(
    ("rules", "chains", "answer", "because"),
    [
        (["-j USER"], ":USER - [0:0]\n-A USER -i br0 -j ACCEPT", "yes", ""),
        (["-j USER"], ":USER - [0:0]\n-A USER -j RETURN\n-A USER -j ACCEPT", "no", "the policy of"),
        (
            ["-j USER"],
            ":USER - [0:0]\n-A USER -i br0 -j REJECT --reject-with x",
            "no",
            "-A USER -i br0 -j REJECT",
        ),
        (["-g USER", "-j ACCEPT"], ":USER - [0:0]", "no", "the policy of"),
        (
            ["-j A"],
            ":A - [0:0]\n:B - [0:0]\n-A A -g B\n-A A -j DROP\n-A B -i br9 -j DROP",
            "no",
            "the policy of",
        ),
        (["-p tcp -j DROP", "-j ACCEPT"], "", "maybe", "-p tcp -j DROP"),
        (["-i br0 -j DROP", "-j ACCEPT"], "", "no", "-i br0 -j DROP"),
        (["-j LOOP"], ":LOOP - [0:0]\n-A LOOP -j LOOP", "maybe", "LOOP"),
    ],
)
def test_chains(rules: Sequence[str], chains: str, answer: str, because: str) -> None:
    decision = accepts(ruled(*rules, chains=chains), BRIDGED)
    assert decision.answer == answer
    assert because in decision.because


def test_every_table_has_a_say() -> None:
    mangle = saved("*mangle\n:FORWARD ACCEPT [0:0]\n-A FORWARD -i br0 -j DROP\nCOMMIT\n")
    decision = accepts([*mangle, *ruled("-j ACCEPT")], BRIDGED)
    assert (decision.answer, decision.because) == ("no", "iptables -t mangle -A FORWARD -i br0 -j DROP")
    assert accepts([], BRIDGED).answer == "yes"


def test_docker_s_drop_policy_as_recorded() -> None:
    filters = [one for one in host().filters if one.family == "ip"]
    decision = accepts(filters, BRIDGED)
    assert decision.answer == "no"
    assert decision.because == "the policy of iptables table filter, chain FORWARD (nft)"
    for bridge in ("docker0", "br-7d7c1cc51385"):
        assert accepts(filters, Packet(bridge, bridge, bridged=True)).answer == "yes"
        assert accepts(filters, Packet(bridge, "eth0")).answer == "yes"
        assert accepts(filters, Packet("eth0", bridge, state="ESTABLISHED")).answer == "yes"
        assert accepts(filters, Packet("eth0", bridge)).answer == "no"
    assert accepts(filters, Packet("docker0", "br-7d7c1cc51385")).answer == "no"
    assert accepts(container().filters, Packet("docker0", "eth0")).answer == "yes"


def test_both_backends_have_to_accept() -> None:
    seen = virtual_machines()
    assert seen.backends == ["nft", "legacy"]
    packet = Packet(
        "virbr0", "br0", sources=networks("192.168.122.0/24"), destinations=networks("203.0.113.1/32")
    )
    nft = [one for one in seen.filters if "(nft)" in one.label and one.family == "ip"]
    assert accepts(nft, packet).answer == "yes"
    assert accepts(nft, Packet("br0", "virbr0", destinations=packet.sources)).answer == "no"
    decision = accepts([one for one in seen.filters if one.family == "ip"], packet)
    assert (decision.answer, "legacy" in decision.because) == ("no", True)


@pytest.mark.parametrize("version", ["1.0.6", "1.1.3"])
def test_tables_of_nftables(version: str) -> None:
    chains = nft_chains(text(f"nft-{version}.json"))
    assert [(chain.family, chain.policy) for chain in chains] == [("inet", DROP), ("bridge", ACCEPT)]
    inet = chains[:1]

    def fate(in_if: str, out_if: str, **more: Any) -> str:
        return accepts(inet, Packet(in_if, out_if, **more)).answer

    # A rule for port 22 may let some packets pass that the policy drops.
    assert fate("br0", "br0") == "maybe"
    assert fate("br0", "br0", state="ESTABLISHED") == "yes"
    assert fate("br0", "br0", state="INVALID") == "no"
    assert fate("br1", "br2") == "yes"
    assert (
        fate("virbr0", "eth0", sources=networks("192.168.122.0/24"), destinations=networks("203.0.113.1/32"))
        == "maybe"
    )
    assert fate("br5", "br5", sources=networks("10.5.3.0/24"), destinations=networks("10.5.1.7/32")) == "yes"
    assert accepts(chains[1:], BRIDGED).answer == "maybe"
    assert accepts(chains[1:], Packet("br0", "br0", bridged=True, ports=("q1", "q2"))).answer == "yes"
    assert nft_chains(text(f"nft-{version}.json"), without=[("inet", "filter"), ("bridge", "filter")]) == []


@pytest.mark.parametrize(
    ("expression", "kind", "verb"),
    [
        (
            [{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}, {"accept": None}],
            UNKNOWN,
            ACCEPT,
        ),
        (
            [
                {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "@names"}},
                {"drop": None},
            ],
            UNKNOWN,
            DROP,
        ),
        (
            [{"match": {"op": ">", "left": {"meta": {"key": "iifname"}}, "right": "a"}}, {"drop": None}],
            UNKNOWN,
            DROP,
        ),
        (
            [
                {"match": {"op": "==", "left": {"ct": {"key": "state"}}, "right": ["new", "related"]}},
                {"jump": {"target": "x"}},
            ],
            "state",
            JUMP,
        ),
        ([{"limit": {"rate": 5}}, {"goto": {"target": "x"}}], UNKNOWN, GOTO),
        ([{"counter": {}}, {"return": None}], None, RETURN),
        ([{"vmap": {"key": {}, "data": {}}}], None, "unsure"),
        ([{"xt": None}], None, "unsure"),
        ([{"counter": None}, {"log": None}], None, NEXT),
    ],
)
def test_rules_of_nftables(expression: list[Mapping[str, Any]], kind: str | None, verb: str) -> None:
    rule = nft_rule(expression, "x")
    assert (rule.verb, [condition.kind for condition in rule.conditions]) == (verb, [kind] if kind else [])


@pytest.mark.parametrize("rubbish", ["", "no JSON", "[]", "7", '{"nftables": []}'])
def test_no_rules_of_nftables(rubbish: str) -> None:
    assert nft_chains(rubbish) == []


def test_what_iptables_save_prints_is_understood() -> None:
    rule = iptables_rule(
        '! -s 10.0.0.0/8 -i br+ -p tcp -m multiport --dports 1,2 -m comment --comment "a b" -g NEXT', "x"
    )
    assert rule.conditions == (
        Condition("source", ("10.0.0.0/8",), negated=True),
        Condition("in", ("br+",)),
        Condition(UNKNOWN, ("-p", "tcp")),
        Condition(UNKNOWN, ("--dports", "1,2")),
    )
    assert (rule.verb, rule.target) == (GOTO, "NEXT")


def test_policies() -> None:
    saved_text = "*filter\n:FORWARD DROP [2:168]\n:DOCKER - [0:0]\n:odd\nCOMMIT\n*nat\n:OUTPUT ACCEPT [0:0]\n"
    assert parse_policies(saved_text) == {"filter": {"FORWARD": "DROP"}, "nat": {"OUTPUT": "ACCEPT"}}


SETS = """\
create jobs4 hash:net family inet hashsize 1024 maxelem 65536 comment bucketsize 12 initval 0xa522fe66
add jobs4 192.168.50.0/24 comment "a b"
create closed4 hash:net family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x8595aedd
add closed4 10.0.0.0/8
add closed4 192.168.0.0/16
create empty4 hash:ip family inet hashsize 1024
create holes4 hash:net family inet hashsize 1024
add holes4 10.0.0.0/8
add holes4 10.9.0.0/16 nomatch
create port4 hash:net,port family inet hashsize 1024
add port4 10.0.0.0/8,tcp:80
create here4 hash:ip,port family inet hashsize 1024
add here4 203.0.113.1,udp:53
create mac4 hash:mac hashsize 1024
"""


def test_sets_as_ipset_saves_them() -> None:
    assert parse_sets(SETS) == {
        "jobs4": ("192.168.50.0/24",),
        "closed4": ("10.0.0.0/8", "192.168.0.0/16"),
        "empty4": (),
        "port4": ("10.0.0.0/8,tcp:80",),
        "here4": ("203.0.113.1,udp:53",),
    }
    assert parse_sets("add nowhere 10.0.0.0/8\ncreate\n\n") == {}


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ("-m set --match-set jobs4 src -j ACCEPT", "yes"),
        ("-m set --match-set closed4 dst -j ACCEPT", "no"),
        ("-m set ! --match-set closed4 dst -j ACCEPT", "yes"),
        ("-m set --match-set empty4 dst -j ACCEPT", "no"),
        ("-m set --match-set holes4 dst -j ACCEPT", "maybe"),
        ("-m set --match-set port4 dst,dst -j ACCEPT", "no"),
        ("-m set --match-set here4 dst,dst -j ACCEPT", "maybe"),
        ("-m set ! --match-set port4 dst,dst -j ACCEPT", "maybe"),
        ("-m set --match-set here4 dst -j ACCEPT", "maybe"),
        ("-m set --match-set mac4 src -j ACCEPT", "maybe"),
        ("-m set --match-set none4 src -j ACCEPT", "maybe"),
        ("-m set --match-set jobs4 src -m comment --comment x -o eth1 -j ACCEPT", "no"),
    ],
)
def test_sets_of_addresses(rule: str, answer: str) -> None:
    text = f"*filter\n:FORWARD DROP [0:0]\n-A FORWARD {rule}\nCOMMIT\n"
    filters = iptables_chains(parse_firewall(text), parse_policies(text), "ip", "nft", parse_sets(SETS))
    packet = Packet("br0", "eth0", sources=GUESTS, destinations=networks("203.0.113.1/32"))
    assert accepts(filters, packet).answer == answer


def test_a_negated_answer() -> None:
    assert meets(Condition("in", ("br0",), negated=True), BRIDGED) == "no"
    assert meets(Condition(UNKNOWN, ("x",), negated=True), BRIDGED) == "maybe"
    assert meets(Condition("source", ("rubbish",)), BRIDGED) == "maybe"


NAMES = ["FORWARD", "A", "B"]
CONDITIONS = st.lists(
    st.sampled_from(["br0", "br1", *(f"u{index}" for index in range(4))]), max_size=2, unique=True
)


@st.composite
def rule_sets(draw: st.DrawFn) -> BaseChain:
    """Chains without loops, whose rules ask for an interface or for something that isn't known."""
    chains: dict[str, list[Rule]] = {}
    for index, name in enumerate(NAMES):
        below = NAMES[index + 1 :]
        verbs = [ACCEPT, DROP, RETURN, NEXT] + ([JUMP, GOTO] if below else [])
        chains[name] = [
            Rule(
                tuple(
                    Condition("in" if one.startswith("br") else UNKNOWN, (one,)) for one in draw(CONDITIONS)
                ),
                verb,
                draw(st.sampled_from(below)) if verb in (JUMP, GOTO) else "",
                f"{name} {position}",
            )
            for position, verb in enumerate(draw(st.lists(st.sampled_from(verbs), max_size=4)))
        ]
    return BaseChain("test", "ip", draw(st.sampled_from([ACCEPT, DROP])), "FORWARD", chains)


def real_kernel(base: BaseChain, name: str, truth: Mapping[str, bool]) -> str:
    """What a kernel does that knows everything."""
    for rule in base.chains[name]:
        met = all(truth[one.values[0]] for one in rule.conditions)
        if not met or rule.verb == NEXT:
            continue
        if rule.verb in (ACCEPT, DROP, RETURN):
            return rule.verb
        below = real_kernel(base, rule.target, truth)
        if below != RETURN or rule.verb == GOTO:
            return below
    return RETURN


@given(rule_sets(), st.lists(st.booleans(), min_size=4, max_size=4))
def test_yes_and_no_hold_whatever_the_unknown_is(base: BaseChain, unknown: list[bool]) -> None:
    truth = {"br0": True, "br1": False, **{f"u{index}": one for index, one in enumerate(unknown)}}
    done = real_kernel(base, "FORWARD", truth)
    done = base.policy if done == RETURN else done
    answer = accepts([base], BRIDGED).answer
    assert answer == "maybe" or answer == {ACCEPT: "yes", DROP: "no"}[done]


@given(rule_sets())
def test_without_anything_unknown_there_is_no_doubt(base: BaseChain) -> None:
    chains = {
        name: [rule for rule in rules if not any(one.kind == UNKNOWN for one in rule.conditions)]
        for name, rules in base.chains.items()
    }
    sure = BaseChain(base.label, base.family, base.policy, base.chain, chains)
    assert accepts([sure], BRIDGED).answer in ("yes", "no")


@given(rule_sets())
def test_a_rule_in_front_decides(base: BaseChain) -> None:
    for verb, answer in ((ACCEPT, "yes"), (DROP, "no")):
        first = Rule((Condition("in", ("br0",)),), verb, "", "first")
        chains = {**base.chains, "FORWARD": [first, *base.chains["FORWARD"]]}
        assert accepts([BaseChain("test", "ip", base.policy, "FORWARD", chains)], BRIDGED).answer == answer
