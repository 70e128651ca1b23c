# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a JSON mapping key by key and refuses what isn't expected, by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matryoshka_runner.errors import ConfigError


def load(path: Path) -> tuple[Fields, str]:
    """The mapping in the JSON file ``path`` and the SHA-256 of the file's bytes."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(path, "file", error.strerror, "a readable JSON file") from None
    try:
        values = json.loads(content)
    except ValueError as error:
        raise ConfigError(path, "file", str(error), "one JSON mapping") from None
    return Fields(path, values), hashlib.sha256(content).hexdigest()


class Fields:
    """A mapping of a configuration file. Every key that is read is ticked off; see :meth:`finish`."""

    def __init__(self, path: Path, values: Any, prefix: str = "") -> None:
        self.path = path
        self.prefix = prefix
        if not isinstance(values, dict):
            raise ConfigError(path, prefix.rstrip(".") or "file", values, "a mapping")
        self.values: Mapping[str, Any] = values
        self._seen: set[str] = set()

    def refuse(self, key: str, value: Any, allowed: str) -> ConfigError:
        return ConfigError(self.path, self.prefix + key, value, allowed)

    def raw(self, key: str, allowed: str, **default: Any) -> Any:
        """The value of ``key``; without a ``default=`` the key has to be there."""
        self._seen.add(key)
        if key in self.values:
            return self.values[key]
        if "default" in default:
            return default["default"]
        raise self.refuse(key, None, f"{allowed} (the key is missing)")

    def text(self, key: str, allowed: str = "a text that isn't empty", **default: Any) -> str:
        value = self.raw(key, allowed, **default)
        if not isinstance(value, str) or not value:
            raise self.refuse(key, value, allowed)
        return value

    def choice(self, key: str, choices: Sequence[str], **default: Any) -> str:
        value = self.raw(key, " | ".join(choices), **default)
        if value not in choices:
            raise self.refuse(key, value, " | ".join(choices))
        return str(value)

    def boolean(self, key: str, **default: Any) -> bool:
        value = self.raw(key, "true | false", **default)
        if not isinstance(value, bool):
            raise self.refuse(key, value, "true | false")
        return value

    def number(self, key: str, low: float, high: float, unit: str, **default: Any) -> float:
        """A number from ``low`` to ``high``."""
        allowed = f"{low:g} to {high:g} {unit}"
        value = self.raw(key, allowed, **default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.refuse(key, value, allowed)
        return value

    def limit(self, key: str, low: float, unit: str, whole: bool = True) -> float | None:
        """A number from ``low`` on, or None for no limit."""
        allowed = f"null or a{' whole' if whole else ''} number of at least {low:g} {unit}"
        value = self.raw(key, allowed, default=None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or value < low:
            raise self.refuse(key, value, allowed)
        return float(value) if not whole else int(value)

    def texts(self, key: str, allowed: str = "a list of texts", **default: Any) -> list[str]:
        value = self.raw(key, allowed, **default)
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.refuse(key, value, allowed)
        return list(value)

    def mapping(self, key: str, **default: Any) -> Fields:
        return Fields(self.path, self.raw(key, "a mapping", **default), f"{self.prefix}{key}.")

    def folder(self, key: str, **default: Any) -> Path:
        value = self.text(key, "an absolute path", **default)
        if not value.startswith("/") or "\0" in value or ".." in value.split("/"):
            raise self.refuse(key, value, "an absolute path")
        return Path(value)

    def finish(self) -> None:
        """Refuse the keys that nobody asked for."""
        for key, value in self.values.items():
            if key not in self._seen:
                raise self.refuse(key, value, "one of the keys " + ", ".join(sorted(self._seen)))
