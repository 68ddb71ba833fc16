"""Schedules of jobs on Celery: `celery beat` sends each tick, and a worker records its run.

A tick is identified by its due time, which beat computes: the ticks of several beats, and of redelivered messages,
are one run. A project's `celery.py` may be imported before Django is ready, so models are imported late.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from celery import shared_task
from celery.beat import BeatLazyFunc
from celery.schedules import BaseSchedule, schedstate
from django.apps import apps
from django.db import Error

from cloudrun_jobs import cron
from cloudrun_jobs.exceptions import CloudRunJobsError, InvalidJob, RecordTablesMissing
from cloudrun_jobs.signals import message_rejected
from cloudrun_jobs.spec.tick import ScheduleTick

if TYPE_CHECKING:
    from cloudrun_jobs.spec import JobSpec

TICK_TASK = "cloudrun_jobs.tick"
BEAT = "celery beat"  # The requester of the runs.

# A worker of an earlier deployment retries a tick that it does not know, so that another worker may receive it.
RETRY_DELAY_SECONDS, MAX_RETRIES = 5, 720

# Beat waits for a broker that is unavailable. By default it drops a tick after a second.
PUBLISH_RETRY_POLICY = {"max_retries": None, "interval_start": 0, "interval_step": 1, "interval_max": 5}


class CronSchedule(BaseSchedule):  # type: ignore[misc]  # Celery has no types.
    """A schedule of beat whose due times are those of a cron expression of Cloud Scheduler, in a time zone."""

    def __init__(self, expression: str, time_zone: str, **options: Any) -> None:
        super().__init__(**options)
        self.expression = expression
        self.time_zone = time_zone

    def __reduce__(self) -> tuple[type[CronSchedule], tuple[str, str]]:
        return type(self), (self.expression, self.time_zone)  # Beat keeps its entries in a file.

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CronSchedule) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash(self.__reduce__())

    def __repr__(self) -> str:
        return f"<{self.expression} {self.time_zone}>"

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time until the first due time after `last_run_at`; negative if it has passed."""
        return _next_time(self, self._aware(last_run_at)) - self._aware(self.now())

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Return True if a due time has passed since `last_run_at`, and the seconds until the next due time.

        Several due times that have passed are one tick.
        """
        now = self._aware(self.now())
        due, limit = _last_time(self, now), self.app.conf.beat_cron_starting_deadline
        is_too_late = limit is not None and now - due > timedelta(seconds=limit)
        seconds = (_next_time(self, now) - now).total_seconds()
        return schedstate(due > self._aware(last_run_at) and not is_too_late, seconds)

    def _aware(self, moment: datetime) -> datetime:
        aware: datetime = self.maybe_make_aware(moment)
        return aware.astimezone(UTC)


def _next_time(schedule: CronSchedule, after: datetime) -> datetime:
    # None only for English-like schedules, which have no entry.
    return cast("datetime", cron.next_time(schedule.expression, schedule.time_zone, after))


def _last_time(schedule: CronSchedule, before: datetime) -> datetime:
    return cast("datetime", cron.last_time(schedule.expression, schedule.time_zone, before))


def due_time(schedule: CronSchedule) -> str:
    """Return the due time of the tick that beat sends now, in ISO 8601."""
    return _last_time(schedule, datetime.now(UTC)).isoformat()


class BeatSchedule(MutableMapping[str, Any]):
    """The entries of beat by name, which the first read of one computes. The project may add its own."""

    def __init__(self) -> None:
        self._entries: dict[str, Any] = {}
        self._is_complete = False

    def _complete(self) -> dict[str, Any]:
        if not self._is_complete:
            self._entries = {**_declared_entries(), **self._entries}
            self._is_complete = True
        return self._entries

    def __getitem__(self, name: str) -> Any:
        return self._complete()[name]

    def __setitem__(self, name: str, entry: Any) -> None:
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._complete()[name]

    def __contains__(self, name: object) -> bool:
        # Celery looks for the name of an entry that the project adds, in every process.
        is_declared = isinstance(name, str) and ScheduleTick.decode(name) is not None
        return name in (self._complete() if is_declared else self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._complete())

    def __len__(self) -> int:
        return len(self._complete())

    def __repr__(self) -> str:
        return "beat_schedule()"


def beat_schedule() -> BeatSchedule:
    """Return an entry of `celery beat` for each schedule of the jobs on Celery:

        app.conf.beat_schedule = beat_schedule()

    Beat reads it once Django is ready; `update()` adds entries of the project. The read raises `InvalidJob` for an
    English-like schedule, whose due times cannot be computed.
    """
    return BeatSchedule()


def _declared_entries() -> dict[str, Any]:
    from cloudrun_jobs.registry import find_jobs

    if not apps.ready:
        message = "The entries of beat_schedule() are not known until Django is ready."
        raise CloudRunJobsError(message, hint="Assign it as it is, and add entries with its method update().")
    found = find_jobs()
    for name, error in found.unreadable.items():
        raise CloudRunJobsError(f"{name}: cannot be imported. {type(error).__name__}: {error}") from error
    return dict(entry for job in found.jobs.values() for entry in _job_entries(job.spec))


def _job_entries(spec: JobSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the entries of a job on Celery, unless Cloud Scheduler calls the web service for it."""
    from cloudrun_jobs import backends
    from cloudrun_jobs.backends.celery import CeleryBackend

    backend = backends.for_job(spec)
    if spec.target != "job" or not spec.schedules or not isinstance(backend, CeleryBackend):
        return
    if problems := list(backend.problems(spec)):
        raise InvalidJob(spec.command, problems)
    queue = {"queue": name} if (name := backend.queue_of(spec)) else {}
    for declared in spec.schedules:
        scheduler_job, zone = spec.scheduler_job_id(declared), str(declared.time_zone)
        schedule = CronSchedule(declared.cron, zone)
        entry = {
            "task": TICK_TASK,
            "schedule": schedule,
            "args": (spec.command, scheduler_job, BeatLazyFunc(due_time, schedule)),
            "options": {"retry_policy": PUBLISH_RETRY_POLICY, **queue},
        }
        # A changed schedule gets another name, so beat treats it as a new entry.
        yield ScheduleTick(scheduler_job, declared.cron, zone).encode(), entry


class UnknownTick(Exception):
    """This worker does not know the command, or its schedule. A worker of the next deployment may."""


@shared_task(  # type: ignore[untyped-decorator]
    name=TICK_TASK,
    bind=True,
    acks_late=True,
    reject_on_worker_lost=True,
    ignore_result=True,
    serializer="json",
)
def record_tick(task: Any, command: str, scheduler_job: str, due: str) -> None:
    """Record and submit the run of a tick, unless another message of this tick has."""
    try:
        _record(command, scheduler_job, due)
    except (UnknownTick, Error, RecordTablesMissing) as error:
        if task.request.retries < MAX_RETRIES:
            raise task.retry(exc=error, countdown=RETRY_DELAY_SECONDS, max_retries=MAX_RETRIES) from error
        _reject(task, scheduler_job, due, error)
    except (CloudRunJobsError, ValueError) as error:
        _reject(task, scheduler_job, due, error)


def _record(command: str, scheduler_job: str, due: str) -> None:
    """Record the run, and submit it. Raises `UnknownTick`; `ValueError` for a message that beat did not send."""
    from cloudrun_jobs import enqueue
    from cloudrun_jobs.contrib.celery.task import find_command
    from cloudrun_jobs.deploy import schedules
    from cloudrun_jobs.models import Trigger
    from cloudrun_jobs.runs.requester import requested_by

    at = datetime.fromisoformat(due)
    if at.tzinfo is None:
        raise ValueError(f"the due time {due!r} has no time zone.")
    job, failure = find_command(command)
    if job is None:
        raise UnknownTick(failure)
    spec = job.spec
    if not f"{scheduler_job}-".startswith(f"{spec.name}-"):
        raise ValueError(f"it is not of the environment {spec.environment!r}.")
    declared = {spec.scheduler_job_id(each): each for each in spec.schedules}
    if scheduler_job not in declared:
        raise UnknownTick(f"the job {command!r} has no such schedule.")
    arguments = schedules.start_arguments(job, spec, declared[scheduler_job])
    with requested_by(BEAT):
        enqueue.submit_trigger(job, arguments, trigger=Trigger.SCHEDULE, schedule=scheduler_job, scheduled_for=at)


def _reject(task: Any, scheduler_job: str, due: str, error: Exception) -> None:
    from cloudrun_jobs.models import JobRun

    rejection = CloudRunJobsError(f"The tick of {scheduler_job} at {due}: {error}")
    message_rejected.send_robust(JobRun, task_id=str(task.request.id), error=rejection)
