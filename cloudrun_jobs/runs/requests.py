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

from ..backends import RemoteBackend, Request
from ..exceptions import (
    InvalidArguments,
    OutcomeUnknown,
    QuotaExhausted,
    RecordUnavailable,
    ServiceError,
    ServiceUnavailable,
)
from ..models import JobRun, Status
from ..models.clock import Now
from ..models.runs import short_name
from ..operations import Operation
from ..signals import run_postponed, run_refused, run_troubled
from . import patience
from .asking import asker
from .claims import insert
from .idempotency import kept
from .naming import naming

# What a later try may bring to a good end. The others will be refused the next time, too.
PASSING = (ServiceUnavailable, QuotaExhausted)
Answer = TypeVar("Answer")

FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0

SENDING = timedelta(minutes=2)  # For so long a run is its sender's to send. Then others look after it.
LONG = 30.0  # Seconds after which a sender makes sure that it still is.

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
        requested_by=asker(),
        idempotency_key=None if key is None else kept(request.argv[0], key),
        sending_until=Now() + SENDING,
        **values,
    )
    try:
        patience.explained(partial(insert, run, may_conflict=key is not None))
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
    return earlier, earlier.write(refused, **again, sending_until=Now() + SENDING)


def dispatch(backend: RemoteBackend, run: JobRun, request: Request) -> Operation:
    """Send the request when the caller's transaction is committed, or now outside of one."""
    if not patience.in_transaction():
        return send(backend, run, request)
    # Robust: what goes wrong here must not keep the other receivers of the commit from being called.
    transaction.on_commit(partial(_after_commit, backend, run, request), using=patience.alias(), robust=True)
    return backend.operation(run)


def send(backend: RemoteBackend, run: JobRun, request: Request) -> Operation:
    """Send the request; raise a `ServiceError`, and record the run as failed, if that cannot be done."""
    try:
        operation = _start(backend, run, request)
    except ServiceError as error:
        begun = None if refuse(run, error) else _begun(run)
        if begun is None:
            raise
        return backend.operation(begun)
    note_sent(run, operation)
    return operation


def _begun(run: JobRun) -> JobRun | None:
    """Return the run if an execution has claimed it, though no answer said that there is one."""
    try:
        return JobRun.objects.filter(pk=run.pk).exclude(execution=None).first()
    except Error:
        return None


def send_again(backend: RemoteBackend, run: JobRun, request: Request) -> str:
    """Send the request where there is nobody left to tell of a failure; return what became of it.

    Whoever tried before may have died at any step, so its execution is looked for first.
    """
    return quietly(run, partial(_send_anyhow, backend, run, request, is_unclear=True))


def _after_commit(backend: RemoteBackend, run: JobRun, request: Request) -> None:
    if lease(run):
        quietly(run, partial(_send_anyhow, backend, run, request))


def _send_anyhow(backend: RemoteBackend, run: JobRun, request: Request, *, is_unclear: bool = False) -> str:
    note_sent(run, _start(backend, run, request, is_unclear=is_unclear))
    return "sent"


def quietly(run: JobRun, work: Callable[[], str]) -> str:
    """Do it where there is nobody left to tell of a failure; return what became of the run."""
    try:
        return work()
    except PASSING as error:
        run_postponed.send_robust(JobRun, run=run, error=error)
        return "postponed"
    except ServiceError as error:
        refuse(run, error)
        return "refused"


def lease(run: JobRun) -> bool:
    """Take it on oneself to send the run, for a while; say whether there is anything left to send."""
    return run.write(Q(status=Status.PENDING), sending_until=Now() + SENDING)


def _start(backend: RemoteBackend, run: JobRun, request: Request, *, is_unclear: bool = False) -> Operation:
    """Start the execution; after an unclear answer, look for it before asking again."""

    def step(timeout: float) -> Operation:
        nonlocal is_unclear
        if is_unclear and (found := backend.find(request, timeout=timeout)):
            return found
        is_unclear = False
        # Others may have sent it, or somebody cancelled it, while this process waited for its turn.
        if backend.wait_turn() > LONG and not lease(run):
            return backend.operation(run)
        try:
            return backend.start(request, timeout=timeout)
        except OutcomeUnknown:
            is_unclear = True
            raise

    return persevere(step, backend.send_deadline)


def persevere(step: Callable[[float], Answer], seconds: float) -> Answer:
    """Take a step that may be taken again, given how many seconds are left, until it is taken or they are over."""
    deadline, wait = time.monotonic() + seconds, FIRST_WAIT
    while True:
        try:
            return step(max(deadline - time.monotonic(), 1.0))
        except PASSING:
            pause = wait * random.uniform(0.5, 1.0)  # noqa: S311  (jitter)
            if time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        wait = min(wait * 2, LONGEST_WAIT)


def note_sent(run: JobRun, operation: Operation) -> None:
    """Record which execution it is. The execution's own claim tells as much, if this cannot be written."""
    if operation.execution_name:
        _write(run, partial(naming, short_name(operation.execution_name), partial(run.sent, operation)))


def _write(run: JobRun, work: Callable[[], bool]) -> bool:
    """Write to the record; that this cannot be done must not hide what there was to write."""
    try:
        return patience.insist(work, seconds=5)
    except (RecordUnavailable, Error) as error:
        run_troubled.send_robust(JobRun, run=run, error=error)
        return False


def refuse(run: JobRun, error: ServiceError) -> bool:
    """Record that it was not sent and will not be; say whether that is so."""
    values: Mapping[str, Any] = {
        "finished_at": Now(),
        "reason": NOT_SENT,
        "error_class": type(error).__name__,
        "error_message": str(error),
    }
    refused = _write(run, lambda: run.move(Status.FAILED, Q(status=Status.PENDING), **values))
    if refused:
        run_refused.send_robust(JobRun, run=run, error=error)
    return refused
