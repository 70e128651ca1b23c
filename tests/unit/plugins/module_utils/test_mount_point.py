# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused before the kernel is asked. The rest needs root: tests/integration/test_role_storage.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _mount_point
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError


@pytest.mark.parametrize("path", ["srv", "/", "/srv/", "/srv/../etc", "/srv//ci"])
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(InputError) as refused:
        _mount_point.answer({"paths": [path], "protected": True}, False)
    assert str(refused.value).startswith(f"paths[0]: {path!r} is refused; allowed: an absolute path")


def test_a_path_below_nothing_is_absent(tmp_path: Path) -> None:
    assert _mount_point.look(str(tmp_path / "no" / "such")) == _mount_point.Beneath("absent")


def test_numbers_are_the_kernel_s() -> None:
    # FS_IOC_GETFLAGS and FS_IOC_SETFLAGS of a 64-bit kernel, from linux/fs.h.
    if os.uname().machine in ("x86_64", "aarch64"):
        assert (_mount_point._FS_IOC_GETFLAGS, _mount_point._FS_IOC_SETFLAGS) == (0x80086601, 0x40086602)
    assert _mount_point._IMMUTABLE == 0x10
