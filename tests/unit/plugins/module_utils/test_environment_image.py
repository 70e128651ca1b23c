# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipe, its name, and the plan."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _environment_image as image
from ansible_collections.matryoshka.host.plugins.module_utils._apt_sources import Source
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from hypothesis import given
from hypothesis import strategies as st
from support.recipes import DIGEST, recipe

PIN = {"package": "docker.io", "pin": "version 26.1.*", "priority": 1001}
START, READY = image.START, image.READY


@pytest.mark.parametrize(
    ("changes", "variable", "value"),
    [
        ({"base": "debian:13"}, "base", "'debian:13'"),
        ({"base": "debian@sha256:abc"}, "base", "sha256:abc"),
        ({"base": "Debian@" + DIGEST}, "base", "Debian@"),
        ({"base": ...}, "base", "None"),
        ({"suite": "Trixie"}, "suite", "'Trixie'"),
        ({"suite": "trixie; rm -rf /"}, "suite", "rm -rf"),
        ({"components": []}, "components", "[]"),
        ({"components": ["main", "-x"]}, "components", "'-x'"),
        ({"pockets": ["proposed"]}, "pockets", "'proposed'"),
        ({"mirror": "mirror.example/debian"}, "mirror", "mirror.example"),
        ({"mirror": "http://a b"}, "mirror", "a b"),
        ({"security_mirror": "ftp://x"}, "security_mirror", "ftp"),
        ({"packages": []}, "packages", "[]"),
        ({"packages": "docker.io"}, "packages", "'docker.io'"),
        ({"packages": ["docker.io", "$(reboot)"]}, "packages", "reboot"),
        ({"packages": ["--allow-unauthenticated"]}, "packages", "--allow"),
        ({"packages": [7]}, "packages", "7"),
        ({"preferences": [{"package": "x"}]}, "preferences", "'x'"),
        ({"preferences": [{**PIN, "priority": "high"}]}, "preferences", "'high'"),
        ({"preferences": [{**PIN, "pin": "a\nPackage: *"}]}, "preferences", "Package: *"),
        ({"preferences": {"a": 1}}, "preferences", "'a'"),
        ({"refresh": "a\nb"}, "refresh", r"'a\nb'"),
        ({"files": {}}, "files", "[]"),
        ({"files": {START: "x"}}, "files", START),
        ({"files": {START: "x", READY: "x", "etc/x": "y"}}, "files", "'etc/x'"),
        ({"files": {START: "x", READY: "x", "/etc/../x": "y"}}, "files", "/etc/../x"),
        ({"files": {START: "x", READY: ""}}, f"files[{READY}]", "''"),
        ({"files": "x"}, "files", "'x'"),
    ],
)
def test_refused(changes: dict[str, Any], variable: str, value: str) -> None:
    with pytest.raises(InputError) as caught:
        image.parse_recipe(recipe(**changes), "runner_image_")
    assert str(caught.value).startswith(f"runner_image_{variable}: ")
    assert value in str(caught.value)
    assert "allowed: " in str(caught.value)


def test_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(InputError) as caught:
        image.parse_recipe(recipe(mirror="http://user:secret@mirror.example/debian"))
    assert "secret" not in str(caught.value)
    assert "recipe.mirror" in str(caught.value)


@pytest.mark.parametrize(
    "base",
    [f"debian@{DIGEST}", f"registry.example:5000/library/debian:13@{DIGEST}", f"ghcr.io/a/b_c@{DIGEST}"],
)
def test_pinned_bases(base: str) -> None:
    parsed = image.parse_recipe(recipe(base=base))
    assert not parsed.made
    assert image.reference(parsed).base_reference is None


def names(**changes: Any) -> image.Reference:
    return image.reference(image.parse_recipe(recipe(**changes)))


def test_names() -> None:
    found = names()
    assert re.fullmatch("matryoshka/environment-dind:[0-9a-f]{12}", found.reference)
    assert found.reference.endswith(":" + found.sha256[:12])
    assert found.base_reference
    assert re.fullmatch("matryoshka/environment-base:[0-9a-f]{12}", found.base_reference)


@pytest.mark.parametrize(
    "changes",
    [
        {"packages": ["curl", "docker.io"]},
        {"packages": ["docker.io", "curl", "docker.io"]},
        {"mirror": "", "preferences": None},
        {"default_mirror": "http://deb.debian.org/debian/"},
        {"files": dict(reversed(list(recipe()["files"].items())))},
    ],
)
def test_the_same_recipe_has_the_same_name(changes: dict[str, Any]) -> None:
    assert names(**changes) == names()


@pytest.mark.parametrize(
    ("changes", "same_base"),
    [
        ({"suite": "bookworm"}, False),
        ({"components": ["main", "contrib"]}, False),
        ({"pockets": ["security"]}, False),
        ({"mirror": "http://mirror.example/debian"}, False),
        ({"packages": ["docker.io", "curl", "make"]}, False),
        ({"packages": ["docker.io=26.1.5+dfsg1-9", "curl"]}, False),
        ({"preferences": [PIN]}, False),
        ({"refresh": "2026-11"}, False),
        ({"files": {START: "#!/bin/sh\nset -u\n", READY: "#!/bin/sh\n"}}, True),
        ({"files": {START: "#!/bin/sh\n", READY: "#!/bin/sh\n", "/etc/x": "y\n"}}, True),
    ],
)
def test_another_recipe_has_another_name(changes: dict[str, Any], same_base: bool) -> None:
    assert names(**changes).reference != names().reference
    assert (names(**changes).base_reference == names().base_reference) is same_base


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200))
def test_every_refresh_has_a_name_of_its_own(text: str) -> None:
    assert (names(refresh=text) == names()) is (text == "")


def test_preferences() -> None:
    other = {"package": "*", "pin": "release n=trixie-backports", "priority": "100"}
    parsed = image.parse_recipe(recipe(preferences=[PIN, other]))
    assert image.preferences_text(parsed) == (
        "Package: docker.io\nPin: version 26.1.*\nPin-Priority: 1001\n\n"
        "Package: *\nPin: release n=trixie-backports\nPin-Priority: 100\n"
    )
    assert image.preferences_text(image.parse_recipe(recipe())) == ""


HOST = [
    Source("http://mirror.corp/debian", "trixie", ("main",)),
    Source("http://s.corp", "trixie-security", ("main",)),
]


@pytest.mark.parametrize(
    ("changes", "host", "lines"),
    [
        ({}, HOST, ["deb http://mirror.corp/debian trixie main", "deb http://s.corp trixie-security main"]),
        (
            {},
            [],
            [
                "deb http://deb.debian.org/debian trixie main",
                "deb http://deb.debian.org/debian trixie-updates main",
                "deb http://security.debian.org/debian-security trixie-security main",
            ],
        ),
        (
            {"mirror": "http://m.example/debian/", "security_mirror": "http://m.example/security"},
            HOST,
            [
                "deb http://m.example/debian trixie main",
                "deb http://m.example/debian trixie-updates main",
                "deb http://m.example/security trixie-security main",
            ],
        ),
        (
            {"default_security_mirror": "", "pockets": ["security"]},
            [],
            [
                "deb http://deb.debian.org/debian trixie main",
                "deb http://deb.debian.org/debian trixie-security main",
            ],
        ),
    ],
)
def test_sources(changes: dict[str, Any], host: list[Source], lines: list[str]) -> None:
    parsed = image.parse_recipe(recipe(**changes))
    assert [source.line() for source in image.recipe_sources(parsed, host)] == lines


def test_a_password_in_the_hosts_sources_is_kept_out_of_the_image() -> None:
    host = [Source("http://user:secret@mirror.corp/debian", "trixie", ("main",))]
    with pytest.raises(HostError, match="runner_image_mirror") as caught:
        image.recipe_sources(image.parse_recipe(recipe()), host)
    assert "secret" not in str(caught.value)


def test_the_dockerfile_of_a_base_that_is_made_installs_nothing() -> None:
    parsed = image.parse_recipe(recipe())
    text = image.dockerfile(parsed, "matryoshka/environment-base:1", "b" * 64, "c" * 64)
    assert text.startswith("FROM matryoshka/environment-base:1\n")
    assert "RUN" not in text
    assert f"matryoshka.recipe={'c' * 64}" in text
    assert "matryoshka.role=environment " in text


def test_the_dockerfile_of_a_registrys_base_changes_with_the_policy() -> None:
    def run_line(**changes: Any) -> str:
        parsed = image.parse_recipe(recipe(base=f"debian@{DIGEST}", **changes))
        text = image.dockerfile(parsed, parsed.base, image.base_sha256(parsed), "")
        return next(line for line in text.splitlines() if line.startswith("RUN :"))

    assert run_line() == run_line()
    assert run_line() != run_line(refresh="2026-11")


@pytest.mark.parametrize(
    ("installed", "asked", "code"),
    [
        (["curl", "docker.io"], "", 0),
        (["curl"], "docker.io=26.1", 0),
        ([], "curl docker.io=26.1", 0),
        (None, "", 64),
    ],
)
def test_the_install_line_installs_only_what_is_missing(
    tmp_path: Path, installed: list[str] | None, asked: str, code: int
) -> None:
    parsed = image.parse_recipe(recipe(packages=["docker.io=26.1", "curl"]))
    tools = tmp_path / "bin"
    tools.mkdir()
    programs = {"rm": "exit 0\n", "grep": 'exec /usr/bin/env -i PATH=/usr/bin:/bin grep "$@"\n'}
    if installed is not None:
        cases = "|".join([*installed, "none"])
        programs["dpkg-query"] = f'case "$4" in {cases}) printf installed;; *) exit 1;; esac\n'
        programs["apt-get"] = 'echo "$@" >> "$LOG"\n'
    for name, body in programs.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}")
        (tools / name).chmod(0o755)
    log = tmp_path / "log"
    log.touch()
    done = subprocess.run(
        ["/bin/sh", "-c", image.install_line(parsed, "0" * 64)],
        env={"PATH": str(tools), "LOG": str(log)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    calls = log.read_text().splitlines()
    assert (calls[-1].rsplit("--no-install-recommends ", 1)[-1] if calls else "") == asked
    if code:
        assert "runner_image_base" in done.stderr


def listing(*rows: tuple[str, str, str]) -> str:
    return "".join(json.dumps({"ID": i, "Repository": r, "Tag": t, "Size": "1MB"}) + "\n" for i, r, t in rows)


def test_parse_images() -> None:
    text = listing(("sha256:1", "matryoshka/environment-dind", "abc"), ("sha256:2", "<none>", "<none>"))
    assert image.parse_images(text) == [
        image.Image("sha256:1", "matryoshka/environment-dind:abc"),
        image.Image("sha256:2"),
    ]
    assert image.parse_images("\n") == []


WANTED = image.Reference("matryoshka/environment-dind:new", "f" * 64, "matryoshka/environment-base:new")
PINNED = image.Reference("matryoshka/environment-dind:new", "f" * 64, None)
NEW = image.Image("sha256:1", WANTED.reference)
BASE = image.Image("sha256:2", "matryoshka/environment-base:new")
OLD = image.Image("sha256:3", "matryoshka/environment-dind:old")
NAMELESS = image.Image("sha256:4")


@pytest.mark.parametrize(
    ("images", "used", "wanted", "plan"),
    [
        ([], [], WANTED, image.Plan(make_base=True, build=True)),
        ([], [], PINNED, image.Plan(build=True)),
        ([NEW, BASE], [], WANTED, image.Plan()),
        ([NEW], [], WANTED, image.Plan()),
        ([BASE], [], WANTED, image.Plan(build=True)),
        ([NEW, BASE, OLD], [], WANTED, image.Plan(remove=(OLD,))),
        ([NEW, BASE, OLD], [OLD.reference], WANTED, image.Plan(kept=(OLD,))),
        ([NEW, NAMELESS], [NAMELESS.id], WANTED, image.Plan(kept=(NAMELESS,))),
        ([NEW, NAMELESS], [], WANTED, image.Plan(remove=(NAMELESS,))),
        ([NEW, BASE], [NEW.reference], PINNED, image.Plan(remove=(BASE,))),
        ([NEW, BASE, OLD], [NEW.reference], None, image.Plan(remove=(BASE, OLD), kept=(NEW,))),
        ([], [], None, image.Plan()),
    ],
)
def test_plan(
    images: list[image.Image], used: list[str], wanted: image.Reference | None, plan: image.Plan
) -> None:
    assert image.plan(images, used, wanted) == plan
    assert plan.changed is bool(plan.build or plan.remove)
