"""The heartbeat: by the server's clock, from the start of an attempt to its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Event

import pytest
import time_machine

from cloudrun_jobs.execution import heartbeat
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.models import JobRun, TaskRun
from cloudrun_jobs.models.functions import Now
from tests.runs.conftest import begin, request
from tests.waiting import wait_for

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the intervals."""
    monkeypatch.setattr(heartbeat, "PROGRESS_INTERVAL", 0.05)
    monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 0.2)


@pytest.mark.usefixtures("_fast")
def test_heartbeats_need_no_progress() -> None:
    """A job that reports no progress sends heartbeats."""
    with begin(request()):
        TaskRun.objects.update(heartbeat_at=LONG_AGO)

        assert wait_for(lambda: TaskRun.objects.exclude(heartbeat_at=LONG_AGO).first())


@pytest.mark.usefixtures("_fast")
@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_heartbeats_use_the_servers_time(ahead: timedelta) -> None:
    """A machine whose clock is an hour off writes the server's time."""
    with time_machine.travel(datetime.now(UTC) + ahead), begin(request()):
        TaskRun.objects.update(heartbeat_at=LONG_AGO)
        wait_for(lambda: TaskRun.objects.exclude(heartbeat_at=LONG_AGO).first())

        now = Now()
        near = TaskRun.objects.filter(heartbeat_at__gt=now - HOUR / 2, heartbeat_at__lt=now + HOUR / 2)
        assert near.exists()


def test_no_heartbeat_follows_the_end() -> None:
    """A heartbeat that was in progress at the end does not overwrite the last report."""
    with begin(request()) as attempt:
        assert isinstance(attempt, Attempt)
        attempt.heartbeat.note(9, 9, "last")
    TaskRun.objects.update(heartbeat_at=LONG_AGO)
    attempt.heartbeat.note(1, 9, "late")
    attempt.heartbeat._write()

    assert TaskRun.objects.get().heartbeat_at == LONG_AGO
    assert str(JobRun.objects.get().progress) == "9 of 9: last"


def test_a_renewal_does_not_wait_for_the_next_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease may be shorter than the time for which the thread was going to wait."""
    monkeypatch.setattr(heartbeat, "PROGRESS_INTERVAL", 60.0)
    renewed = Event()
    with begin(request()) as attempt:
        assert isinstance(attempt, Attempt)
        attempt.heartbeat.renew("lease", 0.05, renewed.set)

        assert renewed.wait(timeout=30)
