#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the option tables of the roles' README files from their argument specs.

What a role has to say besides is in its ``NOTES.md``, which its README ends with.

Usage: ``role_readmes.py`` writes, ``role_readmes.py --check`` says which files are stale
and exits with 1 if any is.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
_MARKUP = re.compile(r"\b([CVOIBMLUR])\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
_NOTE = "<!-- Made from meta/argument_specs.yml by tests/docs/role_readmes.py -->"


def plain(text: str | list[str]) -> str:
    """Ansible's markup as Markdown, on one line, fit for a table."""
    joined = " ".join(text) if isinstance(text, list) else text
    return _MARKUP.sub(lambda found: f"`{found[2]}`", joined).replace("|", "\\|").replace("\n", " ")


def shown(value: Any) -> str:
    """A default as a person would write it in YAML."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value == "":
        return "empty"
    if isinstance(value, (dict, list)):
        value = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
    return f"`{value}`".replace("|", "\\|")


def rows(options: dict[str, Any], prefix: str = "") -> list[str]:
    """One row an option; options of list elements follow theirs."""
    made = []
    for name, option in options.items():
        kind = option.get("type", "str") + (f" of {option['elements']}" if "elements" in option else "")
        if "choices" in option:
            kind += ": " + ", ".join(f"`{choice}`" for choice in option["choices"])
        default = (
            "required" if option.get("required") else shown(option["default"]) if "default" in option else ""
        )
        made.append(f"| `{prefix}{name}` | {kind} | {default} | {plain(option['description'])} |")
        made += rows(option.get("options", {}), f"{prefix}{name}[].")
    return made


def readme(role: Path) -> str:
    """The whole README of a role."""
    entries = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))[
        "argument_specs"
    ]
    main = entries["main"]
    lines = [f"# matryoshka.host.{role.name}", "", _NOTE, "", f"{main['short_description']}.", ""]
    description = main["description"]
    for paragraph in [description] if isinstance(description, str) else description:
        lines += [plain(paragraph), ""]
    lines += ["```yaml", "- hosts: all", "  become: true", "  gather_facts: false", "  roles:"]
    lines += [f"    - role: matryoshka.host.{role.name}", "```", ""]
    lines += ["## Options", "", "| option | type | default | meaning |", "| --- | --- | --- | --- |"]
    lines += rows(main.get("options", {}))
    others = [name for name in entries if name != "main"]
    if others:
        lines += ["", "## Other entry points (`tasks_from`)", "", "| name | what it does |", "| --- | --- |"]
        lines += [f"| `{name}` | {entries[name]['short_description']} |" for name in others]
    notes = role / "NOTES.md"
    more = "\n" + notes.read_text(encoding="utf-8") if notes.exists() else ""
    return "\n".join(lines) + "\n" + more


def stale() -> dict[Path, str]:
    """The README files that aren't what the argument specs say, with the text they should have."""
    wanted = {
        role / "README.md": readme(role) for role in sorted((ROOT / "roles").iterdir()) if role.is_dir()
    }
    return {
        path: text
        for path, text in wanted.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }


def main(arguments: list[str]) -> int:
    files = stale()
    for path, text in files.items():
        print(path.relative_to(ROOT), "is stale" if "--check" in arguments else "written")
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
    return 1 if files and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
