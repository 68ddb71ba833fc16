"""From `reserve()` to an entry that starts the run, and what becomes of the entry."""

from __future__ import annotations

from functools import partial

from django.db import transaction
from django.db.models import Q

from ..backends import RemoteBackend, Request
from ..conf import RESERVED_VARIABLE
from ..exceptions import ServiceError
from ..models import JobRun, Status
from ..operations import Operation
from ..reservation import Reservation
from ..signals import run_postponed, run_troubled
from . import patience
from .requests import PASSING, persevere, refuse, send


def told(reservation: Reservation) -> dict[str, str]:
    """Return what the container is told: a schedule has no year, so it would be due again."""
    return {RESERVED_VARIABLE: reservation.at.isoformat()}


def arrange(backend: RemoteBackend, run: JobRun, request: Request, reservation: Reservation) -> Operation:
    """Have the run started at its time, once the caller's transaction is committed."""
    if not patience.in_transaction():
        try:
            book(backend, run, request, reservation)
        except ServiceError as error:
            refuse(run, error)
            raise
        return backend.operation(run)
    hook = partial(book_quietly, backend, run, request, reservation)
    transaction.on_commit(hook, using=patience.alias(), robust=True)
    return backend.operation(run)


def book(backend: RemoteBackend, run: JobRun, request: Request, reservation: Reservation) -> None:
    """Make the entry; send the run now if its time is past."""
    step = partial(_reserve, backend, request, reservation)
    if entry := persevere(step, backend.send_deadline):
        run.write(Q(status=Status.PENDING), schedule=entry, sending_until=None)
    else:
        send(backend, run, request)


def _reserve(backend: RemoteBackend, request: Request, reservation: Reservation, timeout: float) -> str:
    return backend.reserve(request, reservation, timeout=timeout)


def book_quietly(backend: RemoteBackend, run: JobRun, request: Request, reservation: Reservation) -> str:
    """Make the entry where there is nobody left to tell of a failure; return what became of it."""
    try:
        book(backend, run, request, reservation)
    except PASSING as error:
        run_postponed.send_robust(JobRun, run=run, error=error)
        return "postponed"
    except ServiceError as error:
        refuse(run, error)
        return "refused"
    return "reserved"


def release(backend: RemoteBackend, run: JobRun) -> bool:
    """Delete the entry of a run that needs it no more; say whether that is done."""
    try:
        if run.schedule:
            backend.unreserve(run.schedule)
    except ServiceError as error:
        run_troubled.send_robust(JobRun, run=run, error=error)
        return False
    run.write(Q(), schedule=None)
    return True
