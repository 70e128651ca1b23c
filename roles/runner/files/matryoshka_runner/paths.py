# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where everything lies on the host; tests give other roots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The three folders of the program and what is in them."""

    etc: Path = Path("/etc/matryoshka")
    run: Path = Path("/run/matryoshka")
    lib: Path = Path("/var/lib/matryoshka")

    @property
    def configs(self) -> Path:
        return self.etc / "runners"

    @property
    def states(self) -> Path:
        return self.run / "runners"

    @property
    def gates(self) -> Path:
        """Lock files that jobs and pruning take turns by."""
        return self.run / "locks"

    @property
    def queue(self) -> Path:
        """The default directory queue."""
        return self.lib / "queue"

    def config(self, name: str) -> Path:
        return self.configs / f"{name}.json"

    def state(self, name: str) -> Path:
        return self.states / f"{name}.json"

    def handed_in(self, name: str) -> Path:
        """Files that are bound into the environments of runner ``name``."""
        return self.run / "environments" / name
