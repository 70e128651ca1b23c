# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that aren't known are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._options import check_options

KNOWN = ("path", "size", "inodes")


@pytest.mark.parametrize("given", [{}, {"path": "/a"}, {"size": None, "inodes": 1}])
def test_known(given: dict[str, Any]) -> None:
    check_options(given, KNOWN, "quotas[0]")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"path": "/a", "sise": "1G"},
            "v.sise: '1G' is refused; allowed: one of path, size, inodes (did you mean size?)",
        ),
        ({"owner": 1}, "v.owner: 1 is refused; allowed: one of path, size, inodes"),
        ({7: None}, "v.7: None is refused; allowed: one of path, size, inodes"),
    ],
)
def test_unknown(given: dict[Any, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_options(given, KNOWN, "v")
    assert str(caught.value) == message
