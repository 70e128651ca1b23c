# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes as people write and read them."""

from __future__ import annotations

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._sizes import parse_size, show_size
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (512, "512 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (16 << 20, "16 MiB"),
        (400 << 30, "400 GiB"),
        (4_000_787_030_016, "3.6 TiB"),
        (5000 << 40, "5000 TiB"),
    ],
)
def test_shown(size: int, text: str) -> None:
    assert show_size(size) == text


@pytest.mark.parametrize("value", ["", "G", "-1G", "1P", "1,5G", True, None, "1G 2G", "0"])
def test_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"^size: .* is refused; allowed: a size such as 512M"):
        parse_size(value, "size")


@given(st.integers(min_value=1, max_value=1 << 60))
def test_what_is_shown_can_be_read_again(size: int) -> None:
    again = parse_size(show_size(size).removesuffix(" bytes"), "size")
    assert abs(again - size) <= size * 0.05
