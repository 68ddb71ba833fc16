"""The schedules of `celery beat`: due times, the file in which beat keeps them, and what starts anew."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import time_machine
from celery import Celery, schedules
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs import cron
from cloudrun_jobs.contrib.celery.beat import CronSchedule, due_time
from tests.brute_force import due_minutes

ZURICH = ZoneInfo("Europe/Zurich")
SPRING = datetime(2026, 3, 29, tzinfo=UTC)  # 02:00 to 03:00 is skipped.
AUTUMN = datetime(2026, 10, 25, tzinfo=UTC)  # 02:00 to 03:00 comes twice.
EXPRESSIONS = ["*/7 * * * *", "30 * * * *", "0,30 2 * * *", "15 */2 * * *", "59 1-3 * * *"]
MINUTE = timedelta(minutes=1)

app = Celery("tests", broker="memory://", set_as_current=False)


def schedule(expression: str = "0 9 * * *", now: datetime = SPRING) -> CronSchedule:
    return CronSchedule(expression, "Europe/Zurich", nowfun=lambda: now, app=app)


@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from([SPRING, AUTUMN]),
    st.floats(0, 4 * 3_600),
    st.floats(0, 2 * 3_600),
)
def test_tick_is_due_if_a_due_time_has_passed(
    expression: str, day: datetime, since_midnight: float, since_last: float
) -> None:
    """It is due if the schedule names a minute since the last one; the next check is at the next due time."""
    now = day + timedelta(seconds=since_midnight)
    last = now - timedelta(seconds=since_last)
    is_due, wait = schedule(expression, now).is_due(last)
    passed = [due for due in due_minutes(expression, ZURICH, last, now) if due > last]

    assert is_due == bool(passed)
    assert now + timedelta(seconds=wait) == cron.next_time(expression, "Europe/Zurich", now)


@pytest.mark.parametrize("day", [SPRING, AUTUMN], ids=["spring", "autumn"])
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_due_time_is_one_tick(expression: str, day: datetime) -> None:
    """A beat that sleeps as long as the schedule says sends each due time of a DST change once."""
    now, end, last = day, day + timedelta(hours=5), day
    sent = []
    while now <= end:
        is_due, wait = schedule(expression, now).is_due(last)
        with time_machine.travel(now, tick=False):
            sent += [due_time(schedule(expression))] * is_due
        last = now if is_due else last
        now += timedelta(seconds=wait)

    assert sent == [due.isoformat() for due in due_minutes(expression, ZURICH, day + MINUTE, end)]


def test_missed_due_times_are_one_tick() -> None:
    """A beat that was down sends the last of the due times that it missed, and no other."""
    now = datetime(2026, 11, 26, 12, 30, tzinfo=UTC)
    hourly = schedule("0 * * * *", now)
    first = hourly.is_due(now - timedelta(hours=5))
    second = hourly.is_due(now)
    with time_machine.travel(now, tick=False):
        sent = due_time(hourly)

    assert (first, second) == ((True, 1800.0), (False, 1800.0))
    assert sent == "2026-11-26T12:00:00+00:00"


@pytest.mark.parametrize(("limit", "is_due"), [(None, True), (1800, True), (1799, False)])
def test_deadline_of_beat_is_kept(limit: int | None, is_due: bool) -> None:
    """With `beat_cron_starting_deadline`, a due time that long ago is missed."""
    now = datetime(2026, 11, 26, 12, 30, tzinfo=UTC)
    strict = Celery("strict", set_as_current=False)
    strict.conf.beat_cron_starting_deadline = limit
    hourly = CronSchedule("0 * * * *", "Etc/UTC", nowfun=lambda: now, app=strict)

    assert hourly.is_due(now - timedelta(hours=5))[0] is is_due


def test_schedules_with_the_same_due_times_are_equal() -> None:
    """Equality and pickles have the expression and the time zone, and neither the app nor the clock."""
    other = CronSchedule("0 9 * * *", "Europe/Zurich")
    copy = pickle.loads(pickle.dumps(schedule()))

    assert copy == schedule() == other
    assert hash(copy) == hash(other)
    assert schedule() != CronSchedule("0 9 * * *", "Asia/Tokyo")
    assert schedule() != CronSchedule("0 8 * * *", "Europe/Zurich")
    assert schedule() != schedules.schedule(60)
    assert (repr(other), schedule().remaining_estimate(SPRING)) == (
        "<0 9 * * * Europe/Zurich>",
        timedelta(hours=7),
    )
