# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dockerd's daemon.json: parse, check, merge, compare, print. Pure functions.

The file has more than one author: a package may add its runtime, a person a mirror.
So keys are merged one by one, and what isn't named stays as it is and where it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _daemon_config_clashes as rules
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_config_unit import CommandLine, clashes
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_config_values import (
    Path,
    Problem,
    dotted,
    meant,
)
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_options import (
    MISPLACED,
    OPTIONS,
    RELOADED_FEATURES,
    Version,
)
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError

Config = dict[str, Any]
_SECRET_KEYS = frozenset({"splunk-token"})


class _Pairs(list[tuple[str, Any]]):
    """A JSON object before its keys are known to be unique."""


def parse(text: str, source: str) -> Config:
    """The mapping in ``text``, whose keys keep their order. An empty file is an empty mapping.

    :raises HostError: not JSON (with line and column), not an object, or a key that is
        there twice, at any depth; dockerd takes the last one and says nothing.
    """
    text = text.removeprefix("\ufeff")
    if not text.strip():
        return {}
    try:
        value = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise HostError(
            f"{source} line {error.lineno} column {error.colno}: {error.msg}; fix the file by hand"
        ) from None
    except (RecursionError, ValueError) as error:
        raise HostError(f"{source}: {error}; fix the file by hand") from None
    if not isinstance(value, _Pairs):
        raise HostError(f"{source}: a JSON object is needed, not {_kind(value)}; fix the file by hand")
    twice: list[str] = []
    config = _unique(value, (), twice)
    if twice:
        raise HostError(f"{source}: there more than once: {', '.join(twice)}; leave one of each in the file")
    if not isinstance(config, dict):
        raise AssertionError("a JSON object is a dict")
    return config


def render(config: Mapping[str, Any]) -> str:
    """The stable form: two spaces of indent, one space after colons, a newline at the end."""
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(config, indent=2) + "\n"
    return text


def same(one: object, other: object) -> bool:
    """Equal as JSON: order of keys apart, but ``1``, ``1.0`` and ``true`` are different."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def merge(present: Mapping[str, Any], wanted: Mapping[str, Any]) -> Config:
    """``present`` with the keys of ``wanted``; mappings are merged, all else is replaced."""
    merged = dict(present)
    for key, value in wanted.items():
        old = merged.get(key)
        if isinstance(value, Mapping):
            merged[key] = merge(old if isinstance(old, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def remove(present: Mapping[str, Any], path: str) -> Config:
    """``present`` without the key ``path``: its name, or names joined by dots.

    A name with dots in it is found too. A mapping that it leaves empty goes as well.
    """
    for parts in _splits(path):
        if parts[0] not in present:
            continue
        rest = dict(present)
        if len(parts) == 1:
            del rest[parts[0]]
            return rest
        inner = present[parts[0]]
        if isinstance(inner, Mapping):
            smaller = remove(inner, parts[1])
            if smaller != inner:
                rest[parts[0]] = smaller
                if not smaller:
                    del rest[parts[0]]
                return rest
    return dict(present)


@dataclass(frozen=True)
class Plan:
    """What is to become of the file.

    :param restart_keys: changed options that need a restart of dockerd.
    :param reload_keys: changed options that SIGHUP applies.
    """

    before: Config | None
    after: Config
    restart_keys: list[str] = field(default_factory=list)
    reload_keys: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return not same(self.before or {}, self.after)


def plan(before: Config | None, wanted: Mapping[str, Any], absent: Sequence[str]) -> Plan:
    """Remove ``absent``, then merge ``wanted``: so a whole mapping can be replaced.

    :param before: the present content, None without a file.
    :raises InputError: a null, or a key that is both wanted and unwanted.
    """
    for place, value in _leaves(wanted, ()):
        if value is None:
            allowed = "a value; a key is removed by naming it in absent"
            raise InputError(f"config.{dotted(place)}", None, allowed)
    leaves = {".".join(map(str, place)) for place, _value in _leaves(wanted, ())}
    for path in absent:
        if not path or path.startswith(".") or path.endswith("."):
            raise InputError("absent", path, "a key's name, or names joined by dots")
        if path in leaves:
            raise InputError("absent", path, "a key that isn't in config at the same time")
    after: Config = dict(before or {})
    for path in absent:
        after = remove(after, path)
    after = merge(after, wanted)
    restart, reload = _classify(before or {}, after)
    unknown = [
        f"{key} is unknown and kept{meant(key, OPTIONS)}"
        for key in after
        if key not in OPTIONS and key not in wanted
    ]
    return Plan(before, after, restart, reload, unknown)


def check_daemon_config(
    config: Mapping[str, Any],
    variable: str,
    privileged: bool = True,
    *,
    version: Version | None = None,
    partial: bool = False,
) -> list[str]:
    """What is wrong with a configuration, one message each; empty if nothing is.

    Needs no host, so it also serves filters on the controller and inner engines.

    :param variable: the name that messages begin with, such as ``docker_config``.
    :param privileged: containers run with ``--privileged``.
    :param version: dockerd's release if known; options it doesn't have are refused then.
    :param partial: the rest of the file isn't known, as before a merge.
    """
    if not isinstance(config, Mapping):
        return [str(InputError(variable, config, "a mapping of dockerd's options"))]
    around = rules.Surroundings(privileged, version, partial)
    return [
        str(InputError(f"{variable}.{dotted(problem.path)}", masked_value(problem), problem.allowed))
        for problem in problems(config, around)
    ]


def require(
    config: Mapping[str, Any],
    name: Callable[[Path], str],
    around: rules.Surroundings,
    foreign: Container[str] = (),
    line: CommandLine | None = None,
) -> None:
    """Raise :class:`InputError`, or :class:`HostError` with several lines, if anything is wrong.

    :param name: the variable's name for a place in ``config``.
    :param foreign: keys that others wrote; unknown ones are left alone there.
    :param line: the command line that mustn't set the same options.
    """
    found = list(problems(config, around, foreign))
    if line is not None:
        found += clashes(config, line)
    errors = [InputError(name(problem.path), masked_value(problem), problem.allowed) for problem in found]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise HostError("\n".join(map(str, errors)))


def problems(
    config: Mapping[str, Any], around: rules.Surroundings, foreign: Container[str] = ()
) -> list[Problem]:
    """All that is wrong; options against each other only once each is right by itself."""
    found: list[Problem] = []
    usable: Config = {}
    for key, value in config.items():
        option = OPTIONS.get(key)
        if option is None:
            if key in MISPLACED:
                found.append(
                    Problem((key,), value, f"in the file {MISPLACED[key]}; {key} is taken there and ignored")
                )
            elif key not in foreign:
                found.append(Problem((key,), value, f"an option of dockerd{meant(key, OPTIONS)}"))
            continue
        if value == "" and key in foreign:
            continue
        usable[key] = value
        found += _released(key, value, around.version)
        found += (problem.below(key) for problem in option.check(value))
    if not found:
        for rule in rules.RULES:
            found += rule(usable, around)
    return found


def masked(config: Any) -> Any:
    """``config`` without passwords in URLs and without tokens, for output and logs."""
    if isinstance(config, Mapping):
        return {key: "********" if key in _SECRET_KEYS else masked(value) for key, value in config.items()}
    if isinstance(config, list):
        return [masked(item) for item in config]
    return re.sub(r"://[^/@\s]*@", "://********@", config) if isinstance(config, str) else config


def masked_value(problem: Problem) -> Any:
    """The value of ``problem`` as it may be shown."""
    return "********" if problem.path and problem.path[-1] in _SECRET_KEYS else masked(problem.value)


def _released(key: str, value: object, version: Version | None) -> Iterator[Problem]:
    option = OPTIONS[key]
    if version is None:
        return
    here = f"{version[0]}.{version[1]}"
    if option.since and version < option.since:
        yield Problem((key,), value, f"Docker {option.since[0]}.{option.since[1]} or newer; here is {here}")
    if option.until and version >= option.until:
        yield Problem(
            (key,), value, f"a Docker older than {option.until[0]}.{option.until[1]}; here is {here}"
        )


def _classify(before: Config, after: Config) -> tuple[list[str], list[str]]:
    restart: list[str] = []
    reload: list[str] = []
    for key in dict.fromkeys((*before, *after)):
        old, new = before.get(key), after.get(key)
        if key in before and key in after and same(old, new):
            continue
        option = OPTIONS.get(key)
        live = option is not None and option.reload and key in after
        if key == "features" and live:
            olds, news = _mapping(old), _mapping(new)
            touched = {name for name in (*olds, *news) if olds.get(name) != news.get(name)}
            live = touched <= RELOADED_FEATURES and set(olds) <= set(news)
        (reload if live else restart).append(key)
    return restart, reload


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _splits(path: str) -> Iterator[tuple[str, ...]]:
    yield (path,)
    for index in range(len(path) - 1, 0, -1):
        if path[index] == ".":
            yield path[:index], path[index + 1 :]


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value


def _unique(value: Any, path: Path, twice: list[str]) -> Any:
    if isinstance(value, _Pairs):
        done: Config = {}
        for key, item in value:
            if key in done and dotted((*path, key)) not in twice:
                twice.append(dotted((*path, key)))
            done[key] = _unique(item, (*path, key), twice)
        return done
    if isinstance(value, list):
        return [_unique(item, (*path, index), twice) for index, item in enumerate(value)]
    return value


def _no_constant(name: str) -> Iterable[None]:
    raise ValueError(f"{name} is no JSON value")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large")
    return number


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")
