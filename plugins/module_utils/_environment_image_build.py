# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads, builds and removes environment images on the host. What has to happen is decided in ``_environment_image``."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _environment_image as image
from ansible_collections.matryoshka.host.plugins.module_utils import (
    _environment_image_archive as image_archive,
)
from ansible_collections.matryoshka.host.plugins.module_utils._apt_sources import Source, read_sources
from ansible_collections.matryoshka.host.plugins.module_utils._command import Piper, Result, Runner
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError

WORK_PREFIX = "matryoshka-image-"
TOGETHER = (
    "setpriv", "--pdeathsig", "KILL",
    "unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc",
)  # fmt: skip
"""In front of a program: whoever started it takes it along when killed, with all its children and mounts.

The kernel kills a PID namespace with its first process (pid_namespaces(7)), and a mount namespace goes with its last.
"""
LAST_LINES = 12
NOT_INSTALLED = (127,)
ANY_CODE = range(256)
DEFAULT_SOURCES: Callable[[], Sequence[Source]] = read_sources
LOCK = "/run/matryoshka/environment-image.lock"


@dataclass(frozen=True)
class Builder:
    """How and where images are made.

    :ivar directory: an existing folder on a real disk; each build has a private folder in it, always removed.
    :ivar log: file with the output of the last build, mode 0600.
    :ivar lock: file that keeps two builds on a host apart.
    :ivar deadline: ``time.monotonic()`` at which a build is given up.
    :ivar archive: file to load the image from instead of building it; empty for none.
    """

    run: Runner
    pipe: Piper
    directory: str
    log: str
    lock: str
    deadline: float
    archive: str
    sources: Callable[[], Sequence[Source]]

    def left(self) -> float:
        """Seconds until the deadline, at least one."""
        return max(1.0, self.deadline - time.monotonic())


def read_images(run: Runner, tolerated: Container[int] = ()) -> list[image.Image]:
    """The images with our label; none if ``docker`` ends with one of the ``tolerated`` exit codes.

    :raises HostError: if there is no engine that answers.
    """
    command = ["docker", "images", "--no-trunc", "--filter", f"label={image.LABEL_ROLE}"]
    result = run([*command, "--format", "{{json .}}"], check=False)
    if not result.ok and result.code not in tolerated:
        raise HostError(f"docker doesn't answer on this host: {result.err.strip()}")
    return image.parse_images(result.out) if result.ok else []


def read_used(run: Runner) -> dict[str, list[str]]:
    """Images that containers were made from, by name or ID, with the containers' names."""
    used: dict[str, list[str]] = {}
    result = run(["docker", "ps", "--all", "--no-trunc", "--format", "{{.Image}}\t{{.Names}}"])
    for line in result.out.splitlines():
        name, _ignored, container = line.partition("\t")
        used.setdefault(name, []).append(container)
    return used


def make_plan(run: Runner, images: Sequence[image.Image], wanted: image.Reference | None) -> image.Plan:
    """The plan for ``images``; containers are only asked about if there is an old image."""
    plan = image.plan(images, (), wanted)
    return image.plan(images, read_used(run), wanted) if plan.remove else plan


def remove_images(run: Runner, images: Sequence[image.Image]) -> list[str]:
    """Remove ``images`` and return what the engine said of those that it kept."""
    refused = []
    for old in images:
        result = run(["docker", "image", "rm", old.handle], check=False, timeout=300)
        if not result.ok and "No such image" not in result.err:
            refused.append(result.err.strip())
    return refused


def mmdebstrap_command(
    recipe: image.Recipe, sources: Sequence[Source], directory: str, preferences: str | None
) -> list[str]:
    """mmdebstrap's command line; it writes a tar archive to standard output.

    :param directory: for its temporary files.
    :param preferences: path of an apt preferences file, if there are pins.
    """
    command = [*TOGETHER, "env", f"TMPDIR={directory}"]
    command += ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar"]
    command += [f"--include={','.join(recipe.packages)}"]
    command += [f"--aptopt={option}" for option in image.APT_OPTIONS]
    command += [f"--dpkgopt={option}" for option in image.DPKG_OPTIONS]
    if preferences:
        target = f'"$1"{image.PREFERENCES}'
        command += [f'--setup-hook=mkdir -p "$(dirname {target})" && cp {shlex.quote(preferences)} {target}']
    command += ['--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname"']
    return [*command, recipe.suite, "-", *(source.line() for source in sources)]


def ensure(builder: Builder, recipe: image.Recipe, plan: image.Plan) -> list[str]:
    """Do what ``plan`` says; what the engine refused to remove is returned."""
    names = image.reference(recipe)
    if plan.build:
        with _alone(builder):
            plan = make_plan(builder.run, read_images(builder.run), names)
            if plan.build:
                _build(builder, recipe, names, plan.make_base)
    return remove_images(builder.run, plan.remove)


@contextmanager
def _alone(builder: Builder) -> Iterator[None]:
    """Hold the build lock, waiting for another build to end first."""
    os.makedirs(os.path.dirname(builder.lock), exist_ok=True)
    with open(builder.lock, "a", encoding="utf-8") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > builder.deadline:
                    raise HostError(f"another build holds {builder.lock}; gave up waiting for it") from None
                time.sleep(0.5)
        yield


def _left_over(directory: str) -> list[Path]:
    """The folders of builds in ``directory``; those of builds that were killed for whoever holds the lock."""
    return sorted(Path(directory).glob(WORK_PREFIX + "*"))


def sweep(run: Runner, directory: str, lock: str) -> None:
    """Remove what builds that were killed left in ``directory``; nothing while one is under way."""
    if not _left_over(directory):
        return
    os.makedirs(os.path.dirname(lock), exist_ok=True)
    with open(lock, "a", encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        for left_over in _left_over(directory):
            _remove_tree(run, left_over)


def _build(builder: Builder, recipe: image.Recipe, names: image.Reference, make_base: bool) -> None:
    if builder.archive:
        image_archive.load(builder.run, builder.archive, names)
        _refuse_other(builder.run, names)
        return
    if not os.path.isdir(builder.directory):
        raise HostError(f"build_directory {builder.directory} is no folder on this host")
    os.makedirs(os.path.dirname(builder.log), exist_ok=True)
    os.close(os.open(builder.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    for left_over in _left_over(builder.directory):
        _remove_tree(builder.run, left_over)
    work = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=builder.directory))
    try:
        work.chmod(0o711)
        if make_base:
            _make_base(builder, recipe, names, work)
        _build_image(builder, recipe, names, work)
    finally:
        _remove_tree(builder.run, work)


def _make_base(builder: Builder, recipe: image.Recipe, names: image.Reference, work: Path) -> None:
    if names.base_reference is None:
        raise AssertionError("names.base_reference is set by now")
    preferences = image.preferences_text(recipe)
    if preferences:
        (work / "preferences").write_text(preferences, encoding="utf-8")
    sources = image.recipe_sources(recipe, builder.sources())
    directory = work / "root"
    directory.mkdir()
    make = mmdebstrap_command(
        recipe, sources, str(directory), str(work / "preferences") if preferences else None
    )
    take = ["docker", "import"]
    for label in (f"{image.LABEL_ROLE}={image.ROLE_BASE}", f"{image.LABEL_MODE}={recipe.mode}"):
        take += ["--change", f"LABEL {label}"]
    made, taken = builder.pipe(make, [*take, "-"], timeout=builder.left(), log=builder.log)
    _write_log(builder.log, taken.out + taken.err)
    if not made.ok and taken.ok and taken.out.strip():
        builder.run(["docker", "image", "rm", taken.out.strip()], check=False)
    if not taken.ok and (made.ok or "Broken pipe" in made.err or made.code < 0):
        raise _failure(builder, "docker import", taken)
    if not made.ok:
        raise _failure(builder, f"mmdebstrap of {recipe.suite}", made)
    builder.run(["docker", "tag", taken.out.strip(), names.base_reference])


def _build_image(builder: Builder, recipe: image.Recipe, names: image.Reference, work: Path) -> None:
    context = work / "context"
    _write_files(context / "files", recipe.files)
    if not recipe.made:
        _write_files(context / "policy", _policy(recipe))
    base = names.base_reference or recipe.base
    text = image.dockerfile(recipe, base, image.base_sha256(recipe), names.sha256)
    (context / "Dockerfile").write_text(text, encoding="utf-8")
    command = ["env", "BUILDX_BUILDER=default", "docker", "build", "--tag", names.reference, str(context)]
    built = builder.run(command, check=False, timeout=builder.left())
    _write_log(builder.log, built.out + built.err)
    if not built.ok:
        raise _failure(builder, f"docker build of {names.reference}", built)
    _refuse_other(builder.run, names)


def _refuse_other(run: Runner, names: image.Reference) -> None:
    """HostError if the image of that name isn't the recipe's, by its label."""
    label = f'{{{{index .Config.Labels "{image.LABEL_RECIPE}"}}}}'
    found = run(["docker", "image", "inspect", "--format", label, names.reference]).out.strip()
    if found != names.sha256:
        raise HostError(
            f"{names.reference} was made, but the engine has another image of that name ({found})"
        )


def _policy(recipe: image.Recipe) -> dict[str, str]:
    """The files that set a registry's image up for the recipe's packages policy."""
    files = {
        "/etc/apt/apt.conf.d/99matryoshka": "\n".join(image.APT_OPTIONS) + "\n",
        "/etc/dpkg/dpkg.cfg.d/matryoshka": "\n".join(image.DPKG_OPTIONS) + "\n",
    }
    if recipe.preferences:
        files[image.PREFERENCES] = image.preferences_text(recipe)
    if recipe.mirror:
        lines = [source.line() for source in image.recipe_sources(recipe, ())]
        files["/etc/apt/sources.list"] = "\n".join(lines) + "\n"
    return files


def _write_files(root: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(0o755 if target.parent.name in ("bin", "sbin") else 0o644)
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)


def _remove_tree(run: Runner, path: Path) -> None:
    """Remove a build's folder; what mmdebstrap left mounted in it is unmounted, never entered."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        points = [line.split()[4].encode().decode("unicode_escape") for line in mounts]
    for point in sorted((p for p in points if p.startswith(f"{path}/")), reverse=True):
        run(["umount", "--lazy", point], check=False)
    run(["rm", "-rf", "--one-file-system", "--", str(path)], check=False, timeout=300)


def _write_log(path: str, text: str) -> None:
    with open(path, "a", encoding="utf-8") as log:
        log.write(text)


def _failure(builder: Builder, what: str, result: Result) -> HostError:
    lines = [line for line in (result.out + "\n" + result.err).splitlines() if line.strip()]
    tail = "\n".join(lines[-LAST_LINES:]) or "no output"
    return HostError(f"{what} ended with {result.code}; the last lines of {builder.log}:\n{tail}")


def size_of(run: Runner, reference: str) -> int:
    """Bytes of an image, as the engine counts them."""
    result = run(["docker", "image", "inspect", "--format", "{{json .Size}}", reference])
    return int(json.loads(result.out))


PIN = {
    "package": {"type": "str", "required": True},
    "pin": {"type": "str", "required": True},
    "priority": {"type": "int", "required": True},
}
RECIPE = {
    "mode": {"type": "str", "default": "dind"},
    "base": {"type": "str", "default": image.MADE},
    "suite": {"type": "str", "required": True},
    "components": {"type": "list", "elements": "str", "default": ["main"]},
    "pockets": {
        "type": "list",
        "elements": "str",
        "choices": list(image.POCKETS),
        "default": ["updates", "security"],
    },
    "mirror": {"type": "str", "default": ""},
    "security_mirror": {"type": "str", "default": ""},
    "default_mirror": {"type": "str", "default": "http://deb.debian.org/debian"},
    "default_security_mirror": {"type": "str", "default": ""},
    "packages": {"type": "list", "elements": "str", "required": True},
    "preferences": {"type": "list", "elements": "dict", "default": [], "options": PIN},
    "refresh": {"type": "str", "default": ""},
    "files": {"type": "dict", "required": True},
}
ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "recipe": {"type": "dict", "options": RECIPE},
    "build_directory": {"type": "path", "default": "/var/tmp"},
    "log": {"type": "path", "default": "/var/log/matryoshka/environment-image.log"},
    "timeout": {"type": "int", "default": 1800},
    "archive": {"type": "path", "default": ""},
}
REQUIRED_IF = [("state", "present", ["recipe"])]


def apply(params: Mapping[str, Any], check_mode: bool, run: Runner, pipe: Piper) -> dict[str, Any]:
    """Read, plan, and unless ``check_mode`` act; the result of module ``environment_image``.

    Its key ``refused`` holds what the engine said of old images that it kept.
    """
    started = time.monotonic()
    present = params["state"] == "present"
    recipe = image.parse_recipe(params["recipe"]) if present else None
    names = image.reference(recipe) if recipe else None
    images = read_images(run, ANY_CODE if check_mode else () if present else NOT_INSTALLED)
    plan = make_plan(run, images, names)
    result: dict[str, Any] = {
        "changed": plan.changed,
        "built": plan.build,
        "removed": [old.handle for old in plan.remove],
        "kept": [old.handle for old in plan.kept],
        "diff": difference(images, plan, names),
    }
    if names:
        result.update(reference=names.reference, sha256=names.sha256)
    if check_mode:
        return result
    if not plan.build:
        sweep(run, params["build_directory"], LOCK)
    if recipe and names:
        if plan.changed:
            deadline = started + params["timeout"]
            builder = Builder(
                run,
                pipe,
                params["build_directory"],
                params["log"],
                LOCK,
                deadline,
                params["archive"],
                DEFAULT_SOURCES,
            )
            result["refused"] = ensure(builder, recipe, plan)
        if plan.build:
            result["size"] = size_of(run, names.reference)
            result["seconds"] = round(time.monotonic() - started, 1)
        return result
    if plan.kept:
        handles = ", ".join(old.handle for old in plan.kept)
        raise HostError(f"containers still use {handles}; remove these containers first (docker ps --all)")
    refused = remove_images(run, plan.remove)
    if refused:
        raise HostError("; ".join(refused))
    return result


def difference(
    images: Sequence[image.Image], plan: image.Plan, names: image.Reference | None
) -> dict[str, str]:
    """The images before and after, for ``--diff``."""
    before = [old.handle for old in images]
    after = [old.handle for old in images if old not in plan.remove]
    if names and plan.build:
        after += [name for name in (names.reference, names.base_reference) if name and name not in after]
    header = "environment images"
    return {
        "before_header": header,
        "after_header": header,
        "before": "".join(f"{handle}\n" for handle in sorted(before)),
        "after": "".join(f"{handle}\n" for handle in sorted(after)),
    }
