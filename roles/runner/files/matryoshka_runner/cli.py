# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: ``matryoshka COMMAND …``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from matryoshka_runner import admin, agents, dataroot, process, start, sweep
from matryoshka_runner.causes import explain, is_lack
from matryoshka_runner.config import check_name, read
from matryoshka_runner.engine import Engine
from matryoshka_runner.errors import (
    EXIT_FAILED,
    ConfigError,
    EngineUnavailable,
    HeldError,
    ProgramError,
    TurnError,
)
from matryoshka_runner.events import Drain, Mailbox, Stop
from matryoshka_runner.fields import load
from matryoshka_runner.files import read_json
from matryoshka_runner.locks import FileLock
from matryoshka_runner.notify import notify
from matryoshka_runner.paths import Paths
from matryoshka_runner.prune import parse_policy, prune_engine, prune_runner
from matryoshka_runner.report import show
from matryoshka_runner.runner import Runner
from matryoshka_runner.state import State, mark_stopped
from matryoshka_runner.submit import submit
from matryoshka_runner.supply import Supply
from matryoshka_runner.verdict import in_words


def say(text: str) -> None:
    """A line for the journal."""
    print(text, flush=True)


def run(paths: Paths, name: str) -> int:
    """Keep environments ready for one runner until told to leave."""
    box = Mailbox()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: box.put(Stop()))
    signal.signal(signal.SIGHUP, lambda *_: box.put(Drain()))
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    os.umask(0o027)
    try:
        config = read(paths, name)
        agent = agents.make(config, paths)
    except ConfigError as error:
        if paths.config(check_name(name)).exists():
            State(paths.state(name), name, "", say).change("failed", error=str(error))
        raise
    state = State(paths.state(name), name, config.sha256, say)
    notify("READY=1")
    held = start.hold(config, paths, state, box, say)
    if held is None:
        return 0
    lock, gates = held
    try:
        engine = Engine.until(lambda: box.stop)
        supply = Supply(config, paths, engine, box, say)
        Runner(config, agent, engine, supply, state, gates, box, say).serve()
    finally:
        lock.release()
    return 0


def cleanup(paths: Paths, name: str) -> int:
    """Remove what is left of a runner that doesn't run any more; does nothing to one that does."""
    check_name(name)
    directory, agent, slice_name = paths.lib / "runners" / name, None, None
    try:
        config = read(paths, name)
        directory, agent, slice_name = config.directory, agents.make(config, paths), config.slice
    except ConfigError as error:
        say(f"{error}; cleaning up what carries the runner's name")
    lock = FileLock(directory / "lock") if directory.is_dir() else None
    try:
        if lock is not None:
            lock.acquire(f"runner {name} isn't cleaned up, it runs")
    except HeldError as error:
        say(str(error))
        return 0
    try:
        engine = Engine.until(lambda: True)
        engine.expect()
        count = sweep.containers(engine, name)
        sweep.forgotten(engine, slice_name, say)
        count += sweep.roots(directory, process.run)
        dataroot.remove_tree(paths.handed_in(name), process.run)
        if count:
            say(f"runner {name}: {count} left-over containers and data roots removed")
    except EngineUnavailable as error:
        say(f"{error}; what is left of runner {name} is removed when it starts again")
    finally:
        try:
            for result in agent.recover() if agent else []:
                say(in_words(result))
            mark_stopped(paths.state(name))
        except OSError as error:
            say(explain(error))
        if lock is not None:
            lock.release()
    return 0


def drain(paths: Paths, name: str) -> int:
    """Have a runner leave after its job and come back with its present configuration; wait for that."""
    config = read(paths, name)
    unit = f"matryoshka-runner@{name}.service"
    before = read_json(paths.state(name)) or {}
    result = process.run(["systemctl", "reload", unit])
    if not result.ok:
        active = process.run(["systemctl", "is-active", unit]).out.strip()
        if active in ("inactive", "failed", "activating"):
            say(f"{unit} is {active}: there is nothing to drain")
            return 0
        raise ProgramError(f"{unit} can't be drained: {result.detail}")
    limit = config.drain_timeout + config.ready_timeout + config.restart_delay + 60
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        state = read_json(paths.state(name)) or {}
        if state.get("pid") != before.get("pid") and state.get("state") in ("ready", "running", "failed"):
            say(f"runner {name} was drained and is {state['state']} again")
            return 0
        time.sleep(0.2)
    raise TurnError(f"runner {name} hasn't come back within {limit:g} s; see journalctl -u {unit}")


def job(paths: Paths, file: Path, runner: str | None, queue: Path | None) -> int:
    """Hand in a job and wait for its end."""
    place = queue or paths.queue
    if runner is not None:
        check_name(runner)
        if os.access(paths.configs, os.R_OK | os.X_OK):
            config = paths.config(runner)
            if not config.exists() or os.access(config, os.R_OK):
                agent = read(paths, runner).agent
                if agent.values.get("name") != "local":
                    raise ProgramError(
                        f"runner {runner} takes no jobs from a queue: its agent is {agent.values.get('name')}"
                    )
                place = queue or Path(str(agent.values.get("queue", paths.queue)))
    return submit(file, place, runner)


def shell(paths: Paths, name: str, command: Sequence[str]) -> int:
    """Become a shell in a runner's present environment."""
    check_name(name)
    state = read_json(paths.state(name)) or {}
    if not state.get("environment"):
        raise ProgramError(f"runner {name} has no environment now: it is {state.get('state', 'stopped')}")
    flags = ["--interactive"] + (["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else [])
    argv = Engine.argv("exec", *flags, str(state["environment"]["container"]), *(command or ["bash"]))
    environment = {**process.ENVIRONMENT, "TERM": os.environ.get("TERM", "dumb")}
    os.execvpe(argv[0], argv, environment)


def check(file: Path) -> int:
    """Say whether a runner's configuration file would be accepted."""
    from matryoshka_runner.config import parse

    config = parse(*load(file))
    agents.make(config, Paths())
    say(f"{file}: accepted")
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="matryoshka", description="Runners whose jobs live in nested containers."
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, about: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=about, description=about)

    for name, about in (
        ("run", "Keep a job environment ready (what the systemd unit starts)."),
        ("cleanup", "Remove what a runner that doesn't run any more left."),
        ("drain", "Let a runner finish its job, then take its present configuration."),
    ):
        add(name, about).add_argument("name", metavar="NAME")
    one = add(
        "job",
        "Hand a script to the local queue, show its log, end with its exit code (75 cut off, 65 refused).",
    )
    one.add_argument("file", type=Path, metavar="FILE")
    one.add_argument("--runner", metavar="NAME", help="only this runner may take it")
    one.add_argument(
        "--queue", type=Path, metavar="DIR", help="another queue than that of the runner or the host"
    )
    one = add("shell", "Open a shell in a runner's environment.")
    one.add_argument("name", metavar="NAME")
    one.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="instead of bash")
    one = add("status", "Show what the runners do.")
    one.add_argument("name", nargs="?", metavar="NAME")
    one.add_argument("--json", action="store_true", help="the state files as a list")
    one = add("prune", "Remove unused images and build cache; waits until no job runs.")
    which = one.add_mutually_exclusive_group(required=True)
    which.add_argument("--engine", action="store_true", help="on the host's engine")
    which.add_argument("name", nargs="?", metavar="NAME", help="inside this runner's environment")
    one.add_argument("--until", default="168h", metavar="AGE", help="only what is older (168h)")
    one.add_argument("--keep-label", action="append", default=[], metavar="LABEL", help="never what has it")
    one.add_argument("--build-cache", action="store_true", help="the build cache too")
    one.add_argument("--wait", type=float, default=3600.0, metavar="SECONDS", help="for running jobs to end")
    one = add(
        "exclusive", "Run a command while no runner runs a job and none begins one; ends with its exit code."
    )
    one.add_argument("--wait", type=float, default=3600.0, metavar="SECONDS", help="for running jobs to end")
    one.add_argument("words", nargs="+", metavar="COMMAND")
    one = add("forget", "Take runners away when their jobs have ended: unit, configuration, state.")
    one.add_argument("--wait", type=float, default=3600.0, metavar="SECONDS", help="for their jobs to end")
    one.add_argument("--cache", action="store_true", help="their data too")
    one.add_argument("names", nargs="+", metavar="NAME")
    add("check", "Say whether a runner's configuration file is right.").add_argument(
        "file", type=Path, metavar="FILE"
    )
    return top


def main(arguments: Sequence[str], paths: Paths | None = None) -> int:
    """Run one command; its exit code."""
    paths = paths or Paths()
    given = parser().parse_args(arguments)
    table: dict[str, Callable[[], int]] = {
        "run": lambda: run(paths, given.name),
        "cleanup": lambda: cleanup(paths, given.name),
        "drain": lambda: drain(paths, given.name),
        "job": lambda: job(paths, given.file, given.runner, given.queue),
        "shell": lambda: shell(paths, given.name, given.words),
        "check": lambda: check(given.file),
        "exclusive": lambda: admin.exclusive(paths, given.wait, given.words),
    }
    try:
        if given.command == "status":
            print(show(paths, given.name, given.json))
        elif given.command == "forget":
            admin.forget(paths, given.names, given.wait, given.cache, say)
        elif given.command == "prune":
            policy = parse_policy(given.until, given.keep_label, given.build_cache, given.wait)
            if given.engine:
                prune_engine(paths, policy, Engine(), say)
            else:
                prune_runner(paths, check_name(given.name), policy, Engine(), say)
        else:
            return table[given.command]()
    except ProgramError as error:
        print(f"matryoshka {given.command}: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        if not is_lack(error):
            raise
        print(f"matryoshka {given.command}: {explain(error)}", file=sys.stderr)
        return EXIT_FAILED
    return 0
