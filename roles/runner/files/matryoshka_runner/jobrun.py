# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One job in one environment: hand in its script, run it, learn how it ended."""

from __future__ import annotations

import os
import re
import secrets
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from matryoshka_runner.engine import Engine, errors_of
from matryoshka_runner.environment import Environment
from matryoshka_runner.events import JobEnded, Mailbox
from matryoshka_runner.verdict import amount

LINGER = 1.0
"""Seconds that the client may take to end after the job: a job's background process can keep it."""

WRAPPER = """\
token=$1 size=$2 limit=$3; shift 3
echo "$token here" >&2
mkdir -p /job /work && cd /work || exit
if [ "$size" -ge 0 ]; then
    cat > /job/script && chmod 0755 /job/script && [ "$(wc -c < /job/script)" -eq "$size" ] ||
        { echo "the script didn't arrive whole" >&2; exit 1; }
fi
if [ -s /run/matryoshka-bound ]; then
    bound=$(cat /run/matryoshka-bound)
    set -- setpriv --bounding-set "-$bound" --inh-caps "-$bound" "$@"
fi
if [ "$limit" -lt 0 ]; then
    "$@" < /dev/null 2>&1
    echo "$token $?" >&2
    exit
fi
at_once=
if command -v stdbuf > /dev/null; then at_once='stdbuf -o0'; fi
{ "$@" < /dev/null 2>&1 3>&-; echo "$token $?" >&3; } 3>&2 | { $at_once head -c "$limit"; exec wc -c >&2; }
"""
"""Runs in the environment. The script is sent only when it has said that it is there: as long as it has not,
nothing of the job can have run. Its standard error is ours alone: the job's goes where its output goes.

``environment-start`` says in ``/run/matryoshka-bound`` which capability a job does without.

With a limit the output goes through ``head``, which takes exactly as much as it is told and, unbuffered,
hands each piece on as it comes; ``wc`` then throws the rest away where it arises and counts it.
"""


@dataclass(frozen=True)
class Work:
    """What is to be run: a script from the host, or a command that is there already."""

    id: str
    script: Path | None = None
    command: Sequence[str] = ()
    log: Path | None = None
    """Where the output goes; None for the program's own standard output."""


def command_for(script: Path) -> list[str]:
    """How a script is started in the environment: by itself if it says how, else by ``sh``."""
    with open(script, "rb") as stream:
        start = stream.read(4)
    return ["/job/script"] if start[:2] == b"#!" or start == b"\x7fELF" else ["sh", "/job/script"]


def start(
    engine: Engine, environment: Environment, work: Work, box: Mailbox, log_bytes: int | None = None
) -> subprocess.Popen[bytes]:
    """Start ``work``; a :class:`JobEnded` arrives in ``box`` when it has ended. Returns the client.

    :param log_bytes: how much of the output is let through; None is all.
    """
    token = f"matryoshka-exit-{secrets.token_hex(8)}"
    with ExitStack() as stack:
        source: BinaryIO | None = None
        stdin, stdout, size = subprocess.DEVNULL, None, -1
        command, options = list(work.command), ["--env", f"MATRYOSHKA_JOB={work.id}"]
        if work.script is not None:
            source = stack.enter_context(open(work.script, "rb"))
            stdin, size = subprocess.PIPE, os.fstat(source.fileno()).st_size
            command = command_for(work.script)
            options.append("--interactive")
        if work.log is not None:
            stdout = stack.enter_context(open(work.log, "ab")).fileno()
        limit = -1 if log_bytes is None else log_bytes
        client = engine.spawn(
            environment.container,
            ["sh", "-c", WRAPPER, "job", token, str(size), str(limit), *command],
            options=options,
            stdin=stdin,
            stdout=stdout,
        )
        if source is not None:
            source = os.fdopen(os.dup(source.fileno()), "rb")
    threading.Thread(
        target=_listen, args=(client, environment.id, token, box, source), name=f"job {work.id}", daemon=True
    ).start()
    return client


def _send(client: subprocess.Popen[bytes], script: BinaryIO) -> None:
    """Hand the script over; one that doesn't arrive whole isn't run."""
    assert client.stdin is not None
    with suppress(OSError), client.stdin, script:
        shutil.copyfileobj(script, client.stdin)


def _withhold(client: subprocess.Popen[bytes], script: BinaryIO) -> None:
    assert client.stdin is not None
    with suppress(OSError), script:
        client.stdin.close()


def _listen(
    client: subprocess.Popen[bytes], environment: str, token: str, box: Mailbox, script: BinaryIO | None
) -> None:
    """:param script: what is still to be sent; nothing of the job can run as long as it isn't."""
    pattern = re.compile(re.escape(token) + r" (\d+)\n")
    said, code, until = "", None, 0.0
    stream = errors_of(client)
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLIN)
    while code is None or poll.poll(max(0.0, until - time.monotonic()) * 1000):
        chunk = os.read(stream.fileno(), 4096)
        if not chunk:
            break
        said = (said + chunk.decode(errors="replace"))[-4096:]
        if script is not None and f"{token} here\n" in said:
            _send(client, script)
            script = None
        match = pattern.search(said)
        if match and code is None:
            code, until = int(match[1]), time.monotonic() + LINGER
    if script is not None:
        _withhold(client, script)
    if code is None:
        ended = client.wait()
        how = " ".join(said.replace(f"{token} here\n", "").split()) or f"docker exec ended with {ended}"
        box.put(JobEnded(environment, None, how, began=script is None))
    else:
        try:
            client.wait(max(0.05, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            client.kill()
        thrown = re.findall(r"^ *(\d+)$", said, re.MULTILINE)
        box.put(JobEnded(environment, code, thrown=int(thrown[-1]) if thrown else None))
    client.wait()
    stream.close()


def cut_note(log: Path | None, log_bytes: int | None, thrown: int | None) -> str:
    """What a log that was cut says of it; empty if it is whole.

    :param thrown: as in :class:`JobEnded`.
    """
    if log_bytes is None or thrown == 0:
        return ""
    if thrown is not None:
        return f"the log is cut at its limit of {amount(log_bytes)}; {thrown} bytes more were thrown away"
    try:
        cut = log is not None and log.stat().st_size >= log_bytes
    except OSError:
        cut = False
    return (
        f"the log is cut at its limit of {amount(log_bytes)}; what came after was thrown away" if cut else ""
    )


def end_log(log: Path, lines: Sequence[str]) -> None:
    """Put last lines of the runner's own under a job's log."""
    with open(log, "r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size:
            stream.seek(size - 1)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write("".join(f"matryoshka: {line}\n" for line in lines).encode())
