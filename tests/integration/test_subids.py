# SPDX-License-Identifier: GPL-3.0-or-later
"""subids beside shadow's own programs, and what newuidmap and Podman make of its ranges."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
UTILS = "ansible_collections/matryoshka/host/plugins/module_utils"
FILES = ("_subids.py", "_subids_lock.py", "_subids_apply.py", "_files.py", "_errors.py", "_host_files.py")
NAMES = [f"su-{number}" for number in range(12)]
ON_HOST = "/root/subids"
# What the module does, without Ansible around it, so that many start at once.
ONE = f"""
import sys
sys.path.insert(0, "{ON_HOST}")
from ansible_collections.matryoshka.host.plugins.module_utils._subids_apply import answer
paths = {{"subuid_path": "/etc/subuid", "subgid_path": "/etc/subgid", "lowest": None, "highest": None}}
answer({{"users": [{{"name": sys.argv[1]}}], "state": "present", **paths}}, False)
"""


def ranges(host: Any, path: str) -> list[tuple[str, int, int]]:
    fields = [line.split(":") for line in host.read(path).splitlines() if not line.startswith("#")]
    return [(owner, int(start), int(count)) for owner, start, count in fields]


def of(host: Any, name: str, path: str = "/etc/subuid") -> tuple[int, int]:
    found = [(start, count) for owner, start, count in ranges(host, path) if owner == name]
    assert len(found) == 1, found
    return found[0]


def apart(found: list[tuple[str, int, int]]) -> bool:
    return all(a[1] + a[2] <= b[1] or b[1] + b[2] <= a[1] for a, b in combinations(found, 2))


def state(host: Any) -> str:
    """Content, owner, mode and inode of both files, and that no lock is left."""
    return str(host.run("stat -c '%n %U %G %a %i' /etc/sub?id*; cat /etc/subuid /etc/subgid").out)


@pytest.fixture(scope="module")
def host(docker_host: Any) -> Iterator[Any]:
    names = " ".join(NAMES)
    docker_host.run("mkdir -p /root/subids-before && cp -p /etc/sub?id* /root/subids-before/")
    docker_host.run(
        f"set -e; for u in {names}; do id $u >/dev/null 2>&1 || useradd --system --create-home --shell /bin/sh $u; done"
    )
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in FILES:
            tar.add(ROOT / "plugins" / "module_utils" / name, f"{UTILS}/{name}")
    docker_host.run(f"mkdir -p {ON_HOST} && tar -xf - -C {ON_HOST}", stdin=archive.getvalue())
    docker_host.write(f"{ON_HOST}/one.py", ONE)
    yield docker_host
    docker_host.run(
        f"for u in {names}; do pkill -KILL -u $u; userdel --remove --force $u; done 2>/dev/null; "
        f"rm -f /etc/subuid* /etc/subgid*; cp -p /root/subids-before/* /etc/; rm -rf {ON_HOST} /root/subids-before"
    )


@pytest.fixture(autouse=True)
def as_before(host: Any) -> None:
    """Each test begins with what is in the image and a line of sysbox."""
    host.run(
        "cp -p /root/subids-before/* /etc/; for f in /etc/subuid /etc/subgid; do echo sysbox:165536:65536 >>$f; done"
    )


def test_ranges_that_rootless_engines_take(host: Any) -> None:
    before = state(host)
    told = host.module("subids", {"users": [{"name": "su-0"}]}, check=True, diff=True)
    assert told["changed"] and state(host) == before
    done = host.module("subids", {"users": [{"name": "su-0"}]}, diff=True)
    assert done["changed"] and done["diff"] == told["diff"] and done["users"] == told["users"]
    start, count = of(host, "su-0")
    assert (start, count) == of(host, "su-0", "/etc/subgid") and count == 65536
    for path in ("/etc/subuid", "/etc/subgid"):
        assert apart(ranges(host, path)) and ("sysbox", 165536, 65536) in ranges(host, path)
    assert host.run("stat -c '%U %G %a' /etc/subuid").out == "root root 644\n"
    for map_of in ("uid", "gid"):
        line = f"cd / && runuser -u su-0 -- unshare --map-root-user --map-auto cat /proc/self/{map_of}_map"
        rows = [tuple(map(int, row.split())) for row in host.run(line).out.splitlines()]
        assert any(outside == start and size >= 65535 for _inside, outside, size in rows), rows
    line = "cd / && runuser -u su-0 -- env HOME=/home/su-0 XDG_RUNTIME_DIR=/home/su-0 podman unshare cat /proc/self/uid_map"
    assert ["1", str(start), "65536"] in [row.split() for row in host.run(line).out.splitlines()]
    again = host.module("subids", {"users": [{"name": "su-0"}]})
    assert not again["changed"] and again["diff"] == []


def test_what_usermod_gave_is_kept(host: Any) -> None:
    host.run("usermod --add-subuids 300000-365535 --add-subgids 400000-400999 su-1")
    done = host.module("subids", {"users": [{"name": "su-1"}, {"name": "su-2"}]})
    found = {one["name"]: one for one in done["users"]}
    assert [one["start"] for one in found["su-1"]["uids"]] == [300000]
    assert found["su-1"]["gids"][0] == {"owner": "su-1", "start": 400000, "count": 1000}
    assert sum(one["count"] for one in found["su-1"]["gids"]) == 65536
    host.run("usermod --add-subuids 500000-500009 su-1")
    assert len([one for one in ranges(host, "/etc/subuid") if one[0] == "su-1"]) == 2
    gone = host.module("subids", {"users": [{"name": "su-1"}], "state": "absent"})
    assert gone["changed"] and "su-1" not in [one[0] for one in ranges(host, "/etc/subuid")]
    assert (
        of(host, "su-2")
        and not host.module("subids", {"users": [{"name": "su-1"}], "state": "absent"})["changed"]
    )


def test_many_at_once_with_usermod_among_them(host: Any) -> None:
    ours, theirs = NAMES[:8], NAMES[8:]
    jobs = [f"python3 {ON_HOST}/one.py {name}" for name in ours]
    jobs += [
        f"usermod --add-subuids {first}-{first + 65535} --add-subgids {first}-{first + 65535} {name}"
        for first, name in zip(range(700000, 1100000, 65536), theirs, strict=False)
    ]
    started = " ".join(f"({job}; echo $?) &" for job in jobs)
    done = host.run(f"{started} wait")
    assert done.out.split() == ["0"] * len(jobs), done.err
    for path in ("/etc/subuid", "/etc/subgid"):
        found = ranges(host, path)
        assert sorted(one[0] for one in found if one[0] in NAMES) == sorted(NAMES)
        assert apart(found), found
    assert host.run("ls /etc/subuid.* /etc/subgid.*", check=False).out == ""


@pytest.mark.parametrize(
    ("prepare", "args", "message"),
    [
        ("true", {"users": [{"name": "nobody-here"}]}, "users[0].name: 'nobody-here' is refused; allowed: a user on this host, or a uid"),
        (
            "echo x:165540:5 >>/etc/subgid",
            {"users": [{"name": "su-0"}]},
            "/etc/subgid: line 2 sysbox:165536:65536 overlaps line 3 x:165540:5; give one of the two other ids by hand, "
            "nothing was changed",
        ),
        (
            "true",
            {"users": [{"name": "su-0"}], "highest": 200000},
            "users[0].count: 65536 is refused; allowed: at most 0 for user su-0: /etc/subuid has no 65536 free uids in a row "
            "from 100000 to 200000, at most 0, so 65536 are missing; in the way: line 1 admin:100000:65536, line 2 "
            "sysbox:165536:65536",
        ),
        ("true", {"users": [{"name": "sysbox"}]}, "users[0].name: 'sysbox' is refused; allowed: another user; sysbox keeps its range itself"),
    ],
)  # fmt: skip
def test_refused(host: Any, prepare: str, args: dict[str, Any], message: str) -> None:
    host.run(prepare)
    before = state(host)
    answer = host.module("subids", args)
    assert answer.get("failed") and answer["msg"] == message
    assert state(host) == before


def test_without_users_it_tells_what_everybody_has(host: Any) -> None:
    before = state(host)
    told = host.module("subids")
    assert not told["changed"] and told["overlaps"] == [] and state(host) == before
    assert told["subuid"][-1] == {"owner": "sysbox", "start": 165536, "count": 65536}
