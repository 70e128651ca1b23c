# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole look: what is read, what is said of it, and what is refused."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _bridge_info
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_cut import cut_off, passes_filters
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_engines import Engine, EngineNetwork
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_info import Seen, answer, judge, look
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_links import Address, Link, Route
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_read import Namespace
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from bridge_fixtures import container, host, text, virtual_machines


class Recorded:
    """The host's and a container's answers; counts what was started."""

    def __init__(self) -> None:
        self.started = 0

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        self.started += 1
        if argv[0] == "podman":
            return Result(127)
        name = "debian13-container.txt" if argv[0] == "nsenter" else "debian13-host.txt"
        return Result(0, text(name).replace("MARK", argv[-1]))


def never(*arguments: Any, **more: Any) -> Any:
    raise AssertionError("nothing may be started or asked")


def codes(seen: Seen) -> list[tuple[str, str, str]]:
    return [(one["code"], one["subject"], one["severity"]) for one in judge(seen).findings]


def test_the_recorded_host() -> None:
    judged = judge(Seen([host(), container()]))
    (cut,) = [one for one in judged.cut_off if one["family"] == 4]
    assert (cut["where"], cut["bridge"], cut["traffic"], cut["network"]) == ("host", "br0", "bridged", None)
    assert cut["because"] == "the policy of iptables table filter, chain FORWARD (nft)"
    assert cut["remedy"] == "iptables -I DOCKER-USER -i br0 -o br0 -j ACCEPT"
    worst = judged.overlaps[0].as_dict()
    assert (worst["severity"], worst["a"]["what"], worst["b"]["what"]) == (
        "broken",
        "docker network appnet",
        "route on eth0 via 10.88.0.1 in table 51820",
    )
    assert [path.narrow for path in judged.paths] == [None] * len(judged.paths)
    assert judged.verdict == "broken"


def test_a_rule_of_the_remedy_s_kind_cures() -> None:
    seen = host()
    seen.filters = [
        replace(one, chains={**one.chains, "DOCKER-USER": [_accept_br0()]}) if one.family == "ip" else one
        for one in seen.filters
    ]
    assert cut_off(seen) == []


def _accept_br0() -> Any:
    from ansible_collections.matryoshka.host.plugins.module_utils._bridge_rules import iptables_rule

    return iptables_rule("-i br0 -o br0 -j ACCEPT", "x")


def test_without_br_netfilter_a_bridge_is_left_alone() -> None:
    off = host()
    off.switches["call_iptables"] = False
    assert cut_off(off) == []
    gone = host()
    for name in ("call_iptables", "call_ip6tables", "call_arptables"):
        del gone.switches[name]
    assert cut_off(gone) == []
    assert _bridge_info.describe(gone)["br_netfilter"]["loaded"] is False


def test_a_switch_of_the_bridge_s_own() -> None:
    seen = host()
    seen.switches["call_iptables"] = False
    seen.links = [
        replace(link, bridge=(("nf_call_iptables", 1),)) if link.name == "br0" else link
        for link in seen.links
    ]
    assert [one["bridge"] for one in cut_off(seen)] == ["br0"]
    assert passes_filters(seen, next(link for link in seen.links if link.name == "br0"), 6) is True


def test_guests_of_libvirt_under_the_other_backend_s_policy() -> None:
    found = cut_off(virtual_machines())
    routed = [one for one in found if one["bridge"] == "virbr0" and one["traffic"] == "routed"]
    assert len(routed) == 1
    assert "(legacy)" in routed[0]["because"]
    assert routed[0]["remedy"] == (
        "iptables -I DOCKER-USER -i virbr0 -j ACCEPT;"
        " iptables -I DOCKER-USER -o virbr0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    )
    assert ("both_backends", "host", "degraded") in codes(Seen([virtual_machines()]))


def _small(**more: Any) -> Namespace:
    """A host with a bridge of an engine and a way out, without any filter."""
    bridge = Link("br7", 3, 1500, "bridge", bridge=())
    network = EngineNetwork("libvirt", "lab", "nat", "br7", (ipaddress.ip_network("10.7.0.0/24"),))
    return Namespace(
        "host",
        links=[bridge, Link("eth0", 2, 1500)],
        addresses=[Address("br7", "10.7.0.1/24", "global")],
        routes=[Route(ipaddress.ip_network("0.0.0.0/0"), "eth0", "10.0.0.1")],
        engines=[Engine("libvirt", True, (replace(network, **more),))],
        switches={"forward4": False},
    )


def test_forwarding_that_is_off() -> None:
    (cut,) = cut_off(_small())
    assert (cut["because"], cut["remedy"]) == ("forwarding of IPv4 is off", "sysctl -w net.ipv4.ip_forward=1")
    assert cut_off(_small(internal=True)) == []


def test_a_bridge_s_traffic_is_described() -> None:
    bridges = {one["name"]: one for one in _bridge_info.describe(host())["bridges"]}
    assert (bridges["docker0"]["managed_by"], bridges["docker0"]["network"]) == ("docker", "bridge")
    assert bridges["br-7d7c1cc51385"]["network"] == "appnet"
    assert {one["traffic"]: one["passes"] for one in bridges["docker0"]["traffic"]} == {
        "bridged": "yes",
        "routed": "yes",
    }
    assert bridges["br0"]["traffic"][0]["passes"] == "no"


def test_what_couldn_t_be_looked_at_is_a_note() -> None:
    gone = Namespace("ci", error="isn't running")
    partly = replace(container(), unread=["nft"])
    found = codes(Seen([replace(container(), name="host"), gone, partly]))
    assert ("not_looked_at", "ci", "note") in found
    assert ("partly_read", "ci-1", "note") in found


def test_a_narrow_way_is_broken() -> None:
    inner = container()
    inner.links = [replace(link, mtu=1300) if link.name == "eth0" else link for link in inner.links]
    assert ("mtu", "ci-1", "broken") in codes(Seen([host(), inner]))


def test_one_process_start_for_each_namespace() -> None:
    run = Recorded()
    seen = look(run, never_answers, ["a", "b"], view=View("/nowhere"), pids={"a": 11, "b": 12, "c": 0})
    assert run.started == 3
    assert [one.name for one in seen.namespaces] == ["host", "a", "b", "c"]
    assert seen.namespaces[3].error == "isn't running"
    assert [one.name for one in seen.inside] == ["a", "b"]


def test_a_container_with_the_host_s_network(tmp_path: Any) -> None:
    for path in ("self/ns", "11/ns", "12/ns", "13/ns"):
        (tmp_path / "proc" / path).mkdir(parents=True)
    for name, mark in (("self", 1), ("11", 1), ("12", 2), ("13", 2)):
        (tmp_path / "proc" / name / "ns" / "net").symlink_to(f"net:[{mark}]")
    run = Recorded()
    seen = look(run, never_answers, (), view=View(str(tmp_path)), pids={"a": 11, "b": 12, "c": 13})
    assert [one.same_as for one in seen.namespaces] == [None, "host", None, "b"]
    assert run.started == 2


def test_an_unknown_container_is_told() -> None:
    result = answer({"containers": ["nobody"]}, Recorded(), never_answers)
    assert result["namespaces"]["nobody"]["error"] == "isn't known to Docker or Podman of this host"
    assert any(one["text"].startswith("container nobody isn't known") for one in result["findings"])


def never_answers(path: str, url: str, *, root: str = "/", timeout: float = 5.0) -> Any:
    from ansible_collections.matryoshka.host.plugins.module_utils._verify_docker import NoAnswer

    raise NoAnswer("no socket")


def test_the_answer_holds_what_is_documented() -> None:
    import yaml
    from ansible_collections.matryoshka.host.plugins.modules import bridge_info

    result = answer({}, Recorded(), never_answers)
    assert set(result) == set(yaml.safe_load(bridge_info.RETURN))
    described = yaml.safe_load(bridge_info.RETURN)["namespaces"]["description"]
    for key in result["namespaces"]["host"]:
        assert f"C({key})" in " ".join(described)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"containers": ["../x"]}, "containers[0]: '../x' is refused; allowed: a container's name"),
        ({"containers": ["a", ""]}, "containers[1]: '' is refused"),
        (
            {"docker_socket": "run/docker.sock"},
            "docker_socket: 'run/docker.sock' is refused; allowed: an absolute path",
        ),
        ({"reserved": ["10.0.0.0/8", "lan"]}, "reserved[1]: 'lan' is refused; allowed: a network"),
        (
            {"reserved": [{"name": "a", "range": "10.0.0.1/8"}]},
            "allowed: a network without host bits: 10.0.0.0/8",
        ),
        ({"reserved": [{"range": "10.0.0.0/8"}]}, "reserved[0]: {'range': '10.0.0.0/8'} is refused"),
        ({"reserved": [7]}, "reserved[0]: 7 is refused"),
    ],
)
def test_bad_input_is_refused_before_anything_is_looked_at(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        answer(params, never, never)
    assert message in str(refused.value)


def test_reserved_ranges_reach_the_findings() -> None:
    reserved = _bridge_info.parse_reserved([{"name": "campus", "range": "172.16.0.0/12"}, "fd00:9::/48"])
    texts = [one["text"] for one in judge(Seen([host()]), reserved).findings]
    assert any("overlaps campus 172.16.0.0/12" in one for one in texts)
    assert any("overlaps reserved range fd00:9::/48" in one for one in texts)
