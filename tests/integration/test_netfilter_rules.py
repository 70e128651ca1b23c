# SPDX-License-Identifier: GPL-3.0-or-later
"""netfilter_rules and its boot program with real packets: a job, a local network, a metadata service, an internet.

All are network namespaces behind the host; the job is a container of the host's Docker. What slips
through is counted where it would arrive, while a flood of packets runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "plugins" / "module_utils" / "_netfilter_program.py"
INSTALLED = "/usr/local/lib/matryoshka/firewall.py"
APPLY = f"/usr/bin/python3 -I {INSTALLED} apply"
DATA = "/etc/matryoshka/firewall.json"
IMAGE = "nf-job"
STATE = "iptables-save | grep -v '^#' | sed 's/\\[.*//'; ip6tables-save | grep -v '^#' | sed 's/\\[.*//';"
STATE += f" ipset save | sed 's/initval .*//'; cat {DATA}; ls -l {DATA}; true"

UNIT = f"""[Unit]
Description=Firewall rules for job environments
DefaultDependencies=no
Wants=network-pre.target
After=local-fs.target systemd-modules-load.service nftables.service netfilter-persistent.service ufw.service
Before=network-pre.target docker.service podman.service shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=60
ExecStart={APPLY}
ExecReload={APPLY}

[Install]
WantedBy=multi-user.target
"""
ENGINE = f"""[Unit]
Wants=matryoshka-firewall.service
After=matryoshka-firewall.service

[Service]
ExecStartPre={APPLY}
ExecStartPost={APPLY}
"""
NFT = "/etc/matryoshka/nftables-{}.nft"
SHIELD = (
    "table inet nftest_shield { chain forward { type filter hook forward priority -400; policy drop; }; }"
)
LOAD = f"/usr/sbin/nft -f {NFT.format('load')}"
OPEN = "/usr/sbin/nft delete table inet nftest_shield"
# nftables.service flushes all. In the same transaction nothing is forwarded any more, until the rules are back.
NFTABLES = f"""[Service]
ExecStart=
ExecStart={LOAD}
ExecStartPost={APPLY}
ExecStartPost={OPEN}
ExecReload=
ExecReload={LOAD}
ExecReload={APPLY}
ExecReload={OPEN}
ExecStop=
ExecStop=/usr/sbin/nft -f {NFT.format("flush")}
ExecStopPost={APPLY}
ExecStopPost=-{OPEN}
"""
FILES = {
    "/etc/systemd/system/matryoshka-firewall.service": UNIT,
    "/etc/systemd/system/docker.service.d/60-matryoshka-firewall.conf": ENGINE,
    "/etc/systemd/system/nftables.service.d/60-matryoshka-firewall.conf": NFTABLES,
    # Debian lets an engine start three times a minute; the tests need more.
    "/etc/systemd/system/docker.service.d/61-nf-test.conf": "[Unit]\nStartLimitIntervalSec=0\n",
    NFT.format("load"): f'include "/etc/nftables.conf"\n{SHIELD}\n',
    NFT.format("flush"): f"flush ruleset\n{SHIELD}\n",
}

LAN, METADATA, INTERNET = "192.168.77.2", "169.254.169.254", "198.51.100.2"
LAN6, INTERNET6 = "fd77::2", "2001:db8:100::2"
BUILD = f"""
set -e
link() {{
  ip netns add "$1"
  ip link add "$2" type veth peer name eth0 netns "$1"
  ip -n "$1" link set lo up; ip -n "$1" link set eth0 up; ip link set "$2" up
}}
link nf-lan nf-lan; link nf-metadata nf-meta; link nf-internet nf-net
link nf-job docker-nf6; link nf-twin nf-twin
ip addr add 192.168.77.1/24 dev nf-lan; ip -n nf-lan addr add {LAN}/24 dev eth0
ip addr add 169.254.169.1/24 dev nf-meta; ip -n nf-metadata addr add {METADATA}/24 dev eth0
ip addr add 198.51.100.1/24 dev nf-net; ip -n nf-internet addr add {INTERNET}/24 dev eth0
sysctl -qw net.ipv6.conf.all.forwarding=1
ip addr add fd77::1/64 dev nf-lan nodad; ip -n nf-lan addr add {LAN6}/64 dev eth0 nodad
ip addr add 2001:db8:100::1/64 dev nf-net nodad; ip -n nf-internet addr add {INTERNET6}/64 dev eth0 nodad
ip addr add 2001:db8:6::1/64 dev docker-nf6 nodad; ip -n nf-job addr add 2001:db8:6::2/64 dev eth0 nodad
ip -n nf-job route add default via 2001:db8:6::1
ip link set nf-twin master docker0; ip -n nf-twin addr add 172.17.255.250/16 dev eth0
ip -n nf-twin route add default via 172.17.0.1
for name in nf-lan nf-internet; do ip -n $name route add default via "$(ip -n $name -6 -o addr show scope global |
  sed 's/.*inet6 //; s/2.64.*/1/')"; done
for end in {LAN6} {INTERNET6}; do  # until addresses are settled
  for turn in $(seq 50); do ip netns exec nf-job busybox ping6 -c1 -W1 $end >/dev/null && break; sleep 0.1; done
done
d=$(mktemp -d); mkdir -p "$d/bin"; cp /bin/busybox "$d/bin/"; ln -s busybox "$d/bin/ping"; ln -s busybox "$d/bin/sleep"
tar -C "$d" -c . | docker import - {IMAGE} >/dev/null; rm -r "$d"
docker run -d --name nf-job --restart=always --stop-signal=KILL {IMAGE} /bin/sleep 100000 >/dev/null
"""
TEAR_DOWN = f"""
docker rm -f nf-job; docker rmi {IMAGE}
for name in nf-lan nf-metadata nf-internet nf-job nf-twin; do ip netns del $name; done
systemctl disable -q --now matryoshka-firewall.service nftables.service
rm -f {INSTALLED} {DATA} {" ".join(FILES)}
systemctl daemon-reload
"""

# Floods while a shell line runs, and prints what arrived where: over IPv4 from nf-twin, which is on docker0
# like a job but outlives the engine, over IPv6 from nf-job.
GAUGE = f"""
import json, os, signal, socket, subprocess, sys, time
ends = {{"lan": ("nf-lan", "{LAN}"), "metadata": ("nf-metadata", "{METADATA}"), "internet": ("nf-internet", "{INTERNET}"),
        "lan6": ("nf-lan", "{LAN6}"), "internet6": ("nf-internet", "{INTERNET6}")}}
def child(namespace, work):
    out, into = os.pipe()
    pid = os.fork()
    if pid:
        os.close(into)
        return pid, out
    end = []
    signal.signal(signal.SIGTERM, lambda *_: end.append(1))
    os.setns(os.open(namespace, os.O_RDONLY), os.CLONE_NEWNET)
    os.write(into, str(work(end)).encode())
    os._exit(0)
def receiver(address):
    def work(end):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((address, 4000))
            s.settimeout(0.1)
            count = 0
            while not end:
                try:
                    s.recv(100)
                    count += 1
                except TimeoutError:
                    pass
            return count
    return work
def sender(family, addresses):
    def work(end):
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            count = 0
            while not end:
                for address in addresses:
                    try:
                        s.sendto(b"x", (address, 4000))
                        count += 1
                    except OSError:
                        pass
                time.sleep(0.001)
            return count
    return work
children = {{name: child("/run/netns/" + space, receiver(address)) for name, (space, address) in ends.items()}}
time.sleep(0.2)
four = [a for _, a in ends.values() if ":" not in a]
children["sent"] = child("/run/netns/nf-twin", sender(socket.AF_INET, four))
children["sent6"] = child("/run/netns/nf-job", sender(socket.AF_INET6, [a for _, a in ends.values() if ":" in a]))
time.sleep(0.3)
done = subprocess.run(["/bin/sh", "-ec", sys.argv[1]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
time.sleep(0.3)
for name in ("sent", "sent6", *ends):
    os.kill(children[name][0], signal.SIGTERM)
found = {{name: int(os.read(out, 20)) for name, (_, out) in children.items()}}
print(json.dumps({{"code": done.returncode, "output": done.stdout, **found}}))
"""

SETS: list[dict[str, Any]] = [
    {"name": "nftest-deny4", "entries": ["10.0.0.0/8", "192.168.0.0/16", "169.254.0.0/16"]},
    {"name": "nftest-deny6", "family": "inet6", "entries": ["fc00::/7"]},
    {"name": "nftest-allow4", "type": "hash:net,port", "entries": ["10.1.2.3,tcp:80-82"]},
]
CHAINS: list[dict[str, Any]] = [
    {
        "name": "NFTEST-FORWARD",
        "rules": [
            "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
            {"rule": "-m set --match-set nftest-allow4 dst,dst -j RETURN", "families": ["ipv4"]},
            {"rule": "-m set --match-set nftest-deny4 dst -j REJECT", "families": ["ipv4"]},
            {"rule": "-m set --match-set nftest-deny6 dst -j DROP", "families": ["ipv6"]},
        ],
    },
    # dockerd puts its own ACCEPT rules before all others while it starts, for about a tenth of a second.
    # What slips through then is dropped on its way out, in a table that engines leave alone.
    {"table": "mangle", "name": "NFTEST-MARK", "rules": ["-j MARK --or-mark 0x20000000"]},
    {
        "table": "mangle",
        "name": "NFTEST-GUARD",
        "rules": [
            "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
            {"rule": "-m set --match-set nftest-allow4 dst,dst -j RETURN", "families": ["ipv4"]},
            {"rule": "-m set --match-set nftest-deny4 dst -j DROP", "families": ["ipv4"]},
            {"rule": "-m set --match-set nftest-deny6 dst -j DROP", "families": ["ipv6"]},
        ],
    },
]
MARKED = "-m mark --mark 0x20000000/0x20000000"
HOOKS: list[dict[str, Any]] = [
    {"chain": "FORWARD", "jump": "NFTEST-FORWARD", "match": "-i docker+"},
    {"chain": "DOCKER-USER", "jump": "NFTEST-FORWARD", "match": "-i docker+", "create": True},
    {"table": "mangle", "chain": "FORWARD", "jump": "NFTEST-MARK", "match": "-i docker+"},
    {"table": "mangle", "chain": "POSTROUTING", "jump": "NFTEST-GUARD", "match": MARKED},
]


def asked(host: Any, check: bool = False, **more: Any) -> dict[str, Any]:
    args = {"owner": "nftest", "sets": SETS, "chains": CHAINS, "hooks": HOOKS, **more}
    return dict(host.module("netfilter_rules", args, check=check, diff=True))


def applied(host: Any, **more: Any) -> dict[str, Any]:
    found = asked(host, **more)
    assert not found.get("failed"), found["msg"]
    return found


def flood(host: Any, command: str) -> dict[str, Any]:
    """What arrived during ``command``, and how it ended."""
    found: dict[str, Any] = json.loads(host.run(["python3", "-c", GAUGE, command]).out)
    assert found["code"] == 0, found["output"]
    assert min(found["sent"], found["sent6"]) > 200, found
    return found


def assert_closed(found: Mapping[str, Any]) -> None:
    """Nothing came to the local network and the metadata service; what is allowed did."""
    assert (found["lan"], found["metadata"], found["lan6"]) == (0, 0, 0), found
    assert found["internet"] > 40 and found["internet6"] > 40, found


def reaches(host: Any, address: str) -> bool:
    return bool(host.run(f"docker exec nf-job /bin/ping -c1 -W1 {address}", check=False).ok)


def rules(host: Any, chain: str, program: str = "iptables") -> list[str]:
    return list(host.run(f"{program} -S {chain} 2>/dev/null | sed -n 's/^-A {chain} //p'").out.splitlines())


@pytest.fixture(scope="module")
def host(docker_host: Any) -> Iterator[Any]:
    docker_host.run(TEAR_DOWN, check=False)
    docker_host.run(BUILD)
    docker_host.write(INSTALLED, PROGRAM.read_text())
    for path, content in FILES.items():
        docker_host.write(path, content)
    docker_host.run("systemctl daemon-reload")
    yield docker_host
    docker_host.module("netfilter_rules", {"owner": "nftest", "state": "absent"})
    docker_host.run(TEAR_DOWN, check=False)
    docker_host.run("systemctl restart docker")


def test_all_is_open_before(host: Any) -> None:
    assert reaches(host, LAN) and reaches(host, METADATA) and reaches(host, INTERNET)
    found = flood(host, "true")
    arrived = {name: found[name] for name in ("lan", "metadata", "internet", "lan6", "internet6")}
    assert min(arrived.values()) > 40, arrived


def test_check_mode_says_what_would_change_and_changes_nothing(host: Any) -> None:
    before = host.run(STATE).out
    found = asked(host, check=True)
    assert found["changed"]
    assert {entry["state"] for entry in (*found["chains"], *found["hooks"], *found["sets"])} == {"created"}
    assert any("-A NFTEST-FORWARD -m set --match-set nftest-deny4 dst" in d["after"] for d in found["diff"])
    assert host.run(STATE).out == before


def test_the_local_network_and_the_metadata_service_are_closed(host: Any) -> None:
    found = applied(host)
    assert found["changed"] and found["backend"] == "nft" and found["families"] == ["ipv4", "ipv6"]
    assert not reaches(host, LAN) and not reaches(host, METADATA) and reaches(host, INTERNET)
    assert_closed(flood(host, "true"))
    assert host.run(f"stat -c %a {DATA}").out.strip() == "600"
    host.run("systemctl enable -q --now matryoshka-firewall.service")


def test_nothing_changes_again_however_it_is_spelled(host: Any) -> None:
    spelled = json.loads(json.dumps(CHAINS))
    spelled[0]["rules"][0] = "--match conntrack --ctstate ESTABLISHED,RELATED --jump RETURN"
    spelled[0]["rules"][2]["rule"] += " --reject-with icmp-port-unreachable"
    assert applied(host)["changed"] is False
    found = applied(host, chains=spelled, path=None, sets=[*reversed(SETS)])
    assert (found["changed"], found["diff"]) == (False, [])
    assert host.run(f"{APPLY.replace('apply', 'check')}").out == ""


def test_an_engine_s_restart_lets_nothing_through(host: Any) -> None:
    assert_closed(flood(host, "systemctl restart docker"))
    assert rules(host, "FORWARD")[0] == "-i docker+ -j NFTEST-FORWARD"
    assert host.run("journalctl -q -u docker -g 'I FORWARD 1' --since -60s").out != ""


def test_an_emptied_docker_user_lets_nothing_through(host: Any) -> None:
    assert_closed(flood(host, "iptables -F DOCKER-USER; ip6tables -F DOCKER-USER; sleep 0.5"))
    found = applied(host)
    states = [hook["state"] for hook in found["hooks"] if hook["table"] == "filter"]
    assert states == ["present", "created", "present", "created"]
    assert found["moved"] == []


def test_a_rule_before_ours_is_found_and_kept(host: Any) -> None:
    host.run("iptables -I FORWARD -j ACCEPT; iptables -A DOCKER-USER -s 203.0.113.9 -j DROP")
    assert_closed(flood(host, "true"))
    host.run("iptables -t mangle -I POSTROUTING -j ACCEPT")
    assert flood(host, "true")["lan"] > 40
    assert sorted(applied(host)["moved"]) == [
        "ipv4 filter FORWARD -> NFTEST-FORWARD",
        "ipv4 mangle POSTROUTING -> NFTEST-GUARD",
    ]
    assert_closed(flood(host, "true"))
    assert rules(host, "FORWARD")[:2] == ["-i docker+ -j NFTEST-FORWARD", "-j ACCEPT"]
    assert rules(host, "POSTROUTING", "iptables -t mangle")[1:] == ["-j ACCEPT"]
    assert rules(host, "DOCKER-USER")[-1] == "-s 203.0.113.9/32 -j DROP"
    host.run("iptables -D FORWARD -j ACCEPT; iptables -D DOCKER-USER -s 203.0.113.9 -j DROP")
    host.run("iptables -t mangle -D POSTROUTING -j ACCEPT")


def test_twenty_changes_let_nothing_through(host: Any) -> None:
    other = json.loads(host.read(DATA))
    other["sets"][0]["entries"] += [f"172.16.{number}.0/24" for number in range(200)]
    for chain in other["chains"]:
        chain["rules"].insert(0, {"rule": "-p sctp -j DROP"})
    host.write("/run/nf-other.json", json.dumps(other))
    other["sets"][2] |= {"type": "hash:net", "entries": ["10.1.2.3"]}
    for chain in (other["chains"][0], other["chains"][2]):
        chain["rules"][2]["rule"] = "-m set --match-set nftest-allow4 dst -j RETURN"
    host.write("/run/nf-type.json", json.dumps(other))
    turn = f"{APPLY} --path /run/nf-{{}}.json | grep -c . >/dev/null; {APPLY} | grep -c . >/dev/null"
    lines = f"for number in $(seq 9); do {turn.format('other')}; done; {turn.format('type')}"
    assert_closed(flood(host, lines))
    assert applied(host)["changed"] is False


def test_a_flushed_ruleset_comes_back_and_lets_nothing_through(host: Any) -> None:
    commands = "systemctl restart nftables; systemctl reload nftables; systemctl stop nftables"
    found = flood(host, f"sleep 0.2; {commands}")
    assert_closed(found)
    assert rules(host, "FORWARD") == ["-i docker+ -j NFTEST-FORWARD"]
    assert "shield" not in host.run("nft list ruleset").out
    assert asked(host, check=True)["changed"] is False
    host.run("systemctl restart docker")
    assert_closed(flood(host, "true"))


def test_rules_are_in_place_before_an_engine_starts_on_an_empty_host(host: Any) -> None:
    clear = "systemctl stop docker.socket docker matryoshka-firewall; nft flush ruleset; ipset destroy"
    host.run(f"{clear}; systemctl start docker")
    order = host.run("systemctl show -p ActiveEnterTimestampMonotonic --value matryoshka-firewall docker").out
    first, last = (int(stamp) for stamp in order.split())
    assert 0 < first < last
    assert_closed(flood(host, "true"))
    assert asked(host, check=True)["changed"] is False


def test_an_engine_without_its_rules_does_not_start(host: Any) -> None:
    host.run(f"cp {DATA} /run/nf-saved.json")
    broken = json.loads(host.read(DATA))
    broken["chains"][0]["rules"].append({"rule": "-m nosuch -j DROP"})
    host.write(DATA, json.dumps(broken), mode="0600")
    assert not host.run("systemctl restart docker", check=False).ok
    said = host.run("journalctl -q -u docker --since -60s -o cat").out
    assert "chains[0].rules[4]: '-m nosuch -j DROP' is refused: ipv4: Couldn't load match `nosuch'" in said
    host.run(f"cp /run/nf-saved.json {DATA}; systemctl restart docker")


def test_the_legacy_backend(host: Any) -> None:
    choose = "for p in iptables ip6tables; do update-alternatives --set $p /usr/sbin/$p-{}; done"
    host.run(f"{choose.format('legacy')}; {APPLY}; systemctl restart docker")
    try:
        found = applied(host)
        assert (found["backend"], found["both_loaded"], found["changed"]) == ("legacy", True, False)
        assert "Rules are loaded in both backends" in found["warnings"][0]
        assert "NFTEST" not in host.run("iptables-nft-save; ip6tables-nft-save").out
        assert rules(host, "FORWARD", "iptables-legacy")[0] == "-i docker+ -j NFTEST-FORWARD"
        host.run("nft flush ruleset")
        assert_closed(flood(host, "iptables -F DOCKER-USER; systemctl restart docker"))
        refused = asked(host, chains=[{"name": "NFTEST-A", "rules": ["-j DNAT --to 192.0.2.1"]}], hooks=[])
        assert "chains[0].rules[0]: '-j DNAT --to 192.0.2.1' is refused" in refused["msg"]
    finally:
        host.run("systemctl stop docker.socket docker")
        host.run(
            "for p in iptables ip6tables; do for t in filter nat mangle; do $p-legacy -t $t -F; $p-legacy -t $t -X; done; done"
        )
        host.run(
            f"{choose.format('nft')}; for p in iptables ip6tables; do update-alternatives --auto $p; done"
        )
        host.run("systemctl start docker")
    assert_closed(flood(host, "true"))


def broken_rule(rule: str) -> list[dict[str, Any]]:
    found = json.loads(json.dumps(CHAINS))
    found[0]["rules"].insert(1, rule)
    return list(found)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"chains": broken_rule("-m nosuch -j DROP")},
            "chains[0].rules[1]: '-m nosuch -j DROP' is refused; allowed: what the kernel and its programs"
            " take; they said: ipv4: Couldn't load match `nosuch':No such file or directory;"
            " nothing was changed",
        ),
        (
            {"chains": broken_rule("-j DNAT --to 192.0.2.1")},
            "chains[0].rules[1]: '-j DNAT --to 192.0.2.1' is",
        ),
        ({"chains": broken_rule("-d 192.0.2.1 -j DROP")}, "said: ipv6: host/network `192.0.2.1' not found"),
        ({"chains": broken_rule("-A INPUT -j ACCEPT")}, "they said: ipv4: Cannot use -A with -A"),
        (
            {"chains": broken_rule("-j NFTEST-FORWARD")},
            "is refused; allowed: what the kernel and its programs",
        ),
        (
            {"sets": [*SETS, {"name": "nftest-x", "entries": ["10.0.0.0/8", "10.0.0.0/33"]}]},
            "sets[3].entries[1]: '10.0.0.0/33' is refused; allowed: an IPv4 address or network, such as",
        ),
        (
            {"sets": [*SETS, {"name": "nftest-x", "type": "hash:ip,port", "entries": ["10.0.0.1,x:9"]}]},
            "sets[3].entries[0]: '10.0.0.1,x:9' is refused; allowed: what the kernel and its programs take;"
            " they said: Syntax error: cannot parse 'x' as a protocol; nothing was changed",
        ),
        (
            {"hooks": [*HOOKS, {"chain": "NO-SUCH", "jump": "NFTEST-FORWARD"}]},
            "hooks[4].chain: 'NO-SUCH' is refused; allowed: a chain that is in table filter of ipv4, or"
            " create: true; nothing was changed",
        ),
        (
            {"hooks": [*HOOKS, {"chain": "INPUT", "jump": "NFTEST-FORWARD", "match": "-o eth0"}]},
            "hooks[4]: '-o eth0 -j NFTEST-FORWARD' is refused",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_is_refused_changes_nothing(host: Any, more: dict[str, Any], message: str) -> None:
    before = host.run(STATE).out
    found = asked(host, **more)
    assert found.get("failed") and message in found["msg"], found
    assert host.run(STATE).out == before


def test_ipv6_on_a_host_that_has_it_disabled(host: Any) -> None:
    host.run("unshare --net sh -c 'test ! -s /proc/net/if_inet6'")
    switch = "sysctl -qw net.ipv6.conf.all.disable_ipv6={0} net.ipv6.conf.default.disable_ipv6={0}"
    host.run(f"{switch.format(1)}; sysctl -qw net.ipv6.conf.lo.disable_ipv6=1")
    try:
        before = host.run(STATE).out
        for more, message in (
            (
                {"ipv6": True},
                "ipv6: True is refused; allowed: auto or false, because this host has IPv6 disabled",
            ),
            (
                {"chains": [{**CHAINS[0], "families": ["ipv6"]}]},
                "chains[0].families: ['ipv6'] is refused; allowed: ipv4, because this host has IPv6 disabled",
            ),
        ):
            found = asked(host, **more)
            assert found.get("failed") and message in found["msg"], found
        assert host.run(STATE).out == before
        assert applied(host)["families"] == ["ipv4"]
    finally:
        host.run(f"{switch.format(0)}; sysctl -qw net.ipv6.conf.lo.disable_ipv6=0")


def test_what_is_no_longer_wanted_goes_and_nothing_else(host: Any) -> None:
    host.run(
        "iptables -N THEIRS; iptables -A THEIRS -j RETURN; iptables -I INPUT -j THEIRS; ipset create theirs hash:ip"
    )
    more = {
        "sets": [*SETS, {"name": "nftest-old", "entries": ["192.0.2.0/24"]}],
        "chains": [
            *CHAINS,
            {
                "name": "NFTEST-OLD",
                "rules": [{"rule": "-m set --match-set nftest-old src -j RETURN", "families": ["ipv4"]}],
            },
        ],
        "hooks": [*HOOKS, {"chain": "INPUT", "jump": "NFTEST-OLD"}],
    }
    applied(host, **more)
    host.run("iptables -A OUTPUT -j NFTEST-OLD")
    assert rules(host, "INPUT")[0] == "-j NFTEST-OLD"
    found = applied(host)
    assert found["removed"] == [
        "iptables-nft filter NFTEST-OLD",
        "ip6tables-nft filter NFTEST-OLD",
        "ipset nftest-old",
    ]
    assert (rules(host, "INPUT"), rules(host, "OUTPUT")) == (["-j THEIRS"], [])
    gone = applied(host, state="absent")
    assert gone["changed"] and not host.exists(DATA)
    left = host.run("iptables-save; ip6tables-save; ipset list -n").out
    assert "nftest" not in left.lower() and "THEIRS" in left and "theirs" in left
    assert applied(host, state="absent")["changed"] is False
    assert reaches(host, LAN)
    host.run("iptables -D INPUT -j THEIRS; iptables -F THEIRS; iptables -X THEIRS; ipset destroy theirs")
