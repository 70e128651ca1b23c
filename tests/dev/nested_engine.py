# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines inside of a container host's engine, for tests: a container that borrows the host's programs."""

from __future__ import annotations

import time
from typing import Any

IMAGE = "storage-test"
HIDDEN = ("-v", "/dev/null:/usr/bin/fuse-overlayfs:ro")
"""An ordinary image hasn't this program of the host's."""
START = "dockerd >/run/dockerd.log 2>&1 & exec sleep infinity"
# An image that borrows the host's /usr: a nested engine without a second installation.
BUILD = f"""
set -e
d=$(mktemp -d)
cd "$d"
mkdir -p usr etc/docker run tmp proc sys dev root var/lib/docker
for name in bin sbin lib lib64; do ln -s "usr/$name" "$name"; done
ln -s /run var/run
cp -a /etc/passwd /etc/group /etc/nsswitch.conf /etc/alternatives etc/
tar -c . | docker import - {IMAGE} >/dev/null
rm -rf "$d"
"""


def start(host: Any, name: str, *options: str, command: str = START) -> None:
    words = ["docker", "run", "-d", "--name", name, "--privileged", "-v", "/usr:/usr:ro", *HIDDEN, *options]
    host.run([*words, IMAGE, "/bin/sh", "-c", command])


def until_live(host: Any, *names: str) -> None:
    for name in names:
        for _ in range(150):
            if host.run(f"docker exec {name} docker version", check=False).ok:
                break
            time.sleep(0.2)
        else:
            raise AssertionError(host.run(f"docker exec {name} cat /run/dockerd.log").out)
