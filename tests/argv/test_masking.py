"""Protected values are masked in every text, however they are escaped."""

from __future__ import annotations

import html
import json
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.argv import redaction
from cloudrun_jobs.argv.redaction import MASK, mask, masked, protect, release
from cloudrun_jobs.terminal import escape

VALUE = 'hunter2/"it\'s"\\n%41\n日本😀&<x> é-'

FORMS: list[Callable[[str], str]] = [
    str,
    repr,
    ascii,
    escape,
    json.dumps,
    lambda text: json.dumps(text, ensure_ascii=False),
    lambda text: json.dumps(json.dumps({"a": text})),
    lambda text: repr(f"'{text}\""),
    lambda text: repr(json.dumps([text, repr({"b": text})])),
    lambda text: repr(text.encode()),
    quote,
    lambda text: quote(text, safe=""),
    quote_plus,
    lambda text: urlencode({"token": f"x {text}"}),
    lambda text: json.dumps(quote(quote(text))),
    html.escape,
    lambda text: json.dumps(html.escape(text)),
    shlex.quote,
    lambda text: text.encode("ascii", "xmlcharrefreplace").decode(),
    lambda text: text.replace("/", "\\/"),
]

AROUND: list[Callable[[str], str]] = [str, repr, ascii, escape, json.dumps, quote, quote_plus]

values = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\\\"'%\n /é日-=&<"), min_size=6)


@pytest.fixture(autouse=True)
def _protected() -> Iterator[None]:
    protect([VALUE])
    yield
    release([VALUE])


@pytest.mark.parametrize("form", FORMS, ids=map(str, range(len(FORMS))))
def test_escaped_forms_are_masked(form: Callable[[str], str]) -> None:
    """The escaped forms of Python, JSON, URLs, HTML and shells are recognised, even if they are nested."""
    assert form(f"a {VALUE} b") != (shown := mask(form(f"a {VALUE} b")))
    assert shown.replace(MASK, "X") == form("a X b")


@given(value=values, form=st.sampled_from(FORMS), other=st.sampled_from(AROUND))
def test_any_value_in_any_form(value: str, form: Callable[[str], str], other: Callable[[str], str]) -> None:
    """No escaped form of the value is left, even if the escaped text is escaped again."""
    protect([value])
    try:
        shown = mask(other(form(f"<<{value}>>")))
    finally:
        release([value])

    assert MASK in shown
    assert other(form(value)).strip("\"'") not in shown


def test_results_are_masked() -> None:
    """Texts, keys and numbers are masked at any depth."""
    protect(["1234567"])
    try:
        shown = masked({"a": [VALUE, 1234567, 0.1234567, 7, True, None], f"x{VALUE}": {"b": f"{VALUE}!"}})
    finally:
        release(["1234567"])

    assert shown == {"a": [MASK, MASK, MASK, 7, True, None], f"x{MASK}": {"b": f"{MASK}!"}}


def test_lines_are_masked() -> None:
    """A value of several lines is often written line by line."""
    protect(["-----BEGIN-----\n  aGVsbG8=\n--"])
    try:
        assert [mask(line) for line in ("-----BEGIN-----", "aGVsbG8=", "--")] == [MASK, MASK, "--"]
    finally:
        release(["-----BEGIN-----\n  aGVsbG8=\n--"])


LONG = 64 * 1024 // len(VALUE.encode()) * VALUE
LONG_FORMS: list[Callable[[str], str]] = [
    str,
    repr,
    json.dumps,
    lambda text: json.dumps({"a": repr(text)}, ensure_ascii=False),
    lambda text: quote(text, safe=""),
    quote_plus,
    html.escape,
]


def test_the_longest_value_is_masked_at_once() -> None:
    """A value of 64 KiB delays neither the start nor the lines of the job, and is masked in its usual forms."""
    before = time.perf_counter()
    protect([LONG])
    try:
        lines = {mask(f"line {number} of the import, which has 7 partners") for number in range(10_000)}
        shown = [mask(form(f"a {LONG} b")).replace(MASK, "X") for form in LONG_FORMS]
        assert (len(lines), shown) == (10_000, [form("a X b") for form in LONG_FORMS])
        assert mask(f"begin\n{LONG.splitlines()[1]}\nend") == "begin\n***\nend"
    finally:
        release([LONG])
    assert time.perf_counter() - before < 5


def test_longest_value_is_masked_first() -> None:
    """A value that begins with another value is masked as a whole."""
    protect(["abcdef", "abcdefgh"])
    try:
        assert mask("abcdefgh abcdefg") == f"{MASK} {MASK}g"
    finally:
        release(["abcdef", "abcdefgh"])


def test_short_texts_are_not_masked() -> None:
    """Masking short texts would garble ordinary words."""
    protect(["a", "", "12345"])

    assert mask("a banana 12345") == "a banana 12345"


def test_two_runs_protect_the_same_value() -> None:
    """A value is protected until the last run with it has ended."""
    protect([VALUE])
    release([VALUE])

    assert mask(VALUE) == MASK


def test_nothing_is_kept_after_release() -> None:
    """A long-lived worker does not accumulate values."""
    release([VALUE])
    try:
        assert mask(VALUE) == VALUE
        assert not redaction.is_protecting()
    finally:
        protect([VALUE])


def test_threads_protect_values_at_once() -> None:
    """Threads that protect values at the same time lose none."""
    names = [f"value-{number}" for number in range(20)]
    threads = [threading.Thread(target=protect, args=([name],)) for name in names]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    try:
        assert mask(" ".join(reversed(names))) == " ".join([MASK] * 20)
    finally:
        release(names)
