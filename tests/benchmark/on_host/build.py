# SPDX-License-Identifier: GPL-3.0-or-later
"""How long one image build takes on the host's engine and in job environments.

Argument: JSON with ``runner`` (environments are made like its), ``repetitions``, ``repetitions_vfs``,
``directory`` (for the build's files and a data root).
Output: JSON with lists of seconds ``host``, ``nested`` (data root on a volume), ``vfs`` (no data root of
its own, so that the inner engine falls back to vfs); by the same names ``drivers`` and ``step_seconds``;
``files``, ``steps`` and ``base_megabytes`` of the build.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import BARE, await_ready, image_environment, inspect, run, same_flags, start_bare

BASE = "bench/base:tree"
RESULT = "bench/result"
TREE = ("bin", "etc", "lib", "lib64", "sbin", "usr")
LEFT_OUT = (
    "usr/bin/containerd*", "usr/bin/ctr", "usr/bin/docker*", "usr/libexec/docker", "usr/sbin/docker*",
    "usr/sbin/runc", "usr/share/doc", "usr/share/locale", "usr/share/man",
)  # fmt: skip
DOCKERFILE = f"""\
FROM {BASE}
COPY library /src/library
RUN cp -a /src/library /build && mkdir /out
RUN find /build -name '*.py' -type f -exec sha256sum {{}} + >/out/sums
RUN python3 -m compileall -q /build/json /build/email /build/asyncio /build/unittest
RUN tar -C /build -cf - . | gzip -1 >/out/library.tar.gz
RUN rm -rf /src/library /build/test && find /build -name '*.py' -exec touch {{}} +
COPY settings /etc/settings
RUN test "$(wc -l </out/sums)" -gt 500 && cat /etc/settings/* >/out/settings
"""
STEPS = len(re.findall("^(?:COPY|RUN)", DOCKERFILE, re.MULTILINE))


class Place:
    """An engine that builds.

    :param container: that it runs in; None for the host's own.
    """

    def __init__(self, container: str | None, context: str) -> None:
        self.container = container
        self.context = context

    def command(self, *words: str) -> list[str]:
        """The command line of ``docker words...`` for this engine."""
        inside = [] if self.container is None else ["docker", "exec", "--interactive", self.container]
        return [*inside, "docker", *words]

    def docker(self, *words: str) -> str:
        return run(self.command(*words))

    def build(self) -> tuple[float, dict[str, float]]:
        """Seconds of one build without any cache, and of its steps as BuildKit tells them."""
        line = self.command("build", "--progress=plain", "--no-cache", "--tag", RESULT, self.context)
        os.sync()
        begin = time.monotonic()
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        elapsed = time.monotonic() - begin
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(line)} ended with {done.returncode}: {done.stderr[-2000:]}")
        self.docker("rmi", "--force", RESULT)
        self.docker("builder", "prune", "--all", "--force")
        return elapsed, step_seconds(done.stderr)

    def driver(self) -> str:
        info: Mapping[str, Any] = json.loads(self.docker("info", "--format", "{{json .}}"))
        status = dict(info.get("DriverStatus") or [])
        words = [info["Driver"], "on", status.get("Backing Filesystem", "its container")]
        if status.get("Native Overlay Diff") == "false":
            words.append("without native diff")
        return " ".join(words)


def step_seconds(progress: str) -> dict[str, float]:
    """Seconds by step, from BuildKit's plain progress."""
    names: dict[str, str] = {}
    found: dict[str, float] = {}
    for line in progress.splitlines():
        if (done := re.fullmatch(r"#(\d+) DONE ([0-9.]+)s", line)) is not None:
            name = names.get(done[1], f"step {done[1]}")
            found[name] = found.get(name, 0.0) + float(done[2])
        elif (named := re.fullmatch(r"#(\d+) (\[.*|exporting to image)", line)) is not None:
            names.setdefault(named[1], named[2])
    return found


def median_steps(builds: list[dict[str, float]]) -> dict[str, float]:
    """The median of each step over several builds."""
    return {name: statistics.median(each.get(name, 0.0) for each in builds) for name in builds[0]}


def prepare(context: Path) -> int:
    """Make the build's files; how many there are."""
    libraries = sorted(Path("/usr/lib").glob("python3.*"))
    library = next(path for path in libraries if (path / "json").is_dir())
    shutil.copytree(library, context / "library", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for number in range(2000):
        place = context / "settings" / f"{number:04}.conf"
        place.parent.mkdir(exist_ok=True)
        place.write_text(f"number = {number}\n" * 20, encoding="ascii")
    (context / "Dockerfile").write_text(DOCKERFILE, encoding="ascii")
    return sum(len(names) for _, _, names in os.walk(context)) - 1


def import_base(place: Place, tree: Path) -> None:
    with tree.open("rb") as content:
        line = place.command("import", "-", BASE)
        done = subprocess.run(line, stdin=content, capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"docker import: {done.stderr.decode(errors='replace')}")


def main() -> None:
    asked: dict[str, Any] = json.loads(sys.argv[1])
    folder = Path(asked["directory"])
    folder.mkdir(mode=0o710, parents=True)
    context, tree, data = folder / "context", folder / "base.tar", folder / "data"
    context.mkdir()
    data.mkdir(mode=0o710)
    like = inspect(await_ready(asked["runner"])["environment"]["container"])
    of_image = image_environment(like["Config"]["Image"])
    names = {"nested": f"{BARE}-build", "vfs": f"{BARE}-build-vfs"}
    places = {"host": Place(None, str(context))}
    found: dict[str, Any] = {"steps": STEPS, "host": [], "nested": [], "vfs": [], "drivers": {}}
    try:
        found["files"] = prepare(context)
        excluded = [f"--exclude={pattern}" for pattern in LEFT_OUT]
        run(["tar", "-C", "/", "--one-file-system", "--numeric-owner", *excluded, "-cf", str(tree), *TREE])
        found["base_megabytes"] = round(tree.stat().st_size / 1e6)
        for kind, name in names.items():
            flags = same_flags(like, of_image, str(data) if kind == "nested" else None)
            start_bare(name, [f"--volume={context}:/context:ro", *flags])
            places[kind] = Place(name, "/context")
        for kind, place in places.items():
            import_base(place, tree)
            found["drivers"][kind] = place.driver()
        steps: dict[str, list[dict[str, float]]] = {kind: [] for kind in places}
        for number in range(asked["repetitions"] + 1):
            for kind, place in places.items():
                if kind == "vfs" and not 0 < number <= asked["repetitions_vfs"]:
                    continue
                elapsed, taken = place.build()
                if number:  # the first fills the page cache
                    found[kind].append(elapsed)
                    steps[kind].append(taken)
        found["step_seconds"] = {kind: median_steps(taken) for kind, taken in steps.items()}
    finally:
        for name in names.values():
            subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)
        for image in (RESULT, BASE):
            subprocess.run(["docker", "rmi", "--force", image], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
