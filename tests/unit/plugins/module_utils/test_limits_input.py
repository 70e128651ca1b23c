# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits as people write them: what is read, what is refused, and in systemd's words."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _limits_input as limits
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("cpu_weight", "50", 50),
        ("cpus", "1.5", 1.5),
        ("allowed_cpus", "3, 0-1 8", "0-1,3,8"),
        ("allowed_cpus", 2, "2"),
        ("memory", "512M", 512 << 20),
        ("memory_high", "1.5GiB", 3 << 29),
        ("swap", 0, 0),
        ("pids", 4096, 4096),
        ("io_read_bandwidth", "10M", 10 << 20),
        ("io_write_iops", "100", 100),
        ("memory", "", None),
        ("memory", None, None),
    ],
)
def test_a_limit_is_read(name: str, value: Any, read: Any) -> None:
    assert limits.parse_limits({name: value}, "x.")[name] == read


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cpu_weight", 0, "limits_cpu_weight: 0 is refused; allowed: a whole number from 1 to 10000"),
        ("cpu_weight", 10001, "limits_cpu_weight: 10001 is refused; allowed: a whole number from 1 to 10000"),
        ("io_weight", "half", "limits_io_weight: 'half' is refused; allowed: a whole number from 1 to 10000"),
        (
            "cpus",
            "two",
            "limits_cpus: 'two' is refused; allowed: a number of processors above 0, such as 1.5",
        ),
        ("cpus", True, "limits_cpus: True is refused; allowed: a number of processors above 0"),
        ("cpus", "nan", "limits_cpus: 'nan' is refused"),
        ("cpus", 0, "limits_cpus: 0 is refused"),
        ("memory", "plenty", "limits_memory: 'plenty' is refused; allowed: a size such as 512M"),
        ("memory", "1M", "at least 134217728 bytes"),
        ("swap", "-1", "limits_swap: '-1' is refused; allowed: a size"),
        ("pids", 3, "limits_pids: 3 is refused; allowed: a whole number from 64 to 4194304"),
        ("io_write_bandwidth", "fast", "limits_io_write_bandwidth: 'fast' is refused; allowed: a size"),
        ("io_read_iops", 0, "limits_io_read_iops: 0 is refused; allowed: a whole number from 1"),
        (
            "allowed_cpus",
            "3-1",
            "limits_allowed_cpus: '3-1' is refused; allowed: processors by number, such as 0-3,8",
        ),
        ("allowed_cpus", "all", "limits_allowed_cpus: 'all' is refused"),
        ("allowed_cpus", "0-999999999", "limits_allowed_cpus: '0-999999999' is refused"),
    ],
)
def test_what_is_no_limit_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        limits.parse_limits({name: value}, "limits_")
    assert message in str(caught.value)


@given(st.sets(st.integers(0, 600), min_size=1))
def test_a_list_of_processors_comes_back(cpus: set[int]) -> None:
    assert limits.parse_cpu_list(limits.show_cpu_list(cpus), "x") == cpus


@given(st.text(alphabet="0123456789-, a", max_size=20))
def test_any_text_is_a_list_of_processors_or_refused(text: str) -> None:
    try:
        found = limits.parse_cpu_list(text, "x")
    except InputError as error:
        assert error.variable == "x"
    else:
        assert found


@given(st.floats(0.01, 4000))
def test_a_quota_says_what_was_asked_for(cpus: float) -> None:
    text = limits.percent(cpus)
    assert text.endswith("%")
    assert abs(float(text[:-1]) - cpus * 100) <= 0.005 + 1e-6


def test_a_hyphen_in_a_name_makes_no_level() -> None:
    assert limits.slice_name("big-one") == "matryoshka-big_one.slice"


def test_settings_are_in_systemds_words() -> None:
    one = {
        **limits.parse_limits({"cpus": 2, "memory": "1G", "io_read_iops": 100, "swap": 0}, "x."),
        "io_paths": ["/", "/srv"],
    }
    assert limits.settings(one) == [
        ("CPUQuota", "200%"),
        ("MemoryMax", "1073741824"),
        ("MemorySwapMax", "0"),
        ("IOReadIOPSMax", "/ 100"),
        ("IOReadIOPSMax", "/srv 100"),
    ]
