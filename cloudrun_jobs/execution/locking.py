"""Acquire and release a job's locks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudrun_jobs import environ
from cloudrun_jobs.exceptions import LockUnavailable
from cloudrun_jobs.execution.lease_watch import LeaseWatch
from cloudrun_jobs.process.deferral import interruptible
from cloudrun_jobs.signals import job_waiting, lock_bypassed
from cloudrun_jobs.spec import JobSpec

if TYPE_CHECKING:
    from cloudrun_jobs.execution.attempt import Attempt
    from cloudrun_jobs.locks import Holder, Lease
    from cloudrun_jobs.locks.keeper import LeaseKeeper
    from cloudrun_jobs.locks.policy import RequiredLock
    from cloudrun_jobs.locks.requests import LockRequest
    from cloudrun_jobs.spec.command import JobCommand

# The modules that acquire locks are imported when a lock is required: a job without locks does not need them.

INTERRUPT_POLL_INTERVAL = 0.5  # seconds

# The locks held around this code, by key: a job that calls itself must not wait for itself.
_held: ContextVar[Mapping[str, LeaseKeeper]] = ContextVar("held_locks", default={})  # noqa: B039  (never changed)


class LockSkipped(NamedTuple):
    """The run is skipped: another execution holds a lock that it requires."""

    lock: str
    holders: Sequence[Holder] = ()

    @property
    def message(self) -> str:
        return f"{self.lock} is held by {'; '.join(map(str, self.holders)) or 'another execution'}"


@contextmanager
def hold_locks(
    job: JobCommand, spec: JobSpec, options: Mapping[str, Any], attempt: Attempt
) -> Iterator[tuple[Lease, ...] | LockSkipped]:
    """Hold the job's locks while the block runs; yield `LockSkipped`, holding none, if the run is to be skipped.

    The attempt keeps the lock requests, so that it can repeat a release that gets no reply.
    Raises `LockTimeout` and `LockUnavailable` before the block, and `LeaseLost` in its interruptible code.
    """
    keepers: dict[str, LeaseKeeper] = {}
    outer, finished = _held.get(), _is_last_attempt(spec)
    with LeaseWatch() as watch:
        try:
            if skipped := _acquire_or_skip(job, spec, options, attempt, outer, keepers):
                yield skipped
                return
            own = tuple(keepers.values())
            with _holding({**outer, **keepers}), _raise_lost_error(own):
                watch.start(own)
                yield tuple(keeper.lease for keeper in {**keepers, **outer}.values())
            finished = True
        finally:
            for keeper in reversed(keepers.values()):
                # Work that is done does not fail because the lock server is unavailable.
                keeper.try_release(finished=finished)


@contextmanager
def _raise_lost_error(keepers: Sequence[LeaseKeeper]) -> Iterator[None]:
    """Raise `LeaseLost` in place of an error that it caused, such as by closing a connection in use."""
    try:
        yield
    except Exception:
        if any(keeper.lost.is_set() for keeper in keepers):
            for keeper in keepers:
                keeper.check()
        raise


@contextmanager
def _holding(keepers: Mapping[str, LeaseKeeper]) -> Iterator[None]:
    reset = _held.set(keepers)
    try:
        yield
    finally:
        _held.reset(reset)


def _acquire_or_skip(
    job: JobCommand,
    spec: JobSpec,
    options: Mapping[str, Any],
    attempt: Attempt,
    outer: Mapping[str, LeaseKeeper],
    keepers: dict[str, LeaseKeeper],
) -> LockSkipped | None:
    """Acquire the locks into `keepers`, or return why the attempt is skipped. Follow an earlier decision."""
    from cloudrun_jobs.locks.policy import required_locks

    required = tuple(required_locks(spec, options, job.get_lock_key))
    acquire = partial(_acquire_all, job, spec, attempt, outer, keepers)
    if spec.overlap != "skip" or attempt.only_reduces:
        return acquire(required)
    # The decision needs the first lock alone. The wait for the others, held by executions that work, may be long.
    first, others = required[:1], required[1:]
    skipped = LockSkipped(first[0].name.label) if attempt.admitted is False else acquire(first)
    if attempt.decide(not skipped, skipped.message if skipped else ""):
        # If the lock was held, another task has decided that the execution works: wait.
        return (acquire(first) if skipped else None) or acquire(others)
    while keepers:
        _, keeper = keepers.popitem()
        keeper.request.tasks = 1  # No task of the execution works: the first release is the last.
        keeper.try_release()
    return skipped or LockSkipped(first[0].name.label)


def _acquire_all(
    job: JobCommand,
    spec: JobSpec,
    attempt: Attempt,
    outer: Mapping[str, LeaseKeeper],
    keepers: dict[str, LeaseKeeper],
    locks: Sequence[RequiredLock],
) -> LockSkipped | None:
    """Acquire the locks into `keepers`, or return why the attempt cannot work."""
    for required in locks:
        if required.name.key in outer:
            continue
        request = _request(spec, required, attempt)
        attempt.lock_requests.append(request)
        try:
            answer = _acquire(job, spec, required, attempt, request)
        except LockUnavailable as error:
            if spec.on_lock_error == "fail":
                raise
            task = environ.current_task()
            lock_bypassed.send_robust(type(job), spec=spec, task=task, lock=required.name.label, error=error)
            continue
        if isinstance(answer, Sequence):
            return LockSkipped(required.name.label, answer)
        keepers[required.name.key] = answer
    return None


def _acquire(
    job: JobCommand, spec: JobSpec, required: RequiredLock, attempt: Attempt, request: LockRequest
) -> LeaseKeeper | Sequence[Holder]:
    from cloudrun_jobs.locks import acquire

    policy = required.policy
    if (policy == "skip" and attempt.admitted) or attempt.only_reduces:
        policy = "wait"  # The work has already begun.
    if policy == "skip":
        return acquire.acquire_or_holders(request, acquire.SERVER_OUTAGE_LIMIT, partial(_sleep, job))

    def send_waiting(holders: Sequence[Holder]) -> None:
        job_waiting.send_robust(type(job), spec=spec, lock=required.name.label, holders=holders)

    timeout = spec.lock_timeout.total_seconds() if policy == "wait" else 0
    return acquire.wait_for_lock(
        request,
        timeout=timeout,
        initial_delay=1.0,
        max_delay=30.0,
        on_wait=send_waiting,
        sleep=partial(_sleep, job),
    )


def _request(spec: JobSpec, required: RequiredLock, attempt: Attempt) -> LockRequest:
    from cloudrun_jobs.locks import current
    from cloudrun_jobs.locks.requests import SlotRequest, TaskRequest, new_owner

    backend, owner, name = current(), new_owner(), required.name
    ttl = spec.lock_lease.total_seconds() if spec.lock_lease else None
    is_own = (attempt.is_element and required.identifies_run) or attempt.has_own_execution
    if attempt.shares_locks and not is_own:
        return TaskRequest(backend, name, required.slots, owner, ttl, attempt.task_count)
    if attempt.task_count > 1 and attempt.run.execution and not is_own:
        name = name.part(f"{owner.index}", f"[{owner.index}]")
    return SlotRequest(backend, name, required.slots, owner, ttl)


def _sleep(job: JobCommand, seconds: float) -> None:
    """Wait for this time or until an interrupt, which is polled for: not every thread gets it by a signal."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        interruptible(partial(time.sleep, min(left, INTERRUPT_POLL_INTERVAL)))
        job._active.raise_if_interrupted()


def _is_last_attempt(spec: JobSpec) -> bool:
    task = environ.current_task()
    return task is None or task.attempt >= spec.max_retries
