"""Bodies of any content: a JSON object as it was sent, or an error."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from django.test import RequestFactory
from hypothesis import example, given
from hypothesis import strategies as st

from cloudrun_jobs.http.body import MAX_BYTES, MAX_DEPTH, read_object
from cloudrun_jobs.http.errors import HttpError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=3)
SMALL_OBJECTS = st.dictionaries(TEXTS, SCALARS, min_size=1, max_size=2)
PLACES = st.sampled_from(['{"a": %s}', '{"a": [1, {"b": %s}]}', '{"a": {"b": "c", "d": %s}}'])


def read(body: bytes | str, content_type: str = "application/json", **options: Any) -> dict[str, Any]:
    data = body.encode() if isinstance(body, str) else body
    return read_object(RequestFactory().generic("POST", "/", data, content_type), **options)


def refusal(body: bytes | str, content_type: str = "application/json", **options: Any) -> tuple[int, str]:
    """Return the status and the code of the error."""
    with pytest.raises(HttpError) as caught:
        read(body, content_type, **options)
    return caught.value.status, caught.value.code


@given(OBJECTS, st.booleans(), st.sampled_from([None, 0, 4]), st.sampled_from(["", " ", "\r\n\t"]))
def test_object_arrives(value: dict[str, Any], ascii_only: bool, indent: int | None, space: str) -> None:
    """In each form that JSON has for it."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)

    assert read(f"{space}{text}{space}") == value


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_are_an_object_or_an_error(body: bytes) -> None:
    """No other exception is raised, and nothing but an object returned."""
    try:
        found: Any = type(read(body))
    except HttpError as error:
        found = (error.status, error.code)

    assert found in [dict, (400, "invalid_json")]


@given(VALUES.filter(lambda value: not isinstance(value, dict)))
def test_other_values_are_refused(value: Any) -> None:
    """The body is an object, not an array or a scalar."""
    assert refusal(json.dumps(value)) == (400, "invalid_json")


@given(SMALL_OBJECTS, st.data())
def test_truncated_object_is_refused(value: dict[str, Any], data: Any) -> None:
    """An object ends with its last brace."""
    body = json.dumps(value)
    length = data.draw(st.integers(1, len(body) - 1))

    assert refusal(body[:length]) == (400, "invalid_json")


@given(TEXTS, VALUES, VALUES, PLACES)
def test_repeated_key_is_refused(name: str, value: Any, other: Any, place: str) -> None:
    """At any depth, even with the same value, and however the key is escaped."""
    pair = f"{json.dumps(name)}: {json.dumps(value)}, {json.dumps(name, ensure_ascii=False)}: {json.dumps(other)}"

    assert refusal(place.replace("%s", f"{{{pair}}}")) == (400, "invalid_json")


@given(PLACES, st.sampled_from(["NaN", "Infinity", "-Infinity", "1e400", "-1e999999", "1" * 5000]))
def test_number_beyond_json_or_floats_is_refused(place: str, number: str) -> None:
    """A database or another JSON parser would reject it later."""
    assert refusal(place.replace("%s", number)) == (400, "invalid_json")


@given(st.integers(2, 2 * MAX_DEPTH), st.sampled_from([("[", "]"), ('{"a": ', "}")]))
@example(MAX_DEPTH, ("[", "]"))
@example(MAX_DEPTH + 1, ("[", "]"))
@example(MAX_DEPTH + 1, ('{"a": ', "}"))
def test_depth(depth: int, brackets: tuple[str, str]) -> None:
    """The object itself is the first level, and a scalar is one too."""
    body = f'{{"a": {brackets[0] * (depth - 2)}1{brackets[1] * (depth - 2)}}}'

    if depth <= MAX_DEPTH:
        assert read(body)
    else:
        assert refusal(body) == (400, "invalid_json")


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_depth_beyond_the_stack_is_refused(opening: str) -> None:
    """The parser's own limit is an error of the body, not of the server."""
    body = '{"a":' + opening * (MAX_BYTES // len(opening) - 10)

    assert refusal(body) == (400, "invalid_json")


@given(st.integers(-20, 20), st.booleans())
@example(0, True)
@example(1, True)
@example(1, False)
def test_size(difference: int, declared: bool) -> None:
    """The limit is one of bytes, whether the length was declared or not."""
    body = b'{"a": "' + b"x" * (MAX_BYTES + difference - 9) + b'"}'
    request = RequestFactory().generic("POST", "/", body, "application/json")
    if not declared:
        request.META["CONTENT_LENGTH"] = ""  # As of a chunked body.

    if difference <= 0:
        assert read_object(request)
    else:
        with pytest.raises(HttpError) as caught:
            read_object(request)
        assert (caught.value.status, caught.value.code) == (413, "too_large")


@given(SMALL_OBJECTS, st.sampled_from(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "cp037"]))
def test_other_encodings_are_refused(value: dict[str, Any], encoding: str) -> None:
    """JSON is UTF-8 without a byte order mark; nothing is guessed."""
    assert refusal(json.dumps(value).encode(encoding)) == (400, "invalid_json")


@given(
    st.sampled_from(["text/plain", "application/octet-stream", "application/x-www-form-urlencoded", "", "json"])
)
def test_content_types(content_type: str) -> None:
    """A browser's form cannot send JSON's type; the triggers take what Cloud Scheduler sends."""
    assert refusal('{"a": 1}', content_type) == (415, "unsupported_media_type")
    assert read('{"a": 1}', content_type, any_type=True) == {"a": 1}
    assert read("", content_type) == {}


def test_many_keys_take_no_time() -> None:
    """The search for a repeated key is linear in the size of the body."""
    names = [f'"{number:x}":1' for number in range(7000)]
    started = time.process_time()

    assert refusal(f"{{{','.join([*names, names[-1]])}}}") == (400, "invalid_json")
    assert time.process_time() - started < 0.5
