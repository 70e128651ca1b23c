# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints of OpenPGP public keys, without gpg. Source: RFC 4880, sections 4.2, 6.2 and 12.2."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError

_ARMOR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n]+: [^\r\n]*\r?\n)*\r?\n(.*?)(?:\r?\n=[A-Za-z0-9+/]{4})?"
    rb"\r?\n-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)
_PUBLIC_KEY = 6


def fingerprints(data: bytes) -> list[str]:
    """The fingerprints of all primary public keys (version 4) in a key file, armored or binary.

    :returns: 40 upper-case hexadecimal digits each.
    :raises HostError: if the data isn't a key file.
    """
    found = []
    for tag, body in _packets(_dearmored(data)):
        if tag != _PUBLIC_KEY:
            continue
        if not body or body[0] != 4:
            raise HostError("the key file has a public key that isn't of version 4")
        digest = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False)
        found.append(digest.hexdigest().upper())
    if not found:
        raise HostError("the key file has no public key in it")
    return found


def _dearmored(data: bytes) -> bytes:
    blocks = _ARMOR.findall(data)
    if not blocks:
        return data
    try:
        return b"".join(base64.b64decode(re.sub(rb"\s", b"", block), validate=True) for block in blocks)
    except binascii.Error as error:
        raise HostError(f"the key file's armor is damaged: {error}") from error


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        header = data[position]
        if not header & 0x80:
            raise HostError("the key file isn't OpenPGP data")
        tag, start, length = _header(data, position, header)
        if start + length > len(data):
            raise HostError("the key file is cut short")
        yield tag, data[start : start + length]
        position = start + length


def _header(data: bytes, position: int, header: int) -> tuple[int, int, int]:
    """Tag, start of the body and its length, of an old or a new packet header."""
    try:
        if not header & 0x40:
            size = (1, 2, 4)[header & 3]
            start = position + 1 + size
            return (header >> 2) & 15, start, int.from_bytes(data[position + 1 : start], "big")
        first = data[position + 1]
        if first < 192:
            return header & 63, position + 2, first
        if first < 224:
            return header & 63, position + 3, ((first - 192) << 8) + data[position + 2] + 192
        if first == 255:
            return header & 63, position + 6, int.from_bytes(data[position + 2 : position + 6], "big")
    except IndexError:
        raise HostError("the key file is cut short or of a form that isn't used for keys") from None
    raise HostError("the key file has a packet of partial length, which keys don't have")
