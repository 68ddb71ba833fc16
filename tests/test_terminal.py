"""Text for a terminal or a log."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any
from unittest import mock

import pytest
from django.core.management.base import BaseCommand
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.execution.progress import ProgressReporter
from cloudrun_jobs.management.output import write_json, write_rows
from cloudrun_jobs.models import Progress
from cloudrun_jobs.terminal import Shrink, columns_of, escape, is_unsafe, table
from tests.jobs.management.commands import walk

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


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_output_of_a_job_is_above_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line on stdout replaces the bar, which is drawn again below it; at the end stdout is as before."""
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    job = walk.Command(stdout=terminal, stderr=terminal)
    reporter = ProgressReporter(job, mock.Mock(), verbosity=1)
    for step in (1, 2):
        reporter.report(Progress(step, 4, f"step {step}"))
        job.stdout.write(f"line {step}")
    reporter.stop()
    job.stdout.write("end")

    assert [part for part in terminal.getvalue().split("\r\x1b[2K") if part] == [
        "[######------------------]  25%  1 of 4: step 1",
        "line 1\n",
        "[############------------]  50%  2 of 4: step 2",
        "line 2\nend\n",
    ]


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


def test_japanese_and_korean_cells_are_aligned() -> None:
    """They take two columns for a character; a decomposed syllable takes the two of its first letter."""
    decomposed = "\u1112\u1161\u11ab"  # 한
    rows = table(("JOB", "BY"), ("日次集計", "a"), ("한국", "b"), (decomposed, "c"), ("e\u0301cho", "d")).split(
        "\n"
    )

    assert [columns_of(row[:-1]) for row in rows[1:]] == [10, 10, 10, 10]


SHRINK = (Shrink("RUN", 4, ""), Shrink("BY", 4))


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=4), st.integers(20, 60))
def test_cut_tables_are_no_wider_than_their_minimum(rows: list[tuple[str, str, str]], columns: int) -> None:
    """Only the columns in `shrink` are cut, in their order, and never below their minimum."""
    headings = ("RUN", "JOB", "BY")
    whole, cut = table(headings, *rows), table(headings, *rows, columns=columns, shrink=SHRINK)
    fixed = max(columns_of(escape(row[1])) for row in (headings, *rows))

    assert max(map(columns_of, cut.split("\n"))) <= max(columns, 4 + 2 + fixed + 2 + 4)
    assert cut == whole or max(map(columns_of, whole.split("\n"))) > columns - 1


def test_first_columns_are_cut_first() -> None:
    """An id loses its end without a mark; a text ends with one."""
    rows = (("RUN", "JOB", "BY"), ("0123456789", "echo", "日本語日本語"))

    assert table(*rows, columns=28, shrink=SHRINK).split("\n")[1] == "01234567  echo  日本語日本語"
    assert table(*rows, columns=18, shrink=SHRINK).split("\n")[1] == "0123  echo  日本…"
