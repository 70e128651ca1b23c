#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes, lists and removes the container hosts that tests and ``./dev site`` run on.

A host is a Debian system container under rootful Podman: systemd is PID 1, sshd is reached at
the container's own address, ``/var/lib/docker`` and ``/var/lib/matryoshka`` are volumes. Its image is
made from Debian packages with mmdebstrap and cached in Podman's store under a hash of its recipe.
Podman's labels are the only record of what exists; names carry a hash of the checkout's path.

Standard library only, so that it runs before the project's own environment exists.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import io
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".dev"
RECIPE = ROOT / "molecule" / "shared" / "images"
CHECKOUT = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
IMAGES = f"localhost/matryoshka-{CHECKOUT}"
LABEL = "matryoshka.checkout"
VOLUMES = {"docker": "/var/lib/docker", "data": "/var/lib/matryoshka"}
CAP_SYS_RESOURCE = 1 << 24
SSH_OPTIONS = (
    "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o IdentitiesOnly=yes"
)


class Failure(Exception):
    """Something outside this program didn't work; the text is for a person."""


@dataclass(frozen=True)
class Host:
    """A running container host, with all that is needed to reach it over SSH."""

    name: str
    container: str
    image: str
    address: str
    port: int
    user: str
    identity_file: str

    @property
    def ssh(self) -> list[str]:
        """The beginning of a command line that runs a command on the host."""
        return [
            "ssh", *shlex.split(SSH_OPTIONS), "-i", self.identity_file, "-p", str(self.port),
            f"{self.user}@{self.address}",
        ]  # fmt: skip

    @property
    def variables(self) -> dict[str, str | int]:
        """How Ansible reaches the host with its stock settings."""
        return {
            "ansible_host": self.address,
            "ansible_port": self.port,
            "ansible_user": self.user,
            "ansible_ssh_private_key_file": self.identity_file,
            "ansible_ssh_common_args": SSH_OPTIONS,
            "ansible_python_interpreter": "/usr/bin/python3",
        }


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def root_command(argv: Sequence[str]) -> list[str]:
    """``argv`` as root: through sudo for everybody else."""
    return list(argv) if os.geteuid() == 0 else ["sudo", *argv]


def run(argv: Sequence[str], *, check: bool = True, stdin: bytes = b"", timeout: float = 900) -> str:
    """Standard output of ``argv``; raises :class:`Failure` with what it said if it fails."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise Failure(f"{argv[0]} isn't installed; ./dev installs what it needs") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"no end within {timeout:g} s: {shlex.join(argv)}") from None
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise Failure(f"{shlex.join(argv)} ended with {done.returncode}:\n{said}")
    return done.stdout.decode(errors="replace")


def podman(*args: str, check: bool = True) -> str:
    return run(root_command(["podman", *args]), check=check)


def container_name(name: str) -> str:
    return f"matryoshka-{name}-{CHECKOUT}"


# --- what this machine can do ---------------------------------------------------------------------


def unified_cgroups(root: Path = Path("/sys/fs/cgroup")) -> bool:
    """Whether the machine runs on cgroup v2 alone."""
    return (root / "cgroup.controllers").exists()


def has_sys_resource(status: str) -> bool:
    """Whether CAP_SYS_RESOURCE is in the bounding set that ``/proc/self/status`` tells of."""
    for line in status.splitlines():
        if line.startswith("CapBnd:"):
            return bool(int(line.split()[1], 16) & CAP_SYS_RESOURCE)
    return True


def start_options(unified: bool, sys_resource: bool, limits: dict[str, int]) -> tuple[list[str], list[str]]:
    """Podman's global options and ``run`` options that this machine needs beyond the ordinary ones.

    :param limits: hard limits of this process by Podman's name, used where they can't be raised.
    """
    options: list[str] = []
    if not sys_resource:
        for name, value in limits.items():
            if value != resource.RLIM_INFINITY:
                options += ["--ulimit", f"{name}={value}:{value}"]
    if unified:
        return [], ["--systemd=always", *options]
    # Podman's own preparation for systemd would mount the machine's whole name=systemd tree into every
    # host, so that all hosts share one system.slice; without it each has a tree of its own.
    legacy = [
        "--systemd=false", "--cgroupns", "private", "--stop-signal", "SIGRTMIN+3",
        "--tmpfs", "/run:rw,nosuid,nodev,mode=755", "--tmpfs", "/run/lock:rw,nosuid,nodev",
        "--tmpfs", "/tmp:rw,nosuid,nodev,exec",
        "-e", "container=podman", "-e", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
    ]  # fmt: skip
    return ["--runtime", "runc"], [*legacy, *options]


def this_machine() -> tuple[list[str], list[str]]:
    """:func:`start_options` for this machine."""
    limits = {
        "nofile": min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        "nproc": min(20000, resource.getrlimit(resource.RLIMIT_NPROC)[1]),
    }
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return start_options(unified_cgroups(), has_sys_resource(status), limits)


# --- images ---------------------------------------------------------------------------------------


def recipe(image: str) -> tuple[str, list[str], str]:
    """Suite, packages and hash of ``image``'s recipe."""
    table = json.loads((RECIPE / "images.json").read_text(encoding="utf-8"))
    if image not in table["images"]:
        raise Failure(f"no image {image}: there are {', '.join(sorted(table['images']))}")
    suite = table["images"][image]["suite"]
    packages = sorted({*table["base"], *table["images"][image]["packages"]})
    parts = [suite, *packages, (RECIPE / "customize.sh").read_text(encoding="utf-8")]
    return suite, packages, hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Only one process of this checkout at a time."""
    (STATE / "lock").mkdir(parents=True, exist_ok=True)
    with (STATE / "lock" / name).open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


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


# --- hosts ----------------------------------------------------------------------------------------


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
    return [host for name in sorted(names) if (host := describe(name)) is not None]


def create(name: str, image: str, user: str) -> Host:
    """A running host called ``name``, reused if it is there and was made like this."""
    container = container_name(name)
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


def wait_for_ssh(host: Host, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while True:
        done = subprocess.run(
            [*host.ssh, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return
        if time.monotonic() > end:
            raise Failure(f"no SSH to {host.container} at {host.address}: {done.stderr.strip()}")
        time.sleep(0.1)


def remove(names: Sequence[str]) -> None:
    """Remove hosts and their volumes; those that aren't there are no error."""
    for name in names:
        container = container_name(name)
        podman("rm", "-f", "-t", "0", "-v", "-i", container)
        podman("volume", "rm", "-f", *(f"{container}-{key}" for key in VOLUMES), check=False)


def remove_all() -> None:
    """Remove every container, volume and image name of this checkout."""
    mine = f"label={LABEL}={CHECKOUT}"
    for container in podman("ps", "-a", "-q", "--filter", mine).split():
        podman("rm", "-f", "-t", "0", "-v", container)
    for volume in podman("volume", "ls", "-q", "--filter", mine).split():
        podman("volume", "rm", "-f", volume)
    for image in image_names():
        drop_name(image)


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
        elif args.command == "remove":
            remove_all() if args.all else remove(args.name)
        elif args.command == "list":
            print(json.dumps([asdict(host) for host in hosts()], indent=2))
        elif args.command == "image":
            for name in args.name:
                print(ensure_image(name))
        elif args.command == "ssh":
            host = describe(container_name(args.name))
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
