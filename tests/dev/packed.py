# SPDX-License-Identifier: GPL-3.0-or-later
"""Has Ansible do once what it would do for each run, or for each task: most of a test's processor time goes to it.

For each run Ansible looks anew for what every module imports, and packs it (``ansible.executor.module_common``). It
keeps the packed modules in a temporary folder of the run; with :func:`share` that folder is one in ``.dev``, named by
all that goes into a module. For each task it forks, and the child loads the plugins that the task takes; with
:func:`load` it finds them loaded.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

from ansible import constants
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
KEPT = 86400.0
"""Seconds after which the modules of an earlier state are removed; a run under way may still use them."""


def digest(root: Path = ROOT) -> str:
    """Names all that goes into a module: our sources, Ansible's version, and the files that pin other collections."""
    found = hashlib.sha256(__version__.encode())
    sources = sorted((root / "plugins").glob("module*/**/*.py"))
    for path in [*sources, root / "requirements.txt", root / "requirements.yml"]:
        content = path.read_bytes()
        found.update(f"{path.relative_to(root)} {len(content)}\n".encode() + content)
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
