# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person can write for project_quotas, and what is refused before the host is looked at."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._project_quota import (
    nested,
    parse_owner,
    parse_quotas,
)
from ansible_collections.matryoshka.host.plugins.module_utils._project_quota_apply import ARGUMENTS
from ansible_collections.matryoshka.host.plugins.modules import project_quotas


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"path": "data"}, "quotas.path: 'data' is refused; allowed: the absolute path of a directory"),
        ({"path": "/"}, "quotas.path: '/' is refused"),
        ({"path": "//"}, "quotas.path: '//' is refused"),
        ({"path": "/a/../b"}, "quotas.path: '/a/../b' is refused"),
        ({"path": "/a\n7:/b"}, "quotas.path: '/a\\n7:/b' is refused"),
        ({"path": "/a "}, "quotas.path: '/a ' is refused"),
        ({"path": "/a /"}, "quotas.path: '/a /' is refused"),
        ({"path": "/a", "size": "much"}, "quotas[/a].size: 'much' is refused; allowed: a size such as"),
        ({"path": "/a/", "size": 0}, "quotas[/a].size: 0 is refused"),
        (
            {"path": "/a", "size": "1G", "soft": "2G"},
            "quotas[/a].soft: '2G' is refused; allowed: not more than size, 1G",
        ),
        (
            {"path": "/a", "inodes": 0},
            "quotas[/a].inodes: 0 is refused; allowed: a whole number of at least 1",
        ),
        ({"path": "/a", "inodes": True}, "quotas[/a].inodes: True is refused"),
    ],
)
def test_bad_entries_are_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_quotas([entry])
    assert message in str(caught.value)


def test_a_directory_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"quotas\.path: '/a/' is refused; allowed: each directory once"):
        parse_quotas([{"path": "/a"}, {"path": "/a/"}])


def test_slashes_too_many_are_no_other_directory() -> None:
    assert parse_quotas([{"path": "//a//b/"}])[0].path == "/a/b"


@pytest.mark.parametrize("owner", ["", "a:b", "1a", "a-b", "a" * 33, "a\n"])
def test_bad_owners_are_refused(owner: str) -> None:
    with pytest.raises(InputError, match="owner: "):
        parse_owner(owner)


def test_pairs_of_nested_directories() -> None:
    assert nested(["/a", "/a/b", "/ab", "/a/b/c"]) == [("/a", "/a/b"), ("/a", "/a/b/c"), ("/a/b", "/a/b/c")]


def test_documentation_and_arguments_agree() -> None:
    documented = yaml.safe_load(project_quotas.DOCUMENTATION)["options"]
    for option in documented.values():
        option.pop("description")
        for inner in option.get("suboptions", {}).values():
            inner.pop("description")
        if "suboptions" in option:
            option["options"] = option.pop("suboptions")
    assert documented == ARGUMENTS
    returned = yaml.safe_load(project_quotas.RETURN)
    assert set(returned["quotas"]["contains"]) >= {"path", "enforced", "holds_root", "used_bytes", "changed"}
