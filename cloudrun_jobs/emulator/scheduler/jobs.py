"""Scheduler jobs: create, update, pause and resume them, and deliver them at least once when due."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from google.cloud import scheduler_v1
from google.protobuf import empty_pb2

from cloudrun_jobs.emulator import field_masks, names
from cloudrun_jobs.emulator.backoff import Backoff
from cloudrun_jobs.emulator.clock import EPOCH
from cloudrun_jobs.emulator.engine.store import paginate, random_id, validated
from cloudrun_jobs.emulator.errors import ServiceError, failed_precondition, invalid
from cloudrun_jobs.emulator.http_delivery import HttpDelivery, Result, body_of
from cloudrun_jobs.emulator.project.locations import check_scheduler_region
from cloudrun_jobs.emulator.scheduler.calendar import Interval
from cloudrun_jobs.emulator.scheduler.validation import check, is_english_like, schedule_of, with_defaults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping

    from cloudrun_jobs.emulator.clock import Clock, Timer
    from cloudrun_jobs.emulator.scheduler.calendar import Schedule
    from cloudrun_jobs.emulator.scheduler.logs import DeliveryLog

State = scheduler_v1.Job.State
MAX_PAGE_SIZE = 500
# An update keeps these fields, which callers cannot set.
SERVICE_SET_FIELDS = ("state", "status", "schedule_time", "last_attempt_time")


@dataclass(slots=True, eq=False)
class Delivery:
    """The delivery of one tick, or of one call of RunJob. All attempts share the scheduled time."""

    scheduled: datetime | None
    started: datetime
    manual: bool = False
    retries: int = 0
    retry_at: datetime | None = None  # None while an attempt is in flight.
    timer: Timer | None = None  # Of the retry.

    def encode(self) -> dict[str, Any]:
        times = {name: getattr(self, name) for name in ("scheduled", "started", "retry_at")}
        texts = {name: time and time.isoformat() for name, time in times.items()}
        return {**texts, "manual": self.manual, "retries": self.retries}

    @classmethod
    def decode(cls, value: dict[str, Any]) -> Delivery:
        times = {name: value[name] and datetime.fromisoformat(value[name]) for name in ("scheduled", "retry_at")}
        started = datetime.fromisoformat(value["started"])
        return cls(times["scheduled"], started, value["manual"], value["retries"], times["retry_at"])


@dataclass(slots=True, eq=False)
class Entry:
    """A job with its parsed schedule, its next tick and its unfinished deliveries."""

    job: scheduler_v1.Job
    schedule: Schedule
    due: datetime | None = None  # The next tick.
    timer: Timer | None = None  # Of the next tick.
    delayed: datetime | None = None  # The first tick that fell due while an attempt of the last one was in flight.
    deliveries: list[Delivery] = field(default_factory=list)

    @property
    def scheduled(self) -> Delivery | None:
        """The unfinished delivery of a tick: there is at most one."""
        return next((delivery for delivery in self.deliveries if not delivery.manual), None)

    def next_attempt(self) -> datetime | None:
        """Return when the job is attempted next: for a retry, for a delayed tick, or for the next tick."""
        times = [self.due, self.delayed, *(delivery.retry_at for delivery in self.deliveries)]
        return min((time for time in times if time is not None), default=None)


@dataclass(slots=True)
class ScheduledJobs:
    clock: Clock
    http_delivery: HttpDelivery
    log: DeliveryLog
    save: Callable[[scheduler_v1.Job, list[dict[str, Any]]], None] = lambda _, __: None
    remove: Callable[[str], None] = lambda _: None
    entries: MutableMapping[str, Entry] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def create(self, request: scheduler_v1.CreateJobRequest) -> scheduler_v1.Job:
        location = _location(validated(request.parent))
        job = with_defaults(request.job)
        job.name = validated(job.name or location.job(random_id(20)), "jobs")
        if names.location_of(job.name) != location:
            raise invalid(f"Job name must begin with {location}/jobs/, got {job.name!r}.")
        check(job)
        with self._lock:
            if job.name in self.entries:
                raise ServiceError("ALREADY_EXISTS", f"Job [{job.name}] already exists.")
            job.state = State(State.ENABLED)
            return self._put(Entry(job, schedule_of(job)))

    def restore(self, job: scheduler_v1.Job, deliveries: Iterable[dict[str, Any]]) -> None:
        """Add a job that was saved by an earlier emulator; make the attempts again that it interrupted."""
        with self._lock:
            entry = self.entries[job.name] = Entry(job, schedule_of(job))
            entry.deliveries = [Delivery.decode(each) for each in deliveries]
            for delivery in entry.deliveries:
                self._set_retry(entry, delivery, delivery.retry_at or self.clock.now())
            self._arm(entry)

    def get(self, request: scheduler_v1.GetJobRequest) -> scheduler_v1.Job:
        with self._lock:
            return scheduler_v1.Job(self._existing(request.name).job)

    def listed(self, request: scheduler_v1.ListJobsRequest) -> scheduler_v1.ListJobsResponse:
        pattern = _location(validated(request.parent)).job("-")
        with self._lock:
            found = [self.entries[name].job for name in sorted(self.entries) if names.matches(pattern, name)]
            jobs, token = paginate(found, request.page_size, request.page_token, MAX_PAGE_SIZE)
            return scheduler_v1.ListJobsResponse(jobs=jobs, next_page_token=token)

    def update(self, request: scheduler_v1.UpdateJobRequest) -> scheduler_v1.Job:
        with self._lock:
            entry = self._existing(request.job.name)
            job = with_defaults(_masked(request, entry.job))
            for name in SERVICE_SET_FIELDS:
                setattr(job, name, getattr(entry.job, name))
            check(job)
            schedule = schedule_of(job)
            entry.job, entry.schedule = job, schedule
            return self._put(entry)

    def delete(self, request: scheduler_v1.DeleteJobRequest) -> Any:
        with self._lock:
            entry = self._existing(request.name)
            _cancel(entry.timer, *(delivery.timer for delivery in entry.deliveries))
            del self.entries[request.name]
            self.remove(request.name)
        return empty_pb2.Empty()

    def pause(self, request: scheduler_v1.PauseJobRequest) -> scheduler_v1.Job:
        with self._lock:
            entry = self._in_state(request.name, State.ENABLED)
            entry.delayed = None
            delivery = entry.scheduled
            if delivery is not None and delivery.retry_at is not None:
                _cancel(delivery.timer)
                entry.deliveries.remove(delivery)
            entry.job.state = State(State.PAUSED)
            return self._put(entry)

    def resume(self, request: scheduler_v1.ResumeJobRequest) -> scheduler_v1.Job:
        with self._lock:
            entry = self._in_state(request.name, State.PAUSED)
            entry.job.state = State(State.ENABLED)
            return self._put(entry)

    def run(self, request: scheduler_v1.RunJobRequest) -> scheduler_v1.Job:
        """Deliver the job now, even if it is paused or busy; return without waiting for the delivery."""
        with self._lock:
            entry = self._existing(request.name)
            now = self.clock.now()
            delivery = Delivery(entry.schedule.next_after(now), now, manual=True)
            entry.deliveries.append(delivery)
            job = scheduler_v1.Job(entry.job)
        self.clock.call_soon(lambda: self._attempt(entry, delivery))
        return job

    def _in_state(self, name: str, expected: int) -> Entry:
        entry = self._existing(name)
        if entry.job.state != expected:
            raise failed_precondition(f"Job must be {State(expected).name}, but is {State(entry.job.state).name}.")
        return entry

    def _existing(self, name: str) -> Entry:
        _location(validated(name, "jobs"))
        entry = self.entries.get(name)
        if entry is None:
            raise ServiceError("NOT_FOUND", "Job not found.")
        return entry

    def _put(self, entry: Entry) -> scheduler_v1.Job:
        entry.job.user_update_time = self.clock.now()
        self.entries[entry.job.name] = entry
        self._arm(entry)
        self._show_and_save(entry)
        return scheduler_v1.Job(entry.job)

    def _arm(self, entry: Entry, after: datetime | None = None) -> None:
        """Set the timer for the next tick. An interval is counted from the end of the last delivery."""
        _cancel(entry.timer)
        waits = isinstance(entry.schedule, Interval) and entry.scheduled is not None
        is_due = entry.job.state == State.ENABLED and not waits
        now = max(self.clock.now(), after or EPOCH)
        entry.due = due = entry.schedule.next_after(now) if is_due else None
        entry.timer = None if due is None else self.clock.call_at(due, lambda: self._tick(entry, due))

    def _tick(self, entry: Entry, due: datetime) -> None:
        with self._lock:
            # The timer may have fired while it was cancelled.
            if self.entries.get(entry.job.name) is not entry or entry.due != due:
                return
            earlier = entry.scheduled
            delivery = self._begin(entry, due) if earlier is None else None
            if earlier is not None and earlier.retry_at is None:
                entry.delayed = entry.delayed or due
            self._arm(entry, after=due)
            self._show_and_save(entry)
        if delivery is not None:
            self._attempt(entry, delivery)

    def _begin(self, entry: Entry, due: datetime) -> Delivery:
        delivery = Delivery(due, self.clock.now())
        entry.deliveries.append(delivery)
        return delivery

    def _attempt(self, entry: Entry, delivery: Delivery) -> None:
        """Make an attempt, and those of the tick that it delays."""
        following: Delivery | None = delivery
        while following is not None:
            delivery = following
            with self._lock:
                if delivery not in entry.deliveries:  # The retry was cancelled while its timer fired.
                    return
                delivery.retry_at = delivery.timer = None
                if not delivery.manual and entry.due is not None and entry.due <= self.clock.now():
                    self._arm(entry)  # This start is the one of a tick that is due at this instant too.
                scheduler_v1.Job.pb(entry.job).last_attempt_time.FromDatetime(self.clock.now())
                self._show_and_save(entry)
                job = scheduler_v1.Job(entry.job)
            result = self._deliver(job, delivery.scheduled)
            if result is None:
                return  # The emulator stopped; it makes the attempt again when it is restored.
            with self._lock:
                scheduler_v1.Job.pb(entry.job).status.CopyFrom(result.as_status())
                following = self._end(entry, delivery, result)
                self._show_and_save(entry)

    def _deliver(self, job: scheduler_v1.Job, scheduled: datetime | None) -> Result | None:
        self.log.started(job, scheduled)
        target = job.http_target
        result = self.http_delivery.deliver(
            job.name, target, target.uri, headers(job, scheduled), job.attempt_deadline
        )
        if result is not None:
            self.log.finished(job, result)
        return result

    def _end(self, entry: Entry, delivery: Delivery, result: Result) -> Delivery | None:
        """Retry the delivery or finish it; return that of the tick that it delayed."""
        may_retry = delivery.manual or entry.job.state == State.ENABLED
        config = entry.job.retry_config
        now = self.clock.now()
        if not result.acknowledged and may_retry and should_retry(config, delivery.retries, delivery.started, now):
            self._set_retry(entry, delivery, now + backoff_of(config).wait(delivery.retries))
            delivery.retries += 1
            if not delivery.manual:
                entry.delayed = None  # The retries continue through that tick.
            return None
        entry.deliveries.remove(delivery)
        if delivery.manual:
            return None
        delayed, entry.delayed = entry.delayed, None
        if delayed is not None:
            return self._begin(entry, delayed)
        if isinstance(entry.schedule, Interval):
            self._arm(entry)
        return None

    def _set_retry(self, entry: Entry, delivery: Delivery, at: datetime) -> None:
        if self.entries.get(entry.job.name) is entry:
            delivery.retry_at = at
            delivery.timer = self.clock.call_at(at, lambda: self._attempt(entry, delivery))

    def _show_and_save(self, entry: Entry) -> None:
        """Update the time of the next attempt in the job, and save the job unless it was deleted."""
        pb, at = scheduler_v1.Job.pb(entry.job), entry.next_attempt()
        pb.ClearField("schedule_time")
        if at is not None:
            pb.schedule_time.FromDatetime(at)
        if self.entries.get(entry.job.name) is entry:
            self.save(entry.job, [delivery.encode() for delivery in entry.deliveries])


def headers(job: scheduler_v1.Job, scheduled: datetime | None) -> dict[str, str]:
    """Return the headers that Cloud Scheduler adds to those of the target."""
    given = {name.lower() for name in job.http_target.headers}
    added = {"User-Agent": "Google-Cloud-Scheduler", "X-CloudScheduler": "true"}
    added["X-CloudScheduler-JobName"] = names.short(job.name)
    if body_of(job.http_target) and "content-type" not in given:
        added["Content-Type"] = "application/octet-stream"
    # By the API's definition, English-like schedules have no schedule time.
    if scheduled is not None and not is_english_like(job):
        added["X-CloudScheduler-ScheduleTime"] = scheduled.isoformat().replace("+00:00", "Z")
    return added


def backoff_of(config: scheduler_v1.RetryConfig) -> Backoff:
    return Backoff(config.min_backoff_duration, config.max_backoff_duration, config.max_doublings)


def should_retry(config: scheduler_v1.RetryConfig, retries: int, first_attempt: datetime, now: datetime) -> bool:
    """Return True if the delivery should be retried: until both the count and the duration limit are reached."""
    within_duration = bool(config.max_retry_duration) and now - first_attempt < config.max_retry_duration
    return retries < config.retry_count or within_duration


def _location(name: str) -> names.Location:
    """Return the location in a name, if Cloud Scheduler serves it."""
    location = names.location_of(name)
    check_scheduler_region(location.region)
    return location


def _masked(request: scheduler_v1.UpdateJobRequest, old: scheduler_v1.Job) -> scheduler_v1.Job:
    """Return the job with the fields of the update mask replaced; gcloud sends defaults for the others."""
    job: scheduler_v1.Job = field_masks.updated(
        old, request.job, request.update_mask.paths, lambda path: invalid(f"Invalid mask for Job: {path}")
    )
    job.name = old.name
    return job


def _cancel(*timers: Timer | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()
