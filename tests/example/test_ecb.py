"""The reader of the bank's zip: it accepts the published format and rejects everything else."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, ZipFile

import pytest
from currency_converter import CURRENCY_FILE
from hypothesis import given
from hypothesis import strategies as st

from rates import ecb
from tests.example.conftest import THREE_DAYS, Pack


def real_lines(count: int) -> str:
    """Return the header and the first lines of the real file."""
    with ZipFile(CURRENCY_FILE) as archive:
        lines = archive.read("eurofxref-hist.csv").decode().splitlines(keepends=True)
    return "".join(lines[: count + 1])


REAL = real_lines(4)


def naive(text: str) -> dict[date, dict[str, Decimal]]:
    """Parse by splitting lines: correct for every text that the strict reader accepts."""
    header, *lines = [line.rstrip("\r").split(",") for line in re.split("\r\n|\n|\r", text) if line]
    return {
        date.fromisoformat(line[0]): {
            currency: Decimal(value)
            for currency, value in zip(header[1:-1], line[1:-1], strict=True)
            if value != "N/A"
        }
        for line in lines
    }


def test_reads_exact_rates(source: Path) -> None:
    """Each day has its currencies with a rate, as exact decimals."""
    history = ecb.read(source)

    assert history.currencies == ("USD", "JPY", "BGN")
    assert history.days == {
        date(2026, 10, 30): {"USD": Decimal("1.1172"), "JPY": Decimal("175.68")},
        date(2026, 10, 29): {"USD": Decimal("1.113"), "JPY": Decimal("175.92")},
        date(1999, 1, 5): {"USD": Decimal("1.179"), "JPY": Decimal("130.96"), "BGN": Decimal("1.9558")},
    }


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_accepts_either_line_ending(end: str) -> None:
    """Lines may end with LF or CRLF."""
    assert ecb.parse(THREE_DAYS.replace("\n", end), "a.csv") == ecb.parse(THREE_DAYS, "a.csv")


@pytest.mark.parametrize(
    ("before", "after", "line", "expected"),
    [
        (THREE_DAYS, "", 1, "expected the header 'Date,USD,…,', got ''"),
        ("Date", "Day", 1, "expected the header"),
        ("BGN,", "BGN", 1, "expected the header"),
        ("USD", "usd", 1, "expected the header"),
        ("Date,USD,JPY,BGN,", "Date,", 1, "expected the header"),
        ("Date", "\ufeffDate", 1, "expected the header"),
        ("JPY", "USD", 1, "expected each currency once, got USD 2 times"),
        (THREE_DAYS[18:], "", 1, "expected lines of rates after the header, got none"),
        (",175.92", "", 3, "expected 5 columns, the last one empty, got 4 columns"),
        ("175.92,", "175.92,1,", 3, "expected 5 columns, the last one empty, got 6 columns"),
        ("\n2026-10-29", "\n\n2026-10-29", 3, "expected 5 columns, the last one empty, got 0 columns"),
        (",N/A,\n1999", ",N/A,x\n1999", 3, "expected 5 columns, the last one empty, got 'x' in the last"),
        ("1.9558,\n", "1.9558,1", 4, "expected 5 columns, the last one empty, got '1' in the last"),
        ("1.9558,\n", "1.95", 4, "expected 5 columns, the last one empty, got 4 columns"),
        ("2026-10-29", "2026-02-30", 3, "expected a date such as 2026-01-31, got '2026-02-30'"),
        ("2026-10-29", "20261029", 3, "expected a date such as 2026-01-31, got '20261029'"),
        ("2026-10-29", "2026-W44-4", 3, "expected a date"),
        ("2026-10-29", "٢٠٢٦-١٠-٢٩", 3, "expected a date"),
        ("2026-10-29", "2026-10-30", 3, "expected each date once, got 2026-10-30 again"),
        ("175.92", "many", 3, "JPY: expected N/A or a number above 0"),
        ("175.92", "", 3, "JPY: expected N/A or a number above 0"),
        ("175.92", "-175.92", 3, "got '-175.92'"),
        ("175.92", "0.000", 3, "got '0.000'"),
        ("175.92", "NaN", 3, "got 'NaN'"),
        ("175.92", "Infinity", 3, "got 'Infinity'"),
        ("175.92", "1e3", 3, "got '1e3'"),
        ("175.92", "1_000", 3, "got '1_000'"),
        ("175.92", " 175.92", 3, "got ' 175.92'"),
        ("175.92", '"175.92"', 3, "got '\"175.92\"'"),
        ("175.92", "١٧٥", 3, "got '١٧٥'"),
        ("175.92", "1234567890", 3, "at most 9 digits before and 6 after the point"),
        ("175.92", "0.1234567", 3, "at most 9 digits before and 6 after the point"),
        ("175.92", "1" * 200_000, 3, "field larger than field limit"),
    ],
)
def test_invalid_line_is_rejected(pack: Pack, before: str, after: str, line: int, expected: str) -> None:
    """The error names the file, the line, what was expected and what was found."""
    path = pack(THREE_DAYS.replace(before, after, 1))

    with pytest.raises(ecb.BadSource) as raised:
        ecb.read(path)

    assert str(raised.value).startswith(f"{path}: eurofxref-hist.csv, line {line}: ")
    assert expected in str(raised.value)


def test_invalid_utf8_is_rejected(pack: Pack) -> None:
    """The error names the line of the invalid byte."""
    path = pack(THREE_DAYS.encode().replace(b"175.92", b"\xff"))

    with pytest.raises(ecb.BadSource, match=r"eurofxref-hist.csv, line 3: expected UTF-8, got b'\\xff'"):
        ecb.read(path)


def test_missing_file_is_rejected(tmp_path: Path) -> None:
    """A path without a file is an error."""
    with pytest.raises(ecb.BadSource, match=r"none.zip: expected a readable zip file, got: No such file"):
        ecb.read(tmp_path / "none.zip")


def test_directory_is_rejected(tmp_path: Path) -> None:
    """The path of a directory is an error."""
    with pytest.raises(ecb.BadSource, match="expected a readable zip file, got: Is a directory"):
        ecb.read(tmp_path)


def test_unpacked_csv_is_rejected(tmp_path: Path) -> None:
    """A CSV file outside a zip is an error."""
    (tmp_path / "rates.csv").write_text(THREE_DAYS)

    with pytest.raises(ecb.BadSource, match=r"rates.csv: expected a whole zip file, got: File is not a zip file"):
        ecb.read(tmp_path / "rates.csv")


def test_zip_without_csv_is_rejected(pack: Pack) -> None:
    """The error names the files in the zip."""
    with pytest.raises(ecb.BadSource, match=r"rates.zip: expected one .csv in the zip, got \['readme.txt'\]"):
        ecb.read(pack("hello", name="readme.txt"))


def test_zip_with_two_csvs_is_rejected(source: Path) -> None:
    """A zip with two CSV files is ambiguous."""
    with ZipFile(source, "a") as archive:
        archive.writestr("more.csv", THREE_DAYS)

    with pytest.raises(ecb.BadSource, match=r"expected one .csv in the zip"):
        ecb.read(source)


@given(data=st.data())
def test_truncated_zip_is_rejected(data: st.DataObject) -> None:
    """The real zip, truncated anywhere, is an error that names the file."""
    whole = Path(CURRENCY_FILE).read_bytes()
    length = data.draw(st.integers(0, len(whole) - 1))

    with TemporaryDirectory() as directory:
        cut = Path(directory, "cut.zip")
        cut.write_bytes(whole[:length])
        with pytest.raises(ecb.BadSource, match=r"cut.zip: expected a whole zip file"):
            ecb.read(cut)


def outcome(read: Callable[[], ecb.History]) -> ecb.History | str:
    """Return the history, or the message of the error."""
    try:
        return read()
    except ecb.BadSource as error:
        return str(error)


@pytest.mark.parametrize("packing", [ZIP_STORED, ZIP_DEFLATED, ZIP_BZIP2, ZIP_LZMA])
@given(places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_zip_is_rejected_or_harmless(packing: int, places: list[tuple[int, int]]) -> None:
    """A changed byte in the archive is an error, unless it does not affect the rates."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "damaged.zip")
        with ZipFile(path, "w", packing) as archive:
            archive.writestr("a.csv", REAL)
        content = bytearray(path.read_bytes())
        for position, byte in places:
            content[position % len(content)] = byte
        path.write_bytes(content)
        read = outcome(partial(ecb.read, path))

    assert read.startswith(f"{path}: ") if isinstance(read, str) else read.days == naive(REAL)


@st.composite
def corrupted(draw: st.DrawFn) -> str:
    """Generate the real lines with a few places overwritten, removed or extended."""
    text = REAL
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 12))
        text = text[:start] + draw(st.text("0123456789.,-+eNA/\r\n\"'\0 é٣", max_size=6)) + text[end:]
    return text


@given(text=corrupted())
def test_corrupted_csv_is_rejected_or_read_correctly(text: str) -> None:
    """A corrupted text is an error with file and line, or is parsed like the simple parser does."""
    read = outcome(partial(ecb.parse, text, "a.csv"))
    error = re.compile(r"a\.csv, line \d+: (\w{3}: )?expected ")

    assert error.match(read) if isinstance(read, str) else read.days == naive(text)
