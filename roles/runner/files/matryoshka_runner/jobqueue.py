# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory queue: jobs are files, every step is one rename, and no job is run twice.

::

    new/ID            a job for any runner of this queue
    new/ID@RUNNER     a job for one runner
    claimed/RUNNER/ID/{script,log,claim.json}     it runs, was cut off by a crash, or never began and is next
    done/ID/{script,log,result.json}
    refused/ID/{script,result.json}

Names that begin with a dot are ignored: write there, then rename. A job is accepted only if
it is a regular file, owned by root or of the queue's group (that of ``new/``), and nobody
else may write to it. It is left alone for as long as anyone has it open for writing.
"""

from __future__ import annotations

import fcntl
import grp
import os
import re
import secrets
import stat
import time
from collections.abc import Container, Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matryoshka_runner.causes import is_lack
from matryoshka_runner.cgroups import boot_id
from matryoshka_runner.files import (
    now,
    read_json,
    seconds_between,
    stamp,
    sync_file,
    sync_folder,
    write_json,
)

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
ID_ALLOWED = "1 to 128 letters, digits and . _ + -, with a letter or digit first"
SETTLED = 2.0
"""Seconds without a change after which a file counts as written, where the file system has no leases."""
STATUSES = ("succeeded", "failed", "cut off", "refused")
FOLDERS = {"new": 0o2770, "claimed": 0o2750, "done": 0o2750, "refused": 0o2750}


@dataclass(frozen=True)
class Claim:
    """A job that is this runner's alone. ``refusal`` says why it can't be run, empty if it can."""

    id: str
    folder: Path
    refusal: str = ""

    @property
    def script(self) -> Path:
        return self.folder / "script"

    @property
    def log(self) -> Path:
        return self.folder / "log"


@dataclass(frozen=True)
class Ending:
    """How a job ended, see :class:`~matryoshka_runner.agents.Outcome`."""

    status: str
    exit_code: int | None
    reason: str
    usage: Mapping[str, Any] | None = None
    ended: str | None = None
    seconds: float | None = None


class JobQueue:
    """The queue in ``root``, as seen by ``runner``.

    :param known: names of the host's runners; a job for any other is refused.
    """

    def __init__(self, root: Path, runner: str, known: frozenset[str] | None = None) -> None:
        self.root = root
        self.runner = runner
        self.known = known
        self._seen: int | None = None
        self._look_again = 0.0

    def make_folders(self) -> None:
        """Make what isn't there, of the group that ``root`` has, durably."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o755)
        before = set(os.listdir(self.root))
        for name, mode in FOLDERS.items():
            folder = self.root / name
            if name not in before:
                folder.mkdir(exist_ok=True)
                os.chown(folder, -1, self.root.stat().st_gid)
                folder.chmod(mode)
        own = self.root / "claimed" / self.runner
        if not own.is_dir():
            own.mkdir(exist_ok=True, mode=0o2750)
            for changed in (own.parent, self.root, self.root.parent):
                sync_folder(changed)

    def pending(self) -> bool:
        """False if nothing can have come since the last claim found nothing; costs one system call."""
        try:
            changed = (self.root / "new").stat().st_mtime_ns
        except OSError:
            return False
        return changed != self._seen or time.monotonic() >= self._look_again

    def claim(self) -> Claim | None:
        """Take the oldest job for this runner, or None. Once it returns, the claim survives a power cut."""
        new = self.root / "new"
        seen = new.stat().st_mtime_ns
        pause = 1.0
        for entry in self._candidates(new):
            path = Path(entry.path)
            if entry.is_file(follow_symlinks=False) and still_written(path):
                pause = 0.2
                continue
            claim = self._take(path)
            if claim:
                return claim
        # A file written to in the last moment may not have changed the folder's time.
        settled = not 0 <= time.time_ns() - seen <= 50_000_000
        self._seen = seen if settled else None
        self._look_again = time.monotonic() + pause
        return None

    def describe(self, claim: Claim, **values: Any) -> None:
        """Note what is known of a claimed job, for the report if it is cut off."""
        content = self._known(claim)
        write_json(claim.folder / "claim.json", {**content, **values}, 0o640)

    def seconds(self, claim: Claim) -> float | None:
        """How long a job has run until now, see :func:`elapsed`."""
        return elapsed(self._known(claim))

    def report(self, claim: Claim, ending: Ending) -> dict[str, Any]:
        """Report the job's end durably, and only then move it out of ``claimed``; the result."""
        known = self._known(claim)
        result = {
            "job": claim.id,
            "runner": self.runner,
            "environment": known.get("environment"),
            "status": ending.status,
            "exit_code": ending.exit_code,
            "reason": ending.reason,
            "submitted": known.get("submitted"),
            "claimed": known.get("claimed"),
            "started": known.get("started"),
            "ended": ending.ended or now(),
            "seconds": ending.seconds if ending.ended else elapsed(known),
            "usage": ending.usage,
        }
        if claim.log.exists():
            sync_file(claim.log)
        return self._put_away(claim, result)

    def left(self) -> list[Claim]:
        """Claimed jobs that nobody runs: what a crash left of this runner."""
        folder = self.root / "claimed" / self.runner
        claims = []
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") and not os.path.lexists(path / "script"):
                discard(path)
            elif path.is_dir():
                claims.append(self._settle(path) if path.name.startswith(".") else Claim(path.name, path))
        return claims

    def recover(
        self, endings: MutableMapping[str, Ending] | None = None, kept: Container[str] = ()
    ) -> list[dict[str, Any]]:
        """Report every job that a crash or a power cut left, as cut off; their results.

        :param endings: of jobs that have ended, by id, whose results couldn't be written before.
        :param kept: ids of those that are still to be run.
        """
        results = []
        endings = {} if endings is None else endings
        for claim in self.left():
            if claim.id in kept:
                continue
            ready = read_json(claim.folder / "result.json")
            if isinstance(ready, dict) and ready.get("status") in STATUSES:
                results.append(self._put_away(claim, {"reason": "", "exit_code": None, **ready}))
                continue
            ending = endings.get(claim.id) or Ending("cut off", None, self._why_left(claim))
            results.append(self.report(claim, ending))
            endings.pop(claim.id, None)
        return results

    def _known(self, claim: Claim) -> dict[str, Any]:
        known = read_json(claim.folder / "claim.json")
        return known if isinstance(known, dict) else {}

    def _why_left(self, claim: Claim) -> str:
        known = self._known(claim)
        when = "while the job ran" if known.get("started") else "before the job started"
        went_down = known.get("boot") not in (None, boot_id())
        return f"the machine went down {when}" if went_down else f"the runner ended {when}"

    def _candidates(self, new: Path) -> Iterator[os.DirEntry[str]]:
        entries = []
        with os.scandir(new) as found:
            for entry in found:
                if not entry.name.startswith(".") and self._is_ours(entry.name):
                    try:
                        entries.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name, entry))
                    except OSError:
                        continue
        for _when, _name, entry in sorted(entries, key=lambda item: item[:2]):
            yield entry

    def _is_ours(self, name: str) -> bool:
        _id, marked, runner = name.rpartition("@")
        return not marked or runner == self.runner or (self.known is not None and runner not in self.known)

    def _take(self, path: Path) -> Claim | None:
        name, marked, runner = path.name.rpartition("@")
        name = name if marked else path.name
        refusal = ""
        if marked and runner != self.runner:
            refusal = f"there is no runner {runner!r} on this host"
        if not ID.fullmatch(name):
            refusal = f"the name {name!r} is refused; allowed: {ID_ALLOWED}"
            name = re.sub(r"[^A-Za-z0-9._+-]", "_", name).lstrip("._+-")[:100] or "unnamed"
        # The rename decides who gets the job; only then is its id settled.
        holding = self.root / "claimed" / self.runner / f".{secrets.token_hex(4)}.{name}"
        holding.mkdir(mode=0o2750)
        try:
            # Before the rename: where there is no room for a note, the job stays where it is.
            about = {"submitted": stamp(os.lstat(path).st_mtime), "claimed": now(), "boot": boot_id()}
            write_json(holding / "claim.json", about, 0o640, durable=False)
            os.rename(path, holding / "script")
        except OSError as error:
            discard(holding)
            if is_lack(error):
                raise
            return None
        refusal = refusal or unfit(holding / "script", path.parent.stat())
        sync_file(holding / "claim.json")
        sync_folder(holding)
        claim = self._settle(holding, refusal)
        for changed in (path.parent, claim.folder.parent):
            sync_folder(changed)
        return claim

    def _settle(self, holding: Path, refusal: str = "") -> Claim:
        """Give a claimed job its id: its name, with a number behind if another job had that name."""
        claimed, name = self.root / "claimed", holding.name[10:]
        for number in range(1, 100_000):
            identity = name if number == 1 else f"{name}.{number}"
            taken = [self.root / "done" / identity, self.root / "refused" / identity]
            if any(path.exists() for path in taken) or any(claimed.glob(f"*/{identity}")):
                continue
            folder = holding.with_name(identity)
            os.rename(holding, folder)
            return Claim(identity, folder, refusal)
        raise OSError(f"{self.root}: 99999 jobs are called {name} already")

    def _put_away(self, claim: Claim, result: dict[str, Any]) -> dict[str, Any]:
        target = self.root / ("refused" if result["status"] == "refused" else "done")
        identity = claim.id
        while True:
            result = {**result, "job": identity}
            write_json(claim.folder / "result.json", result, 0o640)
            try:
                os.rename(claim.folder, target / identity)
                break
            except OSError:
                if not (target / identity).exists():
                    raise
                identity = f"{claim.id}.{secrets.token_hex(2)}"
        sync_folder(target)
        sync_folder(claim.folder.parent)
        return result


def discard(holding: Path) -> None:
    """Remove a folder that was to hold a job and holds none."""
    with suppress(OSError):
        (holding / "claim.json").unlink(missing_ok=True)
        holding.rmdir()


def elapsed(known: Mapping[str, Any]) -> float | None:
    """Seconds since a job started, by the clock that nobody can set; None if the machine went down since."""
    started, clock = known.get("started"), known.get("clock")
    if not isinstance(started, str):
        return None
    if isinstance(clock, (int, float)):
        return round(time.monotonic() - clock, 3) if known.get("boot") == boot_id() else None
    try:
        return max(0.0, seconds_between(started, now()))
    except ValueError:
        return None


def still_written(path: Path) -> bool:
    """True if anyone has ``path`` open for writing; it isn't judged or claimed then.

    A read lease is granted only on a file that nobody writes to (``fcntl(2)``).
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.fcntl(number, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(number, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return 0 <= time.time() - os.fstat(number).st_mtime < SETTLED
    finally:
        os.close(number)


def unfit(path: Path, queue: os.stat_result) -> str:
    """Why the claimed file ``path`` can't be a job, empty if it can.

    :param queue: the status of ``new/``, whose owner and group may hand in jobs.
    """
    about = os.lstat(path)
    if not stat.S_ISREG(about.st_mode):
        kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a directory", stat.S_IFIFO: "a fifo"}
        kind = kinds.get(stat.S_IFMT(about.st_mode), "a special file")
        return f"the job is {kind}; allowed: a regular file"
    mode = f"{stat.S_IMODE(about.st_mode):04o}"
    if about.st_mode & stat.S_IWOTH:
        return f"the job is world-writable (mode {mode}); allowed: no write permission for others"
    if about.st_uid not in (0, queue.st_uid) and about.st_gid != queue.st_gid:
        return (
            f"the job belongs to uid {about.st_uid}, gid {about.st_gid}; "
            f"allowed: owned by root or of group {_group(queue.st_gid)}"
        )
    if about.st_size == 0:
        return "the job is empty; allowed: a script or a program"
    return ""


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
