# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes environments, watches them, and takes them away. It alone touches data roots."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from matryoshka_runner import dataroot, inner, process, sweep
from matryoshka_runner.background import Background
from matryoshka_runner.causes import explain
from matryoshka_runner.cgroups import place_of
from matryoshka_runner.config import Config
from matryoshka_runner.containerd import Containerd
from matryoshka_runner.engine import Engine
from matryoshka_runner.environment import (
    READY_PROGRAM,
    Environment,
    HandedIn,
    container_of,
    iptables_backend,
)
from matryoshka_runner.errors import EngineError, EngineUnavailable, EnvironmentFailed, ProgramError
from matryoshka_runner.events import EngineReach, EnvironmentEnded, Mailbox
from matryoshka_runner.firstprocess import FirstProcess
from matryoshka_runner.footing import Find, Footing
from matryoshka_runner.locks import Turns
from matryoshka_runner.meter import Disk
from matryoshka_runner.paths import Paths
from matryoshka_runner.trust import Trust, set_aside_roots
from matryoshka_runner.verdict import disk_in_words

GLANCE = 0.02
"""Seconds between two looks at the inner engine's socket."""
ASK = 1.0
"""Seconds between two runs of the image's own health check."""
CORRUPT = 2
"""So many times in a row an inner engine may not get ready on a persistent root; then it is set aside."""
LEAVING = 40.0
"""Seconds that the engine is given for each step when the runner leaves."""
RETURN = 15.0
"""Seconds that the host's containerd is given to come back before an environment is ended without it."""
BLIND = 3.0
"""Seconds until that check is run though the inner engine's socket can't be seen from here."""
REST = 4.0
"""So many times what the last step took the check isn't run: it takes time from the engine that it asks for."""

CLEAN = 'ids=$(docker ps -aq --no-trunc) || exit; [ -z "$ids" ] || docker rm --force --volumes $ids'


class Leaving(Exception):
    """The runner was told to leave while it waited."""


def _is_full(path: Path) -> bool:
    disk = Disk.of(path)
    return disk is not None and disk.full


def _fills_its_own(path: Path) -> bool:
    """Whether a quota is used up there, and not the whole file system."""
    disk = Disk.of(path)
    return disk is not None and disk.full and not disk.whole


class Supply:
    """The environments of one runner: at most one that runs, and one spare that is made but not started.

    The caller holds the runner's lock for as long as this object is used.
    """

    def __init__(
        self,
        config: Config,
        paths: Paths,
        engine: Engine,
        box: Mailbox,
        say: Callable[[str], None],
        run: process.Run = process.run,
        answers: Callable[[int], bool] = inner.answers,
        find: Find = Containerd.find,
    ) -> None:
        self.config = config
        self.engine = engine
        self.background = Background(say)
        self._paths = paths
        self._box = box
        self._say = say
        self._run = run
        self._answers = answers
        self.footing = Footing(engine.reaches, find)
        self._api: tuple[int, ...] = ()
        self._files: HandedIn | None = None
        self._spare: Environment | None = None
        self._making = threading.Lock()
        self._turns = Turns(paths.gates, "start", max(1, (os.cpu_count() or 1) // 2))
        self._driver = ""
        self._unready = 0
        self.trust = Trust(config.data, say)
        self.run_folder = paths.run
        """Where the engine too has to write before anything can be started."""

    @property
    def spare(self) -> Environment | None:
        return self._spare

    def clear(self, patience: float = 600.0) -> None:
        """Remove every container of this runner and every root that doesn't outlive one.

        :param patience: seconds that the engine is given.
        """
        self.background.finish(patience)
        if not self._making.acquire(timeout=patience):
            raise EngineError("the engine still makes the next environment")
        try:
            self._spare = None
            sweep.containers(self.engine, self.config.name, patience)
        finally:
            self._making.release()
        sweep.forgotten(self.engine, self.config.slice, self._say)
        sweep.roots(self.config.directory, self._run)
        self.background.failed = False

    def first(self) -> Environment:
        """An environment that is ready, on a host in whatever state."""
        self._api = self.engine.api_version()
        if self.config.slice is not None:
            self._driver = self.engine.cgroup_driver()
        self.clear()
        self._files = HandedIn.write(
            self._paths.handed_in(self.config.name),
            self.config,
            iptables_backend(self._run),
            dataroot.filesystem_of(self.config.directory),
        )
        # All runners of a host begin at once after a boot, and dockerd gives its containerd 15 seconds.
        with self._turns.one(self.config.ready_timeout, self._box.wait, lambda: self._box.leaving):
            if self._box.leaving:
                raise Leaving
            return self._bring_up(self._make())

    def replace(self, old: Environment) -> Environment:
        """The next environment, ready; ``old`` is dead by then and removed soon after."""
        if self.background.failed:
            return self.first()
        fresh = self._take_spare()
        if old.id not in self._box.ended:
            self._await_host(old)
        self.end(old)
        try:
            return self._bring_up(fresh)
        finally:
            self._box.forget(old.id)
            self.background.do(partial(self._remove, old))

    def make_spare(self) -> None:
        """Have the next environment made while nobody waits for it."""
        self.background.do(self._make_spare)

    def take_down(self, environment: Environment | None) -> None:
        """Remove everything of this runner; a persistent root gets a clean end of its daemon."""
        try:
            self.engine.expect()
        except EngineUnavailable:
            if environment is not None and environment.first is not None:
                environment.first.kill()
            raise
        if environment is not None and self.config.persistent:
            try:
                self.engine.stop(environment.container, self.config.stop_timeout)
            except EngineError as error:
                self._say(f"{explain(error)}; it is killed")
                if environment.first is not None:
                    environment.first.kill()
        self.clear(LEAVING)
        self._settle()
        dataroot.remove_tree(self._paths.handed_in(self.config.name), self._run)

    def _await_host(self, environment: Environment) -> None:
        """dockerd takes 20 s and more to see the end of a container that ended while containerd was away."""
        until = time.monotonic() + RETURN
        while self.footing.host_lacks(environment) and time.monotonic() < until and not self._box.leaving:
            self._box.wait(0.1)

    def healthy(self, environment: Environment) -> bool:
        """True if the inner engine answers, and its containerd."""
        if not self.config.mode.inner_engine:
            return True
        if self.footing.inner_lacks(environment):
            return False
        if self._answers(environment.pid):
            return True
        return self.engine.execute(environment.container, [READY_PROGRAM], timeout=10).ok

    def _make(self) -> Environment:
        assert self._files is not None
        environment = Environment.fresh(self.config)
        environment.data_root.mkdir(parents=True, exist_ok=True, mode=0o710)
        content = container_of(self.config, environment, self._files, self._api, self._driver)
        environment.container_id = self.engine.create(environment.container, content)
        return environment

    def _settle(self) -> None:
        """No daemon is left: what the last one wrote is brought to the disk, then the root is marked so."""
        settled = threading.Thread(target=self._mark_clean, name="settle", daemon=True)
        settled.start()
        settled.join(LEAVING)
        if settled.is_alive():
            self._say(f"{self.config.data} isn't on disk after {LEAVING:g} s; it stays marked as in use")

    def _mark_clean(self) -> None:
        try:
            self.trust.end()
        except OSError as error:
            self._say(f"{self.config.data} stays marked as in use: {explain(error)}")

    def _make_spare(self) -> None:
        with self._making:
            if self._spare is None:
                self._spare = self._make()

    def _take_spare(self) -> Environment:
        with self._making:
            fresh, self._spare = self._spare, None
        return fresh or self._make()

    def end(self, old: Environment) -> None:
        """Returns when no process of ``old`` lives any more; EngineError if one does."""
        if old.first is not None and old.first.kill():
            return
        self.engine.kill(old.container)
        if self.engine.running(old.container):
            raise EngineError(f"{old.container} still runs after it was killed")

    def _remove(self, old: Environment) -> None:
        if old.first is not None:
            old.first.close()
            old.first = None
        self.engine.remove([old.container])
        if not self.config.persistent:
            dataroot.remove_tree(old.data_root, self._run)

    def _bring_up(self, environment: Environment) -> Environment:
        aside: list[Path] = []
        if self.config.persistent:
            sweep.refuse_held(environment.data_root)
            self._discard(self._distrusted())
            environment.data_root.mkdir(exist_ok=True, mode=0o710)
            dataroot.disarm(environment.data_root)
            aside = dataroot.forget_job(environment.data_root, self.config.directory, self._run)
            aside = self._make_room(environment.data_root, aside)
        environment.starts()
        self.engine.start(environment.container)
        found = self.engine.inspect(environment.container)
        environment.pid = found.pid if found else 0
        environment.first = FirstProcess.of(environment.pid)
        self._find(environment)
        try:
            self._await_ready(environment)
        except EnvironmentFailed as error:
            self._unready += 1
            raise EnvironmentFailed(f"{error}{self._lack(environment)}") from None
        self._unready = 0
        environment.is_ready()
        self.footing.learn(environment, self.config.mode.inner_engine is not None)
        threading.Thread(
            target=self._watch, args=(environment,), name=environment.container, daemon=True
        ).start()
        self._discard(aside)
        return environment

    def _discard(self, folders: list[Path]) -> None:
        for path in folders:
            self.background.do(partial(dataroot.remove_tree, path, self._run))

    def _distrusted(self) -> list[Path]:
        """Set the persistent root aside if it can't be trusted, or no daemon gets ready on it."""
        surplus = self.trust.begin()
        if self._unready == CORRUPT and not _is_full(self.config.directory):
            surplus += self.trust.set_aside(f"no daemon got ready on it {CORRUPT} times in a row")
        return surplus

    def _make_room(self, root: Path, aside: list[Path]) -> list[Path]:
        """Where the disk is full: remove now what isn't needed, then a cache that filled the runner's own disk.

        :param aside: what the last job left. Returns what of it is still to be removed.
        """
        if not _is_full(root):
            return aside
        for path in [*aside, *set_aside_roots(root.parent)]:
            dataroot.remove_tree(path, self._run)
        if self.config.limits.disk_bytes is not None and _fills_its_own(root):
            for path in self.trust.set_aside("it filled the runner's disk"):
                dataroot.remove_tree(path, self._run)
            root.mkdir(exist_ok=True, mode=0o710)
        return []

    def _find(self, environment: Environment) -> None:
        """Learn its control groups; an out-of-memory kill is to end it whole."""
        environment.place = place_of(environment.pid, environment.container_id, self.config.slice)
        if environment.place is not None:
            environment.place.environment.die_whole()

    def _lack(self, environment: Environment) -> str:
        """What else is wrong where an environment doesn't get ready."""
        disk = Disk.of(environment.data_root)
        if disk is None or not disk.full:
            return ""
        remedy = "make room" if disk.whole else "make room, or raise the runner's disk"
        return f"; {environment.data_root}: {disk_in_words(disk)} is full: {remedy}; it is tried again"

    def _await_ready(self, environment: Environment) -> None:
        clean = self.config.persistent and dataroot.containers_in(environment.data_root)
        check = ["sh", "-c", f"{READY_PROGRAM} && {{ {CLEAN}; }}"] if clean else [READY_PROGRAM]
        deadline = environment.began + self.config.ready_timeout
        started = time.monotonic()
        ask_at = started + max(BLIND, REST * (started - environment.began))
        detail = "its inner engine doesn't answer"
        while True:
            answers = self._answers(environment.pid)
            if answers and not clean:
                return
            if self._box.leaving:
                raise Leaving
            now = time.monotonic()
            ask = answers or now >= ask_at
            if ask:
                result = self.engine.execute(environment.container, check, timeout=self.config.ready_timeout)
                if result.ok:
                    return
                asked = time.monotonic()
                ask_at, detail = asked + max(ASK, REST * (asked - now)), result.detail
            self._refuse_ended(environment, look=ask or not environment.pid)
            if now >= deadline:
                raise EnvironmentFailed(
                    f"{environment.container} wasn't ready within {self.config.ready_timeout:g} s: {detail}; "
                    + self.engine.last_words(environment.container)
                )
            self._box.wait(GLANCE)

    def _refuse_ended(self, environment: Environment, look: bool) -> None:
        """EnvironmentFailed if it has ended. ``look``: ask the engine if the kernel can't be asked."""
        if not (environment.first.ended() if environment.first is not None else look):
            return
        found = self.engine.inspect(environment.container)
        if found is None or not found.running:
            how = found.end() if found else "it was removed"
            words = self.engine.last_words(environment.container)
            raise EnvironmentFailed(f"{environment.container} ended before it was ready: {how}; {words}")

    def _watch(self, environment: Environment) -> None:
        away = False
        while True:
            self.engine.wait(environment.container)
            try:
                self.engine.expect()
                found = self.engine.inspect(environment.container)
            except ProgramError:
                if not away:
                    away = True
                    self._box.put(EngineReach(True))
                time.sleep(0.5)
                continue
            if away:
                away = False
                self._box.put(EngineReach(False))
            if found is None or not found.running:
                self._box.put(EnvironmentEnded(environment.id, found.end() if found else "it was removed"))
                return
            time.sleep(0.2)
