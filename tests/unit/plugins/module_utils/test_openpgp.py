# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from ansible_collections.matryoshka.host.plugins.module_utils._openpgp import fingerprints
from hypothesis import given
from hypothesis import strategies as st

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def packet(body: bytes) -> bytes:
    return bytes([0x99]) + len(body).to_bytes(2, "big") + body


BODY = bytes([4, 0, 0, 0, 1, 22]) + b"key material"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no public key"),
        (b"<html>not found</html>", "isn't OpenPGP data"),
        (packet(BODY)[:-3], "cut short"),
        (packet(bytes([3]) + BODY[1:]), "isn't of version 4"),
        (bytes([0xC6]), "cut short"),
        (bytes([0xC6, 225]), "partial length"),
    ],
)
def test_what_is_not_a_key(data: bytes, words: str) -> None:
    with pytest.raises(HostError, match=words):
        fingerprints(data)


def test_old_and_new_headers_mean_the_same() -> None:
    assert fingerprints(packet(BODY)) == fingerprints(bytes([0xC6, len(BODY)]) + BODY)
    assert len(fingerprints(packet(BODY) + packet(BODY))) == 2


@given(st.binary(max_size=300))
def test_no_data_ends_in_another_error(data: bytes) -> None:
    with contextlib.suppress(HostError):
        assert all(len(one) == 40 for one in fingerprints(data))


@pytest.mark.skipif(
    not (shutil.which("gpg") and KEYRING.exists()),
    reason="needs gpg and Debian's keyring; the docker role's scenario has both",
)
def test_the_same_as_gpg() -> None:
    shown = subprocess.run(
        ["gpg", "--no-default-keyring", "--show-keys", "--with-colons", str(KEYRING)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    primary, awaited = [], False
    for fields in (line.split(":") for line in shown.splitlines()):
        if fields[0] == "fpr" and awaited:
            primary.append(fields[9])
        awaited = fields[0] == "pub" or (awaited and fields[0] == "rvk")
    assert fingerprints(KEYRING.read_bytes()) == primary
