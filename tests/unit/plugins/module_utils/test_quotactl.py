# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's structures: what Debian 13's kernel answered, beside what xfs_quota and repquota printed of it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _quotactl as quotactl
from ansible_collections.matryoshka.host.plugins.module_utils._quotactl import Limits, QuotaState, Usage
from hypothesis import given
from hypothesis import strategies as st

FIXTURES = Path(__file__).parents[2] / "fixtures" / "quota"
GET_QUOTA, SET_LIMITS, GET_STATE, GET_NEXT = 0x580302, 0x580402, 0x580802, 0x580902


class Recorded:
    """A C library that answers quotactl_fd(2), and quotactl(2) if told so, with what was recorded."""

    def __init__(self, name: str, old: bool = False) -> None:
        self.answers: dict[str, Any] = json.loads((FIXTURES / f"vm-debian13-{name}.json").read_text())
        self.old = old
        self.calls: list[tuple[str, int, int]] = []
        self.written = b""

    def syscall(self, number: Any, _descriptor: int, command: Any, project: Any, record: Any) -> int:
        if self.old:
            ctypes.set_errno(errno.ENOSYS)
            return -1
        assert number.value == 443
        return self._answer("fd", command.value, project.value, record)

    def quotactl(self, command: Any, device: bytes | None, project: Any, record: Any) -> int:
        if device is None:
            return 0
        return self._answer(device.decode(), command.value, project.value, record)

    def _answer(self, by: str, command: int, project: int, record: Any) -> int:
        self.calls.append((by, command, project))
        pointed = record._obj
        if command == SET_LIMITS:
            self.written = bytes(pointed)
            return 0
        name = {
            (GET_STATE, 0): "state",
            (GET_QUOTA, 65536): "quota",
            (GET_QUOTA, 77): "unknown",
            (GET_NEXT, 1): "next",
            (GET_NEXT, 65537): "none_after",
        }[command, project]
        answer = self.answers[name]
        if isinstance(answer, int):
            ctypes.set_errno(answer)
            return -1
        data = bytes.fromhex(answer)
        assert len(data) == ctypes.sizeof(pointed)
        ctypes.memmove(ctypes.addressof(pointed), data, len(data))
        return 0


@pytest.fixture(params=["xfs", "ext4"])
def recorded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    library = Recorded(request.param)
    monkeypatch.setattr(quotactl, "_libc", lambda: library)
    return library


def test_numbers_are_those_that_the_programs_print(recorded: Recorded) -> None:
    line = next(line.split() for line in recorded.answers["report"] if line.startswith("#65536"))
    blocks, soft, hard = (int(word) for word in (line[1:4] if line[1].isdecimal() else line[2:5]))
    found = quotactl.get_project_quota("/dev/nvme3n1", 65536, "/")
    assert found == Usage(65536, blocks * 1024, 3, Limits(hard * 1024, 100, soft * 1024, 50))
    assert (hard, soft) == (16384, 8192)


def test_the_state(recorded: Recorded) -> None:
    assert quotactl.quota_state("/dev/nvme3n1", "/", "xfs") == QuotaState(True, True)


def test_a_project_that_nobody_uses(recorded: Recorded) -> None:
    assert quotactl.get_project_quota("/dev/nvme3n1", 77, "/") == Usage(77)
    # ext4 answers with zeroes.
    found = quotactl.find_project_quota("/dev/nvme3n1", 77, "/")
    assert found == (None if recorded.answers["unknown"] == errno.ENOENT else Usage(77))


def test_figures_that_are_refused(recorded: Recorded) -> None:
    recorded.answers["quota"] = errno.EPERM
    for ask in (quotactl.get_project_quota, quotactl.find_project_quota):
        with pytest.raises(OSError, match="Operation not permitted"):
            ask("/dev/nvme3n1", 65536, "/")


@given(*[st.integers(min_value=0, max_value=1 << 50)] * 6)
def test_figures_are_what_the_kernel_says(
    hard: int, soft: int, inodes_hard: int, inodes_soft: int, blocks: int, inodes: int
) -> None:
    """A ``struct fs_disk_quota``, as ``linux/dqblk_xfs.h`` has it; blocks are of 512 bytes."""
    library = Recorded("xfs")
    head = struct.pack("=bBHI", 1, 2, 0, 65536)
    figures = struct.pack("=QQQQQQ", hard, soft, inodes_hard, inodes_soft, blocks, inodes)
    library.answers["quota"] = (head + figures).ljust(112, b"\0").hex()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quotactl, "_libc", lambda: library)
        found = quotactl.find_project_quota("/dev/nvme3n1", 65536, "/")
    limits = Limits(hard * 512, inodes_hard, soft * 512, inodes_soft)
    assert found == Usage(65536, blocks * 512, inodes, limits)


def test_the_structures_have_the_kernel_s_size() -> None:
    assert ctypes.sizeof(quotactl._State) == 8 + 3 * 24 + 32 + 48
    assert ctypes.sizeof(quotactl._Record) == 112
    assert quotactl._FSXATTR.size == 28


def test_projects_are_found_upwards(recorded: Recorded) -> None:
    found = quotactl.next_project_quota("/dev/nvme3n1", 1, "/")
    assert found is not None and found.id == 65536
    assert quotactl.next_project_quota("/dev/nvme3n1", 65537, "/") is None


def test_limits_are_written_in_the_form_that_is_read(recorded: Recorded) -> None:
    limits = Limits(16 << 20, 100, 8 << 20, 50)
    quotactl.set_project_limits("/dev/nvme3n1", 65536, limits, "/")
    present = bytes.fromhex(recorded.answers["quota"])
    assert recorded.written[4:40] == present[4:40]
    assert recorded.written[2:4] == b"\x0f\0"
    quotactl.set_project_limits("/dev/nvme3n1", 65536, Limits(513), "/")
    assert recorded.written[8:16] == (2).to_bytes(8, "little")


def test_an_older_kernel_is_asked_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Recorded("xfs", old=True)
    monkeypatch.setattr(quotactl, "_libc", lambda: library)
    assert quotactl.get_project_quota("/dev/nvme3n1", 65536, "/").bytes > 0
    assert quotactl.get_project_quota("/dev/nvme3n1", 65536).bytes > 0
    assert library.calls == [("/dev/nvme3n1", GET_QUOTA, 65536)] * 2
    with pytest.raises(OSError, match="Function not implemented"):
        quotactl.get_project_quota(None, 65536, "/")
    with pytest.raises(OSError, match="No such device"):
        quotactl.get_project_quota(None, 65536)


@pytest.mark.parametrize(
    ("flags", "state"),
    [
        (0b000000, QuotaState(False, False, "not switched on")),
        (0b010000, QuotaState(True, False, "limits are not enforced")),
        (0b110000, QuotaState(True, True)),
        (0b001111, QuotaState(False, False, "not switched on")),
    ],
)
def test_states(monkeypatch: pytest.MonkeyPatch, flags: int, state: QuotaState) -> None:
    library = Recorded("xfs")
    whole = bytearray.fromhex(library.answers["state"])
    whole[2] = flags
    library.answers["state"] = whole.hex()
    monkeypatch.setattr(quotactl, "_libc", lambda: library)
    assert quotactl.quota_state("/dev/nvme3n1", "/") == state


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.ENOSYS, "not switched on"),
        (errno.ESRCH, "not switched on"),
        (errno.EPERM, "quotactl: Operation not permitted"),
    ],
)
def test_no_state(monkeypatch: pytest.MonkeyPatch, number: int, why: str) -> None:
    library = Recorded("xfs")
    library.answers["state"] = number
    monkeypatch.setattr(quotactl, "_libc", lambda: library)
    assert quotactl.quota_state("/dev/nvme3n1", "/") == QuotaState(False, False, why)


def test_a_kernel_without_quotas(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        def syscall(self, *_arguments: Any) -> int:
            ctypes.set_errno(errno.ENOSYS)
            return -1

        quotactl = syscall

    monkeypatch.setattr(quotactl, "_libc", Without)
    assert quotactl.quota_state("/dev/sda1", "/") == QuotaState(False, False, "the kernel has no quotas")
    assert quotactl.set_special_project("link", 65536, 3) is False


def test_a_file_system_of_another_kind() -> None:
    assert quotactl.quota_state(None, "/", "tmpfs") == QuotaState(False, False, "tmpfs has no project quotas")


@pytest.mark.parametrize("name", ["xfs", "ext4"])
def test_recorded_attributes(monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path) -> None:
    present = bytes.fromhex(json.loads((FIXTURES / f"vm-debian13-{name}.json").read_text())["attributes"])
    written = []

    def ioctl(_descriptor: int, request: int, argument: bytes) -> bytes:
        if request == 0x401C5820:
            written.append(argument)
        assert len(argument) == 28
        return present

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    assert quotactl.project_of(str(tmp_path)) == (65536, True)
    with tmp_path.joinpath("file").open("w") as file:
        quotactl.set_project(file.fileno(), 7)
    assert written[0][:12] == present[:12] and written[0][12:16] == (7).to_bytes(4, "little")


def test_a_link_is_not_followed_for_its_project(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="symbolic links"):
        quotactl.project_of(str(tmp_path / "link"))
