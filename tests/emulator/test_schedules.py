"""The two schedule dialects of Cloud Scheduler; the common subset of cron is compared with croniter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.emulator.scheduler import cron, english

UTC_ZONE = ZoneInfo("Etc/UTC")
ZURICH = ZoneInfo("Europe/Zurich")
START = datetime(2026, 3, 1, tzinfo=UTC)  # A Sunday.


def times(schedule, count, start=START):
    found = []
    for _ in range(count):
        start = schedule.next_after(start)
        found.append(start)
    return found


@st.composite
def fields(draw, least, most, names=()):
    """A field that both implementations parse alike."""

    def number():
        value = draw(st.integers(least, most))
        return names[value - least] if names and value - least < len(names) and draw(st.booleans()) else str(value)

    def part():
        kind = draw(st.sampled_from(["*", "number", "range", "step", "stepped range"]))
        if kind == "number":
            return number()
        if kind == "step":
            return f"*/{draw(st.integers(1, most))}"
        if kind == "*":
            return "*"
        # croniter 7 parses a range of one value as every value.
        first = draw(st.integers(least, most - 1))
        last = draw(st.integers(first + 1, most))
        return f"{first}-{last}" + (f"/{draw(st.integers(1, most))}" if kind == "stepped range" else "")

    parts = [part() for _ in range(draw(st.integers(1, 3)))]
    return "*" if "*" in parts else ",".join(parts)


@st.composite
def expressions(draw):
    month_days = draw(fields(1, 31))
    week_days = draw(fields(0, 6, cron.DAYS))
    # If both fields are set, the service does not document the meaning of a step over every day, and croniter
    # ignores a field that lists all days.
    month_days_read, week_days_read = (croniter(f"0 0 {month_days} * {week_days}").expanded[n] for n in (2, 4))
    if "*" in f"{month_days}{week_days}" or ["*"] in (month_days_read, week_days_read):
        month_days, week_days = draw(st.sampled_from([(month_days, "*"), ("*", week_days)]))
    return " ".join(
        [draw(fields(0, 59)), draw(fields(0, 23)), month_days, draw(fields(1, 12, cron.MONTHS)), week_days]
    )


@given(expressions(), st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)))  # noqa: DTZ001
def test_cron_agrees_with_croniter(expression, start):
    """In UTC, croniter computes the same due times for expressions of the common subset."""
    start = start.replace(microsecond=0, tzinfo=UTC)
    due = cron.parse(expression, UTC_ZONE).next_after(start)
    if due is None:
        return
    expected = croniter(expression, start, max_years_between_matches=9).get_next(datetime)

    assert due == expected, expression


@given(st.text(alphabet="0123456789*/,-LW#?RSUNMOJA @", max_size=20))
def test_any_text_is_parsed_or_rejected(text):
    """The parser accepts or rejects any text; it never fails in another way."""
    try:
        schedule = cron.parse(text, UTC_ZONE)
    except cron.InvalidSchedule:
        return

    assert schedule.next_after(START) is None or schedule.next_after(START) > START


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *",
     "* * * * 8", "@daily", "0 0 L * *", "0 0 * * L", "0 0 * * 5L", "0 0 * * MON#2", "0 0 1W * *", "R * * * *",
     "? * * * *", "5/15 * * * *", "22-2 * * * *", "0 0 * * mon", "0 0 1 jan *", "*/61 * * * *", "*/0 * * * *",
     "1, * * * *", "-1 * * * *", "1-2-3 * * * *", "*-5 * * * *", "0 0 * * MONDAY", "1.5 * * * *"],
)  # fmt: skip
def test_unsupported_cron_is_rejected(expression):
    """Extensions of other cron dialects and values out of range are rejected."""
    with pytest.raises(cron.InvalidSchedule):
        cron.parse(expression, UTC_ZONE)


def test_seven_is_sunday():
    """0, 7 and SUN are the same day, including at the end of a range."""
    days = [times(cron.parse(f"0 0 * * {day}", UTC_ZONE), 3) for day in ("0", "7", "SUN")]

    assert days[0] == days[1] == days[2]
    assert times(cron.parse("0 0 * * 6-7", UTC_ZONE), 2) == [START + timedelta(days=6), START + timedelta(days=7)]


def test_day_of_month_or_day_of_week_matches():
    """If both fields are set, a day needs to match only one of them."""
    due = times(cron.parse("0 0 3 * SAT", UTC_ZONE), 3)

    assert [instant.day for instant in due] == [3, 7, 14]


def test_schedule_may_never_be_due():
    """A valid expression may never be due."""
    assert cron.parse("0 0 31 2 *", UTC_ZONE).next_after(START) is None


def test_leap_day_across_a_century():
    """29 February is found eight years ahead."""
    due = cron.parse("0 0 29 2 *", UTC_ZONE).next_after(datetime(2096, 3, 1, tzinfo=UTC))

    assert due == datetime(2104, 2, 29, tzinfo=UTC)


def test_skipped_time_is_not_due():
    """A wall-clock time that a DST change skips is not due that day."""
    due = times(cron.parse("30 2 * * *", ZURICH), 2, datetime(2026, 3, 28, 12, tzinfo=UTC))

    assert due[0] == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)


def test_repeated_time_is_due_twice():
    """A wall-clock time that occurs twice is due twice."""
    due = times(cron.parse("30 2 * * *", ZURICH), 2, datetime(2026, 10, 24, 12, tzinfo=UTC))

    assert due == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("every minute", "2026-03-01T00:01"),
        ("every 5 minutes", "2026-03-01T00:05"),
        ("every 48 hours", "2026-03-03T00:00"),
        ("every day 09:00", "2026-03-01T09:00"),
        ("every sun,tue,thu 9:00", "2026-03-01T09:00"),
        ("every tuesday 9:00", "2026-03-03T09:00"),
        ("first sunday of month 12:00", "2026-03-01T12:00"),
        ("2nd,3rd tue,wed,thu of feb,aug 13:50", "2026-08-11T13:50"),
        ("1,3,4 of jan,jul 12:34", "2026-07-01T12:34"),
        ("every 60 minutes on mon,wed", "2026-03-02T00:00"),
        ("1st friday of quarter 9:00", "2026-04-03T09:00"),
    ],
)
def test_english_like_schedule_is_due(words, first):
    """The English-like schedules of the documentation are due at the documented times."""
    due = english.parse(words, UTC_ZONE).next_after(START)

    assert due == datetime.fromisoformat(f"{first}+00:00")


@pytest.mark.parametrize(
    "words",
    ["every", "every 0 minutes", "every blue moon", "every day 25:00", "6th mon of jan 9:00", "32 of jan 9:00",
     "every monday", "daily"],
)  # fmt: skip
def test_invalid_english_like_schedule_is_rejected(words):
    """Any other text is rejected."""
    with pytest.raises(cron.InvalidSchedule):
        english.parse(words, UTC_ZONE)
