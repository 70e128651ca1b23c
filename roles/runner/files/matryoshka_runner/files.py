# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are written whole, survive a power cut, and are never read half-written."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


def now() -> str:
    """The time in UTC, ISO 8601 with milliseconds."""
    return stamp(datetime.now(timezone.utc).timestamp())


def stamp(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC with milliseconds."""
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def seconds_between(start: str, end: str) -> float:
    """Seconds from ``start`` to ``end``, both as :func:`now` writes them."""
    times = [datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (start, end)]
    return round((times[1] - times[0]).total_seconds(), 3)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    _sync(path, os.O_RDONLY | os.O_NOFOLLOW)


def _sync(path: Path, flags: int) -> None:
    number = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(number)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(number)


def write_whole(path: Path, text: str, mode: int = 0o644, durable: bool = True) -> None:
    """Put ``text`` at ``path`` in one step.

    :param mode: permission bits, whatever the umask is.
    :param durable: on disk before this returns; not needed under ``/run``.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write_json(path: Path, content: Any, mode: int = 0o644, durable: bool = True) -> None:
    """:func:`write_whole` for JSON."""
    write_whole(path, json.dumps(content, indent=2) + "\n", mode, durable)


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None if it isn't there or isn't JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
