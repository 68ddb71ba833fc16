"""Text for a terminal or a log."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

from django.core.management.base import BaseCommand
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.management.output import write_json, write_rows
from cloudrun_jobs.terminal import escape, is_unsafe, table

# Any character, the unsafe ones often.
TEXT = st.text(
    st.characters(categories=["Cc", "Cf", "Zl", "Zp"]) | st.characters(categories=["Cs"]) | st.characters()
)


@given(TEXT)
def test_escaped_text_has_no_unsafe_character(text: str) -> None:
    """Other characters stay as they are."""
    escaped = escape(text)

    assert not any(map(is_unsafe, escaped))
    assert len(escaped.splitlines()) <= 1
    assert [char for char in text if not is_unsafe(char)] == list(
        escape("".join(c for c in text if not is_unsafe(c)))
    )


def test_printed_characters_stay() -> None:
    """Letters of any language, spaces and emoji are not escaped."""
    text = "Zürich \u3000日本語\u00a0한국어 ✓ 🎉 a\\b"

    assert escape(text) == text


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1))
def test_table_has_one_line_for_each_row(rows: list[tuple[str, str]]) -> None:
    """A value cannot add a row."""
    lines = table(*rows).split("\n")

    assert len(lines) == len(rows)
    assert not any(is_unsafe(character) for line in lines for character in line)


@given(st.recursive(TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)))
def test_json_is_escaped_and_unchanged(data: Any) -> None:
    """JSON has no raw control character but its own line breaks, and is read as the same data."""
    command = BaseCommand(stdout=StringIO(), stderr=StringIO())
    write_rows(command, {"json": True}, data=data, headings=(), rows=(), empty="")
    write_json(command, data, indent=2)
    text = command.stdout.getvalue()  # type: ignore[attr-defined]
    compact, _, indented = text.partition("\n")

    assert not any(is_unsafe(character) for character in text.replace("\n", ""))
    assert json.loads(compact) == json.loads(indented) == data
