# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter tells a person what the plan refuses."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.matryoshka.host.plugins.filter.limits import FilterModule, plan_limits

FACTS = {
    "cpus": 2,
    "memory_bytes": 4 << 30,
    "capacity": {"cpu_list": "0-1", "pids": 32768, "threads": 32768, "swap_bytes": 0},
    "cgroup": {"version": 2, "controllers": ["cpu", "memory", "pids"]},
    "paths": {},
}


def test_a_refusal_is_the_filters_error() -> None:
    with pytest.raises(
        AnsibleFilterError, match="limits_memory: 'x' is refused; allowed: a size such as 512M"
    ):
        plan_limits([], {}, {"memory": "x"}, [], FACTS)


def test_a_plan_becomes_units() -> None:
    (one,) = plan_limits([], {}, {"memory": "auto", "cpu_weight": 50}, [], FACTS)
    (unit,) = FilterModule().filters()["slice_units"]([one])
    assert unit["name"] == one["name"] == "matryoshka.slice"
    assert "CPUWeight=50" in unit["content"].splitlines()
