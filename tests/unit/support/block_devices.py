# SPDX-License-Identifier: GPL-3.0-or-later
"""Block devices as the module returns them, for tests of what is pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._block_content import (
    Signature,
    show_signatures,
    types,
)

GIB = 1 << 30


def signature(
    kind: str, *, usage: str = "filesystem", uuid: str | None = None, label: str | None = None
) -> Signature:
    return Signature(0, kind, usage, uuid, label)


def device(name: str, *, signatures: Sequence[Signature] = (), **changes: Any) -> dict[str, Any]:
    """An empty SATA disk of 100 GiB, but for ``changes``."""
    found: dict[str, Any] = {
        "name": name,
        "path": f"/dev/{name}",
        "number": f"8:{sum(name.encode())}",
        "kind": "disk",
        "disk": name,
        "partition": None,
        "partition_label": None,
        "size_bytes": 100 * GIB,
        "transport": "sata",
        "vendor": None,
        "model": None,
        "serial": f"S-{name}",
        "wwn": None,
        "rotational": False,
        "removable": False,
        "read_only": False,
        "ids": [],
        "links": [],
        "node": True,
        "slaves": [],
        "multipath_leg": False,
        "blank": None if signatures else True,
        "error": None,
        "mounts": [],
        "swap": False,
        "holders": [],
        "system": False,
        "writers": [],
        "busy": None,
        "members": [],
    }
    content = {
        "signatures": [one.as_dict() for one in signatures],
        "content": types(signatures),
        "shown": show_signatures(signatures),
    }
    return {**found, **content, **changes}


def partition(disk: Mapping[str, Any], number: int, **changes: Any) -> dict[str, Any]:
    """A partition of ``disk``."""
    name = f"{disk['name']}{'p' if disk['name'][-1].isdigit() else ''}{number}"
    own = {"disk": disk["name"], "partition": number, "kind": "partition", "size_bytes": 10 * GIB}
    shared = {key: disk[key] for key in ("transport", "vendor", "model", "serial", "wwn", "rotational")}
    return device(name, **{**own, **shared, **changes})
