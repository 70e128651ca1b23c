# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter as a role calls it, in a template."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.matryoshka.host.plugins.filter.address_pools import FilterModule
from ansible_collections.matryoshka.host.plugins.module_utils._address_input import parse
from ansible_collections.matryoshka.host.plugins.module_utils._address_pools import plan

address_pools = FilterModule().filters()["address_pools"]


def test_the_plan() -> None:
    options = {"runners": ["ci"], "ipv6": True, "seed": "host"}
    assert address_pools(["10.0.0.0/8"], levels=["docker"], **options) == plan(
        parse(["10.0.0.0/8"], ["docker"], **options)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"reserved": ["lan"]},
            r"^reserved\[0\]: 'lan' is refused; allowed: a network such as 10\.1\.0\.0/16",
        ),
        ({"candidates": ["10.0.0.0/24"]}, r"^address pools: \d+ addresses are missing: no room for docker "),
        ({"reservd": []}, r"^address_pools: .*unexpected keyword argument 'reservd'"),
    ],
)
def test_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        address_pools([], ["docker"], **options)


@pytest.mark.parametrize(
    ("reserved", "message"),
    [
        (["lan"], "network_reserved_ranges[0]: 'lan' is refused; allowed: "),
        (
            ["10.0.0.0/8", "10.1.0.0/16"],
            "network_reserved_ranges: ['10.0.0.0/8', '10.1.0.0/16'] is refused; allowed: ranges apart from each other, "
            "but network_reserved_ranges[0] 10.0.0.0/8 overlaps network_reserved_ranges[1] 10.1.0.0/16",
        ),
        (["10.0.0.0/8"], "network_reserved_ranges: ['network_reserved_ranges[0] 10.0.0.0/8'] is refused; allowed: ranges that"),
    ],
)  # fmt: skip
def test_messages_name_the_variable_that_a_person_set(reserved: list[str], message: str) -> None:
    names = {"reserved": "network_reserved_ranges", "ipv6": "network_ipv6"}
    with pytest.raises(AnsibleFilterError) as caught:
        address_pools([], ["docker"], variables=names, reserved=reserved, candidates=["10.2.0.0/16"])
    assert str(caught.value).startswith(message)
