# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to answer below an environment before anything can be started in it."""

from __future__ import annotations

from collections.abc import Callable

from matryoshka_runner.containerd import HOST, Containerd
from matryoshka_runner.environment import Environment

Find = Callable[[str], Containerd | None]


class Footing:
    """The containerd on the host and that of an environment's inner engine; one that isn't known isn't judged.

    :param reaches: whether the engine reaches its containerd, asked by the name of a container that was started.
    """

    def __init__(self, reaches: Callable[[str], bool], find: Find = Containerd.find) -> None:
        self._reaches = reaches
        self._find = find
        self._host: Containerd | None = None
        self._lost = False

    def learn(self, environment: Environment, inner_engine: bool) -> None:
        """Take those that answer now, when ``environment`` has just got ready, for those it stands on."""
        self._host = self._find(HOST)
        self._lost = False
        if inner_engine:
            environment.containerd = self._find(f"/proc/{environment.pid}/root")

    def lacks(self, environment: Environment) -> str:
        """What doesn't answer any more, empty if nothing. Costs two connections."""
        return self.host_lacks(environment) or self.inner_lacks(environment)

    def host_lacks(self, environment: Environment) -> str:
        """The host's part; one that was away counts again when the engine reaches it too."""
        if self._host is not None and not self._host.answers():
            self._lost = True
            return "containerd on the host doesn't answer"
        if self._lost and not self._reaches(environment.container):
            return "the engine on the host doesn't reach its containerd"
        self._lost = False
        return ""

    @staticmethod
    def inner_lacks(environment: Environment) -> str:
        """The inner engine's part."""
        gone = environment.containerd is not None and not environment.containerd.answers()
        return "the inner engine's containerd doesn't answer" if gone else ""
