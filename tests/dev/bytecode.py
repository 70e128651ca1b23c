# SPDX-License-Identifier: GPL-3.0-or-later
"""Packed modules with their bytecode: a host compiles a module's sources anew each time, an emulated one for seconds.

The bytecode lies beside the source (zipimport: a ``.pyc`` is preferred), made by the hosts' own Python. Another Python
finds a magic number that isn't its own, and takes the source.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ansible
from ansible.executor import module_common
from images import IMAGES, image_id, recipe
from machine import ROOT, Failure, lock, root_command, run, say, this_machine

IMAGE = "debian13"
"""Most hosts that tests make have this one's Python."""
COMPILE = """\
import base64, importlib.util, json, marshal, sys
unchecked = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
made = {}
for name, source in json.load(sys.stdin).items():
    try:
        code = compile(base64.b64decode(source), name, "exec", dont_inherit=True)
    except SyntaxError:
        made[name] = ""
    else:
        made[name] = base64.b64encode(unchecked + marshal.dumps(code)).decode()
json.dump(made, sys.stdout)
"""
"""PEP 552: bytecode that is never compared with its source."""
Compiler = Callable[[Mapping[str, bytes]], Mapping[str, bytes]]
"""Bytecode of sources, both by the name that tracebacks are to give; empty for what doesn't compile."""


class Bytecode:
    """What sources compile to, kept in a folder."""

    def __init__(self, folder: Path, compiler: Compiler | None = None) -> None:
        self.folder = folder / "bytecode"
        self._compiler = compiler or on_host

    def of(self, sources: Mapping[str, bytes]) -> dict[str, bytes]:
        """Bytecode of all that compiles; nothing at all while there is no image of a host to ask."""
        if not sources:
            return {}
        with lock("bytecode"):
            missing = {name: text for name, text in sources.items() if not self._place(name, text).exists()}
            if missing:
                if not self.folder.exists():
                    missing |= likely()
                made = self._compiler(missing)
                if made:
                    self.folder.mkdir(exist_ok=True)
                for name, code in made.items():
                    hidden = self.folder / f".{os.getpid()}"
                    hidden.write_bytes(code)
                    hidden.rename(self._place(name, missing[name]))
        places = {name: self._place(name, text) for name, text in sources.items()}
        kept = {name: place.read_bytes() for name, place in places.items() if place.exists()}
        return {name: code for name, code in kept.items() if code}

    def _place(self, name: str, source: bytes) -> Path:
        return self.folder / hashlib.sha256(name.encode() + b"\0" + source).hexdigest()[:32]


def on_host(sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """Compile with a host image's Python; nothing if the image isn't there yet, or can't be asked: it only saves time."""
    reference = f"{IMAGES}:{IMAGE}-{recipe(IMAGE)[2]}"
    globals_, options = this_machine()
    given = json.dumps({name: base64.b64encode(text).decode() for name, text in sources.items()})
    argv = ["podman", *globals_, "run", "--rm", "--interactive", *options, "--network=none", reference]
    try:
        if not image_id(reference):
            return {}
        said = run(root_command([*argv, "python3", "-I", "-c", COMPILE]), stdin=given.encode())
    except Failure as failure:
        say(f"modules are packed without bytecode: {failure}")
        return {}
    return {name: base64.b64decode(code) for name, code in json.loads(said).items()}


def likely() -> dict[str, bytes]:
    """Sources that modules are packed with sooner or later, by their names in a packed module."""
    core, own = Path(ansible.__file__).parent, ROOT / "plugins"
    found = {}
    for root, prefix in ((core, "ansible"), (own, "ansible_collections/matryoshka/host/plugins")):
        for path in sorted([*root.glob("module_utils/**/*.py"), *root.glob("modules/*.py")]):
            found[f"{prefix}/{path.relative_to(root)}"] = path.read_bytes()
    return {name: text for name, text in found.items() if text}


def with_bytecode(packed: bytes, bytecode: Bytecode) -> bytes:
    """A packed module (a ZIP file) with bytecode beside its sources."""
    sources = {}
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        for name in archive.namelist():
            if name.endswith(".py") and archive.getinfo(name).file_size:
                sources[name] = archive.read(name)
    whole = io.BytesIO(packed)
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, code in bytecode.of(sources).items():
            archive.writestr(f"{name}c", code)
    return whole.getvalue()


def precompile(folder: Path, compiler: Compiler | None = None) -> None:
    """Have this process, and those that it forks, pack modules with bytecode, which is kept in ``folder``."""
    bytecode = Bytecode(folder, compiler)
    dump = module_common._CachedModule.dump

    def dump_with_bytecode(self: Any, path: str) -> None:
        packed = base64.b64decode(self.zip_data)
        whole = with_bytecode(packed, bytecode)
        object.__setattr__(self, "zip_data", base64.b64encode(whole))
        if whole != packed:
            dump(self, path)

    module_common._CachedModule.dump = dump_with_bytecode
