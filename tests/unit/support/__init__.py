# SPDX-License-Identifier: GPL-3.0-or-later
"""What several unit tests need: a dummy runner that answers from a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ansible_collections.matryoshka.host.plugins.module_utils._command import CommandError, Result


def table(answers: Mapping[tuple[str, ...], Result | str]) -> Callable[..., Result]:
    """A runner that answers from ``answers``; every other program "isn't there" (127)."""

    def answer(
        argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        found = answers.get(tuple(argv), Result(127, "", f"{argv[0]}: not found"))
        result = Result(0, found) if isinstance(found, str) else found
        if check and not result.ok:
            raise CommandError(argv, result)
        return result

    return answer
