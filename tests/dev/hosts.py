#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes, lists and removes the hosts that tests and ``./dev site`` run on.

A container host is a Debian system container under rootful Podman: systemd is PID 1, sshd is reached at
the container's own address, ``/var/lib/docker`` and ``/var/lib/matryoshka`` are volumes. Its image is
made from Debian packages with mmdebstrap and cached in Podman's store under a hash of its recipe.
Podman's labels are the only record of what exists; names carry a hash of the checkout's path.

A host whose image begins with ``vm-`` is a whole machine under QEMU, made from the same kind of recipe; see qemu.py.

Standard library only, so that it runs before the project's own environment exists.
"""

from __future__ import annotations

import argparse
import io
import json
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import qemu
from images import drop_name, ensure_image, image_names
from machine import CHECKOUT, ROOT, STATE, Failure, lock, podman, root_command, run, say, this_machine
from vm_image import ARCHIVE, PREFIX, ensure_boot, environment_archive

__all__ = ["ROOT", "STATE", "Failure", "Host", "create", "hosts", "inventory", "remove", "write_inventory"]

LABEL = "matryoshka.checkout"
BOOT_SECONDS = 240
"""How long a machine may take to boot where its processors are emulated."""
VOLUMES = {"docker": "/var/lib/docker", "data": "/var/lib/matryoshka"}
SSH_OPTIONS = (
    "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o IdentitiesOnly=yes"
)


@dataclass(frozen=True)
class Host:
    """A running host, with all that is needed to reach it over SSH. ``container`` is empty for a whole machine.

    :ivar given: variables of the site that is on it, for whoever plays about it again.
    """

    name: str
    container: str
    image: str
    address: str
    port: int
    user: str
    identity_file: str
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ssh(self) -> list[str]:
        """The beginning of a command line that runs a command on the host."""
        return [
            "ssh", *shlex.split(SSH_OPTIONS), "-i", self.identity_file, "-p", str(self.port),
            f"{self.user}@{self.address}",
        ]  # fmt: skip

    @property
    def variables(self) -> dict[str, Any]:
        """How Ansible reaches the host with its stock settings, and :attr:`given`."""
        return {
            "ansible_host": self.address,
            "ansible_port": self.port,
            "ansible_user": self.user,
            "ansible_ssh_private_key_file": self.identity_file,
            "ansible_ssh_common_args": SSH_OPTIONS,
            "ansible_python_interpreter": "/usr/bin/python3",
            **self.given,
        }


def container_name(name: str) -> str:
    return f"matryoshka-{name}-{CHECKOUT}"


def identity() -> Path:
    """The private key for all hosts of this checkout, made at first use."""
    key = STATE / "ssh" / "id_ed25519"
    with lock("ssh"):
        if not key.exists():
            key.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
            run(
                [
                    "ssh-keygen",
                    "-q",
                    "-t",
                    "ed25519",
                    "-N",
                    "",
                    "-C",
                    f"matryoshka-{CHECKOUT}",
                    "-f",
                    str(key),
                ]
            )
    return key


def inspect(container: str) -> dict[str, str] | None:
    """State, address, image and user of ``container``; None if there is none."""
    pattern = (
        '{"state":"{{.State.Status}}","address":"{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}",'
        '"image":"{{index .Config.Labels "matryoshka.image"}}",'
        '"name":"{{index .Config.Labels "matryoshka.host"}}",'
        '"user":"{{index .Config.Labels "matryoshka.user"}}"}'
    )
    said = podman("container", "inspect", "--format", pattern, container, check=False).strip()
    return json.loads(said) if said.startswith("{") else None


def describe(container: str) -> Host | None:
    """The running host in ``container``; None if it isn't there or isn't running."""
    found = inspect(container)
    if found is None or found["state"] != "running" or not found["address"].split():
        return None
    return Host(
        name=found["name"],
        container=container,
        image=found["image"],
        address=found["address"].split()[0],
        port=22,
        user=found["user"],
        identity_file=str(identity()),
    )


def hosts() -> list[Host]:
    """The running hosts of this checkout."""
    names = podman("ps", "-a", "--format", "{{.Names}}", "--filter", f"label={LABEL}={CHECKOUT}").split()
    found = [host for name in sorted(names) if (host := describe(name)) is not None]
    return found + [reach(machine) for machine in qemu.machines() if machine.pid]


def find(name: str) -> Host | None:
    """The running host called ``name``; None if there is none."""
    machine = qemu.Machine.read(name)
    if machine is not None:
        return reach(machine) if machine.pid else None
    return describe(container_name(name))


def create(name: str, image: str, user: str, **parts: Any) -> Host:
    """A running host called ``name``, reused if it is there and was made like this.

    :param parts: of a whole machine: see :class:`qemu.Machine`. Of any other, ``archive``: a suite for which it has
        an archive with the image of job environments.
    """
    # For Molecule's inventory alone.
    parts.pop("groups", None)
    container = container_name(name)
    if image.startswith(PREFIX):
        if inspect(container) is not None:
            remove([name])
        return reach(create_machine(name, image, user, **parts), wait=True)
    if qemu.Machine.read(name) is not None:
        remove([name])
    key = identity()
    found = inspect(container)
    if found is not None and (found["image"], found["user"]) != (image, user):
        remove([name])
        found = None
    if found is None:
        # Volumes of a host that was never finished would be in the way.
        remove([name])
        reference = ensure_image(image)
        globals_, options = this_machine()
        volumes = [f"--volume={container}-{key_}:{path}" for key_, path in VOLUMES.items()]
        if parts.get("archive"):
            volumes.append(f"--volume={environment_archive(parts['archive'])}:/{ARCHIVE}:ro")
        for key_ in VOLUMES:
            podman("volume", "create", "--label", f"{LABEL}={CHECKOUT}", f"{container}-{key_}")
        podman(
            *globals_, "create", "--name", container, "--hostname", name.replace("_", "-"),
            "--label", f"{LABEL}={CHECKOUT}", "--label", f"matryoshka.host={name}",
            "--label", f"matryoshka.image={image}", "--label", f"matryoshka.user={user}",
            "--privileged", *options, *volumes, reference, "/sbin/init",
        )  # fmt: skip
        public = key.with_suffix(".pub").read_text(encoding="utf-8")
        authorize(container, public)
    if found is None or found["state"] != "running":
        podman("start", container)
        wait_until_up(container)
    host = describe(container)
    if host is None:
        raise Failure(f"{container} has no address: podman logs {container}")
    wait_for_ssh(host)
    return host


def make_image(name: str) -> str:
    """What hosts of image ``name`` are made from, made first if it isn't there: a reference, or a machine's root disk."""
    if name.startswith(PREFIX):
        return str(ensure_boot(name, identity().with_suffix(".pub")).root)
    return ensure_image(name)


def create_machine(name: str, image: str, user: str, **parts: Any) -> qemu.Machine:
    """A machine called ``name`` that is on, made first if there is none of these parts."""
    key = identity()
    boot = ensure_boot(image, key.with_suffix(".pub"))
    parts["disks"] = tuple(qemu.Disk(**disk) for disk in parts.get("disks", ()))
    there = qemu.Machine.read(name)
    port = there.port if there else qemu.free_port()
    machine = qemu.Machine(name, image, user, str(key), port, boot, **parts)
    if there != machine:
        # One that was never finished has no record, but disks.
        machine.remove()
        machine.make_disks()
        machine.write()
    machine.start()
    return machine


def reach(machine: qemu.Machine, wait: bool = False) -> Host:
    """How a machine is reached.

    :param wait: until SSH answers and systemd has started everything.
    """
    host = Host(
        machine.name, "", machine.image, "127.0.0.1", machine.port, machine.user, machine.identity_file,
        machine.variables,
    )  # fmt: skip
    if wait:
        try:
            wait_for_boot(machine, host)
            wait_for_units(host)
        except Failure as failure:
            raise Failure(f"{failure}\nThe console's end:\n{machine.last_lines()}") from None
    return host


class Gone(Failure):
    """QEMU has ended by itself."""


def wait_for_boot(machine: qemu.Machine, host: Host, without: Sequence[str] = ()) -> None:
    """Until SSH answers on a machine that was turned on.

    In some hundred starts QEMU has once ended by itself, a second after power-on: then the machine is turned on again,
    once, and that is said.

    :param without: as of :meth:`qemu.Machine.start`.
    """
    try:
        wait_for_ssh(host, BOOT_SECONDS, lambda: bool(machine.pid))
    except Gone as gone:
        say(f"{gone}: it is started again. The console's end:\n{machine.last_lines(5)}")
        machine.start(without)
        wait_for_ssh(host, BOOT_SECONDS, lambda: bool(machine.pid))


def wait_for_units(host: Host, seconds: float = 180) -> None:
    """Until systemd on a machine has started all units; raises :class:`Failure` naming those that failed."""
    ask = [*host.ssh, "timeout", str(int(seconds)), "systemctl", "is-system-running", "--wait"]
    state = run(ask, check=False).strip()
    if state != "running":
        failed = run([*host.ssh, "systemctl", "--failed", "--plain", "--no-legend"], check=False)
        raise Failure(f"{host.name} came up {state or 'in no state'}; units that failed:\n{failed}")


def authorize(container: str, public: str) -> None:
    """Let the holder of ``public`` in, before the host's first start."""
    content = public.encode()
    entry = tarfile.TarInfo("authorized_keys")
    entry.size, entry.mode = len(content), 0o644
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(entry, io.BytesIO(content))
    run(root_command(["podman", "cp", "-", f"{container}:/etc/ssh"]), stdin=packed.getvalue())


def wait_until_up(container: str, seconds: float = 60) -> None:
    """Until systemd says ``running``; raises :class:`Failure` naming the units that failed."""
    end = time.monotonic() + seconds
    state = ""
    while time.monotonic() < end:
        state = podman("exec", container, "systemctl", "is-system-running", check=False).strip()
        if state == "running":
            return
        if state == "degraded":
            failed = podman("exec", container, "systemctl", "--failed", "--plain", "--no-legend", check=False)
            raise Failure(f"{container} came up with failed units:\n{failed}")
        time.sleep(0.1)
    raise Failure(f"{container} isn't up after {seconds:g} s (systemd says {state or 'nothing'})")


def wait_for_ssh(host: Host, seconds: float = 30, runs: Callable[[], bool] = lambda: True) -> None:
    """Until SSH answers.

    :param runs: whether the host still runs; :class:`Gone` if it doesn't.
    """
    end = time.monotonic() + seconds
    while True:
        begin = time.monotonic()
        done = subprocess.run(
            [*host.ssh, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return
        if not runs():
            raise Gone(f"QEMU of {host.name} has ended by itself")
        if time.monotonic() > end:
            raise Failure(f"no SSH to {host.name} at {host.address}:{host.port}: {done.stderr.strip()}")
        time.sleep(max(0.1, min(1.0, time.monotonic() - begin)))


def remove(names: Sequence[str]) -> None:
    """Remove hosts and their volumes; those that aren't there are no error."""
    for name in names:
        machine = qemu.Machine.read(name)
        if machine is not None:
            machine.remove()
        container = container_name(name)
        podman("rm", "-f", "-t", "0", "-v", "-i", container)
        remove_volumes([f"{container}-{key}" for key in VOLUMES])


def remove_volumes(names: Sequence[str]) -> None:
    """Remove volumes with what roles have made of them: directories that nobody can write to, disks attached from files."""
    release = (
        'for disk in "$1"/*.img; do losetup -j "$disk" -nO NAME | xargs -r losetup -d; done;'
        ' chattr -f -i "$1"/* "$1"/*/*'
    )
    for name in names:
        place = podman("volume", "inspect", "--format", "{{.Mountpoint}}", name, check=False).strip()
        if place.startswith("/"):
            run(root_command(["sh", "-c", release, "sh", place]), check=False)
    podman("volume", "rm", "-f", *names, check=False)


def remove_all() -> None:
    """Remove every machine, container, volume and image name of this checkout."""
    for machine in qemu.machines():
        machine.remove()
    mine = f"label={LABEL}={CHECKOUT}"
    for container in podman("ps", "-a", "-q", "--filter", mine).split():
        podman("rm", "-f", "-t", "0", "-v", container)
    remove_volumes(podman("volume", "ls", "-q", "--filter", mine).split())
    for image in image_names():
        drop_name(image)


def create_platforms(platforms: Sequence[Mapping[str, Any]]) -> list[Host]:
    """A running host for each of a scenario's platforms; whole machines boot side by side."""
    given = [{"user": "admin", **platform} for platform in platforms]
    with ThreadPoolExecutor(max_workers=max(1, len(given))) as pool:
        return list(pool.map(lambda parts: create(**parts), given))


def inventory(of: Sequence[Host]) -> str:
    """An Ansible inventory (YAML, written as JSON) of ``of``; usable from any folder."""
    return json.dumps({"all": {"hosts": {host.name: host.variables for host in of}}}, indent=2) + "\n"


def write_inventory(path: Path, of: Sequence[Host]) -> None:
    """Replace ``path`` by the inventory of ``of`` if it differs."""
    text = inventory(of)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    shutil.move(new, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("create", help="make hosts, or reuse them, and print how to reach them (JSON)")
    make.add_argument("name", nargs="+")
    make.add_argument("--image", default="debian13")
    make.add_argument("--user", default="admin", choices=["admin", "root"])
    several = commands.add_parser(
        "platforms", help="make the hosts of a scenario and print how to reach them (JSON)"
    )
    several.add_argument("platforms", type=json.loads, help="Molecule's list of platforms (JSON)")
    gone = commands.add_parser("remove", help="remove hosts with their volumes")
    gone.add_argument("name", nargs="*")
    gone.add_argument("--all", action="store_true", help="everything of this checkout, images included")
    commands.add_parser("list", help="print the running hosts (JSON)")
    images = commands.add_parser("image", help="make images")
    images.add_argument("name", nargs="+")
    reach = commands.add_parser("ssh", help="print the command line that reaches a host")
    reach.add_argument("name")
    written = commands.add_parser("inventory", help="write an inventory of the running hosts")
    written.add_argument("path", type=Path)
    args = parser.parse_args()
    STATE.mkdir(exist_ok=True)
    try:
        if args.command == "create":
            made = [create(name, args.image, args.user) for name in args.name]
            print(json.dumps([asdict(host) for host in made], indent=2))
        elif args.command == "platforms":
            print(json.dumps([asdict(host) for host in create_platforms(args.platforms)], indent=2))
        elif args.command == "remove":
            remove_all() if args.all else remove(args.name)
        elif args.command == "list":
            print(json.dumps([asdict(host) for host in hosts()], indent=2))
        elif args.command == "image":
            for name in args.name:
                print(make_image(name))
        elif args.command == "ssh":
            host = find(args.name)
            if host is None:
                raise Failure(f"there is no running host {args.name}")
            print(shlex.join(host.ssh))
        else:
            write_inventory(args.path, hosts())
    except Failure as failure:
        print(f"hosts.py: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
