# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first process of a container, held by a handle that can't come to mean another process.

When the first process of a PID namespace has ended, the kernel has ended all others in it
before: what they had locked or mounted is free then.
"""

from __future__ import annotations

import os
import select
import signal


class FirstProcess:
    """A handle (``pidfd_open(2)``) on the first process of a PID namespace below the host's."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @classmethod
    def of(cls, pid: int, proc: str = "/proc") -> FirstProcess | None:
        """The handle of process ``pid``; None if it ended, or isn't the first of a namespace below."""
        try:
            found = cls(os.pidfd_open(pid))
        except (OSError, AttributeError):
            return None
        try:
            with open(f"{proc}/{pid}/status", encoding="ascii", errors="replace") as status:
                numbers = next((line.split()[1:] for line in status if line.startswith("NSpid:")), [])
        except OSError:
            numbers = []
        if len(numbers) > 1 and numbers[-1] == "1" and not found.ended():
            return found
        found.close()
        return None

    def ended(self, seconds: float = 0.0) -> bool:
        """True if it has ended, waited for at most ``seconds``."""
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(int(seconds * 1000)))

    def kill(self, seconds: float = 10.0) -> bool:
        """End it and with it all others of its namespace; True once they have ended."""
        try:
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return self.ended(seconds)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
