"""Looks after the runs whose sender or container died: sends what was not sent, ends what has ended.

Each step is one conditional UPDATE, so that any number of these may work at once. An error of the service says
nothing about a run: it is asked about again the next time. Locks are not touched: their leases end by themselves.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import cast

from django.db import Error
from django.db.models import Count, Max, Q, QuerySet
from django.utils import timezone

from cloudrun_jobs import conf
from cloudrun_jobs.backends import Backend, Request
from cloudrun_jobs.exceptions import AccessDenied, CloudRunJobsError
from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.querysets import LIVENESS_GRACE_SECONDS, UNSENT, JobRunQuerySet
from cloudrun_jobs.models.statuses import FINISHED
from cloudrun_jobs.operations import PROCESS_DIED, ExecutionState
from cloudrun_jobs.runs import dispatch, reservations
from cloudrun_jobs.signals import run_reconciled, run_record_failed
from cloudrun_jobs.spec.reservation import reservation_at
from cloudrun_jobs.spec.tick import MAX_RESERVATION_DELAY

LOOKS = 1.0  # Seconds between two looks at whether somebody is heard.

# What a run comes to that cannot be looked after: because this process may not, or for a while.
DENIED, UNKNOWN = "denied", "unknown"


def reconcile(backend: Backend) -> Counter[str]:
    """Bring the environment's runs in line with what is the case; return how many went where."""
    done: Counter[str] = Counter()
    if not backend.runs_in_process:
        remote = backend
        done.update(_each(_ours().unsent().filter(scheduled_for=None), partial(_send, remote)))
        done.update(_each(_reservations(), partial(_settle_reservation, remote)))
        done.update(_each(_ours().silent().exclude(execution=None), partial(_look_after, remote)))
    done.update(_each(_dead(_alone(backend)), partial(_settle, seen=PROCESS_DIED)))
    return done


def undispatched() -> tuple[int, datetime | None]:
    """Return how many runs are their senders' alone to send, and until when the last of them is."""
    theirs = _ours().filter(status=Status.PENDING, schedule=None, sending_until__gte=Now())
    found = theirs.aggregate(count=Count("pk"), until=Max("sending_until"))
    return found["count"], found["until"]


def _each(runs: QuerySet[JobRun], work: Callable[[JobRun], str]) -> Iterable[str]:
    """Do it to each run, the oldest first; what goes wrong with one does not concern the others."""
    for run in runs.order_by("created_at").iterator():
        try:
            yield work(run)
        except (CloudRunJobsError, Error) as error:
            run_record_failed.send_robust(JobRun, run=run, error=error)
            yield DENIED if isinstance(error, AccessDenied) else UNKNOWN


def _ours() -> JobRunQuerySet:
    return JobRun.objects.filter(environment=conf.load().environment)


def _request(run: JobRun) -> Request:
    return Request(job=run.job, argv=tuple(run.argv or ()), run_id=str(run.pk))


def _send(backend: Backend, run: JobRun) -> str:
    if not run.update_if(UNSENT, sending_until=Now() + dispatch.DISPATCH_LEASE):
        return "another's"
    return dispatch.redispatch(backend, run, _request(run))


def _reservations() -> QuerySet[JobRun]:
    """Return the reserved runs with something left to do: to book, to give up, to delete the entry of."""
    late = Q(status=Status.PENDING, scheduled_for__lt=Now() - MAX_RESERVATION_DELAY)
    over = Q(status__in=FINISHED) & ~Q(schedule=None)
    return _ours().filter(UNSENT | late | over, trigger=Trigger.RESERVE)


def _settle_reservation(backend: Backend, run: JobRun) -> str:
    now, due = timezone.now(), cast(datetime, run.scheduled_for)
    if run.status == Status.PENDING and due >= now - MAX_RESERVATION_DELAY:
        return _book(backend, run, due, now)
    if run.status == Status.PENDING and run.transition(Status.LOST, finished_at=Now(), reason="never_started"):
        run_reconciled.send_robust(JobRun, run=run)
    return run.status if reservations.release(backend, run) else UNKNOWN


def _book(backend: Backend, run: JobRun, due: datetime, now: datetime) -> str:
    """Make the entry that was not made; of a run whose time came meanwhile, send the request."""
    if due <= now:
        return _send(backend, run)
    if not run.update_if(UNSENT, sending_until=Now() + dispatch.DISPATCH_LEASE):
        return "another's"
    booked = reservation_at(due, "Etc/UTC", now)
    request = replace(_request(run), extra_env=reservations.reservation_env(booked))
    return reservations.book_later(backend, run, request, booked)


def _look_after(backend: Backend, run: JobRun) -> str:
    """Ask what became of a run, and end it if it has ended."""
    return _settle(run, backend.get_state(run))


def _settle(run: JobRun, seen: ExecutionState) -> str:
    if not run.apply_state(seen, run.execution):
        return "under way"
    run_reconciled.send_robust(JobRun, run=run)
    return run.status


def _alone(backend: Backend) -> JobRunQuerySet:
    """Return the silent runs of which nobody can be asked but they themselves."""
    if not backend.runs_in_process:
        return _ours().silent().filter(execution=None)
    return _ours().silent() | _ours().unsent()


def _dead(alone: JobRunQuerySet) -> JobRunQuerySet:
    """Return those that stay silent while somebody listens: it may have been the database that was away."""
    until = time.monotonic() + LIVENESS_GRACE_SECONDS
    silent = set(alone.values_list("pk", flat=True))
    while silent and time.monotonic() < until:
        time.sleep(LOOKS)
        silent &= set(alone.values_list("pk", flat=True))
    return alone.filter(pk__in=silent)
