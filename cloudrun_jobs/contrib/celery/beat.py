"""Schedules of jobs on Celery: `celery beat` sends each tick, and a worker records its run.

A tick is identified by its due time, which beat computes: the ticks of several beats, and of redelivered messages,
are one run. A project's `celery.py` may be imported before Django is ready, so models are imported late.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from celery.beat import BeatLazyFunc
from celery.schedules import BaseSchedule, schedstate
from django.apps import apps

from cloudrun_jobs import cron
from cloudrun_jobs.cron.english import is_english
from cloudrun_jobs.exceptions import CloudRunJobsError, InvalidSchedule
from cloudrun_jobs.spec.tick import ScheduleTick

if TYPE_CHECKING:
    from cloudrun_jobs.spec import JobSpec

TICK_TASK = "cloudrun_jobs.tick"

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

    Beat reads it once Django is ready; `update()` adds entries of the project. Raises `InvalidSchedule` for
    English-like schedules, whose due times cannot be computed, when beat reads it.
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
    specs = [job.spec for job in found.jobs.values()]
    return {name: entry for spec in specs if _is_served(spec) for name, entry in _job_entries(spec)}


def _is_served(spec: JobSpec) -> bool:
    """Return True if beat serves the job's schedules. Cloud Scheduler serves those of the web service."""
    return spec.target == "job"


def _job_entries(spec: JobSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    for declared in spec.schedules:
        check_schedule(spec, declared.cron)
        scheduler_job, zone = spec.scheduler_job_id(declared), str(declared.time_zone)
        schedule = CronSchedule(declared.cron, zone)
        entry = {
            "task": TICK_TASK,
            "schedule": schedule,
            "args": (spec.command, scheduler_job, BeatLazyFunc(due_time, schedule)),
            "options": {"retry_policy": PUBLISH_RETRY_POLICY},
        }
        # A changed schedule has another name, and begins anew.
        yield ScheduleTick(scheduler_job, declared.cron, zone).encode(), entry


def check_schedule(spec: JobSpec, expression: str) -> None:
    """Raise `InvalidSchedule` if beat cannot compute the due times of the schedule."""
    if is_english(expression):
        message = f"{spec.command}: celery beat cannot serve the English-like schedule {expression!r}."
        raise InvalidSchedule(message, hint="Write it as a cron expression of five fields, such as '*/5 * * * *'.")
