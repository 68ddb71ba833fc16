"""Count the rows in a file: from the metadata of Parquet and Avro, and by reading CSV and JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

READ_BYTES = 1 << 20


class UnreadableFile(Exception):
    """A file is truncated, damaged or in another format."""


def count(file: BinaryIO, format: str) -> int:  # noqa: A002  (the option's name)
    """Return the number of rows. Raises `UnreadableFile`."""
    return COUNTERS[format](file)


def _count_csv(file: BinaryIO) -> int:
    """Count the lines outside of quotes, without the header. A quote in a value is written twice."""
    newlines, is_quoted, last = 0, False, b"\n"
    for read in _blocks(file):
        parts = read.split(b'"')
        newlines += sum(part.count(b"\n") for part in parts[is_quoted::2])
        is_quoted ^= len(parts) % 2 == 0
        last = read[-1:]
    if is_quoted:
        raise UnreadableFile("it ends inside of a quoted value")
    lines = newlines + (last != b"\n")
    if not lines:
        raise UnreadableFile("it has no header")
    return lines - 1


def _count_json(file: BinaryIO) -> int:
    newlines, last = 0, b"\n"
    for read in _blocks(file):
        newlines += read.count(b"\n")
        last = read[-1:]
    return newlines + (last != b"\n")


def _count_parquet(file: BinaryIO) -> int:
    from pyarrow import ArrowException
    from pyarrow.parquet import read_metadata

    try:
        return int(read_metadata(file).num_rows)
    except (ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and type(error) is not OSError:
            raise  # A network error, such as one of requests.
        raise UnreadableFile(str(error).strip()) from error


def _count_avro(file: BinaryIO) -> int:
    """Add up the sizes that the blocks declare; no record is decoded."""
    from fastavro import block_reader
    from fastavro.schema import SchemaParseException

    try:
        return sum(block.num_records for block in block_reader(file))
    except (ValueError, EOFError, LookupError, SchemaParseException) as error:
        raise UnreadableFile(f"{type(error).__name__}: {error}") from error


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while read := file.read(READ_BYTES):
        yield read


COUNTERS: Mapping[str, Callable[[BinaryIO], int]] = {
    "csv": _count_csv,
    "json": _count_json,
    "parquet": _count_parquet,
    "avro": _count_avro,
}
