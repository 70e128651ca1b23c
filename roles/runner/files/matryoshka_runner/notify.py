# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells systemd how the service is doing (``sd_notify(3)``); silent without systemd."""

from __future__ import annotations

import os
import socket


def notify(*lines: str, address: str | None = None) -> None:
    """Send ``lines`` (``READY=1``, ``STATUS=...``) to the service manager.

    :param address: the socket; by default what systemd put into ``NOTIFY_SOCKET``.
    """
    target = address if address is not None else os.environ.get("NOTIFY_SOCKET", "")
    if not target:
        return
    if target.startswith("@"):
        target = "\0" + target[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(target)
            channel.sendall("\n".join(lines).encode())
    except OSError:
        return
