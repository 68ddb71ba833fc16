"""Schedules: validation, due times and DST changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import assume, given
from hypothesis import strategies as st

from cloudrun_jobs import cron
from cloudrun_jobs.exceptions import InvalidSchedule
from tests.brute_force import due_minutes

ACCEPTED = [
    "* * * * *",
    "0 9 * * 1-5",
    "*/5 0-23/2 1,15 JAN-MAR SUN,6-7",
    "0 0 1 * SAT",
    "59 23 31 12 7",
    "0 0 29 2 *",
    "0 0 31 2 MON",
    "0 0 31 2,12 *",
    "every minute",
    "every 5 minutes",
    "every 48 hours",
    "every day 09:00",
    "every sun,tue,thu 9:00",
    "first sunday of month 12:00",
    "2nd,3rd tue,wed,thu of feb,aug 13:50",
    "1,3,4 of jan,jul 12:34",
    "every 60 minutes on mon,wed",
    "1st friday of quarter 9:00",
    "every 5 minutes from 10:00 to 14:00",
]
REFUSED = {
    "": "Expected 5 fields",
    "0 0 * * * *": "got 6",
    "@daily": "Write '0 0 * * *'",
    "5/15 * * * *": "Write '5-59/15'",
    "*/61 * * * *": "expected a step of 1-59, got '61'",
    "*/0 * * * *": "expected a step of 1-59, got '0'",
    "60 * * * *": "minute: expected 0-59, got '60'",
    "0 24 * * *": "hour: expected 0-23, got '24'",
    "0 0 0 * *": "day of month: expected 1-31, got '0'",
    "0 0 L * *": "day of month: expected 1-31, got 'L'",
    "0 0 1W * *": "got '1W'",
    "0 0 * * MON#2": "got 'MON#2'",
    "0 0 * * ?": "got '?'",
    "0 0 * jan *": "Write 'JAN'",
    "0 0 * * mon": "Write 'MON'",
    "0 0 * * MONDAY": "got 'MONDAY'",
    "0 22-2 * * *": "Write '22-23,0-2'",
    "0 0 * * 5-1": "Write '5-7,0-1'",
    "0 0 1-2-3 * *": "got '2-3'",
    "1, * * * *": "got ''",
    "0 0 ٣ * *": "expected 1-31",
    "0 9 * * *\n": "got '0 9 * * *\\n'. Write '0 9 * * *'.",
    "0  9 * * *": "with one space between two, got '0  9 * * *'. Write '0 9 * * *'.",
    "00 009 * * *": "hour: expected 0-23, got '009'",
    "0 0 31 2 *": "It never runs: no such month has a day 31",
    "0 0 31 FEB-APR/2 *": "no such month has a day 31",
    "0 0 30,31 2 *": "no such month has a day 30",
    "0 of jan 12:34": "English-like",
    "every 0 minutes": "Examples: 'every 5 minutes'",
    "every day 25:00": "English-like",
    "6th monday of month 9:00": "English-like",
}


@pytest.mark.parametrize("expression", ACCEPTED)
def test_valid_expression_is_accepted(expression: str) -> None:
    """Each form of Google's documentation passes."""
    cron.validate(expression)


@pytest.mark.parametrize("expression", REFUSED)
def test_invalid_expression_is_refused(expression: str) -> None:
    """The message names the field, and the hint is the fix."""
    with pytest.raises(InvalidSchedule) as refusal:
        cron.validate(expression)

    assert REFUSED[expression] in str(refusal.value)


NUMBER = st.integers(0, 62).map(str)
SPAN = st.just("*") | NUMBER | st.tuples(NUMBER, NUMBER).map("-".join) | st.sampled_from(["MON", "FEB", "MON-FRI"])
ITEM = SPAN | st.tuples(SPAN, NUMBER).map("/".join)
FIELD = st.just("*") | st.lists(ITEM, min_size=1, max_size=3).map(",".join)


@given(st.integers(0, 4), FIELD)
def test_valid_fields_are_valid_for_croniter(position: int, field: str) -> None:
    """croniter accepts each field that the validation accepts."""
    expression = " ".join([*["*"] * position, field, *["*"] * (4 - position)])
    try:
        cron.validate(expression)
    except InvalidSchedule:
        assume(False)

    assert croniter.is_valid(expression)


ZURICH = ZoneInfo("Europe/Zurich")
SPRING = datetime(2026, 3, 29, tzinfo=ZURICH)  # 02:00 to 03:00 is skipped.
AUTUMN = datetime(2026, 10, 25, tzinfo=ZURICH)  # 02:00 to 03:00 comes twice.


def following(expression: str, after: datetime, count: int) -> list[str]:
    times = []
    for _ in range(count):
        after = cron.next_time(expression, "Europe/Zurich", after) or after
        times.append(after.astimezone(ZURICH).isoformat()[5:])
    return times


def preceding(expression: str, before: datetime, count: int) -> list[str]:
    times = []
    for _ in range(count):
        found = cron.last_time(expression, "Europe/Zurich", before) or before
        times.append(found.astimezone(ZURICH).isoformat()[5:])
        before = found - timedelta(seconds=1)
    return times


def test_skipped_time_is_due_at_the_end_of_the_gap() -> None:
    """A schedule that names hours runs once on the day that skips them, after the gap."""
    assert following("0,30 2 * * *", SPRING, 3) == [
        "03-29T03:00:00+02:00",
        "03-30T02:00:00+02:00",
        "03-30T02:30:00+02:00",
    ]


def test_hourly_schedule_is_not_due_in_a_gap() -> None:
    """A schedule of every hour does not make up for a skipped time."""
    assert following("30 * * * *", SPRING, 3) == [
        "03-29T00:30:00+01:00",
        "03-29T01:30:00+01:00",
        "03-29T03:30:00+02:00",
    ]


def test_repeated_time_is_due_once() -> None:
    """A schedule that names hours runs in the first pass of a repeated hour."""
    assert following("30 */2 * * *", AUTUMN, 3) == [
        "10-25T00:30:00+02:00",
        "10-25T02:30:00+02:00",
        "10-25T04:30:00+01:00",
    ]


def test_hourly_schedule_is_due_in_both_hours() -> None:
    """A schedule of every hour runs in both passes of a repeated hour."""
    assert following("30 * * * *", AUTUMN, 5) == [
        "10-25T00:30:00+02:00",
        "10-25T01:30:00+02:00",
        "10-25T02:30:00+02:00",
        "10-25T02:30:00+01:00",
        "10-25T03:30:00+01:00",
    ]


def test_last_times_mirror_next_times() -> None:
    """Backwards, a schedule has the same times as forwards, its start included."""
    before = datetime(2026, 10, 25, 3, 30, tzinfo=ZURICH)

    assert preceding("30 * * * *", before, 4) == [
        "10-25T03:30:00+01:00",
        "10-25T02:30:00+01:00",
        "10-25T02:30:00+02:00",
        "10-25T01:30:00+02:00",
    ]


def test_seconds_are_ignored() -> None:
    """In the middle of a minute, its beginning is past."""
    now = datetime(2026, 5, 1, 9, 0, 30, 5, tzinfo=ZURICH)

    assert following("* * * * *", now, 1) == ["05-01T09:01:00+02:00"]
    assert preceding("* * * * *", now, 1) == ["05-01T09:00:00+02:00"]


@pytest.mark.parametrize("expression", ["every 5 minutes", "every day 09:00", "1,3 of jan 12:34"])
def test_times_of_the_english_forms_are_not_computed(expression: str) -> None:
    """Their times depend on Cloud Scheduler's state."""
    assert cron.next_time(expression, "Etc/UTC", SPRING) is None
    assert cron.last_time(expression, "Etc/UTC", SPRING) is None


def test_invalid_expression_has_no_times() -> None:
    """An expression that only croniter accepts is refused."""
    with pytest.raises(InvalidSchedule):
        cron.next_time("0 0 L * *", "Etc/UTC", SPRING)


def test_leap_day_is_found_years_away() -> None:
    """The 29th of February is due when there is one."""
    assert cron.next_time("0 0 29 2 *", "Etc/UTC", SPRING) == datetime(2028, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "zone", "change"),
    [
        ("30 2 * * *", "Europe/Zurich", "2026-10-25T01:00"),
        ("0 2 * * *", "Europe/Zurich", "2026-10-25T01:00"),
        ("59 1 * * *", "Europe/Zurich", None),
        ("0 3 * * *", "Europe/Zurich", None),
        ("30 1 * * *", "America/New_York", "2026-11-01T06:00"),
        ("30 2 * * *", "America/New_York", "2027-03-14T07:00"),
        ("0 0 * * *", "Asia/Beirut", "2027-03-27T22:00"),
        ("45 1 * * *", "Australia/Lord_Howe", "2027-04-03T15:00"),
        ("*/5 * * * *", "Europe/Zurich", None),
        ("30 2 * * *", "Asia/Tokyo", None),
        ("every day 02:30", "Europe/Zurich", None),
    ],
)
def test_next_dst_conflict(expression: str, zone: str, change: str | None) -> None:
    """It is the next DST change that skips or repeats a time of the schedule."""
    found = cron.next_dst_conflict(expression, zone, datetime(2026, 6, 1, 12, 30, tzinfo=UTC))

    assert found == (change and datetime.fromisoformat(f"{change}+00:00"))


CHANGES = [
    ("Europe/Zurich", SPRING),
    ("Europe/Zurich", AUTUMN),
    ("America/New_York", datetime(2026, 11, 1, 5, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 11, 1, 5, tzinfo=UTC)),  # Midnight comes twice.
    ("Asia/Beirut", datetime(2026, 3, 28, 22, tzinfo=UTC)),  # Midnight does not come.
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),  # By half an hour.
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),  # A whole day was skipped.
    ("Asia/Tokyo", datetime(2026, 11, 22, tzinfo=UTC)),
]
DAY = timedelta(days=1)
EXPRESSIONS = st.lists(FIELD, min_size=5, max_size=5).map(" ".join)
OFTEN = st.tuples(
    FIELD,
    FIELD,
    st.sampled_from(["*", "1-7", "1-31", "28-31,1"]),
    st.just("*"),
    st.sampled_from(["*", "0", "6-7", "1-7/2"]),
)


@given(EXPRESSIONS | OFTEN.map(" ".join), st.sampled_from(CHANGES), st.integers(-1500, 1500))
def test_times_equal_those_of_an_exhaustive_search(
    expression: str, change: tuple[str, datetime], minutes: int
) -> None:
    """Around a change of the clocks, next and last time are what a look at each minute finds."""
    zone, at = change
    at = at.astimezone(UTC) + timedelta(minutes=minutes, seconds=30)
    try:
        cron.validate(expression)
    except InvalidSchedule:
        assume(False)
    due = due_minutes(expression, ZoneInfo(zone), at - DAY, at + DAY)
    later, earlier = [time for time in due if time > at], [time for time in due if time <= at]
    following, preceding = cron.next_time(expression, zone, at), cron.last_time(expression, zone, at)

    assert later[:1] == [time for time in (following,) if time and time <= at + DAY]
    assert earlier[-1:] == [time for time in (preceding,) if time and time >= at - DAY]
