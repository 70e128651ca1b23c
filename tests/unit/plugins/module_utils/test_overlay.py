# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole answer of overlay_info over a made-up host, with a recorded probe."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _overlay as overlay
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from ansible_collections.matryoshka.host.plugins.module_utils._mounts import Disks, MountTable
from hypothesis import given
from hypothesis import strategies as st
from overlay_recorded import raw

MOUNTS = (
    "1 1 0:1 / / rw - overlay overlay rw\n"
    "2 1 8:1 / /data rw - xfs /dev/sda1 rw\n"
    "3 1 0:40 / /ro ro - tmpfs tmpfs ro\n"
)


class Probe:
    """A runner that answers as the probe did on the file systems of these directories."""

    def __init__(self, recorded: dict[str, str], result: Result | None = None) -> None:
        self.recorded = recorded
        self.result = result
        self.calls: list[tuple[Sequence[str], str, float]] = []

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        self.calls.append((argv, stdin or "", timeout))
        if self.result:
            return self.result
        found = {path: raw(name) for path, name in self.recorded.items()}
        return Result(0, json.dumps({path: {**one, "users": {}} for path, one in found.items()}))


@pytest.fixture
def view(tmp_path: Path) -> View:
    for name in ("data/docker/overlay2/l", "ro", "etc", "proc/self", "proc/sys/user"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(MOUNTS)
    (tmp_path / "proc/filesystems").write_text("nodev\toverlay\n\txfs\n")
    (tmp_path / "proc/sys/user/max_user_namespaces").write_text("900\n")
    (tmp_path / "etc/file").write_text("")
    (tmp_path / "etc/subuid").write_text("4242:100000:65536\n")
    (tmp_path / "etc/subgid").write_text("4242:100000:65536\n")
    return View(str(tmp_path))


def test_the_whole_answer(view: View) -> None:
    run = Probe({"/data/docker": "xfs", "/opt/new": "overlay", "/ro": "read-only"})
    params = {"paths": ["/data/docker", "/opt/new", "/ro", "/etc/file/x", "/data/docker"]}
    found = overlay.answer(params, run, view)
    paths = found["paths"]
    assert list(paths) == ["/data/docker", "/opt/new", "/ro", "/etc/file/x"]
    data, new, read_only, file = paths.values()
    assert (data["filesystem"], data["source"], data["prior_drivers"]) == ("xfs", "/dev/sda1", ["overlay2"])
    assert data["engines"]["docker"]["why"] == "there is data of it"
    assert (new["exists"], new["probed_in"], new["filesystem"]) == (False, "/", "overlay")
    assert new["engines"]["docker"]["will_get"] == "fuse-overlayfs"
    assert new["drivers"]["dind"]["bind"]["will_get"] == "vfs"
    for entry, code in ((read_only, "read_only"), (file, "not_a_directory")):
        assert [one["code"] for one in entry["reasons"]] == [code]
        assert (entry["probed"], entry["native"]) == (False, None)
        assert entry["drivers"]["dind"]["host"]["will_get"] is None
    assert {tuple(sorted(entry)) for entry in paths.values()} == {tuple(sorted(data))}
    assert found["kernel"]["overlay_loaded"] is True
    assert found["kernel"]["settings"]["user.max_user_namespaces"] == "900"
    assert found["kernel"]["settings"]["kernel.unprivileged_userns_clone"] is None
    assert len(run.calls) == 1
    assert "/etc/file" not in run.calls[0][1].rpartition("module.main(")[2]


def test_a_path_that_cannot_be_probed_starts_nothing(view: View) -> None:
    run = Probe({})
    assert overlay.answer({"paths": ["/etc/file"]}, run, view)["paths"]["/etc/file"]["probed"] is False
    assert run.calls == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"paths": []}, "paths: [] is refused; allowed: at least one absolute path"),
        ({"paths": ["/data", "data"]}, "paths: 'data' is refused; allowed: absolute paths"),
        ({"paths": ["/data\0"]}, "paths: '/data\\x00' is refused; allowed: absolute paths"),
        (
            {"paths": ["/data"], "users": ["nosuchuser"]},
            "users: 'nosuchuser' is refused; allowed: users of this",
        ),
        (
            {"paths": ["/data"], "users": ["root"]},
            "users: 'root' is refused; allowed: users of this host other",
        ),
        ({"paths": ["/data"], "users": ["0"]}, "users: '0' is refused"),
        ({"paths": ["/data"], "users": ["4294967295"]}, "users: '4294967295' is refused"),
        ({"paths": ["/data"], "modes": ["dnd"]}, "modes: 'dnd' is refused; allowed: one of dind"),
        ({"paths": ["/data"], "timeout": 0}, "timeout: 0 is refused; allowed: 1 second or more"),
        ({"paths": ["/data"], "docker_version": "26.x"}, "docker_version: '26.x' is refused"),
    ],
)
def test_bad_input_is_refused_before_anything_is_started(
    view: View, params: dict[str, Any], message: str
) -> None:
    run = Probe({})
    with pytest.raises(InputError) as refused:
        overlay.answer(params, run, view)
    assert message in str(refused.value)
    assert run.calls == []


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (Result(127, "", "python3: not found"), "the probe of overlayfs ended with 127: python3: not found"),
        (Result(1, "", "Traceback\nOSError: no\n"), "ended with 1: OSError: no"),
        (Result(124), "ended with 124: no output"),
    ],
)
def test_a_probe_that_fails(view: View, result: Result, message: str) -> None:
    with pytest.raises(HostError) as failed:
        overlay.answer({"paths": ["/data"]}, Probe({}, result), view)
    assert message in str(failed.value)


def test_users_and_an_old_docker(view: View) -> None:
    run = Probe({"/data": "btrfs"})
    answered = raw("btrfs")
    answered["users"] = {"4242": answered["users"]["ci"]}
    run.result = Result(0, json.dumps({"/data": answered}))
    params = {"paths": ["/data"], "users": ["4242", "4242"], "docker_version": "20.10.24", "modes": ["dind"]}
    entry = overlay.answer(params, run, view)["paths"]["/data"]
    user = entry["users"]["4242"]
    assert (user["uid"], user["subuids"], user["engines"]["rootless_docker"]["will_get"]) == (
        4242,
        65536,
        "overlay2",
    )
    assert "'uid_map': [(0, 4242, 1), (1, 100000, 65536)]" in run.calls[0][1]
    assert run.calls[0][1].count("'name': '4242'") == 1


def test_podman_s_configuration_counts(view: View) -> None:
    folder = Path(view.path("/etc/containers"))
    folder.mkdir()
    (folder / "storage.conf").write_text('[storage]\ndriver = "overlay"\n')
    entry = overlay.answer({"paths": ["/"]}, Probe({"/": "overlay"}), view)["paths"]["/"]
    assert entry["engines"]["podman"]["mount_program"] is True
    assert overlay.read_podman_driver(view) == "overlay"


def test_a_file_system_that_does_not_answer(view: View) -> None:
    stuck = threading.Event()

    class Stuck(View):
        def real(self, path: str) -> str:
            stuck.wait(5)
            return path

    mounts = MountTable.parse(MOUNTS)
    known = overlay.read_facts("/data/x", Stuck(view.root), mounts, Disks(view.root), 0.05)
    stuck.set()
    assert (known["failed"]["failed"], known["exists"], known["filesystem"]) == ("timeout", None, "xfs")
    answered = overlay.read_facts("/data/x", view, mounts, Disks(view.root), 5.0)
    assert set(known) == set(answered)


@pytest.mark.parametrize(("version", "major"), [(None, None), ("26.1.5", 26), ("20.10.24", 20), ("29", 29)])
def test_docker_major(version: str | None, major: int | None) -> None:
    assert overlay.docker_major(version) == major


@given(
    st.integers(1, 60000), st.lists(st.tuples(st.integers(100000, 10**9), st.integers(0, 70000)), max_size=8)
)
def test_an_id_map_has_no_gap_inside(own: int, ranges: list[tuple[int, int]]) -> None:
    mapped = overlay.id_map(own, ranges)
    assert mapped[0] == (0, own, 1)
    following = 0
    for inside, _outside, count in mapped:
        assert inside == following and count > 0
        following += count
    assert following == 1 + sum(count for _start, count in ranges)


def test_a_known_user(view: View) -> None:
    name = next(
        line.split(":")[0] for line in Path("/etc/passwd").read_text().splitlines() if ":x:1:" in line
    )
    found = overlay.account(name, view)
    assert (found["uid"], found["subuids"], found["uid_map"]) == (1, 0, [(0, 1, 1)])
    assert (found["gid"] in found["groups"]) and overlay.account("1", view)["gid"] == found["gid"]
