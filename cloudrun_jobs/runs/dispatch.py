"""From the request to the execution: recorded first, sent once the caller's transaction is committed.

RunJob is not idempotent. After an answer that leaves open whether it started something, the execution that
carries the run's id is looked for before it is asked again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from django.db import Error, IntegrityError, transaction
from django.db.models import Q

from cloudrun_jobs.backends import Backend, Request
from cloudrun_jobs.exceptions import (
    InvalidArguments,
    OutcomeUnknown,
    QuotaExhausted,
    RecordUnavailable,
    ServiceError,
    ServiceUnavailable,
)
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.runs import short_name
from cloudrun_jobs.operations import Operation
from cloudrun_jobs.runs import database
from cloudrun_jobs.runs.database import insert
from cloudrun_jobs.runs.execution_names import assign_execution_name
from cloudrun_jobs.runs.idempotency import storage_key
from cloudrun_jobs.runs.requester import current_requester
from cloudrun_jobs.signals import dispatch_failed, dispatch_postponed, run_record_failed

# What a later try may bring to a good end. The others will be refused the next time, too.
TRANSIENT_ERRORS = (ServiceUnavailable, QuotaExhausted)
Answer = TypeVar("Answer")

FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0

DISPATCH_LEASE = timedelta(minutes=2)  # For so long a run is its sender's to send. Then others look after it.
DISPATCH_LEASE_REFRESH_SECONDS = 30.0  # Seconds after which a sender makes sure that it still is.

NOT_SENT = "not_sent"


def record(
    request: Request, *, environment: str, trigger: str, key: str | None = None, **values: Any
) -> tuple[JobRun, bool]:
    """Insert the run, in the caller's transaction, and say whether it is this caller's to send.

    It is not if the key was used before: then the run is the earlier one.
    """
    run = JobRun(
        id=request.run_id,
        command=request.argv[0],
        argv=list(request.argv),
        environment=environment,
        trigger=trigger,
        requested_by=current_requester(),
        idempotency_key=None if key is None else storage_key(request.argv[0], key),
        sending_until=Now() + DISPATCH_LEASE,
        **values,
    )
    try:
        database.with_migration_hint(partial(insert, run, may_conflict=key is not None))
    except IntegrityError:
        if key is None:
            raise
        return _earlier(run, key)
    return run, True


def _earlier(run: JobRun, key: str) -> tuple[JobRun, bool]:
    """Return the run of the same key; one that was not sent is to be sent now, by the first who asks again."""
    earlier = JobRun.objects.get(
        command=run.command, environment=run.environment, idempotency_key=run.idempotency_key
    )
    if earlier.argv != run.argv:
        words = f"{run.command}: idempotency_key {key!r} was used with other arguments"
        raise InvalidArguments(f"{words}, for run {earlier.pk}.", hint="Make the key of what tells runs apart.")
    again = {"status": Status.PENDING, "reason": "", "finished_at": None, "error_class": "", "error_message": ""}
    refused = Q(status=Status.FAILED, reason=NOT_SENT, execution=None)
    return earlier, earlier.update_if(refused, **again, sending_until=Now() + DISPATCH_LEASE)


def dispatch(backend: Backend, run: JobRun, request: Request) -> Operation:
    """Send the request when the caller's transaction is committed, or now outside of one."""
    if not database.in_transaction():
        return send(backend, run, request)
    # Robust: what goes wrong here must not keep the other receivers of the commit from being called.
    transaction.on_commit(
        partial(_after_commit, backend, run, request), using=database.database_alias(), robust=True
    )
    return backend.operation(run)


def send(backend: Backend, run: JobRun, request: Request) -> Operation:
    """Send the request; raise a `ServiceError`, and record the run as failed, if that cannot be done."""
    try:
        operation = _start(backend, run, request)
    except ServiceError as error:
        begun = None if record_failed_dispatch(run, error) else _begun(run)
        if begun is None:
            raise
        return backend.operation(begun)
    record_dispatched(run, operation)
    return operation


def _begun(run: JobRun) -> JobRun | None:
    """Return the run if an execution has claimed it, though no answer said that there is one."""
    try:
        return JobRun.objects.filter(pk=run.pk).exclude(execution=None).first()
    except Error:
        return None


def redispatch(backend: Backend, run: JobRun, request: Request) -> str:
    """Send the request where there is nobody left to tell of a failure; return what became of it.

    Whoever tried before may have died at any step, so its execution is looked for first.
    """
    return log_dispatch_errors(run, partial(_send_anyhow, backend, run, request, is_unclear=True))


def _after_commit(backend: Backend, run: JobRun, request: Request) -> None:
    if claim_dispatch(run):
        log_dispatch_errors(run, partial(_send_anyhow, backend, run, request))


def _send_anyhow(backend: Backend, run: JobRun, request: Request, *, is_unclear: bool = False) -> str:
    record_dispatched(run, _start(backend, run, request, is_unclear=is_unclear))
    return "sent"


def log_dispatch_errors(run: JobRun, work: Callable[[], str]) -> str:
    """Do it where there is nobody left to tell of a failure; return what became of the run."""
    try:
        return work()
    except TRANSIENT_ERRORS as error:
        dispatch_postponed.send_robust(JobRun, run=run, error=error)
        return "postponed"
    except ServiceError as error:
        record_failed_dispatch(run, error)
        return "refused"


def claim_dispatch(run: JobRun) -> bool:
    """Take it on oneself to send the run, for a while; say whether there is anything left to send."""
    return run.update_if(Q(status=Status.PENDING), sending_until=Now() + DISPATCH_LEASE)


def _start(backend: Backend, run: JobRun, request: Request, *, is_unclear: bool = False) -> Operation:
    """Start the execution; after an unclear answer, look for it before asking again."""

    def step(timeout: float) -> Operation:
        nonlocal is_unclear
        if is_unclear and (found := backend.find(request, timeout=timeout)):
            return found
        is_unclear = False
        # Others may have sent it, or somebody cancelled it, while this process waited for its turn.
        if backend.wait_for_quota() > DISPATCH_LEASE_REFRESH_SECONDS and not claim_dispatch(run):
            return backend.operation(run)
        try:
            return backend.submit(run, request, timeout=timeout)
        except OutcomeUnknown:
            is_unclear = True
            raise

    return retry_with_backoff(step, backend.send_deadline)


def retry_with_backoff(step: Callable[[float], Answer], seconds: float) -> Answer:
    """Take a step that may be taken again, given how many seconds are left, until it is taken or they are over."""
    deadline, wait = time.monotonic() + seconds, FIRST_WAIT
    while True:
        try:
            return step(max(deadline - time.monotonic(), 1.0))
        except TRANSIENT_ERRORS:
            pause = wait * random.uniform(0.5, 1.0)  # noqa: S311  (jitter)
            if time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        wait = min(wait * 2, LONGEST_WAIT)


def record_dispatched(run: JobRun, operation: Operation) -> None:
    """Record which execution it is. The execution's own claim tells as much, if this cannot be written."""
    if operation.execution_name:
        _write(
            run,
            partial(
                assign_execution_name, short_name(operation.execution_name), partial(run.mark_sent, operation)
            ),
        )


def _write(run: JobRun, work: Callable[[], bool]) -> bool:
    """Write to the record; that this cannot be done must not hide what there was to write."""
    try:
        return database.retry_until_available(work, seconds=5)
    except (RecordUnavailable, Error) as error:
        run_record_failed.send_robust(JobRun, run=run, error=error)
        return False


def record_failed_dispatch(run: JobRun, error: ServiceError) -> bool:
    """Record that it was not sent and will not be; say whether that is so."""
    values: Mapping[str, Any] = {
        "finished_at": Now(),
        "reason": NOT_SENT,
        "error_class": type(error).__name__,
        "error_message": str(error),
    }
    refused = _write(run, lambda: run.transition(Status.FAILED, Q(status=Status.PENDING), **values))
    if refused:
        dispatch_failed.send_robust(JobRun, run=run, error=error)
    return refused
