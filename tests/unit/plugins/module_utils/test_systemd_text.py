# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _systemd_text as text
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from hypothesis import given
from hypothesis import strategies as st

SERVICE = "[Unit]\nDescription=x\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"


@pytest.mark.parametrize(
    "name",
    ["docker.service", "a@.service", "a@b.timer", "dev-sda1.swap", "a\\x2db.mount", "a:b_c.d.target"],
)
def test_unit_names(name: str) -> None:
    assert text.check_unit_name("units[0].name", name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "docker",
        "a b.service",
        "../a.service",
        "a/b.service",
        "a.conf",
        "a@b@c.service",
        "ä.service",
        "a.service\n",
        "x" * 300 + ".service",
    ],
)
def test_refused_unit_names(name: str) -> None:
    with pytest.raises(InputError, match=r"units\[0\].name"):
        text.check_unit_name("units[0].name", name)


@pytest.mark.parametrize("name", ["x", "x.conf~", ".conf", ".x.conf", "a/b.conf", "../x.conf", "x.conf\n"])
def test_refused_drop_in_names(name: str) -> None:
    with pytest.raises(InputError, match=r"ends in \.conf"):
        text.check_drop_in_name("n", name)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a@b", "*", "a\n"])
def test_refused_instances(name: str) -> None:
    with pytest.raises(InputError):
        text.check_instance("n", name)


@pytest.mark.parametrize("owner", ["", "Runner", "a b", "a\n", "../a", "1a"])
def test_refused_owners(owner: str) -> None:
    with pytest.raises(InputError, match="owner"):
        text.check_owner("owner", owner)


def test_templates() -> None:
    assert text.is_template("a@.service")
    assert not text.is_template("a@b.service")
    assert not text.is_template("a.service")
    assert text.instantiate("a@.service", "b.c") == "a@b.c.service"
    assert text.template_of("a@b.c.service") == "a@.service"
    assert text.template_of("a@.service") is None
    assert text.template_of("a.service") is None


def test_marker_is_added_once() -> None:
    once = text.marked("runner", SERVICE)
    assert once == "# Managed by matryoshka.host: runner\n" + SERVICE
    assert text.marked("runner", once) == once
    assert text.owner_of(once) == "runner"
    assert text.owner_of(SERVICE) is None
    assert text.owner_of("# Managed by matryoshka.host: \n") is None


@pytest.mark.parametrize(
    ("unit", "found"),
    [
        ("", []),
        ("[Service]\n# c\n; c\n\nA=1\nA = 2 \n", [(5, "Service", "A", "1"), (6, "Service", "A", "2")]),
        ("[Service]\nA=1 \\\n# between\n  2\nB=\n", [(2, "Service", "A", "1    2"), (5, "Service", "B", "")]),
        ("[Service]\nA=x=y", [(2, "Service", "A", "x=y")]),
    ],
)
def test_parse(unit: str, found: list[tuple[int, str, str, str]]) -> None:
    assert [tuple(setting) for setting in text.parse_unit(unit)] == found


@pytest.mark.parametrize(
    ("unit", "line", "reason"),
    [
        ("A=1\n", 1, "before the first"),
        ("[Service]\nzork\n", 2, "neither"),
        ("[Service\nA=1\n", 1, "no section header"),
        ("[Service]\n\nExec Start=1\n", 3, "no name of a setting"),
        ("[Service]\nA=1 \\", 2, "continues"),
        ("[Service]\n=1\n", 2, "no name of a setting"),
    ],
)
def test_parse_errors(unit: str, line: int, reason: str) -> None:
    with pytest.raises(text.TextError) as error:
        text.parse_unit(unit)
    assert error.value.args[0] == line
    assert reason in error.value.args[1]
    with pytest.raises(InputError, match=rf"units\[1\].content line {line}"):
        text.check_text("units[1].content", "a.service", unit, "runner")


@pytest.mark.parametrize(
    ("name", "unit", "message"),
    [
        ("a.service", "[Timer]\nOnCalendar=daily\n", r"\[Timer\].*\[Service\]"),
        ("a.timer", "[Service]\nExecStart=/bin/true\n", r"\[Timer\]"),
        ("a.service", "# nothing\n", "at least one setting"),
        ("a.service", "# Managed by matryoshka.host: docker\n" + SERVICE, "no marker, or"),
        ("a.service", SERVICE.replace("\n", "\r\n"), "carriage return"),
        ("a.service", "[Service]\nA=\0\n", "NUL"),
    ],
)
def test_refused_texts(name: str, unit: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        text.check_text("units[0].content", name, unit, "runner")


def test_sections_of_others_are_left_alone() -> None:
    assert text.check_text("c", "a.service", "[X-Site]\nA=1\n", "runner")


def test_what_an_active_unit_feels() -> None:
    assert text.effect(SERVICE) == text.effect("# new comment\n" + SERVICE.replace("multi-user", "graphical"))
    assert text.effect(SERVICE) != text.effect(SERVICE.replace("true", "false"))
    assert text.install(SERVICE) == [("WantedBy", "multi-user.target")]
    assert text.effect("zork") == [("", "", "zork")]
    assert text.install("zork") == []
    assert text.names_of_settings(SERVICE) == ["Install.WantedBy", "Service.ExecStart", "Unit.Description"]
    assert text.names_of_settings("zork\n") == ["unreadable line 1"]


WORD = st.text("abcdefgXYZ0123456789", min_size=1, max_size=8).filter(lambda word: word[0].isalpha())
VALUE = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="\\\x85"), max_size=20
)


@given(st.lists(st.tuples(WORD, WORD, VALUE), max_size=8))
def test_rendered_settings_are_parsed_back(settings: list[tuple[str, str, str]]) -> None:
    unit = "".join(f"[{section}]\n{key}={value}\n" for section, key, value in settings)
    wanted = [(section, key, value.strip()) for section, key, value in settings]
    assert [(s.section, s.key, s.value) for s in text.parse_unit(unit)] == wanted


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused_in_words(unit: str) -> None:
    try:
        assert all(setting.section and setting.key for setting in text.parse_unit(unit))
    except text.TextError as error:
        assert error.args[0] >= 1


@given(st.text("[]=\\#; \nabAB", max_size=60))
def test_marking_keeps_the_effect(unit: str) -> None:
    try:
        before = text.parse_unit(unit.strip("\n"))
    except text.TextError:
        return
    after = text.parse_unit(text.marked("runner", unit))
    assert [s[1:] for s in before] == [s[1:] for s in after]
