"""`celery beat` sends the ticks of the schedules, and the task that it sends records one run of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import time_machine
from celery import Celery
from celery.beat import PersistentScheduler, Scheduler
from celery.exceptions import Retry
from django.db import OperationalError
from django.db.models import Q

from cloudrun_jobs import signals
from cloudrun_jobs.contrib.celery import beat, beat_schedule
from cloudrun_jobs.exceptions import CloudRunJobsError, InvalidJob, ServiceUnavailable
from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs import dispatch
from cloudrun_jobs.runs.reconcile import reconcile_all
from cloudrun_jobs.spec import Schedule
from tests.contrib.recording import ON_QUEUE, RecordingQueue
from tests.jobs.management.commands import echo

NOON = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def app() -> Iterator[Celery]:
    """Return an app with a broker in this process."""
    app = Celery("tests", broker="memory://", set_as_current=False)
    app.conf.beat_schedule = beat_schedule()
    yield app
    app.close()


@pytest.fixture(autouse=True)
def queue(settings: Any, monkeypatch: pytest.MonkeyPatch) -> type[RecordingQueue]:
    """Run the job `echo` on a queue."""
    settings.CLOUDRUN_JOBS = ON_QUEUE
    monkeypatch.setattr(RecordingQueue, "sent", [])
    return RecordingQueue


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Declare attributes of the job `echo`."""

    def declare(**attributes: Any) -> None:
        for name, value in attributes.items():
            monkeypatch.setattr(echo.Command, name, value, raising=False)

    return declare


def pass_time(schedulers: list[Scheduler], clock: Any, end: datetime) -> None:
    """Let each scheduler do what is due, second by second, until the end."""
    while datetime.now(UTC) < end:
        for scheduler in schedulers:
            while scheduler.tick() == 0:
                pass
        clock.shift(1)


def messages(app: Celery, queue: str = "ingest") -> list[tuple[str, list[Any]]]:
    """Take the messages from the queue; return the task and the arguments of each."""
    found = []
    with app.connection_for_read() as connection, connection.SimpleQueue(queue) as waiting:
        while len(waiting):
            message = waiting.get_nowait()
            found.append((message.headers["task"], message.payload[0]))
            message.ack()
    return found


def test_entry_of_each_schedule(declare: Callable[..., None]) -> None:
    """A changed schedule has another name; the message has the command, the Scheduler job and the due time."""
    declare(
        time_zone="Asia/Seoul",
        queue="other",
        schedule=[
            Schedule("0 9 * * 1-5", args={"partner": 7}),
            Schedule("0 12 * * SAT", time_zone="UTC", name="w"),
        ],
    )
    with time_machine.travel(NOON, tick=False):
        entries = {
            name: (
                each["task"],
                each["schedule"],
                [*each["args"][:2], each["args"][2]()],
                each["options"]["queue"],
            )
            for name, each in beat_schedule().items()
        }

    monday, saturday = beat.CronSchedule("0 9 * * 1-5", "Asia/Seoul"), beat.CronSchedule("0 12 * * SAT", "UTC")
    assert entries == {
        "echo-production-1|0 9 * * 1-5|Asia/Seoul": (
            "cloudrun_jobs.tick",
            monday,
            ["echo", "echo-production-1", "2026-11-26T00:00:00+00:00"],
            "other",
        ),
        "echo-production-w|0 12 * * SAT|UTC": (
            "cloudrun_jobs.tick",
            saturday,
            ["echo", "echo-production-w", "2026-11-21T12:00:00+00:00"],
            "other",
        ),
    }


@pytest.mark.parametrize(
    "change",
    [{"target": "service"}, {"backend": "default"}, {"schedule": None}],
    ids=str,
)
def test_other_schedules_have_no_entry(declare: Callable[..., None], change: dict[str, Any]) -> None:
    """Cloud Scheduler serves the schedules of the web service, and those of jobs on Cloud Run."""
    declare(**{"schedule": "* * * * *", **change})

    assert dict(beat_schedule()) == {}


def test_english_like_schedule_is_refused(declare: Callable[..., None]) -> None:
    """Beat cannot compute its due times; the error names the command and the schedule."""
    declare(schedule="every 5 minutes")
    with pytest.raises(InvalidJob) as refusal:
        dict(beat_schedule())

    assert "echo" in str(refusal.value)
    assert "'every 5 minutes'" in str(refusal.value)


def test_command_that_cannot_be_imported_is_reported(settings: Any) -> None:
    """Beat does not start without the schedules that the command may have."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.invalid_commands"]
    with pytest.raises(CloudRunJobsError, match=r"^broken: cannot be imported"):
        dict(beat_schedule())


def test_project_adds_entries(declare: Callable[..., None], app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries may be added before Django is ready, by Celery too. Those of the jobs can be deleted."""
    declare(schedule=["* * * * *", "0 9 * * *"])
    entries = app.conf.beat_schedule
    with monkeypatch.context() as starting:
        starting.setattr(beat.apps, "ready", False)
        entries.update(own={"task": "own", "schedule": 60})
        app.add_periodic_task(60, app.signature("periodic"), name="periodic")
        with pytest.raises(CloudRunJobsError, match=r"until Django is ready.*update\(\)"):
            dict(entries)
    first, second = "echo-production-1|* * * * *|Asia/Tokyo", "echo-production-2|0 9 * * *|Asia/Tokyo"
    found = (len(entries), first in entries)
    del entries[first]

    assert (found, set(entries)) == ((4, True), {"own", "periodic", second})
    assert repr(entries) == "beat_schedule()"


def test_two_beats_make_one_run_of_each_tick(
    app: Celery, declare: Callable[..., None], queue: type[RecordingQueue]
) -> None:
    """Each sends each tick with the same due time, so the runs are those of one."""
    declare(schedule="*/2 * * * *", time_zone="Etc/UTC")
    with time_machine.travel(NOON + timedelta(seconds=5), tick=False) as clock:
        first = Scheduler(app)
        pass_time([first], clock, NOON + timedelta(seconds=40))  # The clocks of two machines differ.
        second = Scheduler(app)
        pass_time([first, second], clock, NOON + 5 * MINUTE)
        clock.shift(3600)  # Before any worker has time.
        sent = messages(app)
        for _, args in sent:
            beat.record_tick(*args)
    runs = list(JobRun.objects.order_by("scheduled_for"))

    due = [NOON + 2 * MINUTE, NOON + 4 * MINUTE]
    assert sent == [
        ("cloudrun_jobs.tick", ["echo", "echo-production", moment.isoformat()]) for moment in due for _ in range(2)
    ]
    assert [(run.scheduled_for, run.schedule, run.trigger) for run in runs] == [
        (moment, "echo-production", Trigger.SCHEDULE) for moment in due
    ]
    assert [(run.status, run.backend, run.queue, run.requested_by) for run in runs] == [
        (Status.SENT, "celery", "ingest", "celery beat")
    ] * 2
    assert [request.run_id for request in queue.sent] == [str(run.pk) for run in runs]


def test_beat_that_was_down_sends_the_last_tick(app: Celery, declare: Callable[..., None], tmp_path: Path) -> None:
    """Its file has the time of its last tick: of the ticks that it missed it sends one, of a new schedule none."""
    declare(schedule="0 * * * *", time_zone="Etc/UTC")
    open_file = partial(PersistentScheduler, app, schedule_filename=str(tmp_path / "schedule"))
    with time_machine.travel(NOON + MINUTE, tick=False) as clock:
        scheduler = open_file()
        pass_time([scheduler], clock, NOON + 2 * MINUTE)
        scheduler.close()
        clock.shift(timedelta(hours=4))
        scheduler = open_file()
        pass_time([scheduler], clock, NOON + timedelta(hours=4, minutes=3))
        scheduler.close()
        missed = messages(app)
        declare(schedule="30 * * * *")
        app.conf.beat_schedule = beat_schedule()
        scheduler = open_file()
        pass_time([scheduler], clock, NOON + timedelta(hours=4, minutes=4))
        scheduler.close()

    assert missed == [("cloudrun_jobs.tick", ["echo", "echo-production", "2026-11-26T16:00:00+00:00"])]
    assert messages(app) == []


def tick(due: datetime = NOON, command: str = "echo", scheduler_job: str = "echo-production") -> None:
    beat.record_tick(command, scheduler_job, due.isoformat())


def test_run_has_the_arguments_of_its_schedule(declare: Callable[..., None]) -> None:
    """They are those that the Scheduler job would send."""
    declare(schedule=[Schedule("0 9 * * *", args={"partner": 7}), Schedule("0 9 * * *", name="all")])
    tick(scheduler_job="echo-production-1")
    tick(scheduler_job="echo-production-all")

    assert {run.schedule: run.argv for run in JobRun.objects.all()} == {
        "echo-production-1": ["echo", "--partner=7"],
        "echo-production-all": ["echo"],
    }


def test_reconcile_submits_a_run_that_could_not_be_sent(
    declare: Callable[..., None], queue: type[RecordingQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tick is recorded although the broker is unavailable, and another message of it changes nothing."""
    declare(schedule="0 9 * * *")
    monkeypatch.setattr(dispatch, "retry_with_backoff", lambda step, seconds: step(seconds))
    with monkeypatch.context() as outage:
        outage.setattr(queue, "error", ServiceUnavailable("The broker is unavailable."))
        tick()
        tick()
    run = JobRun.objects.get()
    pending = run.status
    run.update_if(Q(), sending_until=Now() - MINUTE)
    reconcile_all()

    assert (pending, [request.run_id for request in queue.sent]) == (Status.PENDING, [str(run.pk)])


def test_tick_of_a_run_that_failed_is_not_repeated(
    declare: Callable[..., None], queue: type[RecordingQueue]
) -> None:
    """A second message of a tick is that of another beat, not a retry."""
    declare(schedule="0 9 * * *")
    tick()
    JobRun.objects.update(status=Status.FAILED, reason="exit_code")
    tick()

    assert (JobRun.objects.count(), len(queue.sent)) == (1, 1)


@pytest.fixture
def rejected() -> Iterator[list[dict[str, Any]]]:
    """Return the signals of rejected messages."""
    received: list[dict[str, Any]] = []

    def receive(**values: Any) -> None:
        received.append(values)

    signals.message_rejected.connect(receive)
    yield received
    signals.message_rejected.disconnect(receive)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("echo", "echo-staging", NOON.isoformat()), "it is not of the environment 'production'"),
        (("echo", "nightly-production", NOON.isoformat()), "it is not of the environment 'production'"),
        (("echo", "echo-production", "noon"), "Invalid isoformat string: 'noon'"),
        (("echo", "echo-production", "2026-11-26T12:00:00"), "has no time zone"),
    ],
)
def test_invalid_message_is_dropped(
    declare: Callable[..., None],
    rejected: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
    args: tuple[str, ...],
    message: str,
) -> None:
    """It is logged, and the worker acknowledges it."""
    declare(schedule="0 9 * * *")
    beat.record_tick(*args)

    assert not JobRun.objects.exists()
    assert message in str(rejected[0]["error"])
    assert [record.__dict__["action"] for record in caplog.records] == ["message_rejected"]


def test_invalid_arguments_of_a_schedule_are_reported(
    declare: Callable[..., None], rejected: list[dict[str, Any]]
) -> None:
    """The command does not accept them, and no later message would help."""
    declare(schedule=Schedule("0 9 * * *", args={"unknown": 7}))
    tick()

    assert "unknown" in str(rejected[0]["error"])


@pytest.mark.parametrize(
    "args",
    [("later", "later-production"), ("echo", "echo-production-later"), ("broken", "broken-production")],
    ids=["command", "schedule", "module"],
)
def test_unknown_schedule_waits_for_a_newer_worker(
    app: Celery,
    declare: Callable[..., None],
    settings: Any,
    rejected: list[dict[str, Any]],
    args: tuple[str, str],
) -> None:
    """A worker of an earlier deployment sends the message again with a delay, for an hour."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.invalid_commands"]
    declare(schedule="0 9 * * *")
    task = app.tasks["cloudrun_jobs.tick"]
    found = []
    for retries in (0, 719, 720):
        task.push_request(id="1", args=[*args, NOON.isoformat()], retries=retries, called_directly=False)
        try:
            task.run(*args, NOON.isoformat())
        except Retry as retry:
            found.append(retry.when)
        finally:
            task.pop_request()

    assert found == [5, 5]
    assert [sent[1] for sent in messages(app, "celery")] == [[*args, NOON.isoformat()]] * 2
    assert len(rejected) == 1


def test_database_that_is_unavailable_delays_the_tick(
    declare: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is sent again, as that of an unknown schedule."""
    declare(schedule="0 9 * * *")

    def insert(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("the server closed the connection unexpectedly")

    monkeypatch.setattr(JobRun, "save", insert)
    with pytest.raises(OperationalError):  # Called directly, the task raises the error of its retry.
        tick()
