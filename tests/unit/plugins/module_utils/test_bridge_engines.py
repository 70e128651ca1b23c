# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks and pools of engines, in several versions."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._bridge_engines import (
    BUILT_IN,
    Engine,
    docker_configuration,
    docker_engine,
    libvirt_network,
    network_setting,
    podman_engine,
    podman_networks,
)
from bridge_fixtures import loaded, text
from hypothesis import given
from hypothesis import strategies as st


def table(engine: Engine) -> dict[str, tuple[Any, ...]]:
    return {
        one.name: (one.interface, [str(network) for network in one.ranges], one.mtu)
        for one in engine.networks
    }


def test_docker_26() -> None:
    engine = docker_engine({}, loaded("docker-26.1-networks.json"))
    assert table(engine) == {
        "bridge": ("docker0", ["172.17.0.0/16"], 1500),
        "appnet": ("br-7d7c1cc51385", ["172.30.5.0/24"], 1400),
        "six": ("br-92587c0a9905", ["172.18.0.0/16", "fd00:9::/64"], 1500),
    }
    assert (engine.live, engine.built_in, engine.pools) == (True, True, BUILT_IN["docker"])


def test_docker_20_10() -> None:
    engine = docker_engine({"DefaultAddressPools": None}, loaded("docker-20.10-networks.json"))
    assert table(engine)["bridge"] == ("docker0", ["172.17.0.0/16"], 1500)
    assert table(engine)["appnet"][1:] == (["172.30.5.0/24"], 1400)


def test_an_inner_docker_with_an_mtu_of_its_own() -> None:
    engine = docker_engine({}, loaded("docker-26.1-inner-networks.json"))
    assert table(engine) == {"bridge": ("docker0", ["172.22.0.0/16"], 1400)}


def test_docker_29() -> None:
    answers = loaded("derived-docker-29.json")
    engine = docker_engine(answers["info"], answers["networks"])
    assert [(str(pool.base), pool.size) for pool in engine.pools] == [
        ("172.25.0.0/16", 24),
        ("fd00:25::/56", 64),
    ]
    assert engine.built_in is False
    assert table(engine)["lan"] == ("eth0", ["192.168.1.0/24"], None)
    assert table(engine)["ingress"] == (None, ["10.0.0.0/24"], None)
    app = next(one for one in engine.networks if one.name == "appnet")
    assert (app.interface, app.isolated, app.internal) == ("app0", True, False)


@pytest.mark.parametrize(
    ("config", "networks", "pools"),
    [
        ('{"bip": "172.20.0.1/16", "mtu": 1400}', {"bridge": ("docker0", ["172.20.0.0/16"], 1400)}, None),
        (
            '{"bip": "10.1.0.1/24", "fixed-cidr-v6": "fd00:5::/64", "bridge": "br7"}',
            {"bridge": ("br7", ["10.1.0.0/24", "fd00:5::/64"], None)},
            None,
        ),
        (
            '{"default-address-pools": [{"base": "10.2.0.0/16", "size": 24}, 7, {"size": 1}]}',
            {},
            ["10.2.0.0/16"],
        ),
        ("{}", {}, None),
        ("not JSON", {}, None),
        ('["a"]', {}, None),
        (None, {}, None),
    ],
)
def test_a_docker_that_is_down(config: str | None, networks: dict[str, Any], pools: list[str] | None) -> None:
    engine = docker_configuration(config, "nothing listens")
    assert table(engine) == networks
    assert (engine.live, engine.error) == (False, "nothing listens")
    assert engine.built_in is (pools is None)
    assert [str(pool.base) for pool in engine.pools] == (
        pools or [str(pool.base) for pool in BUILT_IN["docker"]]
    )


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("podman-4.3-inspect.json", {"podman": ("podman0", ["10.88.0.0/16"], None)}),
        ("podman-5.4-apps.json", {"apps": ("podman1", ["10.91.3.0/24"], 1400)}),
        (
            "podman-5.4-inspect.json",
            {"apps": ("podman1", ["10.91.3.0/24"], 1400), "podman": ("podman0", ["10.88.0.0/16"], None)},
        ),
        ("derived-cni.conflist", {"old": ("cni-podman1", ["10.89.4.0/24"], 1450)}),
    ],
)
def test_podman_s_networks(file: str, wanted: dict[str, Any]) -> None:
    found = podman_networks(text(file))
    assert table(Engine("podman", True, tuple(found))) == wanted
    assert not any(one.internal for one in found)


CONF = """\
[containers]
default_subnet = "1.2.3.0/24"
[network]
# default_subnet = "10.1.0.0/16"
default_subnet="10.44.0.0/16"
network_config_dir = "/srv/networks"
default_subnet_pools = [
  {"base" = "10.45.0.0/16", "size" = 24},
  {base = "10.46.0.0/15", "size" = 26},
]
[engine]
default_network = "other"
"""


def test_podman_s_defaults() -> None:
    engine = podman_engine([], [])
    assert table(engine) == {"podman": ("podman0", ["10.88.0.0/16"], None)}
    assert (engine.built_in, engine.pools) == (True, BUILT_IN["podman"])


def test_podman_s_configuration() -> None:
    engine = podman_engine(podman_networks(text("podman-5.4-apps.json")), [CONF])
    assert table(engine)["podman"][1] == ["10.44.0.0/16"]
    assert sorted(table(engine)) == ["apps", "podman"]
    assert [(str(pool.base), pool.size) for pool in engine.pools] == [
        ("10.45.0.0/16", 24),
        ("10.46.0.0/15", 26),
    ]
    assert network_setting([CONF], "network_config_dir") == "/srv/networks"
    assert (
        network_setting([CONF, '[network]\nnetwork_config_dir = "/etc/n"'], "network_config_dir") == "/etc/n"
    )
    assert network_setting([""], "network_config_dir") is None


def test_libvirt_s_default_network() -> None:
    network = libvirt_network(text("libvirt-9-default.xml"))
    assert network
    assert (network.name, network.interface, network.driver) == ("default", "virbr0", "nat")
    assert [str(one) for one in network.ranges] == ["192.168.122.0/24"]


def test_libvirt_s_dump_and_status() -> None:
    dump = text("derived-libvirt-11-dumpxml.xml")
    for document in (dump, f"<networkstatus><class_id bitmap='0-2'/>{dump}</networkstatus>"):
        network = libvirt_network(document)
        assert network
        assert (network.name, network.interface, network.driver, network.mtu) == (
            "lab",
            "virbr7",
            "route",
            1400,
        )
        assert [str(one) for one in network.ranges] == ["10.77.0.0/20", "fd00:77::/64"]


@pytest.mark.parametrize(
    ("document", "ranges", "internal"),
    [
        (
            "<network><name>a</name><bridge name='b'/><ip address='192.168.4.1'/></network>",
            ["192.168.4.0/24"],
            True,
        ),
        (
            "<network><name>a</name><ip address='10.4.0.1'/><forward mode='nat'/></network>",
            ["10.0.0.0/8"],
            False,
        ),
        ("<network><name>a</name><ip family='ipv6' address='fd00::1'/></network>", ["fd00::/64"], True),
        ("<network><name>a</name><ip address='rubbish'/></network>", [], True),
    ],
)
def test_libvirt_s_addresses(document: str, ranges: list[str], internal: bool) -> None:
    network = libvirt_network(document)
    assert network
    assert ([str(one) for one in network.ranges], network.internal) == (ranges, internal)


@pytest.mark.parametrize(
    "document", ["", "<network>", "<domain/>", "<!DOCTYPE a [<!ENTITY b 'c'>]><network/>"]
)
def test_not_a_network_of_libvirt(document: str) -> None:
    assert libvirt_network(document) is None


@given(st.text(max_size=200))
def test_rubbish_is_no_network(rubbish: str) -> None:
    assert podman_networks(rubbish) == []
    assert libvirt_network(rubbish) is None
    assert docker_configuration(rubbish, "").networks == ()
    assert podman_engine([], [rubbish]).pools == BUILT_IN["podman"]


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_built_in_pools_hold_whole_networks(engine: str) -> None:
    assert all(pool.base.prefixlen <= pool.size and pool.base.is_private for pool in BUILT_IN[engine])
