# SPDX-License-Identifier: GPL-3.0-or-later
"""A recipe of an environment image, for tests."""

from __future__ import annotations

from typing import Any

DIGEST = "sha256:" + "ab" * 32


def recipe(**changes: Any) -> dict[str, Any]:
    """A valid recipe with ``changes``; a value of ``...`` takes the key out."""
    values: dict[str, Any] = {
        "mode": "dind",
        "base": "debian",
        "suite": "trixie",
        "components": ["main"],
        "pockets": ["updates", "security"],
        "mirror": "",
        "security_mirror": "",
        "default_mirror": "http://deb.debian.org/debian",
        "default_security_mirror": "http://security.debian.org/debian-security",
        "packages": ["docker.io", "curl"],
        "preferences": [],
        "refresh": "",
        "files": {
            "/usr/local/sbin/environment-start": "#!/bin/sh\n",
            "/usr/local/sbin/environment-ready": "#!/bin/sh\n",
        },
        **changes,
    }
    return {key: value for key, value in values.items() if value is not ...}
