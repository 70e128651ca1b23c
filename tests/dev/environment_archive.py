#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints the path of an archive with the image of job environments, made on a container host.

Emulated processors unpack packages for minutes, others for half a minute. The container host is made by the collection's
own roles, with the recipe of the scenarios that load it, so the image is the one that they would build themselves.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import hosts
import yaml
from images import recipe
from machine import ROOT, STATE, Failure, lock, say
from playbook import run_playbook

IMAGES = {"bookworm": "debian12", "trixie": "debian13"}
"""Container host for each suite."""
VARIABLES = ROOT / "molecule" / "inventory"
PLAYBOOK = [
    {
        "hosts": "all",
        "gather_facts": False,
        "become": True,
        "roles": [f"matryoshka.host.{role}" for role in ("preflight", "docker", "runner_image")],
    }
]


def ensure_archive(suite: str) -> Path:
    """The archive for ``suite``, made first if there is none of the present recipe."""
    parts = [
        *ROOT.glob("roles/runner_image/**/*"),
        *ROOT.glob("plugins/module_utils/_environment_image*.py"),
    ]
    parts += variable_files(suite)
    text = b"".join(path.read_bytes() for path in sorted(parts) if path.is_file())
    digest = hashlib.sha256(text + recipe(IMAGES[suite])[2].encode()).hexdigest()[:12]
    folder = STATE / "vm" / "environments"
    archive = folder / f"{suite}-{digest}.tar"
    with lock(f"environment-{suite}"):
        if not archive.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(f"{suite}-*"):
                old.unlink()
            say(f"making the image of job environments for {suite} on a container host ...")
            make(suite, archive)
    return archive


def variable_files(suite: str) -> list[Path]:
    """Where the scenarios have their recipe, the later over the earlier."""
    return [VARIABLES / "group_vars" / "prepared.yml", VARIABLES / "host_vars" / f"vm-{IMAGES[suite]}.yml"]


def make(suite: str, archive: Path) -> None:
    name = f"archive-{suite}"
    host = hosts.create(name, IMAGES[suite], "root")
    try:
        inventory, playbook = archive.with_suffix(".inventory.json"), archive.with_suffix(".playbook.json")
        hosts.write_inventory(inventory, [host])
        playbook.write_text(json.dumps(PLAYBOOK), encoding="utf-8")
        given: dict[str, Any] = {}
        for file in variable_files(suite):
            given |= yaml.safe_load(file.read_text(encoding="utf-8"))
        image = {key: given[key] for key in given if key.startswith("runner_image_packages")}
        done = run_playbook(inventory, playbook, image)
        if done.returncode != 0:
            raise Failure(f"the image of job environments wasn't made:\n{done.stdout[-3000:]}{done.stderr}")
        find = "docker images --filter label=matryoshka.role=environment --format '{{.Repository}}:{{.Tag}}'"
        new = archive.with_suffix(".new")
        with new.open("wb") as target:
            subprocess.run([*host.ssh, f"docker save $({find})"], stdout=target, check=True)
        new.rename(archive)
        inventory.unlink()
        playbook.unlink()
    finally:
        hosts.remove([name])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suite", choices=sorted(IMAGES))
    try:
        print(ensure_archive(parser.parse_args().suite))
    except (Failure, subprocess.CalledProcessError) as failure:
        print(f"environment_archive.py: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
