# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
from hosts import Host, inventory, write_inventory
from images import recipe
from machine import Failure, has_sys_resource, start_options, unified_cgroups

LIMITS = {"nofile": 20000, "nproc": 5000}
HOST = Host(
    "site", "matryoshka-site-0", "debian13", "10.88.0.2", 22, "admin", "/checkout/.dev/ssh/id_ed25519"
)


@pytest.mark.parametrize(
    ("bounding", "expected"),
    [("000001ffffffffff", True), ("000001fffeffffff", False), ("0000000001000000", True), ("0", False)],
)
def test_sys_resource(bounding: str, expected: bool) -> None:
    assert has_sys_resource(f"Name:\tcat\nCapBnd:\t{bounding}\nCapAmb:\t0\n") is expected


def test_cgroups(tmp_path: Path) -> None:
    assert not unified_cgroups(tmp_path)
    (tmp_path / "cgroup.controllers").touch()
    assert unified_cgroups(tmp_path)


def test_an_ordinary_machine_needs_nothing_special() -> None:
    assert start_options(True, True, LIMITS) == ([], ["--systemd=always"])


def test_limits_only_where_they_cannot_be_raised() -> None:
    options = start_options(True, False, LIMITS)[1]
    assert options[-4:] == ["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=5000:5000"]
    unlimited = start_options(True, False, {"nproc": resource.RLIM_INFINITY})[1]
    assert "--ulimit" not in unlimited


def test_hybrid_cgroups_need_runc_and_a_namespace() -> None:
    runtime, options = start_options(False, True, LIMITS)
    assert runtime == ["--runtime", "runc"]
    assert options[options.index("--cgroupns") + 1] == "private"
    assert "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1" in options
    assert "--ulimit" not in options


def test_recipes_differ_and_an_unknown_one_is_named() -> None:
    assert len({recipe(image)[2] for image in ("debian12", "debian13", "debian13-docker")}) == 3
    assert "docker.io" not in recipe("debian13")[1]
    with pytest.raises(Failure, match="no image debian9: there are debian12, debian13"):
        recipe("debian9")


def test_inventory_needs_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "inventory.json"
    write_inventory(path, [HOST])
    assert path.read_text(encoding="utf-8") == inventory([HOST])
    written = json.loads(path.read_text(encoding="utf-8"))["all"]["hosts"]["site"]
    assert written["ansible_host"] == "10.88.0.2"
    assert Path(written["ansible_ssh_private_key_file"]).is_absolute()
    assert "StrictHostKeyChecking=no" in written["ansible_ssh_common_args"]
