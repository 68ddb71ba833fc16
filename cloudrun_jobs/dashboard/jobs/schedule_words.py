"""Describe schedules as text: "At 09:00, Monday to Friday"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from django.utils.translation import gettext, ngettext, pgettext, pgettext_lazy

from cloudrun_jobs import cron
from cloudrun_jobs.cron.dialect import FIELDS
from cloudrun_jobs.cron.english import MONTH_LENGTHS, is_english
from cloudrun_jobs.exceptions import InvalidSchedule

MAX_ITEMS = 12  # A longer list is harder to read than the expression.
MIN_RANGE = 3  # "Saturday and Sunday", but "Friday to Sunday".
MIN_INTERVALS = 5  # Fewer times of a day are listed.
# Django's own names are translated into more languages than the sentences around them.
WEEKDAYS = dict(
    enumerate(
        [
            pgettext_lazy("schedule", "Monday"),
            pgettext_lazy("schedule", "Tuesday"),
            pgettext_lazy("schedule", "Wednesday"),
            pgettext_lazy("schedule", "Thursday"),
            pgettext_lazy("schedule", "Friday"),
            pgettext_lazy("schedule", "Saturday"),
            pgettext_lazy("schedule", "Sunday"),
        ]
    )
)
MONTHS = dict(
    enumerate(
        [
            pgettext_lazy("schedule", "January"),
            pgettext_lazy("schedule", "February"),
            pgettext_lazy("schedule", "March"),
            pgettext_lazy("schedule", "April"),
            pgettext_lazy("schedule", "May"),
            pgettext_lazy("schedule", "June"),
            pgettext_lazy("schedule", "July"),
            pgettext_lazy("schedule", "August"),
            pgettext_lazy("schedule", "September"),
            pgettext_lazy("schedule", "October"),
            pgettext_lazy("schedule", "November"),
            pgettext_lazy("schedule", "December"),
        ],
        1,
    )
)


def schedule_text(expression: str) -> str:
    """Return the schedule as a sentence in the current language; empty if no short sentence is exact.

    The English-like forms are returned as they are.
    """
    try:
        cron.validate(expression)
    except InvalidSchedule:
        return ""
    if is_english(expression):
        return expression
    minutes, hours, of_month, months, of_week = (
        sorted(field.values(part)) for field, part in zip(FIELDS, expression.split(" "), strict=True)
    )
    weekdays = sorted({(day - 1) % 7 for day in of_week})  # From Monday.
    if cron.names_both_days(expression):  # Due on either: on every day if one of them is.
        if len(of_month) < 31 and len(weekdays) < 7:
            return ""
        of_month, weekdays = [*range(1, 32)], [*range(7)]
    times = [hour * 60 + minute for hour in hours for minute in minutes]
    if len(of_month) == 31 and len(weekdays) == 7 and len(months) == 12:
        return _every_day(times)
    time, date = _time(times), _date(of_month, weekdays, months)
    return gettext("%(time)s, %(date)s") % {"time": time, "date": date} if time and date else ""


def _every_day(times: Sequence[int]) -> str:
    if _is_listed(times):
        return gettext("Every day at %(times)s") % {"times": _times(times)}
    return _time(times)


def _is_listed(times: Sequence[int]) -> bool:
    """Return True if the times of a day are named one by one."""
    return len(times) < MIN_INTERVALS or (len(times) <= MAX_ITEMS and not _step(times))


def _time(times: Sequence[int]) -> str:
    """Return the times of a day, in minutes since midnight, as the beginning of a sentence."""
    if _is_listed(times):
        return gettext("At %(times)s") % {"times": _times(times)}
    if len({time // 60 for time in times}) == 24:
        return _of_every_hour(sorted({time % 60 for time in times}))
    return _interval(times, _step(times))


def _of_every_hour(minutes: Sequence[int]) -> str:
    if minutes == [0]:
        return gettext("Every hour on the hour")
    step = _step(minutes)
    if minutes[0] == 0 and len(minutes) * step == 60:
        return ngettext("Every minute", "Every %(count)s minutes", step) % {"count": step}
    if len(minutes) > MAX_ITEMS:
        return ""
    text = ngettext("At minute %(minutes)s of every hour", "At minutes %(minutes)s of every hour", len(minutes))
    return text % {"minutes": _list(minutes)}


def _interval(times: Sequence[int], step: int) -> str:
    """Return the first and the last of equal intervals of a day."""
    if not step:
        return ""
    values = {"first": _clock(times[0]), "last": _clock(times[-1]), "count": step}
    if step % 60:
        minutes = ngettext(
            "Every minute from %(first)s to %(last)s", "Every %(count)s minutes from %(first)s to %(last)s", step
        )
        return minutes % values
    hours = ngettext(
        "Every hour from %(first)s to %(last)s", "Every %(count)s hours from %(first)s to %(last)s", step // 60
    )
    return hours % {**values, "count": step // 60}


def _date(of_month: Sequence[int], weekdays: Sequence[int], months: Sequence[int]) -> str:
    """Return the days as the end of a sentence."""
    names = _months(months)
    if len(weekdays) < 7:
        return _weekdays(weekdays, names)
    if len(of_month) < 31:
        return _days(of_month, months, names)
    return gettext("every day in %(months)s") % {"months": names}


def _weekdays(weekdays: Sequence[int], months: str) -> str:
    if ends := _range(weekdays, 7):
        values = {**_ends(ends, WEEKDAYS), "months": months}
        if months:
            return gettext("%(first)s to %(last)s in %(months)s") % values
        return pgettext("days of the week", "%(first)s to %(last)s") % values
    values = {"weekdays": _list(WEEKDAYS[day] for day in weekdays), "months": months}
    if months:
        return gettext("every %(weekdays)s in %(months)s") % values
    return gettext("every %(weekdays)s") % values


def _days(days: Sequence[int], months: Sequence[int], names: str) -> str:
    # Not every month has the days 29 to 31: "of the month" does not say so, but a list of months would.
    if names and days[-1] > min(MONTH_LENGTHS[month - 1] for month in months):
        return ""
    if len(days) >= MIN_RANGE and _step(days) == 1:
        values: dict[str, Any] = {"first": days[0], "last": days[-1], "months": names}
        if names:
            return gettext("on days %(first)s to %(last)s of %(months)s") % values
        return gettext("on days %(first)s to %(last)s of the month") % values
    if len(days) > MAX_ITEMS:
        return ""
    values = {"days": _list(days), "months": names}
    if names:
        return ngettext("on day %(days)s of %(months)s", "on days %(days)s of %(months)s", len(days)) % values
    return ngettext("on day %(days)s of the month", "on days %(days)s of the month", len(days)) % values


def _months(months: Sequence[int]) -> str:
    if len(months) == 12:
        return ""
    if ends := _range(months, 12):
        return pgettext("months", "%(first)s to %(last)s") % _ends(ends, MONTHS)
    return _list(MONTHS[month] for month in months)


def _ends(ends: tuple[int, int], names: Mapping[int, Any]) -> dict[str, str]:
    return {"first": str(names[ends[0]]), "last": str(names[ends[1]])}


def _range(values: Sequence[int], size: int) -> tuple[int, int] | None:
    """Return the ends if the values follow each other in a cycle of that size, such as November to January."""
    before = [values[-1] - size, *values]
    starts = [value for value, last in zip(values, before, strict=False) if value > last + 1]
    if len(values) < MIN_RANGE or len(starts) != 1:
        return None
    return starts[0], values[values.index(starts[0]) - 1]


def _step(values: Sequence[int]) -> int:
    """Return the difference that all neighbours have; 0 if there is none."""
    steps = {after - before for before, after in pairwise(values)}
    return steps.pop() if len(steps) == 1 else 0


def _times(times: Sequence[int]) -> str:
    return _list(map(_clock, times))


def _clock(time: int) -> str:
    return f"{time // 60:02}:{time % 60:02}"


def _list(items: Iterable[Any]) -> str:
    *others, last = map(str, items)
    if not others:
        return last
    values = {"items": pgettext("between the items of a list", ", ").join(others), "last": last}
    return pgettext("list", "%(items)s and %(last)s") % values
