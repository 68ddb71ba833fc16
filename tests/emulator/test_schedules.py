"""The two dialects of Cloud Scheduler, held against another implementation where they have one in common."""

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
    """A field that both dialects read alike."""

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
        # croniter 7 takes a range of one for every value.
        first = draw(st.integers(least, most - 1))
        last = draw(st.integers(first + 1, most))
        return f"{first}-{last}" + (f"/{draw(st.integers(1, most))}" if kind == "stepped range" else "")

    parts = [part() for _ in range(draw(st.integers(1, 3)))]
    return "*" if "*" in parts else ",".join(parts)


@st.composite
def expressions(draw):
    month_days = draw(fields(1, 31))
    week_days = draw(fields(0, 6, cron.DAYS))
    # With both given, the service does not say what a step over every day means.
    if month_days.startswith("*") or week_days.startswith("*"):
        month_days, week_days = draw(st.sampled_from([(month_days, "*"), ("*", week_days)]))
    return " ".join(
        [draw(fields(0, 59)), draw(fields(0, 23)), month_days, draw(fields(1, 12, cron.MONTHS)), week_days]
    )


@given(expressions(), st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)))  # noqa: DTZ001
def test_against_croniter(expression, start):
    """In UTC, expressions of the common subset are due when croniter says."""
    start = start.replace(microsecond=0, tzinfo=UTC)
    mine = cron.parse(expression, UTC_ZONE).next_after(start)
    if mine is None:
        return
    theirs = croniter(expression, start, max_years_between_matches=9).get_next(datetime)

    assert mine == theirs, expression


@given(st.text(alphabet="0123456789*/,-LW#?RSUNMOJA @", max_size=20))
def test_anything_is_parsed_or_refused(text):
    """No text makes the parser fail in another way than by refusing it."""
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
def test_refused(expression):
    """What other crons add, and what is out of range, is refused."""
    with pytest.raises(cron.InvalidSchedule):
        cron.parse(expression, UTC_ZONE)


def test_seven_is_sunday():
    """0, 7 and SUN are the same day, also at the end of a range."""
    days = [times(cron.parse(f"0 0 * * {day}", UTC_ZONE), 3) for day in ("0", "7", "SUN")]

    assert days[0] == days[1] == days[2]
    assert times(cron.parse("0 0 * * 6-7", UTC_ZONE), 2) == [START + timedelta(days=6), START + timedelta(days=7)]


def test_day_of_month_or_of_week():
    """With both given, either is enough."""
    due = times(cron.parse("0 0 3 * SAT", UTC_ZONE), 3)

    assert [instant.day for instant in due] == [3, 7, 14]


def test_never():
    """An expression can be valid and never due."""
    assert cron.parse("0 0 31 2 *", UTC_ZONE).next_after(START) is None


def test_leap_day_across_a_century():
    """The 29th of February is found eight years ahead."""
    due = cron.parse("0 0 29 2 *", UTC_ZONE).next_after(datetime(2096, 3, 1, tzinfo=UTC))

    assert due == datetime(2104, 2, 29, tzinfo=UTC)


def test_time_that_is_skipped():
    """A wall clock time that a change of the clocks skips does not occur that day."""
    due = times(cron.parse("30 2 * * *", ZURICH), 2, datetime(2026, 3, 28, 12, tzinfo=UTC))

    assert due[0] == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)


def test_time_that_occurs_twice():
    """A wall clock time that occurs twice is due twice."""
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
        ("Every Monday 09:00", "2026-03-02T09:00"),
    ],
)
def test_in_words(words, first):
    """The schedules in words of the documentation are due when they say."""
    due = english.parse(words, UTC_ZONE).next_after(START)

    assert due == datetime.fromisoformat(f"{first}+00:00")


@pytest.mark.parametrize(
    "words",
    ["every", "every 0 minutes", "every blue moon", "every day 25:00", "6th mon of jan 9:00", "32 of jan 9:00",
     "every monday", "daily"],
)  # fmt: skip
def test_words_refused(words):
    """Other words are refused."""
    with pytest.raises(cron.InvalidSchedule):
        english.parse(words, UTC_ZONE)
