# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the rules that keep jobs apart from the LAN are live as planned, before everybody else's, and saved for the boot.

The live rules are compared by :mod:`_netfilter_apply`, as the role's own task does; the kernel's settings by
:mod:`_kernel_settings`. Here the differences become findings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.matryoshka.host.plugins.module_utils import (
    _kernel_settings,
    _netfilter,
    _netfilter_apply,
)
from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    SITE,
    Expect,
    Observed,
    Report,
)

SUBJECT = "firewall"
RELOAD = "systemctl reload matryoshka-firewall.service"
_PROGRAMS = {"ipv4": "iptables", "ipv6": "ip6tables"}


def observe_firewall(expect: Expect, run: Runner) -> dict[str, Any]:
    """What module ``netfilter_rules`` would change, or ``error``; empty if nothing was promised."""
    return asked(
        expect.firewall, _netfilter.ARGUMENTS, lambda params: _netfilter_apply.answer(params, True, run)
    )


def observe_kernel(expect: Expect, run: Runner) -> dict[str, Any]:
    """What module ``kernel_settings`` would change, or ``error``; empty if nothing was promised."""
    return asked(
        expect.kernel, _kernel_settings.ARGUMENTS, lambda params: _kernel_settings.answer(params, True, run)
    )


def asked(
    promised: Mapping[str, Any],
    arguments: Mapping[str, Any],
    answer: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """What a module answers to the arguments that a role promised, or ``error``; empty if it promised none."""
    if not promised:
        return {}
    checked = ArgumentSpecValidator(dict(arguments)).validate(dict(promised))
    if checked.error_messages:
        return {"error": "; ".join(checked.error_messages)}
    try:
        return answer(checked.validated_parameters)
    except HostError as error:
        return {"error": str(error)}


def check_firewall_rules(report: Report, expect: Expect, seen: Observed) -> None:
    """Every chain, jump and set of the plan is live; jumps come before what others have added."""
    if not expect.firewall:
        return
    found = seen.firewall
    if not report.check(
        "error" not in found,
        "firewall_unread",
        SUBJECT,
        f"the rules can't be compared with the plan: {found.get('error')}",
        f"apt-get install iptables ipset, and {SITE}",
    ):
        return
    for chain in found["chains"]:
        name = f"chain {chain['name']} of {_PROGRAMS[chain['family']]}"
        said = "is gone" if chain["state"] == "created" else "doesn't have the rules that were planned"
        report.check(chain["state"] == "present", "firewall_chain", SUBJECT, f"{name} {said}", RELOAD)
    for hook in found["hooks"]:
        _check_hook(report, hook)
    for one in found["sets"]:
        report.check(
            one["state"] == "present",
            "firewall_set",
            SUBJECT,
            f"set {one['name']} {_set_differs(one)}",
            RELOAD,
        )
    strangers = list(found["removed"])
    report.check(
        not strangers,
        "firewall_stranger",
        SUBJECT,
        f"there are rules under our name that nobody planned: {', '.join(strangers)}",
        RELOAD,
    )
    report.check(
        not found["both_loaded"],
        "firewall_both",
        SUBJECT,
        f"rules are loaded in both iptables backends, and a packet has to pass both: ours are in {found['backend']}",
        f"look at the other ones with iptables-{_other(found['backend'])}-save and remove them",
    )
    saved = found["file_differs"]
    report.check(
        not saved,
        "firewall_saved",
        SUBJECT,
        f"{expect.firewall.get('path')}, from which the rules come at boot, isn't what was planned",
        SITE,
    )


def _check_hook(report: Report, hook: Mapping[str, Any]) -> None:
    place = f"{hook['chain']} of {_PROGRAMS[hook['family']]}, table {hook['table']}"
    side = "after" if hook["position"] == "last" else "before"
    texts = {
        "created": f"the jump from {place} to {hook['jump']} is gone",
        "moved": f"in {place} another rule comes {side} the jump to {hook['jump']}: {hook['in_the_way']}",
        "removed": f"{place} has a jump to {hook['jump']} that nobody planned: {hook['rule']}",
    }
    report.check(
        hook["state"] == "present", "firewall_hook", SUBJECT, texts.get(hook["state"], hook["state"]), RELOAD
    )


def _set_differs(one: Mapping[str, Any]) -> str:
    if one["state"] == "created":
        return "is gone"
    parts = [
        f"{count} entr{'y' if count == 1 else 'ies'} {what}"
        for count, what in ((one["added"], "too few"), (one["removed"], "too many"))
        if count
    ]
    return "has " + (" and ".join(parts) or "another type")


def _other(backend: str | None) -> str:
    return "legacy" if backend == "nft" else "nft"


def check_settings(report: Report, expect: Expect, seen: Observed, told: Sequence[str] = ()) -> None:
    """The kernel has the modules and settings that were promised, now and for the next boot.

    :param told: settings that another check speaks of.
    """
    if not expect.kernel:
        return
    found, subject = seen.kernel, "kernel"
    if not report.check("error" not in found, "kernel_unread", subject, str(found.get("error")), SITE):
        return
    missing = found["loaded_modules"]
    report.check(
        not missing,
        "kernel_module",
        subject,
        f"not loaded: {', '.join(missing)}",
        f"modprobe -a {' '.join(missing)}",
    )
    sysctls = [name for name in found["changed_sysctls"] if name not in told]
    wanted = expect.kernel.get("sysctls") or {}
    report.check(
        not sysctls,
        "kernel_setting",
        subject,
        "; ".join(f"{name} isn't {wanted.get(name)}" for name in sysctls),
        "; ".join(f"sysctl -w {name}={wanted.get(name)}" for name in sysctls),
    )
    report.check(
        not found["changed_files"],
        "kernel_files",
        subject,
        f"not as planned, so that the next boot has other settings: {', '.join(found['changed_files'])}",
        SITE,
    )
