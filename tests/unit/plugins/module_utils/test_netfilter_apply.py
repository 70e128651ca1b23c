# SPDX-License-Identifier: GPL-3.0-or-later
"""netfilter_rules as a whole, on a double of the kernel."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _netfilter_apply as apply
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from support.netfilter_double import Kernel
from test_netfilter import params

FIREWALL: dict[str, Any] = {
    "sets": [{"name": "matryoshka-deny4", "entries": ["10.0.0.0/8", "192.168.0.0/16"]}],
    "chains": [
        {
            "name": "MATRYOSHKA-A",
            "rules": [
                "-p tcp -j RETURN",
                {"rule": "-m set --match-set matryoshka-deny4 dst -j DROP", "families": ["ipv4"]},
            ],
        }
    ],
    "hooks": [
        {"chain": "FORWARD", "jump": "MATRYOSHKA-A", "match": "-i docker0"},
        {"chain": "DOCKER-USER", "jump": "MATRYOSHKA-A", "match": "-i docker0", "create": True},
    ],
}


class Host:
    """A kernel with a file system."""

    def __init__(self, root: Path, **more: Any) -> None:
        self.root = root
        self.kernel = Kernel(**more)
        self.path = root / "etc" / "matryoshka" / "firewall.json"

    def ask(self, check: bool = False, **more: Any) -> dict[str, Any]:
        for path, text in self.kernel.files.items():
            place = self.root / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        wanted = params(**{**FIREWALL, "path": str(self.path), **more})
        return apply.answer(wanted, check, self.kernel, View(str(self.root)), str(self.root))

    def state(self) -> Any:
        file = self.path.read_text() if self.path.exists() else None
        return copy.deepcopy((self.kernel.tables, self.kernel.sets, file))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_fresh_host_then_nothing_to_do(host: Host) -> None:
    before = host.state()
    told = host.ask(check=True)
    assert host.state() == before and host.kernel.changes == []
    done = host.ask()
    assert done == told
    assert (done["changed"], done["backend"], done["families"]) == (True, "nft", ["ipv4", "ipv6"])
    assert done["chains"] == [
        {"family": family, "table": "filter", "name": "MATRYOSHKA-A", "rules": rules, "state": "created"}
        for family, rules in (("ipv4", 2), ("ipv6", 1))
    ]
    assert {(hook["chain"], hook["state"]) for hook in done["hooks"]} == {
        ("FORWARD", "created"),
        ("DOCKER-USER", "created"),
    }
    assert done["sets"] == [
        {"name": "matryoshka-deny4", "entries": 2, "added": 2, "removed": 0, "state": "created"}
    ]
    assert [argv[0] for argv, _text in host.kernel.changes if "restore" in argv[0]] == [
        "iptables-nft-restore",
        "ip6tables-nft-restore",
    ]
    assert host.path.stat().st_mode & 0o777 == 0o600
    host.kernel.changes.clear()
    again = host.ask()
    assert (again["changed"], again["diff"], again["moved"], again["removed"]) == (False, [], [], [])
    assert {entry["state"] for entry in (*again["chains"], *again["hooks"], *again["sets"])} == {"present"}
    assert host.kernel.changes == []


def test_the_difference_is_shown_as_it_is_saved(host: Host) -> None:
    host.kernel.tables["nft", "ipv4"]["filter"] = {"FORWARD": ["-j ACCEPT"], "OTHER": ["-j DROP"]}
    diff = host.ask(check=True)["diff"]
    assert [(entry["before_header"], entry["after_header"]) for entry in diff] == [
        ("iptables-nft-save", "iptables-nft-save"),
        ("ip6tables-nft-save", "ip6tables-nft-save"),
        ("ipset matryoshka-deny4 (absent)", "ipset matryoshka-deny4"),
    ]
    assert diff[0]["before"] == "*filter\n:FORWARD\n-A FORWARD -j ACCEPT\n"
    assert diff[0]["after"] == (
        "*filter\n:FORWARD\n:MATRYOSHKA-A\n:DOCKER-USER\n"
        "-A FORWARD -i docker0 -j MATRYOSHKA-A\n-A FORWARD -j ACCEPT\n"
        "-A MATRYOSHKA-A -p tcp -j RETURN\n"
        "-A MATRYOSHKA-A -m set --match-set matryoshka-deny4 dst -j DROP\n"
        "-A DOCKER-USER -i docker0 -j MATRYOSHKA-A\n"
    )
    assert diff[2]["after"] == (
        "create matryoshka-deny4 hash:net family inet\n"
        "add matryoshka-deny4 10.0.0.0/8\nadd matryoshka-deny4 192.168.0.0/16\n"
    )


def test_a_hook_that_is_not_first_is_moved(host: Host) -> None:
    host.ask()
    forward = host.kernel.tables["nft", "ipv4"]["filter"]["FORWARD"]
    forward.insert(0, "-j DOCKER-USER")
    forward.append("-i docker0 -j MATRYOSHKA-A")
    done = host.ask()
    assert done["moved"] == ["ipv4 filter FORWARD -> MATRYOSHKA-A"]
    assert host.kernel.tables["nft", "ipv4"]["filter"]["FORWARD"] == [
        "-i docker0 -j MATRYOSHKA-A",
        "-j DOCKER-USER",
    ]


def test_what_is_not_wanted_any_more_is_told(host: Host) -> None:
    chains = [*FIREWALL["chains"], {"name": "MATRYOSHKA-OLD", "rules": ["-j DROP"]}]
    hooks = [*FIREWALL["hooks"], {"chain": "INPUT", "jump": "MATRYOSHKA-OLD"}]
    host.ask(chains=chains, hooks=hooks, sets=[*FIREWALL["sets"], {"name": "matryoshka-old"}])
    done = host.ask()
    assert done["removed"] == [
        "iptables-nft filter MATRYOSHKA-OLD",
        "ip6tables-nft filter MATRYOSHKA-OLD",
        "ipset matryoshka-old",
    ]
    assert [hook["chain"] for hook in done["hooks"] if hook["state"] == "removed"] == ["INPUT", "INPUT"]


def test_removal_takes_all_of_it_and_the_file(host: Host) -> None:
    host.kernel.tables["nft", "ipv4"]["filter"] = {"INPUT": ["-j DROP"]}
    host.ask()
    assert host.ask(check=True, state="absent")["changed"] and host.path.exists()
    gone = host.ask(state="absent")
    assert gone["changed"] and not host.path.exists()
    assert host.kernel.sets == {}
    assert "MATRYOSHKA" not in json.dumps([list(tables.items()) for tables in host.kernel.tables.values()])
    assert host.kernel.tables["nft", "ipv4"]["filter"]["INPUT"] == ["-j DROP"]
    assert host.ask(state="absent")["changed"] is False


def test_the_file_alone_differs(host: Host) -> None:
    host.ask()
    host.path.chmod(0o644)
    assert host.ask(check=True)["changed"] and host.path.stat().st_mode & 0o777 == 0o644
    assert host.ask()["changed"] and host.path.stat().st_mode & 0o777 == 0o600
    sets = [{**FIREWALL["sets"][0], "comment": "closed"}]
    done = host.ask(sets=sets)
    assert done["changed"] and [entry["after_header"] for entry in done["diff"]] == [str(host.path)]
    assert json.loads(host.path.read_text())["sets"][0]["comment"] == "closed"


@pytest.mark.parametrize("path", [None, ""])
def test_no_file_is_written_if_none_is_wanted(host: Host, path: str | None) -> None:
    assert host.ask(path=path)["changed"] and not host.path.exists()
    assert host.ask(path=path)["changed"] is False


@pytest.mark.parametrize(
    "absent", ["iptables", "iptables-nft-restore", "ip6tables-nft-save", "ipset", "unshare"]
)
def test_check_mode_before_the_programs_are_installed(tmp_path: Path, absent: str) -> None:
    host = Host(tmp_path, absent=[absent])
    told = host.ask(check=True)
    assert told["changed"] and told["warnings"] == [
        f"{absent} is needed and isn't installed; all rules would be new"
    ]
    with pytest.raises(HostError, match=f"^{absent} is needed and isn't installed$"):
        host.ask()
    assert host.kernel.changes == [] and not host.path.exists()


def test_removal_where_nothing_was_ever_installed(tmp_path: Path) -> None:
    assert Host(tmp_path, absent=["iptables", "ipset"]).ask(state="absent")["changed"] is False


def test_both_backends_are_loaded(host: Host) -> None:
    host.kernel.tables["legacy", "ipv4"]["filter"] = {"FORWARD": ["-j DROP"]}
    done = host.ask()
    assert done["both_loaded"] is True
    assert done["warnings"] == [
        "Rules are loaded in both backends of iptables: these go to nft, but legacy has rules too, and a"
        " packet has to pass both. iptables-legacy-save shows them."
    ]


def broken(**more: Any) -> dict[str, Any]:
    found = copy.deepcopy(FIREWALL)
    for key, value in more.items():
        found[key] += value
    return found


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            broken(chains=[{"name": "MATRYOSHKA-B", "rules": ["-j DROP", "-m nosuch -j DROP"]}]),
            "chains[1].rules[1]: '-m nosuch -j DROP' is refused; allowed: what the kernel and its programs take;"
            " they said: ipv4: Couldn't load match `nosuch'; nothing was changed",
        ),
        (
            broken(chains=[{"name": "MATRYOSHKA-B", "rules": ["-j ELSEWHERE"]}]),
            "chains[1].rules[0]: '-j ELSEWHERE' is refused",
        ),
        (
            broken(
                sets=[{"name": "matryoshka-b", "type": "hash:net,port", "entries": ["10.0.0.1,nonsense"]}]
            ),
            "sets[1].entries[0]: '10.0.0.1,nonsense' is refused; allowed: what the kernel and its programs take;"
            " they said: Syntax error: 10.0.0.1,nonsense; nothing was changed",
        ),
        (
            broken(hooks=[{"chain": "INPUT", "jump": "MATRYOSHKA-A", "match": "-m nosuch"}]),
            "hooks[2]: '-m nosuch -j MATRYOSHKA-A' is refused",
        ),
        (
            broken(hooks=[{"chain": "ufw-user-forward", "jump": "MATRYOSHKA-A"}]),
            "hooks[2].chain: 'ufw-user-forward' is refused; allowed: a chain that is in table filter of ipv4, or"
            " create: true; nothing was changed",
        ),
        ({"path": "firewall.json"}, "path: 'firewall.json' is refused; allowed: an absolute path of a file"),
    ],
)
def test_what_is_refused_changes_nothing(host: Host, more: dict[str, Any], message: str) -> None:
    host.ask(sets=[*FIREWALL["sets"], {"name": "matryoshka-old"}])
    before = host.state()
    host.kernel.changes.clear()
    with pytest.raises(InputError) as error:
        host.ask(**more)
    assert message in str(error.value)
    assert host.state() == before and host.kernel.changes == []


def test_check_mode_says_which_chain_is_missing(host: Host) -> None:
    told = host.ask(check=True, **broken(hooks=[{"chain": "ufw-user-forward", "jump": "MATRYOSHKA-A"}]))
    assert told["warnings"][0].startswith(
        "hooks[2].chain: ufw-user-forward isn't there now; needed: a chain that"
    )


def test_ipv6_on_a_host_without_it(host: Host) -> None:
    (host.root / "proc/net").mkdir(parents=True)
    del host.kernel.files["/proc/net/if_inet6"]
    with pytest.raises(
        InputError, match=r"^ipv6: True is refused; allowed: auto or false, because this host has"
    ):
        host.ask(ipv6="true")
    chains = [{**FIREWALL["chains"][0], "families": ["ipv6"]}]
    with pytest.raises(
        InputError, match=r"^chains\[0\]\.families: \['ipv6'\] is refused; allowed: ipv4, because"
    ):
        host.ask(chains=chains)
    assert host.kernel.changes == [] and not host.path.exists()
    assert host.ask()["families"] == ["ipv4"]
