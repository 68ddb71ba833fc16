"""Record requests and dispatch them: inserted first, sent once the caller's transaction has committed.

RunJob is not idempotent. After a reply that leaves open whether an execution was started, look for the execution
that carries the run's id before sending the request again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

from django.db import Error, IntegrityError, transaction
from django.db.models import Q

from cloudrun_jobs.argv.redaction import mask
from cloudrun_jobs.backends.base import TRANSIENT_ERRORS, Backend, Request
from cloudrun_jobs.backoff import retry
from cloudrun_jobs.exceptions import (
    CloudRunJobsError,
    IdempotencyKeyReused,
    InvalidArguments,
    OutcomeUnknown,
    RecordTablesMissing,
    RecordUnavailable,
    ServiceError,
)
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.runs import short_name
from cloudrun_jobs.models.values import storable
from cloudrun_jobs.operations import Operation
from cloudrun_jobs.process import commits
from cloudrun_jobs.runs import database, reruns
from cloudrun_jobs.runs.execution_names import assign_execution_name
from cloudrun_jobs.runs.requester import current_requester
from cloudrun_jobs.signals import dispatch_failed, dispatch_postponed, run_record_failed
from cloudrun_jobs.spec import declared_name
from cloudrun_jobs.spec.overrides import Overrides

T = TypeVar("T")

DISPATCH_LEASE = timedelta(minutes=2)  # How long only one process may dispatch a run.
DISPATCH_LEASE_REFRESH_SECONDS = 30.0  # A dispatcher renews its lease after waiting longer than this for quota.

RECORD_UPDATE_LIMIT_SECONDS = 5.0  # For updates that the execution's own claim would make up for.

NOT_SENT, NO_RESPONSE = "not_sent", "no_response"
# An execution that an unanswered request has started does no work: it cannot claim a run that has failed.
UNDISPATCHED_REASONS = (NOT_SENT, NO_RESPONSE)
NEVER_SENT = Q(status=Status.FAILED, reason__in=UNDISPATCHED_REASONS, execution=None)

TASK_BATCH_SIZE = 500  # Rows that one statement inserts.

MAX_KEY_LENGTH = 200  # characters
DIGEST_LENGTH = 32  # hexadecimal digits


def new_run(
    request: Request,
    *,
    environment: str,
    backend: str = "",
    trigger: str,
    key: str | None = None,
    **values: Any,
) -> JobRun:
    """Return the run of the request, to be recorded."""
    return JobRun(
        id=request.run_id,
        command=request.argv[0],
        argv=[*request.argv],
        job_name=declared_name(request.job, request.argv[0], environment),
        script=request.script,
        overrides=request.overrides.encode(),
        elements=request.elements,
        task_count=request.elements or request.tasks,
        queue=request.queue,
        timeout=request.timeout,
        environment=environment,
        backend=backend,
        trigger=trigger,
        requested_by=current_requester(),
        idempotency_key=None if key is None else _storage_key(request.argv[0], key),
        sending_until=Now() + DISPATCH_LEASE,
        **values,
    )


def request_of(run: JobRun) -> Request:
    """Return the request of a recorded run."""
    return Request(
        job=run.job,
        argv=tuple(run.argv or ()),
        script=run.script,
        run_id=str(run.pk),
        overrides=Overrides.decode(run.overrides),
        elements=run.elements,
        queue=run.queue,
        tasks=run.task_count,
        timeout=run.timeout,
    )


def record(run: JobRun, key: str | None = None, tasks: Sequence[TaskRun] = ()) -> tuple[JobRun, bool]:
    """Insert the run, or find the earlier one with the same key or of the same tick of a schedule.

    Return True with it if it is to be dispatched.

    `tasks` are inserted with the run, for the elements of `delay_many()`.
    """
    may_conflict = key is not None or run.schedule is not None
    try:
        database.with_migration_hint(partial(_insert, run, tasks, may_conflict=may_conflict))
    except IntegrityError:
        # The run itself exists if the reply to an earlier try was lost.
        earlier = find_earlier(run, key) or JobRun.objects.filter(pk=run.pk).first()
        if earlier is None:
            raise
        return earlier, str(earlier.pk) == str(run.pk) or _redispatch_failed(earlier, run)
    return run, True


def _insert(run: JobRun, tasks: Sequence[TaskRun], *, may_conflict: bool) -> None:
    if not tasks and run.shares is None:
        database.insert(run, may_conflict=may_conflict)
        return
    with transaction.atomic(using=database.database_alias()):
        if run.shares is not None:
            reruns.claim(run)
        database.insert(run, may_conflict=False)
        TaskRun.objects.bulk_create(tasks, batch_size=TASK_BATCH_SIZE)
        if run.shares is not None:
            reruns.reopen_items(run)


def _storage_key(command: str, key: object) -> str:
    """Return the key with a digest at the end: some databases ignore case, accents and trailing spaces."""
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_LENGTH or storable(key) != key:
        got = f"{key!r:.100}" if isinstance(key, str) else f"{type(key).__name__} {key!r:.100}"
        message = f"{command}: idempotency_key: expected a string of 1 to {MAX_KEY_LENGTH} characters, got {got}."
        hint = "Build the key from values that identify the run; NUL characters are not allowed."
        raise InvalidArguments(message, hint=hint)
    return f"{mask(key)[: MAX_KEY_LENGTH - DIGEST_LENGTH - 1]} {sha256(key.encode()).hexdigest()[:DIGEST_LENGTH]}"


def find_earlier(run: JobRun, key: str | None) -> JobRun | None:
    """Return the run with the same key, or of the same tick of a schedule, if there is one."""
    same = JobRun.objects.filter(command=run.command, environment=run.environment)
    if run.schedule is not None:
        return same.filter(schedule=run.schedule, scheduled_for=run.scheduled_for).first()
    earlier = None if key is None else same.filter(idempotency_key=run.idempotency_key).first()
    if earlier is None:
        return None
    if (earlier.argv, earlier.overrides) != (run.argv, run.overrides):
        message = f"{run.command}: idempotency_key {key!r} was used with other arguments, for run {earlier.pk}."
        raise IdempotencyKeyReused(message, hint="Build the key from values that identify the run.")
    return earlier


def find_by_key(command: str, environment: str, key: str) -> JobRun | None:
    """Return the run that was requested with this idempotency key, if there is one."""
    stored = _storage_key(command, key)
    return JobRun.objects.filter(command=command, environment=environment, idempotency_key=stored).first()


def _redispatch_failed(earlier: JobRun, run: JobRun) -> bool:
    """Return True if the run's dispatch had failed: the first caller to repeat it dispatches it."""
    pending = {"status": Status.PENDING, "reason": "", "finished_at": None, "error_class": "", "error_message": ""}
    # The job may have moved to another backend.
    moved = ("backend", "queue", "timeout", "task_count")
    target = {name: getattr(run, name) for name in moved}
    return earlier.update_if(NEVER_SENT, **pending, **target, sending_until=Now() + DISPATCH_LEASE)


def followed_transaction() -> str | None:
    """Return the database whose transaction the request follows: that of the records, or the only one, or None."""
    opened, own = commits.open_transactions(), database.database_alias()
    if len(opened) > 1 and own not in opened:
        aliases = " and ".join(map(repr, sorted(opened)))
        raise CloudRunJobsError(
            f"Transactions of the databases {aliases} are open, and a run can follow only one.",
            hint=f"Request the run after them, or in `atomic(using={own!r})`, the database of the run records.",
        )
    return own if own in opened else next(iter(opened), None)


def after_commit(run: JobRun, work: Callable[[], str], using: str) -> None:
    """Call `work` once the caller's transaction has committed, unless the run is no longer pending by then."""

    def hook() -> None:
        if claim_dispatch(run):
            log_dispatch_errors(run, work)

    _on_commit(run, hook, using)


def record_after_commit(
    run: JobRun,
    key: str | None,
    work: Callable[[JobRun], str],
    operation: Operation,
    using: str,
    tasks: Sequence[TaskRun] = (),
) -> None:
    """Record the run, and call `work` with it, once the transaction of another database has committed."""

    def hook() -> None:
        try:
            recorded, is_new = database.retry_until_available(
                partial(record, run, key, tasks), seconds=RECORD_UPDATE_LIMIT_SECONDS
            )
        except (CloudRunJobsError, Error) as error:
            dispatch_failed.send_robust(JobRun, run=run, error=error, propagates=False)
            return
        operation.run_id = str(recorded.pk)
        if is_new and (own := database.database_alias()) in commits.open_transactions():
            after_commit(recorded, partial(work, recorded), own)
        elif is_new:
            log_dispatch_errors(recorded, partial(work, recorded))

    _on_commit(run, hook, using)


def _on_commit(run: JobRun, hook: Callable[[], None], using: str) -> None:
    # Robust: an error here must not prevent the caller's other hooks.
    transaction.on_commit(commits.mark(hook, str(run.pk)), using=using, robust=True)


def send(backend: Backend, run: JobRun, request: Request) -> Operation:
    """Send the request and return the handle. Raises a `ServiceError`, recorded as the run's failure."""
    try:
        operation = start_execution(backend, run, request)
    except ServiceError as error:
        is_recorded = record_failed_dispatch(run, error, propagates=True)
        claimed = None if is_recorded else _claimed_run(run)
        if claimed is None:
            if is_recorded and isinstance(error, OutcomeUnknown):
                error.hint = f"{error.hint} The run has failed: an execution that starts now does no work.".strip()
            raise
        return backend.operation(claimed)
    record_dispatched(run, operation)
    return operation


def _claimed_run(run: JobRun) -> JobRun | None:
    """Return the run if an execution has claimed it although no reply named one."""
    try:
        return JobRun.objects.filter(pk=run.pk).exclude(execution=None).first()
    except Error:
        return None


def redispatch(backend: Backend, run: JobRun, request: Request) -> str:
    """Send the request after another dispatcher died at an unknown step; see `log_dispatch_errors()`."""
    return log_dispatch_errors(run, partial(submit, backend, run, request, is_unclear=True))


def submit(backend: Backend, run: JobRun, request: Request, *, is_unclear: bool = False) -> str:
    """Send the request; return "sent". Raises a `ServiceError`, and leaves the run pending."""
    record_dispatched(run, start_execution(backend, run, request, is_unclear=is_unclear))
    return "sent"


def log_dispatch_errors(run: JobRun, work: Callable[[], str]) -> str:
    """Call `work`, logging service errors instead of raising; return its result, "postponed" or "refused"."""
    try:
        return work()
    except TRANSIENT_ERRORS as error:
        dispatch_postponed.send_robust(JobRun, run=run, error=error)
        return "postponed"
    except ServiceError as error:
        record_failed_dispatch(run, error)
        return "refused"


def claim_dispatch(run: JobRun, condition: Q | None = None) -> bool:
    """Acquire the dispatch lease of a pending run; return False if it is not pending, or fails the condition."""
    return run.update_if(condition or Q(status=Status.PENDING), sending_until=Now() + DISPATCH_LEASE)


def start_execution(
    backend: Backend,
    run: JobRun,
    request: Request,
    *,
    is_unclear: bool = False,
    claim: Callable[[], bool] | None = None,
) -> Operation:
    """Start the execution; after an unclear reply, look for it before sending the request again.

    `claim` renews the dispatch lease.
    """
    claim = claim or partial(claim_dispatch, run)

    def step(timeout: float) -> Operation:
        nonlocal is_unclear
        if is_unclear and (found := _find_started(backend, request, timeout)):
            return found
        is_unclear = False
        # During a long wait for quota the lease may have expired, and the run been sent or cancelled.
        if backend.wait_for_quota() > DISPATCH_LEASE_REFRESH_SECONDS and not claim():
            return backend.operation(run)
        try:
            return backend.submit(run, request, timeout=timeout)
        except OutcomeUnknown:
            is_unclear = True
            raise

    return retry_with_backoff(step, backend.send_deadline)


def _find_started(backend: Backend, request: Request, timeout: float) -> Operation | None:
    """Return the execution that an unanswered request has started. Raises `OutcomeUnknown` without a response."""
    try:
        return backend.find(request, timeout=timeout)
    except TRANSIENT_ERRORS as error:
        raise OutcomeUnknown(str(error.args[0]), hint=error.hint) from error


def retry_with_backoff(step: Callable[[float], T], seconds: float) -> T:
    """Call `step` with a timeout in seconds, and again after transient errors until the deadline."""
    return retry(lambda left: step(max(left, 1.0)), TRANSIENT_ERRORS, seconds, initial=0.5, maximum=8.0)


def record_dispatched(run: JobRun, operation: Operation) -> None:
    """Record the execution. If this fails, the execution's own claim records it."""
    if name := short_name(operation.execution_name):
        _update_record(run, partial(assign_execution_name, name, partial(run.mark_sent, operation)))


def record_reduction(run: JobRun, operation: Operation) -> None:
    """Record the execution that calls `reduce()`. If this fails, the execution's own claim records it."""
    if name := short_name(operation.execution_name):
        values = {"execution_name": operation.execution_name, "log_uri": operation.logs_url, "sending_until": None}
        work = partial(run.assign_reduction, name, **values)
        _update_record(run, partial(assign_execution_name, name, work))


def _update_record(run: JobRun, work: Callable[[], bool]) -> bool:
    """Call `work`, which updates the record; return False, with a signal instead of an error, if it fails."""
    try:
        return database.retry_until_available(work, seconds=RECORD_UPDATE_LIMIT_SECONDS)
    except (RecordUnavailable, RecordTablesMissing, Error) as error:
        run_record_failed.send_robust(JobRun, run=run, error=error)
        return False


def record_failed_dispatch(run: JobRun, error: ServiceError, *, propagates: bool = False) -> bool:
    """Record that the run will not be dispatched; return False if it is no longer pending, or the update fails."""
    reason = NO_RESPONSE if isinstance(error, OutcomeUnknown) else NOT_SENT
    values = {"reason": reason, "error_class": type(error).__name__, "error_message": str(error)}
    pending = Q(status=Status.PENDING)
    recorded = _update_record(run, lambda: run.transition(Status.FAILED, pending, finished_at=Now(), **values))
    if recorded:
        dispatch_failed.send_robust(JobRun, run=run, error=error, propagates=propagates)
    return recorded
