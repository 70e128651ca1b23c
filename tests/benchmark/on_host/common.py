# SPDX-License-Identifier: GPL-3.0-or-later
"""Job environments as the engine on the host sees them, and bare containers made like one.

Runs on a host, as root, with the standard library only.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

POLL = 0.002
"""Seconds between two looks."""
INNER_DATA = "/var/lib/docker"
BARE = "bench-bare"
"""What names of bare containers begin with."""


def run(argv: Sequence[str], *, stdin: bytes = b"", cwd: str | None = None) -> str:
    """Standard output of ``argv``; SystemExit with what it said unless it ends with 0."""
    done = subprocess.run(list(argv), input=stdin, capture_output=True, check=False, cwd=cwd)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace")
        raise SystemExit(f"{' '.join(argv)} ended with {done.returncode}: {said[-2000:]}")
    return done.stdout.decode(errors="replace")


def inspect(container: str) -> dict[str, Any]:
    return json.loads(run(["docker", "inspect", "--type", "container", container]))[0]


def image_environment(image: str) -> list[str]:
    """Variables that every container of ``image`` has."""
    return json.loads(run(["docker", "image", "inspect", image]))[0]["Config"].get("Env") or []


def same_flags(found: Mapping[str, Any], of_image: Sequence[str], data_root: str | None) -> list[str]:
    """Options of ``docker run`` for a container like the inspected one, and its image at the end.

    :param of_image: variables that the image sets by itself.
    :param data_root: folder on the host for the inner engine's data; None for none of its own.
    """
    config, host = found["Config"], found["HostConfig"]
    words = ["--pull=never", f"--cgroupns={host['CgroupnsMode']}", f"--hostname={config['Hostname']}"]
    if host["Privileged"]:
        words.append("--privileged")
    if host["Runtime"] not in ("", "runc"):
        words.append(f"--runtime={host['Runtime']}")
    if host["NanoCpus"]:
        words.append(f"--cpus={host['NanoCpus'] / 1e9:g}")
    if host["Memory"]:
        words += [f"--memory={host['Memory']}", f"--memory-swap={host['MemorySwap']}"]
    if host["PidsLimit"]:
        words.append(f"--pids-limit={host['PidsLimit']}")
    words += [f"--tmpfs={path}:{options}" for path, options in (host["Tmpfs"] or {}).items()]
    words += [f"--env={variable}" for variable in config["Env"] or [] if variable not in of_image]
    for bind in host["Binds"] or []:
        _, target, *rest = bind.split(":")
        if target != INNER_DATA:
            words.append(f"--volume={bind}")
        elif data_root is not None:
            words.append("--volume=" + ":".join([data_root, target, *rest]))
    return [*words, config["Image"]]


def answers(process: int) -> bool:
    """Whether the dockerd of the container with this first process says ``OK``."""
    try:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(2)
            channel.connect(f"/proc/{process}/root/run/docker.sock")
            channel.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
            text = b""
            while part := channel.recv(4096):
                text += part
    except OSError:
        return False
    return text.startswith(b"HTTP/1.") and b" 200 " in text.split(b"\r\n")[0]


def start_bare(name: str, flags: Sequence[str]) -> float:
    """Start a container; seconds until its dockerd answers."""
    begin = time.monotonic()
    run(["docker", "run", "--detach", f"--name={name}", *flags])
    process = int(inspect(name)["State"]["Pid"])
    while not answers(process):
        if time.monotonic() - begin > 120 or not os.path.exists(f"/proc/{process}"):
            raise SystemExit(f"{name} doesn't answer: {run(['docker', 'logs', '--tail', '20', name])}")
        time.sleep(POLL)
    return time.monotonic() - begin


def end_bare(name: str) -> None:
    run(["docker", "rm", "--force", "--volumes", name])


def state_of(runner: str) -> dict[str, Any]:
    """What the runner says of itself."""
    return json.loads(Path(f"/run/matryoshka/runners/{runner}.json").read_text(encoding="utf-8"))


def await_ready(runner: str, seconds: float = 120) -> dict[str, Any]:
    """The state of the runner once it is ready and has its next environment made."""
    end = time.monotonic() + seconds
    while True:
        state = state_of(runner)
        if state["state"] == "ready" and state.get("next"):
            return state
        if time.monotonic() > end:
            raise SystemExit(f"runner {runner} isn't ready after {seconds:g} s: {state['state']}")
        time.sleep(0.05)
