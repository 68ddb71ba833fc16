"""Schedules in words, and that the words are exact."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice

import pytest
from django.utils.translation import override
from hypothesis import assume, given
from hypothesis import strategies as st

from cloudrun_jobs import cron
from cloudrun_jobs.dashboard.jobs.schedule_words import schedule_text
from tests.cron.grammar import cron_expressions, english_expressions

WORDS = {
    "* * * * *": "Every minute",
    "*/1 * * * *": "Every minute",
    "*/5 * * * *": "Every 5 minutes",
    "0,30 * * * *": "Every 30 minutes",
    "0 * * * *": "Every hour on the hour",
    "5 * * * *": "At minute 5 of every hour",
    "*/25 * * * *": "At minutes 0, 25 and 50 of every hour",
    "30 */2 * * *": "Every 2 hours from 00:30 to 22:30",
    "0 */5 * * *": "Every 5 hours from 00:00 to 20:00",
    "0 */12 * * *": "Every day at 00:00 and 12:00",
    "30 9,12,18 * * *": "Every day at 09:30, 12:30 and 18:30",
    "5 9 * * 1-5": "At 09:05, Monday to Friday",
    "*/15 9-17 * * MON-FRI": "Every 15 minutes from 09:00 to 17:45, Monday to Friday",
    "* 9 * * *": "Every minute from 09:00 to 09:59",
    "0 9-17 * * *": "Every hour from 09:00 to 17:00",
    "0 0 * * 7": "At 00:00, every Sunday",
    "0 0 * * 0,6": "At 00:00, every Saturday and Sunday",
    "0 0 * * FRI-SAT,SUN": "At 00:00, Friday to Sunday",
    "0 0 * * 0-4": "At 00:00, Sunday to Thursday",
    "0 0 1 * *": "At 00:00, on day 1 of the month",
    "0 0 1,15,31 * *": "At 00:00, on days 1, 15 and 31 of the month",
    "0 0 1-7 * *": "At 00:00, on days 1 to 7 of the month",
    "0 0 1 1,7 *": "At 00:00, on day 1 of January and July",
    "0 0 1-5 NOV-DEC,1 *": "At 00:00, on days 1 to 5 of November to January",
    "0 0 29 2 *": "At 00:00, on day 29 of February",
    "0 0 * 6 MON,WED": "At 00:00, every Monday and Wednesday in June",
    "0 0 * 6 1-3": "At 00:00, Monday to Wednesday in June",
    "*/10 * * 3 *": "Every 10 minutes, every day in March",
    "0 9 1-31 * 1": "Every day at 09:00",
}
# What no short sentence says exactly.
NO_WORDS = [
    "0 9 1 * 1",  # Due on either day.
    "0 9 */2 * MON",
    "0 9 */2 * *",
    "0 9 31 1,4 *",  # April has no such day.
    "0 9 30,31 2,3 *",
    "1-59/2 * * * *",
    "* 9,17 * * *",
    "5,10,20 */2 * * *",
    "0 0 31 2 *",
    "@daily",
    "0 9 * *",
    "",
]


@pytest.mark.parametrize("expression", WORDS)
def test_schedule_is_put_into_words(expression: str) -> None:
    """A sentence has the times, and those of days and months that are restricted."""
    assert schedule_text(expression) == WORDS[expression]


@pytest.mark.parametrize("expression", NO_WORDS)
def test_schedule_without_exact_sentence_has_no_words(expression: str) -> None:
    """A schedule that no short sentence says exactly, and an invalid one, have no words."""
    assert schedule_text(expression) == ""


@given(english_expressions())
def test_english_like_schedule_is_its_own_words(expression: str) -> None:
    """An English-like schedule of Cloud Scheduler is returned as it is."""
    assert schedule_text(expression) == expression


def test_names_of_days_are_in_the_language_of_the_page() -> None:
    """The names of days and months are translated with the sentence."""
    with override("ja"):
        assert "月曜日" in schedule_text("0 9 * 6 MON")
        assert "6月" in schedule_text("0 9 * 6 MON")


SIMPLE = st.tuples(
    st.sampled_from(["0", "5", "*", "*/5", "*/7", "0,30", "10-20", "*/20", "3-59/10"]),
    st.sampled_from(["*", "0", "9", "*/2", "*/5", "9-17", "9,18", "1-23/2", "22-23"]),
    st.sampled_from(["*", "*", "1", "15,1", "1-7", "31", "*/15", "2-30/14"]),
    st.sampled_from(["*", "*", "2", "JAN-MAR", "1,7", "11-12,1", "*/3"]),
    st.sampled_from(["*", "*", "1-5", "0", "SAT,SUN", "5-7", "1,3,5", "0-6"]),
).map(" ".join)


@given(SIMPLE | cron_expressions(), st.dates(date(2026, 1, 1), date(2029, 12, 31)))
def test_words_mean_the_due_times(expression: str, day: date) -> None:
    """The times that an English sentence means are those of the schedule."""
    words = schedule_text(expression)
    assume(words)
    after = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(minutes=1)
    assert [*islice(due_times(expression, after), 12)] == [*islice(meant_times(words, day), 12)]


def due_times(expression: str, after: datetime) -> Iterator[datetime]:
    """Yield the due times of a schedule in UTC."""
    while (after := cron.next_time(expression, "UTC", after)) is not None:
        yield after


# A reader of the sentences, which knows nothing of cron.

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [datetime(2026, month, 1, tzinfo=UTC).strftime("%B") for month in range(1, 13)]


def meant_times(words: str, day: date) -> Iterator[datetime]:
    """Yield the times that the sentence means, from a day on."""
    sentence = re.fullmatch(
        r"(?P<time>Every day at .+?|At minutes? .+ of every hour|At [\d:, and]+?|Every (?!day).+?)"
        r"(?:, (?P<date>(?:every|on) .+|[A-Z][a-z]+ to .+))?",
        words,
    )
    assert sentence, words
    times = meant_minutes(sentence["time"])
    while True:
        if is_meant(sentence["date"] or "", day):
            midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
            yield from (midnight + timedelta(minutes=minute) for minute in times)
        day += timedelta(days=1)


def meant_minutes(text: str) -> list[int]:
    """Return the minutes of a day, since midnight."""
    if found := re.fullmatch(r"At minutes? (.+) of every hour", text):
        return [60 * hour + int(minute) for hour in range(24) for minute in items(found[1])]
    if found := re.fullmatch(r"Every (?:(\d+) )?(minute|hour)s?(?: on the hour| from (.+) to (.+))?", text):
        unit = 60 if found[2] == "hour" else 1
        last = clock(found[4]) if found[4] else 24 * 60 - 1
        return [*range(clock(found[3] or "00:00"), last + 1, unit * int(found[1] or 1))]
    return [clock(item) for item in items(re.sub("^(At|Every day at) ", "", text))]


def is_meant(text: str, day: date) -> bool:
    """Return True if the day is among those of the text."""
    dates = r"(?:on days? (?P<days>[\d, andto]+) of|every day in|(?:every )?(?P<weekdays>.+?)(?: in|$))"
    found = re.fullmatch(rf"{dates} ?(?:the month|(?P<months>.+))?|", text)
    assert found, text
    return (
        (not found["days"] or day.day in span(found["days"], [*map(str, range(32))]))
        and (not found["weekdays"] or day.weekday() in span(found["weekdays"], DAYS))
        and (not found["months"] or day.month - 1 in span(found["months"], MONTHS))
    )


def span(text: str, names: list[str]) -> list[int]:
    """Return the numbers of the names of a list, or of a range that may wrap."""
    if " to " not in text:
        return [names.index(name) for name in items(text)]
    first, last = map(names.index, text.split(" to "))
    return [*range(first, last + 1)] or [*range(first, len(names)), *range(last + 1)]


def items(text: str) -> list[str]:
    """Return the items of an English list."""
    return re.split(", | and ", text)


def clock(text: str) -> int:
    """Return a time of day in minutes since midnight."""
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)


def test_language_without_a_translation_is_not_mixed() -> None:
    """The names of days and months are not those of Django, which has more languages."""
    with override("de"):
        assert schedule_text("0 9 1-3 10 *") == "At 09:00, on days 1 to 3 of October"
        assert schedule_text("0 9 * * 1-5") == "At 09:00, Monday to Friday"
