# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a runner takes from the end of a job to its next environment, beside bare starts of the same image.

Argument: JSON with ``runners`` (names), ``repetitions``, ``directory`` (for data roots of bare starts).
Output: JSON, by runner lists of seconds: ``program`` (what it says itself), ``outside`` (from the time
the job's last command printed to a state file that says ready and a dockerd that answers), ``bare``.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import (
    BARE,
    POLL,
    answers,
    await_ready,
    end_bare,
    image_environment,
    inspect,
    same_flags,
    start_bare,
)
from common import state_of as state_of_runner

JOB = "#!/bin/sh\ndocker info >/dev/null\ndate +bench-end=%s.%N\n"


def turnaround(runner: str) -> tuple[float, float]:
    """Run a job; seconds as the program says them, and as seen from outside."""
    before = await_ready(runner)["environment"]["id"]
    time.sleep(0.5)
    with tempfile.NamedTemporaryFile("w", prefix="bench-", suffix=".sh") as job:
        job.write(JOB)
        job.flush()
        client = subprocess.Popen(
            ["matryoshka", "job", job.name, "--runner", runner],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        end = time.monotonic() + 120
        while True:
            state = state_of_runner(runner)
            environment = state.get("environment") or {}
            if state["state"] == "ready" and environment.get("id") not in (None, before):
                break
            if time.monotonic() > end:
                client.kill()
                raise SystemExit(f"runner {runner} has no next environment after 120 s: {state}")
            time.sleep(POLL)
        ready = time.time()
        output, _ = client.communicate(timeout=60)
    found = re.search(r"bench-end=([0-9.]+)", output)
    if found is None or client.returncode != 0:
        raise SystemExit(f"the job of runner {runner} failed: {output}")
    if not answers(int(inspect(environment["container"])["State"]["Pid"])):
        raise SystemExit(f"{environment['container']} is said to be ready, but its dockerd doesn't answer")
    return float(state["timings"]["turnaround_seconds"]), ready - float(found.group(1))


def main() -> None:
    asked: dict[str, Any] = json.loads(sys.argv[1])
    folder = Path(asked["directory"])
    folder.mkdir(mode=0o710, parents=True)
    found: dict[str, dict[str, list[float]]] = {}
    flags: dict[str, list[str]] = {}
    roots = {runner: folder / runner for runner in asked["runners"]}
    try:
        for number in range(asked["repetitions"] + 1):
            for runner in asked["runners"]:
                state = await_ready(runner)
                persistent = "data-" not in Path(state["environment"]["data_root"]).name
                if runner not in flags:
                    like = inspect(state["environment"]["container"])
                    of_image = image_environment(like["Config"]["Image"])
                    flags[runner] = same_flags(like, of_image, str(roots[runner]))
                if not persistent:
                    shutil.rmtree(roots[runner], ignore_errors=True)
                roots[runner].mkdir(mode=0o710, exist_ok=True)
                program, outside = turnaround(runner)
                await_ready(runner)
                time.sleep(0.5)
                bare = start_bare(f"{BARE}-{runner}", flags[runner])
                end_bare(f"{BARE}-{runner}")
                if number:  # the first fills caches and data roots
                    into = found.setdefault(runner, {"program": [], "outside": [], "bare": []})
                    into["program"].append(program)
                    into["outside"].append(outside)
                    into["bare"].append(bare)
    finally:
        for runner in asked["runners"]:
            end_bare_if_there(f"{BARE}-{runner}")
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found))


def end_bare_if_there(name: str) -> None:
    subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)


if __name__ == "__main__":
    main()
