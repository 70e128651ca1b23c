# SPDX-License-Identifier: GPL-3.0-or-later
"""/etc/projects and /etc/projid: what is whose, new ids, lines of others."""

from __future__ import annotations

import os

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._project_quota_files import (
    SPAN,
    SPANS,
    Project,
    Registry,
    new_project,
    project_name,
)
from hypothesis import given
from hypothesis import strategies as st

PATHS = st.lists(
    st.text("abc-./:# é", min_size=1, max_size=12)
    .map(lambda text: os.path.normpath("/srv/" + text))
    .filter(lambda path: path == path.strip() and path.strip("/") != ""),
    max_size=6,
    unique=True,
)
LINES = st.lists(
    st.sampled_from(
        ["# a note", "", "users:7", "7:/home", "matryoshka:9", "broken", "x:y:12", "12:/x:y", " 8 : /pad "]
    ),
    max_size=5,
).map("\n".join)

PRESENT = Registry(
    "# by hand\n7:/home\n65536:/var/lib/docker\n131072:/srv/ci\n131072:/srv/more\n",
    "homes:7\nmatryoshka-var-lib-docker:65536\nmatryoshka-srv-ci:131072\nelse-x:262144\n",
)


def test_what_is_whose() -> None:
    assert PRESENT.owned("matryoshka") == {
        "/var/lib/docker": Project("/var/lib/docker", 65536, "matryoshka-var-lib-docker"),
        "/srv/ci": Project("/srv/ci", 131072, "matryoshka-srv-ci"),
        "/srv/more": Project("/srv/more", 131072, "matryoshka-srv-ci"),
    }
    assert PRESENT.owned("matry") == {}
    assert PRESENT.taken() == {7, 65536, 131072, 262144}
    assert PRESENT.stranger("matryoshka", "/home") == 7
    assert PRESENT.stranger("matryoshka", "/var/lib/docker") is None
    assert PRESENT.stranger("else", "/var/lib/docker") == 65536
    assert PRESENT.stranger("matryoshka", "/srv/none") is None


def test_changes_keep_the_lines_of_others() -> None:
    new = Project("/srv/new", 3 * SPAN, "matryoshka-srv-new")
    gone = PRESENT.owned("matryoshka")["/var/lib/docker"]
    assert PRESENT.changed([new], [gone]) == Registry(
        "# by hand\n7:/home\n131072:/srv/ci\n131072:/srv/more\n196608:/srv/new\n",
        "homes:7\nmatryoshka-srv-ci:131072\nelse-x:262144\nmatryoshka-srv-new:196608\n",
    )


def test_a_file_without_a_last_newline_isn_t_joined_to_ours() -> None:
    after = Registry("7:/home", "homes:7").changed([Project("/a", SPAN, "m-a")])
    assert after == Registry(f"7:/home\n{SPAN}:/a\n", f"homes:7\nm-a:{SPAN}\n")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/var/lib/docker", "matryoshka-var-lib-docker"),
        ("/srv/ci_1", "matryoshka-srv-ci_1"),
        ("/srv/ci-1", "matryoshka-srv-ci-1-ae60c0eb"),
        ("/srv/a:b", "matryoshka-srv-a-b-4a2d4532"),
    ],
)
def test_names(path: str, name: str) -> None:
    assert project_name("matryoshka", path) == name


def test_ids_are_the_same_each_time_and_step_aside() -> None:
    first = new_project("matryoshka", "/srv/ci", Registry())
    assert first == new_project("matryoshka", "/srv/ci", Registry())
    assert first.id % SPAN == 0 and SPAN <= first.id < 1 << 31
    taken = Registry("", f"somebody:{first.id + 17}\n")
    beside = new_project("matryoshka", "/srv/ci", taken)
    assert beside.id == (first.id // SPAN % SPANS + 1) * SPAN
    on_disk = new_project("matryoshka", "/srv/ci", Registry(), lambda low, high: low <= first.id + 5 <= high)
    assert on_disk.id == beside.id


def test_a_name_that_was_written_alone_is_taken_up() -> None:
    left = Registry("", f"matryoshka-srv-ci:{5 * SPAN}\n")
    assert new_project("matryoshka", "/srv/ci", left).id == 5 * SPAN
    used = Registry(f"{5 * SPAN}:/other\n", f"matryoshka-srv-ci:{5 * SPAN}\n")
    assert new_project("matryoshka", "/srv/ci", used).id != 5 * SPAN


def test_no_free_id_is_an_error() -> None:
    with pytest.raises(HostError, match="/srv/ci: no project id is free"):
        new_project("matryoshka", "/srv/ci", Registry(), lambda low, high: True)


@given(PATHS, LINES, LINES)
def test_projects_come_and_go_without_a_trace(paths: list[str], projects: str, names: str) -> None:
    before = Registry(projects, names)
    registry = before
    for path in paths:
        registry = registry.changed([new_project("mine", path, registry)])
    owned = registry.owned("mine")
    assert set(owned) == set(paths)
    assert len({one.id for one in owned.values()}) == len(owned)
    assert all(not any(one.id <= taken < one.id + SPAN for taken in before.taken()) for one in owned.values())
    assert registry.changed(owned.values()) == registry
    after = registry.changed(remove=owned.values())
    assert after.projects.rstrip("\n") == before.projects.rstrip("\n")
    assert after.names.rstrip("\n") == before.names.rstrip("\n")
