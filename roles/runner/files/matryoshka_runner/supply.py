# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes environments, watches them, and takes them away. It alone touches data roots."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from matryoshka_runner import dataroot, inner, process, sweep
from matryoshka_runner.background import Background
from matryoshka_runner.config import Config
from matryoshka_runner.engine import Engine
from matryoshka_runner.environment import (
    READY_PROGRAM,
    Environment,
    HandedIn,
    create_arguments,
    iptables_backend,
)
from matryoshka_runner.errors import EngineError, EngineUnavailable, EnvironmentFailed, ProgramError
from matryoshka_runner.events import EngineReach, EnvironmentEnded, Mailbox
from matryoshka_runner.firstprocess import FirstProcess
from matryoshka_runner.paths import Paths

GLANCE = 0.02
"""Seconds between two looks at the inner engine's socket."""
ASK = 1.0
"""Seconds between two runs of the image's own health check."""
BLIND = 3.0
"""Seconds until that check is run though the inner engine's socket can't be seen from here."""

CLEAN = 'ids=$(docker ps -aq --no-trunc) || exit; [ -z "$ids" ] || docker rm --force --volumes $ids'


class Leaving(Exception):
    """The runner was told to leave while it waited."""


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
    ) -> None:
        self.config = config
        self.engine = engine
        self.background = Background(say)
        self._paths = paths
        self._box = box
        self._say = say
        self._run = run
        self._answers = answers
        self._api: tuple[int, ...] = ()
        self._files: HandedIn | None = None
        self._spare: Environment | None = None
        self._making = threading.Lock()

    @property
    def spare(self) -> Environment | None:
        return self._spare

    def clear(self) -> None:
        """Remove every container of this runner and every root that doesn't outlive one."""
        self.background.finish()
        with self._making:
            self._spare = None
            sweep.containers(self.engine, self.config.name)
        sweep.roots(self.config.directory, self._run)
        self.background.failed = False

    def first(self) -> Environment:
        """An environment that is ready, on a host in whatever state."""
        self._api = self.engine.api_version()
        self.clear()
        self._files = HandedIn.write(
            self._paths.handed_in(self.config.name), self.config, iptables_backend(self._run)
        )
        return self._bring_up(self._make())

    def replace(self, old: Environment) -> Environment:
        """The next environment, ready; ``old`` is dead by then and removed soon after."""
        if self.background.failed:
            return self.first()
        fresh = self._take_spare()
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
            self.engine.stop(environment.container, self.config.stop_timeout)
        self.clear()
        dataroot.remove_tree(self._paths.handed_in(self.config.name), self._run)

    def healthy(self, environment: Environment) -> bool:
        """True if the inner engine answers."""
        if not self.config.mode.inner_engine:
            return True
        if self._answers(environment.pid):
            return True
        return self.engine.execute(environment.container, [READY_PROGRAM], timeout=10).ok

    def _make(self) -> Environment:
        assert self._files is not None
        environment = Environment.fresh(self.config)
        environment.data_root.mkdir(parents=True, exist_ok=True, mode=0o710)
        self.engine.create(create_arguments(self.config, environment, self._files, self._api))
        return environment

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
            dataroot.disarm(environment.data_root)
            aside = dataroot.forget_job(environment.data_root, self.config.directory, self._run)
        environment.starts()
        self.engine.start(environment.container)
        found = self.engine.inspect(environment.container)
        environment.pid = found.pid if found else 0
        environment.first = FirstProcess.of(environment.pid)
        self._await_ready(environment)
        environment.is_ready()
        threading.Thread(
            target=self._watch, args=(environment,), name=environment.container, daemon=True
        ).start()
        for path in aside:
            self.background.do(partial(dataroot.remove_tree, path, self._run))
        return environment

    def _await_ready(self, environment: Environment) -> None:
        clean = self.config.persistent and dataroot.containers_in(environment.data_root)
        check = ["sh", "-c", f"{READY_PROGRAM} && {{ {CLEAN}; }}"] if clean else [READY_PROGRAM]
        deadline = environment.began + self.config.ready_timeout
        ask_at, detail = environment.began + BLIND, "its inner engine doesn't answer"
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
                ask_at, detail = time.monotonic() + ASK, result.detail
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
