# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict on a data root: every code, what is nobody's fault, and whose a root is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _data_root_judge as judge
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_holders import Holder, Sight
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_judge import CODES, DataRoot
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_processes import Owner
from ansible_collections.matryoshka.host.plugins.module_utils._data_root_quota import Quota
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._storage_judge import VERDICTS, check_allow
from hypothesis import given
from hypothesis import strategies as st

CI, OTHER, HOST = Owner(("a" * 64,), "ci"), Owner(("b" * 64,), "other"), Owner()
GIB = 1 << 30


def root(path: str = "/data", **changes: Any) -> DataRoot:
    """A sound data root of a container; ``facts`` among the changes are merged."""
    facts = {
        "real_path": path,
        "type": "directory",
        "target_type": "directory",
        "filesystem": "xfs",
        "mount_point": "/",
        "read_only": False,
        "bytes_total": 100 * GIB,
        "bytes_free": 50 * GIB,
        "inodes_total": 1000,
        "inodes_free": 500,
        **changes.pop("facts", {}),
    }
    engine = {"engine": "docker", "driver": "overlay2", "drivers": [], "leftovers": []}
    given = {"path": path, "facts": facts, "device": "8:1", "inner": path, "engine": engine, **changes}
    return DataRoot(**given)


def holder(owner: Owner = CI, pid: int = 7, locks: bool = True) -> Holder:
    return Holder(owner, (pid,), ("dockerd",), "docker.service", ("volumes/metadata.db",), locks)


def sight(owner: Owner = CI, **changes: Any) -> Sight:
    known: dict[str, Any] = {"owner": owner, "pid": 9, "unit": "", "mount_point": "/var/lib/docker"}
    known |= {
        "path": "/var/lib/docker",
        "read_only": False,
        "part": None,
        "engines": (),
        "layers": frozenset(),
    }
    return Sight(**{**known, **changes})


def codes(found: DataRoot, *others: DataRoot, allow: tuple[str, ...] = ()) -> list[str]:
    return [reason.code for reason in judge.judge_root(found, others, allow=allow).reasons]


SOUND = {
    "a container's": root(holders=[holder()], sights=[sight()]),
    "a container's, as named": root(expected="ci", holders=[holder()], sights=[sight()], running=[CI]),
    "the host's": root("/var/lib/docker", holders=[holder(HOST)]),
    "the host's, stopped": root("/var/lib/docker", expected="host"),
    "nobody's yet": root(engine={}),
    "a stopped container's": root(expected="ci"),
    "seen by the host's services": root(holders=[holder()], sights=[sight(), sight(HOST)]),
    "a container's that runs no engine": root(sights=[sight()]),
    "a quota that isn't near": root(quota=Quota("project", True, True, True, used=9 * GIB, limit=10 * GIB)),
    "no quota wanted": root(quota=Quota("project", error="ENOSYS")),
    "a whole array": root(layers=[{"path": "/dev/md0", "raid": {"missing": 0, "devices": 2}}]),
    "a link": root(facts={"type": "symlink"}),
    "no inodes counted": root(facts={"inodes_total": 0, "inodes_free": 0}),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound(name: str) -> None:
    verdict = judge.judge_root(SOUND[name])
    assert (verdict.verdict, verdict.reasons) == ("ok", ())


LEFT = {"driver": "vfs", "path": "vfs/dir", "entries": 3}
ENGINE = {"engine": "docker", "driver": "overlay2", "drivers": [LEFT], "leftovers": ["vfs"]}
BROKEN: list[tuple[DataRoot, str, str]] = [
    (
        root(holders=[holder(), holder(OTHER, 8, locks=False)], sights=[sight()]),
        "two_holders",
        "2 hold /data: dockerd (pid 7) of the container ci; "
        "dockerd (pid 8) of the container other, which waits for the lock",
    ),
    (root(holders=[holder(HOST), holder(HOST, 8)]), "two_holders", "dockerd (pid 8) of the host"),
    (
        root(expected="ci", holders=[holder(HOST)]),
        "foreign_holder",
        "dockerd (pid 7) of the host holds /data, which is for the container ci",
    ),
    (
        root(expected="host", holders=[holder(CI)], sights=[]),
        "foreign_holder",
        "of the container ci holds /data, which is for the host",
    ),
    (
        root(holders=[holder()], sights=[sight(), sight(OTHER, engines=("dockerd",))]),
        "foreign_mount",
        "The container other has /data of the container ci mounted: on /var/lib/docker; dockerd runs in it",
    ),
    (
        root("/var/lib/docker", sights=[sight(path="/host/var/lib/docker")]),
        "foreign_mount",
        "The container ci has /var/lib/docker of the host mounted: on /host/var/lib/docker",
    ),
    (
        root("/var/lib/docker", sights=[sight(path="/x", part="overlay2")]),
        "foreign_mount",
        "on /x, its part overlay2",
    ),
    (root(expected="ci", sights=[sight(OTHER)]), "foreign_mount", "/data of the container ci mounted"),
    (
        root("/var/lib/docker", sights=[sight(read_only=True)]),
        "foreign_mount_read_only",
        "on /var/lib/docker (read-only)",
    ),
    (root(sights=[sight(), sight(OTHER)]), "shared_mount", "the container ci, the container other"),
    (
        root(expected="ci", running=[CI, OTHER]),
        "holder_without_root",
        "the container ci runs, but /data isn't mounted in it",
    ),
    (root(unmounted="UUID=1 is wanted"), "not_mounted", "UUID=1 is wanted. An engine has written beneath"),
    (root(facts={"type": "file", "target_type": "file"}), "not_a_directory", "/data isn't a directory"),
    (root(facts={"type": "symlink", "target_type": "file"}), "not_a_directory", "/data isn't a directory"),
    (root(facts={"type": "absent", "target_type": "absent"}), "absent", "/data doesn't exist"),
    (root(facts={"read_only": True}), "read_only", "lies on /, which is mounted read-only"),
    (root(facts={"filesystem": "overlay"}), "backing_overlay", "lies on overlay"),
    (root(facts={"filesystem": "tmpfs"}), "backing_memory", "lies on tmpfs"),
    (root(facts={"filesystem": "nfs4"}), "backing_network", "lies on nfs4"),
    (root(facts={"bytes_free": GIB // 2}), "full", f"has {GIB // 2} of {100 * GIB} bytes left"),
    (root(facts={"bytes_free": 4 * GIB}), "nearly_full", "bytes left on /"),
    (root(facts={"inodes_free": 3}), "full", "3 of 1000 inodes left"),
    (root(facts={"inodes_free": 20}), "nearly_full", "20 of 1000 inodes left"),
    (
        root(quota=Quota("project", True, True, used=996, limit=1000)),
        "quota_full",
        "uses 996 of the 1000 bytes",
    ),
    (
        root(quota=Quota("project", True, True, used=960, limit=1000)),
        "quota_nearly_full",
        "uses 960 of the 1000",
    ),
    (
        root(quota=Quota("project", True, True, inodes_used=100, inodes_limit=100)),
        "quota_full",
        "uses 100 of the 100 inodes",
    ),
    (
        root(quota=Quota("qgroup", True, True, exclusive_used=99, exclusive_limit=100)),
        "quota_nearly_full",
        "99 of the 100 exclusive bytes",
    ),
    (
        root(quota=Quota("project", requested=True, error="ENOSYS")),
        "quota_off",
        "that the kernel doesn't enforce (ENOSYS)",
    ),
    (root(quota=Quota("project", True, False, True)), "quota_off", "/ has project quotas"),
    (
        root(quota=Quota("qgroup", True, True, inconsistent=True)),
        "quota_inconsistent",
        "wrong until a rescan",
    ),
    (
        root(layers=[{"path": "/dev/md0", "raid": {"missing": 1, "devices": 2}}]),
        "raid_degraded",
        "/dev/md0 below /data lacks 1 of 2 devices",
    ),
    (
        root(engine=ENGINE),
        "leftover_driver",
        "The driver vfs left 3 entries in /data/vfs/dir, beside overlay2",
    ),
]


@pytest.mark.parametrize(("found", "code", "text"), BROKEN)
def test_one_reason(found: DataRoot, code: str, text: str) -> None:
    verdict = judge.judge_root(found)
    reason = next(one for one in verdict.reasons if one.code == code)
    assert text in reason.text
    assert reason.remedy.rstrip("/").strip()
    assert verdict.verdict == max((CODES[one.code] for one in verdict.reasons), key=VERDICTS.index)
    assert code not in codes(found, allow=(code,))


def test_every_code_has_a_case() -> None:
    assert {code for _root, code, _text in BROKEN} | {"same_as_another", "inside_another"} == set(CODES)


def test_a_quota_that_is_not_enforced_limits_nothing() -> None:
    assert codes(root(quota=Quota("project", True, False, used=1000, limit=1000))) == ["quota_off"]
    assert codes(root(quota=Quota("project", True, False, used=1000))) == []


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        ("/data", "/data", "same_as_another"),
        ("/data", "/data/sub", "inside_another"),
        ("/data/a/b", "/data", "inside_another"),
        ("/", "/data", "inside_another"),
        ("/data", "/database", None),
        ("/data/a", "/data/b", None),
        ("/data", "/data/volumes/v/_data", None),
        ("/data", "/data/volumes/v", None),
        ("/data", "/data/volumes", "inside_another"),
        ("/data", "/data/containerd/daemon", None),
        ("/data", "/data/overlay2/x/diff/var/lib/docker", "inside_another"),
    ],
)
def test_roots_that_meet(first: str, second: str, code: str | None) -> None:
    one, two = root("/one", inner=first), root("/two", inner=second)
    expected = [code] if code else []
    assert (codes(one, two), codes(two, one)) == (expected, expected)
    assert codes(one, root("/two", inner=second, device="8:2")) == []


def test_the_reason_names_both_roots() -> None:
    found = judge.judge_root(root("/a", inner="/x"), [root("/b", inner="/x/y")])
    assert found.reasons[0].text.startswith("/b lies inside /a")


@pytest.mark.parametrize(
    ("found", "owner"),
    [
        (root(), None),
        (root("/var/lib/docker"), HOST),
        (root("/var/lib/containers/storage"), HOST),
        (root(sights=[sight()]), CI),
        (root(sights=[sight(read_only=True)]), None),
        (root(sights=[sight(part="image")]), None),
        (root(sights=[sight(HOST)]), None),
        (root(sights=[sight(), sight(OTHER)]), None),
        (root(sights=[sight(), sight(path="/again")]), CI),
        (root(holders=[holder(OTHER)], sights=[sight()]), OTHER),
        (root(holders=[holder(locks=False), holder(OTHER)]), OTHER),
        (root(holders=[holder(locks=False)]), CI),
        (root("/var/lib/docker", holders=[holder()]), CI),
        (root(expected="host", holders=[holder()]), HOST),
        (root(expected="ci", running=[OTHER, CI]), CI),
        (root(expected="ci", sights=[sight(OTHER)]), None),
    ],
)
def test_whose_a_root_is(found: DataRoot, owner: Owner | None) -> None:
    assert judge.owner_of(found) == owner


def test_a_container_is_told_once_with_all_its_places() -> None:
    strange = [sight(OTHER, path="/a"), sight(OTHER, path="/b"), sight(OTHER, path="/b")]
    found = judge.judge_root(root(holders=[holder()], sights=strange))
    assert [one.text for one in found.reasons] == [
        "The container other has /data of the container ci mounted: on /a, on /b"
    ]


@pytest.mark.parametrize(
    "check",
    [lambda allow: check_allow(allow, CODES), lambda allow: judge.judge_root(root(), allow=allow)],
)
def test_an_unknown_code_is_refused(check: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="allow: 'absnt' is refused; allowed: one of two_holders, "):
        check(["absent", "absnt"])


OWNERS = st.sampled_from([HOST, CI, OTHER])
SIGHTS = st.lists(
    st.builds(sight, OWNERS, read_only=st.booleans(), part=st.sampled_from([None, "image"])), max_size=4
)
HOLDERS = st.lists(st.builds(holder, OWNERS, locks=st.booleans()), max_size=3)


@given(HOLDERS, SIGHTS, st.sampled_from([None, "host", "ci", "nobody"]))
def test_two_holders_and_strangers_that_write_are_always_broken(
    holders: list[Holder], sights: list[Sight], expected: str | None
) -> None:
    found = root(holders=holders, sights=sights, expected=expected, running=[CI, OTHER])
    writers = {one.owner for one in sights if not one.read_only and not one.owner.host}
    verdict = judge.judge_root(found).verdict
    if len(holders) > 1 or writers - {judge.owner_of(found)}:
        assert verdict == "broken"
    elif verdict == "broken":
        assert expected is not None and holders and not holders[0].owner.is_called(expected)
