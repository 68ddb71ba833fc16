"""Reserve runs for a later time, and delete reservations that are no longer needed."""

from __future__ import annotations

from django.db.models import Q

from cloudrun_jobs.backends import Backend, Request
from cloudrun_jobs.environ import RESERVED_VARIABLE
from cloudrun_jobs.exceptions import ServiceError
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.operations import Operation
from cloudrun_jobs.runs import dispatch
from cloudrun_jobs.signals import run_record_failed
from cloudrun_jobs.spec.reservation import Reservation

UNRESERVE_TIMEOUT_SECONDS = 4.0  # `reconcile` deletes what is left.


def reservation_env(reservation: Reservation) -> dict[str, str]:
    """Return the variable with the reserved time. A cron schedule has no year, so it would be due again later."""
    return {RESERVED_VARIABLE: reservation.at.isoformat()}


def reserve(backend: Backend, run: JobRun, request: Request, reservation: Reservation) -> Operation:
    """Reserve the run, and return its handle. Raises a `ServiceError`, recorded as the run's failure."""
    try:
        is_reserved = _reserve(backend, run, request, reservation)
    except ServiceError as error:
        dispatch.record_failed_dispatch(run, error, propagates=True)
        raise
    return backend.operation(run) if is_reserved else dispatch.send(backend, run, request)


def reserve_or_dispatch(backend: Backend, run: JobRun, request: Request, reservation: Reservation) -> str:
    """Reserve the run, or dispatch it if its time has passed; return the result. Raises a `ServiceError`."""
    if _reserve(backend, run, request, reservation):
        return "reserved"
    return dispatch.redispatch(backend, run, request)


def _reserve(backend: Backend, run: JobRun, request: Request, reservation: Reservation) -> bool:
    """Create the reservation, unless the run is cancelled meanwhile; return False if its time has passed."""

    def step(timeout: float) -> str:
        return backend.reserve(request, reservation, timeout=timeout)

    key = dispatch.retry_with_backoff(step, backend.send_deadline)
    if key and not run.update_if(Q(status=Status.PENDING), schedule=key, sending_until=None):
        backend.unreserve(key, timeout=UNRESERVE_TIMEOUT_SECONDS)
    return bool(key)


def release(backend: Backend, run: JobRun) -> bool:
    """Delete the run's reservation; return False if the service failed."""
    try:
        if run.schedule:
            backend.unreserve(run.schedule, timeout=UNRESERVE_TIMEOUT_SECONDS)
    except ServiceError as error:
        run_record_failed.send_robust(JobRun, run=run, error=error)
        return False
    run.update_if(Q(), schedule=None)
    return True
