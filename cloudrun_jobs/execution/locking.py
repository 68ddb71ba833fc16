"""What stands around a job's `run()`: its locks, taken before, kept meanwhile, given back after."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudrun_jobs import environ
from cloudrun_jobs.exceptions import DeclarationError, InvalidArguments, InvalidJob, LockUnavailable, did_you_mean
from cloudrun_jobs.execution import interrupts
from cloudrun_jobs.signals import job_waiting, lease_renewal_failed, lock_bypassed
from cloudrun_jobs.spec import JobSpec

if TYPE_CHECKING:
    from cloudrun_jobs.command import CloudRunJobs
    from cloudrun_jobs.locks import Holder, Lease
    from cloudrun_jobs.locks.names import LockName
    from cloudrun_jobs.locks.requests import LockRequest

# What takes locks is imported when one is wanted: a job without any does not pay for it.

# Every command has these; they say how it speaks, not what it works on.
DJANGO_OPTIONS = frozenset(
    {
        "verbosity",
        "settings",
        "pythonpath",
        "traceback",
        "no_color",
        "force_color",
        "skip_checks",
        "stdout",
        "stderr",
    }
)

# The locks held around this code, by key: a job that calls itself must not wait for itself.
_held: ContextVar[Mapping[str, Lease]] = ContextVar("cloudrun_jobs_held", default={})  # noqa: B039  (never changed)


class RequiredLock(NamedTuple):
    """A lock that a run needs, and what it does while others hold it: "skip", "wait" or "fail"."""

    name: LockName
    slots: int
    policy: str


class LockSkipped(NamedTuple):
    """The run is to be skipped: others hold a lock it needs."""

    lock: str
    holders: Sequence[Holder]


@contextmanager
def hold_locks(
    job: CloudRunJobs, spec: JobSpec, options: Mapping[str, Any]
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
            with _renewed(own, spec), _holding({**outer, **leases}), _blaming_a_loss(own):
                interrupt.watch(own)
                yield tuple({**leases, **outer}.values())
            finished = True
        finally:
            for lease in reversed(leases.values()):
                _give_back(lease, finished=finished)


@contextmanager
def _renewed(leases: Sequence[Lease], spec: JobSpec) -> Iterator[None]:
    """Have the leases renewed by another process while the block runs, if the job asks for that."""
    # What another process does not see it cannot renew.
    if spec.heartbeat == "thread" or not leases or leases[0].claim.backend.is_uncommitted():
        yield
        return
    from cloudrun_jobs.locks.deputy import Deputy

    until = time.monotonic() + spec.timeout.total_seconds()
    deputy = Deputy(leases, until, wake=interrupts.LEASE_LOST_SIGNAL if interrupts.can_interrupt() else None)
    try:
        yield
    finally:
        deputy.dismiss()


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


def required_locks(job: CloudRunJobs, spec: JobSpec, options: Mapping[str, Any]) -> Iterator[RequiredLock]:
    """Yield the locks that a run with these options needs, in the order in which all runs take them."""
    if spec.overlap != "allow":
        yield RequiredLock(name=_same_run(job, options), slots=1, policy=spec.overlap)
    if spec.parallelism is not None:
        yield RequiredLock(name=_same_job(spec), slots=spec.parallelism, policy="wait")


def check_arguments(job: CloudRunJobs, spec: JobSpec, options: Mapping[str, Any]) -> None:
    """Raise `InvalidArguments` or `InvalidJob` where a run with these options could not name its locks."""
    tuple(required_locks(job, spec, options))


def lock_arguments(command: str, lock_args: Sequence[str] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the options that tell one run from another."""
    if lock_args is None:
        return dict(options)
    for name in lock_args:
        if name not in options:
            hint = did_you_mean(name, options)
            problem = DeclarationError(
                attribute="lock_args", expected="names of the job's options", got=name, hint=hint
            )
            raise InvalidJob(command, [problem])
    return {name: options[name] for name in lock_args}


def _same_job(spec: JobSpec) -> LockName:
    from cloudrun_jobs.locks import names

    return names.for_job(spec.command)


def _same_run(job: CloudRunJobs, options: Mapping[str, Any]) -> LockName:
    from cloudrun_jobs.locks import names

    own = {name: value for name, value in options.items() if name not in DJANGO_OPTIONS}
    try:
        return names.for_arguments(job.command_name, job.get_lock_key(**own))
    except (TypeError, ValueError) as error:
        raise InvalidArguments(
            f"{job.command_name}: its lock cannot be named after these options: {error}.",
            hint="Name in lock_args the options that matter, or return plain values from get_lock_key().",
        ) from error


def _take(
    job: CloudRunJobs,
    spec: JobSpec,
    options: Mapping[str, Any],
    outer: Mapping[str, Lease],
    leases: dict[str, Lease],
) -> LockSkipped | None:
    """Take the locks into `leases`, or return why the run is to be skipped."""
    for want in required_locks(job, spec, options):
        if want.name.key in outer:
            continue
        answer = _ask(job, spec, want)
        if answer is None:
            continue
        if isinstance(answer, Sequence):
            return LockSkipped(want.name.label, answer)
        leases[want.name.key] = answer
    return None


def _ask(job: CloudRunJobs, spec: JobSpec, want: RequiredLock) -> Lease | Sequence[Holder] | None:
    """Return the lock or who holds it; None if its server is away and the job runs all the same."""
    try:
        return _ask_server(job, spec, want)
    except LockUnavailable as error:
        if spec.on_lock_error == "fail":
            raise
        task = environ.current_task()
        lock_bypassed.send_robust(type(job), spec=spec, task=task, lock=want.name.label, error=error)
        return None


def _ask_server(job: CloudRunJobs, spec: JobSpec, want: RequiredLock) -> Lease | Sequence[Holder]:
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
    if task is None or task.count == 1:
        return SlotRequest(backend, want.name, want.slots, owner)
    if spec.lock_scope == "task":
        return SlotRequest(backend, want.name.part(f"{task.index}", f"[{task.index}]"), want.slots, owner)
    return TaskRequest(backend, want.name, want.slots, owner, task.count)


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
