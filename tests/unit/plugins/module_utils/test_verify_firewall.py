# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs from the planned rules and kernel settings becomes a finding each; on a healthy host nothing."""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _verify_firewall as firewall
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import Expect
from support import table
from support.verify_host import Host

Change = Callable[[dict[str, Any], dict[str, Any]], Any]


def hook(found: dict[str, Any], chain: str, jump: str) -> dict[str, Any]:
    one: dict[str, Any] = next(
        one
        for one in found["hooks"]
        if (one["family"], one["chain"], one["jump"]) == ("ipv4", chain, f"MATRYOSHKA-{jump}")
    )
    return one


def chain(found: dict[str, Any], name: str, family: str = "ipv4") -> dict[str, Any]:
    one: dict[str, Any] = next(
        one for one in found["chains"] if (one["family"], one["name"]) == (family, f"MATRYOSHKA-{name}")
    )
    return one


def a_set(found: dict[str, Any], name: str, **values: Any) -> None:
    next(one for one in found["sets"] if one["name"] == f"matryoshka-{name}").update(
        state="changed", **values
    )


# (what is changed in the answers for rules and for the kernel, the code that is found, words of its text)
CASES: dict[str, tuple[Change, str, str]] = {
    "rules can't be compared": (
        lambda rules, _kernel: (rules.clear(), rules.update(error="iptables-save: not found")),
        "firewall_unread",
        "iptables-save: not found",
    ),
    "chain gone": (
        lambda rules, _kernel: chain(rules, "JOB").update(state="created"),
        "firewall_chain",
        "chain MATRYOSHKA-JOB of iptables is gone",
    ),
    "chain changed, IPv6": (
        lambda rules, _kernel: chain(rules, "JOB", "ipv6").update(state="changed"),
        "firewall_chain",
        "chain MATRYOSHKA-JOB of ip6tables doesn't have the rules that were planned",
    ),
    "jump gone": (
        lambda rules, _kernel: hook(rules, "DOCKER-USER", "FORWARD").update(state="created"),
        "firewall_hook",
        "the jump from DOCKER-USER of iptables, table filter to MATRYOSHKA-FORWARD is gone",
    ),
    "rule before ours": (
        lambda rules, _kernel: hook(rules, "FORWARD", "FORWARD").update(
            state="moved", in_the_way="-i docker0 -j ACCEPT"
        ),
        "firewall_hook",
        "in FORWARD of iptables, table filter another rule comes before the jump to MATRYOSHKA-FORWARD: -i docker0",
    ),
    "rule behind our last": (
        lambda rules, _kernel: hook(rules, "FORWARD", "LAST").update(state="moved", in_the_way="-j LOG"),
        "firewall_hook",
        "another rule comes after the jump to MATRYOSHKA-LAST: -j LOG",
    ),
    "jump that nobody planned": (
        lambda rules, _kernel: rules["hooks"].append(
            {
                **hook(rules, "FORWARD", "FORWARD"),
                "chain": "OUTPUT",
                "jump": "MATRYOSHKA-OLD",
                "rule": "-j MATRYOSHKA-OLD",
                "state": "removed",
            }
        ),
        "firewall_hook",
        "OUTPUT of iptables, table filter has a jump to MATRYOSHKA-OLD that nobody planned",
    ),
    "set gone": (
        lambda rules, _kernel: next(one for one in rules["sets"]).update(state="created"),
        "firewall_set",
        "is gone",
    ),
    "set with less": (
        lambda rules, _kernel: a_set(rules, "closed4", added=10),
        "firewall_set",
        "set matryoshka-closed4 has 10 entries too few",
    ),
    "set with more": (
        lambda rules, _kernel: a_set(rules, "allow4", removed=1),
        "firewall_set",
        "set matryoshka-allow4 has 1 entry too many",
    ),
    "set with others": (
        lambda rules, _kernel: a_set(rules, "allow4", added=1, removed=2),
        "firewall_set",
        "has 1 entry too few and 2 entries too many",
    ),
    "set of another type": (
        lambda rules, _kernel: a_set(rules, "allow4"),
        "firewall_set",
        "has another type",
    ),
    "strangers": (
        lambda rules, _kernel: rules["removed"].append("iptables-nft filter MATRYOSHKA-OLD"),
        "firewall_stranger",
        "nobody planned: iptables-nft filter MATRYOSHKA-OLD",
    ),
    "both backends": (
        lambda rules, _kernel: rules.update(both_loaded=True),
        "firewall_both",
        "ours are in nft",
    ),
    "other rules at boot": (
        lambda rules, _kernel: rules.update(file_differs=True),
        "firewall_saved",
        "/etc/matryoshka/firewall.json, from which the rules come at boot",
    ),
    "kernel can't be read": (
        lambda _rules, kernel: (kernel.clear(), kernel.update(error="no /proc/sys")),
        "kernel_unread",
        "no /proc/sys",
    ),
    "module not loaded": (
        lambda _rules, kernel: kernel["loaded_modules"].append("br_netfilter"),
        "kernel_module",
        "not loaded: br_netfilter",
    ),
    "setting": (
        lambda _rules, kernel: kernel["changed_sysctls"].append("net.bridge.bridge-nf-call-ip6tables"),
        "kernel_setting",
        "net.bridge.bridge-nf-call-ip6tables isn't 1",
    ),
    "files for the boot": (
        lambda _rules, kernel: kernel["changed_files"].append("/etc/sysctl.d/60-network.conf"),
        "kernel_files",
        "/etc/sysctl.d/60-network.conf",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_difference_is_named(case: str) -> None:
    change, code, words = CASES[case]
    host = Host()
    change(host.seen.firewall, host.seen.kernel)
    findings = host.report().findings
    assert [one.code for one in findings] == [code], findings
    assert words in findings[0].text
    assert findings[0].remedy


def test_the_other_backend_is_named_with_its_program() -> None:
    host = Host()
    host.seen.firewall.update(both_loaded=True)
    assert "iptables-legacy-save" in host.report().findings[0].remedy
    host.seen.firewall.update(backend="legacy")
    assert "iptables-nft-save" in host.report().findings[0].remedy


def test_a_setting_that_another_check_speaks_of_is_told_once() -> None:
    host = Host()
    host.seen.kernel["changed_sysctls"].append("net.ipv4.ip_forward")
    host.seen.net.forwarding = False
    assert [one.code for one in host.report().findings] == ["ip_forward"]


def test_nothing_promised_is_nothing_asked() -> None:
    expect = Expect.read({})
    run = table({})
    assert firewall.observe_firewall(expect, run) == {}
    assert firewall.observe_kernel(expect, run) == {}


@pytest.mark.parametrize(
    ("promised", "answer", "expected"),
    [
        ({"size": 1}, lambda params: {"got": params["size"]}, {"got": 1}),
        ({"size": "many"}, lambda params: {"got": params}, "size"),
        ({"sise": 1}, lambda params: {"got": params}, "sise"),
    ],
)
def test_arguments_are_checked_before_a_module_is_asked(
    promised: dict[str, Any], answer: Any, expected: Any
) -> None:
    found = firewall.asked(promised, {"size": {"type": "int", "required": True}}, answer)
    assert found == expected if isinstance(expected, dict) else expected in found["error"]


def test_a_module_that_fails_is_told() -> None:
    def fails(params: Any) -> dict[str, Any]:
        raise HostError(f"no {params['what']}")

    assert firewall.asked({"what": "luck"}, {"what": {"type": "str"}}, fails) == {"error": "no luck"}
