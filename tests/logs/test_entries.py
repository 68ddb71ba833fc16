"""The JSON form of entries: one line of valid JSON below the limit, whatever is logged."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import pytest
from google.cloud.logging_v2.handlers import StructuredLogHandler as GoogleHandler
from hypothesis import given
from hypothesis import strategies as st
from pythonjsonlogger.json import JsonFormatter as PlainJsonFormatter

from cloudrun_jobs.logs import JobContextFilter, JsonFormatter, StructuredLogHandler, context, entries

ANY_TEXT = st.text(st.characters(codec=None), max_size=30)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary(max_size=20) | st.datetimes()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT | st.integers(), inner, max_size=4),
    max_leaves=10,
)


def record(message: object = "done", *args: object, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("shop", level, "/app/shop.py", 7, message, args, None, func="run")  # type: ignore[arg-type]
    vars(made).update(extra)
    return made


def strict(line: bytes) -> dict[str, Any]:
    """Return the entry of one line of strict JSON."""
    text = line.decode()
    assert len(line) <= 256 * 1024
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    entry: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return entry


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("broken")

    __repr__ = __str__


class Colour(Enum):
    RED = "red"


class Number(IntEnum):
    ONE = 1


@dataclass
class Point:
    x: float
    y: object


def circle() -> list[Any]:
    found: list[Any] = [1]
    found.append(found)
    return found


def deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


def wide() -> list[Any]:
    found: list[Any] = [0]
    for _ in range(60):
        found = [found, found]
    return found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (10**400, str(10**400)),
        (True, True),
        (Number.ONE, 1),
        (Colour.RED, "red"),
        (b"Z\xfcrich\0", "Z\ufffdrich\ufffd"),
        ("\ud800\0\u2028", "\ufffd\ufffd\n"),
        (Decimal("1.10"), "1.10"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (timedelta(hours=1), "1:00:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (ValueError("bad"), "ValueError: bad"),
        (Point(1.5, {2}), {"x": 1.5, "y": [2]}),
        ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
        (Broken(), "<unreadable Broken>"),
        (circle(), [1, "…"]),
    ],
)
def test_value_that_json_cannot_express_is_readable(value: object, expected: object) -> None:
    """Each value becomes the nearest JSON value."""
    entry = strict(entries.encode_record(record(given=value)))

    assert entry["given"] == expected


def many() -> dict[str, int]:
    return {str(number): number for number in range(100_000)}


def digits() -> int:
    return 10**5000


@pytest.mark.parametrize("make", [deep, wide, many, digits])
def test_value_that_is_too_large_is_cut(make: Callable[[], object]) -> None:
    """A value that is too deep, too wide or too long is cut, and the job continues."""
    strict(entries.encode_record(record(given=make())))


@given(ANY_TEXT, st.dictionaries(ANY_TEXT.filter(lambda name: name not in vars(record())), VALUES, max_size=5))
def test_any_record_is_one_line(message: str, extra: dict[str, Any]) -> None:
    """Whatever the message and the extras hold, the entry is a line of JSON with its own severity."""
    extra.pop("message", None)
    entry = strict(entries.encode_record(record("%s", message, **extra)))

    assert entry["severity"] == "INFO"
    assert entry["logging.googleapis.com/sourceLocation"]["file"] == "/app/shop.py"


@given(st.lists(st.sampled_from('aé\n\0あ😀\ud800\x1f"\\') | ANY_TEXT, max_size=3), st.integers(0, 400_000))
def test_long_texts_lose_their_middle(texts: list[str], length: int) -> None:
    """An entry is below the limit in bytes, keeps the ends of its texts, and says how much is missing."""
    unit = "".join(texts) or "x"
    text = (unit * (length // len(unit) + 1))[:length]
    entry = strict(entries.encode_record(record("start %s end", text, detail=text)))

    assert entry["message"].startswith("start")
    assert entry["message"].endswith("end")
    assert ("characters are cut" in entry["message"]) == (
        entry["message"] != f"start {entries.clean_text(text)} end"
    )


def test_the_longest_text_is_cut() -> None:
    """Shorter texts do not change."""
    entry = strict(entries.encode_record(record("a" * 1000, rows=[1], long="x" * 10**6)))

    assert (entry["message"], entry["rows"]) == ("a" * 1000, [1])
    assert entry["long"].startswith("xxx")
    kept = entry["long"].count("x")
    assert f"[{10**6 - kept} characters are cut]" in entry["long"]
    assert kept > 200_000


@pytest.mark.parametrize(
    ("message", "args", "expected"),
    [
        ("%d rows", ("many",), "%d rows 'many'"),
        ("rows", (1, 2), "rows 1 2"),
        ("%s %s", (1,), "%s %s 1"),
        ("%(a)s", ({"b": 1},), "%(a)s {'b': 1}"),
        ("%s", (Broken(),), "%s <unreadable Broken>"),
        (Broken(), (), "<unreadable Broken>"),
        (7, (), "7"),
    ],
)
def test_arguments_that_do_not_fit_are_readable(message: object, args: tuple[object, ...], expected: str) -> None:
    """The message is the format and the arguments."""
    assert strict(entries.encode_record(record(message, *args)))["message"] == expected


RESERVED = [
    "severity",
    "stack_trace",
    "@type",
    "serviceContext",
    "context",
    "time",
    "logging.googleapis.com/trace",
]


@pytest.mark.parametrize("name", RESERVED)
def test_extra_shadows_no_field(name: str) -> None:
    """An extra with the name of a field is renamed."""
    entry = strict(entries.encode_record(record(level=logging.ERROR, **{name: "mine"})))
    without = strict(entries.encode_record(record(level=logging.ERROR)))

    assert {key: entry.get(key) for key in without} == without
    assert entry[f"extra_{name.removeprefix('logging.googleapis.com/')}"] == "mine"


def test_error_without_a_traceback_is_reported() -> None:
    """Error Reporting gets the source location, and no stack_trace."""
    entry = strict(entries.encode_record(record(level=logging.CRITICAL)))

    assert entry["severity"] == "CRITICAL"
    assert entry["@type"].endswith("ReportedErrorEvent")
    assert entry["context"]["reportLocation"] == {
        "filePath": "/app/shop.py",
        "lineNumber": 7,
        "functionName": "run",
    }


def with_error(error: BaseException) -> logging.LogRecord:
    made = record("failed", level=logging.ERROR)
    try:
        raise error
    except BaseException:  # noqa: BLE001
        made.exc_info = sys.exc_info()
    return made


def endless() -> BaseException:
    error: BaseException = ValueError("first")
    for number in range(3000):
        following = ValueError(f"number {number}")
        following.__cause__ = error
        error = following
    return error


def group() -> BaseException:
    return ExceptionGroup("all", [ValueError("x\ny")])


def long() -> BaseException:
    return ValueError("\ud800" * 10**6)


@pytest.mark.parametrize("make", [group, endless, long])
def test_traceback_is_one_field(make: Callable[[], BaseException]) -> None:
    """Every exception is one entry."""
    entry = strict(entries.encode_record(with_error(make())))

    assert "Traceback (most recent call last):\n" in entry["stack_trace"]
    assert "@type" not in entry


FORMATTERS = {
    "own": JsonFormatter(),
    "configured": JsonFormatter("%(message)s", rename_fields={"exc_info": "stack_trace"}),
    "plain": PlainJsonFormatter(rename_fields={"exc_info": "stack_trace"}),
}


@pytest.mark.parametrize("formatter", FORMATTERS.values(), ids=FORMATTERS.keys())
@pytest.mark.parametrize(
    "made",
    [
        lambda: record("%s", "あ", rows=3, ratio=float("nan"), severity="ALERT", who=Broken()),
        lambda: record("x" * 10**6, "y", detail="あ" * 10**6),
        lambda: record({"rows": 3, "message": "mapped"}),
        lambda: with_error(group()),
    ],
    ids=["extras", "long", "mapping", "error"],
)
def test_filter_prepares_records_for_any_formatter(formatter: logging.Formatter, made: Any) -> None:
    """A JSON formatter writes the same entry as the package itself."""
    original = made()
    filtered = JobContextFilter().filter(original)
    prepared = filtered if isinstance(filtered, logging.LogRecord) else original  # Python 3.11 has no other.

    found = strict(formatter.format(prepared).encode() + b"\n")
    expected = strict(entries.encode_record(made()))
    assert found.keys() == expected.keys()
    assert found["severity"] == expected["severity"]
    assert found.get("rows") == expected.get("rows")


@pytest.mark.parametrize("formatter", FORMATTERS.values(), ids=FORMATTERS.keys())
def test_data_with_names_of_record_attributes_is_written(formatter: logging.Formatter) -> None:
    """A mapping may have any keys; keys that would break the record are renamed."""
    made = record({"args": 1, "name": "x", "exc_info": 7, "stack_info": 3, "created": "now"}, level=logging.ERROR)
    filtered = JobContextFilter().filter(made)
    prepared = filtered if isinstance(filtered, logging.LogRecord) else made

    entry = strict(formatter.format(prepared).encode() + b"\n")
    found = [entry.get(name, entry.get(f"extra_{name}")) for name in ("args", "name", "stack_info", "created")]
    assert found == [1, "x", 3, "now"]


def test_filter_leaves_the_record_to_other_handlers() -> None:
    """Other handlers get the record with its exception, its arguments and its extras."""
    made = with_error(ValueError("x"))
    made.msg, made.args = "%s", (float("nan"),)
    before = {**vars(made)}
    JobContextFilter().filter(made)

    assert {name: vars(made)[name] for name in ("exc_info",)} == {"exc_info": before["exc_info"]}
    assert made.getMessage() == "nan"


@pytest.mark.parametrize(
    ("parent", "trace", "span"),
    [
        (
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "0af7651916cd43dd8448eb211c80319c",
            "b7ad6b7169203331",
        ),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", None, None),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None, None),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", None, None),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", None, None),
        (
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "0af7651916cd43dd8448eb211c80319c",
            "b7ad6b7169203331",
        ),
        ("rubbish\n", None, None),
        ("", None, None),
    ],
)
def test_trace_is_that_of_traceparent(monkeypatch: pytest.MonkeyPatch, parent: str, trace: Any, span: Any) -> None:
    """A valid TRACEPARENT sets the trace; an invalid one is ignored."""
    monkeypatch.setenv("TRACEPARENT", parent)
    fields = context.fields()

    assert fields.get("logging.googleapis.com/trace") == trace
    assert fields.get("logging.googleapis.com/spanId") == span


def test_span_of_opentelemetry_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The current span sets the trace, even with a TRACEPARENT."""
    from opentelemetry import trace

    monkeypatch.setenv("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    span = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(1)))
    with trace.use_span(span):
        fields = context.fields()

    assert fields["logging.googleapis.com/trace"] == f"{1:032x}"
    assert fields["logging.googleapis.com/spanId"] == f"{2:016x}"
    assert fields["logging.googleapis.com/trace_sampled"] is True


STRANGE: list[dict[Any, Any]] = [
    {"trace": 'x"y', "span_id": Broken(), "trace_sampled": "x", "source_location": Broken(), "resource": Broken()},
    {"labels": {"a": Broken(), 1: 2}, "json_fields": {"severity": "x", "message": "m"}},
    {"labels": "none", "json_fields": 5, "http_request": Broken()},
    {"http_request": {"status": float("nan")}, "severity": Broken(), "\0\ud800": "\ud800", "": None},
]


def google_handler(*, is_own: bool) -> tuple[logging.Handler, io.StringIO]:
    written = io.StringIO()
    handler: logging.Handler = StructuredLogHandler(stream=written) if is_own else GoogleHandler(stream=written)
    handler.addFilter(JobContextFilter())
    return handler, written


@pytest.fixture(autouse=True)
def _no_diagnostics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's handler writes a record about its version after the first record; disable it."""
    monkeypatch.setattr("google.cloud.logging_v2._instrumentation_emitted", True)


@pytest.mark.parametrize("extra", STRANGE, ids=["names", "mappings", "others", "values"])
def test_handler_of_google_writes_any_extra(extra: dict[Any, Any]) -> None:
    """Google's own filter would raise an exception for some of these values."""
    handler, written = google_handler(is_own=True)
    made = record("done", 1)
    vars(made).update(extra)
    handler.handle(made)

    entry = strict(written.getvalue().encode())
    assert (entry["severity"], entry["message"]) == ("INFO", "done 1")


@pytest.mark.parametrize("is_own", [True, False], ids=["own", "google's"])
def test_handlers_of_google_write_the_same(is_own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the filter, Google's own handler writes the labels, the trace and the source location too."""
    monkeypatch.setenv("CLOUD_RUN_EXECUTION", "shop-x7k2p")
    monkeypatch.setenv("TRACEPARENT", f"00-{'0a' * 16}-{'b7' * 8}-01")
    handler, written = google_handler(is_own=is_own)
    made = with_error(group())
    made.rows = 3
    handler.handle(made)

    entry = strict(written.getvalue().encode())
    labels = entry["logging.googleapis.com/labels"]
    assert labels == {"python_logger": "shop", "execution": "shop-x7k2p", "task": "0", "attempt": "0"}
    assert entry["logging.googleapis.com/trace"] == "0a" * 16
    assert entry["logging.googleapis.com/sourceLocation"]["line"] == "7"
    assert (entry["message"], entry["rows"], entry["severity"]) == ("failed", 3, "ERROR")
    assert entry["stack_trace"].startswith("  + Exception Group Traceback")
