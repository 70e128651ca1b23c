# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipe of a job environment's image, its name, and what has to happen to have it.

Everything here is pure. The name of an image is the hash of all that goes into it, so a
plan on the controller, the host's engine and a runner's configuration agree on it
without asking each other.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._apt_sources import (
    Source,
    has_password,
    select,
    suites,
)
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError

SCHEMA = 1
MADE = "debian"
POCKETS = ("updates", "security", "backports")
START = "/usr/local/sbin/environment-start"
READY = "/usr/local/sbin/environment-ready"
PREFERENCES = "/etc/apt/preferences.d/matryoshka"
LABEL_ROLE = "matryoshka.role"
LABEL_MODE = "matryoshka.mode"
LABEL_RECIPE = "matryoshka.recipe"
ROLE_IMAGE = "environment"
ROLE_BASE = "environment-base"

APT_OPTIONS = ('APT::Install-Recommends "false";', 'Acquire::Languages "none";')
DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)

_DIGEST = re.compile(r"[a-z0-9][a-z0-9._-]*(:[0-9]+)?(/[a-z0-9._-]+)*(:[A-Za-z0-9._-]+)?@sha256:[0-9a-f]{64}")
_SUITE = re.compile(r"[a-z][a-z0-9-]*")
_COMPONENT = re.compile(r"[a-z][a-z0-9/.-]*")
_MIRROR = re.compile(r"(https?|file|copy):(//)?[^\s\[\]]+")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]+(:[a-z0-9-]+)?(=[A-Za-z0-9.+:~-]+)?")
_PIN = re.compile(r"[^\n]+")


@dataclass(frozen=True)
class Recipe:
    """Everything that an environment's image depends on.

    :ivar base: :data:`MADE`, made on the host from packages, or ``name@sha256:…`` of a registry.
    :ivar mirror: address that packages come from; empty for the host's own sources, and
        ``default_mirror`` if these don't carry the suite. The same for ``security_mirror``.
    :ivar packages: names, ``name=version`` for an exact one.
    :ivar preferences: apt pins as ``(package, pin, priority)``, see apt_preferences(5).
    :ivar refresh: any text; another one makes another image with the packages of that day.
    :ivar files: absolute path to text; those in a ``bin`` or ``sbin`` folder become executable.
    """

    mode: str
    base: str
    suite: str
    components: tuple[str, ...]
    pockets: tuple[str, ...]
    mirror: str
    security_mirror: str
    default_mirror: str
    default_security_mirror: str
    packages: tuple[str, ...]
    preferences: tuple[tuple[str, str, int], ...]
    refresh: str
    files: dict[str, str] = field(hash=False)

    @property
    def made(self) -> bool:
        """Whether the base is made on the host."""
        return self.base == MADE


@dataclass(frozen=True)
class Reference:
    """The names of a recipe's images: the environment's, and its base's if that is made on the host."""

    reference: str
    sha256: str
    base_reference: str | None


def parse_recipe(values: Mapping[str, Any], prefix: str = "recipe.") -> Recipe:
    """The recipe in ``values``, checked.

    :param prefix: what a person's names of the values begin with, for messages.
    :raises InputError: naming the value that is refused and what is allowed.
    """

    def text(name: str, pattern: re.Pattern[str], allowed: str, empty: bool = False) -> str:
        value = values.get(name, "" if empty else None)
        if empty and value == "":
            return ""
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise InputError(prefix + name, value, allowed)
        return value

    def texts(name: str, ok: Callable[[str], Any], allowed: str, empty: bool = False) -> tuple[str, ...]:
        value = values.get(name, [] if empty else None)
        if not isinstance(value, (list, tuple)) or not (value or empty):
            raise InputError(prefix + name, value, f"a list of: {allowed}")
        for item in value:
            if not isinstance(item, str) or not ok(item):
                raise InputError(prefix + name, item, allowed)
        return tuple(dict.fromkeys(value))

    def mirror(name: str, empty: bool) -> str:
        allowed = "an http, https, file or copy address without a password in it"
        value = text(name, _MIRROR, allowed, empty=empty)
        if has_password(value):
            raise InputError(prefix + name, re.sub(r"[^/@]*@", "…@", value), allowed)
        return value.rstrip("/")

    base = values.get("base")
    if not isinstance(base, str) or (base != MADE and not _DIGEST.fullmatch(base)):
        raise InputError(
            f"{prefix}base",
            base,
            f"'{MADE}' (made on the host), or an image pinned by digest: name@sha256:<64 hex digits>",
        )
    default_mirror = mirror("default_mirror", empty=False)
    return Recipe(
        mode=text("mode", _SUITE, "a mode's name"),
        base=base,
        suite=text("suite", _SUITE, "a release's code name, such as 'trixie'"),
        components=texts("components", _COMPONENT.fullmatch, "an archive component, such as 'main'"),
        pockets=texts("pockets", POCKETS.__contains__, ", ".join(POCKETS), empty=True),
        mirror=mirror("mirror", empty=True),
        security_mirror=mirror("security_mirror", empty=True),
        default_mirror=default_mirror,
        default_security_mirror=mirror("default_security_mirror", empty=True) or default_mirror,
        packages=tuple(sorted(texts("packages", _PACKAGE.fullmatch, "a package's name, or name=version"))),
        preferences=_preferences(values.get("preferences") or [], f"{prefix}preferences"),
        refresh=text(
            "refresh", re.compile(r"[ -~]{1,200}"), "one line of at most 200 ASCII characters", empty=True
        ),
        files=_files(values.get("files"), f"{prefix}files"),
    )


def _preferences(pins: Any, variable: str) -> tuple[tuple[str, str, int], ...]:
    allowed = (
        "a list of {package: …, pin: …, priority: …}, one line each, priority a number from -32768 to 32767"
    )
    if not isinstance(pins, (list, tuple)):
        raise InputError(variable, pins, allowed)
    found = []
    for pin in pins:
        if not isinstance(pin, Mapping) or set(pin) != {"package", "pin", "priority"}:
            raise InputError(variable, pin, allowed)
        package, value, priority = pin["package"], pin["pin"], pin["priority"]
        if isinstance(priority, str) and re.fullmatch(r"-?[0-9]{1,5}", priority):
            priority = int(priority)
        lines = all(isinstance(line, str) and _PIN.fullmatch(line) for line in (package, value))
        if not lines or isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > 32767:
            raise InputError(variable, dict(pin), allowed)
        found.append((package, value, priority))
    return tuple(found)


def _files(files: Any, variable: str) -> dict[str, str]:
    if not isinstance(files, Mapping):
        raise InputError(variable, files, "a mapping of absolute path to text")
    for path, content in files.items():
        if (
            not isinstance(path, str)
            or not path.startswith("/")
            or posixpath.normpath(path) != path
            or path == "/"
        ):
            raise InputError(variable, path, "absolute paths without '..' or doubled slashes")
        if not isinstance(content, str) or not content:
            raise InputError(f"{variable}[{path}]", content, "the file's text")
    for path in (START, READY):
        if path not in files:
            raise InputError(variable, sorted(files), f"a mapping that has {path}")
    return {path: files[path] for path in sorted(files)}


def preferences_text(recipe: Recipe) -> str:
    """apt's preferences file for the recipe's pins; empty without pins."""
    return "\n".join(
        f"Package: {package}\nPin: {pin}\nPin-Priority: {priority}\n"
        for package, pin, priority in recipe.preferences
    )


def recipe_sources(recipe: Recipe, host: Sequence[Source]) -> list[Source]:
    """Where the packages come from: the recipe's mirror, the host's own sources, or the default mirror.

    :raises HostError: if the host's entry has a password in its address; it would end up in the image.
    """
    if not recipe.mirror:
        own = select(host, recipe.suite, recipe.pockets, recipe.components)
        for source in own:
            if has_password(source.uri):
                raise HostError(
                    f"the host's apt source for {source.suite} has a password in its address, which the image would"
                    " carry to every job; move it to /etc/apt/auth.conf.d, or set runner_image_mirror"
                )
        if own:
            return own
    mirror = recipe.mirror or recipe.default_mirror
    security = recipe.security_mirror or recipe.default_security_mirror
    return [
        Source(security if suite.endswith("-security") else mirror, suite, recipe.components)
        for suite in suites(recipe.suite, recipe.pockets)
    ]


def install_line(recipe: Recipe, base_sha256: str) -> str:
    """A shell line that installs what the image lacks; its text changes with the packages' policy."""
    names = " ".join(recipe.packages)
    missing = "dpkg-query -W -f '${db:Status-Status}' \"${p%%=*}\" 2>/dev/null | grep -qx installed"
    return " ".join(
        (
            f": {base_sha256[:12]};",
            "command -v apt-get >/dev/null || { echo 'the base image has no apt-get:"
            " runner_image_base has to be a Debian or Ubuntu image' >&2; exit 64; };",
            f'for p in {names}; do {missing} || set -- "$@" "$p"; done;',
            "[ $# -eq 0 ] || { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0",
            'install --yes --no-install-recommends "$@"',
            "&& rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb; }",
        )
    )


def dockerfile(recipe: Recipe, base_reference: str, base_sha256: str, recipe_sha256: str) -> str:
    """The one Dockerfile. Its context holds ``files/`` and, for a registry's base, ``policy/``."""
    lines = [f"FROM {base_reference}"]
    if not recipe.made:
        lines += ["COPY policy/ /"]
        if recipe.mirror:
            lines += ["RUN rm -f /etc/apt/sources.list.d/*"]
        lines += [f"RUN {install_line(recipe, base_sha256)}"]
    labels = {LABEL_ROLE: ROLE_IMAGE, LABEL_MODE: recipe.mode, LABEL_RECIPE: recipe_sha256}
    lines += [
        "COPY files/ /",
        "LABEL " + " ".join(f"{key}={value}" for key, value in labels.items()),
        f'HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 CMD ["{READY}"]',
        "STOPSIGNAL SIGTERM",
        f'ENTRYPOINT ["/usr/bin/tini", "-g", "--", "{START}"]',
        "CMD []",
    ]
    return "\n".join(lines) + "\n"


def _sha256(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def base_sha256(recipe: Recipe) -> str:
    """The hash of what the base depends on: packages and where they come from, not the files."""
    policy = {key: value for key, value in asdict(recipe).items() if key != "files"}
    return _sha256([SCHEMA, policy, APT_OPTIONS, DPKG_OPTIONS])


def reference(recipe: Recipe) -> Reference:
    """The names of the recipe's images. The same recipe has the same names everywhere."""
    base = base_sha256(recipe)
    made = f"matryoshka/environment-base:{base[:12]}" if recipe.made else None
    whole = _sha256([base, recipe.files, dockerfile(recipe, made or recipe.base, base, "")])
    return Reference(f"matryoshka/environment-{recipe.mode}:{whole[:12]}", whole, made)


@dataclass(frozen=True)
class Image:
    """An image with our label that the engine has; ``reference`` is empty if it lost its name."""

    id: str
    reference: str = ""

    @property
    def handle(self) -> str:
        """What to remove it by."""
        return self.reference or self.id


@dataclass(frozen=True)
class Plan:
    """What has to happen: make the base, build the image, remove images; ``kept`` are old ones in use."""

    make_base: bool = False
    build: bool = False
    remove: tuple[Image, ...] = ()
    kept: tuple[Image, ...] = ()

    @property
    def changed(self) -> bool:
        return self.build or bool(self.remove)


def parse_images(text: str) -> list[Image]:
    """The images in the output of ``docker images --no-trunc --format '{{json .}}'``."""
    found = []
    for line in text.splitlines():
        if line.strip():
            image = json.loads(line)
            named = "<none>" not in (image["Repository"], image["Tag"])
            found.append(Image(image["ID"], f"{image['Repository']}:{image['Tag']}" if named else ""))
    return found


def plan(images: Iterable[Image], used: Iterable[str], wanted: Reference | None) -> Plan:
    """From the images there are to those wanted (``None``: no image at all).

    :param used: names and IDs of images that containers were made from.
    """
    images, used = list(images), set(used)
    present = {image.reference for image in images}
    wanted_names = {wanted.reference, wanted.base_reference} if wanted else set()
    old = [image for image in images if image.reference not in wanted_names]
    in_use = tuple(image for image in old if {image.id, image.reference} & used)
    build = wanted is not None and wanted.reference not in present
    return Plan(
        make_base=bool(wanted and wanted.base_reference and build and wanted.base_reference not in present),
        build=build,
        remove=tuple(image for image in old if image not in in_use),
        kept=in_use,
    )
