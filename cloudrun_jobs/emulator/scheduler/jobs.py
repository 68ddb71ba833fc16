"""Scheduler jobs: create, update, pause and resume them, and deliver them at least once when due."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.cloud import scheduler_v1
from google.protobuf import empty_pb2, field_mask_pb2

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.engine.store import paginate, random_id, validated
from cloudrun_jobs.emulator.errors import ServiceError, failed_precondition, invalid
from cloudrun_jobs.emulator.project.locations import check_scheduler_region
from cloudrun_jobs.emulator.scheduler import retries
from cloudrun_jobs.emulator.scheduler.delivery import LOST_RESPONSE, HttpDelivery, Result
from cloudrun_jobs.emulator.scheduler.validation import check, schedule_of, with_defaults

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from datetime import datetime

    from cloudrun_jobs.emulator.clock import Clock, Timer
    from cloudrun_jobs.emulator.faults import Faults
    from cloudrun_jobs.emulator.scheduler.calendar import Schedule
    from cloudrun_jobs.emulator.scheduler.logs import DeliveryLog

State = scheduler_v1.Job.State
MAX_PAGE_SIZE = 500
# An update keeps these fields, which callers cannot set.
SERVICE_SET_FIELDS = ("state", "status", "schedule_time", "last_attempt_time")


@dataclass(slots=True, eq=False)
class Entry:
    """A job with its parsed schedule and the timer of its next tick."""

    job: scheduler_v1.Job
    schedule: Schedule
    timer: Timer | None = None
    busy: bool = False  # A tick is being delivered or waits for a retry.


@dataclass(slots=True, eq=False)
class Delivery:
    """The delivery of one tick. All attempts share the scheduled time."""

    entry: Entry
    scheduled: datetime | None
    started: datetime
    manual: bool
    retries: int = 0


@dataclass(slots=True)
class ScheduledJobs:
    clock: Clock
    http_delivery: HttpDelivery
    log: DeliveryLog
    faults: Faults
    save: Callable[[scheduler_v1.Job], None] = lambda _: None
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

    def restore(self, job: scheduler_v1.Job) -> None:
        """Add a job that was saved by an earlier emulator."""
        with self._lock:
            entry = self.entries[job.name] = Entry(job, schedule_of(job))
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
            _disarm(entry)
            del self.entries[request.name]
            self.remove(request.name)
        return empty_pb2.Empty()

    def pause(self, request: scheduler_v1.PauseJobRequest) -> scheduler_v1.Job:
        return self._set_state(request.name, State.ENABLED, State.PAUSED)

    def resume(self, request: scheduler_v1.ResumeJobRequest) -> scheduler_v1.Job:
        return self._set_state(request.name, State.PAUSED, State.ENABLED)

    def run(self, request: scheduler_v1.RunJobRequest) -> scheduler_v1.Job:
        """Deliver the job now, even if it is paused or busy; return without waiting for the delivery."""
        with self._lock:
            entry = self._existing(request.name)
            scheduled = entry.schedule.next_after(self.clock.now())
            delivery = Delivery(entry, scheduled, self.clock.now(), manual=True)
            job = scheduler_v1.Job(entry.job)
        self.clock.call_soon(lambda: self._attempt(delivery))
        return job

    def _set_state(self, name: str, expected: int, state: int) -> scheduler_v1.Job:
        with self._lock:
            entry = self._existing(name)
            if entry.job.state != expected:
                raise failed_precondition(
                    f"Job must be {State(expected).name}, but is {State(entry.job.state).name}."
                )
            entry.job.state = State(state)
            return self._put(entry)

    def _existing(self, name: str) -> Entry:
        _location(validated(name, "jobs"))
        entry = self.entries.get(name)
        if entry is None:
            raise ServiceError("NOT_FOUND", "Job not found.")
        return entry

    def _put(self, entry: Entry) -> scheduler_v1.Job:
        entry.job.user_update_time = self.clock.now()
        self.entries[entry.job.name] = entry
        if not entry.busy:
            self._arm(entry)
        self.save(entry.job)
        return scheduler_v1.Job(entry.job)

    def _arm(self, entry: Entry) -> None:
        """Set the timer for the next tick. Ticks that fall due while another is being delivered are skipped."""
        _disarm(entry)
        due = entry.schedule.next_after(self.clock.now())
        pb = scheduler_v1.Job.pb(entry.job)
        if entry.job.state != State.ENABLED or due is None:
            pb.ClearField("schedule_time")
            return
        pb.schedule_time.FromDatetime(due)
        entry.timer = self.clock.call_at(due, lambda: self._tick(entry, due))

    def _tick(self, entry: Entry, due: datetime) -> None:
        with self._lock:
            if entry.job.state != State.ENABLED or entry.job.name not in self.entries:
                return
            entry.busy = True
            delivery = Delivery(entry, due, self.clock.now(), manual=False)
        self._attempt(delivery)

    def _attempt(self, delivery: Delivery) -> None:
        with self._lock:
            job = scheduler_v1.Job(delivery.entry.job)
        result = self._deliver(job, delivery.scheduled)
        with self._lock:
            self._record(delivery, result)

    def _deliver(self, job: scheduler_v1.Job, scheduled: datetime | None) -> Result:
        self.log.started(job, scheduled)
        result = self.http_delivery.deliver(job, scheduled)
        if self.faults.take_double_delivery():
            result = self.http_delivery.deliver(job, scheduled)
        if self.faults.take_lost_response():
            result = LOST_RESPONSE
        self.log.finished(job, result)
        return result

    def _record(self, delivery: Delivery, result: Result) -> None:
        entry, now = delivery.entry, self.clock.now()
        pb = scheduler_v1.Job.pb(entry.job)
        pb.last_attempt_time.FromDatetime(now)
        pb.status.CopyFrom(result.as_status())
        known = entry.job.name in self.entries
        if known and not result.acknowledged and self._retry(delivery, now):
            return
        if not delivery.manual:
            entry.busy = False
        if known:
            if not entry.busy:
                self._arm(entry)
            self.save(entry.job)

    def _retry(self, delivery: Delivery, now: datetime) -> bool:
        config = delivery.entry.job.retry_config
        if not retries.should_retry(config, delivery.retries, delivery.started, now):
            return False
        wait = retries.backoff(config, delivery.retries)
        delivery.retries += 1
        self.clock.call_later(wait.total_seconds(), lambda: self._attempt(delivery))
        return True


def _location(name: str) -> names.Location:
    """Return the location in a name, if Cloud Scheduler serves it."""
    location = names.location_of(name)
    check_scheduler_region(location.region)
    return location


def _masked(request: scheduler_v1.UpdateJobRequest, old: scheduler_v1.Job) -> scheduler_v1.Job:
    """Return the job with the fields of the update mask replaced; gcloud sends defaults for the others."""
    if not request.update_mask.paths:
        return request.job
    job = scheduler_v1.Job(old)
    mask = field_mask_pb2.FieldMask(paths=request.update_mask.paths)
    if not mask.IsValidForDescriptor(scheduler_v1.Job.pb().DESCRIPTOR):
        raise invalid(f"Invalid update_mask: {', '.join(mask.paths)}.")
    source, target = scheduler_v1.Job.pb(request.job), scheduler_v1.Job.pb(job)
    mask.MergeMessage(source, target, replace_message_field=True, replace_repeated_field=True)
    job.name = old.name
    return job


def _disarm(entry: Entry) -> None:
    if entry.timer is not None:
        entry.timer.cancel()
        entry.timer = None
