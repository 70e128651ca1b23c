# SPDX-License-Identifier: GPL-3.0-or-later
"""What a build of the environments' image leaves when whoever started it is killed: nothing."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from typing import Any

from container_host import ROOT

# In a process of its own: the Python API that runs modules has its own way of finding collections.
WORDS = """\
from ansible_collections.matryoshka.host.plugins.module_utils._environment_image_build import TOGETHER
print(*TOGETHER)
"""
BUILD = """\
mount -t tmpfs none /var/tmp/held
sh -c 'setsid sleep 4711 & touch /var/tmp/began; sleep 4711'
"""


def test_a_killed_build_takes_its_children_and_mounts_along(docker_host: Any) -> None:
    host = docker_host
    path = {**os.environ, "PYTHONPATH": str(ROOT / "playbooks/collections")}
    words = subprocess.run(
        [sys.executable, "-c", WORDS], env=path, check=True, capture_output=True, text=True
    )
    together = words.stdout.strip()
    host.run("rm -f /var/tmp/began; mkdir -p /var/tmp/held")
    host.write("/var/tmp/build.sh", BUILD)
    starter = f"{together} sh -e /var/tmp/build.sh & echo $$ > /var/tmp/starter; wait"
    host.run(f"setsid bash -c {shlex.quote(starter)} > /dev/null 2>&1 < /dev/null &")
    host.run("for i in $(seq 100); do [ -e /var/tmp/began ] && exit; sleep 0.1; done; exit 1")
    assert len(host.run("pgrep -f '[s]leep 4711'").out.split()) >= 2
    assert "/var/tmp/held" not in host.run("cat /proc/self/mountinfo").out

    host.run("kill -KILL $(cat /var/tmp/starter)")
    until = time.monotonic() + 5
    while left := host.run("pgrep -f '[s]leep 4711'", check=False).out.split():
        assert time.monotonic() < until, f"these go on: {left}"
        time.sleep(0.1)
