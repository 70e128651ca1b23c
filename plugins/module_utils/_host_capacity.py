# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many processors, processes and threads a host can have at all.

Source of facts: ``/sys/devices/system/cpu/online`` (the kernel's cputopology.rst), ``kernel.pid_max`` and
``kernel.threads-max`` (the kernel's sysctl/kernel.rst), ``SwapTotal`` in ``/proc/meminfo``.
"""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View


def read_capacity(view: View) -> dict[str, Any]:
    """``cpu_list`` (such as ``0-3``), ``pids``, ``threads`` and ``swap_bytes``; None for what can't be read."""
    cpus = (view.text("/sys/devices/system/cpu/online") or "").strip()
    swap = re.search(r"^SwapTotal:\s+(\d+) kB$", view.text("/proc/meminfo") or "", re.MULTILINE)
    return {
        "cpu_list": cpus or None,
        "pids": _number(view, "/proc/sys/kernel/pid_max"),
        "threads": _number(view, "/proc/sys/kernel/threads-max"),
        "swap_bytes": int(swap[1]) << 10 if swap else None,
    }


def _number(view: View, path: str) -> int | None:
    text = (view.text(path) or "").strip()
    return int(text) if text.isdigit() else None
