# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel modules and sysctls: files, live values, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _kernel_settings as settings
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View

WANTED = {
    "owner": "network",
    "modules": ["br-netfilter"],
    "sysctls": {"net.ipv4.ip_forward": 1, "net/bridge/bridge-nf-call-iptables": True},
}


class Kernel:
    """A fake root with ``/proc/sys``; modprobe brings a module's settings, unless it is ``missing``."""

    def __init__(self, root: Path, missing: bool = False) -> None:
        self.root, self.missing, self.calls = root, missing, 0
        self.set("net/ipv4/ip_forward", "0\n")

    def set(self, name: str, value: str) -> None:
        path = self.root / "proc/sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)

    def get(self, name: str) -> str:
        return (self.root / "proc/sys" / name).read_text().strip()

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        assert list(argv) == ["modprobe", "--", "br_netfilter"]
        self.calls += 1
        if self.missing:
            return Result(1, "", "modprobe: FATAL: Module br_netfilter not found in directory")
        self.set("net/bridge/bridge-nf-call-iptables", "0\n")
        return Result(0)

    def go(self, check: bool = False, **changes: Any) -> dict[str, Any]:
        return settings.answer({**WANTED, **changes}, check, self, View(str(self.root)))

    def tree(self) -> dict[str, str]:
        return {str(path): path.read_text() for path in sorted(self.root.rglob("*")) if path.is_file()}


def test_check_mode_tells_what_is_done_and_does_nothing(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    before = kernel.tree()
    told = kernel.go(check=True)
    assert kernel.tree() == before and kernel.calls == 0
    assert told["changed"] and told["loaded_modules"] == ["br_netfilter"]
    done = kernel.go()
    assert {key: done[key] for key in ("changed", "loaded_modules", "changed_sysctls")} == {
        key: told[key] for key in ("changed", "loaded_modules", "changed_sysctls")
    }
    assert kernel.get("net/ipv4/ip_forward") == "1"
    assert kernel.get("net/bridge/bridge-nf-call-iptables") == "1"


def test_files_are_for_the_next_boot(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.go()
    head = "# Managed by matryoshka.host: network\n"
    assert (tmp_path / "etc/modules-load.d/network.conf").read_text() == head + "br_netfilter\n"
    assert (tmp_path / "etc/sysctl.d/60-network.conf").read_text() == (
        head + "net.ipv4.ip_forward = 1\nnet/bridge/bridge-nf-call-iptables = 1\n"
    )


def test_a_second_run_changes_nothing_and_a_value_changed_by_hand_is_put_right(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.go()
    again = kernel.go()
    assert (again["changed"], again["diff"], kernel.calls) == (False, [], 1)
    kernel.set("net/ipv4/ip_forward", "0\n")
    assert kernel.go()["changed_sysctls"] == ["net.ipv4.ip_forward"]
    assert kernel.get("net/ipv4/ip_forward") == "1"


def test_values_of_several_numbers_are_compared_by_meaning(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.set("net/ipv4/ip_local_port_range", "32768\t60999\n")
    told = kernel.go(modules=[], sysctls={"net.ipv4.ip_local_port_range": "32768 60999"})
    assert told["changed_sysctls"] == []


def test_an_interface_with_a_dot_is_written_with_a_slash(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.set("net/ipv6/conf/eth0.100/accept_ra", "1\n")
    kernel.go(modules=[], sysctls={"net.ipv6.conf.eth0/100.accept_ra": 2})
    assert kernel.get("net/ipv6/conf/eth0.100/accept_ra") == "2"


def test_the_difference_shows_live_values(tmp_path: Path) -> None:
    told = Kernel(tmp_path).go(check=True)
    live = next(one for one in told["diff"] if one.get("before_header") == "kernel")
    assert "net.ipv4.ip_forward = 0\n" in live["before"]
    assert "net.ipv4.ip_forward = 1\n" in live["after"] and "module br_netfilter loaded\n" in live["after"]


def test_an_owner_without_settings_has_no_files(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.go()
    assert kernel.go(modules=[], sysctls={})["changed"]
    assert not list(tmp_path.glob("etc/*/*.conf"))
    assert kernel.get("net/ipv4/ip_forward") == "1"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"owner": "../x"}, "owner: '../x' is refused; allowed: lowercase letters"),
        ({"modules": ["a b"]}, "modules[0]: 'a b' is refused; allowed: the name of a kernel module"),
        (
            {"sysctls": {"net.ipv4.*": 1}},
            "sysctls: 'net.ipv4.*' is refused; allowed: names of kernel settings",
        ),
        ({"sysctls": {"../../etc/passwd": 1}}, "sysctls: '../../etc/passwd' is refused"),
        ({"sysctls": {"net.ipv4.ip_forward": "1\n2"}}, "a number or a text of one line"),
        ({"sysctls": {"net.ipv4.ip_forward": None}}, "sysctls.net.ipv4.ip_forward: None is refused"),
    ],
)
def test_bad_input_changes_nothing(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    kernel = Kernel(tmp_path)
    before = kernel.tree()
    with pytest.raises(InputError) as refused:
        kernel.go(**changes)
    assert words in str(refused.value)
    assert kernel.tree() == before


def test_a_module_that_the_kernel_has_not_is_named(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, missing=True)
    before = kernel.tree()
    with pytest.raises(HostError, match="the kernel module br_netfilter can't be loaded: modprobe: FATAL"):
        kernel.go()
    assert kernel.tree() == before


def test_a_setting_that_the_kernel_has_not_is_named(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    before = kernel.tree()
    with pytest.raises(HostError, match=r"sysctls.net.ipv4.no_such: this kernel has no such setting"):
        kernel.go(modules=[], sysctls={"net.ipv4.no_such": 1})
    assert kernel.tree() == before
