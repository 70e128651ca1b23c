# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file of one line says."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "word", "integer"),
    [
        ("4096\n", "4096", 4096),
        (" 0 \n", "0", 0),
        ("write back\n", "write back", None),
        ("-1\n", "-1", None),
        ("0x10\n", "0x10", None),
        ("1 2\n", "1 2", None),
        ("\u0661\n", "\u0661", None),
        ("\u00b2\n", "\u00b2", None),
        ("\n", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_a_line(tmp_path: Path, text: str | None, word: str | None, integer: int | None) -> None:
    if text is not None:
        (tmp_path / "file").write_text(text, encoding="utf-8")
    view = View(str(tmp_path))
    assert (view.word("/file"), view.integer("/file")) == (word, integer)


@given(st.text())
def test_only_digits_are_a_number(text: str) -> None:
    class Said(View):
        def text(self, path: str) -> str | None:
            return text

    found = Said().integer("/file")
    assert (found is None) == (not text.strip() or bool(set(text.strip()) - set("0123456789")))
