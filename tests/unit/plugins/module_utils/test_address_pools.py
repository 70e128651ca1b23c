# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranges of all levels: apart from each other and from what is taken, stable, refused with what is missing."""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._address_input import parse, unique_local
from ansible_collections.matryoshka.host.plugins.module_utils._address_pools import plan
from ansible_collections.matryoshka.host.plugins.module_utils._address_space import Block, Space
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_config import check_daemon_config
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._networks import Network
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

LEVELS = ["docker", "runner"]
DEFAULTS = {
    "docker": {"bip": "172.20.0.1/16", "default-address-pools": [{"base": "172.25.0.0/16", "size": 24}]},
    "runner": {"bip": "172.22.0.1/16", "default-address-pools": [{"base": "172.28.0.0/14", "size": 24}]},
}


def planned(taken: Any = (), levels: Any = LEVELS, **options: Any) -> dict[str, Any]:
    return plan(parse(taken, levels, **options))


def of_config(config: dict[str, Any]) -> Iterator[Network]:
    """The networks that one level's configuration takes."""
    for part in (config, config.get("ipv6", {})):
        for key in ("bip", "bip6"):
            if key in part:
                yield ipaddress.ip_interface(part[key]).network
        for pool in part.get("default-address-pools", []):
            yield ipaddress.ip_network(pool["base"])


def of_levels(result: dict[str, Any]) -> list[Network]:
    return [network for config in result["levels"].values() for network in of_config(config)]


def meet(one: Any, other: Any) -> bool:
    return bool(one.version == other.version and one.overlaps(other))


@st.composite
def v4_networks(draw: st.DrawFn) -> str:
    """Networks where they hurt: in the private space that plans are made from, or anywhere."""
    inside = draw(
        st.sampled_from(["172.16.0.0/12", "172.20.0.0/14", "172.28.0.0/14", "10.0.0.0/8", "192.168.0.0/16"])
    )
    space = ipaddress.ip_network(inside)
    address = int(space[0]) + draw(st.integers(0, space.num_addresses - 1))
    return str(ipaddress.ip_network((address, draw(st.integers(9, 32))), strict=False))


taken_lists = st.lists(v4_networks(), max_size=8)
runner_lists = st.integers(0, 60).map(lambda count: [f"r{number}" for number in range(count)])
level_lists = st.integers(1, 6).map(lambda count: ["docker", "runner", "kind", "x", "y", "z"][:count])


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """What the filter is given; some have little room."""
    options: dict[str, Any] = {
        "taken": draw(taken_lists),
        "levels": draw(level_lists),
        "runners": draw(runner_lists),
        "per_runner": draw(st.booleans()),
        "seed": "host",
        "ipv6": draw(st.sampled_from([False, True, "fd00:1::/48", "fd00:1::/54"])),
    }
    tight = ["10.0.0.0/16", "10.64.0.0/17", "192.168.0.0/18", "172.24.0.0/13"]
    options["candidates"] = draw(st.lists(st.sampled_from(tight), unique=True, max_size=3))
    return options


def attempted(options: dict[str, Any]) -> dict[str, Any]:
    try:
        return planned(**options)
    except HostError:
        assume(False)
        raise


def test_nothing_in_the_way() -> None:
    result = planned(runners=["ci", "b"])
    assert result["levels"] == DEFAULTS
    assert result["runners"] == {name: {"runner": DEFAULTS["runner"]} for name in ("ci", "b")}
    assert result["moved"] == [] and result["ipv6_prefix"] is None
    assert list(planned(levels=["runner"])["levels"].values()) == [DEFAULTS["runner"]]


def test_a_third_level_gets_the_next_free_ranges() -> None:
    result = planned(levels=[*LEVELS, "kind"])
    assert {name: result["levels"][name] for name in LEVELS} == DEFAULTS
    assert result["levels"]["kind"] == {
        "bip": "172.16.0.1/16",
        "default-address-pools": [{"base": "172.17.0.0/16", "size": 24}],
    }


def test_moved_ranges_name_what_is_in_the_way() -> None:
    taken = [{"name": "the host's route on eth0", "range": "172.25.7.0/24"}, "10.0.0.0/8", "0.0.0.0/0"]
    result = planned(taken, reserved=[{"name": "lan", "range": "172.20.0.0/16"}])
    assert result["levels"]["runner"] == DEFAULTS["runner"]
    assert result["moved"] == [
        {
            "level": "docker",
            "key": "bip",
            "from": ["172.20.0.0/16"],
            "to": ["172.16.0.0/16"],
            "because": ["lan 172.20.0.0/16"],
        },
        {
            "level": "docker",
            "key": "pools",
            "from": ["172.25.0.0/16"],
            "to": ["172.17.0.0/16"],
            "because": ["the host's route on eth0 172.25.7.0/24"],
        },
    ]


def test_ten_is_used_from_its_top_and_shrinks_before_refusing() -> None:
    result = planned(reserved=["172.16.0.0/12"])
    assert of_levels(result) == [
        ipaddress.ip_network(text)
        for text in ("10.255.0.0/16", "10.254.0.0/16", "10.253.0.0/16", "10.248.0.0/14")
    ]
    small = planned(reserved=["172.16.0.0/12", "10.0.0.0/8"], taken=["192.168.1.0/24", "192.168.64.0/18"])
    assert of_levels(small) == [
        ipaddress.ip_network(text)
        for text in ("192.168.128.0/17", "192.168.32.0/19", "192.168.8.0/21", "192.168.16.0/20")
    ]


def test_current_is_kept_and_a_new_level_goes_around_it() -> None:
    current = {
        "runner": {"bip": "172.20.0.7/16"},
        "docker": {"default-address-pools": [{"base": "10.9.0.0/16", "size": 26}]},
    }
    result = planned(current=current)
    assert result["levels"]["runner"]["bip"] == "172.20.0.7/16"
    assert result["levels"]["docker"]["default-address-pools"] == [{"base": "10.9.0.0/16", "size": 26}]
    assert [(one["level"], one["key"], one["because"]) for one in result["moved"]] == [
        ("docker", "bip", ["runner bip 172.20.0.0/16"])
    ]


@pytest.mark.parametrize(
    ("current", "options", "because"),
    [
        ({"bip": "10.1.2.1/24"}, {"taken": ["10.1.2.99"]}, ["taken[0] 10.1.2.99/32"]),
        ({"bip": "10.1.2.1/28"}, {}, ["too small: /24 (256 addresses) is needed"]),
        ({"bip": "10.1.2.1/24"}, {"candidates": ["192.168.0.0/16"]}, ["outside of the candidates"]),
        (
            {"default-address-pools": [{"base": "10.1.0.0/22", "size": 24}]},
            {},
            ["too small: /20 (4096 addresses) is needed"],
        ),
    ],
)  # fmt: skip
def test_current_that_no_longer_fits(current: Any, options: Any, because: list[str]) -> None:
    moved = planned(levels=["docker"], current={"docker": current}, **options)["moved"]
    key = "bip" if "bip" in current else "pools"
    assert [one["because"] for one in moved if one["key"] == key] == [because]


def test_many_runners_need_more_room() -> None:
    runners = [f"r{number}" for number in range(300)]
    docker = planned(runners=runners)["levels"]["docker"]
    assert docker["bip"] == "172.20.0.1/16"
    assert docker["default-address-pools"] == [{"base": "172.16.0.0/15", "size": 24}]


def test_ipv6_in_a_prefix_of_the_hosts_own() -> None:
    result = planned(ipv6=True, seed="0123456789abcdef")
    prefix = unique_local("0123456789abcdef")
    assert result["ipv6_prefix"] == str(prefix) == "fd6b:e25:643b::/48"
    assert planned(ipv6=True, seed="other")["ipv6_prefix"] != str(prefix)
    given_prefix = planned(ipv6="fd00:1::/48")["levels"]
    assert given_prefix["docker"]["ipv6"] == {
        "ipv6": True,
        "bip6": "fd00:1::1/64",
        "fixed-cidr-v6": "fd00:1::/64",
        "default-address-pools": [{"base": "fd00:1:0:100::/56", "size": 64}],
    }
    assert given_prefix["runner"]["ipv6"]["bip6"] == "fd00:1:0:1::1/64"
    assert {key: value for key, value in given_prefix["docker"].items() if key != "ipv6"} == DEFAULTS[
        "docker"
    ]
    around = planned(["fd00:1::/64"], ipv6="fd00:1::/48")["levels"]
    assert around["docker"]["ipv6"]["bip6"] == "fd00:1:0:1::1/64"


def test_ranges_of_its_own_for_each_runner() -> None:
    result = planned(runners=["a", "b"], per_runner=True)
    assert result["levels"] == DEFAULTS
    assert result["runners"]["b"]["runner"] == {
        "bip": "172.22.1.1/24",
        "default-address-pools": [{"base": "172.28.16.0/20", "size": 24}],
    }
    without_a = planned(runners=["new", "b"], per_runner=True, current=result)
    assert without_a["runners"]["b"] == result["runners"]["b"]
    assert without_a["runners"]["new"] == result["runners"]["a"]


@given(requests())
@settings(max_examples=80)
def test_apart_from_each_other_and_from_all_that_is_taken(options: dict[str, Any]) -> None:
    result = attempted(options)
    networks = of_levels(result)
    assert not any(meet(one, other) for one, other in combinations(networks, 2))
    assert not any(meet(one, ipaddress.ip_network(text)) for one in networks for text in options["taken"])
    if options["candidates"]:
        candidates = [ipaddress.ip_network(text) for text in options["candidates"]]
        v4 = [network for network in networks if network.version == 4]
        assert all(any(one.subnet_of(two) for two in candidates) for one in v4)  # type: ignore[arg-type]
    if options["per_runner"]:
        own = [
            network
            for levels in result["runners"].values()
            for config in levels.values()
            for network in of_config(config)
        ]
        assert not any(meet(one, other) for one, other in combinations(own, 2))
        first = list(of_config(result["levels"][options["levels"][0]]))
        assert not any(meet(one, other) for one in own for other in first)
        assert all(any(one.version == two.version and one.subnet_of(two) for two in networks) for one in own)  # type: ignore[arg-type]


@given(requests())
@settings(max_examples=60)
def test_dockerd_takes_every_configuration(options: dict[str, Any]) -> None:
    result = attempted(options)
    configs = [
        *result["levels"].values(),
        *(one for levels in result["runners"].values() for one in levels.values()),
    ]
    for config in configs:
        v4 = {key: value for key, value in config.items() if key != "ipv6"}
        assert check_daemon_config(v4, "config", partial=True) == []
        if "ipv6" in config:
            pools = "default-address-pools"
            both = {**config["ipv6"], **v4, pools: [*v4[pools], *config["ipv6"][pools]]}
            assert check_daemon_config(both, "config", partial=True) == []


@given(requests(), st.randoms())
@settings(max_examples=60)
def test_the_same_input_gives_the_same_plan(options: dict[str, Any], random: Any) -> None:
    before = copy.deepcopy(options)
    result = attempted(options)
    assert options == before
    shuffled = {**options, "taken": random.sample(options["taken"], len(options["taken"]))}
    assert planned(**shuffled)["levels"] == result["levels"]


@given(requests())
@settings(max_examples=80)
def test_a_plan_fed_back_is_kept(options: dict[str, Any]) -> None:
    result = attempted(options)
    again = planned(**options, current=result)
    assert (again["levels"], again["runners"], again["moved"]) == (result["levels"], result["runners"], [])


@given(requests(), st.sampled_from(["last", "first"]))
@settings(max_examples=80)
def test_a_further_runner_moves_nothing(options: dict[str, Any], where: str) -> None:
    result = attempted(options)
    runners = [*options["runners"], "new"] if where == "last" else ["new", *options["runners"]]
    more = attempted({**options, "runners": runners, "current": result if where == "first" else None})
    outer, count = result["levels"][options["levels"][0]], len(runners)
    holds = [
        ipaddress.ip_interface(outer["bip"]).network.num_addresses >= 2 * count + 3,
        sum(
            1 << (24 - ipaddress.ip_network(pool["base"]).prefixlen)
            for pool in outer["default-address-pools"]
        )
        >= count + 8,
    ]
    if options["ipv6"]:
        base = ipaddress.ip_network(outer["ipv6"]["default-address-pools"][0]["base"])
        holds.append(1 << (64 - base.prefixlen) >= count + 8)
    assume(all(holds) and not options["per_runner"])
    assert more["levels"] == result["levels"]
    assert {name: more["runners"][name] for name in options["runners"]} == result["runners"]


@given(taken_lists, st.integers(1, 40))
@settings(max_examples=60)
def test_a_further_runner_with_ranges_of_its_own_moves_no_other(taken: list[str], count: int) -> None:
    options: dict[str, Any] = {
        "taken": taken,
        "levels": LEVELS,
        "per_runner": True,
        "ipv6": True,
        "seed": "x",
    }
    runners = [f"r{number}" for number in range(count)]
    result = attempted({**options, "runners": runners})
    base = ipaddress.ip_network(result["levels"]["runner"]["default-address-pools"][0]["base"])
    outer = ipaddress.ip_network(result["levels"]["docker"]["default-address-pools"][0]["base"])
    assume(1 << (20 - base.prefixlen) > count and 1 << (24 - outer.prefixlen) >= count + 9)
    more = planned(**options, runners=[*runners, "new"])
    assert {name: more["runners"][name] for name in runners} == result["runners"]


@given(requests())
@settings(max_examples=80)
def test_a_further_level_moves_nothing_if_there_is_room(options: dict[str, Any]) -> None:
    result = attempted(options)
    levels = [*options["levels"], "more"]
    with_more = attempted({**options, "levels": levels})
    candidates = [
        ipaddress.ip_network(text)
        for text in options["candidates"] or ["172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/16"]
    ]
    free = Space(tuple(Block(one) for one in candidates)).without(
        [*of_levels(result), *(ipaddress.ip_network(text) for text in options["taken"])]
    )
    parts = (max(1, len(options["runners"])) - 1).bit_length() if options["per_runner"] else 0
    assume(not free.unplaced([24 - parts, 20 - parts]))
    assert [
        {k: v for k, v in with_more["levels"][name].items() if k != "ipv6"} for name in options["levels"]
    ] == [{k: v for k, v in result["levels"][name].items() if k != "ipv6"} for name in options["levels"]]


@given(requests(), v4_networks())
@settings(max_examples=80)
def test_a_taken_range_that_meets_nothing_moves_nothing(options: dict[str, Any], text: str) -> None:
    result = attempted(options)
    assume(not any(meet(one, ipaddress.ip_network(text)) for one in of_levels(result)))
    again = planned(**{**options, "taken": [*options["taken"], text]})
    assert again["levels"] == result["levels"]


@st.composite
def small_spaces(draw: st.DrawFn) -> tuple[list[Network], list[int]]:
    whole = ipaddress.ip_network("10.0.0.0/27")
    taken = draw(st.lists(st.tuples(st.integers(0, 31), st.integers(29, 32)), max_size=4))
    networks = [
        ipaddress.ip_network((int(whole[0]) + offset, prefix), strict=False) for offset, prefix in taken
    ]
    return networks, draw(st.lists(st.integers(28, 32), min_size=1, max_size=5))


def placeable(whole: Network, taken: list[Network], prefixes: list[int]) -> bool:
    """By trying every place."""
    if not prefixes:
        return True
    return any(
        not any(meet(place, other) for other in taken) and placeable(whole, [*taken, place], prefixes[1:])
        for place in whole.subnets(new_prefix=prefixes[0])
    )


@given(small_spaces())
@settings(max_examples=60)
@example(([], [28, 28, 32]))
def test_what_finds_no_room_is_exact(case: tuple[list[Network], list[int]]) -> None:
    taken, prefixes = case
    whole = ipaddress.ip_network("10.0.0.0/27")
    space = Space((Block(whole),)).without(taken)
    assert (space.unplaced(prefixes) == []) == placeable(whole, taken, prefixes)
    covered = sum(1 for address in whole if not any(address in network for network in taken))
    assert space.addresses == covered


def test_a_refusal_names_the_largest_ranges_in_the_way() -> None:
    taken = [f"10.0.{number}.0/26" for number in range(16)] + ["10.0.3.0/24"]
    with pytest.raises(HostError) as caught:
        planned(taken, candidates=["10.0.0.0/20"])
    way = str(caught.value).partition("In the way: ")[2].split(", ")
    assert (
        way[0] == "taken[16] 10.0.3.0/24 (256 addresses)"
        and way[-1] == "and 9 smaller ones"
        and len(way) == 9
    )


TAKEN = [{"name": "eth0", "range": "10.0.0.5/24"}]
REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"taken": TAKEN, "candidates": ["10.0.0.0/20"]},
        "address pools: 8192 addresses are missing: no room for docker pools /20 (4096 addresses), runner pools /20 "
        "(4096 addresses). 2 levels and 0 runners want at least 8704 addresses; 10.0.0.0/20 have 4096 addresses, "
        "3840 addresses free. In the way: eth0 10.0.0.0/24 (256 addresses)",
    ),
    (
        {"candidates": ["10.0.0.0/16"], "reserved": [{"name": "lan", "range": "10.0.0.0/17"}, "10.0.128.0/18"], "runners": [f"r{n}" for n in range(60)]},
        "reserved: ['lan 10.0.0.0/17', 'reserved[1] 10.0.128.0/18'] is refused; allowed: ranges that leave room; "
        "32768 addresses are missing: no room for docker pools /17",
    ),
    (
        {"reserved": ["10.0.0.0/8", {"name": "vpn", "range": "10.1.0.0/16"}]},
        "reserved: ['10.0.0.0/8', '10.1.0.0/16'] is refused; allowed: ranges apart from each other, but reserved[0] "
        "10.0.0.0/8 overlaps vpn 10.1.0.0/16",
    ),
    ({"reserved": ["10.0.0.0/33"]}, "reserved[0]: '10.0.0.0/33' is refused; allowed: a network such as 10.1.0.0/16, or"),
    ({"reserved": "10.0.0.0/8"}, "reserved: '10.0.0.0/8' is refused; allowed: a list; each item is a network"),
    ({"taken": [{"range": "10.0.0.0/8"}]}, "taken[0]: {'range': '10.0.0.0/8'} is refused; allowed: a network such as"),
    ({"taken": [7]}, "taken[0]: 7 is refused; allowed: a network such as"),
    ({"candidates": ["10.0.0.1/8"]}, "candidates[0]: '10.0.0.1/8' is refused; allowed: an IPv4 network without host bits: 10.0.0.0/8"),
    ({"candidates": ["10.0.0.0/8", "10.2.0.0/16"]}, "candidates: ['10.0.0.0/8', '10.2.0.0/16'] is refused; allowed: ranges apart"),
    ({"candidates": ["169.254.0.0/16"]}, "candidates[0]: '169.254.0.0/16' is refused; allowed: not loopback"),
    ({"levels": []}, "levels: [] is refused; allowed: from 1 to 16 names"),
    ({"levels": ["docker", "docker"]}, "levels[1]: 'docker' is refused; allowed: each name once"),
    ({"levels": ["runners"]}, "levels[0]: 'runners' is refused; allowed: a name of letters"),
    ({"runners": "ci"}, "runners: 'ci' is refused; allowed: a list of names"),
    ({"runners": [3]}, "runners[0]: 3 is refused; allowed: a name of letters"),
    ({"ipv6": True}, "seed: '' is refused; allowed: a text that is the host's own"),
    ({"ipv6": "10.0.0.0/8"}, "ipv6: '10.0.0.0/8' is refused; allowed: an IPv6 network such as"),
    ({"ipv6": "fe80::/48"}, "ipv6: 'fe80::/48' is refused; allowed: true, false, or a prefix that isn't"),
    (
        {"ipv6": "fd00::/60"},
        "address pools: 18 networks of /64 are missing: no room for docker bip6 /64 (1 network of /64), ",
    ),
    ({"per_runner": "yes"}, "per_runner: 'yes' is refused; allowed: true or false"),
    ({"current": ["x"]}, "current: ['x'] is refused; allowed: a mapping"),
    ({"current": {"docker": {"bip": "172.20.0.0/16"}}}, "current.docker.bip: '172.20.0.0/16' is refused; allowed: an address inside"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"), REFUSED, ids=[message.split(" is refused")[0] for _, message in REFUSED]
)
def test_refused(options: dict[str, Any], message: str) -> None:
    before = copy.deepcopy(options)
    with pytest.raises(HostError) as caught:
        planned(**options)
    assert str(caught.value).startswith(message)
    assert options == before
    assert isinstance(caught.value, InputError) or message.startswith("address pools: ")
