"""Format text from jobs and people, durations and times for a page."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.formats import number_format
from django.utils.html import avoid_wrapping, format_html
from django.utils.html import escape as escape_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

from cloudrun_jobs.terminal import escape

MAX_LENGTH = 2000  # characters of a text on a page
LINES = "\n\t"


def plain(value: object, *, keep: str = "") -> str:
    r"""Return the first 2,000 characters, with unsafe characters as escapes such as \x1b; "" for None."""
    # Never more than that of a megabyte is escaped.
    text = "" if value is None else str(value)
    start = text[:MAX_LENGTH].replace("\r\n", "\n") if "\n" in keep else text[:MAX_LENGTH]
    if start.isspace():  # A link needs visible text.
        start = "".join(f"\\x{ord(character):02x}" for character in start)
    return escape(start, keep=keep) + ("…" if len(text) > MAX_LENGTH else "")


def shown(value: object, *, keep: str = "") -> SafeString:
    """Return `plain()` of the value as HTML, in an element that isolates its direction."""
    # It is escaped whatever the value claims to be: no text from a job or a person is HTML.
    return mark_safe(f"<bdi>{escape_html(plain(value, keep=keep))}</bdi>")  # noqa: S308  (escaped)


def isolated(value: str) -> str:
    """Return the text with the characters that isolate its direction, for where no element can."""
    return f"\u2068{value}\u2069"


def duration(value: timedelta | float | None) -> str:
    """Return a duration, also given in seconds, in its two largest units: "3 min 12 s"; "-" for None."""
    return "-" if value is None else avoid_wrapping(_units(value))


def _units(value: timedelta | float) -> str:
    exact = max(value.total_seconds() if isinstance(value, timedelta) else float(value), 0.0)
    if round(exact, 1) < 10:
        return _("%(seconds)s s") % {"seconds": number_format(round(exact, 1), 0 if exact == 0 else 1)}
    minutes, seconds = divmod(round(exact), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return _("%(days)s d %(hours)s h") % {"days": number_format(days), "hours": hours}
    if hours:
        return _("%(hours)s h %(minutes)s min") % {"hours": hours, "minutes": minutes}
    if minutes:
        return _("%(minutes)s min %(seconds)s s") % {"minutes": minutes, "seconds": seconds}
    return _("%(seconds)s s") % {"seconds": seconds}


def timestamp(value: datetime | None) -> SafeString | str:
    """Return a time in the current time zone as HTML; "-" for None."""
    if value is None:
        return "-"
    when = timezone.localtime(value) if timezone.is_aware(value) else value
    return format_html(
        '<time datetime="{}" dir="ltr">{}</time>', when.isoformat(timespec="seconds"), f"{when:%F %T}"
    )
