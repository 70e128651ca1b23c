# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount units, guards and udev's rules from plans."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._storage_plan import plan_storage
from ansible_collections.matryoshka.host.plugins.module_utils._storage_units import (
    escape,
    plan_rules,
    plan_units,
)
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_wanted import parse_wanted
from hypothesis import given
from hypothesis import strategies as st

UUID = "2b2b6c1e-0000-5000-8000-000000000001"
DOCKER = {"path": "/srv/ci/docker", "unit": "docker.service"}


def planned(**options: Any) -> list[dict[str, Any]]:
    given = {"name": "ci", "path": "/srv/ci", "device": {"serial": "S1"}, **options}
    return [{**one, "uuid": UUID} for one in plan_storage([given], [DOCKER])]


# As systemd-escape --path of systemd 257 has them.
@pytest.mark.parametrize(
    ("path", "escaped"),
    [
        ("/", "-"),
        ("/srv/ci", "srv-ci"),
        ("/srv/ci-data", r"srv-ci\x2ddata"),
        ("/.hidden/.x", r"\x2ehidden-.x"),
        ("/a_b:c.d", "a_b:c.d"),
        ("/dev/disk/by-uuid/2b-1", r"dev-disk-by\x2duuid-2b\x2d1"),
        ("/grün", r"gr\xc3\xbcn"),
    ],
)
def test_names_are_escaped_as_systemd_does(path: str, escaped: str) -> None:
    assert escape(path) == escaped


@given(
    st.lists(
        st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="/"), min_size=1),
        min_size=1,
    )
)
def test_escaped_names_can_be_read_back(parts: list[str]) -> None:
    name = escape("/" + "/".join(parts))
    plain = re.sub(rb"\\x([0-9a-f]{2})", lambda f: bytes([int(f[1], 16)]), name.replace("-", "/").encode())
    assert plain.decode() == "/".join(parts)


def by_name(units: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {unit["name"]: unit for unit in units}


def test_with_udev_the_mount_is_bound_to_its_disk_and_comes_back_with_it() -> None:
    units = by_name(plan_units(planned(), udev=True, trim=["/srv/ci", "/srv/b"]))
    assert set(units) == {
        "srv-ci.mount",
        "matryoshka-returned-ci.service",
        "docker.service",
        "fstrim.service",
        "fstrim.timer",
    }
    (drop_in,) = units["fstrim.service"]["drop_ins"]
    assert [line.split()[-1] for line in drop_in["content"].splitlines()[1:]] == ["/srv/b", "/srv/ci"]
    text = units["srv-ci.mount"]["content"]
    device = r"dev-disk-by\x2duuid-2b2b6c1e\x2d0000\x2d5000\x2d8000\x2d000000000001.device"
    assert f"What=/dev/disk/by-uuid/{UUID}\n" in text and f"BindsTo={device}\n" in text
    assert "Options=noatime,nofail,prjquota\n" in text and "Type=xfs\n" in text
    assert f"WantedBy=local-fs.target {device}\n" in text and "RequiredBy" not in text
    assert "Wants=docker.service\n" in text
    assert units["srv-ci.mount"]["on_change"] == "reload"


def test_the_mount_of_a_disk_that_went_away_gives_way_to_the_one_that_came_back() -> None:
    volumes = planned(name="b", path="/srv/b-2")
    returned = by_name(plan_units(volumes, udev=True, trim=[]))["matryoshka-returned-b.service"]
    assert returned["enabled"] is True and "state" not in returned
    # A unit's name would lose its escapes there.
    assert "exec systemctl --no-block restart /srv/b-2'\n" in returned["content"]
    assert "\nWantedBy=dev-disk-by\\x2duuid-" in returned["content"]


def test_without_udev_a_unit_finds_the_disk() -> None:
    units = by_name(plan_units(planned(), udev=False, trim=[]))
    assert set(units) == {"matryoshka-disk-ci.service", "srv-ci.mount", "docker.service"}
    assert f"UUID={UUID}" in units["matryoshka-disk-ci.service"]["content"]
    text = units["srv-ci.mount"]["content"]
    assert "What=/run/matryoshka-disks/ci\n" in text and "Requires=matryoshka-disk-ci.service\n" in text
    assert ".device" not in text


def test_an_engine_never_starts_without_its_mounts_and_stops_with_them() -> None:
    volumes = planned() + [{**one, "units": ["docker.service"]} for one in planned(name="b", path="/srv/b-2")]
    (drop_in,) = by_name(plan_units(volumes, udev=True, trim=[]))["docker.service"]["drop_ins"]
    assert drop_in == {
        "name": "50-storage.conf",
        "content": "[Unit]\nRequiresMountsFor=/srv/b-2 /srv/ci\nBindsTo=srv-b\\x2d2.mount srv-ci.mount\n"
        "After=srv-b\\x2d2.mount srv-ci.mount\n",
    }


def test_a_directory_is_bound_after_what_it_lies_on() -> None:
    units = by_name(plan_units(planned(device=None, directory="/data/ci"), udev=True, trim=[]))
    text = units["srv-ci.mount"]["content"]
    assert (
        "RequiresMountsFor=/data/ci\n" in text
        and "Options=bind,nofail\n" in text
        and "What=/data/ci\n" in text
    )
    assert "BindsTo=srv-ci.mount" in units["docker.service"]["drop_ins"][0]["content"]


def test_a_directory_in_its_place_needs_no_units() -> None:
    assert plan_units(planned(device=None, directory="/srv/ci"), udev=True, trim=[]) == []


@pytest.mark.parametrize("udev", [True, False])
def test_systemd_units_takes_them(udev: bool) -> None:
    wanted = parse_wanted("storage", plan_units(planned(), udev=udev, trim=["/srv/ci"]))
    assert len(wanted) == 5


def test_rules_know_a_disk_by_its_serial() -> None:
    volumes = planned(read_ahead_kb=256, scheduler="none")
    text = plan_rules(volumes, {"ci": [{"name": "nvme0n1", "serial": "S5G-1"}]})
    rules = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(rules) == 3
    assert rules[0] == (
        'ACTION=="add|change", SUBSYSTEM=="block", ENV{DEVTYPE}=="disk", ENV{ID_SERIAL_SHORT}=="S5G-1", '
        'ATTR{queue/scheduler}="none", ATTR{queue/read_ahead_kb}="256"'
    )
    assert 'ENV{ID_SERIAL}=="S5G-1"' in rules[1]
    assert 'KERNEL=="dm-*"' in rules[2] and UUID in rules[2] and "scheduler" not in rules[2]


def test_rules_know_a_disk_without_a_plain_serial_by_its_name() -> None:
    text = plan_rules(planned(scheduler="none"), {"ci": [{"name": "loop3", "serial": "/x.img"}]})
    assert 'KERNEL=="loop3"' in text and "ID_SERIAL" not in text


def test_no_wish_no_rules() -> None:
    assert plan_rules(planned(), {"ci": [{"name": "sda", "serial": "X"}]}) == ""
