# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the containerd below an engine answers, asked by a connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from matryoshka_runner.containerd import PLACES, Containerd

OWN, SERVICE = PLACES


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder with a short name: a socket's path has 107 bytes at most (``unix(7)``)."""
    with TemporaryDirectory(prefix="mx-") as folder:
        yield Path(folder)


@pytest.fixture
def listen(root: Path) -> Iterator[dict[str, socket.socket]]:
    """Sockets by place that take connections in ``root``."""
    with ExitStack() as stack:
        found: dict[str, socket.socket] = {}
        for place in PLACES:
            path = root / place
            path.parent.mkdir(parents=True)
            found[place] = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            found[place].bind(str(path))
            found[place].listen(8)
        yield found


def test_the_one_that_dockerd_starts_is_preferred(root: Path, listen: dict[str, socket.socket]) -> None:
    assert Containerd.find(str(root)) == Containerd(str(root), OWN)
    listen[OWN].close()
    found = Containerd.find(f"{root}/")
    assert found == Containerd(f"{root}/", SERVICE)
    assert found.answers()


def test_a_socket_whose_owner_was_killed_doesnt_answer(root: Path, listen: dict[str, socket.socket]) -> None:
    found = Containerd.find(str(root))
    assert found is not None
    listen[OWN].close()
    assert (root / OWN).is_socket()
    assert not found.answers()
    (root / OWN).unlink()
    assert not found.answers()


@pytest.mark.parametrize("link", ["run", "run/docker", "run/docker/containerd", OWN])
def test_a_link_on_the_way_isnt_followed(root: Path, listen: dict[str, socket.socket], link: str) -> None:
    other = root / "o"
    (other / link).parent.mkdir(parents=True)
    (other / link).symlink_to(root / link)
    assert (other / OWN).is_socket()
    assert Containerd.find(str(other)) is None


def test_where_none_is_known_none_is_judged(root: Path) -> None:
    assert Containerd.find(str(root)) is None
    (root / OWN).parent.mkdir(parents=True)
    (root / OWN).write_text("a file", encoding="ascii")
    assert Containerd.find(str(root)) is None
