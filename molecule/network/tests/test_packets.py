# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs reach the internet, not the LAN: real connections from an environment and from a container inside it.

Every look asks for all addresses at once, those that have to answer and those that must not.
"""

from __future__ import annotations

import json

import pytest
from lab import CLOSED, OPEN, Lab


def test_the_neighbours_answer_the_host(lab: Lab) -> None:
    assert lab.reached("host") == {*OPEN, *CLOSED}


LISTEN = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 5353))
member = socket.inet_aton("224.0.0.251") + socket.inet_aton("172.20.0.1")
server.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
server.settimeout(4)
try:
    print(server.recv(99).decode())
except TimeoutError:
    print("nothing")
"""
SEND = """
import socket, time
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(5):
    client.sendto(b"a job", ("224.0.0.251", 5353))
    time.sleep(0.2)
"""


@pytest.mark.parametrize("who", ["environment", "inner"])
def test_a_job_reaches_the_internet_and_what_is_allowed_and_nothing_else(lab: Lab, who: str) -> None:
    assert lab.reached(who) == set(OPEN)


def test_a_refusal_is_told_at_once(lab: Lab) -> None:
    said = lab.site.inside("ci", "curl -sS -m 20 http://192.168.77.12:8080/ 2>&1; true")
    assert "Could not connect" in said or "No route to host" in said, said


def test_the_hosts_multicast_services_do_not_hear_jobs(lab: Lab) -> None:
    lab.site.write("/run/lab-listen.py", LISTEN)
    lab.site.write("/run/lab-send.py", SEND)
    enter = f"nsenter --net --target {lab.site.first_process(lab.environment)}"

    def heard() -> str:
        return lab.sh(
            f"(sleep 1; {enter} python3 /run/lab-send.py) & python3 /run/lab-listen.py; wait"
        ).strip()

    assert heard() == "nothing"
    lab.sh("iptables --insert INPUT --in-interface docker0 --jump ACCEPT")
    try:
        assert heard() == "a job"
    finally:
        lab.sh("iptables --delete INPUT --in-interface docker0 --jump ACCEPT")


@pytest.mark.parametrize(
    "disturbance",
    [
        "iptables --flush DOCKER-USER",
        "ip6tables --flush DOCKER-USER",
        "iptables --insert DOCKER-USER --source 203.0.113.9 --jump ACCEPT",
        "systemctl restart docker.service",
        "systemctl reload docker.service",
        "systemctl restart matryoshka-firewall.service",
    ],
)
def test_it_stays_so(lab: Lab, disturbance: str) -> None:
    lab.sh(disturbance)
    lab.waits_for_ready()
    assert lab.reached("environment") == set(OPEN)
    assert lab.reached("inner") == set(OPEN)


def test_a_rule_added_by_hand_opens_nothing_and_stays_behind_ours(lab: Lab) -> None:
    rule = "FORWARD -d 192.168.77.12/32 -i docker0 -j ACCEPT"
    lab.sh(f"iptables -I {rule}; iptables -I DOCKER-USER -d 192.168.77.12/32 -j ACCEPT")
    assert lab.reached("environment") == set(OPEN)
    lab.site.play({}, "site")
    lab.inner()
    rules = lab.sh("iptables -S FORWARD").splitlines()
    assert rules.index("-A FORWARD -j MATRYOSHKA-FORWARD") < rules.index(f"-A {rule}")
    assert lab.reached("environment") == set(OPEN)
    lab.sh(f"iptables -D {rule}; iptables -D DOCKER-USER -d 192.168.77.12/32 -j ACCEPT")


def test_everything_flushed_comes_back_with_the_engine(lab: Lab) -> None:
    lab.sh("iptables --flush; ip6tables --flush; systemctl restart docker.service")
    lab.waits_for_ready()
    assert lab.reached("environment") == set(OPEN)
    assert lab.reached("inner") == set(OPEN)


def test_an_engine_does_not_start_without_the_rules(lab: Lab) -> None:
    lab.sh("cp -a /etc/matryoshka/firewall.json /root/kept && echo '{' > /etc/matryoshka/firewall.json")
    lab.sh("systemctl stop docker.service docker.socket; iptables --flush; ! systemctl start docker.service")
    assert "firewall.json: no JSON is there" in lab.sh(
        "journalctl --unit docker.service --lines 40 --output cat"
    )
    lab.sh(
        "cp -a /root/kept /etc/matryoshka/firewall.json; systemctl reset-failed docker.service docker.socket"
    )
    lab.sh("systemctl start docker.service docker.socket 'matryoshka-runner@ci.service'")
    lab.waits_for_ready()
    assert lab.reached("environment") == set(OPEN)


@pytest.mark.parametrize("verb", ["reload", "restart", "stop"])
def test_nftables_flushes_everything_but_nothing_is_opened(lab: Lab, verb: str) -> None:
    lab.sh(f"systemctl start nftables.service; systemctl {verb} nftables.service")
    assert not lab.reached("environment") & set(CLOSED)
    assert not lab.reached("inner") & set(CLOSED)
    assert "matryoshka_shield" not in lab.sh("nft list tables")
    lab.sh("systemctl restart docker.service")
    lab.waits_for_ready()
    assert lab.reached("environment") == set(OPEN)


def test_beside_ufw(lab: Lab) -> None:
    lab.sh("apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y ufw >/dev/null")
    try:
        lab.site.play({}, "engines")
        lab.sh("ufw allow 22/tcp; ufw allow 8080/tcp; ufw --force enable")
        for disturbance in ("ufw reload", "systemctl restart ufw.service docker.service"):
            lab.sh(disturbance)
            lab.waits_for_ready()
            assert lab.reached("environment") == set(OPEN), disturbance
    finally:
        lab.sh("ufw --force disable; DEBIAN_FRONTEND=noninteractive apt-get -qq purge -y ufw >/dev/null")


def test_beside_firewalld(lab: Lab) -> None:
    lab.sh("DEBIAN_FRONTEND=noninteractive apt-get -qq install -y firewalld >/dev/null")
    try:
        lab.site.play({}, "engines")
        lab.sh("firewall-cmd --permanent --add-port=8080/tcp; systemctl restart docker.service")
        for disturbance in ("firewall-cmd --reload", "systemctl restart firewalld.service docker.service"):
            lab.sh(disturbance)
            lab.waits_for_ready()
            assert not lab.reached("environment") & set(CLOSED), disturbance
            assert not lab.reached("inner") & set(CLOSED), disturbance
        assert "198.51.100.7:8080" in lab.reached("environment")
    finally:
        lab.sh(
            "DEBIAN_FRONTEND=noninteractive apt-get -qq purge -y firewalld >/dev/null; nft delete table inet firewalld || true"
        )
    lab.sh("systemctl restart docker.service")
    lab.waits_for_ready()


def test_the_hosts_own_bridge_goes_on_under_dockers_policy(lab: Lab) -> None:
    lab.sh(
        "iptables --policy FORWARD DROP; ip address add 192.168.88.1/24 dev br0; ip link set br0 up;"
        "for n in 2 3; do ip netns add vm$n; ip link add vm$n type veth peer name eth0 netns vm$n;"
        " ip link set vm$n master br0 up; ip -n vm$n address add 192.168.88.$n/24 dev eth0; ip -n vm$n link set eth0 up;"
        " ip -n vm$n route add default via 192.168.88.1; done;"
        "ip -n internet route replace 192.168.88.0/24 via 198.51.100.1"
    )
    try:
        lab.sh("ip netns exec vm2 busybox ping -c 1 -W 2 192.168.88.3")
        assert lab.reached("ip netns exec vm2", ("198.51.100.7:8080",)) == {"198.51.100.7:8080"}
        lab.sh("iptables --delete FORWARD --jump MATRYOSHKA-LAST")
        assert lab.reached("ip netns exec vm2", ("198.51.100.7:8080",)) == set()
    finally:
        lab.sh(
            "systemctl reload matryoshka-firewall.service; iptables --policy FORWARD ACCEPT;"
            "ip netns delete vm2; ip netns delete vm3; ip address delete 192.168.88.1/24 dev br0"
        )


def test_the_lan_reaches_what_a_job_publishes_and_nothing_else(lab: Lab) -> None:
    lab.sh(
        "tar -chC / bin/busybox | docker import - busybox:local >/dev/null;"
        "docker run -d --name shop -p 7070:7070 busybox:local /bin/busybox httpd -f -p 7070 -h /bin >/dev/null;"
        "docker exec shop /bin/busybox httpd -p 7071 -h /bin"
    )
    try:
        address = lab.sh("docker inspect -f '{{.NetworkSettings.IPAddress}}' shop").strip()
        published, secret = "192.168.77.1:7070/busybox", f"{address}:7071/busybox"
        assert lab.reached("host", (published, secret)) == {published, secret}
        assert lab.reached("ip netns exec lan", (published, secret)) == {published}
    finally:
        lab.sh("docker rm -f shop; docker image rm busybox:local")


def test_containers_of_one_network_reach_each_other_and_environments_do_not(lab: Lab) -> None:
    lab.sh(
        "tar -chC / bin/busybox | docker import - busybox:local >/dev/null; docker network create shop >/dev/null;"
        "for name in a b; do docker run -d --name shop-$name --network shop busybox:local /bin/busybox httpd -f -p 7070 -h /bin;"
        " docker run -d --name plain-$name busybox:local /bin/busybox httpd -f -p 7070 -h /bin; done"
    )
    try:
        for kind, goes in (("shop", True), ("plain", False)):
            form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
            address = lab.sh(f"docker inspect -f '{form}' {kind}-b").strip()
            url = f"{address}:7070/busybox"
            assert lab.reached(f"docker exec {kind}-a", (url,)) == ({url} if goes else set()), kind
            assert lab.reached("environment", (url,)) == set(), kind
    finally:
        lab.sh(
            "docker rm -f shop-a shop-b plain-a plain-b; docker network rm shop; docker image rm busybox:local"
        )


def test_a_rootless_engines_user_is_kept_apart_by_uid(lab: Lab) -> None:
    mine = tuple(one for one in (*OPEN, *CLOSED) if not one.startswith("172.20."))
    assert lab.reached("runuser -u jobber --", mine) == set(OPEN)
    assert lab.reached("runuser -u admin --", mine) == set(mine)
    first = lab.sh("sed -n 's/^jobber:\\([0-9]*\\):.*/\\1/p' /etc/subuid").strip()
    assert lab.reached(f"setpriv --reuid {first} --clear-groups --", mine) == set(OPEN)


def test_ranges_are_planned_around_what_the_site_reserves(lab: Lab) -> None:
    inner = json.loads(lab.site.sh("cat /etc/matryoshka/runners/ci.json"))["inner_daemon"]
    assert not inner["bip"].startswith("172.22.")
    outer = json.loads(lab.site.sh("cat /etc/docker/daemon.json"))
    assert outer["bip"] == "172.20.0.1/16"
    inside = lab.site.inside("ci", "ip -4 -o address show docker0")
    assert inner["bip"] in inside
    assert outer["ipv6"] is True and inner["ipv6"] is True


def test_every_level_has_the_mtu_of_the_way_out(lab: Lab) -> None:
    assert lab.sh("cat /sys/class/net/docker0/mtu").strip() == "1420"
    assert lab.site.inside("ci", "cat /sys/class/net/eth0/mtu /sys/class/net/docker0/mtu").split() == [
        "1420",
        "1420",
    ]
    lab.site.inside("ci", "docker network create later")
    made = lab.site.inside(
        "ci", "docker run --rm --network later busybox:local /bin/busybox cat /sys/class/net/eth0/mtu"
    )
    assert made.strip() == "1420"
    lab.site.inside("ci", "docker network rm later")


def test_podmans_jobs_are_kept_apart_too(lab: Lab) -> None:
    lab.sh(
        "tar -chC / bin/busybox | podman import - busybox:local >/dev/null 2>&1;"
        "podman --runtime runc run -d --name p busybox:local /bin/busybox sleep 1000 >/dev/null 2>&1 </dev/null"
    )
    try:
        four = tuple(one for one in (*OPEN, *CLOSED) if not one.startswith("["))
        assert lab.reached("podman exec p", four) == set(four) & set(OPEN)
    finally:
        lab.sh("podman rm -f -t 0 p; podman image rm busybox:local; podman network prune -f")


def test_after_a_reboot_it_is_so_before_anybody_asks(lab: Lab) -> None:
    lab.reboot()
    lab.site.ready("ci")
    lab.build()
    assert lab.reached("environment") == set(OPEN)
    assert lab.reached("inner") == set(OPEN)
