# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Subordinate ids: /etc/subuid and /etc/subgid parsed, compared and extended. Pure.

Sources: subuid(5), subgid(5), login.defs(5) and shadow's ``lib/subordinateio.c``: a line is
``OWNER:START:COUNT``, the owner a login name or a uid (in both files), numbers as C reads
them; whatever else is in the files is not for anybody and is kept.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError

KINDS = ("uid", "gid")
#: Ids that a user needs so that an image's users, ``nobody`` included, have one each.
COUNT = 65536
#: shadow's own values where login.defs has none (``lib/find_new_sub_uids.c``).
LOWEST, HIGHEST, ACCOUNT_HIGHEST = 100000, 600100000, 60000
#: 0 to 65535 are for users, groups and services; 4294967295 is no id.
RESERVED_BELOW, LAST_ID = 65536, 4294967294
#: Where systemd-nspawn and systemd-nsresourced take ids for containers (systemd's UIDS-GIDS).
SYSTEMD_CONTAINERS = (524288, 1879048191)
SYSBOX = "sysbox"
NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9]\d*")


@dataclass(frozen=True)
class Range:
    """``count`` ids from ``start`` on for ``owner``; ``line`` is 0 for a new one."""

    owner: str
    start: int
    count: int
    line: int = 0

    @property
    def last(self) -> int:
        return self.start + self.count - 1

    def __str__(self) -> str:
        text = f"{self.owner}:{self.start}:{self.count}"
        return f"line {self.line} {text}" if self.line else text

    def meets(self, other: Range) -> bool:
        return self.start <= other.last and other.start <= self.last


@dataclass(frozen=True)
class Table:
    """One of the two files. ``unread`` are lines that are neither a range nor a comment."""

    path: str
    lines: tuple[str, ...]
    ranges: tuple[Range, ...]
    unread: tuple[int, ...] = ()

    def of(self, owners: Iterable[str]) -> list[Range]:
        return [one for one in self.ranges if one.owner in owners]

    def overlaps(self) -> list[str]:
        """One text for each two lines that share an id."""
        found = []
        ordered = sorted(self.ranges, key=lambda one: one.start)
        for index, one in enumerate(ordered):
            for other in ordered[index + 1 :]:
                if other.start > one.last:
                    break
                found.append(sorted((one, other), key=lambda item: item.line))
        found.sort(key=lambda pair: (pair[0].line, pair[1].line))
        return [f"{self.path}: {one} overlaps {other}" for one, other in found]


@dataclass(frozen=True)
class Limits:
    """Where new ranges may lie, both ends included, and how many ids login.defs gives a user."""

    lowest: int
    highest: int
    count: int = COUNT


@dataclass(frozen=True)
class User:
    """A user to whom ranges are given or from whom they are taken, by each name for it."""

    variable: str
    name: str
    owners: frozenset[str]
    count: int = COUNT


@dataclass(frozen=True)
class Plan:
    """What changes, by kind (``uid``, ``gid``): ranges to add, and those to remove."""

    added: Mapping[str, Sequence[Range]] = field(default_factory=dict)
    removed: Mapping[str, Sequence[Range]] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return any(self.added.values()) or any(self.removed.values())


def parse(text: str, path: str) -> Table:
    """A file's lines and ranges. Ranges without ids are kept and count as unread."""
    lines = tuple(text.split("\n")[:-1] if text.endswith("\n") else text.split("\n") if text else ())
    ranges, unread = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = line.split(":")
        start, count = (_number(field) for field in fields[1:]) if len(fields) == 3 else (None, None)
        if not fields[0] or start is None or not count:
            unread.append(number)
        else:
            ranges.append(Range(fields[0], start, count, number))
    return Table(path, lines, tuple(ranges), tuple(unread))


def render(table: Table, added: Sequence[Range], removed: Sequence[Range]) -> str:
    """The file with ranges added at its end and removed lines gone; all other lines as they were."""
    gone = {one.line for one in removed}
    kept = [line for number, line in enumerate(table.lines, 1) if number not in gone]
    return "".join(f"{line}\n" for line in (*kept, *map(str, added)))


def limits(login_defs: str, kind: str, lowest: int | None = None, highest: int | None = None) -> Limits:
    """Where ranges may lie: ``lowest`` and ``highest`` of a person, else those of login.defs.

    Never below the ids of accounts, whatever login.defs says.

    :raises InputError: ``lowest`` and ``highest`` leave no place.
    """
    values = dict(re.findall(r"^[ \t]*(\w+)[ \t]+(\S+)", login_defs, re.MULTILINE))

    def value(name: str, default: int) -> int:
        found = _number(values.get(name, ""))
        return default if found is None else found

    accounts = max(value("UID_MAX", ACCOUNT_HIGHEST), value("GID_MAX", ACCOUNT_HIGHEST))
    floor = max(RESERVED_BELOW, accounts + 1)
    if lowest is not None and not floor <= lowest <= LAST_ID:
        raise InputError("lowest", lowest, f"an id from {floor} (those below are for accounts) to {LAST_ID}")
    upper = kind.upper()
    low = lowest if lowest is not None else max(floor, value(f"SUB_{upper}_MIN", LOWEST))
    if highest is not None and not low <= highest <= LAST_ID:
        raise InputError("highest", highest, f"an id from {low} to {LAST_ID}")
    high = highest if highest is not None else min(LAST_ID, value(f"SUB_{upper}_MAX", HIGHEST))
    return Limits(low, high, max(COUNT, value(f"SUB_{upper}_COUNT", COUNT)))


def check(tables: Mapping[str, Table], users: Sequence[User], real: Mapping[str, Mapping[int, str]]) -> None:
    """Refuse what is wrong already.

    :param real: by kind the names of accounts by their id.
    :raises HostError: two lines of a file overlap, or a user's range has an account's id in it.
    """
    wrong = [text for table in tables.values() for text in table.overlaps()]
    for kind, table in tables.items():
        owners = {owner for user in users for owner in user.owners}
        wrong += [f"{table.path}: {text}" for text in accounts_within(table.of(owners), kind, real[kind])]
    if wrong:
        raise HostError("; ".join(wrong) + "; give one of the two other ids by hand, nothing was changed")


def accounts_within(ranges: Iterable[Range], kind: str, real: Mapping[int, str]) -> Iterator[str]:
    """The ranges that have an account's id in them, and whose."""
    numbers = sorted(real)
    for one in ranges:
        place = bisect_left(numbers, one.start)
        if place < len(numbers) and numbers[place] <= one.last:
            number = numbers[place]
            yield f"{one} has {kind} {number} of {real[number]} in it"


def present(
    users: Sequence[User],
    tables: Mapping[str, Table],
    bounds: Mapping[str, Limits],
    real: Mapping[str, Mapping[int, str]],
) -> Plan:
    """Ranges for what each user lacks, the same in both files where that is possible.

    :raises InputError: there is no room for a user's ids; says how many are missing.
    """
    taken = {kind: [*tables[kind].ranges, *(Range("", number, 1) for number in real[kind])] for kind in KINDS}
    added: dict[str, list[Range]] = {kind: [] for kind in KINDS}
    for user in users:
        lacking = {
            kind: user.count - sum(one.count for one in tables[kind].of(user.owners)) for kind in KINDS
        }
        kinds = [kind for kind in KINDS if lacking[kind] > 0]
        for kind, start in _starts(user, kinds, lacking, tables, taken, bounds).items():
            new = Range(user.name, start, lacking[kind])
            added[kind].append(new)
            taken[kind].append(new)
    return Plan(added)


def absent(users: Sequence[User], tables: Mapping[str, Table]) -> Plan:
    """The lines of exactly these users."""
    owners = {owner for user in users for owner in user.owners}
    return Plan(removed={kind: table.of(owners) for kind, table in tables.items()})


def gaps(taken: Iterable[Range], lowest: int, highest: int) -> Iterator[tuple[int, int]]:
    """The free ids from ``lowest`` to ``highest`` as pairs of start and count, in order."""
    start = lowest
    for one in sorted(taken, key=lambda item: item.start):
        if start < one.start:
            end = min(one.start - 1, highest)
            if start <= end:
                yield start, end - start + 1
        start = max(start, one.last + 1)
    if start <= highest:
        yield start, highest - start + 1


def in_systemd_range(one: Range) -> bool:
    """Whether systemd-nspawn could pick ids of it for a container."""
    return one.start <= SYSTEMD_CONTAINERS[1] and one.last >= SYSTEMD_CONTAINERS[0]


def _starts(
    user: User,
    kinds: Sequence[str],
    lacking: Mapping[str, int],
    tables: Mapping[str, Table],
    taken: Mapping[str, Sequence[Range]],
    bounds: Mapping[str, Limits],
) -> dict[str, int]:
    if len(kinds) == 2 and lacking["uid"] == lacking["gid"]:
        both = [*taken["uid"], *taken["gid"]]
        low = max(bounds[kind].lowest for kind in kinds)
        high = min(bounds[kind].highest for kind in kinds)
        start = _first(both, low, high, lacking["uid"])
        if start is not None:
            return dict.fromkeys(kinds, start)
    found = {}
    for kind in kinds:
        count, area = lacking[kind], bounds[kind]
        like = [one.start for one in tables[_other(kind)].of(user.owners) if one.count == count]
        same = [
            start
            for start in like
            if area.lowest <= start
            and start + count - 1 <= area.highest
            and not any(Range("", start, count).meets(one) for one in taken[kind])
        ]
        start = same[0] if same else _first(taken[kind], area.lowest, area.highest, count)
        if start is None:
            _refuse(user, kind, count, taken[kind], area, tables[kind].path)
        else:
            found[kind] = start
    return found


def _refuse(user: User, kind: str, count: int, taken: Sequence[Range], area: Limits, path: str) -> None:
    largest = max((size for _start, size in gaps(taken, area.lowest, area.highest)), default=0)
    way = [
        str(one)
        for one in taken
        if one.owner and one.meets(Range("", area.lowest, area.highest - area.lowest + 1))
    ]
    shown = ", ".join(way[:3]) + (f" and {len(way) - 3} more" if len(way) > 3 else "")
    raise InputError(
        f"{user.variable}.count",
        user.count,
        f"at most {user.count - count + largest} for user {user.name}: {path} has no {count} free {kind}s in a row "
        f"from {area.lowest} to {area.highest}, at most {largest}, so {count - largest} are missing; "
        f"in the way: {shown or 'nothing'}",
    )


def _first(taken: Iterable[Range], lowest: int, highest: int, count: int) -> int | None:
    return next((start for start, size in gaps(taken, lowest, highest) if size >= count), None)


def _other(kind: str) -> str:
    return KINDS[1 - KINDS.index(kind)]


def _number(text: str) -> int | None:
    """A number as C's strtoul reads it with base 0: decimal, 0x and octal."""
    if not NUMBER.fullmatch(text):
        return None
    base = 16 if text[:2] in ("0x", "0X") else 8 if text.startswith("0") else 10
    return int(text, base)
