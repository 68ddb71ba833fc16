"""Texts from jobs and people, durations and times as a page shows them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from django.template import Context, Template
from django.utils import translation
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.dashboard import text
from cloudrun_jobs.terminal import is_unsafe

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)


def rendered(expression: str, value: Any) -> str:
    return Template(f"{{% load cloudrun_jobs_pages %}}{{{{ value|{expression} }}}}").render(
        Context({"value": value})
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        (mark_safe("<b>&amp;</b>"), "&lt;b&gt;&amp;amp;&lt;/b&gt;"),
        ("\x1b[31mred\0", "\\x1b[31mred\\x00"),
        ("a\u202eb\u2066c\u200fd", "a\\u202eb\\u2066c\\u200fd"),
        ("\ud800 \u2028 \r\n", "\\ud800 \\u2028 \\r\\n"),
        ("日本語 한국어", "日本語 한국어"),
        (None, ""),
        (0, "0"),
        (b"\xff", "b&#x27;\\xff&#x27;"),
    ],
)
def test_text_is_escaped_and_isolated(value: Any, expected: str) -> None:
    """HTML, also marked as safe, control characters and bidirectional overrides are shown as text."""
    assert rendered("shown", value) == f"<bdi>{expected}</bdi>"


def test_line_breaks_are_kept_on_request() -> None:
    """`shown_lines` keeps line breaks and tabs, and escapes a lone carriage return."""
    assert rendered("shown_lines", "a\r\n\tb\rc") == "<bdi>a\n\tb\\rc</bdi>"


@pytest.mark.parametrize(("length", "cut"), [(1999, False), (2000, False), (2001, True), (1024 * 1024, True)])
def test_long_text_is_cut(length: int, cut: bool) -> None:
    """A text is cut at 2,000 characters."""
    found = text.plain("x" * length)

    assert (len(found), found.endswith("…")) == (min(length, 2000) + cut, cut)


@given(ANY_TEXT.flatmap(lambda part: st.integers(1, 100).map(lambda count: part * count)))
def test_any_text_is_safe(value: str) -> None:
    """No text opens an element or an entity of its own, has a raw unsafe character or is longer than allowed."""
    content = rendered("shown_lines", value).removeprefix("<bdi>").removesuffix("</bdi>")

    assert not {character for character in content if is_unsafe(character)} - {"\n", "\t"}
    assert not {*content} & {*"<>\"'"}
    assert unescape(content) == text.plain(value, keep=text.LINES)
    # The longest escape, as in \U000e0001, has ten characters.
    assert len(unescape(content)) <= 10 * text.MAX_LENGTH + 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (0, "0 s"),
        (-5, "0 s"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (timedelta(minutes=3, seconds=12), "3 min 12 s"),
        (timedelta(hours=1, seconds=3599), "1 h 59 min"),
        (timedelta(days=400, hours=3), "400 d 3 h"),
    ],
)
def test_durations_have_two_units(value: Any, expected: str) -> None:
    """A duration is shown in its two largest units, isolated from the direction of the page, and on one line."""
    assert rendered("duration", value) == f"<bdi>{expected}</bdi>".replace(" ", "\xa0")


@pytest.mark.parametrize(
    ("value", "expected"), [(" ", r"\x20"), ("\u3000\n", r"\x3000\x0a"), ("", ""), (" a", " a")]
)
def test_blank_text_is_visible(value: str, expected: str) -> None:
    """A text of spaces only is shown as escapes: a link needs visible text."""
    assert text.plain(value) == expected


def test_durations_use_the_format_of_the_language() -> None:
    """The decimal separator is that of the language."""
    with translation.override("de"):
        assert text.duration(1.5) == "1,5\xa0s"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (
            datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
            '<time datetime="2026-01-02T12:04:05+09:00" dir="ltr">2026-01-02 12:04:05</time>',
        ),
        (
            datetime.fromisoformat("2026-01-02T03:04:05"),
            '<time datetime="2026-01-02T03:04:05" dir="ltr">2026-01-02 03:04:05</time>',
        ),
    ],
)
def test_times_are_machine_readable(value: Any, expected: str) -> None:
    """A time is shown in the current time zone, with its offset for machines."""
    assert rendered("timestamp", value) == expected
