# SPDX-License-Identifier: GPL-3.0-or-later
"""subids on files: written whole and under the locks, or refused with nothing changed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.matryoshka.host.plugins.module_utils import _files
from ansible_collections.matryoshka.host.plugins.module_utils import _subids_apply as apply
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._subids_apply import Accounts
from ansible_collections.matryoshka.host.plugins.modules import subids as module

USERS = {"root": 0, "ci": 1000, "b": 1001, "sysbox": 999}


class Known(Accounts):
    """A name service of a few users."""

    def owners(self, name: str) -> frozenset[str] | None:
        by_uid = {str(uid): user for user, uid in USERS.items()}
        user = by_uid.get(name, name)
        return frozenset((user, str(USERS[user]))) if user in USERS else None


KNOWN = Known({key: {uid: f"user {name}" for name, uid in USERS.items()} for key in ("uid", "gid")})


class Etc:
    """An /etc in a directory of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.path = root, root / "etc"
        self.path.mkdir()

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.path / name.replace("_", ".")).write_text(text)

    def tree(self) -> dict[str, tuple[bytes, int, int]]:
        """All files but the empty lock of the user database."""
        return {
            path.name: (path.read_bytes(), path.stat().st_mode, path.stat().st_ino)
            for path in sorted(self.path.iterdir())
            if path.name != ".pwd.lock"
        }

    def go(
        self, *names: str, check: bool = False, patience: float = 5.0, lenient: bool = False, **more: Any
    ) -> dict[str, Any]:
        params = {
            "users": [{"name": name} for name in names],
            "state": "present",
            "lowest": None,
            "highest": None,
            **{f"sub{kind}_path": str(self.path / f"sub{kind}") for kind in ("uid", "gid")},
            **more,
        }
        return apply.answer(params, check, KNOWN, View(str(self.root)), patience, lenient)


@pytest.fixture
def etc(tmp_path: Path) -> Etc:
    return Etc(tmp_path)


def test_new_files(etc: Etc) -> None:
    told = etc.go("ci", "1001", check=True)
    assert etc.tree() == {}
    done = etc.go("ci", "1001")
    assert done == told and done["changed"]
    text = "ci:100000:65536\n1001:165536:65536\n"
    assert [(name, data, mode & 0o777) for name, (data, mode, _inode) in etc.tree().items()] == [
        ("subgid", text.encode(), 0o644),
        ("subuid", text.encode(), 0o644),
    ]
    assert done["users"][1] == {
        "name": "1001",
        "uids": [{"owner": "1001", "start": 165536, "count": 65536}],
        "gids": [{"owner": "1001", "start": 165536, "count": 65536}],
    }
    assert [(one["before"], one["after"]) for one in done["diff"]] == [("", text)] * 2
    before = etc.tree()
    again = etc.go("ci", "b")
    assert not again["changed"] and again["diff"] == [] and etc.tree() == before


def test_check_mode_before_the_user_is_made(etc: Etc) -> None:
    told = etc.go("not-yet", check=True, lenient=True)
    assert told["changed"] and told["users"][0]["uids"] == [
        {"owner": "not-yet", "start": 100000, "count": 65536}
    ]
    assert etc.tree() == {}


def test_all_else_is_kept(etc: Etc) -> None:
    etc.write(subuid="# ours\nsysbox:100000:65536\n\nodd line\n", subgid="# ours\nsysbox:100000:65536")
    (etc.path / "subuid").chmod(0o640)
    done = etc.go("ci")
    assert (etc.path / "subuid").read_text() == ("# ours\nsysbox:100000:65536\n\nodd line\nci:165536:65536\n")
    assert (etc.path / "subgid").read_text() == "# ours\nsysbox:100000:65536\nci:165536:65536\n"
    assert (etc.path / "subuid").stat().st_mode & 0o777 == 0o640
    assert [text.split(" line ")[1] for text in done["warnings"]] == [
        "4 isn't OWNER:START:COUNT and is kept; no ids are seen in it"
    ]
    etc.go("ci", state="absent")
    assert (etc.path / "subuid").read_text() == "# ours\nsysbox:100000:65536\n\nodd line\n"


def test_bytes_that_are_no_text_are_kept(etc: Etc) -> None:
    (etc.path / "subuid").write_bytes(b"# \xff\n\xfe:100000:5\n")
    done = etc.go("ci")
    assert (etc.path / "subuid").read_bytes() == b"# \xff\n\xfe:100000:5\nci:100005:65536\n"
    assert done["subuid"][0] == {"owner": "\ufffd", "start": 100000, "count": 5}


def test_one_file_lacks_the_range(etc: Etc) -> None:
    etc.write(subuid="ci:300000:65536\n", subgid="")
    inode = etc.tree()["subuid"][2]
    done = etc.go("ci")
    assert etc.tree()["subuid"][2] == inode
    assert (etc.path / "subgid").read_text() == "ci:300000:65536\n" and len(done["diff"]) == 1


def test_without_users_it_only_tells(etc: Etc) -> None:
    etc.write(subuid="a:100000:10\nroot:1000:1\nb:100005:10\n", nsswitch_conf="subid: sss\n")
    before = etc.tree()
    told = etc.go()
    assert not told["changed"] and etc.tree() == before and told["users"] == []
    path = etc.path / "subuid"
    assert told["overlaps"] == [
        f"{path}: line 1 a:100000:10 overlaps line 3 b:100005:10",
        f"{path}: line 2 root:1000:1 has uid 1000 of user ci in it",
    ]
    assert [one["owner"] for one in told["subuid"]] == ["a", "root", "b"] and told["subgid"] == []


def test_systemds_range_is_noted(etc: Etc) -> None:
    assert etc.go("ci")["notes"] == []
    note = etc.go("b", lowest=524288)["notes"]
    assert len(note) == 1 and note[0].startswith(
        "b:524288:65536 lies in 524288 to 1879048191, from where systemd-nspawn"
    )
    assert etc.go("b")["notes"] == []


def test_a_link_stays_a_link(etc: Etc) -> None:
    (etc.path / "real").write_text("")
    (etc.path / "subuid").symlink_to("real")
    etc.go("ci")
    assert (etc.path / "subuid").is_symlink() and (etc.path / "real").read_text() == "ci:100000:65536\n"


@pytest.mark.parametrize("source", ["files", "files sss", "", "files # sss"])
def test_sources_that_read_the_files(etc: Etc, source: str) -> None:
    etc.write(nsswitch_conf=f"passwd: files\n#subid: sss\nsubid: {source}\n")
    assert etc.go("ci")["changed"]


USER = [{"name": "ci"}]
REFUSED: list[tuple[dict[str, str], dict[str, Any], str]] = [
    ({}, {"users": [{"name": "nobody-here"}]}, "users[0].name: 'nobody-here' is refused; allowed: a user on this host, or a uid"),
    ({}, {"users": [{"name": "a:b"}]}, "users[0].name: 'a:b' is refused; allowed: a user's name or uid"),
    ({}, {"users": [{"name": "#ci"}]}, "users[0].name: '#ci' is refused; allowed: a user's name or uid"),
    ({}, {"users": [{"name": "sysbox"}]}, "users[0].name: 'sysbox' is refused; allowed: another user; sysbox keeps its range itself"),
    ({}, {"users": [{"name": "ci"}, {"name": "1000"}]}, "users[1].name: '1000' is refused; allowed: each user once; users[0] is the same"),
    ({}, {"users": [{"name": "ci", "count": 0}]}, "users[0].count: 0 is refused; allowed: a whole number from 1 to 4294967294"),
    ({}, {"users": [{"name": "ci", "count": 5}], "state": "absent"}, "users[0].count: 5 is refused; allowed: nothing with state absent"),
    ({}, {"users": USER, "lowest": 1000}, "lowest: 1000 is refused; allowed: an id from 65536"),
    ({}, {"users": USER, "lowest": 100000, "highest": 120000}, "users[0].count: 65536 is refused; allowed: at most 20001 for user ci: "),
    ({}, {"users": USER, "subuid_path": "subuid"}, "subuid_path: 'subuid' is refused; allowed: an absolute path of a file"),
    ({"subuid": "a:100000:9\nb:100008:9\n"}, {"users": USER}, "ETC/subuid: line 1 a:100000:9 overlaps line 2 b:100008:9; give one"),
    ({"subuid": "ci:990:20\n"}, {"users": USER}, "ETC/subuid: line 1 ci:990:20 has uid 999 of user sysbox in it; give one"),
    ({"nsswitch_conf": "subid: sss\n"}, {"users": USER}, "/etc/nsswitch.conf has 'subid: sss', so nobody reads /etc/subuid"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "params", "message"), REFUSED, ids=[case[2][:40] for case in REFUSED])
def test_refused(etc: Etc, files: dict[str, str], params: dict[str, Any], message: str) -> None:
    etc.write(**{"subuid": "b:200000:65536\n", "subgid": "# none\n", **files})
    before = etc.tree()
    with pytest.raises(HostError) as caught:
        etc.go(**params)
    assert str(caught.value).replace(str(etc.path), "ETC").startswith(message)
    assert etc.tree() == before


def test_the_same_file_twice(etc: Etc) -> None:
    with pytest.raises(
        HostError, match=r"^subgid_path: .* is refused; allowed: another file than subuid_path$"
    ):
        etc.go("ci", subgid_path=str(etc.path / "subuid"))
    assert etc.tree() == {}


def test_the_first_file_is_put_back_if_the_second_fails(etc: Etc, monkeypatch: pytest.MonkeyPatch) -> None:
    etc.write(subuid="# ours\n")
    real = _files.write_atomic

    def failing(path: str, data: bytes, *more: Any) -> None:
        if path.endswith("subgid"):
            raise HostError(f"{path} can't be written: No space left on device")
        real(path, data, *more)

    monkeypatch.setattr(_files, "write_atomic", failing)
    with pytest.raises(HostError, match="No space left"):
        etc.go("ci")
    assert {name: data for name, (data, *_rest) in etc.tree().items()} == {"subuid": b"# ours\n"}


def test_a_lock_of_a_living_process_is_waited_for(etc: Etc) -> None:
    etc.write(subuid="", subuid_lock=f"{os.getpid()}\0")
    before = etc.tree()
    with pytest.raises(HostError) as caught:
        etc.go("ci", patience=0.2)
    assert str(caught.value) == (
        f"{etc.path}/subuid.lock is held by process {os.getpid()}; nothing was changed"
    )
    assert etc.tree() == before
    assert etc.go("ci", check=True)["changed"]


def test_a_lock_of_a_dead_process_is_taken_over(etc: Etc) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    etc.write(subgid_lock=f"{done.pid}\0")
    assert etc.go("ci")["changed"] and sorted(etc.tree()) == ["subgid", "subuid"]


def test_the_lock_of_the_user_database(etc: Etc) -> None:
    lock = etc.path / ".pwd.lock"
    code = "import fcntl,sys; f=open(sys.argv[1],'w'); fcntl.lockf(f,fcntl.LOCK_EX); print(1,flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    if holder.stdout is None:
        raise AssertionError("a pipe was asked for")
    holder.stdout.readline()
    with pytest.raises(HostError, match=r"/\.pwd\.lock is locked by another process; nothing was changed$"):
        etc.go("ci", patience=0.2)
    assert etc.tree() == {}
    holder.communicate()
    assert etc.go("ci")["changed"]
    with lock.open("w") as stream:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_documentation_and_arguments_agree() -> None:
    def stripped(options: dict[str, Any]) -> dict[str, Any]:
        return {
            name: {key: one.get(key) for key in ("type", "elements", "choices", "default", "required")}
            | {"options": stripped(one.get("suboptions", one.get("options")) or {})}
            for name, one in options.items()
        }

    assert stripped(yaml.safe_load(module.DOCUMENTATION)["options"]) == stripped(apply.ARGUMENTS)
    for task in yaml.safe_load(module.EXAMPLES):
        assert set(task["matryoshka.host.subids"] or {}) <= set(apply.ARGUMENTS)


def test_this_hosts_accounts() -> None:
    accounts = apply.host_accounts()
    assert accounts.real["uid"][0].startswith("user ") and 0 in accounts.real["gid"]
    owners = accounts.owners("0")
    assert owners is not None and "0" in owners
    assert accounts.owners("no-such-user") is None and accounts.owners("4294967290") is None
