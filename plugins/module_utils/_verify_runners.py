# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runners by what they say and hold: state, configuration, lock; and the queues that feed them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._verify_environments import (
    restart,
    runner_state,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    SITE,
    Expect,
    Holder,
    Observed,
    QueueView,
    Report,
    RunnerView,
    seconds,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_runner_files import CONFIGS, STATES

READY = ("ready", "running")
#: States that may pass by themselves; without a state, the program has only just started.
PASSING = ("preparing", "cleaning", "draining", "failed", "stopped", "")
#: Seconds after which a job that nobody takes up, or a claim that nobody works on, is stuck.
PATIENCE = 30.0
#: Seconds that a clock may differ before it counts as set back.
CLOCK = 60.0
#: Values under these keys may be secret: they are never asked for or shown.
SECRET = ("environment_variables",)


def unit_of_runner(name: str) -> str:
    return f"matryoshka-runner@{name}.service"


def check_runners(report: Report, expect: Expect, seen: Observed) -> None:
    """Every runner of the list, by its own files."""
    for config in expect.runners:
        name = str(config["name"])
        view = seen.runners.get(name) or RunnerView(state_error="it wasn't looked at")
        unit = seen.units.get(unit_of_runner(name))
        _check_config(report, config, view, runner_state(seen, name))
        _check_lock(report, config, view, unit is not None and unit.up, runner_state(seen, name))
        if unit is not None and unit.up:
            _check_state(report, seen, name, view)


def _check_state(report: Report, seen: Observed, name: str, view: RunnerView) -> None:
    subject, again = f"runner {name}", restart(name)
    if not report.check(
        view.state is not None,
        "runner_state",
        subject,
        f"its unit runs, but its state can't be read: {view.state_error}",
        again,
    ):
        return
    state = view.state or {}
    pid, said = state.get("pid"), str(state.get("state", ""))
    detail = seen.unit_details.get(unit_of_runner(name), {})
    main = int(detail.get("MainPID") or 0)
    report.check(
        said == "stopped" or (view.pid_unit is not None and pid == main),
        "runner_state_stale",
        subject,
        f"{STATES}/{name}.json was written by process {pid}, "
        + (f"but the runner is process {main}" if view.pid_unit is not None else "which is gone"),
        again,
    )
    report.check(
        said != "failed",
        "runner_failed",
        subject,
        f"it has failed and tries again: {state.get('error') or 'no reason given'}",
        f"journalctl -u {unit_of_runner(name)} -n 30",
    )
    report.check(
        said in (*READY, "failed"),
        "runner_not_ready",
        subject,
        f"it is {said or 'in no state'} since {state.get('since')} and didn't become ready in the time given"
        + (f": {state['error']}" if state.get("error") else ""),
        f"journalctl -u {unit_of_runner(name)} -n 30",
    )
    report.check(
        seconds(str(state.get("since", ""))) <= seen.now + CLOCK,
        "clock",
        subject,
        f"its state dates from the future ({state.get('since')}): the host's clock was set back",
        "timedatectl status; put the clock right",
    )


def _check_config(report: Report, config: Mapping[str, Any], view: RunnerView, said: str) -> None:
    name, subject = str(config["name"]), f"runner {config['name']}"
    path = posixpath.join(CONFIGS, f"{name}.json")
    different = list(_different(dict(config), view.config)) if view.config is not None else []
    report.check(
        view.config is not None and not different,
        "runner_config",
        subject,
        f"{path} can't be read" if view.config is None else f"{path} was changed: " + "; ".join(different),
        f"{SITE}: it writes the file anew and reloads the runner",
    )
    used = (view.state or {}).get("config_sha256")
    if view.config_sha256 is None or used is None or said not in READY:
        return
    text = f"it still works with another configuration than {path} holds"
    if said == "running" and used != view.config_sha256:
        report.note(
            "runner_config_old", subject, text + "; the new one counts when its job ends", "nothing: wait"
        )
        return
    report.check(used == view.config_sha256, "runner_config_old", subject, text, restart(name))


def _different(wanted: Any, present: Any, key: str = "") -> Iterator[str]:
    """Where two configurations differ, in words; values that may be secret are left to the file's digest."""
    if isinstance(wanted, Mapping) and isinstance(present, Mapping):
        for name in sorted({*wanted, *present}):
            where = f"{key}.{name}" if key else str(name)
            if where not in SECRET:
                yield from _different(wanted.get(name), present.get(name), where)
    elif wanted != present:
        yield f"{key} is {present!r} and should be {wanted!r}"


def _check_lock(report: Report, config: Mapping[str, Any], view: RunnerView, up: bool, said: str) -> None:
    """The lock on a runner's folder: held by the runner while it runs, by nobody when it doesn't."""
    name, subject = str(config["name"]), f"runner {config['name']}"
    lock = posixpath.join(str(config["directory"]), "lock")
    pid = (view.state or {}).get("pid")
    ours = [one for one in view.lock_holders if one.pid == pid or one.unit == unit_of_runner(name)]
    foreign = [one for one in view.lock_holders if one not in ours and not one.unit.startswith("matryoshka-")]
    report.check(
        not foreign,
        "lock_stale",
        subject,
        f"{lock} is held by {_names(foreign)}, which isn't the runner: it can't start while that lives",
        "; ".join(f"kill {one.pid}" for one in foreign) + f"; {restart(name)}",
    )
    if up and said in READY and not foreign:
        report.check(
            bool(ours),
            "lock_lost",
            subject,
            f"{lock} {'is held by nobody' if view.lock_exists else 'is gone'}: a second daemon could use the same data root",
            restart(name),
        )


def _names(holders: list[Holder]) -> str:
    return ", ".join(
        f"{one.name or 'a process'} (pid {one.pid}{', ' + one.unit if one.unit else ''})" for one in holders
    )


def check_queues(report: Report, expect: Expect, seen: Observed) -> None:
    """Directory queues: sound folders, nothing stuck in them."""
    for path, queue in seen.queues.items():
        names = [str(one["name"]) for one in expect.runners if (one.get("agent") or {}).get("queue") == path]
        _check_folders(report, path, queue)
        _check_waiting(report, seen, path, queue, names)
        _check_claimed(report, seen, path, queue, names)
        refused = sorted(queue.entries.get("refused", {}))
        if refused:
            report.note(
                "job_refused",
                f"queue {path}",
                f"{len(refused)} refused: {', '.join(refused[:5])}" + (" …" if len(refused) > 5 else ""),
                f"cat {path}/refused/{refused[0]}/result.json",
            )


def _check_folders(report: Report, path: str, queue: QueueView) -> None:
    subject = f"queue {path}"
    for name, view in queue.folders.items():
        folder = posixpath.join(path, name) if name else path
        if not report.check(
            view is not None and view.kind == "directory",
            "queue_folder",
            subject,
            f"{folder} isn't {'there' if view is None else 'a folder'}: no job can come in",
            SITE,
        ):
            continue
        if view is None:
            raise AssertionError("view is set by now")
        loose = 0o002 if name == "new" else 0o022
        report.check(
            view.owner == "root" and not int(view.mode, 8) & loose,
            "queue_folder",
            subject,
            f"{folder} belongs to {view.owner} with mode {view.mode}: "
            + (
                "anybody could hand in jobs"
                if name == "new"
                else "others than root could change jobs and results"
            ),
            f"chown root {folder}; chmod {'2770' if name == 'new' else '0755' if not name else '2750'} {folder}",
        )


def _check_waiting(report: Report, seen: Observed, path: str, queue: QueueView, names: list[str]) -> None:
    pruning = any(
        name.startswith("matryoshka-prune") and name.endswith(".service") and state.up
        for name, state in seen.units.items()
    )
    if pruning:
        return
    for entry, view in queue.entries.get("new", {}).items():
        if entry.startswith("."):
            continue
        runner = entry.rpartition("@")[2] if "@" in entry else None
        free = [name for name in names if runner in (None, name) and runner_state(seen, name) == "ready"]
        report.check(
            not (free and seen.now - view.changed > PATIENCE),
            "job_stuck",
            f"queue {path}",
            f"the job {entry} has waited for {seen.now - view.changed:.0f} s, although runner {free[0] if free else ''} is idle",
            f"fuser -v {path}/new/{entry} (a job is left alone while somebody has it open for writing); "
            + (restart(free[0]) if free else ""),
        )


def _check_claimed(report: Report, seen: Observed, path: str, queue: QueueView, names: list[str]) -> None:
    for entry, view in queue.entries.get("claimed", {}).items():
        runner, _ignored, job = entry.partition("/")
        state = (seen.runners[runner].state if runner in seen.runners else None) or {}
        running = (state.get("job") or {}).get("id") == job
        settled = seen.now - view.changed > PATIENCE
        report.check(
            runner in names and (running or not settled or state.get("state") not in READY),
            "job_abandoned",
            f"queue {path}",
            f"the job {job} was claimed by runner {runner}, "
            + ("which isn't in the list any more" if runner not in names else "which doesn't run it"),
            restart(runner) + " reports it as cut off"
            if runner in names
            else f"look at {path}/claimed/{entry}, then hand it in again: mv {path}/claimed/{entry}/script {path}/new/{job}",
        )
