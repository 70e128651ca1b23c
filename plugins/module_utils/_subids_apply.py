# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives users subordinate ids on a host: read, plan, then write under the lock, or stop."""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _files
from ansible_collections.matryoshka.host.plugins.module_utils import _subids as subids
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._subids import KINDS, Limits, Plan, Table, User
from ansible_collections.matryoshka.host.plugins.module_utils._subids_lock import PATIENCE, locked

ARGUMENTS: dict[str, Any] = {
    "users": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "count": {"type": "int"},
        },
    },
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "subuid_path": {"type": "path", "default": "/etc/subuid"},
    "subgid_path": {"type": "path", "default": "/etc/subgid"},
    "lowest": {"type": "int"},
    "highest": {"type": "int"},
}
NAME = re.compile(r"[^:#\s+-][^:\s]*")


@dataclass(frozen=True)
class Accounts:
    """The host's users and groups, as its name service tells them; by kind names by id."""

    real: Mapping[str, Mapping[int, str]]

    def owners(self, name: str) -> frozenset[str] | None:
        """Each name that a line can have for the user ``name`` (or uid); None if there is none."""
        try:
            entry = pwd.getpwuid(int(name)) if _is_number(name) else pwd.getpwnam(name)
        except (KeyError, OverflowError):
            return None
        return frozenset((entry.pw_name, str(entry.pw_uid)))


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def host_accounts() -> Accounts:
    """Those of this host."""
    users, groups = pwd.getpwall(), grp.getgrall()
    gids = {entry.pw_gid: f"user {entry.pw_name}" for entry in users}
    gids.update((group.gr_gid, f"group {group.gr_name}") for group in groups)
    return Accounts({"uid": {entry.pw_uid: f"user {entry.pw_name}" for entry in users}, "gid": gids})


@dataclass(frozen=True)
class State:
    """Both files and where new ranges may lie."""

    tables: Mapping[str, Table]
    texts: Mapping[str, str | None]
    bounds: Mapping[str, Limits]


def answer(
    params: Mapping[str, Any],
    check: bool,
    accounts: Accounts | None = None,
    view: View | None = None,
    patience: float = PATIENCE,
    lenient: bool = False,
) -> dict[str, Any]:
    """The result of module ``subids`` for its parameters (:data:`ARGUMENTS`), with ``warnings``.

    :param check: change nothing.
    :param lenient: users needn't be on the host yet, as in check mode before they are made.
    :param view: where login.defs, nsswitch.conf and the lock of the user database lie.
    :raises HostError: something is wrong; both files are untouched then.
    """
    known, host = accounts or host_accounts(), view or View()
    paths = {kind: _files.real_path(f"sub{kind}_path", params[f"sub{kind}_path"]) for kind in KINDS}
    if paths["uid"] == paths["gid"]:
        raise InputError("subgid_path", params["subgid_path"], "another file than subuid_path")
    if params["users"]:
        _refuse_other_source(host)
    state, users, plan = _planned(params, paths, host, known, lenient)
    writes = plan.changed and not check
    lock = (
        locked(host.path("/etc/.pwd.lock"), [params[f"sub{kind}_path"] for kind in KINDS], patience)
        if writes
        else nullcontext()
    )
    with lock:
        if writes:
            state, users, plan = _planned(params, paths, host, known, lenient)
        after = {
            kind: subids.render(state.tables[kind], plan.added.get(kind, ()), plan.removed.get(kind, ()))
            for kind in KINDS
        }
        changing = [kind for kind in KINDS if plan.added.get(kind) or plan.removed.get(kind)]
        if not check:
            _write(state, paths, after, changing)
    return _result(params, state, users, plan, after, changing, known)


def _planned(
    params: Mapping[str, Any], paths: Mapping[str, str], host: View, accounts: Accounts, lenient: bool
) -> tuple[State, list[User], Plan]:
    login_defs = host.text("/etc/login.defs") or ""
    texts = {kind: _text(paths[kind]) for kind in KINDS}
    state = State(
        {kind: subids.parse(texts[kind] or "", params[f"sub{kind}_path"]) for kind in KINDS},
        texts,
        {kind: subids.limits(login_defs, kind, params["lowest"], params["highest"]) for kind in KINDS},
    )
    users = _users(params, state, accounts, lenient)
    if params["state"] == "absent":
        return state, users, subids.absent(users, state.tables)
    if users:
        subids.check(state.tables, users, accounts.real)
    return state, users, subids.present(users, state.tables, state.bounds, accounts.real)


def _text(path: str) -> str | None:
    try:
        data = _files.read_bytes(path)
    except OSError as error:
        raise HostError(f"{path} can't be read: {error.strerror}") from error
    return None if data is None else data.decode("utf-8", "surrogateescape")


def _users(params: Mapping[str, Any], state: State, accounts: Accounts, lenient: bool) -> list[User]:
    users: list[User] = []
    for index, entry in enumerate(params["users"]):
        variable, name, count = f"users[{index}]", entry["name"], entry.get("count")
        if not NAME.fullmatch(name):
            raise InputError(f"{variable}.name", name, "a user's name or uid")
        if name == subids.SYSBOX:
            raise InputError(f"{variable}.name", name, "another user; sysbox keeps its range itself")
        absent = params["state"] == "absent"
        if count is not None and (absent or not 1 <= count <= subids.LAST_ID):
            allowed = "nothing with state absent" if absent else f"a whole number from 1 to {subids.LAST_ID}"
            raise InputError(f"{variable}.count", count, allowed)
        owners = accounts.owners(name)
        if owners is None and not (absent or lenient or _is_number(name)):
            raise InputError(f"{variable}.name", name, "a user on this host, or a uid")
        owners = (owners or frozenset()) | {name}
        for other in users:
            if other.owners & owners:
                raise InputError(f"{variable}.name", name, f"each user once; {other.variable} is the same")
        default = max(state.bounds[kind].count for kind in KINDS)
        users.append(User(variable, name, owners, default if count is None else count))
    return users


def _refuse_other_source(host: View) -> None:
    """subuid(5): one source for all; only ``files`` reads /etc/subuid."""
    found = re.search(
        r"^[ \t]*subid:[ \t]*([^#\n]*?)[ \t]*(?:#.*)?$", host.text("/etc/nsswitch.conf") or "", re.MULTILINE
    )
    source = found[1] if found else ""
    if source.split()[:1] not in ([], ["files"]):
        raise HostError(
            f"/etc/nsswitch.conf has 'subid: {source}', so nobody reads /etc/subuid and /etc/subgid; "
            "give users their ids there, or change it to 'subid: files'; nothing was changed"
        )


def _write(state: State, paths: Mapping[str, str], after: Mapping[str, str], changing: Sequence[str]) -> None:
    done: list[str] = []
    try:
        for kind in changing:
            _files.write_atomic(paths[kind], after[kind].encode("utf-8", "surrogateescape"))
            done.append(kind)
    except HostError:
        for kind in done:
            text = state.texts[kind]
            if text is None:
                os.unlink(paths[kind])
            else:
                _files.write_atomic(paths[kind], text.encode("utf-8", "surrogateescape"))
        raise


def _result(
    params: Mapping[str, Any],
    state: State,
    users: Sequence[User],
    plan: Plan,
    after: Mapping[str, str],
    changing: Sequence[str],
    accounts: Accounts,
) -> dict[str, Any]:
    tables = {kind: subids.parse(after[kind], state.tables[kind].path) for kind in KINDS}
    asked = {owner for user in users for owner in user.owners}
    warnings = [
        f"{table.path} line {number} isn't OWNER:START:COUNT and is kept; no ids are seen in it"
        for table in tables.values()
        for number in table.unread
    ]
    others = {kind: [one for one in table.ranges if one.owner not in asked] for kind, table in tables.items()}
    inside = [
        f"{tables[kind].path}: {text}"
        for kind in KINDS
        for text in subids.accounts_within(others[kind], kind, accounts.real[kind])
    ]
    new = {
        str(one): one for kind in KINDS for one in plan.added.get(kind, ()) if subids.in_systemd_range(one)
    }
    low, high = subids.SYSTEMD_CONTAINERS
    return {
        "changed": bool(changing),
        "users": [
            {"name": user.name, **{f"{kind}s": _shown(tables[kind].of(user.owners)) for kind in KINDS}}
            for user in users
        ],
        **{f"sub{kind}": _shown(tables[kind].ranges) for kind in KINDS},
        "overlaps": [text for table in tables.values() for text in table.overlaps()] + inside,
        "notes": [
            f"{text} lies in {low} to {high}, from where systemd-nspawn with --private-users=pick takes ids; "
            "it asks for users, not for subordinate ids"
            for text in new
        ],
        "warnings": warnings,
        "diff": [
            _files.difference(
                params[f"sub{kind}_path"], _printable(state.texts[kind]), _printable(after[kind])
            )
            for kind in changing
        ],
    }


def _shown(ranges: Sequence[subids.Range]) -> list[dict[str, Any]]:
    return [{"owner": _printable(one.owner), "start": one.start, "count": one.count} for one in ranges]


def _printable(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
