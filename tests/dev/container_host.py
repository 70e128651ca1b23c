# SPDX-License-Identifier: GPL-3.0-or-later
"""Container hosts as integration tests see them: commands, files and modules over SSH."""

from __future__ import annotations

import base64
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hosts as container_hosts
from module_calls import call_module
from playbook import run_playbook

ROOT = container_hosts.ROOT


@dataclass(frozen=True)
class Result:
    """The end of a command."""

    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        return self.code == 0


class ContainerHost:
    """A running container host, as root over SSH."""

    def __init__(self, name: str, image: str) -> None:
        self.name = name
        self.image = image
        self.reach = container_hosts.create(name, image, "root")

    @property
    def container(self) -> str:
        """Name of the Podman container."""
        return self.reach.container

    def run(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        stdin: bytes | str = b"",
        timeout: float = 300,
    ) -> Result:
        """Run a shell line (or a list, word for word) on the host.

        :param check: fail the test with all that the command said unless it ends with 0.
        """
        line = command if isinstance(command, str) else shlex.join(command)
        done = subprocess.run(
            [*self.reach.ssh[:1], *control_options(), *self.reach.ssh[1:], line],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        result = Result(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if check and not result.ok:
            raise AssertionError(f"{self.name}: {line}\nended with {result.code}:\n{result.out}{result.err}")
        return result

    def module(
        self, name: str, args: Mapping[str, Any] | None = None, *, check: bool = False, diff: bool = False
    ) -> dict[str, Any]:
        """Run a module and return what it returned, ``failed`` and ``msg`` included.

        :param name: of this collection, or a name with dots for any other.
        :param check: in check mode.
        """
        full = name if "." in name else f"matryoshka.host.{name}"
        return call_module(self.reach, full, dict(args or {}), check=check, diff=diff)

    def playbook(
        self,
        name: str,
        variables: Mapping[str, Any] | None = None,
        *options: str,
        check: bool = True,
        timeout: float = 1200,
    ) -> Result:
        """Run ``playbooks/NAME.yml`` with extra variables on this host alone."""
        inventory = container_hosts.STATE / "integration" / f"{self.name}.json"
        container_hosts.write_inventory(inventory, [self.reach])
        done = run_playbook(inventory, name, variables, *options, timeout=timeout)
        result = Result(done.returncode, done.stdout, done.stderr)
        if check and not result.ok:
            raise AssertionError(
                f"{shlex.join(done.args)}\nended with {result.code}:\n{result.out}{result.err}"
            )
        return result

    def read(self, path: str) -> str:
        """A file's text."""
        return self.run(["cat", path]).out

    def exists(self, path: str) -> bool:
        return self.run(["test", "-e", path], check=False).ok

    def write(self, path: str, content: str | bytes, mode: str = "0644") -> None:
        """Make or replace a file, folders above it included."""
        data = content.encode() if isinstance(content, str) else content
        quoted = shlex.quote(path)
        line = f'mkdir -p "$(dirname {quoted})" && base64 -d >{quoted} && chmod {mode} {quoted}'
        self.run(line, stdin=base64.b64encode(data))

    def remove(self) -> None:
        """Take the host away, its volumes included."""
        container_hosts.remove([self.name])


def control_options() -> list[str]:
    """Options that keep a connection open for the next command."""
    folder = Path(os.environ.get("ANSIBLE_SSH_CONTROL_PATH_DIR", f"/tmp/matryoshka-{os.getuid()}"))
    folder.mkdir(mode=0o700, exist_ok=True)
    return ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={folder}/t-%C"]
