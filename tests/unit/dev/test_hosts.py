# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path
from typing import Any

import hosts
import pytest
import qemu
from hosts import Gone, Host, inventory, reach, wait_for_boot, wait_for_ssh, write_inventory
from images import recipe
from machine import Failure, has_sys_resource, start_options, unified_cgroups
from vm_image import Boot

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


def test_a_machine_s_own_variables_are_in_the_inventory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu, "HOSTS", tmp_path)
    boot = Boot(Path("/b/vmlinuz"), Path("/b/initrd"), Path("/b/root.img"))
    machine = qemu.Machine("site", "vm-debian13", "root", "/key", 2222, boot)
    machine.write()
    bare = json.loads(inventory([reach(machine)]))["all"]["hosts"]["site"]
    assert bare["ansible_port"] == 2222
    machine.given.write_text('{"docker_data_root": "/srv/fast/docker"}', encoding="utf-8")
    assert qemu.Machine.read("site") == machine
    full = json.loads(inventory([reach(machine)]))["all"]["hosts"]["site"]
    assert full == {**bare, "docker_data_root": "/srv/fast/docker"}


@pytest.mark.parametrize("image", ["debian13", "vm-debian13"])
def test_a_host_of_another_kind_gives_way(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"container", "machine"}

    def remove(names: list[str]) -> None:
        assert names == ["site"]
        there.clear()

    class Made(Exception):
        """The new host would be made now."""

    def made(*_: object, **__: object) -> None:
        raise Made

    monkeypatch.setattr(hosts, "remove", remove)
    monkeypatch.setattr(hosts, "create_machine", made)
    monkeypatch.setattr(hosts, "ensure_image", made)
    monkeypatch.setattr(hosts, "identity", lambda: Path("/key"))
    monkeypatch.setattr(qemu.Machine, "read", lambda _name: "machine" in there or None)
    monkeypatch.setattr(
        hosts, "inspect", lambda _name: {"image": image, "user": "admin"} if "container" in there else None
    )
    with pytest.raises(Made):
        hosts.create("site", image, "admin")
    assert not there


class Mortal:
    """Stands in for a machine under QEMU, and for SSH to it: QEMU ends by itself at its first starts.

    :param deaths: how many of them.
    """

    def __init__(self, deaths: int) -> None:
        self.deaths = deaths
        self.starts: list[list[str]] = [[]]

    @property
    def pid(self) -> int:
        return 0 if len(self.starts) <= self.deaths else 4711

    def start(self, without: list[str]) -> None:
        self.starts.append(without)

    def last_lines(self, _lines: int) -> str:
        return "inconsistent MTRRs"

    def ssh(self, *_words: Any, **_options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0 if self.pid else 255, "", "Connection refused")


def boot_of(deaths: int, monkeypatch: pytest.MonkeyPatch) -> Mortal:
    machine = Mortal(deaths)
    monkeypatch.setattr(subprocess, "run", machine.ssh)
    wait_for_boot(machine, HOST, ["MX-FAST-1"])  # type: ignore[arg-type]
    return machine


def test_an_emulator_that_ends_by_itself_is_started_again_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boot_of(0, monkeypatch).starts == [[]]
    assert capsys.readouterr().err == ""
    assert boot_of(1, monkeypatch).starts == [[], ["MX-FAST-1"]]
    said = capsys.readouterr().err
    assert "QEMU of site has ended by itself" in said and "inconsistent MTRRs" in said


def test_an_emulator_that_ends_twice_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Gone, match="QEMU of site has ended by itself"):
        boot_of(2, monkeypatch)


def test_a_host_that_runs_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = subprocess.CompletedProcess([], 255, "", "Connection refused")
    monkeypatch.setattr(subprocess, "run", lambda *_words, **_options: refused)
    with pytest.raises(Failure, match=r"no SSH to site at 10\.88\.0\.2:22: Connection refused"):
        wait_for_ssh(HOST, 0.3)
