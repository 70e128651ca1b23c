# SPDX-License-Identifier: GPL-3.0-or-later
"""Has Ansible do once what it would do for each run, or for each task: most of a test's processor time goes to it.

For each run Ansible looks anew for what every module imports, and packs it (``ansible.executor.module_common``). It
keeps the packed modules in a temporary folder of the run; with :func:`share` that folder is one in ``.dev``, named by
all that goes into a module. For each task it forks, and the child loads the plugins that the task takes; with
:func:`load` it finds them loaded. And the child compiles each template that the task takes, also one that the task
before took; with :func:`compile_once` it finds the code in the same folder.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import shutil
import sys
import time
from pathlib import Path
from types import CodeType
from typing import Any

import jinja2
from ansible import constants
from ansible._internal._templating import _jinja_bits as jinja_bits
from ansible.plugins import loader
from ansible.release import __version__

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / ".dev" / "packed"
NAME = "ansiballz_cache"
"""What Ansible calls the folder."""
ACTIONS = (
    "ansible.builtin.assert",
    "ansible.builtin.command",
    "ansible.builtin.copy",
    "ansible.builtin.debug",
    "ansible.builtin.include_vars",
    "ansible.builtin.normal",
    "ansible.builtin.set_fact",
    "ansible.builtin.validate_argument_spec",
    "matryoshka.host.pending_changes",
)
"""Actions that the roles' tasks take; ``normal`` is that of all modules without one."""
SYNTAX = (
    "block_start_string",
    "variable_start_string",
    "comment_start_string",
    "line_statement_prefix",
    "line_comment_prefix",
    "trim_blocks",
    "lstrip_blocks",
    "newline_sequence",
    "keep_trailing_newline",
)
"""Settings of a Jinja environment that change what a template's text means."""
KEPT = 86400.0
"""Seconds after which the modules of an earlier state are removed; a run under way may still use them."""


def digest(root: Path = ROOT) -> str:
    """Names all that goes into a module or a template's code: our sources, versions, and the files that pin them."""
    found = hashlib.sha256(f"{__version__} {jinja2.__version__}".encode())
    sources = sorted(
        path for kind in ("module*", "filter", "test") for path in (root / "plugins").glob(f"{kind}/**/*.py")
    )
    for path in [*sources, root / "requirements.txt", root / "requirements.yml"]:
        content = path.read_bytes()
        found.update(f"{path.relative_to(root)} {len(content)}\n".encode() + content)
    for name in ("packed.py", "bytecode.py"):
        found.update(Path(__file__).with_name(name).read_bytes())
    return found.hexdigest()[:16]


def share(store: Path = STORE, local: Path | None = None) -> Path:
    """Have this process, and those that it forks, keep packed modules in ``store``; the folder in it.

    :param local: Ansible's temporary folder of this run.
    """
    folder = store / digest()
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()
    for old in store.iterdir():
        if old != folder and time.time() - old.stat().st_mtime > KEPT:
            # Another run may be removing it, too.
            shutil.rmtree(old, ignore_errors=True)
    link = (local or Path(constants.DEFAULT_LOCAL_TMP)) / NAME
    if not link.exists():
        link.symlink_to(folder, target_is_directory=True)
    return folder


def load(root: Path = ROOT) -> None:
    """Load the plugins that the roles' tasks take, with all that these import."""
    for name in sorted(path.stem for path in (root / "plugins" / "filter").glob("*.yml")):
        loader.filter_loader.get(f"matryoshka.host.{name}")
    for name in ACTIONS:
        loader.action_loader.get_with_context(name, class_only=True)
    loader.connection_loader.get_with_context("ansible.builtin.ssh", class_only=True)
    loader.become_loader.get("ansible.builtin.sudo", class_only=True)
    loader.shell_loader.get("sh")


def compile_once(folder: Path) -> None:
    """Have templates and expressions compiled once for all tasks, and runs, that have the same ``folder``."""
    environment = jinja_bits.AnsibleEnvironment
    whole, expression, python = environment.compile, environment.compile_expression, environment._compile
    folder = folder / f"templates.{sys.implementation.cache_tag}"
    folder.mkdir(exist_ok=True)
    compiled: list[CodeType] = []

    def place(self: jinja2.Environment, kind: str, source: str) -> Path:
        context = jinja_bits._TemplateCompileContext.current(optional=True)
        escapes = bool(context and context.escape_backslashes)
        about = repr([kind, str(source), escapes, *(getattr(self, name) for name in SYNTAX)])
        return folder / hashlib.sha256(about.encode()).hexdigest()[:32]

    def kept(path: Path) -> Any:
        try:
            return marshal.loads(path.read_bytes())
        except OSError:
            return None

    def keep(path: Path, code: CodeType) -> None:
        hidden = path.with_name(f".{path.name}.{os.getpid()}")
        hidden.write_bytes(marshal.dumps(code))
        hidden.rename(path)

    def compile_python(self: Any, source: str, filename: str) -> CodeType:
        compiled[:] = [python(self, source, filename)]
        return compiled[0]

    def compile_whole(self: Any, source: Any, *rest: Any, **options: Any) -> Any:
        if not isinstance(source, str) or any(rest) or any(options.values()):
            return whole(self, source, *rest, **options)
        path = place(self, "template", source)
        code = kept(path)
        if code is None:
            code = whole(self, source)
            keep(path, code)
        return code

    def compile_expression(self: Any, source: str, *rest: Any, **options: Any) -> Any:
        path = place(self, "expression", source)
        code = kept(path)
        if code is None:
            made = expression(self, source, *rest, **options)
            keep(path, compiled[0])
            return made
        template = self.template_class.from_code(self, code, self.make_globals(None), None)
        return jinja2.environment.TemplateExpression(template, *rest, **options)

    environment._compile = compile_python
    environment.compile = compile_whole
    environment.compile_expression = compile_expression
