# SPDX-License-Identifier: GPL-3.0-or-later
"""What of an engine may be removed: age, labels, use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matryoshka_runner.errors import ProgramError
from matryoshka_runner.process import Result
from matryoshka_runner.unused import Thing, human, moment, remove, size, unused

OLD, NEW = "2026-01-01T00:00:00.123456789Z", "2026-06-01T00:00:00Z"
LIMIT = moment("2026-03-01T00:00:00Z")


def row(
    name: str, created: str = OLD, labels: Mapping[str, str] | None = None, tags: Sequence[str] = ()
) -> str:
    return json.dumps([name, created, labels, list(tags)])


class Table:
    """Answers the words of a ``docker`` command, by the first that fits."""

    def __init__(self, answers: Mapping[str, Result | str]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def __call__(self, words: Sequence[str]) -> Result:
        line = " ".join(words)
        self.asked.append(line)
        for start, answer in self._answers.items():
            if line.startswith(start):
                return answer if isinstance(answer, Result) else Result(0, answer)
        return Result(1, "", f"not expected: {line}")


@pytest.mark.parametrize(
    ("labels", "keep", "goes"),
    [
        ({}, ["a", "b"], True),
        (None, ["a"], True),
        ({"a": "1"}, ["a", "b"], False),
        ({"b": "1"}, ["a", "b"], False),
        ({"a": "1", "b": "1"}, ["a", "b"], False),
        ({"team": "infra"}, ["team=infra"], False),
        ({"team": "web"}, ["team=infra"], True),
        ({"keep": ""}, ["keep"], False),
        ({"keeper": "1"}, ["keep"], True),
    ],
)
def test_one_label_is_enough_to_stay(labels: Mapping[str, str] | None, keep: list[str], goes: bool) -> None:
    docker = Table({"network ls": "n\n", "network inspect": row("n", labels=labels) + "\n"})
    assert [thing.id for thing in unused(docker, "networks", LIMIT, keep)] == (["n"] if goes else [])


def test_what_is_young_stays() -> None:
    docker = Table({"ps": "a\nb\n", "container inspect": f"{row('a', OLD)}\n{row('b', NEW)}\n"})
    assert [thing.id for thing in unused(docker, "containers", LIMIT, [])] == ["a"]


def test_images_that_a_container_was_made_from_stay_and_others_go_by_their_tags() -> None:
    docker = Table({
        "image ls": "used\nfree\nfree\nbare\n",
        "image inspect": "\n".join([row("used", tags=["u:1"]), row("free", tags=["f:1", "f:2"]), row("bare")]),
        "ps": "c\n",
        "container inspect --format {{.Image}}": "used\n",
    })  # fmt: skip
    found = unused(docker, "images", LIMIT, [])
    assert [thing.names for thing in found] == [("f:1", "f:2"), ("bare",)]
    assert docker.asked[1].endswith(" used free bare")


def test_one_that_is_gone_meanwhile_hides_none_of_the_others() -> None:
    gone = Result(1, row("a") + "\n", "Error: No such container: b")
    docker = Table({"ps": "a\nb\n", "container inspect": gone})
    assert [thing.id for thing in unused(docker, "containers", LIMIT, [])] == ["a"]


def test_an_engine_that_doesnt_answer_is_an_error() -> None:
    with pytest.raises(ProgramError, match="docker ps --all: no answer"):
        unused(Table({"ps": Result(1, "", "no answer")}), "containers", LIMIT, [])


def test_what_stays_is_said() -> None:
    things = [Thing("i", ("a:1", "b:1"), 0.0, {})]
    docker = Table({"image rm a:1 b:1": Result(1, "", "conflict: image has dependent child images")})
    assert remove(docker, "images", things) == ["conflict: image has dependent child images"]
    assert remove(docker, "images", []) == []


@pytest.mark.parametrize(
    ("line", "amount"),
    [("Images\t526.4MB", 526.4e6), ("Images\t0B", 0), ("Images\t1.234GB", 1.234e9), ("x\t1B", 0)],
)
def test_size_is_read(line: str, amount: float) -> None:
    assert size(Table({"system df": f"Containers\t5kB\n{line}\n"}), "images") == pytest.approx(amount)


@given(st.floats(min_value=0, max_value=1e15))
def test_a_written_amount_reads_as_the_same(amount: float) -> None:
    read = size(Table({"system df": f"Images\t{human(amount)}\n"}), "images")
    assert read == pytest.approx(amount, rel=1e-3, abs=1e-3) or "e" in human(amount)


def test_times_are_read() -> None:
    assert moment("2026-01-01T00:00:00.5Z") == moment("2026-01-01T01:00:00.500000000+01:00")
    assert moment("nonsense") == 0.0
