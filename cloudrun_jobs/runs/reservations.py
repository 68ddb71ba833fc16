"""From `reserve()` to an entry that starts the run, and what becomes of the entry."""

from __future__ import annotations

from functools import partial

from django.db import transaction
from django.db.models import Q

from cloudrun_jobs.backends import Backend, Request
from cloudrun_jobs.environ import RESERVED_VARIABLE
from cloudrun_jobs.exceptions import ServiceError
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.operations import Operation
from cloudrun_jobs.runs import database
from cloudrun_jobs.runs.dispatch import (
    claim_dispatch,
    log_dispatch_errors,
    record_failed_dispatch,
    redispatch,
    retry_with_backoff,
    send,
)
from cloudrun_jobs.signals import run_record_failed
from cloudrun_jobs.spec.reservation import Reservation


def reservation_env(reservation: Reservation) -> dict[str, str]:
    """Return what the container is told: a schedule has no year, so it would be due again."""
    return {RESERVED_VARIABLE: reservation.at.isoformat()}


def arrange(backend: Backend, run: JobRun, request: Request, reservation: Reservation) -> Operation:
    """Have the run started at its time, once the caller's transaction is committed."""
    if database.in_transaction():
        hook = partial(_after_commit, backend, run, request, reservation)
        transaction.on_commit(hook, using=database.database_alias(), robust=True)
        return backend.operation(run)
    try:
        is_booked = _book(backend, run, request, reservation)
    except ServiceError as error:
        record_failed_dispatch(run, error)
        raise
    return backend.operation(run) if is_booked else send(backend, run, request)


def _after_commit(backend: Backend, run: JobRun, request: Request, reservation: Reservation) -> None:
    if claim_dispatch(run):
        book_later(backend, run, request, reservation)


def book_later(backend: Backend, run: JobRun, request: Request, reservation: Reservation) -> str:
    """Make the entry where there is nobody left to tell of a failure; return what became of the run."""

    def book() -> str:
        if _book(backend, run, request, reservation):
            return "reserved"
        return redispatch(backend, run, request)

    return log_dispatch_errors(run, book)


def _book(backend: Backend, run: JobRun, request: Request, reservation: Reservation) -> bool:
    """Make the entry; return False if its time had passed by then. Of a run cancelled meanwhile, none stays."""

    def step(timeout: float) -> str:
        return backend.reserve(request, reservation, timeout=timeout)

    entry = retry_with_backoff(step, backend.send_deadline)
    if entry and not run.update_if(Q(status=Status.PENDING), schedule=entry, sending_until=None):
        backend.unreserve(entry)
    return bool(entry)


def release(backend: Backend, run: JobRun) -> bool:
    """Delete the entry of a run that needs it no more; say whether that is done."""
    try:
        if run.schedule:
            backend.unreserve(run.schedule)
    except ServiceError as error:
        run_record_failed.send_robust(JobRun, run=run, error=error)
        return False
    run.update_if(Q(), schedule=None)
    return True
