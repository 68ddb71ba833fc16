"""What stands around a job's `run()`: its locks, taken before, kept meanwhile, given back after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudrun_jobs import environ
from cloudrun_jobs.exceptions import LockUnavailable
from cloudrun_jobs.execution import interrupts
from cloudrun_jobs.signals import job_waiting, lease_renewal_failed, lock_bypassed
from cloudrun_jobs.spec import JobSpec

if TYPE_CHECKING:
    from cloudrun_jobs.locks import Holder, Lease
    from cloudrun_jobs.locks.policy import RequiredLock
    from cloudrun_jobs.locks.requests import LockRequest
    from cloudrun_jobs.spec.command import JobCommand

# What takes locks is imported when one is wanted: a job without any does not pay for it.

# The locks held around this code, by key: a job that calls itself must not wait for itself.
_held: ContextVar[Mapping[str, Lease]] = ContextVar("cloudrun_jobs_held", default={})  # noqa: B039  (never changed)


class LockSkipped(NamedTuple):
    """The run is to be skipped: others hold a lock it needs."""

    lock: str
    holders: Sequence[Holder]


@contextmanager
def hold_locks(
    job: JobCommand, spec: JobSpec, options: Mapping[str, Any]
) -> Iterator[tuple[Lease, ...] | LockSkipped]:
    """Hold the job's locks while the block runs; give a refusal, holding nothing, if the run is to be skipped.

    Raises `LockTimeout` and `LockUnavailable` before the block, and `LeaseLost` in what is exposed in it.
    """
    leases: dict[str, Lease] = {}
    outer, finished = _held.get(), _is_last_attempt(spec)
    with interrupts.handle_signals() as interrupt:
        try:
            if refusal := _take(job, spec, options, outer, leases):
                yield refusal
                return
            own = tuple(leases.values())
            with _holding({**outer, **leases}), _blaming_a_loss(own):
                interrupt.watch(own)
                yield tuple({**leases, **outer}.values())
            finished = True
        finally:
            for lease in reversed(leases.values()):
                _give_back(lease, finished=finished)


@contextmanager
def _blaming_a_loss(leases: Sequence[Lease]) -> Iterator[None]:
    """Raise `LeaseLost` for an error that followed from it, as when it broke off a driver's conversation."""
    try:
        yield
    except Exception:
        if any(lease.lost.is_set() for lease in leases):
            check_leases(leases)
        raise


@contextmanager
def _holding(leases: Mapping[str, Lease]) -> Iterator[None]:
    reset = _held.set(leases)
    try:
        yield
    finally:
        _held.reset(reset)


def _take(
    job: JobCommand,
    spec: JobSpec,
    options: Mapping[str, Any],
    outer: Mapping[str, Lease],
    leases: dict[str, Lease],
) -> LockSkipped | None:
    """Take the locks into `leases`, or return why the run is to be skipped."""
    from cloudrun_jobs.locks.policy import required_locks

    for want in required_locks(spec, options, job.get_lock_key):
        if want.name.key in outer:
            continue
        answer = _ask(job, spec, want)
        if answer is None:
            continue
        if isinstance(answer, Sequence):
            return LockSkipped(want.name.label, answer)
        leases[want.name.key] = answer
    return None


def _ask(job: JobCommand, spec: JobSpec, want: RequiredLock) -> Lease | Sequence[Holder] | None:
    """Return the lock or who holds it; None if its server is away and the job runs all the same."""
    try:
        return _ask_server(job, spec, want)
    except LockUnavailable as error:
        if spec.on_lock_error == "fail":
            raise
        task = environ.current_task()
        lock_bypassed.send_robust(type(job), spec=spec, task=task, lock=want.name.label, error=error)
        return None


def _ask_server(job: JobCommand, spec: JobSpec, want: RequiredLock) -> Lease | Sequence[Holder]:
    from cloudrun_jobs.locks import acquire

    claim = _claim(spec, want)
    if want.policy == "skip":
        return acquire.acquire_or_holders(claim, acquire.SERVER_OUTAGE_LIMIT, interrupts.sleep)

    def announce(holders: Sequence[Holder]) -> None:
        job_waiting.send_robust(type(job), spec=spec, lock=want.name.label, holders=holders)

    timeout = spec.lock_timeout.total_seconds() if want.policy == "wait" else 0
    return acquire.wait_for_lock(
        claim,
        timeout=timeout,
        initial_delay=1.0,
        max_delay=30.0,
        announce=announce,
        sleep=interrupts.sleep,
    )


def _claim(spec: JobSpec, want: RequiredLock) -> LockRequest:
    from cloudrun_jobs.locks import current
    from cloudrun_jobs.locks.owner import new_owner
    from cloudrun_jobs.locks.requests import SlotRequest, TaskRequest

    task, backend, owner = environ.current_task(), current(), new_owner()
    ttl = spec.lock_lease.total_seconds() if spec.lock_lease else None
    if task is None or task.count == 1:
        return SlotRequest(backend, want.name, want.slots, owner, ttl)
    if spec.lock_scope == "task":
        return SlotRequest(backend, want.name.part(f"{task.index}", f"[{task.index}]"), want.slots, owner, ttl)
    return TaskRequest(backend, want.name, want.slots, owner, ttl, task.count)


def _is_last_attempt(spec: JobSpec) -> bool:
    task = environ.current_task()
    return task is None or task.attempt >= spec.max_retries


def _give_back(lease: Lease, *, finished: bool) -> None:
    """Release a lock. That its server cannot be told does not make a failure of work that is done."""
    try:
        lease.release(finished=finished)
    except LockUnavailable as error:
        lease_renewal_failed.send_robust(type(lease), lease=lease, error=error)


def check_leases(leases: Sequence[Lease]) -> None:
    """Raise `LeaseLost` unless all of them are held."""
    for lease in leases:
        lease.check()
