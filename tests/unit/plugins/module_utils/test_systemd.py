# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _systemd as systemd
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._systemd import Links, UnitState
from hypothesis import given
from hypothesis import strategies as st
from support import table

# systemd 257, three units and a pattern asked for in one call.
SHOWN = """\
Result=success
Id=m-r@a.service
Names=m-r@a.service
LoadState=loaded
ActiveState=inactive
SubState=dead
FragmentPath=/etc/systemd/system/m-r@.service
DropInPaths=
UnitFileState=disabled
CanReload=yes
NeedDaemonReload=no

Id=nope.service
Names=nope.service
LoadState=not-found
ActiveState=inactive
SubState=dead
FragmentPath=
DropInPaths=
UnitFileState=
CanReload=no
NeedDaemonReload=no

Result=exit-code
Id=docker.service
Names=docker.service dockerd.service
LoadState=loaded
ActiveState=failed
SubState=failed
FragmentPath=/usr/lib/systemd/system/docker.service
DropInPaths=/etc/systemd/system/docker.service.d/50-ours.conf /run/systemd/system/docker.service.d/90.conf
UnitFileState=enabled
CanReload=yes
NeedDaemonReload=yes
"""
FILES = {
    "/etc/systemd/system/docker.service.d/50-ours.conf": "# Managed by matryoshka.host: docker\n[Service]\nA=1\n",
    "/run/systemd/system/docker.service.d/90.conf": "[Service]\nExecStart=\nExecStart=/bin/false\n",
}
ASKED = ("systemctl", "show", "--property", ",".join(systemd.PROPERTIES), "--")


def test_parse_show() -> None:
    blocks = systemd.parse_show(SHOWN)
    assert [block["Id"] for block in blocks] == ["m-r@a.service", "nope.service", "docker.service"]
    assert blocks[0]["DropInPaths"] == ""
    assert systemd.parse_show("") == []


def test_read_units() -> None:
    names = ["docker.service", "m-r@*.service", "nope.service"]
    run = table({(*ASKED, *names): SHOWN})
    links = Links(frozenset({"docker.service"}), frozenset({"docker.service"}))
    states = systemd.read_units(
        run, [*names, "m-r@.service"], links=links, read=lambda path: FILES.get(path, "")
    )
    assert set(states) == {"m-r@a.service", "nope.service", "docker.service", "dockerd.service"}
    docker = states["docker.service"]
    assert (docker.failed, docker.up, docker.enabled, docker.known) == (True, False, True, True)
    assert docker.need_daemon_reload
    assert docker.foreign_drop_ins == {"/run/systemd/system/docker.service.d/90.conf": ["Service.ExecStart"]}
    assert docker.properties()["DropInPaths"] == list(FILES)
    assert not states["nope.service"].known
    assert states["m-r@a.service"].result == "success"


def test_nothing_is_started_for_nothing() -> None:
    assert systemd.read_units(table({}), ["a@.service"]) == {}


def test_silent_systemd_is_an_error() -> None:
    message = "System has not been booted with systemd as init system (PID 1). Can't operate."
    run = table({(*ASKED, "a.service"): Result(1, "", message)})
    with pytest.raises(HostError, match=r"systemd doesn't answer: .*not been booted"):
        systemd.read_units(run, ["a.service"], links=Links())


@pytest.mark.parametrize(
    ("before", "configured", "anywhere", "after"),
    [
        ("enabled", set(), set(), "disabled"),
        ("enabled", set(), {"a.service"}, "enabled"),
        ("enabled", {"alias.service"}, {"alias.service"}, "enabled"),
        ("disabled", {"a.service"}, {"a.service"}, "enabled"),
        ("disabled", set(), {"a.service"}, "disabled"),
        ("", {"a.service"}, {"a.service"}, "enabled"),
        ("static", {"a.service"}, {"a.service"}, "static"),
        ("masked", {"a.service"}, {"a.service"}, "masked"),
    ],
)
def test_symlinks_outweigh_memory(before: str, configured: set[str], anywhere: set[str], after: str) -> None:
    state = UnitState("a.service", unit_file_state=before, names=("a.service", "alias.service"))
    links = Links(frozenset(configured), frozenset(anywhere))
    assert systemd.correct_enabled(state, links).unit_file_state == after


def test_enabled_links(tmp_path: Path) -> None:
    etc, lib = tmp_path / "etc", tmp_path / "lib"
    for folder in (etc / "multi-user.target.wants", lib / "timers.target.wants", etc / "x.service.d"):
        folder.mkdir(parents=True)
    (etc / "multi-user.target.wants" / "a@1.service").symlink_to("/etc/systemd/system/a@.service")
    (etc / "multi-user.target.wants" / "no-link.service").write_text("")
    (etc / "sshd.service").symlink_to("/usr/lib/systemd/system/ssh.service")
    (lib / "timers.target.wants" / "b.timer").symlink_to("../b.timer")
    links = systemd.enabled_links([str(etc), str(lib), str(tmp_path / "absent")])
    assert links.configured == {"a@1.service", "ssh.service"}
    assert links.anywhere == {"a@1.service", "ssh.service", "b.timer"}


def test_masks(tmp_path: Path) -> None:
    etc, run = tmp_path / "etc", tmp_path / "run"
    etc.mkdir()
    run.mkdir()
    for name in ("both", "late", "hidden"):
        (run / f"{name}.service").symlink_to("/dev/null")
    (etc / "both.service").write_text("")
    (etc / "hidden.service").write_text("[Service]\n")
    (etc / "alias.service").symlink_to("/usr/lib/systemd/system/x.service")
    found = {
        name: systemd.masks_of(f"{name}.service", [str(etc), str(run)])
        for name in ("both", "late", "hidden", "alias", "absent")
    }
    assert found == {
        "both": (f"{etc}/both.service", f"{run}/both.service"),
        "late": (f"{run}/late.service",),
        "hidden": (),
        "alias": (),
        "absent": (),
    }


def test_a_mask_counts_before_systemd_has_seen_it() -> None:
    block = (
        "Id=a.service\nNames=a.service\nLoadState={}\nActiveState=active\nFragmentPath=/nowhere/a.service\n"
    )
    argv = (*ASKED, "a.service")

    def state(load_state: str, *masks: str) -> UnitState:
        run = table({argv: block.format(load_state)})
        return systemd.read_units(run, ["a.service"], links=Links(), masks=lambda _name: masks)["a.service"]

    assert state("loaded", "/etc/systemd/system/a.service").masked
    assert not state("loaded").masked
    gone = state("masked")
    assert (gone.masked, gone.mask_is_gone, gone.stale) == (False, True, True)


def test_another_init_is_named(tmp_path: Path) -> None:
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/comm").write_text("tini\n")
    with pytest.raises(HostError, match="PID 1 of this host is tini, not systemd"):
        systemd.require_systemd(str(tmp_path))
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    systemd.require_systemd(str(tmp_path))


KEY = st.text("ABCDEFGHabcdefgh", min_size=1, max_size=12)
LINE = st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=30)


@given(st.lists(st.dictionaries(KEY, LINE, min_size=1, max_size=6), max_size=6))
def test_rendered_blocks_are_parsed_back(blocks: list[dict[str, str]]) -> None:
    text = "\n".join("".join(f"{key}={value}\n" for key, value in block.items()) for block in blocks)
    assert systemd.parse_show(text) == blocks


@given(st.text(max_size=300))
def test_any_output_is_parsed(text: str) -> None:
    for block in systemd.parse_show(text):
        assert block
        assert all("\n" not in value for value in block.values())
