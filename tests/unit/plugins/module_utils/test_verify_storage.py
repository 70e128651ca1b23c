# SPDX-License-Identifier: GPL-3.0-or-later
"""What planned volumes lack becomes findings: not mounted, something else mounted, options, quotas, rules."""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _verify_storage as storage
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import Expect, Observed
from support import table
from support.verify_host import Host

PATH = "/var/lib/docker"
UNIT = "var-lib-docker.mount"
CONTENT = f"[Mount]\nWhat=/dev/vdb\nWhere={PATH}\n\n[Install]\nWantedBy=multi-user.target\n"
UUID = "3c9f6f2e-6d1c-4e0e-9a59-0a4d5c1f0a11"
PLAN = {"name": "docker", "path": PATH, "options": ["noatime", "prjquota", "nofail"]}


def volume(**values: Any) -> dict[str, Any]:
    """A volume as ``storage_volume_info`` tells of it."""
    return {
        "name": "docker",
        "path": PATH,
        "kind": "device",
        "unit": UNIT,
        "units": ["docker.service"],
        "uuid": UUID,
        "directory": None,
        "mounted": True,
        "steps": [],
        "refusals": [],
        "notes": [],
        **values,
    }


def quota(**values: Any) -> dict[str, Any]:
    return {"path": f"{PATH}/a", "changed": False, "size": 10 << 30, "inodes": None, **values}


def host_with_volume(**values: Any) -> Host:
    host = Host()
    host.expect["storage"] = {"volumes": [PLAN], "quotas": []}
    host.seen.volumes = {
        "volumes": [volume()],
        "pending": [],
        "config": {"files": [{"path": "/etc/udev/rules.d/61-matryoshka-storage.rules", "content": ""}]},
        "units": [],
        "missing_directories": [],
        "quotas": [],
        **values,
    }
    return host


def change(host: Host, **values: Any) -> None:
    host.seen.volumes["volumes"][0].update(values)


Change = Callable[[Host], Any]

# (what is changed, the codes that are found, words of subject and text)
CASES: dict[str, tuple[Change, list[str], str]] = {
    "as planned": (lambda host: None, [], ""),
    "can't be compared": (
        lambda host: (host.seen.volumes.clear(), host.seen.volumes.update(error="needs root")),
        ["storage_unread"],
        "storage: the volumes can't be compared with the plan: needs root",
    ),
    "engine started on the empty mount point": (
        lambda host: change(host, mounted=False, steps=["mount_point"]),
        ["volume_unmounted"],
        f"volume {PATH}: nothing is mounted at {PATH}, where UUID {UUID} should be; "
        "docker.service runs all the same and writes beneath",
    ),
    "disk gone, engine waits": (
        lambda host: (
            change(host, mounted=False, refusals=["storage_volumes[0].device: no disk fits"]),
            host.unit("docker.service", active_state="inactive"),
        ),
        ["unit_inactive", "volume_unmounted"],
        "should be; storage_volumes[0].device: no disk fits",
    ),
    "directory not shown": (
        lambda host: change(host, kind="directory", uuid=None, directory="/srv/docker", mounted=False),
        ["volume_unmounted"],
        "where /srv/docker should be",
    ),
    "another device mounted": (
        lambda host: change(host, refusals=["storage_volumes[0].path: /dev/sdb (ext4) is mounted there"]),
        ["volume_mount"],
        f"volume {PATH}: storage_volumes[0].path: /dev/sdb (ext4) is mounted there",
    ),
    "options lost": (
        lambda host: change(host, steps=["remount"]),
        ["volume_options"],
        f"{PATH} is mounted without options that were planned (noatime,prjquota,nofail)",
    ),
    "scheduler changed": (
        lambda host: change(host, steps=["queue"]),
        ["volume_queue"],
        "another scheduler or read-ahead than planned",
    ),
    "mount point open": (
        lambda host: change(host, steps=["mount_point"]),
        ["volume_mount_point"],
        "isn't protected",
    ),
    "plain directory gone": (
        lambda host: change(host, kind="directory", unit=None, directory=PATH, steps=["directory"]),
        ["volume_missing"],
        f"the directory {PATH} isn't there",
    ),
    "rules changed": (
        lambda host: host.seen.volumes.update(pending=["rules"]),
        ["storage_rules"],
        "/etc/udev/rules.d/61-matryoshka-storage.rules isn't as planned",
    ),
    "no rules wanted and some there": (
        lambda host: host.seen.volumes.update(pending=["rules"], config={"files": []}),
        ["storage_rules"],
        "a file of rules isn't as planned",
    ),
    "units changed": (
        lambda host: host.seen.volumes.update(pending=["units"]),
        ["storage_units"],
        "units that mount volumes",
    ),
    "quota lifted": (
        lambda host: host.seen.volumes.update(pending=["quotas"], quotas=[quota(changed=True, size=None)]),
        ["quota"],
        f"quota of {PATH}/a: it isn't what was planned: now at most no limit at all",
    ),
    "quota changed": (
        lambda host: host.seen.volumes.update(
            pending=["quotas"], quotas=[quota(), quota(path=f"{PATH}/b", changed=True, size=1024, inodes=7)]
        ),
        ["quota"],
        f"quota of {PATH}/b: it isn't what was planned: now at most 1024 bytes and 7 inodes",
    ),
    "directory with a quota gone": (
        lambda host: (
            host.seen.volumes.pop("quotas"),
            host.seen.volumes.update(pending=["quotas"], missing_directories=[f"{PATH}/a"]),
        ),
        ["quota"],
        f"quotas aren't as planned: {PATH}/a isn't there",
    ),
    "quota that nobody planned": (
        lambda host: host.seen.volumes.update(pending=["quotas"], quotas=[quota()]),
        ["quota"],
        "there are some that nobody planned",
    ),
    "quotas wait for a volume": (
        lambda host: (
            host.seen.volumes.pop("quotas"),
            host.seen.volumes.update(pending=["quotas"]),
            change(host, steps=["remount"]),
        ),
        ["volume_options"],
        "",
    ),
    "to grow": (lambda host: change(host, steps=["grow_partition", "grow"]), [], ""),
}


@pytest.mark.parametrize("case", CASES)
def test_a_difference_is_named(case: str) -> None:
    changing, codes, words = CASES[case]
    host = host_with_volume()
    changing(host)
    findings = [one for one in host.report().findings if one.subject != "unit matryoshka-runner@ci.service"]
    told = "\n".join(f"{one.subject}: {one.text}" for one in findings)
    assert sorted(one.code for one in findings) == codes, told
    assert words in told
    assert all(one.remedy for one in findings)


def test_what_the_play_will_do_is_a_note() -> None:
    host = host_with_volume()
    change(host, steps=["grow"])
    assert "volume_later" in {one.code for one in host.report().notes}


def test_a_remedy_stops_what_would_start_the_engine_again() -> None:
    host = host_with_volume()
    change(host, mounted=False)
    (finding,) = host.report().findings
    assert finding.remedy.startswith("systemctl stop docker.socket docker.service; look at what was written")
    assert f"systemctl start '{UNIT}'" in finding.remedy


def test_a_root_on_a_volume_that_is_not_mounted_is_told_once() -> None:
    host = host_with_volume()
    change(host, mounted=False)
    engine = host.seen.roots[0]
    engine["reasons"].append({"code": "not_mounted", "severity": "broken", "text": "x", "remedy": "y"})
    assert [one.code for one in host.report().findings] == ["volume_unmounted"]
    engine["path"] = "/var/lib/docker-two"
    assert [one.code for one in host.report().findings] == ["volume_unmounted", "not_mounted"]


def test_files_on_a_volume_that_is_not_mounted_are_not_told_one_by_one() -> None:
    host = host_with_volume()
    change(host, path="/var/lib/matryoshka", mounted=False)
    host.seen.files["/var/lib/matryoshka/runners/ci/.matryoshka"] = None
    assert [one.code for one in host.report().findings] == ["volume_unmounted"]
    host.seen.files["/usr/local/sbin/matryoshka"] = None
    assert [one.code for one in host.report().findings] == ["volume_unmounted", "file_missing"]


def test_units_of_volumes_are_checked_as_others_are() -> None:
    host = host_with_volume(
        units=[{"name": UNIT, "content": CONTENT, "state": "started", "enabled": True}],
        pending=["units"],
    )
    runner = host.seen.units["docker.service"]
    host.seen.units[UNIT] = replace(runner, name=UNIT, unit_file_state="disabled")
    findings = {one.code: one for one in host.report().findings}
    assert "unit_disabled" in findings and "storage_units" not in findings
    assert findings["unit_disabled"].subject == f"unit {UNIT}"


def test_nothing_promised_is_nothing_asked() -> None:
    expect = Expect.read({})
    assert storage.observe_volumes(expect, table({})) == {}
    assert storage.with_volume_units(expect, {}) is expect
    assert Host().report().findings == []
    assert Observed().volumes == {}
