# SPDX-License-Identifier: GPL-3.0-or-later
"""Host images: made from Debian packages with mmdebstrap, cached in Podman's store by a recipe's hash."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from machine import CHECKOUT, ROOT, STATE, Failure, lock, podman, root_command, run, say

RECIPE = ROOT / "molecule" / "shared" / "images"
IMAGES = f"localhost/matryoshka-{CHECKOUT}"


def recipe(image: str) -> tuple[str, list[str], str]:
    """Suite, packages and hash of ``image``'s recipe."""
    table = json.loads((RECIPE / "images.json").read_text(encoding="utf-8"))
    if image not in table["images"]:
        raise Failure(f"no image {image}: there are {', '.join(sorted(table['images']))}")
    suite = table["images"][image]["suite"]
    packages = sorted({*table["base"], *table["images"][image]["packages"]})
    parts = [suite, *packages, (RECIPE / "customize.sh").read_text(encoding="utf-8")]
    return suite, packages, hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def image_id(reference: str) -> str:
    """The ID of an image by its name; empty if there is none."""
    found = podman("images", "-q", "--no-trunc", "--filter", f"reference={reference}").split()
    return found[0] if found else ""


def image_names() -> list[str]:
    """This checkout's names of images (Podman lists all names of an image of which one is asked for)."""
    form = "{{.Repository}}:{{.Tag}}"
    listed = podman("images", "--format", form, "--filter", f"reference={IMAGES}").split()
    return [name for name in listed if name.startswith(f"{IMAGES}:")]


def ensure_image(image: str) -> str:
    """The reference of ``image`` in Podman's store, made first if it isn't there."""
    suite, packages, digest = recipe(image)
    reference = f"{IMAGES}:{image}-{digest}"
    with lock(f"image-{image}"):
        if image_id(reference):
            return reference
        # Another checkout with the same recipe has made it already.
        same = podman("images", "-q", "--filter", f"label=matryoshka.recipe={digest}").split()
        if same:
            podman("tag", same[0], reference)
            return reference
        started = time.monotonic()
        say(f"making the image {image} from Debian packages ({suite}, {len(packages)} named) ...")
        build_image(suite, packages, digest, reference)
        say(f"made the image {image} in {time.monotonic() - started:.0f} s")
        remove_old_images(image, keep=reference)
    return reference


def build_image(suite: str, packages: Sequence[str], digest: str, reference: str) -> None:
    """Make a tree of ``suite`` with mmdebstrap and import it into Podman's store."""
    mirror = os.environ.get("MATRYOSHKA_DEBIAN_MIRROR")
    with tempfile.TemporaryDirectory(prefix="image-", dir=STATE) as folder:
        # A private working folder must be passable for apt's own user.
        os.chmod(folder, 0o755)
        tar = Path(folder) / "tree.tar"
        run(
            root_command([
                "env", f"TMPDIR={folder}",
                "mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}",
                "--aptopt=APT::Install-Recommends \"false\"",
                f"--customize-hook={shlex.quote(str(RECIPE / 'customize.sh'))} \"$1\"",
                suite, str(tar), *([mirror] if mirror else []),
            ])
        )  # fmt: skip
        labels = ("-c", f"LABEL matryoshka.recipe={digest}", "-c", 'CMD ["/sbin/init"]')
        podman("import", "-q", *labels, "-c", "STOPSIGNAL SIGRTMIN+3", str(tar), reference)
        run(root_command(["rm", "-f", str(tar)]))


def remove_old_images(image: str, keep: str) -> None:
    """Drop this checkout's names of ``image`` made from earlier recipes."""
    for name in image_names():
        tag = name.rpartition(":")[2]
        if name != keep and tag.rpartition("-")[0] == image:
            drop_name(name)


def drop_name(reference: str) -> None:
    """Drop one name of an image, and the image with its last one (another checkout may have one)."""
    image = image_id(reference)
    podman("untag", image, reference)
    if json.loads(podman("image", "inspect", "--format", "{{json .RepoTags}}", image) or "[]") in ([], None):
        podman("rmi", image, check=False)
