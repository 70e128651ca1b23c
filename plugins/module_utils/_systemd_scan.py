# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads from the host what a plan for its units starts from, and keeps what was applied."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._systemd import (
    WantedUnit,
    enabled_links,
    read_text,
    read_units,
)
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_plan import (
    Present,
    is_drop_in,
    unit_of,
)
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_text import (
    SUFFIXES,
    instantiate,
    is_template,
    owner_of,
    template_of,
)
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_wanted import resolve


def scan_files(directory: str) -> dict[str, str]:
    """The texts of all unit files and drop-ins in ``directory`` by path; symlinks aren't followed."""
    found: dict[str, str] = {}
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return found
    for entry in entries:
        if entry.name.rpartition(".")[2] in SUFFIXES and entry.is_file(follow_symlinks=False):
            found[entry.path] = read_text(entry.path)
        elif entry.name.endswith(".d") and entry.is_dir(follow_symlinks=False):
            for drop_in in os.scandir(entry.path):
                if drop_in.name.endswith(".conf") and drop_in.is_file(follow_symlinks=False):
                    found[drop_in.path] = read_text(drop_in.path)
    return found


def read_present(
    run: Runner, wanted: Sequence[WantedUnit], *, owner: str, directory: str, state_directory: str
) -> Present:
    """Everything :func:`plan_units` needs to know, with one process."""
    files = scan_files(directory)
    links = enabled_links()
    targets = set(resolve(wanted))
    names = set(targets)
    templates = {unit.name for unit in wanted if is_template(unit.name)}
    for path, text in files.items():
        if owner_of(text) == owner and not is_drop_in(path):
            (templates if is_template(unit_of(path)) else names).add(unit_of(path))
    names |= {link for link in links.anywhere if template_of(link) in templates}
    names |= {instantiate(template, "*") for template in templates}
    memory = read_memory(state_directory, owner)
    return Present(
        states=read_units(run, names, links=links),
        files=files,
        applied=memory["applied"],
        pending=memory["pending"],
    )


def memory_path(state_directory: str, owner: str) -> str:
    """Where it is kept which triggers an owner's units have taken over."""
    return f"{state_directory}/{owner}.json"


def read_memory(state_directory: str, owner: str) -> dict[str, dict[str, str]]:
    """The kept triggers (``applied``) and owed actions (``pending``), by unit; empty if there are none.

    :raises HostError: the file isn't what this collection writes.
    """
    path = memory_path(state_directory, owner)
    try:
        with open(path, encoding="utf-8") as file:
            found: Any = json.load(file)
        return {key: {str(k): str(v) for k, v in found[key].items()} for key in ("applied", "pending")}
    except FileNotFoundError:
        return {"applied": {}, "pending": {}}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HostError(
            f"{path} is damaged ({error}); remove it, then every unit takes its trigger over again"
        ) from error
