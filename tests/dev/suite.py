#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the project's tests and ends with one line of counts. ``./dev test`` calls it.

A part is a list of checks that run one after another; parts named together share the machine's cores.
Every check writes its whole output to ``.dev/log``; a part called alone also shows it as it comes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from counts import Counts, from_junit_file, molecule_steps, one, step_seconds, test_seconds, total

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".dev"
COLLECTION = "playbooks/collections/ansible_collections/matryoshka/host"
PARTS = ("lint", "unit", "sanity", "integration", "molecule")
ON_REQUEST = ("long",)
"""Parts that only run when they are named."""
EMULATED = {"vm": "vm-debian13", "vm-debian12": "vm-debian12"}
"""Scenarios whose machines may run on emulated processors, after all others; what their machines are made from."""
NAMED = ("vm-debian12",)
"""Scenarios that only run when they are named."""
PATIENT = ("lint", "sanity")
"""Parts that take no times and look at no host: they get what processor time whole machines leave."""
WITH_WORDS = ("molecule", "long")
"""Parts whose name may be followed by words of theirs."""
PACKED = {
    "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "dev" / "callback"),
    "ANSIBLE_CALLBACKS_ENABLED": "packed_modules",
}
"""Has all runs of Ansible share what they pack, see packed.py."""
# Not to be had: what each needs.
SANITY_SKIPPED: dict[str, str] = {}
# Named after the pip that the pinned ansible-core wants for itself.
SANITY_BOOTSTRAP = "get_pip_24_2.py"


@dataclass
class Check:
    """One program to run, and how its end is counted."""

    name: str
    argv: list[str]
    cwd: Path = ROOT
    environment: dict[str, str] = field(default_factory=dict)
    count: Callable[[bool, str], Counts] = lambda ok, _output: one(ok)
    steps: bool = False
    junit: Path | None = None


@dataclass
class Outcome:
    """What became of a check."""

    name: str
    counts: Counts
    seconds: float
    log: Path
    ok: bool
    junit: Path | None = None


class Suite:
    """Runs checks, prints a line for each, keeps the outcomes."""

    def __init__(self, live: bool) -> None:
        self.live = live
        self.outcomes: list[Outcome] = []
        self._printing = threading.Lock()

    def say(self, text: str) -> None:
        with self._printing:
            print(text, flush=True)

    def run(self, part: str, check: Check) -> Outcome:
        """Run ``check`` to its end and print what became of it."""
        name = part if check.name == part else f"{part}/{check.name}"
        log = STATE / "log" / f"test-{name.replace('/', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        self.say(f"{name} ...")
        begin = time.monotonic()
        lines: list[str] = []
        times: list[float] = []
        with log.open("w", encoding="utf-8") as written:
            try:
                process = subprocess.Popen(
                    check.argv,
                    cwd=check.cwd,
                    env={**os.environ, **check.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                )
            except FileNotFoundError:
                lines.append(f"{check.argv[0]} isn't installed\n")
                written.write(lines[-1])
                ok = False
            else:
                assert process.stdout is not None
                for line in process.stdout:
                    lines.append(line)
                    times.append(time.monotonic())
                    written.write(line)
                    written.flush()
                    if self.live:
                        self.say(line.rstrip("\n"))
                ok = process.wait() == 0
        counts = check.count(ok, "".join(lines))
        if not ok and not counts.failed:
            counts += Counts(failed=1)
        seconds = time.monotonic() - begin
        outcome = Outcome(name, counts, seconds, log, ok and not counts.failed, check.junit)
        if check.steps:
            taken = step_seconds(zip(times, lines, strict=False), time.monotonic())
            self.say(f"{name}: " + ", ".join(f"{step} {took:.0f} s" for step, took in taken))
        self.report(name, outcome, lines)
        self.outcomes.append(outcome)
        return outcome

    def report(self, name: str, outcome: Outcome, lines: Sequence[str]) -> None:
        with self._printing:
            print(f"{name}: {outcome.counts} ({outcome.seconds:.0f} s)", flush=True)
            if outcome.ok:
                return
            if not self.live:
                for line in lines[-40:]:
                    print(f"    {line}", end="" if line.endswith("\n") else "\n")
            print(f"    The whole log: {outcome.log}", flush=True)


# --- the parts ------------------------------------------------------------------------------------


def files(*patterns: str) -> list[str]:
    """Existing files of the checkout by pattern, relative to it."""
    found = {path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(str(path) for path in found)


def pytest(name: str, argv: Sequence[str], environment: dict[str, str] | None = None) -> Check:
    """A check that runs pytest and is counted by its JUnit report."""
    junit = STATE / "junit" / f"{name.replace('/', '-')}.xml"
    junit.parent.mkdir(parents=True, exist_ok=True)
    junit.unlink(missing_ok=True)

    def count(ok: bool, _output: str) -> Counts:
        return from_junit_file(junit) or one(ok)

    return Check(
        name,
        ["pytest", f"--junitxml={junit}", *argv],
        environment=environment or {},
        count=count,
        junit=junit,
    )


def lint(_suite: Suite, _args: Sequence[str]) -> list[Check]:
    """Linters, and Galaxy's own check of the tarball."""
    build = STATE / "build"
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    shell = files("dev", ".ci/run", "tests/dev/*.sh", "molecule/shared/images/*.sh", "examples/jobs/*.sh")
    shell += files("roles/*/files/*.sh", "roles/*/files/bin/*")
    # The importer calls ansible-lint, too, and only warns; ours is stricter.
    importer = build / "galaxy-importer.cfg"
    importer.write_text("[galaxy-importer]\nrun_ansible_lint = False\n", encoding="utf-8")
    tarball = f"ansible-galaxy collection build --force --output-path {build} && cd {build}"
    return [
        Check("ruff", ["ruff", "check", "."]),
        Check("format", ["ruff", "format", "--check", "."]),
        Check("mypy", ["mypy", f"{COLLECTION}/plugins", "roles/runner/files/matryoshka_runner", "tests"]),
        Check("yamllint", ["yamllint", "--strict", "."]),
        Check("shellcheck", ["shellcheck", "--external-sources", *shell]),
        Check("changelog", ["antsibull-changelog", "lint"]),
        Check("ansible-lint", ["ansible-lint", "--nocolor", "--strict"]),
        Check(
            "galaxy-importer",
            ["sh", "-ec", f"{tarball} && python -m galaxy_importer.main *.tar.gz"],
            environment={"GALAXY_IMPORTER_CONFIG": str(importer)},
            count=lambda ok, output: one(ok and "\nERROR" not in output),
        ),
    ]


def unit(_suite: Suite, args: Sequence[str]) -> list[Check]:
    """Pure functions; no root, no network."""
    return [pytest("unit", ["-q", "-n", str(os.cpu_count() or 1), *(args or ["tests/unit"])])]


def sanity(_suite: Suite, args: Sequence[str]) -> list[Check]:
    """``ansible-test sanity`` on a copy of what is shipped, in the project's own Python."""
    tree = STATE / "sanity" / "ansible_collections" / "matryoshka" / "host"
    shutil.rmtree(tree, ignore_errors=True)
    ignored = shutil.ignore_patterns("collections", "__pycache__", ".*_cache", ".hypothesis", "*.pyc")
    for name in ("changelogs", "meta", "playbooks", "plugins", "roles"):
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for path in files(
        "galaxy.yml", "README.md", "CHANGELOG.md", "COPYING", "tests/config.yml", "tests/sanity/*"
    ):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, tree / path)
    # ansible-test asks git for the list of files; ours is above an ignored folder.
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    skip = [f"--skip-test={name}" for name in SANITY_SKIPPED]
    environment = {
        "ANSIBLE_COLLECTIONS_PATH": str(STATE / "sanity"),
        "HOME": str(sanity_home()),
        "PYTHONPYCACHEPREFIX": "",
    }
    argv = ["ansible-test", "sanity", "--color=no", "--python", version, "--requirements", *skip, *args]
    return [Check("sanity", argv, cwd=tree, environment=environment, count=sanity_counts)]


def sanity_home() -> Path:
    """A home folder in which ansible-test's environments get their pip from Python itself.

    ansible-test would download a bootstrap script from a host of its own, and keep all in ``~/.ansible``.
    """
    home = STATE / "home"
    bootstrap = home / ".ansible" / "test" / "cache" / SANITY_BOOTSTRAP
    if not bootstrap.exists():
        bootstrap.parent.mkdir(parents=True)
        bootstrap.write_text("import ensurepip\n\nensurepip.bootstrap()\n", encoding="utf-8")
    for name in (".config", ".pip"):
        real = Path.home() / name
        if real.is_dir() and not (home / name).exists():
            (home / name).symlink_to(real)
    return home


def sanity_counts(ok: bool, output: str) -> Counts:
    """One test for every ``Running sanity test``; those that failed are named at the end."""
    ran = sum(1 for line in output.splitlines() if line.startswith("Running sanity test "))
    failed = 0
    for line in output.splitlines():
        if line.startswith("FATAL: The ") and "sanity test(s)" in line:
            failed = int(line.split("The ")[1].split()[0])
    if not ok and not failed:
        failed = 1
    return Counts(max(ran - failed, 0), failed, len(SANITY_SKIPPED))


def integration(_suite: Suite, args: Sequence[str]) -> list[Check]:
    """Modules against real engines on container hosts."""
    return [pytest("integration", ["-q", *(args or ["tests/integration"])], PACKED)]


def scenarios() -> list[str]:
    """Names of the Molecule scenarios, the default one first."""
    names = [path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")]
    return sorted(names, key=lambda name: (name != "default", name))


def molecule(_suite: Suite, args: Sequence[str]) -> list[Check]:
    """Whole hosts; every scenario step and every test of its verify step counts."""
    unknown = sorted(set(args) - set(scenarios()))
    if unknown:
        raise SystemExit(f"no scenario {', '.join(unknown)}: there are {', '.join(scenarios())}")
    return [scenario(name) for name in args or usual_scenarios()]


def usual_scenarios() -> list[str]:
    """Those that run when none is named."""
    return [name for name in scenarios() if name not in NAMED]


def scenario(name: str) -> Check:
    junit = STATE / "junit" / f"molecule-{name}.xml"
    junit.parent.mkdir(parents=True, exist_ok=True)
    junit.unlink(missing_ok=True)

    def count(ok: bool, output: str) -> Counts:
        steps = molecule_steps(output)
        tests = from_junit_file(junit)
        if tests is not None:
            # The step that ran the tests is counted by them.
            steps.pop("verify", None)
        counts = total(one(good) for good in steps.values()) + (tests or Counts())
        return counts if ok or counts.failed else counts + Counts(failed=1)

    environment = {**PACKED, "PYTEST_ADDOPTS": f"--junitxml={junit}"}
    argv = ["molecule", "test", "--report", "--no-command-borders", "--scenario-name", name]
    return Check(name, argv, environment=environment, count=count, steps=True, junit=junit)


def image(_suite: Suite, args: Sequence[str]) -> list[Check]:
    """What the machines of these scenarios start from; a scenario makes it itself if it isn't there."""
    return [Check(name, [sys.executable, "tests/dev/hosts.py", "image", EMULATED[name]]) for name in args]


def long(_suite: Suite, args: Sequence[str]) -> list[Check]:
    """What takes too long for every change: killed processes, power cuts, faults of a whole machine."""
    python = [sys.executable]
    known: dict[str, Callable[[Sequence[str]], Check]] = {
        "kills": lambda options: Check(
            "kills", [*python, "tests/long/kills.py", *options], environment=PACKED
        ),
        "cuts": lambda options: Check("cuts", [*python, "tests/long/cuts.py", *options], environment=PACKED),
        "faults": lambda options: pytest("faults", ["-v", "tests/long/test_faults.py", *options], PACKED),
    }
    options = [word for word in args if word not in known]
    chosen = [name for name in args if name in known]
    if options and len(chosen) != 1:
        raise SystemExit(
            f"{' '.join(options)}: of which of {', '.join(known)}? For example: long kills -- --kills 12"
        )
    return [known[name](options) for name in chosen or known]


def run_part(suite: Suite, part: str, args: Sequence[str], patient: bool = False) -> None:
    """:param patient: at the lowest priority."""
    for check in globals()[part](suite, args):
        if patient:
            check.argv = ["nice", "-n", "19", *check.argv]
        suite.run(part, check)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev test", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "part",
        nargs="*",
        help=f"{', '.join(PARTS + ON_REQUEST)}; words after molecule are scenarios; without any: all but long and molecule vm-debian12",
    )
    argv, _, rest = " ".join(["", *sys.argv[1:]]).partition(" -- ")
    given = argv.split()
    extra = sys.argv[sys.argv.index("--") + 1 :] if rest else []
    words = parser.parse_args(given).part
    parts: dict[str, list[str]] = {}
    for number, word in enumerate(words):
        if word in PARTS + ON_REQUEST:
            parts[word] = []
        elif words[:number] and (owner := [one for one in words[:number] if one in WITH_WORDS]):
            parts[owner[-1]].append(word)
        else:
            parser.error(f"no part {word}: there are {', '.join(PARTS + ON_REQUEST)}")
    for part in parts:
        parts[part] = [*parts[part], *extra]
    begin, processors = time.monotonic(), processor_seconds()
    suite = Suite(live=len(parts) == 1)
    if len(parts) == 1:
        for part, args in parts.items():
            run_part(suite, part, args)
    else:
        run_together(suite, parts or {part: [] for part in PARTS})
    idle, passed = (after - before for before, after in zip(processors, processor_seconds(), strict=True))
    print(
        f"\nThe slowest, of {time.monotonic() - begin:.0f} s in all, processors idle {idle / max(passed, 1):.0%} of it:"
    )
    for outcome in sorted(suite.outcomes, key=lambda outcome: -outcome.seconds)[:8]:
        print(f"  {outcome.seconds:6.0f} s  {outcome.name}")
    tests = {
        f"{outcome.name} {test}": seconds
        for outcome in suite.outcomes
        if outcome.junit is not None
        for test, seconds in test_seconds(outcome.junit).items()
    }
    for test in sorted(tests, key=lambda test: -tests[test])[:20]:
        print(f"  {tests[test]:6.0f} s  {test}")
    for outcome in suite.outcomes:
        if not outcome.ok:
            print(f"failed: {outcome.name}: {outcome.log}")
    counts = total(outcome.counts for outcome in suite.outcomes)
    print(counts)
    return 1 if counts.failed or not suite.outcomes else 0


def processor_seconds() -> tuple[float, float]:
    """What all processors of the machine were idle since it booted, and that with what they worked (proc(5), stat)."""
    line = Path("/proc/stat").read_text(encoding="utf-8").partition("\n")[0]
    # Without guest time, which is in user time already.
    ticks = [int(word) for word in line.split()[1:9]]
    return (ticks[3] + ticks[4]) / os.sysconf("SC_CLK_TCK"), sum(ticks) / os.sysconf("SC_CLK_TCK")


def run_together(suite: Suite, parts: dict[str, list[str]]) -> None:
    """Scenarios beside all that needs the processor; whole machines after them, beside what is patient.

    Container hosts wait for much: one thing more at a time than there are processors has these busy. What whole
    machines are made from is made meanwhile. Their tests take times, and keep an emulated machine's second processor
    busy only now and then.
    """
    chosen = list(parts.get("molecule", []) or usual_scenarios()) if "molecule" in parts else []
    emulated = [name for name in chosen if name in EMULATED]
    beside = deque(("molecule", name) for name in chosen if name not in EMULATED)
    beside.extend(("image", name) for name in emulated)
    patient = [part for part in parts if part in PATIENT] if emulated else []

    def lane(first: Sequence[str]) -> None:
        for part in first:
            run_part(suite, part, parts[part])
        while beside:
            part, name = beside.popleft()
            run_part(suite, part, [name])

    def wait_patiently() -> None:
        for part in patient:
            run_part(suite, part, parts[part], patient=True)

    count = (os.cpu_count() or 1) + 1
    with ThreadPoolExecutor(max_workers=count) as pool:
        lanes = [pool.submit(lane, [part for part in parts if part not in ("molecule", *patient)])]
        lanes += [pool.submit(lane, []) for _ in range(count - 1)]
        for done in lanes:
            done.result()
        waiting = pool.submit(wait_patiently)
        for name in emulated:
            run_part(suite, "molecule", [name])
        waiting.result()


if __name__ == "__main__":
    raise SystemExit(main())
