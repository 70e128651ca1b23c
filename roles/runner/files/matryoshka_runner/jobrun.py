# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One job in one environment: hand in its script, run it, learn how it ended."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from matryoshka_runner.engine import Engine, errors_of
from matryoshka_runner.environment import Environment
from matryoshka_runner.events import JobEnded, Mailbox

LINGER = 1.0
"""Seconds that the client may take to end after the job: a job's background process can keep it."""

WRAPPER = """\
token=$1 size=$2; shift 2
mkdir -p /job /work && cd /work || exit
if [ "$size" -ge 0 ]; then
    cat > /job/script && chmod 0755 /job/script && [ "$(wc -c < /job/script)" -eq "$size" ] ||
        { echo "the script didn't arrive whole" >&2; exit 1; }
fi
"$@" < /dev/null 2>&1
echo "$token $?" >&2
"""
"""Runs in the environment. Its standard error is ours alone: the job's goes where its output goes."""


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


def start(engine: Engine, environment: Environment, work: Work, box: Mailbox) -> subprocess.Popen[bytes]:
    """Start ``work``; a :class:`JobEnded` arrives in ``box`` when it has ended. Returns the client."""
    token = f"matryoshka-exit-{secrets.token_hex(8)}"
    with ExitStack() as stack:
        stdin, stdout, size = subprocess.DEVNULL, None, -1
        command, options = list(work.command), ["--env", f"MATRYOSHKA_JOB={work.id}"]
        if work.script is not None:
            source = stack.enter_context(open(work.script, "rb"))
            stdin, size = source.fileno(), os.fstat(source.fileno()).st_size
            command = command_for(work.script)
            options.append("--interactive")
        if work.log is not None:
            stdout = stack.enter_context(open(work.log, "ab")).fileno()
        client = engine.spawn(
            environment.container,
            ["sh", "-c", WRAPPER, "job", token, str(size), *command],
            options=options,
            stdin=stdin,
            stdout=stdout,
        )
    threading.Thread(
        target=_listen, args=(client, environment.id, token, box), name=f"job {work.id}", daemon=True
    ).start()
    return client


def _listen(client: subprocess.Popen[bytes], environment: str, token: str, box: Mailbox) -> None:
    pattern = re.compile(re.escape(token) + r" (\d+)\n")
    said = ""
    stream = errors_of(client)
    while True:
        chunk = os.read(stream.fileno(), 4096)
        said = (said + chunk.decode(errors="replace"))[-4096:]
        match = pattern.search(said)
        if match:
            try:
                client.wait(LINGER)
            except subprocess.TimeoutExpired:
                client.kill()
            box.put(JobEnded(environment, int(match[1])))
            break
        if not chunk:
            code = client.wait()
            box.put(JobEnded(environment, None, " ".join(said.split()) or f"docker exec ended with {code}"))
            break
    client.wait()
    stream.close()
