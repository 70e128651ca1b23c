# SPDX-License-Identifier: GPL-3.0-or-later
"""Breaks a healthy host in every way of ``verify_breakages.yml``; verify has to name each, and nothing else.

Every case asserts the whole set of findings. So it also shows that the case before it was
repaired; the first and the last look show a healthy host.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from breakages import Verify, check, lines, table
from live import Site

TABLE = table(Path(__file__).parent)


@pytest.fixture(scope="module")
def verify(site: Site) -> Iterator[Verify]:
    site.wants({})
    site.ready("ci")
    look = Verify(site)
    look.on_host('rm -rf "$kept"')
    before = look.learn()
    assert not before, f"the host isn't healthy to begin with:\n{lines(before)}"
    yield look
    after = look.learn()
    assert not after, f"something wasn't repaired:\n{lines(after)}"


def test_the_table_is_what_it_says() -> None:
    assert len(TABLE) >= 90
    assert len({case["id"] for case in TABLE}) == len(TABLE)


@pytest.mark.parametrize("case", TABLE, ids=[case["id"] for case in TABLE])
def test_a_breakage_is_named(verify: Verify, case: dict[str, Any]) -> None:
    check(verify, case)


def test_the_playbook_tells_a_person_what_is_wrong_and_what_to_do(verify: Verify) -> None:
    verify.on_host("chmod 0777 /usr/local/sbin/matryoshka")
    done = verify.playbook()
    verify.on_host("chmod 0755 /usr/local/sbin/matryoshka")
    assert done.returncode == 2
    told = [line.strip() for line in (done.stdout + done.stderr).splitlines() if len(line) < 200]
    for words in (
        "1. file /usr/local/sbin/matryoshka: /usr/local/sbin/matryoshka has mode 0777 instead of 0755 [file_mode]",
        "remedy: chown root:root /usr/local/sbin/matryoshka; chmod 0755 /usr/local/sbin/matryoshka",
    ):
        assert any(words in line for line in told), done.stdout + done.stderr
