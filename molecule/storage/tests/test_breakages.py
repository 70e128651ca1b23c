# SPDX-License-Identifier: GPL-3.0-or-later
"""Breaks a host with its data on a volume in every way of ``verify_breakages.yml``; verify names each, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "dev"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "default" / "tests"))
from breakages import Verify, check, lines, table
from live import Site

TABLE = table(Path(__file__).parent)
SETTINGS = """\
folder=/var/lib/matryoshka/disk/runners/ci
volume=var-lib-matryoshka-disk.mount
guard=/etc/systemd/system/docker.service.d/50-storage.conf
# Set the flags of the empty mount point, which the volume hides: 0x10 is "immutable" (FS_IOC_SETFLAGS).
beneath() {
  mkdir -p /run/beneath && mount --bind /var/lib/matryoshka /run/beneath
  python3 -c 'import fcntl, os, struct, sys
place = os.open("/run/beneath/disk", os.O_RDONLY)
fcntl.ioctl(place, 0x40086602, struct.pack("l", int(sys.argv[1], 0)))' "$1"
  umount /run/beneath
}
"""


@pytest.fixture(scope="module")
def verify(request: pytest.FixtureRequest) -> Iterator[Verify]:
    inventory = request.config.getoption("--ansible-inventory")
    (host,) = testinfra.get_hosts(
        [request.config.getoption("--hosts") or "all"],
        connection="ansible",
        ansible_inventory=inventory,
        sudo=True,
    )
    look = Verify(Site(host, inventory), SETTINGS)
    look.on_host('rm -rf "$kept"; settled')
    before = look.learn()
    assert not before, f"the host isn't healthy to begin with:\n{lines(before)}"
    yield look
    after = look.learn()
    assert not after, f"something wasn't repaired:\n{lines(after)}"


@pytest.mark.parametrize("case", TABLE, ids=[case["id"] for case in TABLE])
def test_a_breakage_is_named(verify: Verify, case: dict[str, Any]) -> None:
    check(verify, case)
