"""The text by which a container learns of its schedule."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.spec.tick import SCHEDULER_JOB_PATTERN, ScheduleTick

STARTED = datetime(2026, 5, 1, 3, 0, 40, tzinfo=UTC)
PARTS = st.text(min_size=1).filter(lambda text: "|" not in text)


@given(st.from_regex(SCHEDULER_JOB_PATTERN, fullmatch=True), PARTS, PARTS)
def test_decode_returns_what_encode_wrote(scheduler_job: str, cron: str, time_zone: str) -> None:
    """Every tick survives the round trip."""
    tick = ScheduleTick(scheduler_job, cron, time_zone)

    assert ScheduleTick.decode(tick.encode()) == tick


@given(st.text() | st.lists(st.text()).map("|".join))
def test_decode_takes_no_other_text(text: str) -> None:
    """A text is either the encoding of one tick or None."""
    tick = ScheduleTick.decode(text)

    assert tick is None or tick.encode() == text


@pytest.mark.parametrize("text", ["", "nightly", "nightly|0 3 * * *", "nightly|0 3 * * *|", "a|b|c|d", "|x|y"])
def test_malformed_text_is_no_tick(text: str) -> None:
    """A text with a part missing, or one too many, names no schedule."""
    assert ScheduleTick.decode(text) is None


@given(st.text(), st.text())
def test_due_time_never_raises(cron: str, time_zone: str) -> None:
    """A schedule that is not valid has no due time, and its run starts all the same."""
    assert ScheduleTick("nightly", cron, time_zone).due(STARTED) is None


@pytest.mark.parametrize(
    ("cron", "time_zone", "due"),
    [
        ("0 3 * * *", "Etc/UTC", datetime(2026, 5, 1, 3, tzinfo=UTC)),
        ("1 3 * * *", "Etc/UTC", datetime(2026, 4, 30, 3, 1, tzinfo=UTC)),
        ("0 12 * * *", "Asia/Tokyo", datetime(2026, 5, 1, 3, tzinfo=UTC)),
        ("every day 03:00", "Etc/UTC", None),
        ("0 3 * * *", "Asia/Tokio", None),
        ("0 3 * * *", "../etc/passwd", None),
        ("0 3 L * *", "Etc/UTC", None),
    ],
)
def test_due_time_is_the_last_one_before_the_start(cron: str, time_zone: str, due: datetime | None) -> None:
    """It is computed from the schedule's expression and zone."""
    assert ScheduleTick("nightly", cron, time_zone).due(STARTED) == due


def test_clock_of_cloud_scheduler_may_be_ahead() -> None:
    """An execution that starts seconds before its time belongs to that time."""
    tick, early = ScheduleTick("nightly", "0 3 * * *", "Etc/UTC"), datetime(2026, 5, 1, 2, 59, 56, tzinfo=UTC)

    assert tick.due(early) == datetime(2026, 5, 1, 3, tzinfo=UTC)
