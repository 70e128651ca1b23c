# SPDX-License-Identifier: GPL-3.0-or-later
"""The boot program: what it reads, and what it does to a kernel."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _netfilter_program as program
from hypothesis import given, settings
from hypothesis import strategies as st
from support.netfilter_double import CHAINS, Kernel

read_file = program.read
FIXTURES = Path(__file__).resolve().parents[3] / "unit" / "fixtures" / "netfilter"


def data(**more: Any) -> dict[str, Any]:
    return {"owner": "nf", "backend": "auto", "ipv6": "auto", "sets": [], "chains": [], "hooks": [], **more}


def a_set(name: str, *entries: str, kind: str = "hash:net") -> dict[str, Any]:
    return {"name": f"nf-{name}", "type": kind, "family": "inet", "entries": list(entries)}


def a_chain(name: str, *rules: str, table: str = "filter") -> dict[str, Any]:
    return {
        "table": table,
        "name": f"NF-{name}",
        "families": None,
        "rules": [{"rule": rule} for rule in rules],
    }


def a_hook(chain: str, jump: str, match: str = "", table: str = "filter") -> dict[str, Any]:
    hook = {"table": table, "chain": chain, "jump": f"NF-{jump}", "families": None, "match": match}
    position = "last" if jump == "C" else "first"
    return {**hook, "create": chain not in program.BUILT_IN, "position": position}


FIREWALL = data(
    sets=[a_set("deny", "10.0.0.0/8", "192.168.0.0/16")],
    chains=[a_chain("A", "-p tcp -j RETURN", "-m set --match-set nf-deny dst -j DROP")],
    hooks=[a_hook("FORWARD", "A", "-i docker0"), a_hook("DOCKER-USER", "A", "-i docker0")],
)


def settle(kernel: Kernel, wanted: dict[str, Any]) -> program.Plan:
    plan = program.make_plan(wanted, kernel, kernel.read, ["inner"])
    program.carry_out(wanted, plan, kernel, kernel.read)
    return plan


def four(kernel: Kernel, chain: str, table: str = "filter") -> list[str]:
    return kernel.tables["nft", "ipv4"][table][chain]


@pytest.mark.parametrize(
    ("name", "tables", "chain", "first"),
    [
        ("docker-26.1-nft.save", ["filter", "nat"], "FORWARD", "-j DOCKER-USER"),
        ("docker-26.1-legacy.save", ["nat", "filter"], "FORWARD", "-j DOCKER-USER"),
        ("docker-26.1-ufw-0.36-nft.save", ["filter", "nat"], "INPUT", "-j ufw-before-logging-input"),
        (
            "docker-26.1-firewalld-2.3-iptables.save",
            ["filter", "nat"],
            "FORWARD",
            "-m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
        ),
    ],
)
def test_recorded_tables(name: str, tables: list[str], chain: str, first: str) -> None:
    text = (FIXTURES / name).read_text()
    found = program.parse_save(text)
    assert set(tables) <= set(found)
    assert found["filter"][chain][0] == first
    rules = sum(len(rules) for chains in found.values() for rules in chains.values())
    assert rules == sum(line.startswith("-A ") for line in text.splitlines())
    assert {name for chains in found.values() for name in chains} == {
        line[1:].split()[0] for line in text.splitlines() if line.startswith(":")
    }


def test_recorded_sets() -> None:
    found = program.parse_sets((FIXTURES / "ipset-7.22.save").read_text())
    assert found["nftest-deny6"] == program.Set("hash:net", "inet6", 65536, frozenset({"fc00::/7"}))
    ports = {f"10.1.2.3,tcp:{port}" for port in (80, 81, 82)}
    assert found["nftest-allow4"] == program.Set("hash:net,port", "inet", 65536, frozenset(ports))
    assert "192.168.1.0/24 nomatch" in found["nftest-deny4"].entries


@pytest.mark.parametrize(
    ("rule", "target"),
    [
        ("-i docker0 -j NF-A", "NF-A"),
        ("-g NF-A", "NF-A"),
        ('-m comment --comment "x -j NF-A" -j DROP', "DROP"),
        ('-m comment --comment "it\'s \\"-j NF-A\\"" -j ACCEPT', "ACCEPT"),
        ('-m comment --comment broken" -j DROP', "DROP"),
        ("-p tcp", None),
    ],
)
def test_where_a_rule_leads(rule: str, target: str | None) -> None:
    assert program.jump_of(rule) == target
    assert program.is_hook("nf", rule) == (target == "NF-A")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "iptables-nft-restore v1.8.11 (nf_tables): Couldn't load match `nosuch':No such file or directory\n\n"
            "Error occurred at line: 4\nTry `iptables-nft-restore -h' or 'iptables-nft-restore --help' for more"
            " information.\n",
            "Couldn't load match `nosuch':No such file or directory",
        ),
        (
            "iptables-nft-restore v1.8.11 (nf_tables): \nline 5: RULE_APPEND failed (Invalid argument): rule in"
            " chain NF-A\n",
            "RULE_APPEND failed (Invalid argument): rule in chain NF-A",
        ),
        ("iptables-restore: line 5 failed\n", "the kernel doesn't take it here"),
        ("", "no reason"),
    ],
)
def test_complaints_are_one_line(said: str, shown: str) -> None:
    assert program.complaint(said) == shown


@pytest.mark.parametrize(
    ("addresses", "switches", "state"),
    [(None, "0", "none"), ("", "1", "off"), ("", "0", "on"), ("::1 01 80 10 80 lo\n", "1", "on")],
)
def test_ipv6(addresses: str | None, switches: str, state: str) -> None:
    files = {f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6": f"{switches}\n" for name in ("all", "default")}
    if addresses is not None:
        files["/proc/net/if_inet6"] = addresses
    assert program.ipv6_state(files.get) == state


def test_one_step_for_each_family_with_hooks_in_it() -> None:
    kernel = Kernel()
    plan = settle(kernel, FIREWALL)
    assert [argv for argv, _text in plan.steps] == [
        ["ipset", "restore"],
        ["iptables-nft-restore", "--noflush", "--wait"],
        ["ip6tables-nft-restore", "--noflush", "--wait"],
    ]
    assert plan.steps[1][1].splitlines() == [
        "*filter",
        ":NF-A - [0:0]",
        ":DOCKER-USER - [0:0]",
        "-A NF-A -p tcp -j RETURN",
        "-A NF-A -m set --match-set nf-deny dst -j DROP",
        "-I FORWARD 1 -i docker0 -j NF-A",
        "-I DOCKER-USER 1 -i docker0 -j NF-A",
        "COMMIT",
    ]
    assert program.make_plan(FIREWALL, kernel, kernel.read, []).steps == []


def test_only_what_differs_is_replaced() -> None:
    kernel = Kernel()
    wanted = data(chains=[a_chain("A", "-j DROP"), a_chain("B", "-j DROP")], hooks=[a_hook("FORWARD", "A")])
    settle(kernel, wanted)
    four(kernel, "NF-B").append("-j ACCEPT")
    four(kernel, "FORWARD").insert(0, "-j ACCEPT")
    plan = settle(kernel, wanted)
    assert [text.splitlines()[1:-1] for _argv, text in plan.steps] == [
        [":NF-B - [0:0]", "-D FORWARD -j NF-A", "-A NF-B -j DROP", "-I FORWARD 1 -j NF-A"]
    ]
    assert four(kernel, "FORWARD") == ["-j NF-A", "-j ACCEPT"]


def test_stale_jumps_chains_and_sets_go_in_both_backends() -> None:
    kernel = Kernel("legacy")
    settle(kernel, FIREWALL)
    kernel.tables["legacy", "ipv4"]["filter"]["OUTPUT"] = ["-g NF-A", "-j ACCEPT"]
    kernel.backend = "nft"
    plan = settle(kernel, data(chains=[a_chain("B", "-j DROP")], hooks=[a_hook("INPUT", "B")]))
    assert plan.live.both_loaded
    assert kernel.tables["legacy", "ipv4"]["filter"]["OUTPUT"] == ["-j ACCEPT"]
    assert not [c for t in kernel.tables["legacy", "ipv4"].values() for c in t if c.startswith("NF-")]
    assert kernel.sets == {}
    assert four(kernel, "INPUT") == ["-j NF-B"]


@pytest.mark.parametrize(
    ("rules", "loaded"),
    [([], False), (["-j NF-X"], False), (["-j ACCEPT"], True)],
    ids=["none", "own", "other"],
)
def test_both_backends_loaded(rules: list[str], loaded: bool) -> None:
    kernel = Kernel()
    kernel.tables["legacy", "ipv4"]["filter"] = {"FORWARD": list(rules), "NF-X": []}
    assert program.look("nf", "nft", program.FAMILIES, kernel, kernel.read).both_loaded is loaded
    kernel.files["/proc/net/ip_tables_names"] = ""
    assert not program.look("nf", "nft", program.FAMILIES, kernel, kernel.read).both_loaded


def test_a_set_is_swapped_and_one_of_another_type_has_a_stand_in() -> None:
    kernel = Kernel()
    settle(kernel, FIREWALL)
    more = {**FIREWALL, "sets": [a_set("deny", "10.0.0.0/8")]}
    assert settle(kernel, more).steps == [
        (
            ["ipset", "restore"],
            "create nf-~0 hash:net family inet maxelem 65536\nadd nf-~0 10.0.0.0/8\n"
            "swap nf-~0 nf-deny\ndestroy nf-~0\n",
        )
    ]
    kernel.sets["nf-~0"] = (["hash:net"], set())
    other = {**FIREWALL, "sets": [a_set("deny", "10.0.0.1", kind="hash:ip")]}
    plan = settle(kernel, other)
    assert [argv[0].split("-")[0] for argv, _text in plan.steps] == [
        *("ipset", "iptables", "ip6tables", "ipset", "iptables", "ip6tables", "ipset")
    ]
    assert "--match-set nf-~1 dst" in plan.steps[1][1]
    assert plan.steps[-1][1] == "destroy nf-~1\ndestroy nf-~0\n"
    assert kernel.sets == {"nf-deny": (["hash:ip", "family", "inet", "maxelem", "65536"], {"10.0.0.1"})}
    assert four(kernel, "NF-A")[1] == "-m set --match-set nf-deny dst -j DROP"


def test_no_families_beyond_the_host_s() -> None:
    kernel = Kernel(absent=("ip6tables-nft-save", "ip6tables-nft-restore"))
    del kernel.files["/proc/net/if_inet6"]
    wanted = {**FIREWALL, "sets": [*FIREWALL["sets"], {**a_set("six", "fc00::/7"), "family": "inet6"}]}
    plan = settle(kernel, wanted)
    assert plan.families == ("ipv4",)
    assert list(kernel.sets) == ["nf-deny"]


def test_rules_for_ipv6_go_when_it_is_turned_off() -> None:
    kernel = Kernel()
    settle(kernel, FIREWALL)
    settle(kernel, {**FIREWALL, "ipv6": "false"})
    assert kernel.tables["nft", "ipv6"]["filter"] == {
        "INPUT": [],
        "FORWARD": [],
        "OUTPUT": [],
        "DOCKER-USER": [],
    }


def test_a_hook_in_a_chain_that_is_not_there_is_left_out() -> None:
    kernel = Kernel()
    hooks = [{**a_hook("ufw-user-forward", "A"), "create": False}, a_hook("FORWARD", "A")]
    plan = settle(kernel, {**FIREWALL, "hooks": hooks})
    assert plan.missing == [(family, "filter", "ufw-user-forward") for family in program.FAMILIES]
    assert "ufw-user-forward" not in kernel.tables["nft", "ipv4"]["filter"]
    assert four(kernel, "FORWARD") == ["-j NF-A"]


def test_what_others_do_meanwhile_is_planned_anew() -> None:
    kernel = Kernel()
    settle(kernel, FIREWALL)
    four(kernel, "FORWARD").insert(0, "-j ACCEPT")
    plan = program.make_plan(FIREWALL, kernel, kernel.read, [])
    four(kernel, "FORWARD").remove("-i docker0 -j NF-A")
    program.carry_out(FIREWALL, plan, kernel, kernel.read)
    assert four(kernel, "FORWARD") == ["-i docker0 -j NF-A", "-j ACCEPT"]


def test_what_can_not_be_done_is_said() -> None:
    kernel = Kernel()
    kernel.sets["nf-old"] = (["hash:net", "family", "inet"], set())
    kernel.tables["nft", "ipv4"]["filter"] = {"INPUT": ["-m set --match-set nf-old src -j DROP"]}
    plan = program.make_plan(FIREWALL, kernel, kernel.read, [])
    with pytest.raises(program.Failed, match=r"ipset restore ended with 1: .*nf-old is in use by a kernel"):
        program.carry_out(FIREWALL, plan, kernel, kernel.read)


RULES = st.sampled_from(
    ["-p tcp -j DROP", "-p udp -j RETURN", "-j ACCEPT", "-m set --match-set nf-s dst -j DROP"]
)
OWN = st.sampled_from(["A", "B", "C"])
TABLE = st.sampled_from(["filter", "mangle"])


@st.composite
def firewalls(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.tuples(TABLE, OWN), unique=True, min_size=1, max_size=4))
    chains = [a_chain(name, *draw(st.lists(RULES, max_size=4)), table=table) for table, name in names]
    hooked = draw(st.lists(st.sampled_from(names), max_size=4))
    hooks = [
        a_hook(
            draw(st.sampled_from(["INPUT", "FORWARD", "OUTPUT", "DOCKER-USER"])),
            name,
            draw(st.sampled_from(["", "-i docker0"])),
            table,
        )
        for table, name in hooked
    ]
    kind = draw(st.sampled_from(["hash:net", "hash:ip"]))
    entries = draw(st.sets(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"])))
    return data(sets=[a_set("s", *sorted(entries), kind=kind)], chains=chains, hooks=hooks)


@settings(max_examples=60)
@given(firewalls(), firewalls(), st.integers())
def test_any_state_becomes_what_is_wanted(before: dict[str, Any], after: dict[str, Any], seed: int) -> None:
    chance = random.Random(seed)
    kernel = Kernel(chance.choice(program.BACKENDS))
    settle(kernel, before)
    kernel.backend = chance.choice(program.BACKENDS)
    theirs: dict[tuple[Any, str, str], list[str]] = {}
    for key, tables in kernel.tables.items():
        for table, chains in tables.items():
            for chain, rules in chains.items():
                for number in range(chance.randint(0, 3)):
                    rules.insert(chance.randint(0, len(rules)), f"-m mark --mark {number} -j DROP")
                if not chain.startswith("NF-"):
                    chance.shuffle(rules)
                    theirs[key, table, chain] = [rule for rule in rules if "-j NF-" not in rule]
    settle(kernel, after)
    assert program.make_plan(after, kernel, kernel.read, []).steps == []
    assert list(kernel.sets) == ["nf-s"] and kernel.sets["nf-s"][1] == set(after["sets"][0]["entries"])
    for (key, table, chain), rules in theirs.items():
        found = kernel.tables[key][table][chain]
        assert [rule for rule in found if "-j NF-" not in rule] == rules
    for (backend, _family), tables in kernel.tables.items():
        own = {(t, c): r for t, chains in tables.items() for c, r in chains.items() if c.startswith("NF-")}
        wanted = {(c["table"], c["name"]): [r["rule"] for r in c["rules"]] for c in after["chains"]}
        assert own == (wanted if backend == kernel.backend else {})
        for hook in after["hooks"]:
            if backend == kernel.backend:
                same = [
                    h for h in after["hooks"] if (h["table"], h["chain"]) == (hook["table"], hook["chain"])
                ]
                found = tables[hook["table"]][hook["chain"]]
                for place in ("first", "last"):
                    jumps = [f"{h['match']} -j {h['jump']}".strip() for h in same if h["position"] == place]
                    at = found[: len(jumps)] if place == "first" else found[len(found) - len(jumps) :]
                    assert at == jumps
    settle(kernel, program.emptied(after))
    assert "NF-" not in json.dumps([list(tables.items()) for tables in kernel.tables.values()])
    assert kernel.sets == {}


@pytest.mark.parametrize("arguments", [[], ["status"], ["apply", "--path"], ["apply", "--file", "x"]])
def test_the_program_says_how_it_is_used(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(arguments) == 2
    assert capsys.readouterr().err == "usage: apply|check|remove [--path FILE]\n"


def test_the_program_wants_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "firewall.json"
    assert program.main(["check", "--path", str(path)]) == 2
    path.write_text("{")
    assert program.main(["check", "--path", str(path)]) == 2
    assert capsys.readouterr().err == f"{path}: no JSON is there\n" * 2


def test_the_program_stands_alone() -> None:
    source = Path(program.__file__).read_text()
    imported = {line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert not {name for name in imported if name.startswith("ansible")}
    assert CHAINS["mangle"] == program.BUILT_IN


class Memory:
    """A kernel whose answers are remembered in a file, and how often its own spelling was asked for."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "cache" / "firewall.json"
        self.kernel = Kernel()
        self.asked = 0

    def __call__(self, argv: Sequence[str], **options: Any) -> Any:
        self.asked += argv[0] == "unshare"
        return self.kernel(argv, **options)

    def settled(self, wanted: dict[str, Any] = FIREWALL) -> int:
        """Make what is wanted true; how often the kernel's spelling was asked for meanwhile."""
        before = self.asked
        plan = program.make_plan(wanted, self, self.kernel.read, [], str(self.path))
        program.carry_out(wanted, plan, self, self.kernel.read)
        assert program.make_plan(wanted, self.kernel, self.kernel.read, []).steps == []
        return self.asked - before


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path)


def test_what_is_wanted_is_asked_for_once(memory: Memory) -> None:
    assert memory.settled() == 1
    memory.kernel.tables["nft", "ipv4"].clear()
    assert memory.settled() == 0
    assert four(memory.kernel, "FORWARD") == ["-i docker0 -j NF-A"]
    assert [path.name for path in memory.path.parent.iterdir()] == ["firewall.json"]
    assert memory.path.stat().st_mode & 0o777 == 0o600


def test_other_data_programs_or_kernels_are_asked_anew(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "SEARCH_PATH", str(tmp_path))
    assert memory.settled() == 1
    assert memory.settled({**FIREWALL, "hooks": FIREWALL["hooks"][:1]}) == 1
    assert memory.settled() == 1
    (tmp_path / "ipset").touch(0o755)
    assert memory.settled() == 1
    assert memory.settled() == 0
    os.utime(tmp_path / "ipset", (1, 1))
    assert memory.settled() == 1
    monkeypatch.setattr("os.uname", lambda: os.uname_result(["Linux", "ci", "7.0", "", "x86_64"]))
    assert memory.settled() == 1


@pytest.mark.parametrize("text", ["", '{"of": "', "[]", '{"of": "x", "answer": {}}', '{"answer": []}'])
def test_what_a_power_cut_left_is_not_believed(memory: Memory, text: str) -> None:
    memory.settled()
    memory.path.write_text(text)
    assert memory.settled() == 1
    assert memory.settled() == 0


def test_where_nothing_can_be_kept_it_is_asked_for_each_time(memory: Memory) -> None:
    memory.path.parent.write_text("in the way")
    assert (memory.settled(), memory.settled()) == (1, 1)


def run_program(
    command: str, memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
) -> int:
    file = tmp_path / "firewall.json"
    file.write_text(json.dumps(wanted))
    monkeypatch.setattr(program, "MEMORY", str(memory.path))
    monkeypatch.setattr(program, "run", memory)
    monkeypatch.setattr(program, "locked", lambda _owner: contextlib.nullcontext())
    monkeypatch.setattr(program, "read", lambda path: memory.kernel.read(path) or read_file(path))
    return program.main([command, "--path", str(file)])


def test_what_is_remembered_wrongly_costs_nothing_but_time(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the programs spelled their rules in another way now, and nothing else had changed."""
    assert run_program("apply", memory, tmp_path, monkeypatch, FIREWALL) == 0
    memory.path.write_text(memory.path.read_text().replace("-p tcp -j RETURN", "-p  tcp -j RETURN"))
    assert run_program("apply", memory, tmp_path, monkeypatch, FIREWALL) == 0
    assert run_program("apply", memory, tmp_path, monkeypatch, FIREWALL) == 0
    assert memory.asked == 2
    assert program.make_plan(FIREWALL, memory.kernel, memory.kernel.read, []).steps == []


def test_a_look_keeps_nothing_and_believes_nothing(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_program("check", memory, tmp_path, monkeypatch, FIREWALL) == 1
    assert not memory.path.exists()
    assert run_program("apply", memory, tmp_path, monkeypatch, FIREWALL) == 0
    assert run_program("check", memory, tmp_path, monkeypatch, FIREWALL) == 0
    assert memory.asked == 3
