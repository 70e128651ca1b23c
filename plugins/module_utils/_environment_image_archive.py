# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An environment image that was made elsewhere: an archive that ``docker save`` has written."""

from __future__ import annotations

import json
import tarfile

from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._environment_image import Reference
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError

ALLOWED = "a file on the host that 'docker save' has written, compressed or not"
TIMEOUT = 1800


def names_in(path: str) -> list[str]:
    """The names of the images in an archive, by its ``manifest.json`` (moby, image/spec/v1.2: ``RepoTags``).

    :raises InputError: if there is no such file or it isn't an archive of images.
    """
    try:
        with tarfile.open(path) as archive:
            manifest = archive.extractfile("manifest.json")
            images = json.load(manifest) if manifest else []
            return [name for image in images for name in image["RepoTags"] or []]
    except (OSError, EOFError, tarfile.TarError, KeyError, TypeError, ValueError) as error:
        raise InputError("archive", f"{path} ({error})", ALLOWED) from error


def load(run: Runner, path: str, names: Reference) -> str:
    """Have the engine load the image called ``names.reference`` from an archive; what the engine said.

    :raises InputError: if the archive has no such image; nothing was loaded then.
    """
    found = names_in(path)
    if names.reference not in found:
        has = ", ".join(found) or "no image with a name"
        allowed = f"an archive with {names.reference}, the image of this recipe ('docker save' on a host that built it)"
        raise InputError("archive", f"{path}, which has {has}", allowed)
    result = run(["docker", "load", "--input", path], check=False, timeout=TIMEOUT)
    if not result.ok:
        raise HostError(f"docker load of {path} ended with {result.code}: {result.err.strip()}")
    return result.out + result.err
