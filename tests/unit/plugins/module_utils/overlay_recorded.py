# SPDX-License-Identifier: GPL-3.0-or-later
"""What the probe of overlayfs printed on real file systems, for tests of the conclusions."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._overlay import read_grounds, with_accounts
from ansible_collections.matryoshka.host.plugins.module_utils._overlay_drivers import Ground

FILE = Path(__file__).parents[2] / "fixtures" / "overlay" / "linux-6.18.json"
WORKS: dict[str, Any] = {"works": True, "errno": None, "error": None}
FAILS: dict[str, Any] = {"works": False, "errno": "EOPNOTSUPP", "error": "Operation not supported"}
CI = {
    "name": "ci",
    "uid": 1000,
    "gid": 1000,
    "groups": [1000],
    "subuids": 65536,
    "subgids": 65536,
    "uid_map": [(0, 1000, 1), (1, 100000, 65536)],
    "gid_map": [(0, 1000, 1), (1, 100000, 65536)],
}
KERNEL: dict[str, Any] = {"release": "6.18.44", "selinux": False, "settings": {}}


def raw(name: str) -> dict[str, Any]:
    """As the probe printed it."""
    return copy.deepcopy(json.loads(FILE.read_text(encoding="utf-8"))[name])


def recorded(name: str) -> dict[str, Any]:
    """With the ids of its user."""
    return with_accounts(raw(name), [CI])


def facts(name: str) -> dict[str, Any]:
    """Where that was."""
    return {
        "path": f"/mnt/{name}",
        "probed_in": f"/mnt/{name}",
        "filesystem": name,
        "mount_point": f"/mnt/{name}",
        "prior_drivers": [],
        "kernel": KERNEL["release"],
    }


def ground(name: str, user: str | None = None) -> Ground:
    return read_grounds(facts(name), recorded(name), KERNEL)[user]
