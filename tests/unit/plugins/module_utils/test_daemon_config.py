# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json: parsing, merging, removing, comparing; what needs a restart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _daemon_config as daemon
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError
from hypothesis import given
from hypothesis import strategies as st

keys = st.text(alphabet="abc-.", min_size=1, max_size=4)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)
configs = st.dictionaries(keys, values, max_size=4)


def leaves(config: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if isinstance(config, dict) and config:
        return {
            place: leaf for key, item in config.items() for place, leaf in leaves(item, (*path, key)).items()
        }
    return {path: config}


@given(configs)
def test_what_is_printed_is_read_again(config: dict[str, Any]) -> None:
    text = daemon.render(config)
    assert daemon.same(daemon.parse(text, "f"), config)
    assert daemon.render(daemon.parse(text, "f")) == text
    assert list(daemon.parse(text, "f")) == list(config)


@given(configs, configs)
def test_merging_twice_is_merging_once(present: dict[str, Any], wanted: dict[str, Any]) -> None:
    once = daemon.merge(present, wanted)
    assert daemon.same(daemon.merge(once, wanted), once)
    assert list(once)[: len(present)] == list(present)


@given(configs, configs)
def test_merging_sets_all_that_is_wanted_and_keeps_what_others_wrote(
    present: dict[str, Any], wanted: dict[str, Any]
) -> None:
    merged = daemon.merge(present, wanted)
    wants = leaves(wanted) if wanted else {}
    after = leaves(merged)
    for place, value in wants.items():
        if value != {}:
            assert daemon.same(after[place], value)
    for place, value in (leaves(present) if present else {}).items():
        touched = any(place[: len(other)] == other or other[: len(place)] == place for other in wants)
        if not touched:
            assert daemon.same(after[place], value)


@given(configs, st.data())
def test_removed_key_is_absent_and_nothing_else_is(present: dict[str, Any], data: st.DataObject) -> None:
    simple = {key: value for key, value in present.items() if "." not in key}
    if not simple:
        return
    key = data.draw(st.sampled_from(sorted(simple)))
    after = daemon.remove(simple, key)
    assert key not in after
    assert daemon.same(after, {name: value for name, value in simple.items() if name != key})
    assert daemon.same(daemon.remove(after, key), after)


@given(st.dictionaries(keys, values, min_size=1, max_size=4), st.data())
def test_key_that_is_there_twice_is_found_at_any_depth(config: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(config)))
    inner = json.dumps(config)[:-1] + f", {json.dumps(key)}: null}}"
    depth = data.draw(st.integers(0, 3))
    text = '{"outer": ' * depth + inner + "}" * depth
    with pytest.raises(HostError, match="more than once"):
        daemon.parse(text, "f")


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        assert isinstance(daemon.parse(text, "f"), dict)
    except HostError as error:
        assert str(error).startswith("f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"bip": "a", "bip": "b"}', "f: there more than once: bip; leave one of each in the file"),
        (
            '{"log-opts": {"tag": "a", "tag": "b"}, "hosts": [{"x": 1, "x": 2}]}',
            "f: there more than once: log-opts.tag, hosts[0].x; leave one of each in the file",
        ),
        (
            '{\n  "mtu": 1500,\n}',
            "f line 3 column 1: Expecting property name enclosed in double quotes; fix the file by hand",
        ),
        ('{"mtu": 1500\n "icc": true}', "f line 2 column 2: Expecting ',' delimiter; fix the file by hand"),
        ("[]", "f: a JSON object is needed, not an array; fix the file by hand"),
        ("null", "f: a JSON object is needed, not null; fix the file by hand"),
        ('{"mtu": 1e999}', "f: 1e999 is too large; fix the file by hand"),
        ('{"mtu": NaN}', "f: NaN is no JSON value; fix the file by hand"),
    ],
)
def test_unusable_file(text: str, message: str) -> None:
    with pytest.raises(HostError) as caught:
        daemon.parse(text, "f")
    # Python 3.13 says more precisely what follows a trailing comma.
    said = str(caught.value).replace(
        "line 2 column 14: Illegal trailing comma before end of object",
        "line 3 column 1: Expecting property name enclosed in double quotes",
    )
    assert said == message


@pytest.mark.parametrize("text", ["", " \n", "{}", "\ufeff{}\n"])
def test_empty_file(text: str) -> None:
    assert daemon.parse(text, "f") == {}


def test_form() -> None:
    config = {"bip": "172.20.0.1/16", "runtimes": {"crun": {"path": "/usr/bin/crun"}}, "labels": ["a=é"]}
    assert daemon.render(config) == (
        '{\n  "bip": "172.20.0.1/16",\n  "runtimes": {\n    "crun": {\n      "path": "/usr/bin/crun"\n    }\n  },\n'
        '  "labels": [\n    "a=é"\n  ]\n}\n'
    )


@pytest.mark.parametrize(
    ("path", "after"),
    [
        ("bip", {"log-opts": {"tag": "a", "x.y": "b"}, "n": {"o": {"p": 1}}}),
        ("log-opts.tag", {"bip": "b", "log-opts": {"x.y": "b"}, "n": {"o": {"p": 1}}}),
        ("log-opts.x.y", {"bip": "b", "log-opts": {"tag": "a"}, "n": {"o": {"p": 1}}}),
        ("n.o.p", {"bip": "b", "log-opts": {"tag": "a", "x.y": "b"}}),
        ("n.o.q", {"bip": "b", "log-opts": {"tag": "a", "x.y": "b"}, "n": {"o": {"p": 1}}}),
        ("bip.x", {"bip": "b", "log-opts": {"tag": "a", "x.y": "b"}, "n": {"o": {"p": 1}}}),
    ],
)
def test_remove(path: str, after: dict[str, Any]) -> None:
    present = {"bip": "b", "log-opts": {"tag": "a", "x.y": "b"}, "n": {"o": {"p": 1}}}
    assert daemon.remove(present, path) == after


PLANS: list[tuple[dict[str, Any], dict[str, Any], list[str], dict[str, Any], list[str], list[str]]] = [
    ({}, {"debug": True}, [], {"debug": True}, [], ["debug"]),
    ({"debug": True}, {}, ["debug"], {}, ["debug"], []),
    ({"mtu": 1500}, {"mtu": 1400, "labels": ["a=b"]}, [], {"mtu": 1400, "labels": ["a=b"]}, ["mtu"], ["labels"]),
    ({"mtu": 1500}, {"mtu": 1500}, ["bip"], {"mtu": 1500}, [], []),
    (
        {"log-opts": {"tag": "a"}},
        {"log-opts": {"max-size": "1m"}},
        [],
        {"log-opts": {"tag": "a", "max-size": "1m"}},
        ["log-opts"],
        [],
    ),
    ({"log-opts": {"tag": "a"}}, {"log-opts": {"max-size": "1m"}}, ["log-opts"], {"log-opts": {"max-size": "1m"}}, ["log-opts"], []),
    ({"dns": ["10.0.0.1"]}, {"dns": ["10.0.0.2"]}, [], {"dns": ["10.0.0.2"]}, ["dns"], []),
    ({}, {"features": {"buildkit": True}}, [], {"features": {"buildkit": True}}, [], ["features"]),
    ({}, {"features": {"containerd-snapshotter": True}}, [], {"features": {"containerd-snapshotter": True}}, ["features"], []),
    ({"features": {"buildkit": True, "cdi": True}}, {}, ["features.buildkit"], {"features": {"cdi": True}}, ["features"], []),
    ({"runtimes": {"a": {"path": "/a"}}}, {"runtimes": {"b": {"path": "/b"}}}, [], {"runtimes": {"a": {"path": "/a"}, "b": {"path": "/b"}}}, [], ["runtimes"]),
]  # fmt: skip


@pytest.mark.parametrize(("before", "wanted", "absent", "after", "restart", "reload"), PLANS)
def test_plan(
    before: dict[str, Any],
    wanted: dict[str, Any],
    absent: list[str],
    after: dict[str, Any],
    restart: list[str],
    reload: list[str],
) -> None:
    plan = daemon.plan(before, wanted, absent)
    assert (plan.after, plan.restart_keys, plan.reload_keys) == (after, restart, reload)
    assert plan.changed == bool(restart or reload)
    again = daemon.plan(plan.after, wanted, absent)
    assert again.after == after


def test_equal_json_is_no_change_but_another_type_is() -> None:
    assert not daemon.plan({"b": {"y": 1, "x": 2}, "a": 0}, {"b": {"x": 2, "y": 1}}, []).changed
    assert daemon.plan({"mtu": True}, {"mtu": 1}, []).changed
    assert not daemon.plan(None, {}, ["bip"]).changed


def test_unknown_keys_of_others_are_kept_and_told() -> None:
    plan = daemon.plan({"quux": 1, "storge-driver": "x"}, {"debug": True}, [])
    assert plan.after == {"quux": 1, "storge-driver": "x", "debug": True}
    assert plan.warnings == [
        "quux is unknown and kept",
        "storge-driver is unknown and kept; did you mean 'storage-driver'?",
    ]


@pytest.mark.parametrize(
    ("wanted", "absent", "message"),
    [
        (
            {"bip": None},
            [],
            "config.bip: None is refused; allowed: a value; a key is removed by naming it in absent",
        ),
        (
            {"labels": [None]},
            [],
            "config.labels[0]: None is refused; allowed: a value; a key is removed by naming it in absent",
        ),
        (
            {"bip": "x"},
            ["bip"],
            "absent: 'bip' is refused; allowed: a key that isn't in config at the same time",
        ),
        ({}, [""], "absent: '' is refused; allowed: a key's name, or names joined by dots"),
        ({}, ["bip."], "absent: 'bip.' is refused; allowed: a key's name, or names joined by dots"),
    ],
)
def test_refused_request(wanted: dict[str, Any], absent: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        daemon.plan({}, wanted, absent)
    assert str(caught.value) == message


def test_secrets_are_masked() -> None:
    config = {
        "proxies": {"http-proxy": "http://me:secret@proxy:3128"},
        "log-opts": {"splunk-token": "t", "tag": "a@b"},
    }
    assert daemon.masked(config) == {
        "proxies": {"http-proxy": "http://********@proxy:3128"},
        "log-opts": {"splunk-token": "********", "tag": "a@b"},
    }
    assert "t0ken" not in str(daemon.check_daemon_config({"log-opts": {"splunk-token": "t0ken"}}, "d"))
    assert "s3cret" not in str(
        daemon.check_daemon_config({"proxies": {"http-proxy": "ftp://u:s3cret@h"}}, "d")
    )
