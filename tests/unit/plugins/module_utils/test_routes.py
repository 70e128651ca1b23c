# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranges against the host's routes and nameservers."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._routes import overlaps

ROUTES: list[dict[str, Any]] = [
    {"destination": "0.0.0.0/0", "interface": "eth0"},
    {"destination": "10.0.0.0/8", "interface": "vpn0"},
    {"destination": "172.17.0.0/16", "interface": "docker0"},
    {"destination": "172.28.3.0/24", "interface": "br-0123456789ab"},
    {"destination": "192.168.1.7/32", "interface": None},
    {"destination": "169.254.0.0/16", "interface": "eth0"},
    {"destination": "fe80::/64", "interface": "eth0"},
]


@pytest.mark.parametrize(
    ("cidr", "message"),
    [
        ("172.20.0.0/16", None),
        ("169.254.0.0/24", None),
        ("10.8.0.0/16", "bip 10.8.0.0/16 overlaps the host's route to 10.0.0.0/8 on vpn0"),
        ("172.17.1.0/24", None),
        ("172.28.0.0/14", None),
        ("192.168.1.0/24", "bip 192.168.1.0/24 overlaps the host's route to 192.168.1.7/32 on no interface"),
        ("9.9.9.0/24", "bip 9.9.9.0/24 overlaps the host's nameserver 9.9.9.9"),
    ],
)
def test_overlaps(cidr: str, message: str | None) -> None:
    found = overlaps({"bip": cidr}, ROUTES, ["docker0", "br-*"], ["9.9.9.9", "fe80::1%eth0", "junk"])
    assert [str(one) for one in found] == ([message] if message else [])


def test_nothing_is_ignored_unasked() -> None:
    assert [one.interface for one in overlaps({"pool": "172.16.0.0/12"}, ROUTES)] == [
        "docker0",
        "br-0123456789ab",
    ]


def test_a_range_that_is_none_is_refused_by_its_label() -> None:
    with pytest.raises(InputError, match=r"docker_config.bip: 'x' is refused"):
        overlaps({"docker_config.bip": "x"}, ROUTES)
