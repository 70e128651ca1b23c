# SPDX-License-Identifier: GPL-3.0-or-later
"""subuid and subgid as text and as ranges: what is read, what is refused, what is added."""

from __future__ import annotations

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _subids as subids
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._subids import (
    KINDS,
    Limits,
    Plan,
    Range,
    Table,
    User,
)
from hypothesis import assume, given
from hypothesis import strategies as st

DEBIAN = (
    "UID_MIN\t\t\t 1000\nUID_MAX\t\t\t60000\n#SYS_UID_MIN\t\t  101\nSUB_UID_MIN\t\t   100000\nSUB_UID_MAX\t\t600100000\n"
    "SUB_UID_COUNT\t\t    65536\nGID_MAX\t\t\t60000\nSUB_GID_MIN\t\t   200000\n"
)
REAL: dict[str, dict[int, str]] = {
    "uid": {0: "user root", 1000: "user ci"},
    "gid": {0: "group root", 1000: "group ci"},
}
AREA = dict.fromkeys(KINDS, Limits(100000, 600100000))


def user(name: str, count: int = 65536, uid: int | None = None) -> User:
    owners = {name} if uid is None else {name, str(uid)}
    return User("users[0]", name, frozenset(owners), count)


def tables(uids: str = "", gids: str | None = None) -> dict[str, Table]:
    return {
        "uid": subids.parse(uids, "/etc/subuid"),
        "gid": subids.parse(uids if gids is None else gids, "/etc/subgid"),
    }


def added(plan: Plan) -> dict[str, list[str]]:
    return {kind: [str(one) for one in ranges] for kind, ranges in plan.added.items()}


def applied(state: dict[str, Table], plan: Plan) -> dict[str, Table]:
    return {
        kind: subids.parse(
            subids.render(table, plan.added.get(kind, ()), plan.removed.get(kind, ())), table.path
        )
        for kind, table in state.items()
    }


lines = st.one_of(
    st.builds(
        lambda owner, start, count: f"{owner}:{start}:{count}",
        st.sampled_from(["a", "b", "sysbox", "1001", "+nis"]),
        st.integers(0, 400000),
        st.integers(0, 140000),
    ),
    st.sampled_from(
        ["", "# a:1:2", "  # x", "a", "a:1", "a:b:c", "a:-1:5", "a:1:2:3", ":1:2", "a:08:9", "\u00fc:70000:3"]
    ),
    st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=12),
)
files = st.lists(lines, max_size=8).map(lambda found: "".join(f"{line}\n" for line in found))


def test_lines() -> None:
    text = "# ids\n\nci:100000:65536\n1001:0x40000:010\nbad:1\na:1:2:3\nsysbox:231072:65536\nzero:5:0\nlast:300000:1"
    table = subids.parse(text, "/etc/subuid")
    assert [str(one) for one in table.ranges] == [
        "line 3 ci:100000:65536",
        "line 4 1001:262144:8",
        "line 7 sysbox:231072:65536",
        "line 9 last:300000:1",
    ]
    assert table.unread == (5, 6, 8)
    assert subids.render(table, [], []) == text + "\n"
    assert subids.render(table, [Range("b", 7, 8)], [table.ranges[0]]) == (
        "# ids\n\n1001:0x40000:010\nbad:1\na:1:2:3\nsysbox:231072:65536\nzero:5:0\nlast:300000:1\nb:7:8\n"
    )


@given(files)
def test_a_file_comes_back(text: str) -> None:
    table = subids.parse(text, "x")
    assert subids.render(table, [], []) == text


@given(files)
def test_overlap_is_sharing_an_id(text: str) -> None:
    table = subids.parse(text, "x")
    pairs = [
        f"x: {one} overlaps {other}"
        for index, one in enumerate(table.ranges)
        for other in table.ranges[index + 1 :]
        if set(range(one.start, one.last + 1)) & set(range(other.start, other.last + 1))
    ]
    assert table.overlaps() == pairs


@pytest.mark.parametrize(
    ("text", "kind", "low", "high", "expected"),
    [
        ("", "uid", None, None, Limits(100000, 600100000, 65536)),
        (DEBIAN, "uid", None, None, Limits(100000, 600100000, 65536)),
        (DEBIAN, "gid", None, None, Limits(200000, 600100000, 65536)),
        (DEBIAN, "gid", 300000, 400000, Limits(300000, 400000, 65536)),
        ("SUB_UID_COUNT 131072\nSUB_UID_MIN 1000\n", "uid", None, None, Limits(65536, 600100000, 131072)),
        ("SUB_UID_COUNT 0\nUID_MAX 200000\n", "uid", None, None, Limits(200001, 600100000, 65536)),
        ("SUB_UID_MAX 99999999999\nSUB_UID_MIN x\n", "uid", None, None, Limits(100000, 4294967294, 65536)),
    ],
)
def test_limits(text: str, kind: str, low: int | None, high: int | None, expected: Limits) -> None:
    assert subids.limits(text, kind, low, high) == expected


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (1000, None, "lowest: 1000 is refused; allowed: an id from 65536 (those below are for accounts) to 4294967294"),
        (100000, 99999, "highest: 99999 is refused; allowed: an id from 100000 to 4294967294"),
        (None, 4294967295, "highest: 4294967295 is refused; allowed: an id from 100000 to 4294967294"),
    ],
)  # fmt: skip
def test_refused_limits(low: int | None, high: int | None, message: str) -> None:
    with pytest.raises(InputError) as caught:
        subids.limits("", "uid", low, high)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("uids", "gids", "users", "expected"),
    [
        ("", "", [user("ci"), user("b")], (["ci:100000:65536", "b:165536:65536"], ["ci:100000:65536", "b:165536:65536"])),
        ("ci:100000:65536\n", None, [user("ci")], ([], [])),
        ("1000:100000:65536\n", None, [user("ci", uid=1000)], ([], [])),
        ("sysbox:100000:65536\n", "", [user("ci")], (["ci:165536:65536"], ["ci:165536:65536"])),
        ("ci:300000:65536\n", "", [user("ci")], ([], ["ci:300000:65536"])),
        ("ci:300000:65536\n", "x:310000:5\n", [user("ci")], ([], ["ci:100000:65536"])),
        ("ci:100000:1000\n", None, [user("ci")], (["ci:101000:64536"], ["ci:101000:64536"])),
        ("a:150000:10\nb:100000:10\n", None, [user("ci", 49990)], (["ci:100010:49990"], ["ci:100010:49990"])),
        ("a:150000:10\nb:100000:10\n", None, [user("ci", 49991)], (["ci:150010:49991"], ["ci:150010:49991"])),
        ("ci:100000:30000\nci:200000:35536\n", None, [user("ci")], ([], [])),
    ],
)  # fmt: skip
def test_present(
    uids: str, gids: str | None, users: list[User], expected: tuple[list[str], list[str]]
) -> None:
    plan = subids.present(users, tables(uids, gids), AREA, REAL)
    assert added(plan) == dict(zip(KINDS, expected, strict=True))


def test_accounts_above_the_minimum_are_left_out() -> None:
    real = {"uid": {**REAL["uid"], 100500: "user ldap"}, "gid": REAL["gid"]}
    assert added(subids.present([user("ci")], tables(), AREA, real)) == {
        key: ["ci:100501:65536"] for key in KINDS
    }


def test_different_limits_of_uids_and_gids() -> None:
    apart = {"uid": Limits(100000, 199999), "gid": Limits(300000, 399999)}
    assert added(subids.present([user("ci")], tables(), apart, REAL)) == {
        "uid": ["ci:100000:65536"],
        "gid": ["ci:300000:65536"],
    }


def test_no_room() -> None:
    narrow = dict.fromkeys(KINDS, Limits(100000, 199999))
    with pytest.raises(InputError) as caught:
        subids.present([user("ci")], tables("a:100000:30000\nb:140000:10000\n"), narrow, REAL)
    assert str(caught.value) == (
        "users[0].count: 65536 is refused; allowed: at most 50000 for user ci: /etc/subuid has no 65536 free uids in a "
        "row from 100000 to 199999, at most 50000, so 15536 are missing; in the way: line 1 a:100000:30000, line 2 "
        "b:140000:10000"
    )


def test_absent_takes_whole_lines_of_exactly_that_user() -> None:
    state = tables("# x\nci:100000:65536\ncic:200000:5\nci:300000:7\n1000:400000:9\n")
    after = applied(state, subids.absent([user("ci", uid=1000)], state))
    assert {kind: table.lines for kind, table in after.items()} == dict.fromkeys(
        KINDS, ("# x", "cic:200000:5")
    )


@pytest.mark.parametrize(
    ("uids", "gids", "message"),
    [
        (
            "ci:100000:65536\nb:165535:65536\n",
            "",
            "/etc/subuid: line 1 ci:100000:65536 overlaps line 2 b:165535:65536; give one of the two other ids by hand, "
            "nothing was changed",
        ),
        (
            "",
            "ci:100000:10\nci:100009:10\n",
            "/etc/subgid: line 1 ci:100000:10 overlaps line 2 ci:100009:10; ",
        ),
        ("ci:500:1000\n", "", "/etc/subuid: line 1 ci:500:1000 has uid 1000 of user ci in it; "),
        ("", "1000:1000:1\n", "/etc/subgid: line 1 1000:1000:1 has gid 1000 of group ci in it; "),
    ],
)
def test_refused_overlaps(uids: str, gids: str, message: str) -> None:
    with pytest.raises(HostError) as caught:
        subids.check(tables(uids, gids), [user("ci", uid=1000)], REAL)
    assert str(caught.value).startswith(message)


def test_an_account_in_the_range_of_somebody_else_is_not_refused() -> None:
    subids.check(tables("root:1000:1\n"), [user("ci", uid=1000)], REAL)


def apart(state: dict[str, Table]) -> bool:
    return not any(table.overlaps() for table in state.values())


wanted_users = st.lists(
    st.builds(user, st.sampled_from(["a", "b", "c", "d"]), st.integers(1, 140000)),
    max_size=4,
    unique_by=lambda one: one.name,
)
areas = st.integers(65536, 200000).flatmap(
    lambda low: st.integers(low, 900000).map(lambda high: dict.fromkeys(KINDS, Limits(low, high)))
)


@given(files, files, wanted_users, areas, st.sets(st.integers(0, 300000), max_size=4))
def test_properties_of_a_plan(
    uids: str, gids: str, users: list[User], area: dict[str, Limits], numbers: set[int]
) -> None:
    state = tables(uids, gids)
    assume(apart(state))
    real = dict.fromkeys(KINDS, dict.fromkeys(numbers, "user x"))
    try:
        plan = subids.present(users, state, area, real)
    except InputError as error:
        count = next(one.count for one in users if f"for user {one.name}:" in error.allowed)
        assert error.value == count and "are missing" in error.allowed
        return
    after = applied(state, plan)
    assert apart(after)
    for kind in KINDS:
        new = plan.added[kind]
        assert after[kind].lines[: len(state[kind].lines)] == state[kind].lines
        assert len(after[kind].lines) == len(state[kind].lines) + len(new)
        assert all(area[kind].lowest <= one.start and one.last <= area[kind].highest for one in new)
        assert not any(one.start <= number <= one.last for one in new for number in numbers)
        for one in users:
            before = sum(found.count for found in state[kind].of(one.owners))
            assert sum(found.count for found in after[kind].of(one.owners)) == max(before, one.count)
    assert not subids.present(users, after, area, real).changed


@given(files, wanted_users)
def test_what_was_given_can_be_taken_back(text: str, users: list[User]) -> None:
    state = tables(text)
    owners = {owner for one in users for owner in one.owners}
    assume(apart(state) and not any(table.of(owners) for table in state.values()))
    plan = subids.present(users, state, AREA, REAL)
    after = applied(state, plan)
    assert {kind: table.lines for kind, table in applied(after, subids.absent(users, after)).items()} == {
        kind: table.lines for kind, table in state.items()
    }


@given(files, st.integers(65536, 200000), st.integers(0, 300000))
def test_gaps_are_all_that_is_free(text: str, low: int, span: int) -> None:
    ranges = subids.parse(text, "x").ranges
    found = list(subids.gaps(ranges, low, low + span))
    free = {start + offset for start, count in found for offset in (0, count - 1)}
    assert not any(one.start <= number <= one.last for one in ranges for number in free)
    assert all(low <= number <= low + span for number in free)
    edges = {low, low + span, *(one.last + 1 for one in ranges), *(one.start - 1 for one in ranges)}
    for number in edges:
        inside = low <= number <= low + span
        blocked = any(one.start <= number <= one.last for one in ranges)
        assert any(start <= number < start + count for start, count in found) == (inside and not blocked)
