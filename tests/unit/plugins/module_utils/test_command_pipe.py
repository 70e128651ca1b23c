# SPDX-License-Identifier: GPL-3.0-or-later
"""Two processes in a pipe: both ends are seen, and none is left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result, pipe


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


@pytest.mark.parametrize(
    ("source", "sink", "left", "right"),
    [
        ("echo a; echo b >&2", "cat; echo c >&2", Result(0, "", "b\n"), Result(0, "a\n", "c\n")),
        ("echo a; exit 3", "cat", Result(3), Result(0, "a\n")),
        ("echo a", "cat; exit 4", Result(0), Result(4, "a\n")),
        ("printf '\\377' >&2", "cat", Result(0, "", "\ufffd"), Result(0)),
        ("cat", "cat", Result(0), Result(0)),
    ],
)
def test_both_ends_are_seen(source: str, sink: str, left: Result, right: Result) -> None:
    assert pipe(sh(source), sh(sink), timeout=20) == (left, right)


def test_a_source_ends_with_its_sink() -> None:
    left, right = pipe(sh("exec yes"), sh("exit 5"), timeout=20)
    assert left.code == -signal.SIGPIPE
    assert right.code == 5


def test_more_than_a_pipe_holds() -> None:
    left, right = pipe(sh("head -c 3000000 /dev/zero; head -c 300000 /dev/zero >&2"), sh("wc -c"), timeout=20)
    assert (left.code, len(left.err), right.out.strip()) == (0, 300000, "3000000")


@pytest.mark.parametrize("missing", ["source", "sink"])
def test_a_program_that_is_not_there(missing: str) -> None:
    nothing = ["matryoshka-no-such-program"]
    left, right = pipe(
        *((nothing, sh("cat")) if missing == "source" else (sh("echo a"), nothing)), timeout=20
    )
    result = left if missing == "source" else right
    assert result.code == 127
    assert "matryoshka-no-such-program" in result.err


def test_after_the_timeout_no_process_is_left(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    started = time.monotonic()
    left, right = pipe(sh(f"echo $$ >> {pids}; sleep 60"), sh(f"echo $$ >> {pids}; sleep 60"), timeout=0.5)
    assert (left.code, right.code) == (124, 124)
    assert "0.5 s" in left.err
    assert time.monotonic() - started < 9
    for pid in pids.read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_the_log_gets_the_sources_errors_and_keeps_what_it_had(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    left, _ = pipe(sh("echo now >&2"), sh("cat"), timeout=20, log=str(log))
    assert left.err == "now\n"
    assert log.read_text() == "before\nnow\n"
