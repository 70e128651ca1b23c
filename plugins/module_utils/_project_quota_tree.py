# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Walks a directory tree for project quotas: measures it, or gives all of it a project id.

The tree may belong to others, who may change it meanwhile: names are opened below an open directory and links are
never followed. A directory gets its id before its names are read, so that nothing made during the walk is missed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from ansible_collections.matryoshka.host.plugins.module_utils._quotactl import READ_ATTRIBUTES, UNSUPPORTED


class Marks(Protocol):
    """What of :mod:`_quotactl` a walk needs."""

    def project_of(self, file: str | int) -> tuple[int, bool]: ...

    def set_project(self, descriptor: int, project: int) -> None: ...

    def set_special_project(self, name: str, project: int, directory: int) -> bool: ...


@dataclass
class Walked:
    """What a walk met. ``skipped`` are links, sockets, pipes and devices that an older kernel can't mark."""

    bytes: int = 0
    inodes: int = 0
    marked: int = 0
    skipped: int = 0


def measure(path: str) -> Walked:
    """How much the tree holds on its own file system; a file with several names counts once."""
    walked = Walked()
    several: set[int] = set()

    def count(status: os.stat_result) -> None:
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if status.st_ino in several:
                return
            several.add(status.st_ino)
        walked.bytes += status.st_blocks * 512
        walked.inodes += 1

    def visit(_descriptor: int, status: os.stat_result) -> bool:
        count(status)
        return True

    def special(_name: str, _directory: int, status: os.stat_result) -> None:
        count(status)

    def file(_descriptor: int | None, status: os.stat_result) -> None:
        count(status)

    _walk(path, visit, file, special, open_files=False)
    return walked


def mark(path: str, project: int, replaced: Collection[int], marks: Marks) -> Walked:
    """Give ``project`` to all of the tree that has an id of ``replaced`` (0 stands for none).

    A directory with another id is a project of its own and is left alone with all that is in it.
    """
    walked = Walked()

    def give(descriptor: int, directory: bool) -> bool:
        present, inherit = marks.project_of(descriptor)
        if present == project and (inherit is bool(project) or not directory):
            return True
        if present != project and present not in replaced:
            return False
        marks.set_project(descriptor, project)
        walked.marked += 1
        return True

    def visit(descriptor: int, _status: os.stat_result) -> bool:
        return give(descriptor, directory=True)

    def file(descriptor: int | None, _status: os.stat_result) -> None:
        if descriptor is not None:
            give(descriptor, directory=False)

    def special(name: str, directory: int, _status: os.stat_result) -> None:
        try:
            done = marks.set_special_project(name, project, directory)
        except FileNotFoundError:
            return
        walked.marked += done
        walked.skipped += not done

    _walk(path, visit, file, special, open_files=True)
    return walked


def has_project_ids(path: str, marks: Marks) -> tuple[int, bool] | None:
    """Id and inheritance of a directory; None where the file system knows no project ids."""
    try:
        return marks.project_of(path)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return None
        raise


def _walk(
    path: str,
    visit: Callable[[int, os.stat_result], bool],
    file: Callable[[int | None, os.stat_result], None],
    special: Callable[[str, int, os.stat_result], None],
    open_files: bool,
) -> None:
    """Top down through ``path``, on its own file system only.

    :param visit: for each directory; False if its content is to be left alone.
    :param file: for each regular file, opened if ``open_files``.
    :param special: for all else, by name and directory.
    """
    top = os.open(path, READ_ATTRIBUTES | os.O_DIRECTORY)
    device = os.fstat(top).st_dev
    stack: list[tuple[int, list[str]]] = []

    def enter(descriptor: int) -> None:
        try:
            status = os.fstat(descriptor)
            wanted = status.st_dev == device and visit(descriptor, status)
            names = os.listdir(descriptor) if wanted else None
        except BaseException:
            os.close(descriptor)
            raise
        if names is None:
            os.close(descriptor)
        else:
            stack.append((descriptor, names))

    def entry(name: str, directory: int) -> None:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if status.st_dev != device:
            return
        if stat.S_ISDIR(status.st_mode):
            enter(os.open(name, READ_ATTRIBUTES | os.O_DIRECTORY, dir_fd=directory))
        elif not stat.S_ISREG(status.st_mode):
            special(name, directory, status)
        elif not open_files:
            file(None, status)
        else:
            descriptor = os.open(name, READ_ATTRIBUTES, dir_fd=directory)
            try:
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    file(descriptor, status)
            finally:
                os.close(descriptor)

    try:
        enter(top)
        while stack:
            directory, names = stack[-1]
            if not names:
                stack.pop()
                os.close(directory)
                continue
            try:
                entry(names.pop(), directory)
            except OSError as error:
                # Gone or replaced since its name was read.
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                    raise
    finally:
        for descriptor, _names in stack:
            os.close(descriptor)
