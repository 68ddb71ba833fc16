"""Counting rows, without any service."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export import rows
from tests.bigquery.stand_in import WRITERS

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
CELLS = st.one_of(TEXT, st.sampled_from(['"', '""', "\n", "\r\n", ",", '",\n"', ""]))


class Column:
    mode = "NULLABLE"

    def __init__(self, name: str, field_type: str) -> None:
        self.name, self.field_type = name, field_type


SCHEMA = [Column("number", "INTEGER"), Column("text", "STRING")]


class Trickle(io.BytesIO):
    """A file that returns a few bytes per read, as a network may."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(content)
        self._size = size

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self._size)


@given(st.lists(st.lists(CELLS, min_size=1, max_size=3), max_size=8), st.integers(1, 7), st.booleans())
def test_csv_is_counted_whatever_it_quotes(table: list[list[str]], size: int, ends_in_newline: bool) -> None:
    """Quotes, delimiters and line breaks in values do not affect the count, wherever a read ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([["header"], *table])
    content = text.getvalue() if ends_in_newline else text.getvalue().removesuffix("\n")

    assert rows.count(Trickle(content.encode(), size), "csv") == len(table)


def test_empty_lines_of_csv_are_rows() -> None:
    """A table of one column has an empty line for each missing value."""
    assert rows.count(io.BytesIO(b"header\n\n\nx\n"), "csv") == 3


@given(st.lists(TEXT, max_size=8), st.integers(1, 7), st.booleans())
def test_json_is_counted(values: list[str], size: int, ends_in_newline: bool) -> None:
    """Each line is a row, with or without a line break after the last one."""
    content = "\n".join(json.dumps({"text": value}) for value in values) + "\n" * (
        ends_in_newline and bool(values)
    )

    assert rows.count(Trickle(content.encode(), size), "json") == len(values)


@pytest.mark.parametrize("kind", ["PARQUET", "AVRO"])
@pytest.mark.parametrize("count", [0, 1, 500])
def test_metadata_is_added_up(kind: str, count: int) -> None:
    """Parquet and Avro files say how many rows they have."""
    values: list[dict[str, Any]] = [{"number": number, "text": "x" * 20} for number in range(count)]
    content = WRITERS[kind](SCHEMA, values)

    assert rows.count(io.BytesIO(content), kind.lower()) == count


BROKEN = {"csv": b'a,b\n1,"x', "parquet": b"PAR1 and no more", "avro": b"not Avro"}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_file_is_unreadable(kind: str) -> None:
    """A truncated file, or one in another format, is unreadable."""
    with pytest.raises(rows.UnreadableFile):
        rows.count(io.BytesIO(BROKEN[kind]), kind)


@pytest.mark.parametrize("kind", ["PARQUET", "AVRO"])
def test_cut_file_is_unreadable(kind: str) -> None:
    """A file without its end is not counted."""
    values: list[dict[str, Any]] = [{"number": number, "text": "x" * 20} for number in range(500)]
    content = WRITERS[kind](SCHEMA, values)
    with pytest.raises(rows.UnreadableFile):
        rows.count(io.BytesIO(content[: len(content) // 2]), kind.lower())


@pytest.mark.parametrize("kind", ["PARQUET", "AVRO"])
@given(st.data())
def test_damaged_file_is_counted_or_unreadable(kind: str, data: st.DataObject) -> None:
    """Any damaged file is counted or raises `UnreadableFile`."""
    content = bytearray(WRITERS[kind](SCHEMA, [{"number": number, "text": "x"} for number in range(50)]))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(rows.UnreadableFile):
        rows.count(io.BytesIO(content), kind.lower())


class Unplugged(io.BytesIO):
    """A file whose network connection is lost."""

    def read(self, size: int | None = -1) -> bytes:
        raise ConnectionError("unplugged")


@pytest.mark.parametrize("kind", rows.COUNTERS)
def test_network_error_is_not_unreadable_file(kind: str) -> None:
    """A network error propagates unchanged."""
    with pytest.raises(ConnectionError, match="unplugged"):
        rows.count(Unplugged(b"x" * 100), kind)


@pytest.mark.parametrize("kind", ["csv", "parquet", "avro"])
def test_empty_file_is_unreadable(kind: str) -> None:
    """An empty file is unreadable, except as JSON, where it has no rows."""
    with pytest.raises(rows.UnreadableFile):
        rows.count(io.BytesIO(b""), kind)
