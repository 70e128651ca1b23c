# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a playbook with this checkout's collection, in words that don't depend on whose terminal it is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from machine import ROOT


def run_playbook(
    inventory: Path,
    playbook: Path | str,
    variables: Mapping[str, Any] | None = None,
    *options: str,
    timeout: float = 1200,
) -> subprocess.CompletedProcess[str]:
    """Run a playbook with extra variables.

    :param playbook: a file, or the name of one of the collection's, without its ending.
    :param timeout: seconds; ``subprocess.TimeoutExpired`` after that.
    """
    file = playbook if isinstance(playbook, Path) else ROOT / "playbooks" / f"{playbook}.yml"
    argv = ["ansible-playbook", "-i", str(inventory), *options, str(file)]
    if variables:
        argv += ["-e", json.dumps(dict(variables))]
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks" / "collections"),
        "ANSIBLE_PIPELINING": "true",
        "ANSIBLE_NOCOLOR": "true",
        "ANSIBLE_FORCE_COLOR": "false",
    }
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=environment,
    )
