# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets a second through the firewall rules, by the number of entries that a site allows.

Runs on a host, as root, with the standard library and ctypes only. Three network namespaces: one
sends UDP as fast as it can, one forwards and has the rules, one counts what arrives. The forwarding
is done in the sender's own system call, so that the rate shows the whole cost of a packet. Its flow
never gets an answer, so every packet goes through all rules. All cases alternate several times.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import run

PROGRAM = "/usr/local/lib/matryoshka/firewall.py"
NAMES = {"sender": "bench-sender", "router": "bench-router", "receiver": "bench-receiver"}
TARGET = "198.51.100.2"
PORT = 4000
BATCH = 64
OWNER = "bench"


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]


class Header(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vector", ctypes.POINTER(Vector)),
        ("vectors", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class Message(ctypes.Structure):
    _fields_ = [("header", Header), ("length", ctypes.c_uint)]


def inside(namespace: str, work: Callable[[], float]) -> float:
    """The number that ``work`` returns in a network namespace."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            if libc.setns(handle, 0x40000000) != 0:
                raise OSError(ctypes.get_errno(), f"setns {namespace}")
            os.write(into, repr(work()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(into)
    with os.fdopen(out) as answer:
        text = answer.read()
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit(f"the part in {namespace} failed")
    return float(text)


def flood(seconds: float) -> float:
    """Send for that long; how many seconds it really was."""
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.connect((TARGET, PORT))
        vector = Vector(b"x" * 64, 64)
        header = Header(None, 0, ctypes.pointer(vector), 1, None, 0, 0)
        messages = (Message * BATCH)(*(Message(header, 0) for _ in range(BATCH)))
        number = sending.fileno()
        begin = now = time.perf_counter()
        while now - begin < seconds:
            for _ in range(32):
                if libc.sendmmsg(number, messages, BATCH, 0) < 0:
                    raise OSError(ctypes.get_errno(), "sendmmsg")
            now = time.perf_counter()
        return now - begin


def received() -> float:
    """Packets that came to this namespace."""
    for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        name, colon, rest = line.partition(":")
        if colon and name.strip() == "eth0":
            return float(rest.split()[1])
    raise SystemExit("no eth0")


def best_rate(seconds: float, bursts: int) -> float:
    """The best of several bursts: what else the machine does can only make one worse."""
    return max(rate(seconds) for _ in range(bursts))


def rate(seconds: float) -> float:
    before = inside(NAMES["receiver"], received)
    took = inside(NAMES["sender"], lambda: flood(seconds))
    return (inside(NAMES["receiver"], received) - before) / took


def build() -> None:
    for name in NAMES.values():
        run(["ip", "netns", "add", name])
        run(["ip", "-n", name, "link", "set", "lo", "up"])
    router = NAMES["router"]
    for side, kind, net in (("job0", "sender", "192.0.2"), ("out0", "receiver", "198.51.100")):
        end = NAMES[kind]
        run(["ip", "-n", router, "link", "add", side, "type", "veth", "peer", "name", "eth0", "netns", end])
        run(["ip", "-n", router, "addr", "add", f"{net}.1/24", "dev", side])
        run(["ip", "-n", end, "addr", "add", f"{net}.2/24", "dev", "eth0"])
        for namespace, device in ((router, side), (end, "eth0")):
            run(["ip", "-n", namespace, "link", "set", device, "up"])
        run(["ip", "-n", end, "route", "add", "default", "via", f"{net}.1"])
    run(["ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1"])


def take_down() -> None:
    for name in NAMES.values():
        if os.path.exists(f"/run/netns/{name}"):
            run(["ip", "netns", "del", name])


def allowed(count: int) -> list[str]:
    """That many networks, none of which has the target."""
    return [f"10.{number // 250}.{number % 250}.0/24" for number in range(count)]


def firewall(entries: Sequence[str], with_set: bool) -> dict[str, Any]:
    """Rules like those of role network, with what is allowed in a set, or as one rule for each."""
    allow = ["-m set --match-set bench-allow dst -j RETURN"]
    if not with_set:
        allow = [f"-d {entry} -j RETURN" for entry in entries]
    rules = [
        "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        *allow,
        "-m set --match-set bench-closed dst -j REJECT",
    ]
    sets = {"bench-allow": entries if with_set else [], "bench-closed": ["10.0.0.0/8", "192.168.0.0/16"]}
    return {
        "owner": OWNER,
        "backend": "auto",
        "ipv6": "false",
        "sets": [
            {"name": name, "type": "hash:net", "family": "inet", "entries": list(inner)}
            for name, inner in sets.items()
        ],
        "chains": [
            {
                "table": "filter",
                "name": "BENCH-JOB",
                "families": None,
                "rules": [{"rule": rule} for rule in rules],
            }
        ],
        "hooks": [
            {"table": "filter", "chain": "FORWARD", "jump": "BENCH-JOB", "families": None, "match": "-i job0"}
        ],
    }


def apply(program: str, data: dict[str, Any]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="ascii") as file:
        json.dump(data, file)
        file.flush()
        python = ["/usr/bin/python3", "-I", program, "apply", "--path", file.name]
        run(["ip", "netns", "exec", NAMES["router"], *python])


def main() -> None:
    asked: dict[str, Any] = json.loads(sys.argv[1])
    program, seconds = asked.get("program", PROGRAM), asked.get("seconds", 0.2)
    bursts = asked.get("bursts", 5)
    few, many = asked.get("entries", [10, 1000])
    cases: dict[str, dict[str, Any]] = {
        "few": firewall(allowed(few), True),
        "many": firewall(allowed(many), True),
        "many_rules": firewall(allowed(many), False),
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    take_down()
    try:
        build()
        for number in range(asked.get("repetitions", 7) + 1):
            for name, data in cases.items():
                apply(program, data)
                measured = best_rate(seconds, bursts)
                if number:  # the first warms up
                    found[name].append(round(measured))
    finally:
        take_down()
    middle = {name: statistics.median(rates) for name, rates in found.items()}
    pairs = [many / few for few, many in zip(found["few"], found["many"], strict=True)]
    print(
        json.dumps(
            {
                "entries": [few, many],
                "packets_per_second": found,
                "median": middle,
                "many_to_few": round(statistics.median(pairs), 3),
                "rules_to_few": round(middle["many_rules"] / middle["few"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
