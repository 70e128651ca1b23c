# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _packages
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._prune import prune_options
from ansible_collections.matryoshka.host.plugins.module_utils._sizes import parse_size
from hypothesis import given
from hypothesis import strategies as st

PRESENT = {"docker.io": {"version": "26.1.5-9", "hold": True}, "iptables": {"version": "1.8", "hold": False}}


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        ({"docker.io": "", "iptables": ""}, []),
        ({"docker.io": "26.1.*"}, []),
        ({"docker.io": "26.1.5-9"}, []),
        ({"docker.io": "27.0.1-1"}, ["docker.io=27.0.1-1"]),
        ({"docker-cli": "", "docker.io": "25.*"}, ["docker-cli", "docker.io=25.*"]),
    ],
)
def test_packages_to_install(wanted: dict[str, str], asked: list[str]) -> None:
    assert _packages.packages_to_install(wanted, PRESENT) == asked


@pytest.mark.parametrize(("hold", "changed"), [(True, ["iptables", "new"]), (False, ["docker.io"])])
def test_holds_to_change(hold: bool, changed: list[str]) -> None:
    assert _packages.holds_to_change(["docker.io", "iptables", "new"], hold, PRESENT) == changed


def test_asking_the_same_again_is_the_same_question() -> None:
    once = _packages.merge_ask({}, {"paths": ["/b", "/a"]})
    assert _packages.merge_ask(once, {"paths": ["/a"]}) == once == {"paths": ["/a", "/b"]}


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4 << 30), ("512m", 512 << 20), ("1.5GiB", 3 << 29), ("1024", 1024), (2048, 2048), ("1kb", 1024)],
)
def test_sizes(text: Any, size: int) -> None:
    assert parse_size(text, "memory") == size


@pytest.mark.parametrize("text", ["", "G", "-1", "4X", "1e9", "4 G B", True, None, "0"])
def test_what_is_not_a_size(text: Any) -> None:
    with pytest.raises(InputError, match="memory"):
        parse_size(text, "memory")


@given(st.integers(min_value=1, max_value=1 << 50))
def test_bytes_are_a_size(size: int) -> None:
    assert parse_size(str(size), "memory") == size


def test_prune_options() -> None:
    options = {"until": "168h", "keep_labels": ["keep", "a=b c"[:3]], "build_cache": True, "wait": 60}
    assert prune_options(options) == "--until 168h --wait 60 --keep-label keep --keep-label a=b --build-cache"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"until": "a week"}, "prune_engine_until or prune_runners_until: 'a week'"),
        ({"wait": -1}, "prune_wait: '-1'"),
        ({"keep_labels": ["a b"]}, "prune_keep_labels: 'a b'"),
    ],
)
def test_prune_options_refused(change: dict[str, Any], words: str) -> None:
    options = {"until": "168h", "keep_labels": [], "build_cache": True, "wait": 60, **change}
    with pytest.raises(InputError) as refused:
        prune_options(options)
    assert words in str(refused.value)
