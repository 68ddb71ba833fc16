"""Reconcile run records: dispatch pending runs, and finish runs whose execution or process has ended.

Each step is one conditional UPDATE, so several reconcilers may work at once. After an error of the service the run
is left as it is. An execution that has ended holds no lock any longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import cast
from uuid import UUID

from django.db import Error
from django.db.models import Count, Max, Q, QuerySet
from django.utils import timezone

from cloudrun_jobs import backends, conf
from cloudrun_jobs.backends import Backend
from cloudrun_jobs.backoff import attempts
from cloudrun_jobs.exceptions import AccessDenied, CloudRunJobsError, ServiceError
from cloudrun_jobs.locks import executions
from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.querysets import (
    HEARTBEAT_TIMEOUT,
    LIVENESS_GRACE_SECONDS,
    NOT_LEASED,
    UNSENT,
    JobRunQuerySet,
)
from cloudrun_jobs.models.statuses import FINISHED
from cloudrun_jobs.operations import PROCESS_DIED, ExecutionState
from cloudrun_jobs.runs import dispatch, redelivery, reductions, reservations
from cloudrun_jobs.signals import run_reconciled, run_record_failed
from cloudrun_jobs.spec.reservation import reservation_at
from cloudrun_jobs.spec.tick import MAX_RESERVATION_DELAY

LIVENESS_POLL_INTERVAL = 1.0  # seconds

# The results for runs whose state could not be read: for lack of a permission, or temporarily.
DENIED, UNKNOWN = "denied", "unknown"


def reconcile_all() -> Counter[str]:
    """Reconcile the environment's runs on every backend; return the number of runs by result."""
    results: Counter[str] = Counter()
    known = backends.configured()
    for backend in known:
        results.update(reconcile(backend))
    aliases = [backend.alias for backend in known]
    others = _environment_runs().running().exclude(backend__in=aliases)
    results.update(_each(others, _reject_backend))
    return results


def reconcile(backend: Backend) -> Counter[str]:
    """Reconcile the environment's runs on one backend; return the number of runs by result."""
    results: Counter[str] = Counter()
    runs = _environment_runs().filter(backend=backend.alias)
    if not backend.runs_in_process:
        unsent = runs.unsent().exclude(trigger=Trigger.RESERVE)
        results.update(_each(unsent, partial(_dispatch, backend)))
    if backend.tracks_executions and not backend.runs_in_process:
        results.update(_each(_reservations(runs), partial(_reconcile_reservation, backend)))
        started = (runs.silent() | runs.interrupted()).exclude(execution=None)
        results.update(_each(started, partial(_settle, backend)))
    elif not backend.runs_in_process:
        results.update(_each(_due_reservations(runs), partial(_dispatch_due, backend)))
        results.update(_each(redelivery.candidates(runs), partial(_redeliver, redelivery.Redelivery(backend))))
    abandoned = runs.abandoned(runs_in_process=backend.runs_in_process)
    results.update(_each(_dead(abandoned), partial(_apply, PROCESS_DIED)))
    return results


def _reject_backend(run: JobRun) -> str:
    """Raise `InvalidSettings`: the settings no longer have the backend of the run."""
    backends.for_run(run)
    return UNKNOWN


def undispatched() -> tuple[int, datetime | None]:
    """Return how many runs are still being dispatched, and when the last of their leases expires."""
    leased = _environment_runs().filter(status=Status.PENDING, sending_until__gte=Now())
    found = leased.aggregate(count=Count("pk"), until=Max("sending_until"))
    return found["count"], found["until"]


def _each(runs: QuerySet[JobRun], work: Callable[[JobRun], str]) -> Iterable[str]:
    """Yield the result for each run, oldest first. An error affects only the run that it concerns."""
    for run in runs.order_by("created_at").iterator():
        try:
            yield work(run)
        except (CloudRunJobsError, Error) as error:
            run_record_failed.send_robust(JobRun, run=run, error=error)
            yield DENIED if isinstance(error, AccessDenied) else UNKNOWN


def _environment_runs() -> JobRunQuerySet:
    return JobRun.objects.filter(environment=conf.load().environment)


def _dispatch(backend: Backend, run: JobRun) -> str:
    if not dispatch.claim_dispatch(run, UNSENT):
        return "already claimed"
    return dispatch.redispatch(backend, run, dispatch.request_of(run))


def _reservations(runs: JobRunQuerySet) -> QuerySet[JobRun]:
    """Return the runs of `reserve()` without a reservation, overdue, or finished with a reservation."""
    overdue = Q(status=Status.PENDING, scheduled_for__lt=Now() - HEARTBEAT_TIMEOUT)
    ended = Q(status__in=FINISHED) & ~Q(schedule=None)
    return runs.filter(UNSENT | overdue | ended, trigger=Trigger.RESERVE)


def _due_reservations(runs: JobRunQuerySet) -> QuerySet[JobRun]:
    """Return the runs of `reserve()` that are due: a queue does not keep a message for long."""
    return runs.filter(NOT_LEASED, status=Status.PENDING, trigger=Trigger.RESERVE, scheduled_for__lte=Now())


def _dispatch_due(backend: Backend, run: JobRun) -> str:
    if not dispatch.claim_dispatch(run, NOT_LEASED & Q(status=Status.PENDING)):
        return "already claimed"
    return dispatch.redispatch(backend, run, dispatch.request_of(run))


def _reconcile_reservation(backend: Backend, run: JobRun) -> str:
    now, due = timezone.now(), cast(datetime, run.scheduled_for)
    is_late = due < now - MAX_RESERVATION_DELAY
    if run.status == Status.PENDING:
        if not run.schedule and not is_late:
            return _reserve(backend, run, due, now)
        if run.schedule and _find_execution(backend, run, is_late=is_late):
            # No container has claimed the run: it is still starting, or it failed before that.
            result = _apply(backend.get_state(run), run)
            if not run.is_finished:
                return result
        elif not is_late:
            return "reserved"
        elif run.transition(Status.LOST, finished_at=Now(), reason="never_started"):
            run_reconciled.send_robust(JobRun, run=run)
    return run.status if reservations.release(backend, run) else UNKNOWN


def _find_execution(backend: Backend, run: JobRun, *, is_late: bool) -> bool:
    """Record the execution that the reservation has started; return False if there is none."""
    try:
        found = backend.find(dispatch.request_of(run), timeout=backend.send_deadline)
    except ServiceError:
        if is_late:
            return False
        raise
    if found is not None:
        dispatch.record_dispatched(run, found)
    return bool(run.execution)


def _reserve(backend: Backend, run: JobRun, due: datetime, now: datetime) -> str:
    """Create a missing reservation, or dispatch the run if its time has passed."""
    if due <= now:
        return _dispatch(backend, run)
    if not dispatch.claim_dispatch(run, UNSENT):
        return "already claimed"
    reservation = reservation_at(due, "Etc/UTC", now)
    request = replace(dispatch.request_of(run), extra_env=reservations.reservation_env(reservation))
    work = partial(reservations.reserve_or_dispatch, backend, run, request, reservation)
    return dispatch.log_dispatch_errors(run, work)


def _redeliver(queue: redelivery.Redelivery, run: JobRun) -> str:
    """Submit the silent tasks of a run again. If all have ended, call `reduce()` or end the run."""
    if not (run.execution or "").startswith(str(run.pk)):
        return _apply(PROCESS_DIED, run)  # Of another backend, which had this alias before.
    state = redelivery.state_of(run)
    if state is None:
        return queue.redeliver(run)
    result = _apply(state, run)  # Before `reduce()`: it releases the locks of the tasks.
    return reductions.start(queue.backend, run, state) if run.awaits_reduction(state) else result


def _settle(backend: Backend, run: JobRun) -> str:
    """Finish the run if its execution has ended, or start an execution for `reduce()` if only that is left."""
    state = backend.get_state(run)
    result = _apply(state, run)
    if not run.is_finished and run.awaits_reduction(state):
        return reductions.start(backend, run, state)
    return result


def _apply(state: ExecutionState, run: JobRun) -> str:
    """Finish the run if the state says that it has ended."""
    ended = executions.settle(run, state, run.execution) if run.execution else run.apply_state(state, None)
    if not ended:
        return run.status if run.is_finished else "under way"
    run_reconciled.send_robust(JobRun, run=run)
    return run.status


def _dead(abandoned: JobRunQuerySet) -> JobRunQuerySet:
    """Return the runs that send no heartbeat during the grace period: the database may have been unavailable."""
    silent: set[UUID] | None = None
    interval = LIVENESS_POLL_INTERVAL
    for _ in attempts(LIVENESS_GRACE_SECONDS, initial=interval, maximum=interval):
        seen = set(abandoned.values_list("pk", flat=True))
        silent = seen if silent is None else silent & seen
        if not silent:
            break
    return abandoned.filter(pk__in=silent or ())
