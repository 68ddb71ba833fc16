"""Schedules: what Cloud Scheduler accepts passes, what it refuses is refused with the fix."""

from __future__ import annotations

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs import cron
from cloudrun_jobs.exceptions import InvalidSchedule

ACCEPTED = [
    "* * * * *",
    "0 9 * * 1-5",
    "*/5 0-23/2 1,15 JAN-MAR SUN,6-7",
    "0 0 1 * SAT",
    "59 23 31 12 7",
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
    "0 9 * * *\n": "got '*\\n'",
    "0  9 * * *": "got 6",
    "00 009 * * *": "hour: expected 0-23, got '009'",
    "0 of jan 12:34": "English-like",
    "every 0 minutes": "Examples: 'every 5 minutes'",
    "every day 25:00": "English-like",
    "6th monday of month 9:00": "English-like",
}


@pytest.mark.parametrize("expression", ACCEPTED)
def test_what_cloud_scheduler_accepts_passes(expression: str) -> None:
    """Each form of Google's documentation passes."""
    cron.validate(expression)


@pytest.mark.parametrize("expression", REFUSED)
def test_what_cloud_scheduler_refuses_is_refused(expression: str) -> None:
    """The message names the field and says what to write instead."""
    with pytest.raises(InvalidSchedule) as refusal:
        cron.validate(expression)

    assert REFUSED[expression] in str(refusal.value)


NUMBER = st.integers(0, 62).map(str)
SPAN = st.just("*") | NUMBER | st.tuples(NUMBER, NUMBER).map("-".join) | st.sampled_from(["MON", "FEB", "MON-FRI"])
ITEM = SPAN | st.tuples(SPAN, NUMBER).map("/".join)
FIELD = st.just("*") | st.lists(ITEM, min_size=1, max_size=3).map(",".join)


@given(st.lists(FIELD, min_size=5, max_size=5))
def test_what_passes_is_cron(fields: list[str]) -> None:
    """Each field that passes the gate is one that croniter reads too."""
    for position, text in enumerate(fields):
        expression = " ".join([*["*"] * position, text, *["*"] * (4 - position)])
        try:
            cron.validate(expression)
        except InvalidSchedule:
            continue

        assert croniter.is_valid(expression)
