"""Filters of the pages: text from jobs and people, reasons, durations and times."""

from __future__ import annotations

from datetime import timedelta

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from cloudrun_jobs.dashboard import text
from cloudrun_jobs.dashboard.runs import reasons

register = template.Library()
register.filter("shown", text.shown, is_safe=False)
register.filter("timestamp", text.timestamp)
register.filter("explain", reasons.explain)


@register.filter
def duration(value: timedelta | float | None) -> SafeString:
    """Return `duration()` as HTML, in an element that isolates its direction."""
    return format_html("<bdi>{}</bdi>", text.duration(value))


@register.filter
def shown_lines(value: object) -> SafeString:
    """Return `shown()` of a text of several lines, with its line breaks and tabs."""
    return text.shown(value, keep=text.LINES)
