# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks, kernels and initial RAM file systems of whole machines, made from the trees of host images.

The packages are inside, and an archive with the image of job environments at :data:`ARCHIVE`, because unpacking and
copying are slow where processors are emulated. Standard library only.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from images import RECIPE, ensure_image, recipe
from machine import STATE, lock, podman, root_command, run, say

IMAGES = STATE / "vm" / "images"
ROOT_SIZE = "12G"
"""Size of a machine's root; the file holds only what is written."""
ARCHIVE = "var/lib/environment.tar"
PREFIX = "vm-"
"""How the names of images begin whose hosts are whole machines."""


@dataclass(frozen=True)
class Boot:
    """What a machine starts from. ``root`` is never written to: machines get a layer above it."""

    kernel: Path
    initrd: Path
    root: Path


def ensure_boot(image: str, public_key: Path) -> Boot:
    """Root, kernel and initial RAM file system of ``image``, made first if they aren't there.

    :param public_key: who may log in, as root too.
    """
    script = RECIPE / "machine.sh"
    suite, _packages, tree_digest = recipe(image)
    archive = environment_archive(suite)
    parts = [
        tree_digest,
        archive.name,
        script.read_text(encoding="utf-8"),
        public_key.read_text(encoding="utf-8"),
        ROOT_SIZE,
    ]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    with lock(f"vm-{image}"):
        folder = IMAGES / f"{image}-{digest}"
        if not folder.exists():
            for old in IMAGES.glob(f"{image}-*"):
                if not in_use(old):
                    shutil.rmtree(old)
            reference = ensure_image(image)
            say(f"making the disk of {image} ...")
            with container_tree(reference) as tree:
                run(root_command([str(script), str(tree), str(public_key)]))
                run(root_command(["install", "-m", "0600", str(archive), str(tree / ARCHIVE)]))
                make_boot(tree, folder)
    return Boot(folder / "vmlinuz", folder / "initrd", folder / "root.img")


def environment_archive(suite: str) -> Path:
    """An archive with the image of job environments for ``suite``, made first if it isn't there."""
    # A program of its own: it makes a host, for which this may be asked.
    maker = Path(__file__).with_name("environment_archive.py")
    return Path(run([sys.executable, str(maker), suite], timeout=1200).strip())


def in_use(folder: Path) -> bool:
    """Whether a machine's disk lies above the one in ``folder``."""
    machines = (STATE / "vm" / "hosts").glob("*/machine.json")
    return any(f"{folder}/" in machine.read_text(encoding="utf-8") for machine in machines)


@contextmanager
def container_tree(reference: str) -> Iterator[Path]:
    """The tree of a new container of an image, to be changed at will; gone afterwards."""
    container = podman("create", reference).strip()
    try:
        yield Path(podman("mount", container).strip())
    finally:
        podman("rm", "-f", container)


def make_boot(tree: Path, folder: Path) -> None:
    """Make ``folder`` with the disk of ``tree`` and the newest kernel in it."""
    new = folder.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name in ("vmlinuz", "initrd"):
        kernel = sorted((tree / "boot").glob(f"{name}*-*"))[-1]
        run(root_command(["install", "-m", "0644", str(kernel), str(new / name)]))
    make_filesystem(new / "root.img", ROOT_SIZE, "root", tree)
    new.rename(folder)


def make_filesystem(path: Path, size: str, label: str, tree: Path) -> None:
    """A file that holds an ext4 file system with a copy of ``tree``."""
    run(root_command(["truncate", "--size", size, str(path)]))
    run(root_command(["mkfs.ext4", "-q", "-F", "-L", label, "-d", str(tree), str(path)]))
