# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line that a unit starts dockerd with, and what of it clashes with daemon.json.

dockerd refuses to start if an option is given both ways. systemd is asked for the unit;
where it isn't running or has not read its files yet, the unit's files are read.
"""

from __future__ import annotations

import os
import pathlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_config_values import Path, Problem
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_options import OPTIONS, PROXIES

UNIT_DIRECTORIES = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
_PROPERTIES = "LoadState,NeedDaemonReload,ExecStart,Environment,EnvironmentFiles"


@dataclass
class CommandLine:
    """dockerd's flags by long name, each with the values it is given; ``unit`` they come from."""

    unit: str
    flags: dict[str, list[str]] = field(default_factory=dict)


def parse_flags(argv: Sequence[str]) -> dict[str, list[str]]:
    """Flags by their long names. ``argv`` has no program in it; what isn't a flag is left out."""
    short = {option.short: option.flag or key for key, option in OPTIONS.items() if option.short}
    switches = {option.flag or key for key, option in OPTIONS.items() if option.is_switch}
    found: dict[str, list[str]] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
        elif word.startswith("-") and len(word) > 1 and word[1] != "-":
            name, value = short.get(word[1], word[1]), word[2:]
            equals = "=" if value else ""
            if name in switches and value and not value.startswith("="):
                words.insert(0, f"-{value}")
                equals = value = ""
            value = value.removeprefix("=")
        else:
            continue
        if not equals:
            valued = name not in switches and words and not words[0].startswith("-")
            value = words.pop(0) if valued else "true"
        found.setdefault(name, []).append(value)
    return found


def clashes(config: Mapping[str, Any], line: CommandLine) -> Iterator[Problem]:
    """The options of ``config`` that ``line`` sets too. ``runtimes`` may be in both."""
    for key, value in config.items():
        if key == "runtimes" or key not in OPTIONS:
            continue
        flag = OPTIONS[key].flag or key
        places: list[tuple[Path, Any, str]] = [((key,), value, flag)]
        if key == "proxies" and isinstance(value, Mapping):
            places = [((key, name), value[name], name) for name in PROXIES if name in value]
        for path, given, name in places:
            if name in line.flags:
                yield Problem(
                    path,
                    given,
                    f"only in one place, but {line.unit} starts dockerd with "
                    + " ".join(f"--{name}={text}" for text in line.flags[name]),
                )


def read_command_line(unit: str, runner: Runner, root: pathlib.Path = pathlib.Path("/")) -> CommandLine:
    """The flags that ``unit`` starts dockerd with; none if there is no such unit.

    :param root: where unit files and environment files are, for tests.
    """
    answer = runner(["systemctl", "show", "-p", _PROPERTIES, unit], check=False, timeout=10.0)
    properties: dict[str, list[str]] = {}
    for text in answer.out.splitlines() if answer.ok else ():
        key, _ignored, value = text.partition("=")
        properties.setdefault(key, []).append(value)
    if properties.get("LoadState") == ["loaded"] and properties.get("NeedDaemonReload") == ["no"]:
        return CommandLine(unit, _flags_from_show(properties, root))
    return CommandLine(unit, _flags_from_files(unit, root))


def _flags_from_show(properties: Mapping[str, list[str]], root: pathlib.Path) -> dict[str, list[str]]:
    environment = _assignments(" ".join(properties.get("Environment", [])))
    for entry in properties.get("EnvironmentFiles", []):
        environment.update(_environment_file(root, entry.split(" (")[0]))
    for entry in properties.get("ExecStart", []):
        found = re.search(r"argv\[\]=(.*?) ; ignore_errors=", entry)
        if found:
            return parse_flags(_expanded(_split(found[1]), environment)[1:])
    return {}


def _flags_from_files(unit: str, root: pathlib.Path) -> dict[str, list[str]]:
    start: list[str] = []
    environment: dict[str, str] = {}
    for path in _unit_files(unit, root):
        for key, value in _service_lines(path):
            if key == "ExecStart":
                start = _split(value.lstrip("-@:+!")) if value else []
            elif key == "Environment":
                environment = {**environment, **_assignments(value)} if value else {}
            elif key == "EnvironmentFile" and value:
                environment.update(_environment_file(root, value.removeprefix("-")))
    return parse_flags(_expanded(start, environment)[1:])


def _unit_files(unit: str, root: pathlib.Path) -> list[pathlib.Path]:
    """The unit's file and its drop-ins in the order in which systemd reads them."""
    main = next((root / place / unit for place in UNIT_DIRECTORIES if (root / place / unit).is_file()), None)
    if main is None:
        return []
    drop_ins: dict[str, pathlib.Path] = {}
    for place in reversed(UNIT_DIRECTORIES):
        for path in sorted((root / place / f"{unit}.d").glob("*.conf")):
            drop_ins[path.name] = path
    return [main, *(drop_ins[name] for name in sorted(drop_ins))]


def _service_lines(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    section = ""
    text = re.sub(r"\\\n", " ", path.read_text(errors="replace"))
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and line[0] not in "#;":
            key, _ignored, value = line.partition("=")
            yield key.strip(), value.strip()


def _environment_file(root: pathlib.Path, name: str) -> dict[str, str]:
    try:
        text = (root / name.lstrip(os.sep)).read_text(errors="replace")
    except OSError:
        return {}
    lines = [line.strip() for line in re.sub(r"\\\n", " ", text).splitlines()]
    pairs = (line.partition("=") for line in lines if "=" in line and line[0] not in "#;")
    return {key.strip(): " ".join(_split(value)) for key, _ignored, value in pairs}


def _assignments(text: str) -> dict[str, str]:
    return {key: value for key, equals, value in (word.partition("=") for word in _split(text)) if equals}


def _expanded(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Variables as systemd has them: ``$NAME`` alone is split into words, ``${NAME}`` isn't."""
    done: list[str] = []
    for word in words:
        alone = re.fullmatch(r"\$(\w+)", word)
        if alone:
            done += _split(environment.get(alone[1], ""))
        else:
            done.append(re.sub(r"\$\{(\w+)\}", lambda found: environment.get(found[1], ""), word))
    return done


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
