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

from .. import conf
from ..backends import Backend, RemoteBackend, Request
from ..exceptions import AccessDenied, CloudRunJobsError
from ..models import JobRun, Status, Trigger
from ..models.clock import Now
from ..models.queries import HEARD_BY, UNSENT, JobRunQuerySet
from ..models.statuses import FINISHED
from ..operations import DIED, Observation
from ..reservation import reservation
from ..signals import run_settled, run_troubled
from . import requests, reserving
from .ticks import LATEST

LOOKS = 1.0  # Seconds between two looks at whether somebody is heard.

# What a run comes to that cannot be looked after: because this process may not, or for a while.
DENIED, UNKNOWN = "denied", "unknown"


def reconcile(backend: Backend) -> Counter[str]:
    """Bring the environment's runs in line with what is the case; return how many went where."""
    done: Counter[str] = Counter()
    if backend.is_remote:
        remote = cast(RemoteBackend, backend)
        done.update(_each(_ours().unsent().filter(scheduled_for=None), partial(_send, remote)))
        done.update(_each(_reservations(), partial(_settle_reservation, remote)))
        done.update(_each(_ours().silent().exclude(execution=None), partial(_look_after, remote)))
    done.update(_each(_dead(_alone(backend)), partial(_settle, seen=DIED)))
    return done


def being_sent() -> tuple[int, datetime | None]:
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
            run_troubled.send_robust(JobRun, run=run, error=error)
            yield DENIED if isinstance(error, AccessDenied) else UNKNOWN


def _ours() -> JobRunQuerySet:
    return JobRun.objects.filter(environment=conf.load().environment)


def _request(run: JobRun) -> Request:
    return Request(job=run.job, argv=tuple(run.argv or ()), run_id=str(run.pk))


def _send(backend: RemoteBackend, run: JobRun) -> str:
    if not run.write(UNSENT, sending_until=Now() + requests.SENDING):
        return "another's"
    return requests.send_again(backend, run, _request(run))


def _reservations() -> QuerySet[JobRun]:
    """Return the reserved runs with something left to do: to book, to give up, to delete the entry of."""
    late = Q(status=Status.PENDING, scheduled_for__lt=Now() - LATEST)
    over = Q(status__in=FINISHED) & ~Q(schedule=None)
    return _ours().filter(UNSENT | late | over, trigger=Trigger.RESERVE)


def _settle_reservation(backend: RemoteBackend, run: JobRun) -> str:
    now, due = timezone.now(), cast(datetime, run.scheduled_for)
    if run.status == Status.PENDING and due >= now - LATEST:
        return _book(backend, run, due, now)
    if run.status == Status.PENDING and run.move(Status.LOST, finished_at=Now(), reason="never_started"):
        run_settled.send_robust(JobRun, run=run)
    return run.status if reserving.release(backend, run) else UNKNOWN


def _book(backend: RemoteBackend, run: JobRun, due: datetime, now: datetime) -> str:
    """Make the entry that was not made; of a run whose time came meanwhile, send the request."""
    if due <= now:
        return _send(backend, run)
    if not run.write(UNSENT, sending_until=Now() + requests.SENDING):
        return "another's"
    booked = reservation(due, "Etc/UTC", now)
    request = replace(_request(run), told=reserving.told(booked))
    return reserving.book_later(backend, run, request, booked)


def _look_after(backend: RemoteBackend, run: JobRun) -> str:
    """Ask what became of a run, and end it if it has ended."""
    return _settle(run, backend.observe(run))


def _settle(run: JobRun, seen: Observation) -> str:
    if not run.settle(seen, run.execution):
        return "under way"
    run_settled.send_robust(JobRun, run=run)
    return run.status


def _alone(backend: Backend) -> JobRunQuerySet:
    """Return the silent runs of which nobody can be asked but they themselves."""
    if backend.is_remote:
        return _ours().silent().filter(execution=None)
    return _ours().silent() | _ours().unsent()


def _dead(alone: JobRunQuerySet) -> JobRunQuerySet:
    """Return those that stay silent while somebody listens: it may have been the database that was away."""
    until = time.monotonic() + HEARD_BY
    silent = set(alone.values_list("pk", flat=True))
    while silent and time.monotonic() < until:
        time.sleep(LOOKS)
        silent &= set(alone.values_list("pk", flat=True))
    return alone.filter(pk__in=silent)
