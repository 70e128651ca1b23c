# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an environment's control groups are, and what is read from them, on v1 and v2."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matryoshka_runner.cgroups import (
    Group,
    Place,
    flat,
    memberships,
    place_of,
    pressure,
    refused_forks,
    slice_path,
    transferred,
    whole,
)

ID = "25137b60f6651c371d3968c01715967dac43a0513206caf748918b455aa95f60"
V2 = f"0::/matryoshka.slice/matryoshka-ci.slice/docker-{ID}.scope/init\n"
V1 = f"""\
9:name=systemd:/matryoshka.slice/matryoshka-ci.slice/{ID}
8:pids:/matryoshka.slice/matryoshka-ci.slice/{ID}
4:memory:/matryoshka.slice/matryoshka-ci.slice/{ID}
2:cpu,cpuacct:/matryoshka.slice/matryoshka-ci.slice/{ID}
0::/matryoshka.slice/matryoshka-ci.slice/{ID}
"""


def process(tmp_path: Path, text: str) -> tuple[str, str]:
    """A ``/proc`` in which process 7 has these groups, and an empty tree of groups."""
    folder = tmp_path / "proc" / "7"
    folder.mkdir(parents=True)
    (folder / "cgroup").write_text(text, encoding="utf-8")
    (tmp_path / "cgroup").mkdir()
    return str(tmp_path / "proc"), str(tmp_path / "cgroup")


def test_on_v2_an_environment_is_found_above_where_its_first_process_moved(tmp_path: Path) -> None:
    proc, root = process(tmp_path, V2)
    Path(root, "cgroup.controllers").touch()
    place = place_of(7, ID, "matryoshka-ci.slice", proc, root)
    assert place is not None
    assert place.slice is not None
    assert place.ci is not None
    ours = Path(root, "matryoshka.slice/matryoshka-ci.slice")
    assert place.environment.folders["memory"] == ours / f"docker-{ID}.scope"
    assert place.slice.folders["pids"] == ours
    assert place.ci.folders["io"] == ours.parent
    assert place.limited is place.slice


def test_on_v1_each_controller_has_its_own_folder(tmp_path: Path) -> None:
    proc, root = process(tmp_path, V1)
    place = place_of(7, ID, "matryoshka-ci.slice", proc, root)
    assert place is not None
    assert place.slice is not None
    assert not place.environment.unified
    assert place.environment.folders["cpuacct"] == Path(
        root, "cpuacct/matryoshka.slice/matryoshka-ci.slice", ID
    )
    assert place.slice.folders["memory"] == Path(root, "memory/matryoshka.slice/matryoshka-ci.slice")


def test_without_a_slice_the_environment_has_the_limits(tmp_path: Path) -> None:
    proc, root = process(tmp_path, f"0::/docker/{ID}\n")
    Path(root, "cgroup.controllers").touch()
    place = place_of(7, ID, None, proc, root)
    assert place is not None
    assert (place.slice, place.ci) == (None, None)
    assert place.limited is place.environment


@pytest.mark.parametrize("text", ["", "0::/\n", "nonsense\n", "0::/user.slice\n"])
def test_a_process_elsewhere_has_no_place(tmp_path: Path, text: str) -> None:
    proc, root = process(tmp_path, text)
    Path(root, "cgroup.controllers").touch()
    assert place_of(7, ID, None, proc, root) is None
    assert place_of(8, ID, None, proc, root) is None
    assert place_of(7, "", None, proc, root) is None


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("matryoshka.slice", "/matryoshka.slice"),
        ("matryoshka-ci.slice", "/matryoshka.slice/matryoshka-ci.slice"),
        ("a-b-c_d.slice", "/a.slice/a-b.slice/a-b-c_d.slice"),
    ],
)
def test_each_hyphen_of_a_slice_is_one_step_down(name: str, path: str) -> None:
    assert slice_path(name) == path


def group(folder: Path, unified: bool = True, **files: str) -> Group:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="ascii")
    return Group(unified, dict.fromkeys(("cpu", "cpuacct", "memory", "pids", "io", "blkio"), folder))


def test_an_environment_is_made_to_die_whole_on_v2_only(tmp_path: Path) -> None:
    new = group(tmp_path / "v2", memory__oom__group="0\n")
    assert new.die_whole()
    assert new.number("memory", "memory.oom.group") == 1
    assert not group(tmp_path / "v1", unified=False).die_whole()
    assert not Group(True, {"memory": tmp_path / "gone"}).die_whole()


def test_forks_are_counted_where_the_limit_is_if_the_kernel_does_that(tmp_path: Path) -> None:
    ours = group(tmp_path / "slice", pids__events__local="max 7\n")
    inside = group(tmp_path / "slice" / "environment", pids__events="max 3\n")
    assert refused_forks(Place(inside, ours)) == 7


def test_older_kernels_count_forks_below_and_a_jobs_own_limits_are_left_out(tmp_path: Path) -> None:
    ours = group(tmp_path / "slice", pids__events="max 0\n")
    inside = group(tmp_path / "slice" / "e", pids__events="max 1\n", pids__max="400\n")
    group(tmp_path / "slice" / "e" / "nested", pids__events="max 2\n", pids__max="max\n")
    group(tmp_path / "slice" / "e" / "own", pids__events="max 50\n", pids__max="10\n")
    group(tmp_path / "slice" / "e" / "own" / "below", pids__events="max 50\n", pids__max="max\n")
    assert refused_forks(Place(inside, ours)) == 3
    assert refused_forks(Place(Group(True, {}))) is None


def test_io_is_summed_over_devices() -> None:
    new = "259:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n7:0 rbytes=1 wbytes=2 rios=1 wios=1\n"
    old = "259:0 Read 10\n259:0 Write 20\n259:0 Sync 5\n259:0 Total 30\n7:0 Read 1\n7:0 Write 2\nTotal 33\n"
    assert transferred(new, True) == (11, 22)
    assert transferred(old, False) == (11, 22)
    assert transferred("", True) == (0, 0)
    assert transferred(None, True) is None


def test_pressure_is_read_by_kind() -> None:
    text = "some avg10=1.50 avg60=0.20 avg300=0.00 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
    assert pressure(text) == {"some": (1.5, 123456), "full": (0.0, 9)}
    assert pressure(None) == {}


def test_memberships_are_split_by_controller() -> None:
    found = memberships(V1)
    assert found["cpu"] == found["cpuacct"] == f"/matryoshka.slice/matryoshka-ci.slice/{ID}"
    assert found[""].endswith(ID)


@given(st.text(max_size=200))
def test_no_text_of_the_kernel_breaks_a_reader(text: str) -> None:
    assert all(isinstance(value, int) for value in flat(text).values())
    assert set(pressure(text)) <= {"some", "full"}
    assert all(path.startswith("/") for path in memberships(text).values())
    assert whole(text) is None or text.strip().isdigit()
    for unified in (True, False):
        assert transferred(text, unified) is not None
