"""The emulator's parsers against the grammar of docs/schedules.md."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from google.cloud import scheduler_v1
from hypothesis import assume, given
from hypothesis import strategies as st

from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.scheduler import english
from cloudrun_jobs.emulator.scheduler.validation import is_english_like, schedule_of
from tests.cron import grammar

START = datetime(2026, 3, 1, tzinfo=UTC)  # A Sunday.
DOCS = Path(__file__).parents[2] / "docs" / "schedules.md"


def parse(expression, time_zone="Etc/UTC"):
    return schedule_of(scheduler_v1.Job(schedule=expression, time_zone=time_zone))


def cases(table):
    return [pytest.param(text, id=f"{rule}: {text}") for rule, texts in table.items() for text in texts]


def due(expression, count, start=START, time_zone="Etc/UTC"):
    """Return the first due times as text."""
    schedule, found = parse(expression, time_zone), []
    for _ in range(count):
        start = schedule.next_after(start)
        found.append(f"{start:%m-%d %H:%M}")
    return found


@pytest.mark.parametrize("expression", cases(grammar.ACCEPTED))
def test_examples_are_accepted(expression):
    """Every accepted example of a rule is parsed, by the right parser, and due."""
    assert parse(expression).next_after(START) > START


@pytest.mark.parametrize("expression", cases(grammar.REFUSED))
def test_counterexamples_are_refused(expression):
    """Every counterexample of a rule is refused with the message of the service."""
    with pytest.raises(ServiceError, match="Schedule or time zone is invalid"):
        parse(expression)


@pytest.mark.parametrize("expression", sorted(grammar.DOUBTFUL))
def test_doubtful_expressions_are_refused(expression):
    """What no source allows is refused, and its alternative is accepted."""
    with pytest.raises(ServiceError, match="Schedule or time zone is invalid"):
        parse(expression)

    parse(grammar.DOUBTFUL[expression])


@pytest.mark.parametrize("time_zone", grammar.TIME_ZONES)
def test_time_zones_are_accepted(time_zone):
    """Names of the time zone database are accepted, and "utc"."""
    assert parse("0 9 * * *", time_zone).next_after(START) > START


@pytest.mark.parametrize("time_zone", grammar.REFUSED_TIME_ZONES)
def test_other_time_zones_are_refused(time_zone):
    """Abbreviations, offsets and other names are refused."""
    with pytest.raises(ServiceError, match="Schedule or time zone is invalid"):
        parse("0 9 * * *", time_zone)


def test_rules_are_documented():
    """The documentation and the data have the same rules."""
    documented = re.findall(r"^\| `([a-z-]+)` \|", DOCS.read_text(), re.MULTILINE)

    assert sorted(documented) == sorted(set(grammar.ACCEPTED) | set(grammar.REFUSED) | {"time-zone"})


INSTANTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001
ZONES = st.sampled_from(["Etc/UTC", "Europe/Zurich", "America/Havana", "Australia/Lord_Howe", "utc"])


@given(grammar.cron_expressions() | grammar.english_expressions(), INSTANTS, ZONES)
def test_sentences_are_accepted_and_due(expression, instant, time_zone):
    """Every sentence of the grammar is accepted, and due on a minute that is later than now."""
    job = scheduler_v1.Job(schedule=expression, time_zone=time_zone)
    found = schedule_of(job).next_after(instant)

    assert is_english_like(job) == ("every" in expression or ":" in expression)
    # A weekday on 29 February, or a time that a DST change skips, can be decades away.
    assume(found is not None)
    assert found > instant
    assert (found.second, found.microsecond) == (0, 0)


@given(
    st.integers(1, 3000),
    st.sampled_from(["minutes", "mins", "hours"]),
    st.tuples(st.integers(0, 23), st.integers(0, 59)),
    st.tuples(st.integers(0, 23), st.integers(0, 59)),
    INSTANTS,
)
def test_ranges_agree_with_counting(number, unit, first, last, instant):
    """In UTC, an interval within a range is due at the times that counting from the range's start finds."""
    step = timedelta(minutes=number * (60 if unit == "hours" else 1))
    text = f"every {number} {unit} from {first[0]}:{first[1]:02} to {last[0]:02}:{last[1]:02}"
    expected = []
    for day in range(-1, 3):
        midnight = instant.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=day)
        begin = midnight + timedelta(hours=first[0], minutes=first[1])
        end = midnight + timedelta(hours=last[0], minutes=last[1], days=first > last)
        while begin <= end:
            expected.append(begin)
            begin += step

    assert parse(text).next_after(instant) == min(at for at in expected if at > instant)


@pytest.mark.parametrize(
    ("expression", "times"),
    [
        ("every 2 hours from 10:00 to 14:00", ["03-01 10:00", "03-01 12:00", "03-01 14:00", "03-02 10:00"]),
        ("every 3 hours from 22:00 to 04:00", ["03-01 01:00", "03-01 04:00", "03-01 22:00", "03-02 01:00"]),
        ("every 5 hours from 10:00 to 14:00", ["03-01 10:00", "03-02 10:00"]),
        ("every 30 mins from 9:00 to 9:45 on mon", ["03-02 09:00", "03-02 09:30", "03-09 09:00"]),
        ("every 12 hours synchronized", ["03-01 12:00", "03-02 00:00", "03-02 12:00"]),
        ("every 8 hours synchronized on tue", ["03-03 00:00", "03-03 08:00", "03-03 16:00", "03-10 00:00"]),
        ("every 24 mins synchronized", ["03-01 00:24", "03-01 00:48"]),
        ("every 10 hours on mon,wed", ["03-02 00:00", "03-02 10:00", "03-02 20:00", "03-04 00:00"]),
        ("every minute", ["03-01 00:01", "03-01 00:02"]),
        ("1st of month 00:00", ["04-01 00:00", "05-01 00:00"]),
        ("31st of month 00:00", ["03-31 00:00", "05-31 00:00"]),
        ("first,thirtyfirst of april,may 1:00", ["04-01 01:00", "05-01 01:00", "05-31 01:00"]),
        ("03 of month 12:34", ["03-03 12:34", "04-03 12:34"]),
        ("29 of feb 12:00", ["02-29 12:00"]),
        ("1 of quarter 00:00", ["04-01 00:00", "07-01 00:00", "10-01 00:00", "01-01 00:00"]),
        ("second,4th tue,thursday of 3rd month of quarter 18:30", ["03-10 18:30", "03-12 18:30", "03-24 18:30"]),
        ("15th of 1st,third month of quarter 4:30", ["03-15 04:30", "04-15 04:30", "06-15 04:30"]),
        ("1st,third tuesday 12:30", ["03-03 12:30", "03-17 12:30", "04-07 12:30"]),
        ("every wed of december 00:00", ["12-02 00:00", "12-09 00:00"]),
        ("every day of may 18:00", ["05-01 18:00", "05-02 18:00"]),
    ],
)
def test_english_like_due_times(expression, times):
    """English-like schedules are due at the times that their sources describe."""
    assert due(expression, len(times)) == times


def test_intervals_start_on_a_minute():
    """An interval that starts within a minute is due at the start of a minute."""
    start = START.replace(hour=5, minute=7, second=42)

    assert parse("every 90 minutes").next_after(start) == START.replace(hour=6, minute=37)


def test_ranges_follow_the_time_zone():
    """Ranges and synchronized intervals follow the clock of the time zone."""
    assert due("every 12 hours synchronized", 2, time_zone="Asia/Tokyo") == ["03-01 03:00", "03-01 15:00"]
    assert due("every 1 hours from 9:00 to 10:00", 2, time_zone="Asia/Tokyo") == ["03-01 01:00", "03-02 00:00"]


@given(st.text(alphabet="every 0123456789minuteshouro:,fqat", max_size=40))
def test_any_text_is_parsed_or_refused(text):
    """The English-like parser accepts or refuses any text; it never fails in another way."""
    try:
        english.parse(text, ZoneInfo("Etc/UTC"))
    except english.InvalidSchedule:
        return
