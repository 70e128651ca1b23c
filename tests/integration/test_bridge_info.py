# SPDX-License-Identifier: GPL-3.0-or-later
"""bridge_info against real packets: what it says of a bridge is what becomes of a ping."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from nested_engine import BUILD, IMAGE, start, until_live

INNER = (
    "dockerd --mtu 1400 --bip 172.22.0.1/16 --default-address-pool base=172.28.0.0/16,size=24"
    " >/run/dockerd.log 2>&1 & exec sleep infinity"
)
# br0 has two guests in namespaces of their own; vm0 has one that goes out through the host, as of libvirt.
SCENE = """
set -e
guest() {
  ip netns add "$1"
  ip link add "$1" type veth peer name eth0 netns "$1"
  ip -n "$1" address add "$2" dev eth0
  ip -n "$1" address add "$4" dev eth0 nodad
  ip -n "$1" link set eth0 up
  ip link set "$1" master "$3" up
}
ip link add br0 type bridge
ip link add vm0 type bridge
ip address add 192.168.61.1/24 dev vm0
ip link set br0 up
ip link set vm0 up
guest bi-1 192.168.60.11/24 br0 fd00:60::11/64
guest bi-2 192.168.60.12/24 br0 fd00:60::12/64
guest bi-3 192.168.61.13/24 vm0 fd00:61::13/64
ip -n bi-3 route add default via 192.168.61.1
iptables -t nat -A POSTROUTING -s 192.168.61.0/24 -o eth0 -j MASQUERADE
"""
# Docker sets the policy to DROP where it is the one that turns forwarding on.
DROP = "sysctl -qw net.ipv4.ip_forward=0 && systemctl restart docker.service && docker info >/dev/null"
AWAY = """
for name in bi-1 bi-2 bi-3; do ip netns delete "$name"; done 2>/dev/null
ip link delete br0 2>/dev/null
ip link delete vm0 2>/dev/null
iptables -t nat -D POSTROUTING -s 192.168.61.0/24 -o eth0 -j MASQUERADE 2>/dev/null
docker ps -aq --filter name=^bi- | xargs -r docker rm -f -v >/dev/null
docker network ls -q --filter name=^bi- | xargs -r docker network rm >/dev/null
podman network rm -f bi-podman >/dev/null 2>&1
ip route flush table 5182 2>/dev/null
iptables-legacy -P FORWARD ACCEPT
nft delete table inet bi 2>/dev/null
"""
# With "don't fragment", the kernel learns what the path carries from the host's answer.
PROBE = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, 10, 2)
s.connect((sys.argv[1], 9))
for _ in range(20):
    try:
        s.send(bytes(s.getsockopt(socket.IPPROTO_IP, 14) - 28))
    except OSError:
        pass
    time.sleep(0.02)
print(s.getsockopt(socket.IPPROTO_IP, 14))
"""


def asked(host: Any, *containers: str, **more: Any) -> dict[str, Any]:
    found = dict(host.module("bridge_info", {"containers": list(containers), **more}))
    assert not found.get("failed"), found
    return found


def passes(found: dict[str, Any], bridge: str, traffic: str, family: int = 4) -> str:
    bridges = {one["name"]: one for one in found["namespaces"]["host"]["bridges"]}
    return next(
        str(one["passes"])
        for one in bridges[bridge]["traffic"]
        if (one["traffic"], one["family"]) == (traffic, family)
    )


def ping(host: Any, name: str, address: str) -> str:
    line = f"ip netns exec {name} busybox ping -c 1 -W 1 {address}"
    return "yes" if host.run(line, check=False).ok else "no"


def pairs(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Overlaps by both sides, as place, what and range."""
    side = "{where}: {what} {range}".format_map
    return {(side(one["a"]), side(one["b"])): one for one in found["overlaps"]}


def gateway(host: Any) -> str:
    return str(host.run("ip -4 route show default").out.split()[2])


@pytest.fixture(scope="module")
def host(docker_host: Any) -> Iterator[Any]:
    docker_host.run(AWAY, check=False)
    before = docker_host.run("iptables -S FORWARD | head -1").out.split()[-1]
    docker_host.run(DROP)
    docker_host.run(BUILD)
    docker_host.run(SCENE)
    start(docker_host, "bi-ci", "-v", "/var/lib/matryoshka/bi:/var/lib/docker", command=INNER)
    until_live(docker_host, "bi-ci")
    yield docker_host
    docker_host.run(AWAY, check=False)
    docker_host.run(f"iptables -P FORWARD {before}; rm -rf /var/lib/matryoshka/bi; docker rmi {IMAGE}")


def test_docker_s_drop_policy_cuts_a_bridge_off_until_the_remedy(host: Any) -> None:
    found = asked(host)
    cut = {(one["bridge"], one["traffic"]): one for one in found["cut_off"]}
    assert set(cut) == {("br0", "bridged"), ("vm0", "bridged"), ("vm0", "routed")}
    assert found["namespaces"]["host"]["br_netfilter"]["call_iptables"] is True
    assert (ping(host, "bi-1", "192.168.60.12"), ping(host, "bi-3", gateway(host))) == ("no", "no")
    for one in cut.values():
        assert one["because"] == "the policy of iptables table filter, chain FORWARD (nft)"
        host.run(one["remedy"])
    assert asked(host)["cut_off"] == []
    assert (ping(host, "bi-1", "192.168.60.12"), ping(host, "bi-3", gateway(host))) == ("yes", "yes")
    host.run("iptables -F DOCKER-USER; iptables -A DOCKER-USER -j RETURN")
    assert ping(host, "bi-1", "192.168.60.12") == "no"


@pytest.mark.parametrize(
    ("change", "back", "wanted"),
    [
        (
            "iptables -I FORWARD -m physdev --physdev-is-bridged -j ACCEPT",
            "iptables -D FORWARD -m physdev --physdev-is-bridged -j ACCEPT",
            "yes",
        ),
        ("iptables -A FORWARD -i br+ -j ACCEPT", "iptables -D FORWARD -i br+ -j ACCEPT", "yes"),
        (
            "iptables -A FORWARD -s 192.168.60.0/24 -o vm0 -j ACCEPT",
            "iptables -D FORWARD -s 192.168.60.0/24 -o vm0 -j ACCEPT",
            "no",
        ),
        (
            "sysctl -qw net.bridge.bridge-nf-call-iptables=0",
            "sysctl -qw net.bridge.bridge-nf-call-iptables=1",
            "yes",
        ),
        (
            "iptables -P FORWARD ACCEPT; iptables-legacy -P FORWARD DROP",
            "iptables-legacy -P FORWARD ACCEPT; iptables -P FORWARD DROP",
            "no",
        ),
        (
            "iptables -P FORWARD ACCEPT; nft 'table inet bi { chain f { type filter hook forward priority 5; policy drop;"
            ' iifname "vm0" accept; }; }\'',
            "nft delete table inet bi; iptables -P FORWARD DROP",
            "no",
        ),
        (
            "iptables -P FORWARD ACCEPT; nft 'table inet bi { chain f { type filter hook forward priority 5; policy drop;"
            ' iifname { "br0", "vm0" } jump g; }; chain g { ct state established accept; oifname "br0" accept; }; }\'',
            "nft delete table inet bi; iptables -P FORWARD DROP",
            "yes",
        ),
    ],
    ids=["physdev", "pattern", "other-way", "without-br_netfilter", "legacy", "nft-drops", "nft-accepts"],
)
def test_the_module_s_word_is_what_becomes_of_a_packet(
    host: Any, change: str, back: str, wanted: str
) -> None:
    host.run(change)
    try:
        found, real = asked(host), ping(host, "bi-1", "192.168.60.12")
    finally:
        host.run(back)
    assert (passes(found, "br0", "bridged"), real) == (wanted, wanted)
    both = "both_backends" in [one["code"] for one in found["findings"]]
    assert both is ("legacy" in found["namespaces"]["host"]["backends"]) is ("legacy" in change)


def test_sets_of_addresses(host: Any) -> None:
    host.run(
        "ipset create bi-guests hash:net && iptables -I DOCKER-USER -i br0 -m set --match-set bi-guests src -j ACCEPT"
    )
    empty = asked(host), ping(host, "bi-1", "192.168.60.12")
    host.run("ip address add 192.168.60.1/24 dev br0; ipset add bi-guests 192.168.60.0/24")
    full = asked(host), ping(host, "bi-1", "192.168.60.12")
    host.run(
        "iptables -D DOCKER-USER -i br0 -m set --match-set bi-guests src -j ACCEPT; ipset destroy bi-guests;"
        " ip address del 192.168.60.1/24 dev br0"
    )
    assert (passes(empty[0], "br0", "bridged"), empty[1]) == ("no", "no")
    assert (passes(full[0], "br0", "bridged"), full[1]) == ("yes", "yes")


def test_ipv6_has_rules_of_its_own(host: Any) -> None:
    open_to_all = asked(host), ping(host, "bi-1", "fd00:60::12")
    host.run("ip6tables -P FORWARD DROP")
    dropped = asked(host), ping(host, "bi-1", "fd00:60::12")
    host.run("ip6tables -P FORWARD ACCEPT")
    assert (passes(open_to_all[0], "br0", "bridged", 6), open_to_all[1]) == ("yes", "yes")
    assert (passes(dropped[0], "br0", "bridged", 6), dropped[1]) == ("no", "no")
    (cut,) = [one for one in dropped[0]["cut_off"] if one["family"] == 6 and one["bridge"] == "br0"]
    assert cut["because"] == "the policy of ip6tables table filter, chain FORWARD (nft)"


def test_a_nested_engine(host: Any) -> None:
    found = asked(host, "bi-ci")
    (engine,) = [one for one in found["namespaces"]["bi-ci"]["engines"] if one["engine"] == "docker"]
    assert engine["live"] and engine["built_in_pools"] is False
    assert engine["pools"] == [{"base": "172.28.0.0/16", "size": 24}]
    (network,) = engine["networks"]
    assert (network["name"], network["interface"], network["ranges"]) == (
        "bridge",
        "docker0",
        ["172.22.0.0/16"],
    )
    (bridge,) = found["namespaces"]["bi-ci"]["bridges"]
    assert {one["traffic"]: one["passes"] for one in bridge["traffic"]} == {"bridged": "yes", "routed": "yes"}
    assert not [
        one for one in found["overlaps"] if one["a"]["where"] == "bi-ci" and one["severity"] == "broken"
    ]


def test_the_mtu_along_the_way_is_what_the_kernel_learns(host: Any) -> None:
    way = next(one for one in asked(host, "bi-ci")["mtu_paths"] if one["container"] == "bi-ci")
    veth = host.run("ls /sys/class/net/docker0/brif").out.split()
    assert [(one["where"], one["interface"]) for one in way["steps"]] == [
        ("bi-ci", "docker0"),
        ("bi-ci", "eth0"),
        ("host", veth[0]),
        ("host", "docker0"),
        ("host", "eth0"),
    ]
    assert (way["ok"], way["complete"], way["minimum"]) == (True, True, 1400)
    uplink = host.run("cat /sys/class/net/eth0/mtu").out.strip()
    host.run("ip link set eth0 mtu 1340")
    try:
        pid = host.run("docker inspect -f {{.State.Pid}} bi-ci").out.strip()
        learnt = host.run(["nsenter", f"--net=/proc/{pid}/ns/net", "python3", "-c", PROBE, gateway(host)]).out
        found = asked(host, "bi-ci")
    finally:
        host.run(f"ip link set eth0 mtu {uplink}; nsenter --net=/proc/{pid}/ns/net ip route flush cache")
    way = next(one for one in found["mtu_paths"] if one["container"] == "bi-ci")
    assert (way["ok"], way["minimum"]) == (False, int(learnt)) == (False, 1340)
    assert way["text"] == "packets of docker0 (host) 1500 don't fit through eth0 (host) 1340"
    assert 1340 in [one["mtu"] for one in found["namespaces"]["bi-ci"]["learnt_mtus"]]
    assert ("mtu", "bi-ci") in [(one["code"], one["subject"]) for one in found["findings"]]


def test_a_container_two_dolls_down(host: Any) -> None:
    borrow = "cd / && tar -c bin sbin lib lib64 etc/passwd | docker import - deep >/dev/null"
    run = "docker run -d --name deep -v /usr:/usr:ro deep sleep infinity"
    host.run(["docker", "exec", "bi-ci", "sh", "-c", f"{borrow} && {run}"])
    found = asked(host, "bi-ci/deep")
    inside = host.run(
        "docker exec bi-ci docker exec deep cat /sys/class/net/eth0/mtu /sys/class/net/eth0/ifindex"
    ).out
    host.run("docker exec bi-ci docker rm -f deep")
    seen = found["namespaces"]["bi-ci/deep"]
    assert (seen["error"], found["namespaces"]["bi-ci"]["error"]) == (None, None)
    assert "172.22.0.2/16" in [one["address"] for one in seen["addresses"]]
    way = next(one for one in found["mtu_paths"] if one["container"] == "bi-ci/deep")
    assert [one["where"] for one in way["steps"]] == ["bi-ci/deep", *["bi-ci"] * 3, *["host"] * 3]
    assert [one["interface"] for one in way["steps"]][2:4] == ["docker0", "eth0"]
    assert (way["ok"], way["complete"], str(way["minimum"])) == (True, True, inside.split()[0])


def test_a_network_over_a_route_of_another_table(host: Any) -> None:
    host.run(f"ip route add 172.31.9.128/25 via {gateway(host)} table 5182")
    host.run("docker network create --subnet 172.31.9.0/24 bi-over")
    found = asked(host)
    one = pairs(found)[
        "host: docker network bi-over 172.31.9.0/24",
        f"host: route on eth0 via {gateway(host)} in table 5182 172.31.9.128/25",
    ]
    assert one["severity"] == "broken"
    host.run("docker network rm bi-over; ip route flush table 5182")


def test_an_inner_network_over_the_host_s_lan(host: Any) -> None:
    lan = host.run("ip -4 route show dev eth0 scope link").out.split()[0]
    host.run(f"docker exec bi-ci docker network create --subnet {lan} bi-lan")
    pid = host.run("docker inspect -f {{.State.Pid}} bi-ci").out.strip()
    way = host.run(f"nsenter --net=/proc/{pid}/ns/net ip route get {gateway(host)}").out
    found = asked(host, "bi-ci")
    host.run("docker exec bi-ci docker network rm bi-lan")
    one = pairs(found)[f"bi-ci: docker network bi-lan {lan}", f"host: route on eth0 {lan}"]
    assert one["severity"] == "broken"
    assert one["text"].endswith("inner containers can't reach the host's gateway")
    assert "dev eth0" not in way


def test_podman_beside_docker(host: Any) -> None:
    host.run("podman network create --subnet 172.31.9.64/26 bi-podman")
    # Podman would refuse the other way round; Docker doesn't see a network that nobody uses yet.
    host.run("docker network create --subnet 172.31.9.0/24 bi-docker")
    found = pairs(asked(host))
    host.run("docker network rm bi-docker; podman network rm bi-podman")
    one = found[
        "host: docker network bi-docker 172.31.9.0/24", "host: podman network bi-podman 172.31.9.64/26"
    ]
    assert one["severity"] == "degraded"


def test_reserved_ranges_and_ipv6(host: Any) -> None:
    host.run("docker network create --ipv6 --subnet fd00:bead::/64 bi-six")
    found = pairs(
        asked(host, "bi-ci", reserved=["fd00:bead::/48", {"name": "campus", "range": "172.22.0.0/15"}])
    )
    host.run("docker network rm bi-six")
    assert ("host: docker network bi-six fd00:bead::/64", "host: reserved range fd00:bead::/48") in found
    assert ("bi-ci: docker network bridge 172.22.0.0/16", "host: campus 172.22.0.0/15") in found


def test_a_link_in_a_container_leads_nowhere(host: Any) -> None:
    link = "rm -rf /etc/docker; ln -s /proc/1/root/etc/docker /etc/docker; ln -s / /run/docker.sock; exec sleep infinity"
    start(host, "bi-link", command=link)
    found = asked(host, "bi-link")["namespaces"]["bi-link"]
    host.run("docker rm -f bi-link")
    assert found["error"] is None
    assert [one for one in found["engines"] if one["engine"] == "docker"] == []


def test_containers_that_can_t_be_looked_at(host: Any) -> None:
    start(host, "bi-host", "--network", "host", command="exec sleep infinity")
    host.run(f"docker create --name bi-off {IMAGE} true")
    host.run("docker pause bi-ci")
    found = asked(host, "nobody", "bi-off", "bi-host", "bi-ci")
    host.run("docker unpause bi-ci; docker rm -f bi-off bi-host")
    seen = found["namespaces"]
    assert seen["nobody"]["error"] == "isn't known to Docker or Podman of this host"
    assert seen["bi-off"]["error"] == "isn't running"
    assert (seen["bi-host"]["error"], seen["bi-host"]["same_as"]) == (None, "host")
    assert [one["name"] for one in seen["bi-ci"]["bridges"]] == ["docker0"]
    assert {one["subject"] for one in found["findings"] if one["code"] == "not_looked_at"} == {
        "nobody",
        "bi-off",
    }


def test_looking_changes_nothing(host: Any) -> None:
    pid = host.run("docker inspect -f {{.State.Pid}} bi-ci").out.strip()
    state = (
        "for n in self $(cat); do nsenter --net=/proc/$n/ns/net sh -c '"
        'nft list ruleset | sed "s/counter packets [0-9]* bytes [0-9]*//"; ip -o address; ip route show table all;'
        " ip link | sed /link/d; cat /proc/net/ip_tables_names /proc/net/ip6_tables_names'; done; docker ps -aq; ls /run"
    )
    before = host.run(state, stdin=pid).out
    for check in (False, True):
        found = host.module("bridge_info", {"all_containers": True}, check=check)
        assert found["changed"] is False
        assert "bi-ci" in found["namespaces"]
    assert host.run(state, stdin=pid).out == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"containers": ["a//b"]}, "containers[0]: 'a//b' is refused; allowed: a container's name"),
        (
            {"reserved": ["10.0.0.1/8"]},
            "reserved[0]: '10.0.0.1/8' is refused; allowed: a network without host bits",
        ),
        (
            {"docker_socket": "docker.sock"},
            "docker_socket: 'docker.sock' is refused; allowed: an absolute path",
        ),
    ],
)
def test_bad_input(host: Any, args: dict[str, Any], message: str) -> None:
    found = host.module("bridge_info", args)
    assert found["failed"] and message in found["msg"]


def test_a_host_without_an_engine(plain_host: Any) -> None:
    found = asked(plain_host, "ci")
    assert found["namespaces"]["host"]["engines"] == []
    assert found["namespaces"]["ci"]["error"] == "isn't known to Docker or Podman of this host"
    assert found["cut_off"] == []
