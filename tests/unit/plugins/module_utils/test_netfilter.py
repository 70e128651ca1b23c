# SPDX-License-Identifier: GPL-3.0-or-later
"""What netfilter_rules takes, and what it refuses before it looks at the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _netfilter as netfilter
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from hypothesis import given
from hypothesis import strategies as st


def params(**more: Any) -> dict[str, Any]:
    """Parameters with the defaults that the argument specification gives."""
    found = {name: entry.get("default") for name, entry in netfilter.ARGUMENTS.items()} | more
    for name in ("sets", "chains", "hooks"):
        options = netfilter.ARGUMENTS[name]["options"]
        defaults = {key: entry.get("default") for key, entry in options.items()}
        found[name] = [{**defaults, **item} for item in found[name]]
    return found


CHAIN = {"name": "MATRYOSHKA-A", "rules": ["-j DROP"]}
HOOK = {"chain": "FORWARD", "jump": "MATRYOSHKA-A"}
FOUR = {**CHAIN, "families": ["ipv4"]}


def test_what_is_saved() -> None:
    data = netfilter.parse(
        params(
            chains=[{**CHAIN, "rules": [" -j  DROP ", {"rule": "-j ACCEPT", "families": ["ipv6"]}]}],
            sets=[{"name": "matryoshka-a", "entries": ["10.0.0.0/8   nomatch"], "comment": "ours"}],
            hooks=[{**HOOK, "match": " -i docker0 "}],
        )
    )
    assert data == {
        "owner": "matryoshka",
        "backend": "auto",
        "ipv6": "auto",
        "sets": [
            {
                "name": "matryoshka-a",
                "type": "hash:net",
                "family": "inet",
                "entries": ["10.0.0.0/8 nomatch"],
                "comment": "ours",
            }
        ],
        "chains": [
            {
                "table": "filter",
                "name": "MATRYOSHKA-A",
                "families": None,
                "rules": [
                    {"rule": "-j  DROP", "families": None},
                    {"rule": "-j ACCEPT", "families": ["ipv6"]},
                ],
            }
        ],
        "hooks": [
            {
                "table": "filter",
                "chain": "FORWARD",
                "jump": "MATRYOSHKA-A",
                "families": None,
                "match": "-i docker0",
                "create": False,
                "position": "first",
            }
        ],
    }


def test_a_hook_has_the_families_of_its_chain() -> None:
    assert netfilter.parse(params(chains=[FOUR], hooks=[HOOK]))["hooks"][0]["families"] == ["ipv4"]
    six = {"name": "MATRYOSHKA-A", "families": ["ipv6"], "rules": ["-j ACCEPT"]}
    assert netfilter.parse(params(chains=[FOUR, six], hooks=[HOOK]))["hooks"][0]["families"] is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"owner": "Ours"}, "owner: 'Ours' is refused; allowed: a small letter, then up to 15 small letters"),
        ({"owner": "a-b"}, "owner: 'a-b' is refused"),
        (
            {"chains": [{"name": "FORWARD"}]},
            "chains[0].name: 'FORWARD' is refused; allowed: MATRYOSHKA- and letters, digits, '.', '_', '-',"
            " at most 28 characters in all",
        ),
        ({"chains": [{"name": "MATRYOSHKA-" + "A" * 18}]}, "chains[0].name: "),
        (
            {"chains": [CHAIN, CHAIN]},
            "chains[1].name: 'MATRYOSHKA-A' is refused; allowed: each chain once; chains[0]",
        ),
        (
            {"chains": [{**CHAIN, "rules": ["-j DROP\n-F"]}]},
            "chains[0].rules[0]: '-j DROP\\n-F' is refused; allowed: one line",
        ),
        (
            {"chains": [{**CHAIN, "rules": [" "]}]},
            "chains[0].rules[0]: ' ' is refused; allowed: a rule without '-A CHAIN'",
        ),
        (
            {"chains": [{**CHAIN, "rules": [{"rules": "-j DROP"}]}]},
            "chains[0].rules[0]: {'rules': '-j DROP'} is refused",
        ),
        ({"chains": [{**CHAIN, "rules": [7]}]}, "chains[0].rules[0]: 7 is refused"),
        (
            {"chains": [{**CHAIN, "rules": [{"rule": "-j DROP", "families": ["inet"]}]}]},
            "chains[0].rules[0].families: ['inet'] is refused; allowed: a list of ipv4 and ipv6",
        ),
        ({"sets": [{"name": "ours"}]}, "sets[0].name: 'ours' is refused; allowed: matryoshka- and letters"),
        ({"sets": [{"name": "matryoshka-~0"}]}, "sets[0].name: 'matryoshka-~0' is refused"),
        (
            {"sets": [{"name": "matryoshka-a"}] * 2},
            "sets[1].name: 'matryoshka-a' is refused; allowed: each set once",
        ),
        (
            {"sets": [{"name": "matryoshka-a", "entries": ["10.0.0.0/8", "example.org"]}]},
            "sets[0].entries[1]: 'example.org' is refused; allowed: an IPv4 address or network, such as 192.0.2.0/24",
        ),
        (
            {"sets": [{"name": "matryoshka-a", "family": "inet6", "entries": ["10.0.0.0/8"]}]},
            "sets[0].entries[0]: '10.0.0.0/8' is refused; allowed: an IPv6 address or network, such as 2001:db8::/32",
        ),
        (
            {"sets": [{"name": "matryoshka-a", "type": "hash:net,port", "entries": ["10.0.0.1"]}]},
            "sets[0].entries[0]: '10.0.0.1' is refused; allowed: an entry of hash:net,port such as 192.0.2.0/24,tcp:443",
        ),
        ({"sets": [{"name": "matryoshka-a", "entries": ["10.0.0.1 timeout 5"]}]}, "sets[0].entries[0]: "),
        ({"sets": [{"name": "matryoshka-a", "entries": [""]}]}, "sets[0].entries[0]: '' is refused"),
        (
            {"chains": [CHAIN], "hooks": [{**HOOK, "jump": "MATRYOSHKA-B"}]},
            "hooks[0].jump: 'MATRYOSHKA-B' is refused; allowed: one of chains in table filter and of the hook's"
            " families: MATRYOSHKA-A",
        ),
        ({"chains": [CHAIN], "hooks": [{**HOOK, "table": "nat"}]}, "families: none"),
        (
            {"chains": [FOUR], "hooks": [{**HOOK, "families": ["ipv6"]}]},
            "hooks[0].jump: 'MATRYOSHKA-A' is refused",
        ),
        (
            {"chains": [CHAIN], "hooks": [{**HOOK, "chain": "MATRYOSHKA-A"}]},
            "hooks[0].chain: 'MATRYOSHKA-A' is refused",
        ),
        ({"chains": [CHAIN], "hooks": [{**HOOK, "match": "-i a\n-j DROP"}]}, "hooks[0].match: "),
    ],
)
def test_what_is_refused(more: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        netfilter.parse(params(**more))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("ipv6", "state", "families", "message"),
    [
        (
            "true",
            "none",
            None,
            "ipv6: True is refused; allowed: auto or false, because this host has no IPv6",
        ),
        (
            "true",
            "off",
            None,
            "ipv6: True is refused; allowed: auto or false, because this host has IPv6 disabled",
        ),
        (
            "auto",
            "none",
            ["ipv6"],
            ".families: ['ipv6'] is refused; allowed: ipv4, because this host has no IPv6",
        ),
        ("auto", "off", ["ipv4", "ipv6"], "because this host has IPv6 disabled"),
        ("false", "on", ["ipv6"], ".families: ['ipv6'] is refused; allowed: ipv4, because ipv6 is false"),
    ],
)
def test_ipv6_where_there_is_none(ipv6: str, state: str, families: list[str] | None, message: str) -> None:
    for more in (
        {"chains": [{**CHAIN, "families": families}]},
        {"chains": [CHAIN], "hooks": [{**HOOK, "families": families}]},
    ):
        with pytest.raises(InputError) as error:
            netfilter.parse(params(ipv6=ipv6, **more), state)
        assert message in str(error.value)


def test_ipv6_is_left_out_where_there_is_none() -> None:
    rules = [{"rule": "-j DROP", "families": ["ipv6"]}]
    for ipv6, state in (("auto", "none"), ("auto", "off"), ("false", "on"), ("true", "on")):
        netfilter.parse(params(ipv6=ipv6, chains=[{**CHAIN, "rules": rules}], hooks=[HOOK]), state)


@given(st.ip_addresses(), st.integers(0, 32), st.booleans())
def test_addresses_networks_and_ranges_are_entries(address: Any, length: int, other: bool) -> None:
    family, wrong = ("inet", "inet6") if address.version == 4 else ("inet6", "inet")
    for text in (str(address), f"{address}/{length}", f"{address}-{address}"):
        item = {"name": "matryoshka-a", "entries": [text], "family": wrong if other else family}
        if other:
            with pytest.raises(InputError):
                netfilter.parse(params(sets=[item]))
        else:
            assert netfilter.parse(params(sets=[item]))["sets"][0]["entries"] == [text]


@given(st.text(max_size=20))
def test_no_text_gets_out_of_its_line(text: str) -> None:
    for more in (
        {"chains": [{**CHAIN, "rules": [text]}]},
        {"sets": [{"name": "matryoshka-a", "entries": [text]}]},
        {"chains": [CHAIN], "hooks": [{**HOOK, "match": text}]},
    ):
        try:
            data = netfilter.parse(params(**more))
        except InputError:
            continue
        shown = [rule["rule"] for chain in data["chains"] for rule in chain["rules"]]
        shown += [entry for item in data["sets"] for entry in item["entries"]]
        shown += [hook["match"] for hook in data["hooks"]]
        assert all(len(line.splitlines()) <= 1 and "\0" not in line for line in shown)
