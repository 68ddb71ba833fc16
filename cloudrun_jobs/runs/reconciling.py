"""Looks after the runs whose sender or container died: sends what was not sent, ends what has ended.

Each step is one conditional UPDATE, so that any number of these may work at once. An error of the service says
nothing about a run: it is asked about again the next time. Locks are not touched: their leases end by themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from .. import conf
from ..backends import Backend, RemoteBackend, Request
from ..exceptions import ServiceError
from ..models import JobRun, Status, TaskRun, Trigger
from ..models.statuses import FINISHED
from ..operations import Observation
from ..reservation import reservation
from ..signals import run_settled, run_troubled
from . import requests, reserving
from .ticks import LATEST

UNSENT = timedelta(minutes=1)  # Older than any `delay()` that still tries.
SENDING = timedelta(minutes=2)  # For so long a run is this process's to send.
SILENT = timedelta(minutes=2)  # Six heartbeats.

ALONE = Observation(status=Status.LOST, reason="process_died", message="Its process ended without a word.")


def reconcile(backend: Backend) -> Counter[str]:
    """Bring the environment's runs in line with what is the case; return how many went where."""
    done: Counter[str] = Counter()
    if backend.is_remote:
        remote = cast(RemoteBackend, backend)
        done.update(requests.send_again(remote, run, _request(run)) for run in _unsent())
        done.update(_settle_reservation(remote, run) for run in _reservations())
    done.update(_look_after(backend, run) for run in _silent().iterator())
    return done


def _ours() -> QuerySet[JobRun]:
    return JobRun.objects.filter(environment=conf.load().environment)


def _request(run: JobRun) -> Request:
    return Request(job=run.job, argv=tuple(run.argv or ()), run_id=str(run.pk))


def _unsent() -> Iterator[JobRun]:
    """Yield the runs that nobody sends, each to one process only."""
    left = Q(status=Status.PENDING, scheduled_for=None, created_at__lt=Now() - UNSENT)
    left &= Q(sending_until=None) | Q(sending_until__lt=Now())
    for run in _ours().filter(left).order_by("created_at").iterator():
        if run.write(left, sending_until=Now() + SENDING):
            yield run


def _reservations() -> Iterator[JobRun]:
    """Yield the reserved runs with something left to do: to book, to give up, to delete the entry of."""
    reserved = _ours().filter(trigger=Trigger.RESERVE)
    unbooked = Q(status=Status.PENDING, schedule=None, created_at__lt=Now() - UNSENT)
    late = Q(status=Status.PENDING, scheduled_for__lt=Now() - LATEST)
    over = Q(status__in=FINISHED) & ~Q(schedule=None)
    yield from reserved.filter(unbooked | late | over).iterator()


def _settle_reservation(backend: RemoteBackend, run: JobRun) -> str:
    now, due = timezone.now(), cast(datetime, run.scheduled_for)
    if run.status == Status.PENDING and due < now - LATEST:
        run.move(Status.LOST, finished_at=Now(), reason="never_started")
        run_settled.send_robust(JobRun, run=run)
    elif run.status == Status.PENDING:
        return _book(backend, run, due, now)
    return run.status if reserving.release(backend, run) else "unknown"


def _book(backend: RemoteBackend, run: JobRun, due: datetime, now: datetime) -> str:
    """Make the entry that was not made; of a run whose time came meanwhile, send the request."""
    if due <= now:
        return requests.send_again(backend, run, _request(run))
    booked = reservation(due, "Etc/UTC", now)
    request = replace(_request(run), told=reserving.told(booked))
    return reserving.book_quietly(backend, run, request, booked)


def _silent() -> QuerySet[JobRun]:
    """Return the runs under way of which no task has been heard lately."""
    heard = TaskRun.objects.filter(run=OuterRef("pk"), heartbeat_at__gt=Now() - SILENT)
    sent = Q(status=Status.SENT, sent_at__lt=Now() - SILENT)
    begun = Q(status=Status.RUNNING, started_at__lt=Now() - SILENT)
    return _ours().filter(sent | begun).exclude(Exists(heard))


def _look_after(backend: Backend, run: JobRun) -> str:
    """Ask what became of a run, and end it if it has ended."""
    try:
        seen = cast(RemoteBackend, backend).observe(run) if backend.is_remote and run.execution else ALONE
    except ServiceError as error:
        run_troubled.send_robust(JobRun, run=run, error=error)
        return "unknown"
    if not run.settle(seen):
        return "under way"
    run_settled.send_robust(JobRun, run=run)
    return run.status
