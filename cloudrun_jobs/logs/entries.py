"""Encode Cloud Logging entries, each as one line of JSON, whatever a job logs.

https://cloud.google.com/logging/docs/structured-logging#structured_logging_special_fields
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from datetime import date, time
from enum import Enum
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

from cloudrun_jobs.argv import redaction
from cloudrun_jobs.logs import context

MAX_ENTRY_BYTES = 240 * 1024  # Cloud Logging's limit is 256 KiB, and Cloud Run adds labels and its resource.
MAX_EXTRA_VALUES = 10_000  # In the extras of an entry, at any depth.
MAX_EXTRA_FIELDS = 200  # At the top level of an entry.
MAX_KEY_LENGTH = 200  # characters
MAX_NESTING_DEPTH = 20
MAX_EXTRA_LABELS = 50  # Labels that a job adds to an entry.
MAX_LABEL_LENGTH = 1000  # characters
MAX_NUMBER = 2**1023  # Cloud Logging stores numbers as doubles.
CUT_MARK = "… [{} characters are cut] …"
LINE_BREAKS = frozenset("\x85\u2028\u2029")  # Some readers end lines at these too.
UNSAFE_PATTERN = "[\0\x85\u2028\u2029\ud800-\udfff]"
FIELD_PREFIX = "logging.googleapis.com/"
LABELS, TRACE, LOCATION = f"{FIELD_PREFIX}labels", f"{FIELD_PREFIX}trace", f"{FIELD_PREFIX}sourceLocation"
SPAN_ID, SAMPLED = f"{FIELD_PREFIX}spanId", f"{FIELD_PREFIX}trace_sampled"
ERROR_EVENT = "type.googleapis.com/google.devtools.clouderrorreporting.v1beta1.ReportedErrorEvent"

# Fields with a meaning in Cloud Logging or Error Reporting. Extras with these names are renamed.
RESERVED_FIELDS = {
    "severity",
    "message",
    "stack_trace",
    "exception",
    "@type",
    "serviceContext",
    "context",
    "eventTime",
}
RESERVED_FIELDS |= {"time", "timestamp", "timestampSeconds", "timestampNanos"}
PLAIN_RECORD = vars(logging.makeLogRecord({}))
RECORD_ATTRIBUTES = frozenset({*PLAIN_RECORD, "message", "asctime", "taskName"})

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(allow_nan=False).encode


def severity_of(level: int) -> str:
    """Return the severity of a `logging` level. Levels between INFO and WARNING are NOTICE."""
    if level >= logging.ERROR:
        return "CRITICAL" if level >= logging.CRITICAL else "ERROR"
    if level > logging.INFO:
        return "WARNING" if level >= logging.WARNING else "NOTICE"
    return "INFO" if level == logging.INFO else "DEBUG" if level > 0 else "DEFAULT"


def clean_text(text: str) -> str:
    """Mask secrets in the text, and replace characters that JSON or Cloud Logging cannot represent."""
    text = redaction.mask(text)
    if not text.isascii() or "\0" in text:
        text = re.sub(UNSAFE_PATTERN, lambda found: "\n" if found[0] in LINE_BREAKS else "\ufffd", text)
    return text


def text_of(value: object) -> str:
    """Convert any value to a readable text, even if its own conversion raises an exception."""
    try:
        if isinstance(value, bytes | bytearray | memoryview):
            return clean_text(bytes(value).decode(errors="replace"))
        return clean_text(str(value))
    except Exception:  # noqa: BLE001  (raised by the value's own code)
        return f"<unreadable {type(value).__name__}>"


class _Cleaner:
    """Convert values to types that JSON and Cloud Logging can represent."""

    def __init__(self) -> None:
        self.left = MAX_EXTRA_VALUES
        self._outer: set[int] = set()  # The ids of the containers around the value.

    def clean(self, value: Any) -> Any:
        self.left -= 1
        kind = type(value)
        if kind is str:
            return clean_text(value)
        if value is None or kind is bool:
            return value
        try:
            return redaction.masked(self._number(value)) if isinstance(value, int | float) else self._other(value)
        except Exception:  # noqa: BLE001  (raised by the value's own code; RecursionError too)
            return text_of(value)

    def _number(self, value: float) -> Any:
        if isinstance(value, Enum):
            return self.clean(value.value)
        if isinstance(value, int):
            return int(value) if -MAX_NUMBER < value < MAX_NUMBER else _digits(int(value))
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"

    def _other(self, value: Any) -> Any:
        if isinstance(value, Enum):
            return self.clean(value.value)
        if isinstance(value, date | time):
            return value.isoformat()
        if isinstance(value, BaseException):
            return f"{type(value).__name__}: {text_of(value)}"
        if is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in dataclass_fields(value)}
        if not isinstance(value, Mapping | list | tuple | set | frozenset):
            return text_of(value)
        if id(value) in self._outer or len(self._outer) >= MAX_NESTING_DEPTH:
            return "…"
        self._outer.add(id(value))
        try:
            return self.mapping(value) if isinstance(value, Mapping) else self._list(value)
        finally:
            self._outer.discard(id(value))

    def mapping(self, value: Mapping[Any, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, each in value.items():
            if self.left <= 0:
                found["…"] = f"{len(value) - len(found)} more"
                break
            found[text_of(key)[:MAX_KEY_LENGTH]] = self.clean(each)
        return found

    def _list(self, value: Iterable[Any]) -> list[Any]:
        found = []
        for each in value:
            if self.left <= 0:
                found.append("…")
                break
            found.append(self.clean(each))
        return found


def _digits(number: int) -> str:
    try:
        return str(number)
    except ValueError:  # Python refuses to write thousands of digits.
        return hex(number)


def clean(value: Any) -> Any:
    """Convert the value to types that JSON and Cloud Logging can represent."""
    return _Cleaner().clean(value)


def clean_extras(extras: Mapping[Any, Any]) -> dict[str, Any]:
    """Clean a job's own data, and rename what would shadow a field of the entry."""
    cleaner, found = _Cleaner(), dict[str, Any]()
    for number, (key, value) in enumerate(extras.items()):
        if number == MAX_EXTRA_FIELDS or cleaner.left <= 0:
            found["…"] = f"{len(extras) - number} more"
            break
        name = key[:MAX_KEY_LENGTH] if type(key) is str and key.isascii() else text_of(key)[:MAX_KEY_LENGTH]
        if name in RESERVED_FIELDS or name.startswith(FIELD_PREFIX):
            name = f"extra_{name.removeprefix(FIELD_PREFIX)}"
        found[name] = cleaner.clean(value)
    return found


@lru_cache(maxsize=4096)
def location(file: str, line: int, function: str) -> dict[str, str]:
    """Return the field for a source location."""
    return {"file": clean_text(file), "line": str(line), "function": clean_text(function)}


def encode_place(file: str, line: int, function: str) -> str:
    """Return the field for a source location in JSON form."""
    return _encode(location(file, line, function))


def error_fields(place: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields that make an entry without a traceback an event of Error Reporting."""
    reported = {"filePath": place["file"], "lineNumber": int(place["line"]), "functionName": place["function"]}
    fields = {"@type": ERROR_EVENT, "context": {"reportLocation": reported}}
    return fields | ({"serviceContext": service} if (service := service_context()) else {})


def service_context() -> dict[str, str]:
    """Return the name and version of the service or job, for Error Reporting."""
    environ = os.environ
    name = environ.get("K_SERVICE") or environ.get("CLOUD_RUN_JOB") or environ.get("CLOUD_RUN_WORKER_POOL")
    name = name or context.current().labels.get("job", "")
    version = environ.get("K_REVISION") or environ.get("CLOUD_RUN_WORKER_POOL_REVISION")
    return {key: clean_text(value) for key, value in (("service", name), ("version", version)) if value}


def message_of(record: logging.LogRecord) -> str:
    """Return the record's message; if the arguments do not match the format string, return both."""
    try:
        return clean_text(record.getMessage())
    except Exception:  # noqa: BLE001  (raised by `%`, or by an argument's own code)
        arguments = record.args if isinstance(record.args, tuple) else (record.args,)
        return " ".join([text_of(record.msg), *map(_repr, arguments)])


def _repr(value: object) -> str:
    try:
        return clean_text(repr(value))
    except Exception:  # noqa: BLE001  (raised by the value's own code)
        return text_of(value)


def stack_trace_of(error: BaseException) -> str:
    """Format the traceback as Python prints it, because Error Reporting parses that form."""
    try:
        return clean_text("".join(traceback.format_exception(error)))
    except Exception:  # noqa: BLE001  (raised by the exception's own code)
        return f"Traceback (most recent call last):\n{type(error).__name__}: {text_of(error)}\n"


def extra_names(record: logging.LogRecord) -> list[Any]:
    """Return the names of the attributes that `extra` has set on the record."""
    if len(record.__dict__) == len(PLAIN_RECORD):
        return []
    names = record.__dict__.keys() - RECORD_ATTRIBUTES
    # In the order of `extra`.
    return [name for name in record.__dict__ if name in names and str(name)[:1] != "_"] if names else []


def fields_of(record: logging.LogRecord, names: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the standard fields of a record's entry, and its extras with these names, which become fields too."""
    place = location(record.pathname, record.lineno, record.funcName or "")
    fields: dict[str, Any] = {"severity": severity_of(record.levelno), "message": message_of(record)}
    fields.update(context.fields())
    fields[LOCATION] = place
    if trace := _trace_of(record):
        fields["stack_trace"] = trace
    elif record.levelno >= logging.ERROR:
        fields |= error_fields(place)
    if not names and type(record.msg) is str and not record.stack_info:
        return fields, {}
    return fields, clean_extras(_extras_of(record, names, fields))


def _trace_of(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    return stack_trace_of(error) if error is not None else clean_text(record.exc_text or "")


def _extras_of(record: logging.LogRecord, names: list[Any], fields: dict[str, Any]) -> dict[Any, Any]:
    extras = {name: record.__dict__[name] for name in names}
    if isinstance(nested := extras.get("json_fields"), Mapping):  # google-cloud-logging's name for extras.
        del extras["json_fields"]
        extras |= nested
    if isinstance(record.msg, Mapping):
        extras = {**record.msg, **extras}
        if isinstance(text := extras.get("message"), str):
            fields["message"] = clean_text(text)
            del extras["message"]
    if record.stack_info:
        extras["stack_info"] = record.stack_info
    if isinstance(labels := extras.get("labels"), Mapping):
        del extras["labels"]
        given_labels = [
            (text_of(key)[:MAX_KEY_LENGTH], text_of(value)[:MAX_LABEL_LENGTH]) for key, value in labels.items()
        ]
        fields[LABELS] = dict(given_labels[:MAX_EXTRA_LABELS]) | fields.get(LABELS, {})
    return extras


def encode_record(record: logging.LogRecord) -> bytes:
    """Encode the record as the line of an entry."""
    fields, extras = fields_of(record, extra_names(record))
    return encode({**fields, **extras})


def encode(fields: dict[str, Any]) -> bytes:
    """Encode clean fields as the line of an entry. If it is too long, cut the longest fields in the middle."""
    line = _encode(fields).encode()
    if len(line) > MAX_ENTRY_BYTES:
        line = _encode(fit(fields, lambda value: len(_encode(value).encode()))).encode()
    return line + b"\n"


def encode_text(level: int, text: str, place: str) -> bytes:
    """Encode a message as the line of an entry. `place` is the source location in JSON form."""
    message, fields = encode_basestring(clean_text(text)), context.fields_in_json()
    line = f'{{"severity":"{severity_of(level)}","message":{message},{fields}"{LOCATION}":{place}'
    if level >= logging.ERROR:
        line = f"{line},{_encode(error_fields(json.loads(place)))[1:-1]}"
    data = f"{line}}}\n".encode()
    return data if len(data) <= MAX_ENTRY_BYTES else encode(json.loads(data))


def fits_surely(fields: Mapping[str, Any], extras: Mapping[str, Any]) -> bool:
    """Return True if the entry stays below the limit, however JSON escapes it. It is a quick estimate."""
    left = MAX_ENTRY_BYTES // 12  # A character takes at most twelve bytes, as an escaped surrogate pair.
    left -= len(fields["message"]) + len(fields.get("stack_trace", "")) + 4000
    if extras:
        left -= len(_encode(fields.get(LABELS)))  # `extra` may have added some.
        left -= sum(map(len, extras)) + len(_encode(list(extras.values())))
    return left > 0


def size_in_ascii(value: Any) -> int:
    return len(_encode_ascii(value))


def fit(fields: dict[str, Any], size: Any) -> dict[str, Any]:
    """Cut the longest fields so that the `size` of all fields is below the limit."""
    sizes = {name: size(value) for name, value in fields.items()}
    names = sum(size(name) + 6 for name in fields)
    limit = _level(list(sizes.values()), MAX_ENTRY_BYTES - names)
    return {name: value if sizes[name] <= limit else cut(value, limit, size) for name, value in fields.items()}


def _level(sizes: list[int], budget: int) -> int:
    """Return the maximum size of a field with which the sum stays within the budget."""
    for index, size in enumerate(ordered := sorted(sizes)):
        if size * (len(ordered) - index) > budget:
            return max(budget // (len(ordered) - index), 0)
        budget -= size
    return max(sizes, default=0)


def cut(value: Any, limit: int, size: Any) -> str:
    """Convert the value to text, and remove its middle so that its `size` is at most the limit."""
    text = value if isinstance(value, str) else _encode(value)
    half = (limit - 80) // 2  # The mark has at most 80 bytes.
    if half <= 0:
        return CUT_MARK.format(len(text))
    head = _longest(text[:half], half, size, from_end=False)
    tail = _longest(text[-half:], half, size, from_end=True)
    return head + CUT_MARK.format(len(text) - len(head) - len(tail)) + tail


def _longest(text: str, limit: int, size: Any, *, from_end: bool) -> str:
    """Return the longest beginning or end of the text whose `size` is at most the limit."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if size(text[-middle:] if from_end else text[:middle]) <= limit:
            low = middle
        else:
            high = middle - 1
    return (text[-low:] if low else "") if from_end else text[:low]
